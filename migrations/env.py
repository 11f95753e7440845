"""How alembic runs our migrations: on the connection that `store.schema.migrate` gives, or on `-x url=postgresql://…`."""

from __future__ import annotations

import asyncio
from typing import Any

from alembic import context
from sqlalchemy import Connection, text

from authz_service.store.all_tables import metadata
from authz_service.store.connect import Timeouts, create_engine


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        compare_type=True,
        compare_server_default=True,
        transaction_per_migration=True,
        on_version_apply=note_served,
    )
    timeout = context.config.attributes.get("lock_timeout", "1s")
    with context.begin_transaction():
        connection.execute(text("select set_config('lock_timeout', :timeout, false)"), {"timeout": timeout})
        context.run_migrations()


def note_served(ctx: Any, heads: set[str], **_: object) -> None:
    """Beside the revision, in its transaction: whose code may serve from it. `store.schema.load_served` reads it.

    A migration leaves the code before it working, unless it says `contracts = True`.
    """
    said = "null"
    for head in heads:
        served = [head]
        script = context.script.get_revision(head)
        while script is not None and script.down_revision and not getattr(script.module, "contracts", False):
            served.append(script.down_revision)
            script = context.script.get_revision(script.down_revision)
        said = f"'schema {head} serves the code of {', '.join(served)}'"
    ctx.connection.exec_driver_sql(f"comment on table alembic_version is {said}")


async def run_on_url(url: str) -> None:
    engine = create_engine(url, Timeouts(statement=0), pool_size=None)
    async with engine.connect() as connection:
        await connection.run_sync(run)
        await connection.commit()
    await engine.dispose()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    url = context.get_x_argument(as_dictionary=True).get("url")
    if not url:
        raise SystemExit("say which database: `alembic -c migrations/alembic.ini -x url=postgresql://… COMMAND`")
    asyncio.run(run_on_url(url))
