"""Replicas come and go under load, over a synchronous standby: nobody gets a wrong answer, and everybody gets one."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from tests.faults.client import Answer, Connection, check_request, now, request
from tests.faults.fleet import PROJECT, Fleet, Issued, token_body
from tests.faults.postgres import Postgres
from tests.faults.service import Service

STALENESS = 5.0  # the default: a busy machine must not make a replica stale
PATIENCE = 60.0


@dataclass
class Front:
    """What stands in front of replicas: sends on to those in its rotation, and to the next when one cannot answer."""

    fleet: Fleet
    rotation: list[Service] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    live: list[Issued] = field(default_factory=list)
    tried: set[str] = field(default_factory=set)
    """Tokens whose revoke was sent: either answer is right until it is acknowledged, and for S after."""
    revoked: dict[str, float] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)
    _under_way: Counter[int] = field(default_factory=Counter)
    _turn: itertools.count[int] = field(default_factory=itertools.count)
    _chance: random.Random = field(default_factory=lambda: random.Random(1))

    async def send(self, connections: dict[int, Connection], raw: bytes) -> Answer | None:
        """The first answer that is one; None when nobody gives one in time."""
        end = now() + PATIENCE
        while now() < end:
            if not self.rotation:
                await asyncio.sleep(0.02)
                continue
            replica = self.rotation[next(self._turn) % len(self.rotation)]
            connection = connections.setdefault(replica.port, Connection(replica.port))
            self._under_way[replica.port] += 1
            try:
                answer = await connection.send(raw)
            except (OSError, EOFError):
                self.counts["sent elsewhere"] += 1
                await asyncio.sleep(0.02)
                continue
            finally:
                self._under_way[replica.port] -= 1
            if answer.status != 503:
                return answer
            self.counts["undecided"] += 1
            await asyncio.sleep(0.02)
        return None

    async def leave(self, replica: Service) -> None:
        """Out of the rotation, and then out of the world: as a platform does it."""
        self.rotation.remove(replica)
        replica.terminate()
        assert await asyncio.to_thread(replica.wait) == 0
        assert not self._under_way[replica.port]

    async def join(self, name: str) -> Service:
        replica = self.fleet.service(name).launch()
        self.fleet.replicas.append(replica)
        if name not in self.fleet.names:
            self.fleet.names.append(name)
        await asyncio.to_thread(replica.await_answering, 180)
        await asyncio.to_thread(replica.await_ready, seconds=120)
        self.rotation.append(replica)
        return replica

    # traffic

    async def check(self) -> None:
        connections: dict[int, Connection] = {}
        try:
            while True:
                await asyncio.sleep(0.004)
                ended = self._chance.random() < 0.3 and self.revoked
                secret = self._chance.choice(list(self.revoked)) if ended else self._chance.choice(self.live).secret
                sent_at = now()
                answer = await self.send(connections, check_request(self.fleet.gateway, secret, PROJECT))
                self.note(secret, sent_at, answer)
        finally:
            for one in connections.values():
                one.close()

    def note(self, secret: str, sent_at: float, answer: Answer | None) -> None:
        if answer is None:
            self.counts["lost"] += 1
            return
        said = "allow" if answer.allows else "deny" if answer.status == 200 else str(answer.status)
        self.counts[said] += 1
        at = self.revoked.get(secret)
        if at is not None and answer.allows and sent_at - at > STALENESS:
            self.wrong.append(f"allowed {sent_at - at:.2f} s after its revoke")
        if secret not in self.tried and not answer.allows:
            self.wrong.append(f"a living token was answered {answer.status} {answer.body!r}")

    async def write(self, number: int) -> None:
        connections: dict[int, Connection] = {}
        secret = self.fleet.writers[number]
        try:
            for turn in itertools.count():
                await asyncio.sleep(self._chance.uniform(0.02, 0.1))
                if len(self.live) > 20:
                    token = self.live.pop(self._chance.randrange(len(self.live)))
                    self.tried.add(token.secret)
                    # Sent again by whoever got no answer: to revoke twice is to revoke once.
                    answer = await self.send(connections, request("DELETE", f"/v1/tokens/{token.id}", secret))
                    if answer is not None and answer.status == 200:
                        self.revoked[token.secret] = now()
                        self.acknowledged.append(token.id)
                    self.counts["writes lost"] += answer is None
                else:
                    body = token_body(10_000 * number + turn)
                    answer = await self.send(connections, request("POST", "/v1/tokens", secret, body))
                    if answer is not None and answer.status == 201:
                        self.live.append(Issued(answer.document["id"], answer.document["secret"]))
        finally:
            for one in connections.values():
                one.close()

    @asynccontextmanager
    async def traffic(self, checkers: int) -> AsyncIterator[None]:
        self.live += await self.fleet.issue(30)
        tasks = [asyncio.create_task(self.check()) for _ in range(checkers)]
        tasks += [asyncio.create_task(self.write(number)) for number in range(2)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            done = await asyncio.gather(*tasks, return_exceptions=True)
        for one in done:
            if isinstance(one, Exception) and not isinstance(one, asyncio.CancelledError):
                raise one

    async def until(self, count: int, what: str = "allow") -> None:
        """Until there were so many more answers of a kind: what took long on a slow machine is waited for."""
        wanted, end = self.counts[what] + count, now() + 120
        while self.counts[what] < wanted:
            assert now() < end, f"no {count} more of `{what}`: {self.counts}"
            await asyncio.sleep(0.02)

    async def settle(self) -> None:
        """The database has all that was acknowledged, and each replica decides as it says."""
        rows = await self.fleet.postgres.fetch("select id, revoked_at is null as lives from token")
        truth = {row["id"]: row["lives"] for row in rows}
        assert not [one for one in self.acknowledged if truth.get(one, True)], "acknowledged revokes are lost"
        assert not [one.id for one in self.live if one.id not in truth], "acknowledged tokens are lost"
        await asyncio.sleep(STALENESS + 0.5)
        whole = list(self.rotation)
        for replica in whole:
            self.rotation = [replica]
            connections: dict[int, Connection] = {}
            for secret in [*self.revoked, *(token.secret for token in self.live)]:
                sent_at = now()
                answer = await self.send(connections, check_request(self.fleet.gateway, secret, PROJECT))
                self.note(secret, sent_at, answer)
            for one in connections.values():
                one.close()
        self.rotation = whole
        assert not self.wrong, self.wrong[:5]
        assert not self.counts["lost"], self.counts
        assert not self.counts["writes lost"], self.counts


def fleet_of(replicas: int) -> Fleet:
    env = {"AUTHZ_POLL_TIMEOUT": "1", "AUTHZ_DRAIN": "0.2"}
    return Fleet(replicas=replicas, staleness=STALENESS, poll_interval=0.5, writers=2, env=env)


async def follow(fleet: Fleet) -> Postgres:
    """A standby that every acknowledgement waits for."""
    standby = await asyncio.to_thread(fleet.postgres.copy, standby=True)
    await asyncio.to_thread(standby.start)
    await fleet.postgres.require_standbys("*")
    for _ in range(1500):
        rows = await fleet.postgres.fetch("select sync_state from pg_stat_replication")
        if [row["sync_state"] for row in rows] == ["sync"]:
            return standby
        await asyncio.sleep(0.02)
    raise AssertionError("the standby does not follow")


def test_replicas_are_added_and_removed_under_load():
    """The short form: two, then three, then two others."""
    with fleet_of(2) as fleet:

        async def run() -> None:
            standby = await follow(fleet)
            try:
                front = Front(fleet, list(fleet.replicas))
                async with front.traffic(3):
                    await front.until(50)
                    await front.join("2")
                    await front.until(50)
                    await front.leave(fleet.replicas[0])
                    await front.until(50)
                await front.settle()
                assert len(front.rotation) == 2
                assert front.acknowledged
            finally:
                await fleet.postgres.require_standbys("")
                standby.remove()

        asyncio.run(run())


@pytest.mark.long
def test_eight_replicas_come_and_go_and_the_standby_takes_over():
    with fleet_of(8) as fleet:

        async def run() -> None:
            standby = await follow(fleet)
            front = Front(fleet, list(fleet.replicas))
            async with front.traffic(6):
                await front.until(300)
                for number in range(4):
                    await front.leave(front.rotation[0])
                    await front.until(100)
                    await front.join(str(8 + number))
                    await front.until(100)
                # All that is asked from here on is sent again and again until somebody decides.
                await asyncio.to_thread(fleet.postgres.kill)
                await standby.promote()
                fleet.move_to(standby)
                await front.until(300)
                for _ in range(4):
                    await front.leave(front.rotation[0])
                    await front.until(100)
                await asyncio.gather(*(front.join(str(12 + number)) for number in range(4)))
                await front.until(300)
            await front.settle()
            assert len(front.rotation) == 8
            print(dict(front.counts), len(front.acknowledged), "revokes")  # noqa: T201 - for whoever runs the drill

        asyncio.run(run())
