"""Replicas whose clocks are an hour off, or jump: expiry is the database's business, and freshness no date at all."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.faults import scenarios
from tests.faults.client import Connection, check_request
from tests.faults.fleet import PROJECT, Fleet
from tests.faults.traffic import Traffic

LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
pytestmark = pytest.mark.skipif(
    not LIBRARIES,
    reason="`libfaketime` is not installed: `python tools/debian_packages.py` installs it, as root on Debian",
)


@pytest.fixture(scope="module")
def skewed(tmp_path_factory):
    """Replica 0 is right, 1 an hour early, 2 an hour late; `jump` moves the clock of replica 2 while it runs."""
    file = tmp_path_factory.mktemp("clock") / "late"
    file.write_text("-3600")
    shifted = {"LD_PRELOAD": str(LIBRARIES[0]), "FAKETIME_DONT_FAKE_MONOTONIC": "1", "FAKETIME_NO_CACHE": "1"}
    env_of = {"1": {**shifted, "FAKETIME": "+3600"}, "2": {**shifted, "FAKETIME_TIMESTAMP_FILE": str(file)}}
    with Fleet(replicas=3, env_of=env_of) as fleet:
        yield fleet, file.write_text


async def says(fleet, secret):
    found = []
    for replica in fleet.replicas:
        connection = Connection(replica.port)
        found.append((await connection.send(check_request(fleet.gateway, secret, PROJECT))).document["reason"])
        connection.close()
    return found


def soon(seconds):
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def test_the_clocks_are_really_off(skewed):
    fleet, _ = skewed
    [ahead] = [event for event in fleet.replicas[1].events() if event.get("event") == "answering"]
    assert datetime.fromisoformat(ahead["timestamp"]) > datetime.now(UTC) + timedelta(minutes=50)


def test_a_token_that_expires_in_half_an_hour_works_on_every_replica(skewed):
    fleet, _ = skewed

    async def run():
        [token] = await fleet.issue(1, expires_at=soon(1800))
        assert await says(fleet, token.secret) == ["granted"] * 3

    asyncio.run(run())


def test_a_token_expires_on_every_replica_when_the_database_says_so(skewed):
    fleet, _ = skewed

    async def run():
        [token] = await fleet.issue(1, expires_at=soon(2))
        await asyncio.sleep(2.1)
        assert await says(fleet, token.secret) == ["token_expired"] * 3

    asyncio.run(run())


def test_a_clock_that_jumps_changes_neither_freshness_nor_expiry(skewed):
    fleet, jump = skewed

    async def run():
        [token] = await fleet.issue(1, expires_at=soon(1800))
        traffic = Traffic(fleet)
        async with traffic.running():
            for shift in ("+7200", "-86400", "+0"):
                jump(shift)
                await asyncio.sleep(0.6)
                assert await says(fleet, token.secret) == ["granted"] * 3
        await traffic.settle()

    asyncio.run(run())


@pytest.mark.long
def test_a_replica_with_a_wrong_clock_denies_after_s_like_any_other(skewed):
    fleet, _ = skewed
    asyncio.run(scenarios.black_hole(fleet))
