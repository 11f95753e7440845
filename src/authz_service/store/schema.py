"""Brings a database's schema to what this version needs, and says when it is not there."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.errors import SchemaOutdatedError, StartError
from authz_service.store.connect import Timeouts, create_engine, describe_url, our_errors

if TYPE_CHECKING:
    from alembic.config import Config

_MIGRATION_LOCK: Final = 7_203_114_905
"""Any number that nothing else in the database uses: replicas that start together migrate one after the other."""


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
    """Raises SchemaOutdatedError, which says what to run, when the schema is not the one of `schema_head()`."""
    found, wanted = await load_schema_revision(conn), schema_head()
    if found == wanted:
        return
    if found is None:
        raise SchemaOutdatedError("the database is empty; run `authz migrate`")
    if found in _known_revisions():
        raise SchemaOutdatedError(
            f"the database has schema `{found}` and this version needs `{wanted}`; run `authz migrate`"
        )
    raise SchemaOutdatedError(
        f"the database has schema `{found}`, which this version does not know; run a newer version of the service"
    )


async def migrate(url: str, target: str = "head", *, lock_timeout: str = "5s") -> str | None:
    """Bring the schema of the database at `url` to `target`; answers the revision it has then, None for an empty one.

    `url` leads to the server itself, not to a pooler. Safe to repeat, and to run from several replicas at once: one
    works, the others wait and find it done. A schema of a newer version is refused with SchemaOutdatedError. `base`
    drops every table: it is for tests. Whoever waits for a lock holds up every query behind it: a migration that waits
    longer than `lock_timeout` fails with DatabaseUnavailableError, and may be run again.
    """
    engine = create_engine(url, Timeouts(statement=0), pool_size=None)
    try:
        async with our_errors(describe_url(url)), engine.connect() as conn:
            await conn.execute(text("select pg_advisory_lock(:lock)"), {"lock": _MIGRATION_LOCK})
            found = await load_schema_revision(conn)
            await conn.commit()
            if found is not None and found not in _known_revisions():
                await check_schema(conn)
            await conn.run_sync(_run, target, lock_timeout)
            await conn.commit()
            return await load_schema_revision(conn)
    finally:
        # The lock goes with its connection.
        await engine.dispose()


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
def _known_revisions() -> frozenset[str]:
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    return frozenset(script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions())
