"""The connection pool, transactions that retry, and the bell that tells replicas to look at the change log."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import asyncpg
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import QueuePool

from authz_service.errors import AuthzError
from authz_service.store.connect import (
    DEADLOCK,
    SERIALIZATION_FAILURE,
    Timeouts,
    connect,
    create_engine,
    describe_url,
    our_errors,
    read_url,
    sqlstate,
)
from authz_service.store.schema import check_schema, migrate, schema_head

__all__ = ["BELL_CHANNEL", "Database", "Timeouts", "check_schema", "migrate", "ring_after_commit", "schema_head"]

T = TypeVar("T")

BELL_CHANNEL: Final = "authz_changes"
_BELL_INTERVAL: Final = 0.02
_RING_SECONDS: Final = 1.0
_CLOSE_SECONDS: Final = 2.0
_RINGS: Final = "authz_rings"
_TRIES: Final = 8

# Whoever gets an acknowledgement has the write on disk, whatever the server's own default is. `true` is for this
# transaction alone: behind a pooler a session is not ours to set.
_BEGIN: Final = text(
    "select set_config('synchronous_commit', 'on', true), set_config('statement_timeout', :timeout, true), "
    "set_config('lock_timeout', :timeout, true)"
)
# Our locks count on each statement seeing what was committed before it. The driver says nothing for this level.
_ISOLATION: Final = text("set transaction isolation level read committed")


class Database:
    """A pool on `url`. `direct_url` is the primary without a pooler; given, it also says that `url` goes through one.

    Connects on first use. Whatever cannot connect, or loses its connection, raises DatabaseUnavailableError.
    """

    def __init__(
        self,
        url: str,
        *,
        direct_url: str | None = None,
        pool_size: int = 10,
        timeouts: Timeouts | None = None,
        bell: bool = True,
    ) -> None:
        read_url(direct_url or url)
        self.timeouts = timeouts or Timeouts()
        self._direct_url = direct_url or url
        self._where = describe_url(url)
        self._pooled = direct_url is not None
        self._engine = create_engine(url, self.timeouts, pool_size=pool_size, pooled=self._pooled)
        self._reading = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        self._snapshots = self._engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        self._bell = Bell(self._reading) if bell else None

    def __repr__(self) -> str:
        return f"<Database: {self._where}>"

    def pool_use(self) -> Mapping[str, int]:
        """Connections of the pool that are `used` and `idle` at this moment, and the most there may be (`limit`)."""
        pool = self._engine.pool
        if not isinstance(pool, QueuePool):
            return {}
        return {"used": pool.checkedout(), "idle": pool.checkedin(), "limit": pool.size()}

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """For reads of one statement each: no transaction around them, one round trip a statement.

        Two statements may see two revisions; take `snapshot()` where they must agree.
        """
        async with our_errors(self._where), self._reading.connect() as conn:
            yield conn

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[AsyncConnection]:
        """For reads of several statements that must agree: repeatable read, read only."""
        async with our_errors(self._where), self._snapshots.connect() as conn:
            yield conn

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """One write transaction: commits on leaving, rolls back on an error, then rings if a revision was appended.

        Never retries: see `run_in_transaction`. Answer a client only after leaving it.
        """
        async with our_errors(self._where), self._engine.connect() as conn:
            conn.info.pop(_RINGS, None)
            async with conn.begin():
                if self._pooled:
                    await conn.execute(_ISOLATION)
                await conn.execute(_BEGIN, {"timeout": self.timeouts.statement_ms})
                yield conn
            rings = conn.info.pop(_RINGS, False)
        if rings and self._bell is not None:
            self._bell.ring()

    async def run_in_transaction(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Run `work` in a write transaction, again from its start after a serialisation failure or a deadlock.

        `work` must have no effect outside the database, and build its ChangeSet anew each time.
        """
        tries = 0
        while True:
            tries += 1
            try:
                async with self.transaction() as conn:
                    return await work(conn)
            except DBAPIError as error:
                if tries == _TRIES or sqlstate(error) not in {SERIALIZATION_FAILURE, DEADLOCK}:
                    raise
            # Those that collided must not meet again at once; the loop's own order keeps this apart enough.
            await asyncio.sleep(0.005 * tries)

    async def connect_direct(self, *, timeouts: Timeouts | None = None) -> asyncpg.Connection:
        """A raw connection to the primary, for polls or for LISTEN on BELL_CHANNEL. The caller terminates it."""
        async with our_errors(describe_url(self._direct_url)):
            return await connect(self._direct_url, timeouts or self.timeouts, application="authz-service follower")

    async def close(self) -> None:
        """Close the pool; what is still running on it fails."""
        if self._bell is not None:
            await self._bell.close()
        # A farewell that nobody takes must not keep a process from its end.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._engine.dispose()


def ring_after_commit(conn: AsyncConnection) -> None:
    """Have the transaction on `conn` ring the bell once it has committed."""
    conn.info[_RINGS] = True


class Bell:
    """Rings BELL_CHANNEL, best effort, at most once per 20 ms: what comes sooner is rung together at the end of them.

    A lost ring delays nobody beyond the next poll: the change log is the letter, this is only the bell.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._task: asyncio.Task[None] | None = None
        self._again = False

    def ring(self) -> None:
        """Returns at once; the ring follows from a task of the running loop."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())
        else:
            self._again = True

    async def _run(self) -> None:
        self._again = True
        while self._again:
            self._again = False
            await self._notify()
            await asyncio.sleep(_BELL_INTERVAL)

    async def _notify(self) -> None:
        try:
            # A link that swallows everything must not hold up the rings that come after.
            async with our_errors("the bell"), asyncio.timeout(_RING_SECONDS), self._engine.connect() as conn:
                await conn.execute(text(f"notify {BELL_CHANNEL}"))
        except (AuthzError, SQLAlchemyError, asyncpg.PostgresError):
            return

    async def close(self) -> None:
        """Stop; a ring that waits is dropped."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
