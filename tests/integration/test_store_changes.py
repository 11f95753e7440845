from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.store.changes import (
    ALL_KEYS,
    MAX_ROWS_OF_A_KIND,
    SINCE_SQL,
    ChangeKind,
    ChangeSet,
    ParsedRevision,
    Poll,
    Revision,
    Stamp,
    append,
    begin_epoch,
    change_hash,
    current,
    format_revision,
    parse_revision,
    prune_log,
    read_poll,
    since,
)
from authz_service.store.database import Database

WRITERS = 16
WRITES = 15


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    found = Database(database_url, pool_size=WRITERS + 2, bell=False)
    yield found
    await found.close()


def touching(*keys: str | int, kind: ChangeKind = ChangeKind.NODE) -> ChangeSet:
    changes = ChangeSet()
    for key in keys:
        changes.touch(kind, key)
    return changes


async def write(database: Database, *keys: str | int, kind: ChangeKind = ChangeKind.NODE) -> Stamp:
    return await database.run_in_transaction(lambda conn: append(conn, touching(*keys, kind=kind)))


async def poll(database: Database, revision: int, limit: int = 1000) -> Poll:
    async with database.read() as conn:
        return await since(conn, Revision(revision), limit)


async def test_a_revision_has_one_row_for_each_thing_it_touched(database: Database):
    changes = touching(7, 8, 7)
    changes.touch(ChangeKind.TOKEN, "tok_1")
    stamp = await database.run_in_transaction(lambda conn: append(conn, changes))
    found = await poll(database, 1)
    assert [(row.revision, row.seq, row.kind, row.key) for row in found.changes] == [
        (1, 0, "node", "7"),
        (1, 1, "node", "8"),
        (1, 2, "token", "tok_1"),
    ]
    assert (found.head, found.tip) == (stamp, found.changes[-1].hash)


async def test_above_a_thousand_rows_of_a_kind_there_is_one_for_all(database: Database):
    changes = touching(*range(MAX_ROWS_OF_A_KIND + 1))
    changes.touch(ChangeKind.USER, 7)
    await database.run_in_transaction(lambda conn: append(conn, changes))
    assert [(row.kind, row.key) for row in (await poll(database, 1)).changes] == [("node", ALL_KEYS), ("user", "7")]


async def test_a_thousand_rows_of_a_kind_are_named(database: Database):
    await write(database, *range(MAX_ROWS_OF_A_KIND))
    assert len((await poll(database, 1)).changes) == MAX_ROWS_OF_A_KIND


async def test_nothing_touched_is_no_revision(database: Database):
    before = await write(database, 7)
    assert await database.run_in_transaction(lambda conn: append(conn, ChangeSet())) == before
    assert (await poll(database, 0)).head == before


async def test_every_row_is_chained_to_the_one_before(database: Database):
    for keys in ((7, 8), (9,), (10, 11, 12)):
        await write(database, *keys)
    async with database.read() as conn:
        rows = (await conn.execute(text("select * from change_log order by rev, seq"))).all()
        tip = (await conn.execute(text("select hash from revision"))).scalar_one()
    previous = bytes(32)
    for row in rows:
        assert row.prev_hash == previous
        assert row.hash == change_hash(previous, row.rev, row.seq, row.kind, row.key, row.at)
        previous = row.hash
    assert (len(rows), previous) == (7, tip)


async def test_two_histories_that_do_the_same_have_different_hashes(database: Database):
    first = await write(database, 7)
    before = (await poll(database, first.revision)).tip
    async with database.transaction() as conn:  # as if a backup from before were restored
        await conn.execute(text("delete from change_log where rev = 1"))
        await conn.execute(text("update revision set rev = 0, hash = (select hash from change_log where rev = 0)"))
    assert await write(database, 7) == first
    assert (await poll(database, first.revision)).tip != before


async def test_a_poll_begins_with_the_revision_applied_last(database: Database):
    for key in range(5):
        await write(database, key)
    assert [row.revision for row in (await poll(database, 3)).changes] == [3, 4, 5]


async def test_a_poll_beyond_the_head_has_no_rows_and_still_the_head(database: Database):
    stamp = await write(database, 7)
    found = await poll(database, 2**62)
    assert (found.changes, found.head, found.in_recovery) == ((), stamp, False)


async def test_a_poll_is_cut_between_revisions_never_within_one(database: Database):
    for _ in range(4):
        await write(database, *range(10))
    found = await poll(database, 1, limit=15)
    assert [row.revision for row in found.changes] == [1] * 10 + [2] * 10
    found = await poll(database, 2, limit=1)
    assert {row.revision for row in found.changes} == {2}


async def test_polls_from_page_to_page_miss_nothing(database: Database):
    for key in range(40):
        await write(database, *range(key % 7 + 1))
    at, seen = 0, set()
    while True:
        found = await poll(database, at, limit=11)
        seen |= {(row.revision, row.seq) for row in found.changes}
        if found.changes[-1].revision == at:
            break
        at = found.changes[-1].revision
    assert len(seen) == 1 + sum(key % 7 + 1 for key in range(40))


async def test_the_raw_connection_of_a_follower_reads_the_same(database: Database):
    await write(database, 7)
    connection = await database.connect_direct()
    raw = read_poll(await connection.fetch(SINCE_SQL, 0, 1000))
    connection.terminate()
    found = await poll(database, 0)
    assert (raw.changes, raw.head, raw.tip) == (found.changes, found.head, found.tip)


async def test_the_clock_of_a_poll_is_the_clock_of_sql(database: Database):
    before = (await poll(database, 0)).clock
    async with database.transaction() as conn:
        await conn.execute(text("update clock_shift set shift = interval '1 day'"))
    assert ((await poll(database, 0)).clock - before).days == 1


async def test_a_new_epoch_is_a_new_history_at_a_later_revision(database: Database):
    before = await write(database, 7)
    after = await database.run_in_transaction(begin_epoch)
    assert after.revision == before.revision + 1
    assert after.epoch != before.epoch
    found = await poll(database, 0)
    assert (found.head, found.changes[-1].kind, found.changes[-1].key) == (after, "epoch", str(after.epoch))


async def test_a_pruned_log_keeps_the_newest(database: Database):
    for key in range(5):
        await write(database, key)
    async with database.transaction() as conn:
        assert await prune_log(conn, keep=2) == 3
    assert [row.revision for row in (await poll(database, 0)).changes] == [3, 4, 5]


async def test_a_later_revision_is_never_seen_before_an_earlier_one(database: Database):
    """The first writer takes its revision and waits; the second must not commit before it."""
    took, go = asyncio.Event(), asyncio.Event()

    async def first(conn: AsyncConnection) -> Stamp:
        stamp = await append(conn, touching("first"))
        took.set()
        await go.wait()
        return stamp

    slow = asyncio.create_task(database.run_in_transaction(first))
    await took.wait()
    fast = asyncio.create_task(write(database, "second"))
    await asyncio.sleep(0.1)
    assert not fast.done()
    assert (await poll(database, 0)).head.revision == 0
    go.set()
    assert (await slow).revision < (await fast).revision


async def test_a_sequence_in_place_of_the_counter_would_lose_a_change(database: Database):
    """Why there is a counter at all: the anomaly, shown without it."""
    async with database.transaction() as conn:
        await conn.execute(text("create sequence numbers"))
        await conn.execute(text("create table log (rev bigint)"))
    take, seen = text("insert into log values (nextval('numbers'))"), text("select rev from log where rev > :at")
    async with database.transaction() as slow, database.read() as reader:
        await slow.execute(take)
        async with database.transaction() as fast:
            await fast.execute(take)
        first = (await reader.execute(seen, {"at": 0})).scalars().all()
        await slow.commit()
        rest = (await reader.execute(seen, {"at": max(first)})).scalars().all()
        assert (first, rest) == ([2], []), "revision 1 is committed, and the reader will never ask for it"


async def test_a_reader_misses_nothing_of_sixteen_writers(database: Database):
    acknowledged: list[int] = []
    seen: dict[int, bytes] = {}
    done = asyncio.Event()
    chance = random.Random(7)

    async def writer(own: int) -> None:
        for number in range(WRITES):

            async def work(conn: AsyncConnection, key: str = f"{own}-{number}") -> Stamp:
                stamp = await append(conn, touching(key))
                await asyncio.sleep(chance.random() * 0.002)  # the commit comes later than the revision
                return stamp

            acknowledged.append((await database.run_in_transaction(work)).revision)

    async def reader() -> None:
        at, tip = 0, None
        while True:
            last = done.is_set()
            found = await poll(database, at, limit=7)
            known = [row for row in found.changes if row.revision == at]
            assert tip is None or known[-1].hash == tip
            for row in found.changes:
                assert row.revision in {at, at + 1}, "a revision was skipped"
                at, tip = row.revision, row.hash
                seen[row.revision] = row.hash
            if last and at == found.head.revision:
                return

    reading = asyncio.create_task(reader())
    await asyncio.gather(*(writer(own) for own in range(WRITERS)))
    done.set()
    await reading
    assert sorted(acknowledged) == list(range(1, WRITERS * WRITES + 1))
    assert set(acknowledged) <= set(seen)


async def test_what_is_acknowledged_is_at_the_head_or_behind_it(database: Database):
    stamps = await asyncio.gather(*(write(database, key) for key in range(WRITERS)))
    async with database.read() as conn:
        head = await current(conn)
    assert max(stamp.revision for stamp in stamps) == head.revision == WRITERS


async def test_a_revision_is_read_back_from_its_text(database: Database):
    stamp = await write(database, 7)
    text = format_revision(stamp)
    assert text == f"r1.{stamp.epoch.hex[:8]}.1"
    assert parse_revision(text) == ParsedRevision(stamp.epoch.hex[:8], stamp.revision)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "r1",
        "r1.0123abcd",
        "r2.0123abcd.1",
        "r1.0123ABCD.1",
        "r1.0123abcd.01",
        "r1.0123abcd.-1",
        "r1.0123abcd.1 ",
        "r1.0123abcd.1\n",
        "r1.0123abcd.\u0661",
        "r1.0123abcd." + "9" * 30,
        "r1..1",
        "1",
    ],
)
def test_a_text_of_another_shape_is_no_revision(text: str):
    assert parse_revision(text) is None
