"""What goes on while faults happen: checks, creations and revokes, and a ledger of what may never be allowed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.faults.client import Answer, Connection, check_request, now, request
from tests.faults.fleet import PROJECT, Fleet, Issued, token_body


@dataclass
class Ledger:
    """What was acknowledged, and what was answered.

    The promise: a check that was *sent* later than S after a revoke was *acknowledged* is never allowed. Both times are
    the client's own, so every delay on the way counts for the service, none against it.
    """

    staleness: float
    revoked: dict[str, float] = field(default_factory=dict)
    """Secrets, with when the acknowledgement came."""
    acknowledged: list[str] = field(default_factory=list)
    """Ids of tokens whose revoke was acknowledged."""
    created: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    denied_after: list[float] = field(default_factory=list)
    """Seconds from a revoke's acknowledgement to its first deny, once for each replica and token."""
    last_allowed_after: float = 0.0
    _denied: set[tuple[int, str]] = field(default_factory=set)

    def note(self, replica: int, secret: str, sent_at: float, answer: Answer) -> None:
        at = self.revoked.get(secret)
        said = "allow" if answer.allows else "deny" if answer.status == 200 else str(answer.status)
        self.counts[said] += 1
        if at is None:
            return
        self.counts["of revoked tokens"] += 1
        if answer.allows:
            self.last_allowed_after = max(self.last_allowed_after, sent_at - at)
            if sent_at - at > self.staleness:
                self.broken.append(
                    f"replica {replica} allowed {secret[:12]}… {sent_at - at:.3f} s after its revoke was acknowledged"
                )
        elif (replica, secret) not in self._denied:
            self._denied.add((replica, secret))
            self.denied_after.append(now() - at)


class Traffic:
    """Runs inside `running()`. Clients try again when they get no answer, as real ones do."""

    def __init__(self, fleet: Fleet, *, staleness: float | None = None, seed: int = 1) -> None:
        self.fleet = fleet
        self.ledger = Ledger(fleet.staleness if staleness is None else staleness)
        self.live: deque[Issued] = deque()
        self._old: deque[str] = deque(maxlen=400)
        self._chance = random.Random(seed)
        self._numbers = itertools.count(1000)
        self._tasks: list[asyncio.Task[None]] = []
        self._warm: list[set[str]] = [set() for _ in fleet.names]
        self._ended: list[list[str]] = [[] for _ in fleet.names]
        """By replica: tokens that it allowed once, and those of them whose revoke was acknowledged."""

    @asynccontextmanager
    async def running(
        self,
        *,
        tokens: int = 30,
        pause: float = 0.05,
        checkers: int = 1,
        writers: Iterable[int] | None = None,
    ) -> AsyncIterator[Ledger]:
        """`writers` are the replicas that revokes and creations go to; `pause` the seconds between two of them."""
        self.live.extend(await self.fleet.issue(tokens))
        replicas = range(len(self.fleet.replicas))
        self._tasks = [
            *(asyncio.create_task(self._check(number)) for number in replicas for _ in range(checkers)),
            *(asyncio.create_task(self._check(number, ended_only=True)) for number in replicas),
            *(asyncio.create_task(self._write(number, pause)) for number in (replicas if writers is None else writers)),
        ]
        try:
            yield self.ledger
        finally:
            for task in self._tasks:
                task.cancel()
            done = await asyncio.gather(*self._tasks, return_exceptions=True)
            for one in done:
                if isinstance(one, Exception) and not isinstance(one, asyncio.CancelledError):
                    raise one

    async def _check(self, number: int, *, ended_only: bool = False) -> None:
        """Live tokens, so that replicas remember them; and revoked ones, above all those this replica remembered.

        `ended_only` asks about these alone: it never waits for a load, so a fault does not keep it from asking.
        """
        connection = Connection(self.fleet.replicas[number].port)
        warm, ended = self._warm[number], self._ended[number]
        try:
            for turn in itertools.count():
                if turn % 8 == 7 and self._old and not ended_only:
                    secret = self._chance.choice(self._old)
                elif ended and (turn % 2 or ended_only):
                    newest = turn % 4 == 1
                    secret = ended[-self._chance.randint(1, min(len(ended), 8 if newest else len(ended)))]
                elif self.live and not ended_only:
                    secret = self._chance.choice(self.live).secret
                else:
                    await asyncio.sleep(0.01)
                    continue
                sent_at = now()
                try:
                    answer = await connection.send(check_request(self.fleet.gateway, secret, PROJECT))
                except (OSError, EOFError):
                    self.ledger.counts["lost"] += 1
                    await asyncio.sleep(0.02)
                    continue
                self.ledger.note(number, secret, sent_at, answer)
                if answer.allows:
                    warm.add(secret)
                await asyncio.sleep(0.002 if answer.status == 200 else 0.02)
        finally:
            connection.close()

    async def _write(self, number: int, pause: float) -> None:
        connection = Connection(self.fleet.replicas[number].port)
        secret = self.fleet.writers[number]
        try:
            while True:
                await asyncio.sleep(self._chance.uniform(0.5, 1.5) * pause)
                if len(self.live) > 10:
                    await self._revoke(connection, secret, self.live.popleft())
                else:
                    await self._create(connection, secret)
        finally:
            connection.close()

    async def _revoke(self, connection: Connection, secret: str, token: Issued) -> None:
        # A revoke that was tried may be in force whatever was answered; only an answer makes it a promise.
        try:
            answer = await connection.send(request("DELETE", f"/v1/tokens/{token.id}", secret))
        except (OSError, EOFError):
            self.ledger.counts["writes lost"] += 1
            return
        if answer.status == 200:
            self.ledger.revoked[token.secret] = now()
            self.ledger.acknowledged.append(token.id)
            self._old.append(token.secret)
            for warm, ended in zip(self._warm, self._ended, strict=True):
                if token.secret in warm:
                    ended.append(token.secret)
        else:
            self.ledger.counts[f"writes {answer.status}"] += 1

    async def _create(self, connection: Connection, secret: str) -> None:
        try:
            body = token_body(next(self._numbers))
            answer = await connection.send(request("POST", "/v1/tokens", secret, body))
        except (OSError, EOFError):
            self.ledger.counts["writes lost"] += 1
            return
        if answer.status == 201:
            made = answer.document
            self.ledger.created.append(made["id"])
            self.live.append(Issued(made["id"], made["secret"]))
        else:
            self.ledger.counts[f"writes {answer.status}"] += 1

    # afterwards

    async def settle(self) -> None:
        """Every replica decides again, without a restart, and as the database has it; nothing acknowledged is lost."""
        self.fleet.await_ready()
        truth = {
            row["id"]: row["revoked_at"] is None
            for row in await self.fleet.postgres.fetch("select id, revoked_at from token")
        }
        lost = [one for one in self.ledger.acknowledged if truth.get(one, True)]
        assert not lost, f"acknowledged revokes that the database does not have: {lost}"
        gone = [one for one in self.ledger.created if one not in truth]
        assert not gone, f"acknowledged tokens that the database does not have: {gone}"
        for number, replica in enumerate(self.fleet.replicas):
            connection = Connection(replica.port)
            for token in self.live:
                answer = await _patiently(connection, check_request(self.fleet.gateway, token.secret, PROJECT))
                assert answer.allows is truth[token.id], f"replica {number} differs from the database: {answer.body!r}"
            for secret in self.ledger.revoked:
                answer = await _patiently(connection, check_request(self.fleet.gateway, secret, PROJECT))
                assert not answer.allows, f"replica {number} allows a revoked token: {answer.body!r}"
            connection.close()
        assert not self.ledger.broken, self.ledger.broken[:5]


async def _patiently(connection: Connection, raw: bytes) -> Answer:
    """Again while nothing can be decided: on a busy machine a healthy replica may be stale for a moment."""
    for _ in range(200):
        with contextlib.suppress(OSError, EOFError):
            answer = await connection.send(raw)
            if answer.status == 200:
                return answer
        await asyncio.sleep(0.05)
    raise AssertionError("the replica decides nothing")
