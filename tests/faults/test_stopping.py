"""Workers that die, and replicas that are stopped in order: nobody waits for an answer that never comes."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections import Counter

import pytest
from tests.faults import scenarios
from tests.faults.client import Connection, check_request, now
from tests.faults.fleet import PROJECT, Fleet, wait_until
from tests.faults.proxy import HOLE
from tests.faults.traffic import Traffic

DRAIN = 2.5
"""Seconds that a stopping replica goes on answering, so that who asks it learns of it in time."""


@pytest.fixture(scope="module")
def three():
    with Fleet(replicas=3, env={"AUTHZ_DRAIN": str(DRAIN)}) as fleet:
        yield fleet


class Balancer:
    """What stands in front of replicas: sends to those that were ready when it last asked, well within the drain."""

    def __init__(self, fleet):
        self.fleet = fleet
        self.ready_at = [-DRAIN] * len(fleet.replicas)
        self.counts: Counter[str] = Counter()

    async def look(self, number):
        while True:
            asked = now()
            ready = await asyncio.to_thread(self.fleet.replicas[number].is_ready)
            self.ready_at[number] = asked if ready else -DRAIN
            await asyncio.sleep(0.1)

    def is_ready(self, number):
        return now() - self.ready_at[number] < DRAIN / 2

    async def serve(self, raw):
        turns = itertools.cycle(range(len(self.ready_at)))
        open_ones = {number: Connection(replica.port) for number, replica in enumerate(self.fleet.replicas)}
        try:
            while True:
                await self._serve_one(open_ones, turns, raw)
                await asyncio.sleep(0.003)
        finally:
            for connection in open_ones.values():
                connection.close()

    async def _serve_one(self, open_ones, turns, raw):
        number = next((one for one in itertools.islice(turns, len(self.ready_at)) if self.is_ready(one)), None)
        if number is None:  # a slow machine: nobody was asked for a while
            return
        try:
            answer = await open_ones[number].send(raw)
        except ConnectionRefusedError:
            self.counts["sent elsewhere"] += 1  # nothing was asked yet
        except (OSError, EOFError):
            self.counts["lost"] += 1
        else:
            self.counts[str(answer.status)] += 1


def test_a_rolling_restart_loses_no_answer(three):
    async def run():
        [token] = await three.issue(1)
        balancer = Balancer(three)
        tasks = [asyncio.create_task(balancer.look(number)) for number in range(len(three.replicas))]
        raw = check_request(three.gateway, token.secret, PROJECT)
        tasks += [asyncio.create_task(balancer.serve(raw)) for _ in range(6)]
        for replica in three.replicas:
            replica.terminate()
            assert await asyncio.to_thread(replica.wait) == 0
            replica.relaunch()
            await asyncio.to_thread(replica.await_answering)
            await asyncio.to_thread(replica.await_ready)
            await asyncio.sleep(0.3)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return balancer.counts

    counts = asyncio.run(run())
    assert counts["lost"] == 0, counts
    assert set(counts) <= {"200", "sent elsewhere"}, counts
    assert counts["200"] > 1000, counts


def test_a_replica_that_is_stopping_says_so_and_still_answers(three):
    replica = three.replicas[0]

    async def run():
        [token] = await three.issue(1, replica=1)
        connection = Connection(replica.port)
        raw = check_request(three.gateway, token.secret, PROJECT)
        assert (await connection.send(raw)).allows
        replica.terminate()
        await asyncio.to_thread(replica.await_ready, ready=False)
        assert replica.obstacles() == ["stopping"]
        answer = await connection.send(raw)
        assert answer.allows
        assert answer.header("connection") == "close"
        connection.close()

    asyncio.run(run())
    assert replica.wait() == 0
    replica.relaunch().await_answering()


def test_what_is_under_way_is_answered_before_the_end(three):
    """A revoke that waits for a frozen replica is answered by a process that was asked to stop meanwhile."""

    async def run():
        [token] = await three.issue(1)
        ledger = Traffic(three).ledger
        three.replicas[2].freeze()
        began = now()
        waiting = asyncio.create_task(scenarios.revoke(three, 0, token, ledger, wait=True))
        await asyncio.sleep(0.3)
        three.replicas[0].terminate()
        await waiting
        assert now() - began >= three.staleness  # the frozen one denies by itself from here on
        three.replicas[2].thaw()
        for number in (1, 2):
            await scenarios.ask(three, number, token, ledger)
        assert ledger.last_allowed_after == 0

    asyncio.run(run())
    assert three.replicas[0].wait() == 0
    three.replicas[0].relaunch().await_answering()


def test_a_stopped_replica_leaves_no_row_behind(three):
    rows = "select count(*) from replica"
    three.replicas[1].terminate()
    assert three.replicas[1].wait() == 0
    assert asyncio.run(three.postgres.fetch(rows))[0]["count"] == len(three.replicas) - 1
    three.replicas[1].relaunch().await_answering()


def test_a_replica_whose_database_says_nothing_stops_all_the_same(three):
    three.proxies.set("2", HOLE)
    three.replicas[2].terminate()
    assert three.replicas[2].wait(30) == 0
    three.proxies.heal("2")
    three.replicas[2].relaunch().await_answering()


def test_workers_that_die_and_stand_still():
    with Fleet(replicas=2, env={"AUTHZ_WORKERS": "2"}) as fleet:
        first = fleet.replicas[0]

        async def run():
            traffic = Traffic(fleet)
            async with traffic.running(checkers=2):
                await asyncio.sleep(0.5)
                dead, still = first.workers()
                os.kill(dead, signal.SIGKILL)
                os.kill(still, signal.SIGSTOP)
                await asyncio.sleep(fleet.staleness * 2)
                os.kill(still, signal.SIGCONT)
                await asyncio.to_thread(wait_until, lambda: len(set(first.workers()) - {dead}) == 2, 30, "a new worker")
                await asyncio.sleep(fleet.staleness)
            await traffic.settle()
            await asyncio.to_thread(wait_until, lambda: count(fleet) == 4, 30, "the sweep of the dead worker's row")

        asyncio.run(run())
        pid = first.pid
        assert first.runs
        assert pid == first.pid


def count(fleet):
    return asyncio.run(fleet.postgres.fetch("select count(*) from replica"))[0]["count"]
