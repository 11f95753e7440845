"""The wait for every replica: `?wait=true` answers when nobody can allow by the old state any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final
from uuid import UUID

from authz_service.errors import DatabaseUnavailableError
from authz_service.store.changes import Stamp
from authz_service.store.database import Database
from authz_service.store.replicas import Replica, load_all

_SHORTEST_PAUSE: Final = 0.005
_LONGEST_PAUSE: Final = 0.25


class Barrier:
    """Waits until each replica has reported a revision, or has had no right to decide without it for long enough.

    A replica that cannot be reached denies by itself S after the commit, by its own S. So the wait ends then, whatever
    the database says; and if it says nothing, at the greatest S that was seen. All waits share one look at the table.
    """

    def __init__(self, database: Database, max_staleness: float, *, elapsed: Callable[[], float]) -> None:
        self._database = database
        self._greatest = max_staleness
        self._elapsed = elapsed
        self._looked = asyncio.Condition()
        self._rows: tuple[float, Mapping[UUID, Replica]] | None = None
        self._waiting: dict[object, float] = {}
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, stamp: Stamp) -> None:
        """Call it after the commit that wrote `stamp`: S counts from here, which is later."""
        committed_at = self._elapsed()
        ticket = object()
        self._waiting[ticket] = committed_at
        if self._task is None:
            self._task = asyncio.create_task(self._look(), name="barrier")
        pending: dict[UUID, Replica] | None = None
        try:
            while True:
                if self._rows is not None and self._rows[0] >= committed_at:
                    rows = self._rows[1]
                    # Who came later than the first look began with a poll that shows the revision.
                    known = rows if pending is None else {key: row for key, row in rows.items() if key in pending}
                    pending = {key: row for key, row in known.items() if not row.reached(stamp)}
                    if not pending:
                        return
                least = self._greatest if pending is None else max(row.max_staleness for row in pending.values())
                left = committed_at + least - self._elapsed()
                if left <= 0:
                    return
                await self._next_look(left)
        finally:
            del self._waiting[ticket]

    async def _next_look(self, seconds: float) -> None:
        before = self._rows
        try:
            async with asyncio.timeout(seconds), self._looked:
                await self._looked.wait_for(lambda: self._rows is not before)
        except TimeoutError:
            return

    async def _look(self) -> None:
        """Read the table while anybody waits: often for those who came just now, seldom for those who wait out S."""
        try:
            while self._waiting:
                asked_at = self._elapsed()
                try:
                    async with asyncio.timeout(1.0), self._database.read() as conn:
                        rows = {row.id: row for row in await load_all(conn)}
                except (DatabaseUnavailableError, TimeoutError):
                    pass
                else:
                    self._greatest = max(self._greatest, *(row.max_staleness for row in rows.values()), 0.0)
                    self._rows = (asked_at, rows)
                    async with self._looked:
                        self._looked.notify_all()
                youngest = self._elapsed() - max(self._waiting.values(), default=asked_at)
                await asyncio.sleep(min(_LONGEST_PAUSE, max(_SHORTEST_PAUSE, youngest / 8)))
        finally:
            self._task = None

    async def close(self) -> None:
        """Stop looking; who still waits waits out S."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
