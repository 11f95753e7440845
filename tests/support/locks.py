"""Whether something that runs beside a test waits for another transaction."""

from __future__ import annotations

import asyncio
from typing import Any

from sqlalchemy import text

from authz_service.store.database import Database


async def waits_for_a_lock(database: Database, task: asyncio.Task[Any]) -> bool:
    """Whether the task comes to wait for another transaction; False when it ends without."""
    async with database.read() as conn:
        for _ in range(1000):
            if task.done():
                return False
            if (await conn.execute(text("select count(*) from pg_locks where not granted"))).scalar():
                return True
            await asyncio.sleep(0.01)
    raise AssertionError("it neither waits nor ends")
