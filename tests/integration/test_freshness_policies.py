"""The staleness promise holds for policies and grants: every replica denies by them, or by itself, within S."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.support.replica import Replica, replica
from tests.support.world import import_lines, issue

from authz_service.cache.follower import Freshness
from authz_service.cache.keys import GrantsKey, PoliciesKey
from authz_service.catalog.loader import load_catalog
from authz_service.directory.model import INSTANCE_ID, TargetText
from authz_service.engine.model import PermissionRequest, Reason
from authz_service.errors import CannotDecideError, StaleError
from authz_service.pdp.question import Ask, Freshly, Question
from authz_service.store import directory, grants, policies
from authz_service.store.changes import ChangeKind, ChangeSet, Stamp, append, format_revision
from authz_service.store.database import Database
from authz_service.store.grants import NOBODY
from authz_service.tokens.grants import GrantState, Origin
from authz_service.tokens.model import TokenId, TokenKind
from authz_service.tokens.policy import ALWAYS, ApprovalRule, KindRule, Policy

CATALOG = load_catalog(
    """
catalog: gitlab
version: 1
roles: {guest: [], developer: [guest]}
top_role: developer
permissions:
  pipeline: {read: {project: [], group: []}}
"""
)
FORBID = {TokenKind.FINE_GRAINED: KindRule(ALWAYS)}


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    found = Database(database_url)
    await import_lines(found)
    yield found
    await found.close()


async def node(database: Database, path: str) -> int:
    async with database.read() as conn:
        return int((await directory.load_chain(conn, TargetText(None, path=path))).chain[0].id)


async def rule(database: Database, place: int, **said: Any) -> Stamp:
    """Set a policy behind every replica's back; returns when it is committed: from then on S counts."""

    async def work(conn: Any) -> Stamp:
        changes = ChangeSet()
        await policies.put(conn, changes, Policy(place, "gitlab", **said), expected=None)
        return await append(conn, changes)

    return await database.run_in_transaction(work)


async def grant(database: Database, token: TokenId, group: int) -> Stamp:
    async def work(conn: Any) -> Stamp:
        changes = ChangeSet()
        pairs = [("pipeline:read", group)]
        await grants.give(conn, changes, token, "gitlab", group, pairs, origin=Origin.REVIEW, by=NOBODY)
        return await append(conn, changes)

    return await database.run_in_transaction(work)


async def take_back(database: Database, token: TokenId) -> Stamp:
    async def work(conn: Any) -> Stamp:
        changes = ChangeSet()
        found = await grants.load_of_family(conn, token)
        [active] = [one for one in found.grants if one.state is GrantState.ACTIVE]
        record = await grants.find_grant(conn, active.id)
        assert record is not None
        await grants.revoke(conn, changes, record, by=NOBODY, reason="test")
        return await append(conn, changes)

    return await database.run_in_transaction(work)


async def ask(point: Replica, secret: str, **freshly: Any) -> Reason:
    about = PermissionRequest("pipeline:read", "acme/platform/api")
    [answer] = await point.point.check(secret, Question([Ask(about)], "gitlab", freshly=Freshly(**freshly)))
    return answer.decision.reason


async def until(point: Replica, secret: str, wanted: Reason) -> None:
    async with asyncio.timeout(3):
        while await ask(point, secret) is not wanted:
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("place", ["instance", "acme", "acme/platform"])
async def test_a_policy_at_any_place_above_reaches_every_replica(database, database_url, place):
    _, secret = await issue(database)
    number = INSTANCE_ID if place == "instance" else await node(database, place)
    async with replica(database_url, [CATALOG]) as one, replica(database_url, [CATALOG], bell=False) as deaf:
        for each in (one, deaf):
            assert await ask(each, secret) is Reason.GRANTED
        await rule(database, number, kinds=FORBID)
        for each in (one, deaf):
            await until(each, secret, Reason.POLICY_FORBIDS_KIND)
        await rule(database, number)
        for each in (one, deaf):
            await until(each, secret, Reason.GRANTED)


async def test_a_grant_given_and_taken_back_reaches_every_replica(database, database_url):
    token, secret = await issue(database)
    group = await node(database, "acme")
    await rule(database, group, approval=ApprovalRule(required=True))
    async with replica(database_url, [CATALOG]) as one, replica(database_url, [CATALOG], bell=False) as deaf:
        for each in (one, deaf):
            assert await ask(each, secret) is Reason.APPROVAL_PENDING
        await grant(database, token.id, group)
        for each in (one, deaf):
            await until(each, secret, Reason.GRANTED)
        await take_back(database, token.id)
        for each in (one, deaf):
            await until(each, secret, Reason.APPROVAL_REVOKED)


async def test_at_least_as_fresh_waits_for_policies_and_grants(database, database_url):
    token, secret = await issue(database)
    group = await node(database, "acme")
    async with replica(database_url, [CATALOG]) as one:
        assert await ask(one, secret) is Reason.GRANTED
        stamp = await rule(database, group, approval=ApprovalRule(required=True))
        assert await ask(one, secret, at_least=format_revision(stamp)) is Reason.APPROVAL_PENDING
        stamp = await grant(database, token.id, group)
        assert await ask(one, secret, at_least=format_revision(stamp)) is Reason.GRANTED
        await take_back(database, token.id)
        assert await ask(one, secret, fully_consistent=True) is Reason.APPROVAL_REVOKED


async def test_a_replica_that_cannot_poll_never_allows_by_the_old_policy_after_s(database, database_url):
    _, secret = await issue(database)
    freshness = Freshness(max_staleness=0.4, poll_interval=0.1, poll_timeout=0.2, at_least_timeout=0.2)
    async with replica(database_url, [CATALOG], freshness=freshness, bell=False) as alone:
        assert await ask(alone, secret) is Reason.GRANTED
        await alone.follower.stop()
        await rule(database, await node(database, "acme"), kinds=FORBID)
        await asyncio.sleep(0.45)
        with pytest.raises(StaleError):
            await ask(alone, secret)


@pytest.mark.parametrize("what", ["policy", "grant"])
async def test_a_slow_load_does_not_put_back_what_was_changed(database, database_url, monkeypatch, what):
    """The rows are read, then changed, and only then put in: the load must read again."""
    token, secret = await issue(database)
    group = await node(database, "acme")
    await rule(database, group, approval=ApprovalRule(required=True))
    await grant(database, token.id, group)
    async with replica(database_url, [CATALOG]) as one:
        assert await ask(one, secret) is Reason.GRANTED
        one.facts.drop_policies(None)
        one.facts.drop_grants(None)
        key = PoliciesKey("gitlab") if what == "policy" else GrantsKey(token.id)
        read = one.loader._reader.read
        raced = []

        async def racing(conn: Any, wanted: Any) -> Any:
            found = await read(conn, wanted)
            if wanted == key and not raced:
                raced.append(True)
                stamp = await (
                    rule(database, group, kinds=FORBID) if what == "policy" else take_back(database, token.id)
                )
                await one.follower.applied_to(stamp.revision)
            return found

        monkeypatch.setattr(one.loader._reader, "read", racing)
        expected = Reason.POLICY_FORBIDS_KIND if what == "policy" else Reason.APPROVAL_REVOKED
        assert await ask(one, secret) is expected
        assert raced


async def test_a_bulk_change_of_grants_drops_them_all(database, database_url):
    token, secret = await issue(database)
    group = await node(database, "acme")
    await rule(database, group, approval=ApprovalRule(required=True))
    await grant(database, token.id, group)
    async with replica(database_url, [CATALOG]) as one:
        assert await ask(one, secret) is Reason.GRANTED

        async def work(conn: Any) -> Stamp:
            changes = ChangeSet()
            found = await grants.load_of_family(conn, token.id)
            record = await grants.find_grant(conn, found.grants[0].id)
            assert record is not None
            await grants.revoke(conn, changes, record, by=NOBODY, reason="test")
            for number in range(1500):
                changes.touch(ChangeKind.GRANT, f"tok_{number}")
            return await append(conn, changes)

        await database.run_in_transaction(work)
        await until(one, secret, Reason.APPROVAL_REVOKED)


async def test_nothing_is_allowed_while_policies_cannot_be_read(database, database_url):
    _, secret = await issue(database)
    async with replica(database_url, [CATALOG]) as one:
        assert await ask(one, secret) is Reason.GRANTED
        one.facts.drop_policies(None)
        await one.database.close()

        async def broken(*_: Any) -> Any:
            raise TimeoutError

        one.loader._reader.read = broken
        with pytest.raises(CannotDecideError):
            await ask(one, secret)
