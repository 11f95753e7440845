from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text
from tests.support.replica import replica
from tests.support.world import import_lines, issue, revoke

from authz_service.admin.settled import Barrier
from authz_service.cache.clock import elapsed
from authz_service.cache.follower import Freshness
from authz_service.store.changes import ChangeKind, ChangeSet, Stamp, append, begin_epoch
from authz_service.store.database import Database
from authz_service.store.replicas import load_all

QUICK = Freshness(max_staleness=2.0, poll_interval=0.2, poll_timeout=0.5)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    found = Database(database_url)
    await import_lines(found)
    yield found
    await found.close()


@pytest.fixture
async def barrier(database: Database) -> AsyncIterator[Barrier]:
    found = Barrier(database, 5.0, elapsed=elapsed)
    yield found
    await found.close()


async def rows(database: Database):
    async with database.read() as conn:
        return await load_all(conn)


async def write(database: Database, *, barrier: bool = True) -> Stamp:
    async def work(conn):
        changes = ChangeSet()
        changes.touch(ChangeKind.TOKEN, "tok_any")
        if barrier:
            changes.touch(ChangeKind.BARRIER, "tok_any")
        return await append(conn, changes)

    return await database.run_in_transaction(work)


async def add_row(database: Database, **changes: object) -> uuid.UUID:
    """The row of a replica that never reports again."""
    row = {"id": uuid.uuid4(), "name": "gone:1", "epoch": None, "rev": -1, "staleness": 1.0} | changes
    async with database.transaction() as conn:
        await conn.execute(
            text("insert into replica values (:id, :name, :epoch, :rev, 0, authz_now(), :staleness, 12)"), row
        )
    return row["id"]


async def test_a_replica_has_a_row_while_it_lives_and_none_when_it_left(database, database_url):
    async with replica(database_url) as one, replica(database_url):
        found = await rows(database)
        assert len(found) == 2
        assert {row.stamp for row in found} == {one.follower.applied}
    assert await rows(database) == []


async def test_a_replica_has_its_row_before_it_decides(database, database_url):
    async with replica(database_url) as one:
        assert one.follower.require_fresh()
        assert one.follower._presence.member.id in {row.id for row in await rows(database)}


async def test_the_wait_ends_when_every_replica_has_applied_the_revision(database, database_url, barrier):
    async with replica(database_url) as one, replica(database_url, bell=False, freshness=QUICK) as deaf:
        for _ in range(5):
            stamp = await write(database)
            before = elapsed()
            await barrier(stamp)
            assert one.follower.applied.revision >= stamp.revision
            assert deaf.follower.applied.revision >= stamp.revision
            assert elapsed() - before < 5.0


async def test_the_wait_ends_for_revisions_that_asked_for_no_report(database, database_url, barrier):
    async with replica(database_url, freshness=QUICK):
        await asyncio.wait_for(barrier(await write(database, barrier=False)), 4.0)


async def test_the_wait_is_over_at_once_where_nobody_decides(database, barrier):
    await asyncio.wait_for(barrier(await write(database)), 1.0)


async def test_the_wait_lasts_until_a_silent_replica_denies_by_itself(database, barrier):
    await add_row(database, staleness=1.0)
    stamp = await write(database)
    before = elapsed()
    await barrier(stamp)
    assert elapsed() - before >= 1.0


async def test_a_replica_of_another_history_is_waited_out(database, barrier):
    await add_row(database, epoch=uuid.uuid4(), rev=10_000, staleness=0.7)
    before = elapsed()
    await barrier(await write(database))
    assert elapsed() - before >= 0.7


async def test_a_database_that_says_nothing_makes_the_wait_last_s(database_url, database):
    lost = Database("postgresql://nobody:x@127.0.0.1:9/none")
    barrier = Barrier(lost, 0.8, elapsed=elapsed)
    before = elapsed()
    await barrier(await write(database))
    assert elapsed() - before >= 0.8
    await barrier.close()
    await lost.close()


async def test_one_look_serves_all_who_wait(database, database_url, barrier):
    looks = 0
    read = database.read

    def counted():
        nonlocal looks
        looks += 1
        return read()

    async with replica(database_url):
        await add_row(database, staleness=1.5)
        stamps = [await write(database) for _ in range(20)]
        database.read = counted
        await asyncio.gather(*(barrier(stamp) for stamp in stamps))
    assert looks < 100


async def test_rows_of_dead_replicas_are_swept_by_the_living(database, database_url):
    gone = await add_row(database, staleness=0.5)
    async with replica(database_url), asyncio.timeout(15):
        while gone in {row.id for row in await rows(database)}:
            await asyncio.sleep(0.1)
        assert len(await rows(database)) == 1


async def test_a_replica_whose_row_is_gone_proves_nothing_until_it_entered_again(database, database_url):
    async with replica(database_url, freshness=QUICK) as one:
        me = one.follower._presence.member.id
        failures = one.follower.counts.failures
        async with database.transaction() as conn:
            await conn.execute(text("delete from replica"))
        async with asyncio.timeout(5):
            while me not in {row.id for row in await rows(database)}:
                await asyncio.sleep(0.02)
            while one.follower.staleness() > 1:
                await asyncio.sleep(0.02)
        assert one.follower.counts.failures == failures + 1
        assert one.follower.require_fresh()


async def test_a_report_that_fails_is_no_proof(database, database_url):
    async with replica(database_url, freshness=QUICK) as one:
        async with database.transaction() as conn:
            await conn.execute(text("alter table replica rename to elsewhere"))
        async with asyncio.timeout(5):
            while one.follower.deadline > elapsed():
                await asyncio.sleep(0.02)
        async with database.transaction() as conn:
            await conn.execute(text("alter table elsewhere rename to replica"))
        async with asyncio.timeout(5):
            while one.follower.deadline < elapsed():
                await asyncio.sleep(0.02)


async def test_an_epoch_that_began_earlier_is_no_accepted_history(database, database_url):
    """A backup from before a former `authz restored`: its epoch is another one, and an old one."""
    async with replica(database_url, freshness=QUICK) as one:
        async with database.read() as conn:
            old = (await conn.execute(text("select rev, epoch, hash, began from revision"))).one()._asdict()
        async with database.transaction() as conn:
            await begin_epoch(conn)
        async with asyncio.timeout(5):
            while one.follower.applied.epoch == old["epoch"]:
                await asyncio.sleep(0.02)
        assert not one.follower.rewound
        async with database.transaction() as conn:
            await conn.execute(text("delete from change_log where rev > :rev"), old)
            await conn.execute(
                text("update revision set rev = :rev, epoch = :epoch, hash = :hash, began = :began"), old
            )
        async with asyncio.timeout(5):
            while not one.follower.rewound:
                await asyncio.sleep(0.02)
        async with database.transaction() as conn:
            await begin_epoch(conn)
        async with asyncio.timeout(5):
            while one.follower.rewound:
                await asyncio.sleep(0.02)


async def test_a_rewound_replica_goes_on_when_its_own_history_is_back(database, database_url):
    """A wrong server answered for a while: nothing was lost, so there is nothing to accept."""
    token, _ = await issue(database)
    async with replica(database_url, freshness=QUICK) as one:
        async with database.read() as conn:
            old = (await conn.execute(text("select rev, hash from revision"))).one()._asdict()
        await revoke(database, token.id)
        async with asyncio.timeout(5):
            while one.follower.applied.revision == old["rev"]:
                await asyncio.sleep(0.02)
        async with database.read() as conn:
            new = (await conn.execute(text("select rev, hash from revision"))).one()._asdict()
        for state, rewound in ((old, True), (new, False)):
            async with database.transaction() as conn:
                await conn.execute(text("update revision set rev = :rev, hash = :hash"), state)
            async with asyncio.timeout(5):
                while one.follower.rewound is not rewound:
                    await asyncio.sleep(0.02)
