"""What is looked at before the first worker starts, so that one sentence says what is wrong, once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.cache.clock import elapsed
from authz_service.config import Settings
from authz_service.errors import SchemaBehindError, StartError
from authz_service.store.catalogs import check_shipped
from authz_service.store.database import Database, check_schema
from authz_service.store.fitness import load_connection_limit
from authz_service.store.replicas import Watch, load_all
from authz_service.store.shipped import shipped_texts
from authz_service.telemetry import logger

_LOOK_EVERY: Final = 0.5


@dataclass(frozen=True, slots=True)
class Budget:
    """How many connections the workers may open, beside those of other replicas, and how many the server takes.

    `allowed` is None behind a pooler, which opens fewer than it is asked for.
    """

    workers: int
    each: int
    others: int
    allowed: int | None

    @property
    def together(self) -> int:
        return self.workers * self.each + self.others

    @property
    def too_many(self) -> bool:
        return self.allowed is not None and self.together > self.allowed

    def fields(self) -> dict[str, object]:
        """For a log line."""
        return {
            "workers": self.workers,
            "each": self.each,
            "other_replicas": self.others,
            "together": self.together,
            "server_takes": self.allowed,
        }


async def check_database(settings: Settings) -> Budget:
    """Raises DatabaseUnavailableError, SchemaOutdatedError, or StartError for more connections than there may be.

    Replicas that died lately are counted until it is sure that they did: it takes some seconds, in the last case only.
    A schema that a migration is to bring up yet is waited for, AUTHZ_SCHEMA_PATIENCE at the most.
    """
    database = Database(settings.dsn, direct_url=settings.direct_dsn, pool_size=1, bell=False)
    try:
        async with database.read() as conn:
            await _await_schema(conn, settings.schema_patience)
            await check_shipped(conn, shipped_texts())
            allowed = None
            if settings.direct_dsn is None:
                allowed = await load_connection_limit(conn)
            budget = await _count(conn, settings, allowed)
    finally:
        await database.close()
    if budget.too_many:
        raise StartError(
            f"{budget.workers} workers with {budget.each} connections each, and {budget.others} of other replicas, are"
            f" {budget.together}, and the database takes {allowed}: raise its limit, lower AUTHZ_POOL_SIZE or"
            " AUTHZ_WORKERS, or put a pooler in between (AUTHZ_DATABASE_DIRECT_URL)"
        )
    return budget


async def _await_schema(conn: AsyncConnection, patience: float) -> None:
    ends_at, told = elapsed() + patience, False
    while True:
        try:
            await check_schema(conn)
        except SchemaBehindError as error:
            if elapsed() + _LOOK_EVERY > ends_at:
                raise
            if not told:
                told = True
                logger().warning("waiting for the schema", why=error.message, patience=patience)
        else:
            return
        await asyncio.sleep(_LOOK_EVERY)


async def _count(conn: AsyncConnection, settings: Settings, allowed: int | None) -> Budget:
    watch, began = Watch(), elapsed()
    while True:
        asked_at = elapsed()
        rows = await load_all(conn)
        silent = watch.silent(rows, asked_at, elapsed())
        others = sum(row.connections for row in rows if row not in silent)
        budget = Budget(settings.workers, settings.connections, others, allowed)
        patience = max((row.grace for row in rows), default=0.0) + 2 * _LOOK_EVERY
        if not budget.too_many or not others or elapsed() - began > patience:
            return budget
        await asyncio.sleep(_LOOK_EVERY)
