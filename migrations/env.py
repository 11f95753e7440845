"""How alembic runs our migrations: on the connection that `store.schema.migrate` gives, or on `-x url=postgresql://…`."""

from __future__ import annotations

import asyncio

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
    )
    timeout = context.config.attributes.get("lock_timeout", "5s")
    with context.begin_transaction():
        connection.execute(text("select set_config('lock_timeout', :timeout, false)"), {"timeout": timeout})
        context.run_migrations()


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
