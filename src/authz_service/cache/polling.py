"""The two direct connections of a replica: one polls the change log, one hears the bell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import asyncpg

from authz_service.errors import DatabaseUnavailableError
from authz_service.store.changes import SINCE_SQL, Poll, Revision, read_poll
from authz_service.store.database import BELL_CHANNEL, Database

_NO_ROWS: Final = 2**62
"""A revision that nothing reaches: the first look asks where the log stands, not for the log."""


class DirectConnection:
    """Implements the follower's PollConnection over raw connections that no pooler shares."""

    def __init__(self, polls: asyncpg.Connection, bell: asyncpg.Connection | None) -> None:
        self._polls = polls
        self._bell = bell

    async def poll(self, since: Revision | None, limit: int) -> Poll:
        """Raises DatabaseUnavailableError when either connection is gone: a deaf bell must not look healthy."""
        if self._bell is not None and self._bell.is_closed():
            raise DatabaseUnavailableError("the connection of the bell is closed")
        return read_poll(await self._polls.fetch(SINCE_SQL, _NO_ROWS if since is None else since, limit))

    async def close(self) -> None:
        """At once and without a farewell: the other side may hang."""
        self._polls.terminate()
        if self._bell is not None:
            self._bell.terminate()


def connector(database: Database, *, bell: bool = True) -> Callable[[Callable[[], None]], object]:
    """How the follower connects. `bell` False is for engines without LISTEN: polls alone carry the promise."""

    async def connect(ring: Callable[[], None]) -> DirectConnection:
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
