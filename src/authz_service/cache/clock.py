"""The process's only source of elapsed time, and the database's time as seen from here."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Final

_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", None)

elapsed: Final[Callable[[], float]] = time.monotonic if _BOOTTIME is None else partial(time.clock_gettime, _BOOTTIME)
"""Seconds that go on while the machine sleeps (CLOCK_BOOTTIME; monotonic where there is none)."""


class DatabaseClock:
    """Database time, from the last reading. It may run early by a round trip, never late: expiry has no grace."""

    def __init__(self) -> None:
        self._read_at = 0.0
        self._reading: datetime | None = None
        self.offset = float("inf")
        """Database time as epoch seconds, minus `elapsed()`. Infinite before the first reading: all is expired."""

    def set(self, reading: datetime, sent_at: float) -> None:
        """`sent_at` is `elapsed()` before the question was sent, so the database read its clock after it."""
        self._reading = reading
        self._read_at = sent_at
        self.offset = reading.timestamp() - sent_at

    def now(self) -> datetime:
        """Raises RuntimeError before the first reading: nobody decides without a fresh follower."""
        if self._reading is None:
            raise RuntimeError("database time is not known yet")
        return self._reading + timedelta(seconds=elapsed() - self._read_at)
