from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text

from authz_service.directory.changes import parse_import
from authz_service.directory.model import TargetText
from authz_service.errors import InvalidInputError
from authz_service.store import directory, directory_import, tokens
from authz_service.store.changes import ALL_KEYS, ChangeKind, ChangeSet, Revision, append, current, since
from authz_service.store.database import Database
from authz_service.store.directory_import import ImportResult, apply_import
from authz_service.store.token_rows import TokenRecord
from authz_service.tokens.model import Token, TokenId

START = (
    {"type": "user", "username": "dana", "external_id": "7"},
    {"type": "user", "username": "erin", "external_id": "8"},
    {"type": "group", "path": "acme", "external_id": "11"},
    {"type": "group", "path": "acme/platform", "external_id": "12"},
    {"type": "project", "path": "acme/platform/api", "external_id": "42"},
    {"type": "membership", "user": "dana", "node": "acme", "role": "owner"},
)

EVERYTHING = """
select n.source, n.kind, coalesce(p.external_id, p.name) as parent,
       case when n.name like '~%' then '~' else n.name end as name, n.external_id, n.namespace_id, n.visibility,
       n.archived, n.attributes::text, n.deleted_at is not null as deleted,
       a.state, a.admin, h.external_id as home, s.external_id as same_as,
       (select string_agg(concat_ws(' ', m.role, w.external_id, w.name), ',' order by m.role, w.external_id, w.name)
        from membership m join node w on w.id = m.node_id where m.user_id = n.id) as memberships
from node n left join node p on p.id = n.parent_id left join account a on a.node_id = n.id
left join node h on h.id = a.home_id left join node s on s.id = a.same_as
"""


def parsed(*lines: dict):
    return parse_import(b"\n".join(json.dumps(line).encode() for line in lines))


async def run(database: Database, *lines: dict, source: str = "default") -> ImportResult:
    return await database.run_in_transaction(lambda conn: apply_import(conn, parsed(*lines), source=source))


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    found = Database(database_url, bell=False)
    await run(found, *START)
    yield found
    await found.close()


async def everything(database: Database) -> list[tuple[object, ...]]:
    async with database.read() as conn:
        return sorted((tuple(row) for row in await conn.execute(text(EVERYTHING))), key=repr)


async def id_of(database: Database, path: str) -> int:
    async with database.read() as conn:
        return int((await directory.load_chain(conn, TargetText(None, path=path))).chain[0].id)


async def logged(database: Database, revision: int) -> set[tuple[str, str]]:
    async with database.read() as conn:
        return {(str(row.kind), row.key) for row in (await since(conn, Revision(revision))).changes}


async def test_an_import_is_one_revision_and_says_what_it_did(database: Database):
    result = await run(
        database,
        {"type": "group", "path": "new"},
        {"type": "project", "path": "new/web", "external_id": "50"},
        {"type": "membership", "user": "dana", "node": "new", "role": "guest"},
        {"type": "membership", "user": "dana", "node": "acme", "role": "guest"},
        {"type": "user", "username": "erin", "admin": True},
        {"type": "delete", "what": "project", "node": "acme/platform/api"},
    )
    assert result.stamp.revision == 2
    assert result.counts == {
        "groups_created": 1,
        "memberships_changed": 1,
        "memberships_created": 1,
        "projects_created": 1,
        "projects_deleted": 1,
        "users_changed": 1,
    }
    async with database.read() as conn:
        assert await current(conn) == result.stamp


async def test_an_import_logs_each_thing_it_touched_and_nothing_else(database: Database):
    dana, erin, api = (
        await id_of(database, "dana"),
        await id_of(database, "erin"),
        await id_of(database, "acme/platform/api"),
    )
    result = await run(
        database,
        *START,
        {"type": "project", "path": "acme/platform/api", "visibility": "public"},
        {"type": "user", "username": "erin", "state": "blocked"},
        {"type": "membership", "user": "dana", "node": "acme", "role": "guest"},
    )
    assert await logged(database, result.stamp.revision) == {
        ("node", str(api)),
        ("user", str(erin)),
        ("membership", str(dana)),
    }


async def test_an_import_of_what_is_there_takes_no_revision(database: Database):
    result = await run(database, *START)
    assert (result.counts, result.stamp.revision) == ({}, 1)


async def test_a_transfer_writes_one_row_whatever_lies_below(database: Database):
    await run(database, *({"type": "project", "path": f"acme/platform/p{number}"} for number in range(50)))
    platform, acme = await id_of(database, "acme/platform"), await id_of(database, "acme")
    result = await run(database, {"type": "move", "node": "acme/platform", "to": None})
    assert await logged(database, result.stamp.revision) == {("node", str(platform))}
    assert [(moved.node, moved.parent_before, moved.parent) for moved in result.moved] == [(platform, acme, None)]
    assert await id_of(database, "platform/p49")


async def test_a_faulty_import_stores_nothing_and_names_every_fault(database: Database):
    before = await everything(database)
    with pytest.raises(InvalidInputError, match="2 faults; nothing was stored") as caught:
        await run(
            database,
            {"type": "group", "path": "new"},
            {"type": "membership", "user": "nobody", "node": "acme", "role": "guest"},
            {"type": "delete", "what": "user", "user": "dana"},
            {"type": "group", "path": "acme/platform/api/sub"},
        )
    assert [fault.where for fault in caught.value.faults] == ["line 2", "line 4"]
    assert await everything(database) == before


async def test_a_demotion_leaves_no_trace_of_the_old_role(database: Database):
    await run(database, {"type": "membership", "user": "dana", "node": "acme", "role": "guest"})
    async with database.read() as conn:
        dana = await id_of(database, "dana")
        assert list((await directory.load_memberships(conn, dana)).roles.values()) == ["guest"]


async def test_names_are_swapped_taken_and_given_in_one_import(database: Database):
    dana, erin = await id_of(database, "dana"), await id_of(database, "erin")
    result = await run(
        database,
        {"type": "user", "username": "erin", "external_id": "7", "namespace_id": "900"},
        {"type": "user", "username": "dana", "external_id": "8", "namespace_id": "901"},
    )
    assert (await id_of(database, "erin"), await id_of(database, "dana")) == (dana, erin)
    assert "names_lost" not in result.counts
    await run(
        database,
        {"type": "user", "username": "dana", "external_id": "7", "namespace_id": None},
        {"type": "user", "username": "erin", "external_id": "8", "namespace_id": "900"},
        {"type": "user", "username": "dana", "external_id": "7", "namespace_id": "901"},
    )
    assert (await id_of(database, "dana"), await id_of(database, "erin")) == (dana, erin)


async def test_a_recreated_path_is_a_new_node_and_the_old_one_keeps_its_id(database: Database):
    old = await id_of(database, "acme/platform/api")
    result = await run(database, {"type": "project", "path": "acme/platform/api", "external_id": "43"})
    new = await id_of(database, "acme/platform/api")
    assert new != old
    assert result.counts == {"names_lost": 1, "projects_changed": 1, "projects_created": 1}
    assert await logged(database, result.stamp.revision) == {("node", str(old)), ("node", str(new))}


async def test_deleted_upstream_and_recreated_under_the_same_name_is_another(database: Database):
    old = await id_of(database, "acme/platform/api")
    await run(database, {"type": "delete", "what": "project", "external_id": "42"})
    await run(database, {"type": "project", "path": "acme/platform/api", "external_id": "43"})
    assert await id_of(database, "acme/platform/api") != old
    with pytest.raises(InvalidInputError) as caught:
        await run(database, {"type": "project", "path": "acme/platform/again", "external_id": "42"})
    assert [fault.code for fault in caught.value.faults] == ["deleted"]


async def test_a_deleted_user_loses_tokens_and_memberships_in_the_same_revision(database: Database):
    dana = await id_of(database, "dana")
    own = TokenId("tok_dana")
    async with database.transaction() as conn:
        await tokens.insert(conn, TokenRecord(Token(own, dana, {"gitlab": 1}), "k1", own), b"dana")
    result = await run(database, {"type": "user", "username": "dana", "state": "deleted"})
    assert result.revoked == (own,)
    assert result.counts == {"memberships_deleted": 1, "tokens_revoked": 1, "users_deleted": 1}
    assert await logged(database, result.stamp.revision) == {
        ("node", str(dana)),
        ("user", str(dana)),
        ("membership", str(dana)),
        ("token", own),
    }
    async with database.read() as conn:
        reading = await tokens.find_by_digest(conn, b"dana")
    assert reading.record is not None
    assert (reading.record.token.revoked_at is not None, reading.record.revoked_reason) == (True, "owner deleted")


async def test_blocking_revokes_nothing_and_unblocking_revives(database: Database):
    for state in ("blocked", "active"):
        assert (await run(database, {"type": "user", "username": "dana", "state": state})).revoked == ()


async def test_a_big_import_is_one_revision_with_one_row_for_each_kind(database: Database):
    many = 12_000
    result = await run(
        database,
        *({"type": "project", "path": f"acme/p{number}", "external_id": f"p{number}"} for number in range(many)),
        *({"type": "user", "username": f"u{number}"} for number in range(1_200)),
        *(
            {"type": "membership", "user": f"u{number % 1_200}", "node": f"acme/p{number}", "role": "guest"}
            for number in range(many)
        ),
    )
    assert result.counts == {"projects_created": many, "users_created": 1_200, "memberships_created": many}
    assert await logged(database, result.stamp.revision) == {
        (kind, ALL_KEYS) for kind in ("node", "user", "membership")
    }
    result = await run(database, {"type": "delete", "what": "group", "node": "acme"})
    assert result.counts["projects_deleted"] == many + 1
    assert result.counts["memberships_deleted"] == many + 1


async def test_a_caller_may_put_an_import_into_a_larger_revision(database: Database):
    async def work(conn):
        changes = ChangeSet()
        changes.touch(ChangeKind.POLICY, "p1")
        result = await apply_import(conn, parsed({"type": "group", "path": "new"}), changes=changes)
        return result, await append(conn, changes)

    result, stamp = await database.run_in_transaction(work)
    assert (result.stamp.revision, stamp.revision) == (1, 2)
    assert {kind for kind, _ in await logged(database, 2)} == {"policy", "node"}


async def test_lines_without_a_source_take_that_of_the_import(database: Database):
    await run(
        database,
        {"type": "user", "username": "dana", "external_id": "7"},
        {"type": "user", "username": "dana", "external_id": "7", "source": "other"},
        source="github",
    )
    async with database.read() as conn:
        ids = {
            source: (await directory.find_user(conn, source=source, username="dana")).user.id
            for source in ("default", "github", "other")
        }
    assert len(set(ids.values())) == 3


async def test_two_imports_at_once_are_one_after_the_other(database: Database):
    results = await asyncio.gather(
        *(
            run(
                database,
                {"type": "group", "path": "both", "external_id": f"{number}"},
                {"type": "membership", "user": "dana", "node": "both", "role": f"role{number}"},
            )
            for number in range(100, 108)
        )
    )
    assert sorted(result.stamp.revision for result in results) == list(range(2, 10))
    async with database.read() as conn:
        held = (await conn.execute(text("select count(*) from node where name_key = 'both'"))).scalar_one()
        lost = (await conn.execute(text("select count(*) from node where name like '~%'"))).scalar_one()
    assert (held, lost) == (1, 7)


async def test_deep_renames_are_followed_even_when_everything_must_be_loaded(
    database: Database, monkeypatch: pytest.MonkeyPatch
):
    lines = [
        {"type": "group", "path": "/".join(f"g{n}" for n in range(depth + 1)), "external_id": f"g{depth}"}
        for depth in range(12)
    ]
    await run(database, *lines, {"type": "project", "path": "/".join(f"g{n}" for n in range(12)) + "/web"})
    renames = [
        {"type": "group", "path": "/".join(f"h{n}" for n in range(depth + 1)), "external_id": f"g{depth}"}
        for depth in range(12)
    ]
    web = "/".join(f"h{n}" for n in range(12)) + "/WEB"
    monkeypatch.setattr(directory_import, "_PATIENCE", 1)
    result = await run(database, *renames, {"type": "project", "path": web, "visibility": "public"})
    assert result.counts == {"groups_changed": 12, "projects_changed": 1}


def random_lines(chance: random.Random, many: int) -> list[dict]:
    """Lines that often collide: few names, few ids, every type."""
    name, ident = (lambda: f"n{chance.randrange(4)}"), (lambda: str(chance.randrange(6)))
    path = lambda: "/".join(name() for _ in range(chance.randint(1, 3)))  # noqa: E731
    made: list[dict] = []
    for _ in range(many):
        kind = chance.choice(["user", "group", "group", "project", "membership", "move", "delete", "delete"])
        extra = {"external_id": ident()} if chance.random() < 0.6 else {}
        match kind:
            case "user":
                made.append(
                    {"type": kind, "username": f"u{chance.randrange(3)}", "admin": chance.random() < 0.5, **extra}
                )
            case "group" | "project":
                top = "" if kind == "group" else f"{chance.choice(['n0', 'n1', 'u0'])}/"
                made.append({"type": kind, "path": top + path(), "archived": chance.random() < 0.5, **extra})
            case "membership":
                made.append({"type": kind, "user": f"u{chance.randrange(3)}", "node": path(), "role": name()})
            case "move":
                made.append({"type": kind, "node": path(), "to": chance.choice([None, path(), "u1"])})
            case "delete":
                what = chance.choice(["user", "group", "project"])
                made.append({"type": kind, "what": what, "external_id": ident()})
    return made


@pytest.mark.parametrize("seed", range(4))
async def test_line_by_line_and_all_at_once_end_the_same(make_database, seed: int):
    """The same lines as many imports and as one: the plan over what is loaded sees what the database would have."""
    chance = random.Random(seed)
    one, many = Database(make_database(), bell=False), Database(make_database(), bell=False)
    for _ in range(12):
        kept = []
        for line in random_lines(chance, 12):
            try:
                await run(many, line)
            except InvalidInputError:
                continue
            kept.append(line)
        if kept:
            await run(one, *kept)
        assert await everything(one) == await everything(many)
    async with one.read() as conn:
        assert (await conn.execute(text("select count(*) from node"))).scalar_one() > 10
    await one.close()
    await many.close()
