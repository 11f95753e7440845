"""Which processes decide, and what each has applied: written by themselves, read by whoever waits for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import asyncpg
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.store.changes import Revision, Stamp
from authz_service.store.tables import replica

REPORT_WITHIN: Final = 0.5
"""A proof counts only if a report was sent this many seconds before it, or since (INVARIANT of `Replica.grace`)."""


@dataclass(frozen=True, slots=True)
class Member:
    """What a process says of itself when it enters. `connections` is how many the database has to spare for it."""

    id: UUID
    name: str
    max_staleness: float
    connections: int


@dataclass(frozen=True, slots=True)
class Replica:
    """A row. `beat` grows with each report; `stamp` is None until the first one."""

    id: UUID
    name: str
    stamp: Stamp | None
    beat: int
    max_staleness: float
    connections: int

    @property
    def grace(self) -> float:
        """Seconds after its last report for which it may still decide: by then its last proof has expired."""
        return self.max_staleness + REPORT_WITHIN

    def reached(self, wanted: Stamp) -> bool:
        """Whether it cannot decide by a state before this revision any more."""
        stamp = self.stamp
        return stamp is not None and stamp.epoch == wanted.epoch and stamp.revision >= wanted.revision


class Watch:
    """Tells which rows nobody writes any more. By the watcher's own clock: the database's may be set, or another's."""

    def __init__(self) -> None:
        self._since: dict[UUID, tuple[int, float]] = {}

    def silent(self, rows: Iterable[Replica], asked_at: float, answered_at: float) -> list[Replica]:
        """Those that stood still for longer than their grace. The times are when these rows were asked for and came.

        A report that the earlier reading shows was sent before its answer came, and one that the later reading would
        show was not sent before it was asked: between the two lies more than the grace.
        """
        rows = list(rows)
        since: dict[UUID, tuple[int, float]] = {}
        found: list[Replica] = []
        for row in rows:
            known = self._since.get(row.id)
            since[row.id] = known if known is not None and known[0] == row.beat else (row.beat, answered_at)
            if asked_at - since[row.id][1] > row.grace:
                found.append(row)
        self._since = since
        return found


async def load_all(conn: AsyncConnection) -> Sequence[Replica]:
    """Every row, also those of processes that died lately."""
    rows = (await conn.execute(select(replica).order_by(replica.c.id))).mappings().all()
    return [_read(row) for row in rows]


# On the raw connection of a follower, beside its polls.

_ENTER: Final = """
insert into replica (id, name, epoch, applied_rev, beat, at, max_staleness, connections)
values ($1, $2, null, -1, 0, authz_now(), $3, $4) on conflict (id) do update set beat = replica.beat + 1
"""
# What a crash of the database forgets of these says less than is true, which makes others wait, and nothing worse: they
# need not wait for the disk, nor for a standby that may be gone. Not having entered would be worse.
_TOUCH: Final = """
update replica set beat = beat + 1, at = authz_now()
where id = $1 and set_config('synchronous_commit', 'off', true) is not null
"""
_REPORT: Final = """
update replica set epoch = $2, applied_rev = $3, beat = beat + 1, at = authz_now()
where id = $1 and set_config('synchronous_commit', 'off', true) is not null
"""


async def enter(conn: asyncpg.Connection, member: Member, *, again: bool) -> None:
    """Have a row from here on, on disk and on the standbys; `again` once that was so, for then it need only be there.

    Only what is polled after this may become a proof: who waits for all replicas reads this row, or read the table
    before it came, and then the poll shows the revision that they wait for.
    """
    if again and await conn.execute(_TOUCH, member.id) == "UPDATE 1":
        return
    await conn.execute(_ENTER, member.id, member.name, member.max_staleness, member.connections)


async def report(conn: asyncpg.Connection, member: Member, stamp: Stamp) -> bool:
    """Say what is applied. False: the row is gone, and whatever was proven since is not; enter again."""
    return bool(await conn.execute(_REPORT, member.id, stamp.epoch, stamp.revision) == "UPDATE 1")


async def leave(conn: asyncpg.Connection, member: Member) -> None:
    """For a process that decides nothing any more."""
    await conn.execute("delete from replica where id = $1", member.id)


async def load_beats(conn: asyncpg.Connection) -> Sequence[Replica]:
    """Every row, for the watch."""
    return [_read(row) for row in await conn.fetch("select * from replica")]


async def remove_silent(conn: asyncpg.Connection, rows: Iterable[Replica]) -> None:
    """Remove rows that still stand where they stood when they were found silent."""
    await conn.executemany("delete from replica where id = $1 and beat = $2", [(row.id, row.beat) for row in rows])


def _read(row: Any) -> Replica:
    return Replica(
        id=row["id"],
        name=row["name"],
        stamp=None if row["epoch"] is None else Stamp(Revision(row["applied_rev"]), row["epoch"]),
        beat=row["beat"],
        max_staleness=row["max_staleness"],
        connections=row["connections"],
    )
