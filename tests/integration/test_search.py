"""Search and check agree: whatever a check allows is found, and nothing else, over all pages, in drawn worlds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from itertools import count
from random import Random
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.property.worlds import MIRROR, WorldMaker
from tests.reference import naive, places
from tests.reference.rows import Rows
from tests.support.replica import PEPPERS
from tests.support.stored_rows import put_rows, read_all

from authz_service.cache.facts import Facts
from authz_service.catalog.model import Catalog, Permission
from authz_service.directory.model import NodeKind, UserState
from authz_service.engine.model import PermissionRequest, Request
from authz_service.engine.users import decide_user
from authz_service.errors import InvalidInputError
from authz_service.pdp.search import Circumstances, Found, Search, Subject, token_subject
from authz_service.store.database import Database
from authz_service.tokens.model import Token, TokenId

ADDRESS = "10.1.2.3"
HERE = Circumstances(client_address=ADDRESS)


class Drawn:
    """A drawn world that a database holds, as its rows say it now."""

    def __init__(self, database: Database, rows: Rows, now: Any) -> None:
        self.rows = rows
        self.now = now
        self.search = Search(database, Facts(rows.catalogs))

    def allows(self, token: Token, catalog: Catalog, permission: str, target: str) -> str | None:
        """The reason of the naive reference's allow; None for a deny."""
        request = Request(catalog.name, PermissionRequest(permission, target), self.now, client_address=ADDRESS)
        answer = naive.decide(self.rows, token.id, request)
        return answer.reason.value if answer.allowed else None

    def targets(self, catalog: Catalog) -> dict[str, NodeKind]:
        if catalog.upstream:
            return {}
        found = {"instance": NodeKind.INSTANCE}
        for node in self.rows.nodes:
            if node.source == places.source_of(catalog) and node.kind is not NodeKind.INSTANCE:
                found[places.place_of(self.rows, node).text] = node.kind
        return found


def storable(rows: Rows) -> Rows:
    """Without what no store holds: owners and parents that are gone, circles, two sources' users of one name."""
    alive = {node.id for node in rows.nodes}
    users = {user.id for user in rows.users if user.id in alive and user.state is not UserState.DELETED}
    known: dict[TokenId, Token] = {}
    for token in rows.tokens:
        fits = isinstance(token.owner, str) or token.owner in users
        nodes = {node for scope in token.scopes for node in scope.reach.nodes if isinstance(node, int)}
        parent = token.parent if token.parent in known else None
        if fits and nodes <= alive and token.revoked_at is None:
            known[token.id] = replace(token, parent=parent)
    gone = [user for user in rows.users if user.id not in users]
    return replace(rows, tokens=list(known.values()), users=[user for user in rows.users if user not in gone])


async def drawn(database: Database, seed: int) -> Drawn:
    for number in count():
        rows = storable(WorldMaker(Random(f"search {seed} {number}")).make())
        if not any(node.source == MIRROR for node in rows.nodes):
            break
    await put_rows(database, rows, PEPPERS)
    reading = await read_all(database)
    stored = replace(reading.rows, catalogs=rows.catalogs)
    return Drawn(database, stored, reading.now)


@pytest.fixture
async def make(make_database: Callable[..., str], postgres: Any):
    databases: list[tuple[Database, str]] = []

    async def of(seed: int) -> Drawn:
        url = make_database()
        database = Database(url, bell=False)
        databases.append((database, url))
        return await drawn(database, seed)

    yield of
    for database, url in databases:
        await database.close()
        postgres.drop_database(urlsplit(url).path.removeprefix("/"))


async def all_pages(ask: Callable[[str | None], Awaitable[Found[Any]]]) -> list[Any]:
    items: list[Any] = []
    cursor: str | None = None
    while True:
        page = await ask(cursor)
        items += page.items
        cursor = page.next_cursor
        if cursor is None:
            return items


def catalog_of(world: Drawn, token: Token, name: str) -> Catalog:
    found = naive.catalog_of(world.rows, token, name)
    assert found is not None
    return found


SEEDS = range(8)


@pytest.mark.parametrize("seed", SEEDS)
async def test_search_finds_what_a_check_allows_and_nothing_else(make: Callable[[int], Awaitable[Drawn]], seed: int):
    world = await make(seed)
    allowed = 0
    for token in world.rows.tokens:
        for name in token.catalogs:
            catalog = catalog_of(world, token, name)
            if catalog.upstream:
                continue
            subject = token_subject(token, name)
            expected: dict[str, dict[str, str]] = {}
            for text in world.targets(catalog):
                reasons = {one.name: world.allows(token, catalog, one.name, text) for one in catalog.permissions}
                there = {permission: reason for permission, reason in reasons.items() if reason is not None}
                actions = await world.search.actions(subject, name, text, circumstances=HERE)
                assert {one.permission: one.reason.value for one in actions.items} == there
                if there:
                    expected[text] = there
            found = await all_pages(
                lambda cursor, subject=subject, name=name: world.search.places(
                    subject, name, None, circumstances=HERE, limit=2, cursor=cursor
                )
            )
            assert {
                one.text: {each.permission: each.reason.value for each in one.permissions} for one in found
            } == expected
            allowed += len(found)
            await check_each_permission(world, token, catalog, expected)
    assert allowed


async def check_each_permission(
    world: Drawn, token: Token, catalog: Catalog, expected: dict[str, dict[str, str]]
) -> None:
    for permission in catalog.permissions:
        found = await world.search.places(
            token_subject(token, catalog.name), catalog.name, permission.name, circumstances=HERE, limit=500
        )
        assert {one.text for one in found.items} == {
            text for text, there in expected.items() if permission.name in there
        }


@pytest.mark.parametrize("seed", SEEDS)
async def test_the_tokens_found_are_those_that_a_check_allows(make: Callable[[int], Awaitable[Drawn]], seed: int):
    world = await make(seed)
    newest = {catalog.name: catalog for catalog in world.rows.catalogs}
    for name, catalog in newest.items():
        permissions: list[Permission] = list(catalog.permissions)
        for text in list(world.targets(catalog))[:8]:
            for permission in permissions[:4]:
                expected = {
                    token.id
                    for token in world.rows.tokens
                    if name in token.catalogs
                    and world.allows(token, catalog_of(world, token, name), permission.name, text)
                }
                found = await all_pages(
                    lambda cursor, name=name, permission=permission, text=text: world.search.tokens(
                        name, permission.name, text, circumstances=HERE, limit=1, cursor=cursor
                    )
                )
                assert [record.token.id for record in found] == sorted(expected)


async def test_the_users_found_are_those_for_whom_the_judge_allows(make: Callable[[int], Awaitable[Drawn]]):
    world = await make(3)
    catalog = max((one for one in world.rows.catalogs if not one.upstream), key=lambda one: one.version)

    def judge(user: Any, facts: Any, request: Request) -> Any:
        return decide_user(user, catalog, facts, request)

    found_any = False
    for text in world.targets(catalog):
        for permission in catalog.permissions[:3]:
            found = await all_pages(
                lambda cursor, permission=permission, text=text: world.search.users(
                    catalog.name, permission.name, text, judge, limit=1, cursor=cursor
                )
            )
            one_by_one = set()
            for user in world.rows.users:
                subject = Subject(user.id, lambda facts, request, user=user: judge(user.id, facts, request))
                page = await world.search.actions(subject, catalog.name, text)
                if permission.name in {one.permission for one in page.items}:
                    one_by_one.add(user.id)
            assert {user.id for user in found} == one_by_one
            found_any = found_any or bool(found)
    assert found_any


async def test_without_a_directory_search_names_what_the_scopes_speak_of(
    make: Callable[[int], Awaitable[Drawn]],
):
    for seed in range(40):
        world = await make(seed)
        for token in world.rows.tokens:
            for name in token.catalogs:
                catalog = catalog_of(world, token, name)
                if not catalog.upstream:
                    continue
                found = await world.search.places(token_subject(token, name), name, None, circumstances=HERE)
                for place in found.items:
                    for one in place.permissions:
                        asked = place.text.replace("*", "some")
                        assert world.allows(token, catalog, one.permission, asked) == one.reason.value
                if any(place.below for place in found.items):
                    return
    raise AssertionError("no drawn token holds anything in a group that no directory knows")


@pytest.mark.parametrize("cursor", ["", "x", "bm90aGluZw", "WyJwbGFjZXMiLCItMSJd", "WyJ0b2tlbnMiLCIxIl0"])
async def test_a_cursor_of_another_list_is_refused(make: Callable[[int], Awaitable[Drawn]], cursor: str):
    world = await make(1)
    token = world.rows.tokens[0]
    name = next(iter(token.catalogs))
    with pytest.raises(InvalidInputError) as raised:
        await world.search.places(token_subject(token, name), name, None, cursor=cursor)
    assert [fault.code for fault in raised.value.faults] == ["invalid_cursor"]


async def test_what_does_not_exist_is_an_empty_page(make: Callable[[int], Awaitable[Drawn]]):
    world = await make(1)
    token = world.rows.tokens[0]
    name = next(iter(token.catalogs))
    subject = token_subject(token, name)
    assert (await world.search.actions(subject, name, "project:no/such")).items == ()
    assert (await world.search.places(subject, name, "no:such")).items == ()
    assert (await world.search.places(token_subject(token, "nobody"), "nobody", None)).items == ()
    assert (await world.search.tokens("nobody", "no:such", "instance")).items == ()
    assert (await world.search.tokens(name, "no:such", "instance")).items == ()
    assert (await world.search.tokens(name, "issue:read", "project:no/such")).items == ()
