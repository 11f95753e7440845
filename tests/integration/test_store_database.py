from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.errors import DatabaseUnavailableError, StartError
from authz_service.store.changes import ChangeKind, ChangeSet, append
from authz_service.store.database import BELL_CHANNEL, Database, Timeouts

PASSWORD = "hunter2hunter2"


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    found = Database(database_url)
    yield found
    await found.close()


async def touch(conn: AsyncConnection) -> None:
    changes = ChangeSet()
    changes.touch(ChangeKind.TOKEN, "tok_x")
    await append(conn, changes)


async def touch_and_fail(database: Database) -> None:
    async with database.transaction() as conn:
        await touch(conn)
        raise ZeroDivisionError


class Listener:
    """Counts the rings of the bell."""

    def __init__(self) -> None:
        self.rings = 0
        self.rang = asyncio.Event()

    def hear(self, *_: object) -> None:
        self.rings += 1
        self.rang.set()

    async def next_ring(self) -> None:
        self.rang.clear()
        async with asyncio.timeout(10):
            await self.rang.wait()


@pytest.fixture
async def listener(database: Database) -> AsyncIterator[Listener]:
    heard = Listener()
    connection = await database.connect_direct()
    await connection.add_listener(BELL_CHANNEL, heard.hear)
    yield heard
    connection.terminate()


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://authz:{PASSWORD}@127.0.0.1:1/authz",
        f"postgresql+asyncpg://authz:{PASSWORD}@/authz?host=/nowhere&port=1",
        f"postgres://authz:{PASSWORD}@127.0.0.1:1/authz?sslmode=disable",
    ],
)
async def test_a_server_that_is_not_there_is_named_without_its_password(url: str):
    database = Database(url, timeouts=Timeouts(connect=2))
    with pytest.raises(DatabaseUnavailableError, match="the database `authz` at") as caught:
        async with database.read():
            pass
    assert PASSWORD not in f"{caught.value!r} {database!r}"
    with pytest.raises(DatabaseUnavailableError, match="the database `authz` at"):
        await database.connect_direct()
    await database.close()


async def test_a_server_that_refuses_us_says_why(database_url: str):
    head, _, tail = database_url.partition("authz:")
    database = Database(f"{head}authz:{PASSWORD}@{tail.partition('@')[2]}")
    with pytest.raises(DatabaseUnavailableError, match="refused our password") as caught:
        async with database.transaction():
            pass
    assert PASSWORD not in str(caught.value)
    await database.close()


@pytest.mark.parametrize("url", ["", "sqlite:///x.db", f"mysql://u:{PASSWORD}@h/d", PASSWORD])
def test_a_url_of_something_else_is_refused_without_repeating_it(url: str):
    with pytest.raises(StartError, match="postgresql://") as caught:
        Database(url)
    assert PASSWORD not in str(caught.value)


async def test_a_lost_connection_is_unavailable_and_the_next_use_connects_again(database: Database):
    with pytest.raises(DatabaseUnavailableError):
        async with database.transaction() as conn:
            await conn.execute(text("select pg_terminate_backend(pg_backend_pid())"))
    async with database.read() as conn:
        assert (await conn.execute(text("select 1"))).scalar_one() == 1


async def test_a_busy_pool_is_unavailable(database_url: str):
    database = Database(database_url, pool_size=1, timeouts=Timeouts(connect=0.2))
    async with database.read():
        with pytest.raises(DatabaseUnavailableError, match="in use"):
            async with database.read():
                pass
    await database.close()


async def test_a_statement_that_takes_too_long_is_unavailable(database_url: str):
    database = Database(database_url, timeouts=Timeouts(statement=0.2))
    for use in (database.read, database.snapshot, database.transaction):
        with pytest.raises(DatabaseUnavailableError, match="took too long"):
            async with use() as conn:
                await conn.execute(text("select pg_sleep(5)"))
    await database.close()


async def test_a_fault_of_ours_is_not_called_an_outage(database: Database):
    with pytest.raises(DBAPIError):
        async with database.read() as conn:
            await conn.execute(text("select nothing from nowhere"))


async def test_errors_never_show_the_values_of_a_statement(database: Database):
    with pytest.raises(DBAPIError) as caught:
        async with database.transaction() as conn:
            await conn.execute(text("insert into idempotency values (:canary, null)"), {"canary": PASSWORD})
    assert PASSWORD not in f"{caught.value} {caught.value!r}"


async def test_a_transaction_commits_on_leaving_and_rolls_back_on_an_error(database: Database):
    with pytest.raises(ZeroDivisionError):
        await touch_and_fail(database)
    async with database.read() as conn:
        assert (await conn.execute(text("select rev from revision"))).scalar_one() == 0
    async with database.transaction() as conn:
        await touch(conn)
    async with database.read() as conn:
        assert (await conn.execute(text("select rev from revision"))).scalar_one() == 1


@pytest.mark.parametrize("pooled", [False, True])
async def test_a_write_is_on_disk_when_it_is_acknowledged_whatever_the_default(database_url: str, pooled: bool):
    admin = Database(database_url)
    async with admin.transaction() as conn:
        name = (await conn.execute(text("select current_database()"))).scalar_one()
        await conn.execute(text(f'alter database "{name}" set synchronous_commit = off'))
        await conn.execute(text(f"alter database \"{name}\" set default_transaction_isolation = 'serializable'"))
    await admin.close()
    database = Database(database_url, direct_url=database_url if pooled else None)
    async with database.transaction() as conn:
        assert (await conn.execute(text("show synchronous_commit"))).scalar_one() == "on"
        assert (await conn.execute(text("show transaction_isolation"))).scalar_one() == "read committed"
    await database.close()


async def test_a_snapshot_stays_as_it_was_and_takes_no_writes(database: Database):
    async with database.snapshot() as conn:
        before = (await conn.execute(text("select rev from revision"))).scalar_one()
        async with database.transaction() as writer:
            await touch(writer)
        assert (await conn.execute(text("select rev from revision"))).scalar_one() == before
    with pytest.raises(DatabaseUnavailableError, match="takes no writes"):
        async with database.snapshot() as conn:
            await conn.execute(text("update revision set rev = 7"))


async def test_work_that_deadlocks_is_run_again(database: Database):
    met = asyncio.Barrier(2)
    tries: list[str] = []

    async def work(conn: AsyncConnection, first: int, second: int) -> None:
        tries.append("try")
        await conn.execute(text("select pg_advisory_xact_lock(:n)"), {"n": first})
        if len(tries) <= 2:
            await met.wait()
        await conn.execute(text("select pg_advisory_xact_lock(:n)"), {"n": second})

    await asyncio.gather(
        database.run_in_transaction(lambda conn: work(conn, 1, 2)),
        database.run_in_transaction(lambda conn: work(conn, 2, 1)),
    )
    assert len(tries) == 3


async def test_work_that_fails_to_serialise_is_run_again(database: Database):
    tries: list[int] = []

    async def work(conn: AsyncConnection) -> int:
        tries.append(1)
        if len(tries) < 3:
            await conn.execute(text("do $$ begin raise exception using errcode = '40001'; end $$"))
        return len(tries)

    assert await database.run_in_transaction(work) == 3


async def test_work_that_never_serialises_ends(database: Database):
    async def work(conn: AsyncConnection) -> None:
        await conn.execute(text("do $$ begin raise exception using errcode = '40001'; end $$"))

    with pytest.raises(DBAPIError):
        await database.run_in_transaction(work)


async def test_the_bell_rings_after_a_revision_and_not_without_one(database: Database, listener: Listener):
    async with database.transaction() as conn:
        await conn.execute(text("select 1"))
    await asyncio.sleep(0.2)
    assert listener.rings == 0
    async with database.transaction() as conn:
        await touch(conn)
    await listener.next_ring()


async def test_many_revisions_ring_few_bells_and_one_after_the_last(database: Database, listener: Listener):
    loop = asyncio.get_running_loop()
    start = loop.time()
    for _ in range(60):
        async with database.transaction() as conn:
            await touch(conn)
    await listener.next_ring()
    assert listener.rings <= (loop.time() - start) / 0.02 + 2


async def test_a_rolled_back_revision_rings_no_bell_later(database_url: str, listener: Listener):
    database = Database(database_url, pool_size=1)
    with pytest.raises(ZeroDivisionError):
        await touch_and_fail(database)
    async with database.transaction() as conn:
        await conn.execute(text("select 1"))
    await asyncio.sleep(0.2)
    assert listener.rings == 0
    await database.close()


async def test_a_bell_that_cannot_ring_disturbs_nobody(database_url: str):
    database = Database(database_url, pool_size=1, timeouts=Timeouts(connect=0.2))
    async with database.transaction() as conn:
        await touch(conn)
    async with database.read() as conn:  # the only connection: the bell waits for it in vain
        await asyncio.sleep(0.5)
        assert (await conn.execute(text("select rev from revision"))).scalar_one() == 1
    async with database.transaction() as conn:
        await touch(conn)
    await database.close()


async def test_behind_a_pooler_no_statement_is_prepared_by_name_for_good(database_url: str):
    database = Database(database_url, direct_url=database_url, pool_size=1)
    for _ in range(3):
        async with database.read() as conn:
            await conn.execute(text("select 1"))
            names = (await conn.execute(text("select name from pg_prepared_statements"))).scalars().all()
    assert len(names) <= 1
    await database.close()
