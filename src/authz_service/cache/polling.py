"""The two direct connections of a replica: one polls the change log, one hears the bell."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import asyncpg

from authz_service.cache.clock import elapsed
from authz_service.cache.follower import PollConnection
from authz_service.errors import DatabaseUnavailableError
from authz_service.store import replicas
from authz_service.store.changes import SINCE_SQL, Poll, Revision, Stamp, read_poll
from authz_service.store.database import BELL_CHANNEL, Database
from authz_service.store.replicas import Member, Replica

_NO_ROWS: Final = 2**62
"""A revision that nothing reaches: the first look asks where the log stands, not for the log."""
_PING_EVERY: Final = 5.0


class DirectConnection:
    """Implements the follower's PollConnection over raw connections that no pooler shares."""

    def __init__(self, polls: asyncpg.Connection, bell: asyncpg.Connection | None) -> None:
        self._polls = polls
        self._bell = bell
        self._pinged_at = elapsed()

    async def poll(self, since: Revision | None, limit: int) -> Poll:
        """Raises DatabaseUnavailableError when either connection is gone: a deaf bell must not look healthy."""
        if self._bell is not None:
            if self._bell.is_closed():
                raise DatabaseUnavailableError("the connection of the bell is closed")
            if elapsed() - self._pinged_at > _PING_EVERY:  # a link that swallows everything closes nothing
                await self._bell.execute("select 1")
                self._pinged_at = elapsed()
        return read_poll(await self._polls.fetch(SINCE_SQL, _NO_ROWS if since is None else since, limit))

    async def enter(self, member: Member, *, again: bool) -> None:
        await replicas.enter(self._polls, member, again=again)

    async def report(self, member: Member, stamp: Stamp) -> bool:
        return await replicas.report(self._polls, member, stamp)

    async def leave(self, member: Member) -> None:
        await replicas.leave(self._polls, member)

    async def load_beats(self) -> Sequence[Replica]:
        return await replicas.load_beats(self._polls)

    async def remove_silent(self, rows: Sequence[Replica]) -> None:
        await replicas.remove_silent(self._polls, rows)

    async def close(self) -> None:
        """At once and without a farewell: the other side may hang."""
        self._polls.terminate()
        if self._bell is not None:
            self._bell.terminate()


def connector(database: Database, *, bell: bool = True) -> Callable[[Callable[[], None]], Awaitable[PollConnection]]:
    """How the follower connects. `bell` False is for engines without LISTEN: polls alone carry the promise."""

    async def connect(ring: Callable[[], None]) -> PollConnection:
        polls = await database.connect_direct()
        if not bell:
            return DirectConnection(polls, None)
        try:
            listener = await database.connect_direct()
        except BaseException:
            polls.terminate()
            raise
        connection = DirectConnection(polls, listener)
        try:
            await listener.add_listener(BELL_CHANNEL, lambda *_: ring())
        except BaseException:
            await connection.close()
            raise
        return connection

    return connect
