from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.errors import ConflictError, IdempotencyConflictError, InvalidInputError
from authz_service.store import audit, catalogs, idempotency
from authz_service.store.audit import AuditEntry, AuditFilter
from authz_service.store.changes import ChangeKind, ChangeSet, Revision, Stamp, append, current, since
from authz_service.store.database import Database
from authz_service.store.token_lists import list_page as list_tokens
from authz_service.tokens.model import TokenId

DAVE = TokenId("tok_dave")


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    found = Database(database_url, bell=False)
    yield found
    await found.close()


async def install(database: Database, name: str = "orders", version: int = 1, text: str = "a: 1") -> tuple[bool, Stamp]:
    async def work(conn: AsyncConnection) -> tuple[bool, Stamp]:
        changes = ChangeSet()
        new = await catalogs.install(conn, changes, name=name, version=version, text=text, installed_by="dana")
        return new, await append(conn, changes)

    return await database.run_in_transaction(work)


async def test_a_catalog_is_installed_and_logged_once(database: Database):
    new, stamp = await install(database)
    assert (new, stamp.revision) == (True, 1)
    assert await install(database) == (False, stamp)
    async with database.read() as conn:
        (row,) = (await since(conn, Revision(1))).changes
    assert (row.kind, row.key) == (ChangeKind.CATALOG, "orders")


async def test_a_version_never_changes(database: Database):
    await install(database)
    with pytest.raises(ConflictError, match="`orders@1`"):
        await install(database, text="a: 2")


async def test_the_newest_version_is_loaded_unless_one_is_named(database: Database):
    for version in (1, 3, 2):
        await install(database, version=version, text=f"v: {version}")
    async with database.read() as conn:
        stamp, newest = await catalogs.load(conn, "orders")
        assert newest is not None
        assert (newest.version, newest.text) == (3, "v: 3")
        assert stamp == await current(conn)
        assert await catalogs.load_text(conn, "orders", 1) == (stamp, "v: 1")
        assert await catalogs.load_text(conn, "orders", 9) == (stamp, None)
        assert await catalogs.load_text(conn, "nothing") == (stamp, None)


async def test_all_versions_are_listed_by_name_newest_first(database: Database):
    async with database.read() as conn:
        assert await catalogs.load_all(conn) == (await current(conn), ())
    for name, version in (("orders", 1), ("billing", 1), ("orders", 2)):
        await install(database, name, version)
    async with database.read() as conn:
        _, lean = await catalogs.load_all(conn)
        _, whole = await catalogs.load_all(conn, text=True)
    assert [(one.name, one.version) for one in lean] == [("billing", 1), ("orders", 2), ("orders", 1)]
    assert {one.text for one in lean} == {None}
    assert {one.text for one in whole} == {"a: 1"}


async def record(database: Database, action: str, subject: str = "group:acme", **said: object) -> int:
    async with database.transaction() as conn:
        return await audit.insert(conn, AuditEntry(action, subject, **said), await current(conn))


async def test_an_audit_row_is_read_back_whole(database: Database):
    entry = AuditEntry("token.revoke", "tok_x", DAVE, 7, {"reason": "leak", "many": [1, 2]})
    async with database.transaction() as conn:
        changes = ChangeSet()
        changes.touch(ChangeKind.TOKEN, "tok_x")
        own = await audit.insert(conn, entry, await append(conn, changes))
    async with database.read() as conn:
        (row,), cursor = await audit.list_page(conn)
    assert (row.id, row.entry, row.revision, row.hash, cursor) == (own, entry, 1, None, None)


async def test_an_audit_row_stands_or_falls_with_its_transaction(database: Database):
    with pytest.raises(ZeroDivisionError):
        await record_and_fail(database)
    async with database.read() as conn:
        assert await audit.list_page(conn) == ((), None)


async def record_and_fail(database: Database) -> None:
    async with database.transaction() as conn:
        await audit.insert(conn, AuditEntry("token.revoke", "tok_x"))
        raise ZeroDivisionError


async def test_audit_pages_are_complete_and_newest_first(database: Database):
    ids = [await record(database, f"a.{number}") for number in range(7)]
    found: list[int] = []
    cursor = None
    while True:
        async with database.read() as conn:
            rows, cursor = await audit.list_page(conn, limit=3, cursor=cursor)
        found += [row.id for row in rows]
        if cursor is None:
            break
    assert found == ids[::-1]


@pytest.mark.parametrize(
    ("wanted", "actions"),
    [
        (AuditFilter(actor_token=DAVE), ["token.revoke"]),
        (AuditFilter(actor_user=7), ["token.issue"]),
        (AuditFilter(action="token."), ["token.revoke", "token.issue"]),
        (AuditFilter(action="token"), []),
        (AuditFilter(action="%."), []),
        (AuditFilter(subject="group:acme"), ["directory.import"]),
    ],
)
async def test_audit_filters(database: Database, wanted: AuditFilter, actions: list[str]):
    await record(database, "directory.import")
    await record(database, "token.issue", "tok_x", actor_user=7)
    await record(database, "token.revoke", "tok_x", actor_token=DAVE)
    async with database.read() as conn:
        rows, _ = await audit.list_page(conn, wanted)
        assert [row.entry.action for row in rows] == actions


async def test_audit_is_filtered_by_time_half_open(database: Database):
    await record(database, "a.b")
    async with database.read() as conn:
        (row,), _ = await audit.list_page(conn)
        assert len((await audit.list_page(conn, AuditFilter(at_from=row.at)))[0]) == 1
        assert len((await audit.list_page(conn, AuditFilter(at_before=row.at)))[0]) == 0


async def test_a_cursor_of_another_list_is_refused(database: Database):
    async with database.read() as conn:
        for cursor in (
            "",
            "x",
            "WyJhdWRpdCIsICJ4Il0",
            "WyJhdWRpdCIsICLZoSJd",
            "WyJhdWRpdCIsICI5OTk5OTk5OTk5OTk5OTk5OTk5OTkiXQ",
        ):
            with pytest.raises(InvalidInputError):
                await audit.list_page(conn, cursor=cursor)
            with pytest.raises(InvalidInputError):
                await list_tokens(conn, cursor=cursor)


async def create(
    database: Database, key: str = "k", caller: str = "tok_dave", body: bytes = b"body", wait=None
) -> object:
    """A creation under a key; answers what it answered, and whether it did the work."""

    async def work(conn: AsyncConnection) -> object:
        kept = await idempotency.claim(conn, key=key, caller=caller, body_hash=body)
        if kept is not None:
            return kept, False
        if wait is not None:
            await wait()
        number = (await conn.execute(text("select count(*) from idempotency"))).scalar_one()
        await idempotency.keep(conn, key=key, caller=caller, response={"id": f"tok_{number}"})
        return {"id": f"tok_{number}"}, True

    return await database.run_in_transaction(work)


async def test_the_same_key_creates_once_and_answers_the_same(database: Database):
    assert await create(database) == ({"id": "tok_1"}, True)
    assert await create(database) == ({"id": "tok_1"}, False)


async def test_a_key_is_its_callers_own(database: Database):
    await create(database)
    assert await create(database, caller="tok_erin") == ({"id": "tok_2"}, True)


async def test_a_key_with_another_body_is_a_conflict(database: Database):
    await create(database)
    with pytest.raises(IdempotencyConflictError, match="another body"):
        await create(database, body=b"other")


async def test_of_two_at_once_one_creates_and_both_answer(database: Database):
    answers = await asyncio.gather(*(create(database, wait=lambda: asyncio.sleep(0.05)) for _ in range(5)))
    assert sorted(did for _, did in answers) == [False] * 4 + [True]
    assert all(answer == {"id": "tok_1"} for answer, _ in answers)


async def test_a_key_whose_work_failed_is_free_again(database: Database):
    async def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await create(database, wait=fail)
    assert await create(database) == ({"id": "tok_1"}, True)


async def test_old_keys_are_forgotten_and_young_ones_not(database: Database):
    await create(database, "old")
    async with database.transaction() as conn:
        await conn.execute(text("update clock_shift set shift = interval '25 hours'"))
    await create(database, "young")
    async with database.transaction() as conn:
        assert await idempotency.prune(conn) == 1
        assert await idempotency.prune(conn, older_than=timedelta(0)) == 1
