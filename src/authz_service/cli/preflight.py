"""What is looked at before the first worker starts, so that one sentence says what is wrong, once."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import text

from authz_service.config import Settings
from authz_service.store.database import Database, check_schema

FOLLOWING = 2
"""Connections of a worker beside its pool: one polls, one hears the bell."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How many connections the workers may open, and how many the server takes from everybody."""

    workers: int
    each: int
    allowed: int | None

    @property
    def together(self) -> int:
        return self.workers * self.each

    @property
    def too_many(self) -> bool:
        return self.allowed is not None and self.together > self.allowed

    def fields(self) -> dict[str, object]:
        """For a log line."""
        return {"workers": self.workers, "each": self.each, "together": self.together, "server_takes": self.allowed}


async def check_database(settings: Settings) -> Budget:
    """Raises DatabaseUnavailableError, or SchemaOutdatedError, which says what to run."""
    database = Database(settings.dsn, direct_url=settings.direct_dsn, pool_size=1, bell=False)
    try:
        async with database.read() as conn:
            await check_schema(conn)
            allowed = None
            if settings.direct_dsn is None:  # a pooler opens fewer than it is asked for
                allowed = int((await conn.execute(text("show max_connections"))).scalar_one())
    finally:
        await database.close()
    each = settings.pool_size + (FOLLOWING if settings.bell else FOLLOWING - 1)
    return Budget(settings.workers, each, allowed)
