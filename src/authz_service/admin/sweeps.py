"""Sweeps: notices before expiry, tokens nobody uses, tokens that ended long ago, keys of repeated requests.

Each runs in batches, one transaction each, on one process at a time. What is due is found anew for each batch, so that
a sweep which is killed goes on where it was, and nothing is done twice.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Final, Protocol
from uuid import UUID, uuid4

from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.admin.tokens import revoke_line
from authz_service.store import audit, changes, grants, idempotency, sweeps, token_sweeps
from authz_service.store.changes import ChangeSet, load_clock
from authz_service.store.database import Database
from authz_service.store.events import EventKind, append_event, event_of_token
from authz_service.store.sweeps import SweepRow, Turn
from authz_service.store.token_rows import TokenRecord
from authz_service.tokens.model import TokenId

UNUSED: Final = "not used for too long"
_BATCH: Final = 500


class Sweep(StrEnum):
    """Names are public: metrics and the command line show them."""

    NOTICES = "notices"
    UNUSED = "unused"
    PURGE = "purge"
    KEYS = "keys"


class Inactivity(Protocol):
    """After how many days without use a token is revoked (P2's `max_inactive_days`)."""

    async def least_days(self, conn: AsyncConnection) -> int | None:
        """The fewest days that any token is held to; None when none is."""
        ...

    async def days_for(self, conn: AsyncConnection, records: Sequence[TokenRecord]) -> Mapping[TokenId, int]:
        """Those that each token is held to; one that is not there may rest for ever."""
        ...


@dataclass(frozen=True, slots=True)
class SameForAll:
    """One number of days for every token, or none at all."""

    days: int | None

    async def least_days(self, conn: AsyncConnection) -> int | None:
        del conn
        return self.days

    async def days_for(self, conn: AsyncConnection, records: Sequence[TokenRecord]) -> Mapping[TokenId, int]:
        del conn
        return {} if self.days is None else {record.token.id: self.days for record in records}


@dataclass(frozen=True, slots=True)
class SweepRules:
    """What sweeps go by. `interval` is from the end of one run to the start of the next; 0 is only when asked for."""

    interval: timedelta = timedelta(minutes=5)
    inactive_days: int | None = None
    keep_ended: timedelta = timedelta(days=365)
    keep_keys: timedelta = timedelta(hours=24)
    batch: int = _BATCH


@dataclass(frozen=True, slots=True)
class Swept:
    """How a run ended: `row` is None when it was not this process's turn."""

    turn: Turn
    row: SweepRow | None = None
    here: int = 0
    """What this process did of it."""


@dataclass(slots=True)
class Sweeper:
    """Runs sweeps for one process. `progress` hears of every batch."""

    database: Database
    rules: SweepRules
    inactivity: Inactivity
    progress: Callable[[SweepRow], None] | None = None
    holder: UUID = field(default_factory=uuid4)

    async def run(self, name: Sweep, *, at_once: bool = False) -> Swept:
        """One run, from its start or from where it was broken off; `at_once` although it is not due yet."""
        interval = timedelta() if at_once else self.rules.interval
        batch = _Batches(self.rules, self.inactivity).of(name)
        begin, here = True, 0
        while True:

            async def work(conn: AsyncConnection, *, begin: bool = begin) -> tuple[Turn, SweepRow | None, int]:
                turn = await sweeps.take_turn(conn, name.value, self.holder, interval=interval, begin=begin)
                if turn is not Turn.MINE:
                    return turn, None, 0
                done, finished = await batch(conn)
                return turn, await sweeps.note_batch(conn, name.value, done, finished=finished), done

            turn, row, done = await self.database.run_in_transaction(work)
            here += done
            if row is None:
                return Swept(turn, None, here)
            if self.progress is not None:
                self.progress(row)
            if row.finished_at is not None:
                return Swept(turn, row, here)
            begin = False

    async def status(self) -> Sequence[SweepRow]:
        """The last run of each."""
        async with self.database.read() as conn:
            return await sweeps.load_sweeps(conn)


Batch = Callable[[AsyncConnection], Awaitable[tuple[int, bool]]]
"""Does some of the work; how many items, and whether there is no more. Run again, it does what is left."""


@dataclass(slots=True)
class _Batches:
    """One run's batches. Where it is among the ids is remembered only to look at none twice: what is due is in rows."""

    rules: SweepRules
    inactivity: Inactivity
    after: TokenId | None = None
    families_done: bool = False

    def of(self, name: Sweep) -> Batch:
        return {
            Sweep.NOTICES: self.notices,
            Sweep.UNUSED: self.unused,
            Sweep.PURGE: self.purge,
            Sweep.KEYS: self.keys,
        }[name]

    async def notices(self, conn: AsyncConnection) -> tuple[int, bool]:
        due = await token_sweeps.find_notices(conn, limit=self.rules.batch)
        for notice in due:
            token = notice.record.token
            kind = EventKind.TOKEN_EXPIRED if notice.days == 0 else EventKind.TOKEN_EXPIRING
            ends = None if token.expires_at is None else token.expires_at.isoformat()
            await append_event(conn, event_of_token(kind, token, once=notice.once, days=notice.days, expires_at=ends))
        return len(due), len(due) < self.rules.batch

    async def unused(self, conn: AsyncConnection) -> tuple[int, bool]:
        least = await self.inactivity.least_days(conn)
        if least is None:
            return 0, True
        found, after = await token_sweeps.find_unused(conn, days=least, limit=self.rules.batch, after=self.after)
        held = await self.inactivity.days_for(conn, [one.record for one in found])
        now = await load_clock(conn)
        due = {
            one.record.token.id: (one.record, held[one.record.token.id])
            for one in found
            if one.record.token.id in held and now - one.since >= timedelta(days=held[one.record.token.id])
        }
        self.after = after
        return await self._end(conn, due), after is None

    async def _end(self, conn: AsyncConnection, due: Mapping[TokenId, tuple[TokenRecord, int]]) -> int:
        """One revision for all of them: every other writer waits from it to the commit, each revoke among them."""
        touched = ChangeSet()
        ended: dict[TokenId, list[TokenId]] = {}
        for token_id, (record, days) in due.items():
            revoked = await revoke_line(conn, touched, token_id, reason=UNUSED)
            if revoked:  # else with its parent, a moment ago
                ended[token_id] = revoked
                await append_event(conn, event_of_token(EventKind.TOKEN_INACTIVE, record.token, days=days))
        stamp = await changes.append(conn, touched)
        for token_id, revoked in ended.items():
            also = [one for one in revoked if one != token_id]
            details = {"why": UNUSED, "days": due[token_id][1], "also": also}
            await audit.insert(conn, audit.AuditEntry("token.revoke", token_id, details=details), stamp)
        return sum(map(len, ended.values()))

    async def purge(self, conn: AsyncConnection) -> tuple[int, bool]:
        touched = ChangeSet()
        keep, batch = self.rules.keep_ended, self.rules.batch
        if not self.families_done:
            gone, self.after = await token_sweeps.purge_families(
                conn, touched, keep=keep, limit=batch, after=self.after
            )
            # What hung under a family that went just now is looked at in the next run.
            self.families_done = self.after is None
            finished = False
        else:
            gone, more = await token_sweeps.purge_members(conn, touched, keep=keep, limit=batch)
            finished = more is None
            if finished:
                await grants.forget_purged(conn)
        if gone:
            stamp = await changes.append(conn, touched)
            details: Mapping[str, object] = {"tokens": list(gone)}
            await audit.insert(conn, audit.AuditEntry("token.purge", "instance", details=details), stamp)
        return len(gone), finished

    async def keys(self, conn: AsyncConnection) -> tuple[int, bool]:
        return await idempotency.prune(conn, older_than=self.rules.keep_keys), True
