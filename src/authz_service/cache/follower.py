"""Follows the change log, and knows since when this process can prove that its facts are true (docs/freshness.md)."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Protocol

from authz_service.cache.clock import DatabaseClock, elapsed
from authz_service.cache.journal import Journal
from authz_service.cache.presence import Presence, PresenceConnection, new_member
from authz_service.errors import (
    AuthzError,
    DatabaseUnavailableError,
    NotFreshEnoughError,
    OverloadedError,
    RevisionUnknownError,
    RewoundError,
    StaleError,
)
from authz_service.store.changes import ChangeKind, ParsedRevision, Poll, Revision, Stamp
from authz_service.store.replicas import Member
from authz_service.tracing import OFF, Traces

_BATCH: Final = 1000
_BETWEEN_POLLS: Final = 0.02
"""At least, in seconds, however often the bell rings or somebody asks for freshness."""
_SHORTEST_RETRY: Final = 0.05
_LONGEST_RETRY: Final = 1.0


class PollConnection(PresenceConnection, Protocol):
    """One direct connection to the primary; `ring` is called by the bell where the engine has one."""

    async def poll(self, since: Revision | None, limit: int) -> Poll: ...

    async def close(self) -> None: ...


Connect = Callable[[Callable[[], None]], Awaitable[PollConnection]]
"""Opens the connections of one replica; the argument rings the bell."""


@dataclass(frozen=True, slots=True)
class Freshness:
    """`max_staleness` is S: how long after its acknowledgement a revoke may still be unseen. All in seconds."""

    max_staleness: float = 5.0
    poll_interval: float = 1.0
    poll_timeout: float = 1.0
    at_least_timeout: float = 0.5
    load_timeout: float = 2.0
    max_waiters: int = 1000


@dataclass(slots=True)
class FollowerCounts:
    """What happened since the start, for metrics."""

    polls: int = 0
    failures: int = 0
    resets: int = 0
    changes: int = 0
    last_failure: str = field(default="")


class Follower:
    """One for each process. `applied` and `proof` move together in the event loop, never while a decision is made."""

    def __init__(
        self,
        journal: Journal,
        connect: Connect,
        settings: Freshness,
        *,
        member: Member | None = None,
        observe: Callable[[float], None] | None = None,
        traces: Traces = OFF,
    ) -> None:
        """`observe` is told, for each revision applied, the seconds since it was written."""
        self.settings = settings
        self.clock = DatabaseClock()
        self.counts = FollowerCounts()
        self.applied: Stamp | None = None
        self.rewound = False
        self._journal = journal
        self._connect = connect
        self._presence = Presence(member or new_member(max_staleness=settings.max_staleness))
        self._observe = observe
        self._traces = traces
        self._tip: bytes | None = None
        self._began = datetime.min.replace(tzinfo=UTC)
        self._proof = float("-inf")
        self.deadline = float("-inf")
        """The `elapsed()` after which nothing may be decided; in the past while rewound, and once stopped."""
        self._bell = asyncio.Event()
        self._moved = asyncio.Condition()
        self._sent = 0
        self._answered = 0
        self._waiters = 0
        self._awaited = False
        self._lost = False
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    # life

    async def start(self, patience: float = 10.0) -> None:
        """Follow in the background; returns once the first poll is applied. Raises DatabaseUnavailableError."""
        self._stopping.clear()
        before = self._sent
        self._task = asyncio.create_task(self._run(), name="follower")
        try:
            async with asyncio.timeout(patience):
                await self._until(lambda: self._answered > before)
        except TimeoutError as error:
            await self.stop()
            raise DatabaseUnavailableError(
                f"the change log could not be read within {patience:g} s: {self.counts.last_failure or 'no answer'}"
            ) from error

    async def stop(self) -> None:
        """Decide nothing from here on; then leave the table of replicas, if the database answers."""
        task, self._task = self._task, None
        if task is None:
            return
        self._stopping.set()
        self._proof = self.deadline = float("-inf")
        self._bell.set()
        await asyncio.wait({task}, timeout=self.settings.poll_timeout)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    # freshness

    def staleness(self) -> float:
        """Seconds since the last proof; infinite before the first."""
        return elapsed() - self._proof

    def require_fresh(self) -> Stamp:
        """The applied revision, if this process can prove that it is not older than S. Raises CannotDecideError."""
        if self.rewound:
            raise RewoundError("the database's history went back; an operator has to accept it with `authz restored`")
        if self.applied is None or elapsed() > self.deadline:
            raise StaleError(f"this replica has had no answer from the database for {self.settings.max_staleness:g} s")
        return self.applied

    def now(self) -> datetime:
        """Database time."""
        return self.clock.now()

    async def reach(self, wanted: ParsedRevision) -> None:
        """Wait until the revision is applied. Raises NotFreshEnoughError, or RevisionUnknownError when it cannot be."""
        stamp = self.require_fresh()
        if stamp.epoch.hex[:8] != wanted.epoch8:
            raise RevisionUnknownError("`at_least` names a revision of another history")
        if stamp.revision >= wanted.revision:
            return
        await self.poll_now()
        stamp = self.require_fresh()
        if stamp.epoch.hex[:8] != wanted.epoch8 or stamp.revision < wanted.revision:
            raise RevisionUnknownError("`at_least` names a revision that does not exist yet")

    async def poll_now(self) -> None:
        """Return after a poll that started after this call was applied. Shared; raises NotFreshEnoughError in time."""
        if self._waiters >= self.settings.max_waiters:
            raise OverloadedError("too many requests wait for a fresher revision; try again shortly")
        self._waiters += 1
        wanted = self._sent + 1
        self._bell.set()
        try:
            async with asyncio.timeout(self.settings.at_least_timeout):
                await self._until(lambda: self._answered >= wanted)
        except TimeoutError as error:
            raise NotFreshEnoughError(
                f"the database did not answer within {self.settings.at_least_timeout:g} s"
            ) from error
        finally:
            self._waiters -= 1

    async def applied_to(self, revision: Revision) -> None:
        """Wait until a load's snapshot is applied: an entry newer than the rest waits. Raises NotFreshEnoughError."""
        stamp = self.require_fresh()
        if stamp.revision < revision:
            await self.poll_now()

    def ring(self) -> None:
        """Something changed: look soon."""
        self._bell.set()

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with self._moved:
            await self._moved.wait_for(condition)

    # following

    async def _run(self) -> None:
        retry = _SHORTEST_RETRY
        while not self._stopping.is_set():
            connection: PollConnection | None = None
            try:
                async with asyncio.timeout(2 * self.settings.poll_timeout):
                    connection = await self._connect(self.ring)
                async with asyncio.timeout(self.settings.poll_timeout):
                    await self._presence.enter(connection)
                while not self._stopping.is_set():
                    await self._poll(connection)
                    retry = _SHORTEST_RETRY
                    await self._pause()
                async with asyncio.timeout(self.settings.poll_timeout):
                    await connection.leave(self._presence.member)
            except Exception as error:  # noqa: BLE001 - the loop outlives every fault; staleness speaks for it
                self.counts.failures += 1
                self.counts.last_failure = error.message if isinstance(error, AuthzError) else "the connection broke"
            finally:
                if connection is not None:
                    await connection.close()
            await asyncio.sleep(retry)
            retry = min(retry * 2, _LONGEST_RETRY)

    async def _pause(self) -> None:
        """Until the bell, a request for freshness, or the interval with 10 % jitter."""
        pause = self.settings.poll_interval * random.uniform(0.9, 1.1)  # noqa: S311 - jitter
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._bell.wait()
        await asyncio.sleep(max(0.0, _BETWEEN_POLLS - (elapsed() - self._proof)))

    async def _poll(self, connection: PollConnection) -> None:
        """One look at the change log; again at once while there is more of it than one look shows."""
        with self._traces.span("poll") as span:
            before = self.counts.changes
            await self._catch_up(connection)
            span.set(authz__changes=self.counts.changes - before)

    async def _catch_up(self, connection: PollConnection) -> None:
        while True:
            self._bell.clear()
            self._sent += 1
            number, sent_at = self._sent, elapsed()
            since = None if self.applied is None else self.applied.revision
            async with asyncio.timeout(self.settings.poll_timeout):
                poll = await connection.poll(since, _BATCH)
            if poll.in_recovery:
                self._forget()
                raise DatabaseUnavailableError("the server is a standby: it cannot prove freshness")
            caught_up = self._apply(poll, sent_at)
            self.counts.polls += 1
            if caught_up:
                await self._prove(connection, poll.clock, number, sent_at)
                return

    async def _prove(self, connection: PollConnection, clock: datetime, number: int, sent_at: float) -> None:
        """What was polled counts once others can read that it was."""
        if self.applied is not None:
            async with asyncio.timeout(self.settings.poll_timeout):
                await self._presence.report(connection, self.applied, sent_at, now=self._awaited)
        self._awaited = False
        self.clock.set(clock, sent_at)
        self._proof = sent_at
        self.rewound = self._lost
        usable = not (self.rewound or self._stopping.is_set())
        self.deadline = sent_at + self.settings.max_staleness if usable else float("-inf")
        self._answered = number
        async with self._moved:
            self._moved.notify_all()
        async with asyncio.timeout(self.settings.poll_timeout):
            await self._presence.sweep(connection)

    def _apply(self, poll: Poll, sent_at: float) -> bool:
        """Apply one look; True when nothing more is to come.

        INVARIANT: `applied` and the tip stand for the newest state that was ever applied. A history without it is
        rewound, however often it is looked at, until it is there again or an operator began a newer epoch.
        """
        applied = self.applied
        if applied is None:
            return self._restart(poll)
        if poll.head.epoch != applied.epoch:
            return self._restart(poll) if poll.began > self._began else self._rewind()
        if poll.head.revision < applied.revision:
            return self._rewind()
        known = [change for change in poll.changes if change.revision == applied.revision]
        tip = poll.tip if applied == poll.head else known[-1].hash if known else None
        if tip is None and not self.rewound:  # pruned: this process slept longer than the log is kept
            return self._restart(poll)
        if tip != self._tip:
            return self._rewind()
        self._lost = False
        changes = poll.changes[len(known) :]
        self._journal.apply(changes)
        self.counts.changes += len(changes)
        since_sent = elapsed() - sent_at
        for change, after in itertools.zip_longest(changes, changes[1:]):
            self._awaited |= change.kind == ChangeKind.BARRIER
            if self._observe is not None and (after is None or after.revision != change.revision):
                self._observe(max(0.0, (poll.clock - change.at).total_seconds() + since_sent))
        if changes:
            self._tip = changes[-1].hash
            self.applied = Stamp(changes[-1].revision, applied.epoch)
        return self.applied == poll.head or not changes

    def _forget(self) -> None:
        """What may have come from another server than the primary is not worth keeping."""
        if self.applied is not None:
            self.counts.resets += 1
            self._journal.restart(self.applied.revision)

    def _rewind(self) -> bool:
        """What was applied is not in this history: forget the facts, and keep what to compare with."""
        if not self.rewound:
            self._forget()
        self.rewound = self._lost = True
        self.deadline = float("-inf")
        return True

    def _restart(self, poll: Poll) -> bool:
        """Forget everything and begin at the head."""
        if self.applied is not None:
            self.counts.resets += 1
        self._lost = False
        self._awaited = True
        self._journal.restart(poll.head.revision)
        self.applied = poll.head
        self._tip = poll.tip
        self._began = poll.began
        return True
