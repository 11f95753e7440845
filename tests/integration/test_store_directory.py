from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text

from authz_service.directory.changes import parse_import
from authz_service.directory.model import INSTANCE_ID, Node, NodeKind, User, UserState, Visibility, parse_target
from authz_service.store import directory
from authz_service.store.changes import current
from authz_service.store.database import Database
from authz_service.store.directory import ChainReading
from authz_service.store.directory_import import ImportResult, apply_import

LINES = (
    {"type": "user", "username": "Dana", "external_id": "7", "namespace_id": "107", "attributes": {"team": "red"}},
    {"type": "user", "username": "erin", "external_id": "8", "admin": True, "external": True, "state": "blocked"},
    {"type": "group", "path": "acme", "external_id": "11", "visibility": "public"},
    {"type": "group", "path": "acme/platform", "external_id": "12", "visibility": "internal"},
    {"type": "project", "path": "acme/platform/Api", "external_id": "42", "archived": True, "attributes": {"tier": 1}},
    {"type": "project", "path": "dana/notes", "external_id": "43"},
    {"type": "user", "username": "bot", "external_id": "9", "service_account": True, "home": "acme/platform"},
    {"type": "membership", "user": "dana", "node": "acme/platform", "role": "developer"},
    {"type": "user", "username": "dana", "external_id": "70", "source": "github", "same_as": "default:7"},
    {"type": "user", "username": "dana2", "external_id": "71", "source": "other", "same_as": "github:dana"},
    {"type": "group", "path": "acme", "external_id": "11", "source": "github"},
)


async def run(database: Database, *lines: dict) -> ImportResult:
    parsed = parse_import(b"\n".join(json.dumps(line).encode() for line in lines))
    return await database.run_in_transaction(lambda conn: apply_import(conn, parsed))


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    found = Database(database_url, bell=False)
    await run(found, *LINES)
    yield found
    await found.close()


async def chain(database: Database, target: str, source: str = "default") -> ChainReading:
    parsed = parse_target(target)
    assert parsed is not None
    async with database.read() as conn:
        return await directory.load_chain(conn, parsed, source=source)


async def id_of(database: Database, target: str, source: str = "default") -> int:
    return int((await chain(database, target, source)).chain[0].id)


def names(nodes: tuple[Node, ...]) -> list[str]:
    return [node.name for node in nodes]


async def test_a_chain_is_the_node_and_all_above_it_at_one_revision(database: Database):
    found = await chain(database, "acme/platform/api")
    api, platform, acme = found.chain
    assert api == Node(
        id=api.id,
        kind=NodeKind.PROJECT,
        name="Api",
        parent=platform.id,
        visibility=Visibility.PRIVATE,
        external_id="42",
        archived=True,
        attributes={"tier": 1},
    )
    assert (platform.parent, acme.parent) == (acme.id, None)
    assert (platform.visibility, acme.visibility) == (Visibility.INTERNAL, Visibility.PUBLIC)
    async with database.read() as conn:
        assert found.stamp == await current(conn)


@pytest.mark.parametrize("target", ["ACME/Platform/API", "project:acme/platform/api", "project:42"])
async def test_a_chain_is_found_by_path_without_case_by_kind_and_by_id(database: Database, target: str):
    assert names((await chain(database, target)).chain) == ["Api", "platform", "acme"]


@pytest.mark.parametrize(
    ("target", "prefix"),
    [
        ("nowhere", []),
        ("acme/nowhere/api", ["acme"]),
        ("acme/platform/api/deeper", ["acme", "platform", "Api"]),
        ("group:acme/platform/api", ["acme", "platform", "Api"]),
        ("project:acme", ["acme"]),
        ("user:acme", ["acme"]),
        ("group:42", []),
        ("project:99", []),
    ],
)
async def test_what_is_not_there_has_no_chain_but_a_revision_and_a_prefix(database: Database, target: str, prefix):
    found = await chain(database, target)
    assert (found.chain, names(found.prefix)) == ((), prefix)
    assert found.stamp.revision == 1


async def test_a_users_namespace_is_the_top_of_their_projects(database: Database):
    notes, dana = (await chain(database, "dana/notes")).chain
    assert (notes.parent, dana.kind, dana.namespace_external_id) == (dana.id, NodeKind.USER, "107")
    assert dana.visibility is Visibility.PUBLIC


async def test_sources_are_apart(database: Database):
    assert await id_of(database, "acme") != await id_of(database, "acme", "github")
    assert (await chain(database, "acme/platform", "github")).chain == ()
    assert (await chain(database, "project:42", "github")).chain == ()


async def test_the_instance_is_row_one_of_every_source(database: Database):
    for source in ("default", "github"):
        (node,) = (await chain(database, "instance", source)).chain
        assert (node.id, node.kind, node.parent) == (INSTANCE_ID, NodeKind.INSTANCE, None)


async def test_no_path_leads_to_the_instance_or_to_a_lost_name(database: Database):
    await run(database, {"type": "group", "path": "acme", "external_id": "99"})
    async with database.read() as conn:
        rows = (await conn.execute(text("select id, name from node where name like '~%'"))).all()
        assert [row.name for row in rows] == [f"~{row.id}" for row in rows]
        assert parse_target(rows[0].name) is None
        assert (await directory.load_edge(conn, "default", None, "instance")).node is None
        assert names((await directory.load_chain_by_id(conn, rows[0].id)).chain) == [rows[0].name]


async def test_an_edge_is_one_step_down(database: Database):
    acme = await id_of(database, "acme")
    async with database.read() as conn:
        top = await directory.load_edge(conn, "default", None, "acme")
        below = await directory.load_edge(conn, "default", acme, "platform")
        missing = await directory.load_edge(conn, "default", acme, "api")
    assert top.node is not None
    assert below.node is not None
    assert (top.node.id, below.node.parent, missing.node) == (acme, acme, None)
    assert missing.stamp == top.stamp


async def test_a_namespace_id_names_a_group_or_a_user(database: Database):
    async with database.read() as conn:
        group = await directory.load_namespace(conn, "default", "12")
        user = await directory.load_namespace(conn, "default", "107")
        nobody = await directory.load_namespace(conn, "default", "7")
    assert (names(group.chain), names(user.chain), nobody.chain) == (["platform", "acme"], ["Dana"], ())


async def test_a_user_is_found_by_name_id_and_node(database: Database):
    async with database.read() as conn:
        by_name = await directory.find_user(conn, username="ERIN")
        by_external = await directory.find_user(conn, external_id="8")
        assert by_name.user is not None
        by_node = await directory.load_user(conn, int(by_name.user.id))
        nobody = await directory.find_user(conn, username="acme")
        elsewhere = await directory.find_user(conn, source="github", username="erin")
    assert by_name == by_external == by_node
    assert by_name.user == User(by_name.user.id, "erin", UserState.BLOCKED, admin=True, external=True)
    assert by_name.node is not None
    assert (nobody.user, elsewhere.user) == (None, None)


async def test_a_service_account_has_its_home(database: Database):
    async with database.read() as conn:
        found = await directory.find_user(conn, username="bot")
    assert found.user is not None
    assert (found.user.service_account, found.user.home) == (True, await id_of(database, "acme/platform"))


async def test_the_same_person_is_found_in_every_source_from_each_of_them(database: Database):
    ids = [
        await id_of(database, "dana"),
        await id_of(database, "dana", "github"),
        await id_of(database, "dana2", "other"),
    ]
    async with database.read() as conn:
        for own in ids:
            stamp, linked = await directory.load_linked_users(conn, own)
            assert (linked[0], sorted(linked)) == (own, sorted(ids))
        assert stamp == await current(conn)
        assert (await directory.load_linked_users(conn, 10**9))[1] == (10**9,)


async def test_memberships_are_one_role_for_each_node(database: Database):
    dana, platform = await id_of(database, "dana"), await id_of(database, "acme/platform")
    async with database.read() as conn:
        assert (await directory.load_memberships(conn, dana)).roles == {platform: "developer"}
        assert (await directory.load_memberships(conn, platform)).roles == {}


@pytest.mark.parametrize(
    ("target", "found"), [("acme", True), ("acme/platform", True), ("acme/platform/api", False), ("dana", False)]
)
async def test_membership_below_is_at_a_node_or_under_it(database: Database, target: str, found: bool):
    dana = await id_of(database, "dana")
    node = await id_of(database, target)
    async with database.read() as conn:
        stamp, above = await directory.load_above_memberships(conn, dana)
        assert (node in above, stamp) == (found, await current(conn))


async def test_descendants_are_all_below_in_pages_by_id(database: Database):
    acme = await id_of(database, "acme")
    async with database.read() as conn:
        _, everything = await directory.load_descendants(conn, acme)
        _, projects = await directory.load_descendants(conn, acme, NodeKind.PROJECT)
        _, first = await directory.load_descendants(conn, acme, limit=1)
        _, rest = await directory.load_descendants(conn, acme, after=int(first[0].id))
        _, groups = await directory.load_descendants(conn, INSTANCE_ID, NodeKind.GROUP)
    assert names(everything) == names(first + rest) == ["platform", "Api"]
    assert names(projects) == ["Api"]
    assert names(groups) == ["acme", "platform", "acme"]


async def test_paths_are_written_from_the_top(database: Database):
    wanted = {target: await id_of(database, target) for target in ("acme/platform/api", "acme", "dana/notes", "dana")}
    async with database.read() as conn:
        found = await directory.load_paths(conn, [*wanted.values(), 10**9])
    assert found == {
        wanted["acme/platform/api"]: (NodeKind.PROJECT, "acme/platform/Api"),
        wanted["acme"]: (NodeKind.GROUP, "acme"),
        wanted["dana/notes"]: (NodeKind.PROJECT, "Dana/notes"),
        wanted["dana"]: (NodeKind.USER, "Dana"),
    }


async def test_what_is_deleted_is_read_by_nobody_but_the_account_by_id(database: Database):
    dana, platform = await id_of(database, "dana"), await id_of(database, "acme/platform")
    await run(
        database,
        {"type": "delete", "what": "group", "node": "acme/platform"},
        {"type": "delete", "what": "user", "user": "dana"},
    )
    for target in ("acme/platform", "acme/platform/api", "project:42", "group:12", "dana", "dana/notes", "user:7"):
        assert (await chain(database, target)).chain == ()
    async with database.read() as conn:
        assert (await directory.load_chain_by_id(conn, platform)).chain == ()
        assert (await directory.load_namespace(conn, "default", "107")).chain == ()
        assert (await directory.find_user(conn, external_id="7")).user is None
        found = (await directory.load_user(conn, dana)).user
        assert found is not None
        assert found.state is UserState.DELETED
        assert (await directory.load_memberships(conn, dana)).roles == {}
        assert await directory.load_paths(conn, [dana, platform]) == {}
        assert (await directory.load_descendants(conn, await id_of(database, "acme")))[1] == ()


async def test_who_holds_the_directory_still_keeps_imports_out_and_not_each_other(database: Database):
    async with database.transaction() as one, database.transaction() as other:
        await directory.hold_still(one)
        await directory.hold_still(other)
        importing = asyncio.create_task(run(database, {"type": "group", "path": "later"}))
        await asyncio.sleep(0.1)
        assert not importing.done()
        assert (await chain(database, "later")).chain == ()
    await importing
    assert names((await chain(database, "later")).chain) == ["later"]
