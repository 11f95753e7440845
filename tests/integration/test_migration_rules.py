"""Migrations leave running replicas in peace: what each may do, and that what earlier releases send still runs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import asyncpg
import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import event, text
from sqlalchemy.engine import Engine
from tests.faults.older import releases

from authz_service.errors import SchemaBehindError, SchemaOutdatedError
from authz_service.store.database import Database, migrate
from authz_service.store.schema import check_schema, find_migrations, load_served, schema_head

SMALL = {
    "revision",
    "replica",
    "clock_shift",
    "sweep",
    "catalog_version",
    "alembic_version",
    "policy",
    "webhook",
    "session",
}
"""Tables of few rows, where a rewrite is over at once."""
NOTE = "Not concurrently:"
"""In the file of a migration that builds an index on a large table all the same, with the reason."""

ACCEPTED = {"20261123_records": ["builds an index on `audit` under a lock; use `concurrently`"]}
"""What was out before these rules were: docs/operations/upgrading.md says what it costs."""


def scripts() -> list[Any]:
    directory = ScriptDirectory(str(find_migrations()))
    return list(reversed(list(directory.walk_revisions())))


@contextmanager
def statements() -> Iterator[list[str]]:
    """Whatever any engine sends meanwhile."""
    found: list[str] = []

    def note(conn: Any, cursor: Any, statement: str, *_: Any) -> None:
        del conn, cursor
        found.append(" ".join(statement.split()))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def faults_of(sent: Sequence[str], module: ModuleType, source: str) -> list[str]:
    """What a migration does that it may not do beside running replicas."""
    made = {match[1] for one in sent if (match := re.match(r"(?i)create table (\w+)", one))}
    found: list[str] = []
    for one in sent:
        statement = one.lower()
        if match := re.match(r"create (?:unique )?index (concurrently )?(?:if not exists )?\w+ on (\w+)", statement):
            if not match[1] and match[2] not in made | SMALL and NOTE not in source:
                found.append(f"builds an index on `{match[2]}` under a lock; use `concurrently`")
        elif match := re.match(r"alter table (?:only )?(\w+) (.*)", statement):
            if match[1] in made | SMALL:
                continue
            found += _faults_of_alter(match[1], match[2], contracts=getattr(module, "contracts", False))
        elif re.match(r"(drop|truncate) table|drop function", statement) and not getattr(module, "contracts", False):
            found.append(f"takes away what older code may use (`{one[:40]}`); say `contracts = True`")
    return found


def _faults_of_alter(table: str, change: str, *, contracts: bool) -> list[str]:
    if re.search(r"\b(drop column|rename|alter column \w+ (set data )?type)\b", change) and not contracts:
        return [f"changes `{table}` under older code; say `contracts = True`"]
    if "add column" in change and "not null" in change and "default" not in change:
        return [f"adds a column to `{table}` that older code does not fill; give it a default"]
    if re.search(r"default (?!'|\d|true|false|null|\()", change) or "set data type" in change:
        return [f"rewrites every row of `{table}`: a default that is no constant"]
    if "add constraint" in change and "not valid" not in change and "using index" not in change:
        return [f"looks at every row of `{table}` under a lock; add it `not valid`, and validate it later"]
    if "set not null" in change:
        return [f"looks at every row of `{table}` under a lock"]
    return []


async def test_each_migration_keeps_to_the_rules_and_every_older_release_goes_on_with_it(empty_database_url: str):
    url = empty_database_url
    raw = url.replace("+asyncpg", "")
    working: list[str] = []
    for script in scripts():
        with statements() as sent:
            await migrate(url, script.revision)
        source = Path(script.path).read_text(encoding="utf-8")  # noqa: ASYNC240 - a short file
        first = next(one for one in sent if re.match(r"(?i)(create|alter|insert|drop|update)", one))
        assert any("lock_timeout" in one for one in sent[: sent.index(first)]), script.revision
        if script.down_revision is not None:
            assert faults_of(sent, script.module, source) == ACCEPTED.get(script.revision, []), script.revision
        if getattr(script.module, "contracts", False):
            working.clear()
        working += [script.revision] if script.revision in releases() else []
        await prepare_all(raw, script.revision, working)
    assert working, "no earlier release is held to anything"


async def prepare_all(url: str, schema: str, older: Sequence[str]) -> None:
    """The server plans what older replicas send, on the tables as they are now."""
    conn = await asyncpg.connect(url)
    try:
        for release in older:
            for statement in releases()[release]:
                try:
                    await conn.prepare(statement)
                except asyncpg.PostgresError as error:
                    raise AssertionError(f"{release} cannot go on with {schema}: {error}: {statement}") from error
    finally:
        await conn.close()


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("create index ix on token (name)", "concurrently"),
        ("alter table token add column x text not null", "default"),
        ("alter table token add column x timestamptz not null default authz_now()", "no constant"),
        ("alter table token drop column name", "contracts"),
        ("alter table token alter column name type varchar(10)", "contracts"),
        ("alter table token rename column name to title", "contracts"),
        ("alter table token alter column name set not null", "every row"),
        ("alter table token add constraint c check (name <> '')", "not valid"),
        ("drop table idempotency", "contracts"),
    ],
)
def test_a_migration_that_would_hold_up_replicas_is_refused(statement, said):
    [found] = faults_of([statement], ModuleType("migration"), "")
    assert said in found


@pytest.mark.parametrize(
    "statement",
    [
        "create index concurrently ix on token (name)",
        "create table fresh (id int)",
        "alter table token add column x text",
        "alter table token add column x text not null default ''",
        "alter table token add constraint c check (name <> '') not valid",
        "alter table revision add column x timestamptz not null default authz_now()",
    ],
)
def test_a_migration_that_only_adds_may_run_beside_them(statement):
    assert faults_of([statement], ModuleType("migration"), "") == []


async def test_the_database_says_whose_code_may_serve_from_it(empty_database_url: str):
    first, *_, last = [script.revision for script in scripts()]
    database = Database(empty_database_url)
    try:
        await migrate(empty_database_url, first)
        async with database.read() as conn:
            assert await load_served(conn) == (first,)
            with pytest.raises(SchemaBehindError, match="authz migrate"):
                await check_schema(conn)
        await migrate(empty_database_url)
        async with database.read() as conn:
            assert set(await load_served(conn)) == {script.revision for script in scripts()}
        # A later release migrated, and says that this one may go on.
        async with database.transaction() as conn:
            await conn.execute(text("update alembic_version set version_num = '20991231_next'"))
        async with database.read() as conn:
            assert await load_served(conn) == (), "what was said was said of another schema"
            with pytest.raises(SchemaOutdatedError, match="newer version"):
                await check_schema(conn)
        async with database.transaction() as conn:
            said = f"schema 20991231_next serves the code of 20991231_next, {last}"
            await conn.execute(text(f"comment on table alembic_version is '{said}'"))
        async with database.read() as conn:
            await check_schema(conn)
        assert await migrate(empty_database_url) == "20991231_next", "nothing is left to do, and nothing is undone"
        assert last == schema_head()
    finally:
        await database.close()
