"""`max_inactive_days` of policies, as the sweep of unused tokens reads it (P2)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from sqlalchemy import text
from tests.support.managing import Stage, scope, staged

from authz_service.admin.inactivity import AsPoliciesSay
from authz_service.admin.sweeps import Sweep, Sweeper, SweepRules
from authz_service.directory.model import INSTANCE_ID
from authz_service.store import policies
from authz_service.store.changes import ChangeSet, append
from authz_service.tokens.policy import InactivityRule, Policy


@pytest.fixture
async def stage(database_url: str) -> AsyncIterator[Stage]:
    async with staged(database_url, sweep_interval=0) as running:
        yield running


async def rule(stage: Stage, node: int, days: int, catalog: str = "gitlab") -> None:
    async with stage.database.transaction() as conn:
        changes = ChangeSet()
        said = Policy(node, catalog, inactivity=InactivityRule(days))
        await policies.put(conn, changes, said, expected=None)
        await append(conn, changes)


async def revoked_after(stage: Stage, days: int) -> set[str]:
    await stage.shift(days=days)
    await Sweeper(stage.database, SweepRules(interval=timedelta()), AsPoliciesSay()).run(Sweep.UNUSED)
    async with stage.database.read() as conn:
        return set((await conn.execute(text("select id from token where revoked_at is not null"))).scalars())


async def test_a_group_ends_only_tokens_that_live_nowhere_else(stage):
    await rule(stage, await stage.node("group:acme"), 30)
    inside, _ = await stage.give("dana", await stage.scope_at("gitlab", ["acme/web"], "job:read"))
    both = await stage.scope_at("gitlab", ["acme/web", "dana/notes"], "job:read")
    await stage.give("dana", both)
    await stage.give("dana", scope("gitlab", "all_memberships", "job:read"))
    other = await stage.scope_at("gitlab", ["acme/web"], "job:read")
    await stage.give("dana", other, catalogs={"gitlab": 1, "github": 1})
    assert await revoked_after(stage, 29) == set()
    assert await revoked_after(stage, 31) == {inside}


async def test_the_instance_ends_every_token_of_its_catalog_and_the_strictest_counts(stage):
    await rule(stage, INSTANCE_ID, 60)
    await rule(stage, await stage.node("group:acme"), 10)
    inside, _ = await stage.give("dana", await stage.scope_at("gitlab", ["acme/web"], "job:read"))
    coarse, _ = await stage.give("dana", catalogs={"gitlab": 1}, legacy_scopes=("api",))
    await stage.give("dana", scope("authz", "user", "token:read"))
    assert await revoked_after(stage, 11) == {inside}
    assert await revoked_after(stage, 61) == {inside, coarse}


async def test_management_of_admins_and_gateways_is_never_ended_by_a_policy(stage):
    await rule(stage, INSTANCE_ID, 10, "authz")
    await stage.give("root", scope("authz", "instance", "policy:edit"))
    await stage.give("dana", scope("authz", "instance", "decision:evaluate"), evaluates=("*",))
    member, _ = await stage.give("dana", scope("authz", "user", "token:read"))
    assert await revoked_after(stage, 20) == {member}
