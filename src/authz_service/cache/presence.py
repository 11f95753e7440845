"""This process among the replicas: it has a row before it decides, and says there what it has applied."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from typing import Final, Protocol
from uuid import uuid4

from authz_service import __version__
from authz_service.cache.clock import elapsed
from authz_service.errors import DatabaseUnavailableError
from authz_service.store.changes import Stamp
from authz_service.store.replicas import REPORT_WITHIN, Member, Replica, Watch

_SWEEP_EVERY: Final = 2.0


class PresenceConnection(Protocol):
    """What the follower's connection does for the table of replicas."""

    async def enter(self, member: Member, *, again: bool) -> None: ...

    async def report(self, member: Member, stamp: Stamp) -> bool: ...

    async def leave(self, member: Member) -> None: ...

    async def load_beats(self) -> Sequence[Replica]: ...

    async def remove_silent(self, rows: Sequence[Replica]) -> None: ...


def new_member(*, max_staleness: float, connections: int = 2) -> Member:
    """A process's own, made once. The name is for people, and ends with the version for `authz doctor`."""
    return Member(uuid4(), f"{platform.node()}:{os.getpid()} {__version__}", max_staleness, connections)


class Presence:
    """Enters, reports and sweeps on the connection of the polls: who cannot report cannot prove anything either."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self._entered = False
        self._reported_at = float("-inf")
        self._watch = Watch()
        self._swept_at = float("-inf")

    async def enter(self, connection: PresenceConnection) -> None:
        """Before the first poll of a connection."""
        await connection.enter(self.member, again=self._entered)
        self._entered = True
        self._reported_at = float("-inf")

    async def report(self, connection: PresenceConnection, applied: Stamp, polled_at: float, *, now: bool) -> None:
        """After each poll, before it counts as a proof; `now` when somebody waits for it, else when it is time.

        Raises DatabaseUnavailableError when others removed the row: what was polled since then proves nothing.
        """
        if not now and polled_at - self._reported_at < REPORT_WITHIN:
            return
        sent_at = elapsed()
        if not await connection.report(self.member, applied):
            raise DatabaseUnavailableError("this replica was away for so long that it has to enter again")
        self._reported_at = sent_at

    async def sweep(self, connection: PresenceConnection) -> None:
        """Now and then, remove the rows of processes that died."""
        asked_at = elapsed()
        if asked_at - self._swept_at < _SWEEP_EVERY:
            return
        self._swept_at = asked_at
        rows = await connection.load_beats()
        silent = [row for row in self._watch.silent(rows, asked_at, elapsed()) if row.id != self.member.id]
        if silent:
            await connection.remove_silent(silent)
