"""Counts of use: bounded in memory, never lost for a busy database, the same however many workers fold them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text
from tests.support.managing import Stage, staged

from authz_service.errors import DatabaseUnavailableError
from authz_service.keepers import keep_folding
from authz_service.pdp.usage import UsageBook, fold
from authz_service.store import usage
from authz_service.store.database import Database
from authz_service.store.usage import ANYWHERE, MANY, NetworkUse, Use
from authz_service.tokens.model import TokenId


@pytest.fixture
async def stage(database_url: str) -> AsyncIterator[Stage]:
    async with staged(database_url) as running:
        yield running


async def a_token(stage: Stage) -> TokenId:
    given = await stage.scope_at("gitlab", ["group:acme"], "job:read")
    return TokenId((await stage.give("dana", given))[0])


async def used(stage: Stage, token: TokenId, days: int = 30) -> dict[tuple[str, str], int]:
    async with stage.database.read() as conn:
        found = await usage.load_used(conn, [token], days=days)
    return {(one.permission, one.place): one.calls for one in found}


def test_a_book_that_is_full_counts_what_it_drops():
    book = UsageBook(most=2)
    for place in ("1", "2", "3", "3", "1"):
        book.note(TokenId("tok_1"), "gitlab", "job:read", place)
    book.note_address(TokenId("tok_1"), "not an address")
    uses, networks = book.take()
    assert {use.place: use.calls for use in uses} == {"1": 2, "2": 1}
    assert book.dropped == 2
    assert networks == []
    assert book.take() == ([], [])


def test_addresses_are_kept_as_networks():
    book = UsageBook()
    for address in ("192.0.2.7", "192.0.2.9", "::ffff:192.0.2.1", "2001:db8:1:2::3", "2001:db8:1:9::3", None):
        book.note_address(TokenId("tok_1"), address)
    assert {one.network: one.calls for one in book.take()[1]} == {"192.0.2.0/24": 3, "2001:db8:1::/48": 2}


async def test_what_workers_fold_at_the_same_time_adds_up(stage: Stage):
    token = await a_token(stage)
    books = [UsageBook() for _ in range(4)]
    for book in books:
        for place in range(50):
            book.note(token, "gitlab", "job:read", str(place), 2)
        book.note(token, "gitlab", "job:read", ANYWHERE)
        book.note_address(token, "192.0.2.7")
    await asyncio.gather(*(fold(book, stage.database) for book in books))
    found = await used(stage, token)
    assert len(found) == 51
    assert sum(found.values()) == 4 * 101
    async with stage.database.read() as conn:
        assert [one.calls for one in await usage.load_networks(conn, token)] == [4]
        last = await conn.scalar(text("select last_used_at from token where id = :id"), {"id": token})
    assert last is not None


async def test_tokens_that_are_gone_are_passed_over(stage: Stage):
    token = await a_token(stage)
    book = UsageBook()
    book.note(TokenId("tok_gone"), "gitlab", "job:read", "1")
    book.note_address(TokenId("tok_gone"), "192.0.2.7")
    book.note(token, "gitlab", "job:read", "1")
    await fold(book, stage.database)
    assert await used(stage, token) == {("job:read", "1"): 1}


async def test_what_could_not_be_stored_is_kept_for_the_next_fold(stage: Stage):
    token = await a_token(stage)
    book = UsageBook()
    book.note(token, "gitlab", "job:read", "1", 3)
    book.note_address(token, "192.0.2.7")
    nowhere = Database("postgresql://nobody@127.0.0.1:1/nothing", bell=False)
    with pytest.raises(DatabaseUnavailableError):
        await fold(book, nowhere)
    await nowhere.close()
    book.note(token, "gitlab", "job:read", "1")
    await fold(book, stage.database)
    assert await used(stage, token) == {("job:read", "1"): 4}


async def test_a_token_that_goes_everywhere_is_kept_within_bounds(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(usage, "_MOST_ROWS", 10)
    monkeypatch.setattr(usage, "_MOST_NETWORKS", 3)
    token = await a_token(stage)
    for start in (0, 10, 20):
        uses = [Use(token, "gitlab", "job:read", str(place)) for place in range(start, start + 10)]
        networks = [NetworkUse(token, f"10.0.{number}.0/24") for number in range(start, start + 10)]
        async with stage.database.transaction() as conn:
            await usage.fold(conn, uses, networks)
    found = await used(stage, token)
    assert len(found) == 11
    assert found["job:read", MANY] == 20
    async with stage.database.read() as conn:
        assert len(await usage.load_networks(conn, token)) == 3


async def test_days_that_are_long_past_are_forgotten(stage: Stage):
    token = await a_token(stage)
    for place in ("1", "2"):
        book = UsageBook()
        book.note(token, "gitlab", "job:read", place)
        await fold(book, stage.database)
        async with stage.database.transaction() as conn:
            await conn.execute(text("update clock_shift set shift = shift + interval '10 days'"))
    assert await used(stage, token, days=15) == {("job:read", "2"): 1}
    async with stage.database.transaction() as conn:
        assert await usage.prune(conn, kept_days=15) == 1
    assert await used(stage, token, days=60) == {("job:read", "2"): 1}


async def test_counts_are_folded_while_the_service_runs(stage: Stage):
    token = await a_token(stage)
    book = UsageBook()
    task = asyncio.create_task(keep_folding(book, stage.database, seconds=0.01, kept_days=90))
    try:
        book.note(token, "gitlab", "job:read", "1")
        async with asyncio.timeout(10):
            while not await used(stage, token):
                await asyncio.sleep(0.01)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_service_that_stops_leaves_nothing_uncounted(database_url: str):
    async with staged(database_url) as stage:
        token = await a_token(stage)
        stage.app.state.services.point.usage.note(token, "gitlab", "job:read", "1")
    database = Database(database_url, bell=False)
    async with database.read() as conn:
        found = await usage.load_used(conn, [token], days=1)
    await database.close()
    assert [one.calls for one in found] == [1]
