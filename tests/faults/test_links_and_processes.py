"""Four replicas of the service behind links that break, beside a database and neighbours that stop and die.

Each scenario asserts by itself: no allow later than S after a revoke, every acknowledged write in the database, every
replica deciding as the database does afterwards, without having been restarted.
"""

from __future__ import annotations

import asyncio

import pytest
from tests.faults import scenarios
from tests.faults.fleet import POOL, Fleet


@pytest.fixture(autouse=True)
def same_processes(fleet: Fleet):
    before = [replica.pid for replica in fleet.replicas]
    yield
    fleet.await_ready()
    assert [replica.runs for replica in fleet.replicas] == [True] * len(before)


def test_a_replica_that_is_cut_off_denies_after_s_and_comes_back(fleet):
    asyncio.run(scenarios.black_hole(fleet))


def test_links_that_are_reset_refused_delayed_and_dead(fleet):
    asyncio.run(scenarios.broken_links(fleet))


def test_a_bell_that_nobody_hears(fleet):
    asyncio.run(scenarios.deaf_bell(fleet))


def test_writers_that_are_slow_to_commit(fleet):
    asyncio.run(scenarios.slow_writers(fleet))


def test_a_revoke_that_waits_is_in_force_everywhere_when_it_is_answered(fleet):
    asyncio.run(scenarios.waits(fleet))


def test_a_database_that_stands_still(fleet):
    asyncio.run(scenarios.frozen_database(fleet))


def test_a_database_that_dies_and_comes_back(fleet):
    asyncio.run(scenarios.killed_database(fleet))


def test_a_replica_that_stands_still(fleet):
    asyncio.run(scenarios.frozen_replica(fleet))


def test_a_replica_that_dies(fleet):
    asyncio.run(scenarios.killed_replica(fleet))


def test_a_failover_to_a_synchronous_standby(fleet):
    asyncio.run(scenarios.failover(fleet))


def test_after_all_of_it_nothing_has_piled_up(fleet):
    """Runs last: connections are within the budget, memory and open files are those of a replica at work."""
    rows = asyncio.run(
        fleet.postgres.fetch("select count(*) from pg_stat_activity where application_name like 'authz-service%'")
    )
    assert rows[0]["count"] <= len(fleet.replicas) * (2 + POOL)
    for replica in fleet.replicas:
        assert replica.memory() < 250 << 20
        assert replica.files() < 100
    rows = asyncio.run(fleet.postgres.fetch("select count(*) from replica"))
    assert rows[0]["count"] == len(fleet.replicas)


@pytest.mark.long
def test_without_a_bell_looks_carry_the_promise():
    """As on an engine without LISTEN."""
    with Fleet(replicas=2, env={"AUTHZ_BELL": "false"}) as deaf:
        asyncio.run(scenarios.black_hole(deaf))
        asyncio.run(scenarios.waits(deaf))
