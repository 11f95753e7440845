"""Connections to PostgreSQL: how a URL is read, what an engine is given, and how the driver's errors become ours."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs, urlsplit

import asyncpg
from sqlalchemy import event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from authz_service.errors import DatabaseUnavailableError, StartError

SERIALIZATION_FAILURE: Final = "40001"
DEADLOCK: Final = "40P01"
LOCK_NOT_AVAILABLE: Final = "55P03"

_REST_SECONDS: Final = 1.0
_SCHEMES: Final = ("postgresql", "postgres", "postgresql+asyncpg")
_CAUSES: Final = {
    "28P01": "it refused our password; check the database URL",
    "28000": "it refused our user; check the database URL and pg_hba.conf",
    "3D000": "it has no such database; create it, or check the database URL",
    "53300": "it has no connection left; raise max_connections or lower the pool size",
    "57P03": "it is starting up or shutting down; try again shortly",
    "57P01": "it ended our connection; try again shortly",
    "57P02": "it crashed; try again shortly",
    "25006": "it takes no writes; is it a standby? point the database URL at the primary",
    "57014": "a statement took too long and was stopped; try again, or look for what holds it up",
    "55P03": "something else holds what we need; try again shortly",
}
_UNAVAILABLE_CLASSES: Final = ("08", "28", "53", "57", "58")


_rested: Final = time.monotonic  # noqa: TID251 - how long a connection rested is no time that a rule knows


@dataclass(frozen=True, slots=True)
class Timeouts:
    """In seconds. `statement` also bounds how long a statement waits for a lock; 0 is no bound."""

    connect: float = 5.0
    statement: float = 30.0

    @property
    def statement_ms(self) -> str:
        """As PostgreSQL's settings take it."""
        return str(round(self.statement * 1000))


def read_url(url: str) -> str:
    """The URL as the driver takes it. Raises StartError for what is none of PostgreSQL, and does not repeat it."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in _SCHEMES:
        raise StartError(
            "the database URL is not one of PostgreSQL; write `postgresql://user:password@host:5432/database`"
        )
    return f"postgresql://{rest}"


def describe_url(url: str) -> str:
    """Where the URL points, for messages: host and database, never the password."""
    try:
        parts = urlsplit(url)
        query = parse_qs(parts.query)
        host = (query.get("host") or [parts.hostname or "localhost"])[0]
        port = f":{parts.port}" if parts.port else ""
        name = parts.path.lstrip("/") or (query.get("dbname") or ["default"])[0]
    except ValueError:
        return "the database"
    return f"the database `{name}` at `{host}{port}`"


async def connect(
    url: str, timeouts: Timeouts, *, pooled: bool = False, application: str = "authz-service"
) -> asyncpg.Connection:
    """A raw connection of the driver. `pooled`: the server in between keeps no prepared statements for us."""
    settings = {"application_name": application}
    if not pooled:  # poolers refuse the settings that they do not track
        settings |= {
            "statement_timeout": timeouts.statement_ms,
            "synchronous_commit": "on",
            "default_transaction_isolation": "read committed",
        }
    return await asyncpg.connect(
        read_url(url),
        timeout=timeouts.connect,
        # The server stops a statement first, and says so; this is for a server that says nothing any more.
        command_timeout=timeouts.statement + 1 if timeouts.statement else None,
        statement_cache_size=0 if pooled else 100,
        server_settings=settings,
    )


def create_engine(url: str, timeouts: Timeouts, *, pool_size: int | None, pooled: bool = False) -> AsyncEngine:
    """An engine on `url`; `pool_size` None opens a connection for each use. Errors never show a statement's values."""

    async def creator(*_: object, **__: object) -> asyncpg.Connection:
        return await connect(url, timeouts, pooled=pooled)

    driver: dict[str, object] = {}
    if pooled:
        # A pooler hands our statements to any connection, so that no two may have one name.
        driver = {
            "prepared_statement_cache_size": 0,
            "prepared_statement_name_func": lambda: f"__authz_{uuid.uuid4()}__",
        }
    options: dict[str, object] = {"poolclass": NullPool}
    if pool_size is not None:
        options = {"pool_size": pool_size, "max_overflow": 0, "pool_timeout": timeouts.connect}
    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=creator, connect_args=driver, hide_parameters=True, **options
    )
    if pool_size is not None:
        _ping_after_a_rest(engine)
    return engine


def _ping_after_a_rest(engine: AsyncEngine) -> None:
    """Ask a connection that rested whether it still works, before it is used; one that was just used does."""
    dialect = engine.dialect

    def put_back(_: object, record: ConnectionPoolEntry) -> None:
        record.info["used"] = _rested()

    def take(connection: DBAPIConnection, record: ConnectionPoolEntry, _: object) -> None:
        if _rested() - record.info.get("used", 0.0) < _REST_SECONDS:
            return
        try:
            dialect.do_ping(connection)
        except dialect.loaded_dbapi.Error as error:
            raise DisconnectionError from error

    event.listen(engine.sync_engine, "checkin", put_back)
    event.listen(engine.sync_engine, "checkout", take)


def sqlstate(error: BaseException) -> str | None:
    """The SQLSTATE of an error of the driver, wrapped or not."""
    inner = error.orig if isinstance(error, DBAPIError) else error
    found = getattr(inner, "sqlstate", None)
    return found if isinstance(found, str) else None


@asynccontextmanager
async def our_errors(where: str) -> AsyncIterator[None]:
    """Within it, what means that the database cannot be used now becomes DatabaseUnavailableError; `where` is named.

    What means a fault of ours (a constraint, a statement the server does not understand) goes through as it is.
    """
    try:
        yield
    except DBAPIError as error:
        state = sqlstate(error)
        lost = error.connection_invalidated or isinstance(error.orig, OSError | asyncpg.InterfaceError)
        if not lost and not _is_unavailable(state):
            raise
        raise DatabaseUnavailableError(_message(where, state)) from error
    except asyncpg.PostgresError as error:
        if not _is_unavailable(error.sqlstate):
            raise
        raise DatabaseUnavailableError(_message(where, error.sqlstate)) from error
    except PoolTimeoutError as error:
        raise DatabaseUnavailableError(f"all connections to {where} are in use; try again shortly") from error
    except (OSError, TimeoutError, asyncpg.InterfaceError) as error:
        raise DatabaseUnavailableError(_message(where, None)) from error


def _is_unavailable(state: str | None) -> bool:
    return state is not None and (state in _CAUSES or state[:2] in _UNAVAILABLE_CLASSES)


def _message(where: str, state: str | None) -> str:
    cause = _CAUSES.get(state or "", "")
    return f"{where}: {cause}" if cause else f"{where} cannot be reached; is it running, and is the database URL right"
