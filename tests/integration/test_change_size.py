"""How many entries a change takes in the log: what every replica reads of it, and drops for it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text
from tests.support.world import import_lines, issue, revoke

from authz_service.store.changes import Stamp
from authz_service.store.database import Database


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    found = Database(database_url)
    await import_lines(found)
    yield found
    await found.close()


async def entries(database: Database, stamp: Stamp) -> list[tuple[str, str]]:
    async with database.read() as conn:
        query = text("select kind, key from change_log where rev = :rev order by seq")
        return [tuple(row) for row in (await conn.execute(query, {"rev": stamp.revision})).all()]


async def test_a_revoke_is_one_entry(database):
    token, _ = await issue(database)
    assert await entries(database, await revoke(database, token.id)) == [("token", token.id)]


async def test_a_change_of_membership_is_one_entry(database):
    for line in (
        {"type": "membership", "user": "dana", "node": "acme", "role": "maintainer"},
        {"type": "membership", "user": "dana", "node": "acme/web", "role": "guest"},
        {"type": "delete", "what": "membership", "user": "dana", "node": "acme"},
    ):
        [(kind, _)] = await entries(database, await import_lines(database, [line]))
        assert kind == "membership"


async def test_a_large_import_is_one_revision_of_few_entries(database):
    async with database.read() as conn:
        before = (await conn.execute(text("select rev from revision"))).scalar_one()
    lines = [{"type": "project", "path": f"acme/p{n}", "external_id": str(1000 + n)} for n in range(3000)]
    stamp = await import_lines(database, lines)
    assert stamp.revision == before + 1
    assert await entries(database, stamp) == [("node", "all")]


@pytest.mark.long
async def test_a_transfer_above_fifty_thousand_projects_is_one_entry(database):
    """And the import that makes them, of 100,000 lines, is one revision."""
    async with database.read() as conn:
        before = (await conn.execute(text("select rev from revision"))).scalar_one()
    projects = [
        {"type": "project", "path": f"acme/platform/p{n}", "external_id": str(1000 + n), "visibility": "private"}
        for n in range(50_000)
    ]
    people = [{"type": "user", "username": f"u{n}", "external_id": str(200_000 + n)} for n in range(50_000)]
    stamp = await import_lines(database, [*projects, *people])
    assert stamp.revision == before + 1
    assert sorted(await entries(database, stamp)) == [("node", "all"), ("user", "all")]
    stamp = await import_lines(database, [{"type": "group", "path": "other", "external_id": "90"}])
    [(kind, _)] = await entries(
        database, await import_lines(database, [{"type": "move", "node": "acme/platform", "to": "other"}])
    )
    assert kind == "node"
