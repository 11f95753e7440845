from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.directory.changes import parse_import
from authz_service.directory.model import User, UserState
from authz_service.errors import ConflictError, InvalidInputError, NotFoundError
from authz_service.store import directory, tokens
from authz_service.store.changes import ChangeSet, Revision, append, current, since
from authz_service.store.database import Database
from authz_service.store.directory_import import apply_import
from authz_service.store.paging import write_cursor
from authz_service.store.token_lists import TokenFilter, TokenSort, TokenState, list_page
from authz_service.store.token_rows import TokenRecord
from authz_service.store.tokens import TokenReading
from authz_service.tokens.model import Conditions, Reach, ReachKind, Scope, Token, TokenId, TokenKind
from authz_service.tokens.secret import new_token_id

LINES = b"""
{"type": "user", "username": "dana", "external_id": "7", "external": true}
{"type": "user", "username": "erin", "external_id": "8", "admin": true}
{"type": "group", "path": "acme", "external_id": "11"}
{"type": "project", "path": "acme/web", "external_id": "42"}
{"type": "membership", "user": "dana", "node": "acme", "role": "developer"}
{"type": "membership", "user": "dana", "node": "acme/web", "role": "owner"}
"""
DAY = timedelta(days=1)
NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    found = Database(database_url, bell=False)
    await found.run_in_transaction(lambda conn: apply_import(conn, parse_import(LINES)))
    yield found
    await found.close()


@pytest.fixture
async def ids(database: Database) -> dict[str, int]:
    async with database.read() as conn:
        rows = await conn.execute(text("select name, id from node"))
        return {row.name: row.id for row in rows}


@pytest.fixture
def issue(database: Database, ids: dict[str, int]) -> Callable[..., Awaitable[TokenRecord]]:
    """Stores a token of dana's, read-only on `acme/web`; what it is given differs."""

    async def insert(record: dict[str, Any] | None = None, **said: Any) -> TokenRecord:
        own = TokenId(said.pop("id", new_token_id()))
        scope = Scope("gitlab", Reach(ReachKind.SELECTED, (ids["web"],)), ("job:read",))
        token = Token(own, **({"owner": ids["dana"], "catalogs": {"gitlab": 1}, "scopes": (scope,)} | said))
        new = TokenRecord(token, **({"kid": "k1", "family": own} | (record or {})))
        return await database.run_in_transaction(lambda conn: tokens.insert(conn, new, own.encode()))

    return insert


async def find(database: Database, record: TokenRecord) -> TokenReading:
    async with database.read() as conn:
        return await tokens.find_by_digest(conn, record.token.id.encode())


async def write(database: Database, work: Callable[[AsyncConnection, ChangeSet], Awaitable[Any]]) -> Any:
    """Runs the work, appends what it touched; answers (what it answered, the stamp)."""

    async def whole(conn: AsyncConnection) -> Any:
        changes = ChangeSet()
        answer = await work(conn, changes)
        return answer, await append(conn, changes)

    return await database.run_in_transaction(whole)


async def revoke(database: Database, record: TokenRecord, reason: str = "test") -> Any:
    return await write(database, lambda conn, changes: tokens.revoke(conn, changes, record.token.id, reason=reason))


async def logged(database: Database, after: int) -> list[tuple[str, str]]:
    async with database.read() as conn:
        found = (await since(conn, Revision(after + 1))).changes
    return [(str(row.kind), row.key) for row in found]


FULL: dict[str, Any] = {
    "catalogs": {"gitlab": 3, "github": 1},
    "name": "retry-jobs",
    "scopes": (
        Scope("gitlab", Reach(ReachKind.ALL_MEMBERSHIPS), ("job:read", "job:run")),
        Scope("gitlab", Reach(ReachKind.SELECTED, ("project:acme/web", 1)), ()),
        Scope("github", Reach(ReachKind.USER), ("contents:write",)),
    ),
    "legacy_scopes": ("api", "read_api"),
    "not_before": NOON - DAY,
    "expires_at": NOON.replace(microsecond=123456),
    "conditions": Conditions(("10.0.0.0/8", "2001:db8::/32")),
    "evaluates": ("gitlab",),
}


@pytest.mark.parametrize("kind", TokenKind)
async def test_a_token_is_stored_without_loss(database: Database, issue, ids: dict[str, int], kind: TokenKind):
    said = {"reason": "nightly", "may_rotate_self": True, "created_by_token": "tok_x", "created_by_user": ids["erin"]}
    stored = await issue(said, **FULL, kind=kind, resource_owner=ids["acme"])
    found = await find(database, stored)
    assert found.record == stored
    assert stored.token.created_at is not None
    assert dataclasses.replace(stored.token, created_at=None) == Token(
        stored.token.id, ids["dana"], **FULL, kind=kind, resource_owner=ids["acme"]
    )


async def test_an_upstream_owner_is_a_text(database: Database, issue):
    stored = await issue(owner="dana@corp", resource_owner="group:acme", scopes=())
    found = await find(database, stored)
    assert (found.record, found.owner, found.memberships) == (stored, None, {})


async def test_a_token_comes_with_its_owner_and_memberships_of_one_snapshot(database: Database, issue, ids):
    stored = await issue()
    found = await find(database, stored)
    assert found.owner == User(ids["dana"], "dana", UserState.ACTIVE, external=True)
    assert found.memberships == {ids["acme"]: "developer", ids["web"]: "owner"}
    async with database.read() as conn:
        assert found.stamp == await current(conn)
        assert await tokens.find_by_id(conn, stored.token.id) == found
        lean = await tokens.find_by_digest(conn, stored.token.id.encode(), memberships=False)
    assert (lean.record, lean.owner, lean.memberships) == (stored, found.owner, {})


async def test_an_unknown_digest_has_a_revision_and_no_token(database: Database):
    async with database.read() as conn:
        found = await tokens.find_by_digest(conn, b"nobody's")
        assert found == TokenReading(await current(conn), None)


async def test_creation_takes_no_revision(database: Database, issue):
    async with database.read() as conn:
        before = await current(conn)
    assert (await find(database, await issue())).stamp == before


async def test_a_digest_is_one_tokens_alone(database: Database, issue):
    stored = await issue()
    with pytest.raises(Exception, match="uq_token_digest"):
        await database.run_in_transaction(
            lambda conn: tokens.insert(
                conn,
                dataclasses.replace(stored, token=dataclasses.replace(stored.token, id=TokenId("tok_other"))),
                stored.token.id.encode(),
            )
        )


async def test_a_revoke_is_logged_once_and_repeating_it_changes_nothing(database: Database, issue):
    stored = await issue()
    first, stamp = await revoke(database, stored, "leaked")
    again, same = await revoke(database, stored, "another reason")
    assert (first, again, same) == (True, False, stamp)
    assert await logged(database, stamp.revision - 1) == [("token", stored.token.id)]
    found = (await find(database, stored)).record
    assert found is not None
    assert found.token.revoked_at is not None
    assert found.revoked_reason == "leaked"


async def test_revoking_what_is_not_there_is_not_found(database: Database, issue):
    stored = await issue()
    unknown = dataclasses.replace(stored, token=dataclasses.replace(stored.token, id=TokenId("tok_unknown")))
    with pytest.raises(NotFoundError):
        await revoke(database, unknown)


async def test_a_revoke_touches_neither_family_nor_children(database: Database, issue):
    first = await issue()
    rotated = await issue({"family": first.token.id})
    child = await issue(parent=first.token.id)
    await revoke(database, first)
    for other in (rotated, child):
        found = (await find(database, other)).record
        assert found is not None
        assert found.token.revoked_at is None


async def test_a_revoked_family_takes_all_descendants_along(database: Database, issue):
    first = await issue()
    rotated = await issue({"family": first.token.id})
    child = await issue(parent=rotated.token.id)
    childs_rotation = await issue({"family": child.token.id}, parent=rotated.token.id)
    grandchild = await issue(parent=childs_rotation.token.id)
    other = await issue()
    revoked, stamp = await write(
        database, lambda conn, changes: tokens.revoke_family(conn, changes, first.token.id, reason="reuse")
    )
    family = {record.token.id for record in (first, rotated, child, childs_rotation, grandchild)}
    assert set(revoked) == family
    assert {key for _, key in await logged(database, stamp.revision - 1)} == family
    found = (await find(database, other)).record
    assert found is not None
    assert found.token.revoked_at is None


async def test_all_tokens_of_an_owner_are_revoked_and_nobody_elses(database: Database, issue, ids):
    own, others = await issue(), await issue(owner=ids["erin"])
    revoked, _ = await write(
        database, lambda conn, changes: tokens.revoke_of_users(conn, changes, [ids["dana"]], reason="gone")
    )
    assert revoked == (own.token.id,)
    found = (await find(database, others)).record
    assert found is not None
    assert found.token.revoked_at is None


async def test_an_edit_writes_what_may_change_and_nothing_else(database: Database, issue, ids):
    stored = await issue()
    edited = dataclasses.replace(
        stored,
        reason="new",
        may_rotate_self=True,
        token=dataclasses.replace(stored.token, name="new", owner=ids["erin"], expires_at=NOON, scopes=()),
    )
    _, stamp = await write(database, lambda conn, changes: tokens.replace(conn, changes, edited))
    found = (await find(database, stored)).record
    assert found == dataclasses.replace(edited, token=dataclasses.replace(edited.token, owner=ids["dana"]))
    assert await logged(database, stamp.revision - 1) == [("token", stored.token.id)]


async def test_an_edit_never_revives(database: Database, issue):
    stored = await issue()
    await revoke(database, stored)
    with pytest.raises(ConflictError, match="revoked"):
        await write(database, lambda conn, changes: tokens.replace(conn, changes, stored))
    found = (await find(database, stored)).record
    assert found is not None
    assert found.token.revoked_at is not None


async def test_no_token_is_issued_for_a_deleted_owner(database: Database, issue):
    gone = parse_import(b'{"type": "delete", "what": "user", "user": "dana"}')
    await database.run_in_transaction(lambda conn: apply_import(conn, gone))
    with pytest.raises(ConflictError, match="owner is deleted"):
        await issue()


async def test_no_token_is_issued_by_a_revoked_parent_or_into_a_revoked_family(database: Database, issue):
    stored = await issue()
    await revoke(database, stored)
    with pytest.raises(ConflictError, match="revoked"):
        await issue(parent=stored.token.id)
    with pytest.raises(ConflictError, match="family is revoked"):
        await issue({"family": stored.token.id})


async def test_a_family_lives_on_in_its_later_members(database: Database, issue):
    first = await issue()
    await issue({"family": first.token.id})
    await revoke(database, first)
    third = await issue({"family": first.token.id})
    assert (await find(database, third)).record == third


async def test_two_revokes_at_once_are_one(database: Database, issue):
    stored = await issue()
    answers = await asyncio.gather(*(revoke(database, stored, str(number)) for number in range(8)))
    assert sorted(done for done, _ in answers) == [False] * 7 + [True]
    won = next(stamp for done, stamp in answers if done)
    assert all(stamp.revision >= won.revision for _, stamp in answers)
    assert await logged(database, won.revision - 1) == [("token", stored.token.id)]


async def test_a_rotation_cannot_slip_past_the_revocation_of_its_family(database: Database, issue):
    first = await issue()
    held, go = asyncio.Event(), asyncio.Event()

    async def rotate(conn: AsyncConnection) -> TokenRecord:
        old = await tokens.get(conn, first.token.id, lock=True)
        own = TokenId(new_token_id())
        new = dataclasses.replace(old, token=dataclasses.replace(old.token, id=own))
        made = await tokens.insert(conn, new, own.encode())
        held.set()
        await go.wait()
        return made

    rotation = asyncio.create_task(database.run_in_transaction(rotate))
    await held.wait()
    ending = asyncio.create_task(
        write(database, lambda conn, changes: tokens.revoke_family(conn, changes, first.token.id, reason="reuse"))
    )
    await asyncio.sleep(0.1)
    assert not ending.done()
    go.set()
    made = await rotation
    revoked, _ = await ending
    assert set(revoked) == {first.token.id, made.token.id}


async def test_a_child_cannot_slip_past_the_revocation_of_its_parents_family(database: Database, issue):
    first = await issue()
    held, go = asyncio.Event(), asyncio.Event()
    own = TokenId(new_token_id())

    async def give_birth(conn: AsyncConnection) -> None:
        child = TokenRecord(dataclasses.replace(first.token, id=own, parent=first.token.id), "k1", own)
        await tokens.insert(conn, child, own.encode())
        held.set()
        await go.wait()

    birth = asyncio.create_task(database.run_in_transaction(give_birth))
    await held.wait()
    ending = asyncio.create_task(
        write(database, lambda conn, changes: tokens.revoke_family(conn, changes, first.token.id, reason="reuse"))
    )
    await asyncio.sleep(0.1)
    go.set()
    await birth
    assert set((await ending)[0]) == {first.token.id, own}


async def test_no_token_of_a_user_outlives_the_deletion_that_races_its_issue(database: Database, issue, ids):
    held, go = asyncio.Event(), asyncio.Event()
    own = TokenId(new_token_id())

    async def late(conn: AsyncConnection) -> None:
        token = Token(own, ids["dana"], {"gitlab": 1})
        await tokens.insert(conn, TokenRecord(token, "k1", own), own.encode())
        held.set()
        await go.wait()

    issuing = asyncio.create_task(database.run_in_transaction(late))
    await held.wait()
    gone = parse_import(b'{"type": "delete", "what": "user", "user": "dana"}')
    deleting = asyncio.create_task(database.run_in_transaction(lambda conn: apply_import(conn, gone)))
    await asyncio.sleep(0.1)
    assert not deleting.done()
    go.set()
    await issuing
    assert (await deleting).revoked == (own,)


async def test_children_are_listed_newest_first(database: Database, issue):
    first = await issue()
    children = [await issue(parent=first.token.id) for _ in range(3)]
    await issue(parent=children[0].token.id)
    async with database.read() as conn:
        found = await tokens.load_children(conn, first.token.id)
    assert list(found) == children[::-1]


async def test_last_use_moves_forward_and_takes_no_revision(database: Database, issue):
    stored, other = await issue(), await issue()
    own = stored.token.id
    async with database.transaction() as conn:
        await tokens.stamp_used(conn, {own: NOON, TokenId("tok_unknown"): NOON})
        await tokens.stamp_used(conn, {own: NOON - DAY, other.token.id: NOON - DAY})
    found = await find(database, stored)
    assert found.record == dataclasses.replace(stored, last_used_at=NOON)
    assert found.stamp.revision == 1


async def listed(database: Database, wanted: TokenFilter = TokenFilter(), **how: Any) -> list[str]:  # noqa: B008
    """The names of every page, each page but the last complete."""
    names: list[str] = []
    cursor = None
    while True:
        async with database.read() as conn:
            page = await list_page(conn, wanted, limit=2, cursor=cursor, **how)
        names += [record.token.name for record in page.items]
        cursor = page.next_cursor
        if cursor is None:
            return names
        assert len(page.items) == 2


@pytest.fixture
async def many(database: Database, issue, ids) -> None:
    await issue(name="a", expires_at=NOON + DAY)
    await issue(name="b", owner=ids["erin"], expires_at=NOON)
    await issue(name="c", kind=TokenKind.LEGACY, legacy_scopes=("api",), scopes=())
    await issue(name="d_%", owner="someone@corp", catalogs={"orders": 1}, scopes=())
    e = await issue(name="e", not_before=NOON)
    f = await issue(name="f", expires_at=NOON - 20 * 365 * DAY)
    async with database.transaction() as conn:
        await tokens.stamp_used(conn, {e.token.id: NOON, f.token.id: NOON - DAY})
    await revoke(database, f)


async def test_a_list_is_complete_page_by_page(database: Database, many):
    assert await listed(database, sort=TokenSort.NEWEST) == ["f", "e", "d_%", "c", "b", "a"]
    assert await listed(database, sort=TokenSort.OLDEST) == ["a", "b", "c", "d_%", "e", "f"]


async def test_lists_by_expiry_and_by_use_put_those_without_last(database: Database, many):
    assert (await listed(database, sort=TokenSort.EXPIRES))[:3] == ["f", "b", "a"]
    assert (await listed(database, sort=TokenSort.LAST_USED))[:2] == ["e", "f"]
    for sort in TokenSort:
        assert sorted(await listed(database, sort=sort)) == ["a", "b", "c", "d_%", "e", "f"]


FILTERS = (
    (TokenFilter(kind=TokenKind.LEGACY), "c"),
    (TokenFilter(state=TokenState.ACTIVE), "a b c d_%"),
    (TokenFilter(state=TokenState.EARLY), "e"),
    (TokenFilter(state=TokenState.REVOKED), "f"),
    (TokenFilter(state=TokenState.EXPIRED), ""),
    (TokenFilter(owner="someone@corp"), "d_%"),
    (TokenFilter(catalog="orders"), "d_%"),
    (TokenFilter(catalog="order"), ""),
    (TokenFilter(permission="job:read"), "a b e f"),
    (TokenFilter(permission="job:rea"), ""),
    (TokenFilter(search="_%"), "d_%"),
    (TokenFilter(search="%"), "d_%"),
    (TokenFilter(search="SOMEONE"), "d_%"),
    (TokenFilter(search="eri"), "b"),
    (TokenFilter(search="\\"), ""),
    (TokenFilter(search="'; drop table token; --"), ""),
    (TokenFilter(expires_before=NOON + DAY), "b f"),
    (TokenFilter(nodes=()), ""),
    (TokenFilter(kind=TokenKind.LEGACY, catalog="orders"), ""),
)


async def test_a_filter_keeps_what_it_names(database: Database, many):
    found = {repr(wanted): await listed(database, wanted, sort=TokenSort.OLDEST) for wanted, _ in FILTERS}
    assert found == {repr(wanted): names.split() for wanted, names in FILTERS}


async def test_filters_by_owner_node_family_and_parent(database: Database, issue, ids):
    first = await issue(name="first")
    await issue({"family": first.token.id}, name="second", owner=ids["erin"], scopes=())
    await issue(name="third", parent=first.token.id, scopes=())
    assert await listed(database, TokenFilter(owner=ids["erin"])) == ["second"]
    assert await listed(database, TokenFilter(nodes=[ids["web"], ids["acme"]])) == ["first"]
    assert await listed(database, TokenFilter(family=first.token.id)) == ["second", "first"]
    assert await listed(database, TokenFilter(parent=first.token.id)) == ["third"]


async def test_an_edit_moves_a_token_between_the_nodes_it_is_listed_under(database: Database, issue, ids):
    stored = await issue(name="x")
    scope = Scope("gitlab", Reach(ReachKind.SELECTED, (ids["acme"],)), ("job:read",))
    edited = dataclasses.replace(stored, token=dataclasses.replace(stored.token, scopes=(scope,)))
    await write(database, lambda conn, changes: tokens.replace(conn, changes, edited))
    assert await listed(database, TokenFilter(nodes=[ids["web"]])) == []
    assert await listed(database, TokenFilter(nodes=[ids["acme"]])) == ["x"]


async def test_state_is_judged_at_the_clock_of_sql(database: Database, issue):
    await issue(name="x", expires_at=datetime(2100, 1, 1, tzinfo=UTC))
    assert await listed(database, TokenFilter(state=TokenState.EXPIRED)) == []
    async with database.transaction() as conn:
        await conn.execute(text("update clock_shift set shift = interval '200 years'"))
    assert await listed(database, TokenFilter(state=TokenState.EXPIRED)) == ["x"]


async def test_an_empty_page_has_a_revision(database: Database):
    async with database.read() as conn:
        page = await list_page(conn)
        assert (page.stamp, page.items, page.next_cursor) == (await current(conn), (), None)


CURSORS = (
    "",
    "x",
    "é",
    "AAAA",
    "W10",
    "x" * 10_000,
    write_cursor("newest", "no moment", "tok_x"),
    write_cursor("newest", "2030-01-01 12:00:00", "tok_x"),
    write_cursor("oldest", "infinity", "tok_x"),
    write_cursor("newest", "infinity"),
)


async def test_a_cursor_of_another_list_is_refused(database: Database):
    async with database.read() as conn:
        for cursor in CURSORS:
            with pytest.raises(InvalidInputError, match="begin again"):
                await list_page(conn, cursor=cursor)


async def test_a_locked_token_waits_for_its_holder(database: Database, issue):
    stored = await issue()
    async with database.transaction() as conn:
        assert await tokens.get(conn, stored.token.id, lock=True) == stored
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await revoke(database, stored)
    assert (await revoke(database, stored))[0]


async def test_directory_and_tokens_agree_on_the_owner(database: Database, issue, ids):
    found = await find(database, await issue())
    async with database.read() as conn:
        assert (await directory.load_user(conn, ids["dana"])).user == found.owner
        assert (await directory.load_memberships(conn, ids["dana"])).roles == found.memberships
