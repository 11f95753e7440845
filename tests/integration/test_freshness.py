from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text
from tests.support.replica import Replica, replica
from tests.support.world import import_lines, issue, revoke

from authz_service.cache.follower import Freshness
from authz_service.cache.keys import MembershipsKey, PathKey, TokenKey
from authz_service.catalog.loader import load_catalog
from authz_service.engine.model import PermissionRequest, Reason
from authz_service.errors import (
    CannotDecideError,
    DatabaseUnavailableError,
    NotFreshEnoughError,
    RevisionUnknownError,
    RewoundError,
    StaleError,
)
from authz_service.pdp.question import Ask, Freshly, Question
from authz_service.store.changes import begin_epoch, format_revision, prune_log
from authz_service.store.database import Database

CATALOG = load_catalog(
    """
catalog: gitlab
version: 1
title: A small one
roles: {guest: [], developer: [guest]}
top_role: developer
categories:
  ci:
    pipeline:
      read: {project: [], group: []}
      create: {project: []}
"""
)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    found = Database(database_url)
    await import_lines(found)
    yield found
    await found.close()


@pytest.fixture
async def one(database: Database, database_url: str) -> AsyncIterator[Replica]:
    async with replica(database_url, [CATALOG]) as found:
        yield found


async def ask(
    point: Replica, secret: str, target: str = "acme/platform/api", permission: str = "pipeline:read", **freshly: object
) -> Reason:
    question = Question([Ask(PermissionRequest(permission, target))], "gitlab", freshly=Freshly(**freshly))
    [answer] = await point.point.check(secret, question)
    return answer.decision.reason


async def ask_on(point: Replica, secret: str) -> None:
    """Until something is wrong."""
    for _ in range(200):
        await ask(point, secret)
        await asyncio.sleep(0.02)


async def until(point: Replica, secret: str, wanted: Reason, seconds: float = 3.0) -> None:
    async with asyncio.timeout(seconds):
        while await ask(point, secret) is not wanted:
            await asyncio.sleep(0.005)


async def test_a_revoke_is_denied_by_every_replica(database, database_url, one):
    token, secret = await issue(database)
    async with replica(database_url, [CATALOG]) as other, replica(database_url, [CATALOG], bell=False) as deaf:
        for each in (one, other, deaf):
            assert await ask(each, secret) is Reason.GRANTED
        await revoke(database, token.id)
        for each in (one, other, deaf):
            await until(each, secret, Reason.TOKEN_REVOKED)


async def test_at_least_as_fresh_waits_for_the_revoke(database, one):
    token, secret = await issue(database)
    assert await ask(one, secret) is Reason.GRANTED
    stamp = await revoke(database, token.id)
    assert await ask(one, secret, at_least=format_revision(stamp)) is Reason.TOKEN_REVOKED


async def test_fully_consistent_sees_what_was_committed_before_it_asked(database, one):
    for _ in range(5):
        token, secret = await issue(database)
        assert await ask(one, secret) is Reason.GRANTED
        await revoke(database, token.id)
        assert await ask(one, secret, fully_consistent=True) is Reason.TOKEN_REVOKED


async def test_a_revision_of_the_future_or_of_another_history_is_refused(database, one):
    _, secret = await issue(database)
    applied = one.follower.require_fresh()
    ahead = format_revision(applied).rpartition(".")[0] + f".{applied.revision + 1}"
    with pytest.raises(RevisionUnknownError):
        await ask(one, secret, at_least=ahead)
    with pytest.raises(RevisionUnknownError):
        await ask(one, secret, at_least="r1.00000000.1")


async def test_a_replica_that_cannot_poll_denies_after_s(database, database_url):
    _, secret = await issue(database)
    freshness = Freshness(max_staleness=0.4, poll_interval=0.1, poll_timeout=0.2, at_least_timeout=0.2)
    async with replica(database_url, [CATALOG], freshness=freshness, bell=False) as alone:
        assert await ask(alone, secret) is Reason.GRANTED
        await alone.follower.stop()
        await asyncio.sleep(0.45)
        with pytest.raises(StaleError):
            await ask(alone, secret)
        with pytest.raises(CannotDecideError):
            await ask(alone, secret, fully_consistent=True)


async def test_a_forced_poll_without_an_answer_ends_in_time(database, database_url):
    _, secret = await issue(database)
    freshness = Freshness(max_staleness=30, at_least_timeout=0.1)
    async with replica(database_url, [CATALOG], freshness=freshness) as alone:
        await alone.follower.stop()
        with pytest.raises(NotFreshEnoughError):
            await ask(alone, secret, fully_consistent=True)


async def test_a_history_that_went_back_is_rewound_until_a_new_epoch(database, one):
    token, secret = await issue(database)
    assert await ask(one, secret) is Reason.GRANTED
    await revoke(database, token.id)
    await until(one, secret, Reason.TOKEN_REVOKED)
    async with database.transaction() as conn:  # what a restored backup looks like: the revoke never happened
        head = (await conn.execute(text("select rev from revision"))).scalar_one()
        await conn.execute(text("delete from change_log where rev = :rev"), {"rev": head})
        await conn.execute(
            text(
                "update revision set rev = rev - 1, hash = coalesce("
                "(select hash from change_log order by rev desc, seq desc limit 1), ''::bytea)"
            )
        )
        await conn.execute(text("update token set revoked_at = null"))
    with pytest.raises(RewoundError):
        await ask_on(one, secret)
    async with database.transaction() as conn:
        await begin_epoch(conn)
    async with asyncio.timeout(5):
        while one.follower.rewound:
            await asyncio.sleep(0.02)
    assert await ask(one, secret) is Reason.GRANTED  # an operator accepted this history


async def test_a_tail_that_was_lost_and_written_anew_is_rewound(database, one):
    token, secret = await issue(database)
    other, _ = await issue(database)
    assert await ask(one, secret) is Reason.GRANTED
    await revoke(database, token.id)
    await until(one, secret, Reason.TOKEN_REVOKED)
    await one.follower.stop()
    async with database.transaction() as conn:
        head = (await conn.execute(text("select rev from revision"))).scalar_one()
        await conn.execute(text("delete from change_log where rev = :rev"), {"rev": head})
        await conn.execute(
            text(
                "update revision set rev = rev - 1, hash = coalesce("
                "(select hash from change_log order by rev desc, seq desc limit 1), ''::bytea)"
            )
        )
        await conn.execute(text("update token set revoked_at = null"))
    await revoke(database, other.id)  # the same revision number, another history
    with contextlib.suppress(DatabaseUnavailableError):
        await one.follower.start()
    with pytest.raises(RewoundError):
        await ask_on(one, secret)


async def test_a_replica_outlives_a_pruned_log(database, one):
    token, secret = await issue(database)
    assert await ask(one, secret) is Reason.GRANTED
    await one.follower.stop()
    await revoke(database, token.id)
    for _ in range(3):
        spare, _ = await issue(database)
        await revoke(database, spare.id)
    async with database.transaction() as conn:
        await prune_log(conn, keep=1)
    await one.follower.start()
    await until(one, secret, Reason.TOKEN_REVOKED)
    assert not one.follower.rewound


async def test_a_replica_at_the_very_first_revision_outlives_a_pruned_log(database_url):
    """What was pruned before it looked again is not what it has applied, although it has applied nothing yet."""
    database = Database(database_url)
    async with replica(database_url, [CATALOG]) as new:
        assert new.follower.applied.revision == 0
        await new.follower.stop()
        await import_lines(database)
        for _ in range(3):
            spare, _ = await issue(database)
            await revoke(database, spare.id)
        async with database.transaction() as conn:
            await prune_log(conn, keep=1)
        await new.follower.start()
        assert new.follower.counts.resets == 1
    await database.close()


async def test_a_replica_that_was_stopped_decides_nothing(database, one):
    _, secret = await issue(database)
    assert await ask(one, secret) is Reason.GRANTED
    await one.follower.stop()
    with pytest.raises(StaleError):
        await ask(one, secret)


async def test_a_slow_load_does_not_put_back_what_was_dropped(database, database_url, one):
    """The load reads, the membership goes, the follower drops it, and only then the load arrives."""
    _, secret = await issue(database)
    assert await ask(one, secret) is Reason.GRANTED
    user = one.facts.find_token(one.point.peppers.digest(secret)).owner
    async with one.database.read() as conn:
        stamp, touches, put = await one.loader._reader.read(conn, MembershipsKey(user))
    applied = await import_lines(database, [{"type": "delete", "what": "membership", "user": "dana", "node": "acme"}])
    await one.follower.poll_now()
    assert one.follower.applied.revision >= applied.revision
    assert one.journal.touched_after(stamp.revision, touches)
    assert await ask(one, secret) is Reason.OWNER_NOT_MEMBER
    put()  # without the guard the old membership would be back
    assert await ask(one, secret) is Reason.GRANTED


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ({"type": "delete", "what": "membership", "user": "dana", "node": "acme"}, Reason.OWNER_NOT_MEMBER),
        ({"type": "user", "username": "dana", "external_id": "7", "state": "blocked"}, Reason.OWNER_INACTIVE),
        ({"type": "delete", "what": "project", "node": "acme/platform/api"}, Reason.TARGET_UNKNOWN),
        ({"type": "move", "node": "acme/platform/api", "to": "acme"}, Reason.TARGET_UNKNOWN),
    ],
)
async def test_a_change_of_the_directory_is_seen(database, one, line, reason):
    _, secret = await issue(database)
    assert await ask(one, secret) is Reason.GRANTED
    stamp = await import_lines(database, [line])
    assert await ask(one, secret, at_least=format_revision(stamp)) is reason


async def test_a_transfer_is_one_entry_and_moves_everything_below(database, one):
    _, secret = await issue(database, nodes=["acme"])
    assert await ask(one, secret) is Reason.GRANTED
    await import_lines(database, [{"type": "group", "path": "other", "external_id": "90", "visibility": "private"}])
    before = await one.point.find_token(secret)
    stamp = await import_lines(database, [{"type": "move", "node": "acme/platform", "to": "other"}])
    async with database.read() as conn:
        rows = (
            await conn.execute(
                text("select kind, count(*) from change_log where rev = :rev group by kind"), {"rev": stamp.revision}
            )
        ).all()
    assert [tuple(row) for row in rows] == [("node", 1)]
    assert before is not None
    assert await ask(one, secret, at_least=format_revision(stamp)) is Reason.TARGET_UNKNOWN
    assert await ask(one, secret, target="other/platform/api") is Reason.OUTSIDE_REACH


async def test_a_name_that_was_free_is_found_once_it_is_taken(database, one):
    _, secret = await issue(database, nodes=["acme"])
    assert await ask(one, secret, target="acme/new") is Reason.TARGET_UNKNOWN
    assert await ask(one, secret, target="project:77") is Reason.TARGET_UNKNOWN
    stamp = await import_lines(
        database, [{"type": "project", "path": "acme/new", "external_id": "77", "visibility": "private"}]
    )
    assert await ask(one, secret, target="acme/new", at_least=format_revision(stamp)) is Reason.GRANTED
    assert await ask(one, secret, target="project:77") is Reason.GRANTED


async def test_one_load_serves_all_who_wait_for_it(database, one):
    _, secret = await issue(database)
    reads = 0
    read = one.loader._reader.read

    async def counted(conn, key):
        nonlocal reads
        reads += isinstance(key, PathKey)
        return await read(conn, key)

    one.loader._reader.read = counted
    assert set(await asyncio.gather(*(ask(one, secret) for _ in range(50)))) == {Reason.GRANTED}
    assert reads == 1


async def test_what_is_dropped_in_the_moment_it_arrives_is_loaded_again(database, one):
    """A load has ended, and nobody was told yet: whoever asks now must not be given that load as the newest."""
    _, secret = await issue(database)
    load = one.loader._join(TokenKey(one.point.peppers.digest(secret)))
    while not load.done():
        await asyncio.sleep(0)
    one.facts.drop_all()
    assert await ask(one, secret) is Reason.GRANTED
    assert not one.loader._running


async def test_a_new_token_works_at_once_everywhere(database, database_url, one):
    async with replica(database_url, [CATALOG]) as other:
        for _ in range(10):
            _, secret = await issue(database)
            assert await ask(one, secret) is Reason.GRANTED
            assert await ask(other, secret) is Reason.GRANTED


async def test_a_blocked_connection_to_the_database_is_noticed_and_replaced(database, database_url):
    _, secret = await issue(database)
    freshness = Freshness(max_staleness=1.0, poll_interval=0.1, poll_timeout=0.3)
    async with replica(database_url, [CATALOG], freshness=freshness) as one:
        assert await ask(one, secret) is Reason.GRANTED
        async with database.read() as conn:
            await conn.execute(
                text("select pg_terminate_backend(pid) from pg_stat_activity where application_name like '%follower%'")
            )
        await asyncio.sleep(1.2)
        assert await ask(one, secret) is Reason.GRANTED
        assert one.follower.counts.failures >= 1
