from __future__ import annotations

import asyncio

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from authz_service.errors import DatabaseUnavailableError, SchemaOutdatedError
from authz_service.store.all_tables import metadata
from authz_service.store.database import Database, check_schema, migrate, schema_head

# What the server itself says of a schema; what alembic compares leaves out check constraints.
DESCRIPTION = """
select 'column', table_name || '.' || column_name,
       concat_ws(' ', data_type, udt_name, is_nullable, column_default, is_identity, identity_generation)
from information_schema.columns where table_schema = 'public' and table_name <> 'alembic_version'
union all
select 'constraint', conrelid::regclass || '.' || conname, pg_get_constraintdef(oid)
from pg_constraint where connamespace = 'public'::regnamespace and conrelid::regclass::text <> 'alembic_version'
union all
select 'index', indexname, indexdef from pg_indexes where schemaname = 'public' and tablename <> 'alembic_version'
"""


def engine(url: str) -> AsyncEngine:
    return create_async_engine(url, poolclass=NullPool)


async def describe(url: str) -> set[tuple[str, ...]]:
    async with engine(url).connect() as conn:
        return {tuple(row) for row in await conn.execute(text(DESCRIPTION))}


async def tables(conn: AsyncConnection) -> set[str]:
    found = await conn.execute(text("select tablename from pg_tables where schemaname = 'public'"))
    return set(found.scalars())


async def test_migrations_go_up_down_and_up_again(empty_database_url: str):
    url = empty_database_url
    assert await migrate(url) == schema_head()
    first = await describe(url)
    assert await migrate(url, "base") is None
    async with engine(url).connect() as conn:
        assert await tables(conn) == {"alembic_version"}
        assert (await conn.execute(text("select to_regproc('authz_now')"))).scalar() is None
    assert await migrate(url) == schema_head()
    assert await describe(url) == first


async def test_the_tables_of_the_code_are_those_of_the_migrations(database_url: str):
    async with engine(database_url).connect() as conn:
        differences = await conn.run_sync(
            lambda sync: compare_metadata(
                MigrationContext.configure(sync, opts={"compare_type": True, "compare_server_default": True}), metadata
            )
        )
    assert differences == []


async def test_constraints_and_indexes_of_the_code_are_those_of_the_migrations(
    database_url: str, empty_database_url: str
):
    async with engine(empty_database_url).begin() as conn:
        await conn.execute(
            text("create function authz_now() returns timestamptz language sql as 'select clock_timestamp()'")
        )
        await conn.run_sync(metadata.create_all)
    assert await describe(empty_database_url) == await describe(database_url)


async def test_replicas_that_start_together_migrate_once(empty_database_url: str):
    heads = await asyncio.gather(*(migrate(empty_database_url) for _ in range(4)))
    assert heads == [schema_head()] * 4


async def test_a_migration_does_not_wait_long_for_a_lock(database_url: str):
    async with engine(database_url).connect() as holder:
        await holder.execute(text("lock table token in access exclusive mode"))
        with pytest.raises(DatabaseUnavailableError, match="something else holds what we need"):
            await migrate(database_url, "base", lock_timeout="200ms", patience=0)
    async with engine(database_url).connect() as conn:
        assert "token" in await tables(conn)


async def test_an_empty_database_says_what_to_run(empty_database_url: str):
    database = Database(empty_database_url)
    async with database.read() as conn:
        with pytest.raises(SchemaOutdatedError, match="run `authz migrate`"):
            await check_schema(conn)
    await database.close()


async def test_a_migrated_database_is_as_wanted(database_url: str):
    database = Database(database_url)
    async with database.read() as conn:
        await check_schema(conn)
    await database.close()


async def test_a_schema_of_a_newer_version_is_left_alone(database_url: str):
    async with engine(database_url).begin() as conn:
        await conn.execute(text("update alembic_version set version_num = '20991231_from_the_future'"))
    database = Database(database_url)
    async with database.read() as conn:
        with pytest.raises(SchemaOutdatedError, match="newer version of the service"):
            await check_schema(conn)
    await database.close()
    with pytest.raises(SchemaOutdatedError, match="20991231_from_the_future"):
        await migrate(database_url)


async def test_the_clock_of_sql_can_be_shifted_by_its_table_alone(database_url: str):
    async with engine(database_url).connect() as conn:
        difference = text("select extract(epoch from authz_now() - clock_timestamp())")
        await conn.execute(text("set authz.clock_shift = '1 hour'"))
        assert abs((await conn.execute(difference)).scalar_one()) < 1
        await conn.execute(text("update clock_shift set shift = interval '1 hour'"))
        assert 3599 < (await conn.execute(difference)).scalar_one() < 3601
