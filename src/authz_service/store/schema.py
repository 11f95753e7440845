"""Brings a database's schema to what this version needs, and says when it is not there."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.errors import SchemaBehindError, SchemaOutdatedError, StartError
from authz_service.store.connect import (
    DEADLOCK,
    LOCK_NOT_AVAILABLE,
    Timeouts,
    create_engine,
    describe_url,
    our_errors,
    sqlstate,
)

if TYPE_CHECKING:
    from alembic.config import Config

_MIGRATION_LOCK: Final = 7_203_114_905
"""Any number that nothing else in the database uses: replicas that start together migrate one after the other."""
_TURN_SECONDS: Final = 0.1
_AGAIN: Final = frozenset({LOCK_NOT_AVAILABLE, DEADLOCK})
_SERVED: Final = re.compile(r"schema ([\w.-]+) serves the code of ([\w., -]+)")

_waited: Final = time.monotonic  # noqa: TID251 - how long somebody waited is no time that a rule knows


def find_migrations() -> Path:
    """The folder of migrations: in the installed package, or at the top of the repository."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "_migrations", package.parents[1] / "migrations"):
        if (folder / "env.py").is_file():
            return folder
    raise StartError("the migrations are missing from this installation; install the package again")


def _config() -> Config:
    # Here, not at the top: a replica that serves needs alembic only to name the head.
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(find_migrations()).replace("%", "%%"))
    return config


@cache
def schema_head() -> str:
    """The schema revision that this version needs."""
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    head = ScriptDirectory.from_config(_config()).get_current_head()
    if head is None:
        raise StartError("the migrations are missing from this installation; install the package again")
    return head


async def load_schema_revision(conn: AsyncConnection) -> str | None:
    """The schema revision of the database, None when it has none of our tables."""
    if (await conn.execute(text("select to_regclass('alembic_version')"))).scalar() is None:
        return None
    return (await conn.execute(text("select version_num from alembic_version"))).scalar()


async def check_schema(conn: AsyncConnection) -> None:
    """Raises SchemaOutdatedError, which says what to run, when this version cannot serve from the database's schema.

    It can from that of `schema_head()`, and from a newer one whose migrations said that they leave it working.
    """
    found, wanted = await load_schema_revision(conn), schema_head()
    if found == wanted:
        return
    if found is None:
        raise SchemaOutdatedError("the database is empty; run `authz migrate`")
    if found in known_revisions():
        raise SchemaBehindError(
            f"the database has schema `{found}` and this version needs `{wanted}`; run `authz migrate`"
        )
    if wanted in await load_served(conn):
        return
    raise SchemaOutdatedError(
        f"the database has schema `{found}`, which this version does not know; run a newer version of the service"
    )


async def load_served(conn: AsyncConnection) -> Sequence[str]:
    """The schema revisions whose code may serve from the database as it is now, as the last migration left it said.

    Empty when nobody said so of the revision that the database has.
    """
    said = (await conn.execute(text("select obj_description(to_regclass('alembic_version'), 'pg_class')"))).scalar()
    match = _SERVED.fullmatch(said or "")
    if match is None or match[1] != await load_schema_revision(conn):
        return ()
    return tuple(match[2].split(", "))


async def migrate(
    url: str,
    target: str = "head",
    *,
    lock_timeout: str = "1s",
    patience: float = 60.0,
    pause: float = 2.0,
    on_retry: Callable[[], None] = lambda: None,
) -> str | None:
    """Bring the schema of the database at `url` to `target`; answers the revision it has then, None for an empty one.

    `url` leads to the server itself, not to a pooler. Safe to repeat, and to run from several replicas at once: one
    works, the others wait and find it done. A schema of a newer version is refused with SchemaOutdatedError. `base`
    drops every table: it is for tests. Whoever waits for a lock holds up every query behind it: so no statement waits
    longer than `lock_timeout`, which is to be well below S; the migration is rolled back and tried again after `pause`
    seconds, for `patience` seconds in all; `on_retry` hears of it. Then DatabaseUnavailableError, and it may be run
    again.
    """
    engine = create_engine(url, Timeouts(statement=0), pool_size=None)
    try:
        async with our_errors(describe_url(url)), engine.connect() as conn:
            await _take_turn(conn)
            found = await load_schema_revision(conn)
            await conn.commit()
            if found is not None and found not in known_revisions():
                await check_schema(conn)
                return found
            ends_at = _waited() + patience
            while True:
                try:
                    await conn.run_sync(_run, target, lock_timeout)
                    await conn.commit()
                    return await load_schema_revision(conn)
                except DBAPIError as error:
                    if sqlstate(error) not in _AGAIN or _waited() + pause > ends_at:
                        raise
                    await conn.rollback()
                on_retry()
                await asyncio.sleep(pause)
    finally:
        # The lock goes with its connection.
        await engine.dispose()


async def _take_turn(conn: AsyncConnection) -> None:
    """Hold the lock of migrations for as long as the connection is open.

    Asked for again and again: who waits inside a statement holds a snapshot meanwhile, and an index that is built
    concurrently would wait for that.
    """
    while not (await conn.execute(text("select pg_try_advisory_lock(:lock)"), {"lock": _MIGRATION_LOCK})).scalar():
        await conn.commit()
        await asyncio.sleep(_TURN_SECONDS)


def _run(connection: object, target: str, lock_timeout: str) -> None:
    from alembic import command  # noqa: PLC0415

    config = _config()
    config.attributes["connection"] = connection
    config.attributes["lock_timeout"] = lock_timeout
    if target == "base" or target.startswith("-"):
        command.downgrade(config, target)
    else:
        command.upgrade(config, target)


@cache
def known_revisions() -> frozenset[str]:
    """Every schema revision that this version has a migration for."""
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    return frozenset(script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions())
