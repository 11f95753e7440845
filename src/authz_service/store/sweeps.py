"""Sweeps: who runs one, how far it came, and whether it is time again. One process at a time runs each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert as insert_into
from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.store.life_tables import sweep
from authz_service.store.tables import authz_now

LEASE: Final = timedelta(seconds=30)
"""A run that says nothing for so long was broken off: another process goes on with it."""
_LOCK: Final = 720_312


class Turn(StrEnum):
    """Whether this process may do a batch now."""

    MINE = "mine"
    OTHERS = "others"
    """Another process is at it."""
    NOT_DUE = "not due"


@dataclass(frozen=True, slots=True)
class SweepRow:
    """`finished_at` is None while a run is under way or was broken off; `done` counts its items."""

    name: str
    started_at: datetime
    at: datetime
    finished_at: datetime | None
    done: int


async def take_turn(conn: AsyncConnection, name: str, holder: UUID, *, interval: timedelta, begin: bool) -> Turn:
    """Before each batch, in its transaction, which then is the only one that sweeps so.

    `begin` starts a run, or goes on with one that was broken off: when the last one is older than the interval.
    """
    held = select(func.pg_try_advisory_xact_lock(_LOCK, func.hashtext(name)))
    if not (await conn.execute(held)).scalar_one():
        return Turn.OTHERS
    query = select(sweep.c.holder, sweep.c.at, sweep.c.finished_at, authz_now.label("now")).where(sweep.c.name == name)
    row = (await conn.execute(query)).one_or_none()
    if row is not None and row.holder == holder and row.finished_at is None:
        return Turn.MINE
    if not begin:
        return Turn.OTHERS
    if row is not None and row.finished_at is None and abs(row.now - row.at) < LEASE:
        return Turn.OTHERS
    if row is not None and row.finished_at is not None and timedelta() <= row.now - row.finished_at < interval:
        return Turn.NOT_DUE
    fresh = {"holder": holder, "started_at": authz_now, "at": authz_now, "finished_at": None, "done": 0}
    if row is not None and row.finished_at is None:
        fresh = {"holder": holder, "at": authz_now}  # it goes on, and so does its count
    values = {"name": name, "holder": holder, "done": 0}
    await conn.execute(insert_into(sweep).values(values).on_conflict_do_update(index_elements=["name"], set_=fresh))
    return Turn.MINE


async def note_batch(conn: AsyncConnection, name: str, done: int, *, finished: bool) -> SweepRow:
    """After each batch, in its transaction: what is noted is done, and what is not was not."""
    written = await conn.execute(
        update(sweep)
        .where(sweep.c.name == name)
        .values(done=sweep.c.done + done, at=authz_now, finished_at=authz_now if finished else None)
        .returning(sweep.c.name, sweep.c.started_at, sweep.c.at, sweep.c.finished_at, sweep.c.done)
    )
    return SweepRow(*written.one())


async def load_sweeps(conn: AsyncConnection) -> Sequence[SweepRow]:
    """The last run of each, by name."""
    query = select(sweep.c.name, sweep.c.started_at, sweep.c.at, sweep.c.finished_at, sweep.c.done).order_by(
        sweep.c.name
    )
    return [SweepRow(*row) for row in await conn.execute(query)]
