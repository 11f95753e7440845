"""Writes and loads by way of PgBouncer in transaction mode, polls and the bell beside it."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from tests.faults import pooler, scenarios
from tests.faults.fleet import Fleet
from tests.faults.pooler import Pooler
from tests.faults.traffic import Traffic

pytestmark = pytest.mark.skipif(pooler.find() is None, reason=pooler.MISSING)


@pytest.fixture(scope="module")
def pooled():
    poolers: list[Pooler] = []

    def start(postgres):
        if not poolers:
            poolers.append(Pooler(postgres).await_answering())
        return poolers[0].address

    try:
        with Fleet(replicas=2, split=True, pool_at=start) as fleet:
            yield fleet, poolers[0]
    finally:
        for one in poolers:
            one.close()


async def traffic_while(fleet, happen, seconds):
    traffic = Traffic(fleet)
    async with traffic.running() as ledger:
        await asyncio.sleep(0.5)
        happen()
        await asyncio.sleep(seconds)
        fleet.heal()
        await asyncio.sleep(fleet.staleness)
    await traffic.settle()
    return ledger


def test_all_goes_on_behind_a_pooler(pooled):
    fleet, _ = pooled
    ledger = asyncio.run(traffic_while(fleet, lambda: None, 1.0))
    assert ledger.acknowledged
    assert ledger.created


@pytest.mark.long
def test_links_to_the_pooler_break_and_polls_go_on(pooled):
    fleet, _ = pooled
    asyncio.run(traffic_while(fleet, lambda: [fleet.proxies.cut(f"pool-{name}") for name in fleet.names], 1.0))


def test_a_pooler_that_stands_still_costs_no_freshness(pooled):
    """What is known is decided on: revokes are heard of beside the pooler."""
    fleet, one = pooled

    def stand_still():
        os.kill(one.pid, signal.SIGSTOP)

    async def run():
        traffic = Traffic(fleet)
        async with traffic.running():
            await asyncio.sleep(0.5)
            stand_still()
            await asyncio.sleep(fleet.staleness * 2)
            try:
                assert all(replica.is_ready() for replica in fleet.replicas)
            finally:
                os.kill(one.pid, signal.SIGCONT)
            await asyncio.sleep(fleet.staleness)
        await traffic.settle()

    asyncio.run(run())


@pytest.mark.long
def test_the_direct_link_breaks_and_the_replica_denies(pooled):
    fleet, _ = pooled
    asyncio.run(scenarios.black_hole(fleet))
