from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy import text
from tests.support.serving import PEPPER, Served, serving, settings_for

from authz_service.cli.commands import run
from authz_service.cli.examining import examine
from authz_service.cli.examining_service import look_at_upkeep
from authz_service.cli.findings import Finding, Level
from authz_service.store.database import Database, migrate, schema_head
from authz_service.store.fitness import load_connection_limit, load_upkeep
from authz_service.store.roles import grant_service_role

ROLE, PASSWORD = "authz-doctor", "a-password-for-this-test"
OTHER_PEPPER = base64.b64encode(os.urandom(32)).decode()


class Patient:
    """A database that the service was at home in, and the settings of a replica."""

    def __init__(self, url: str, served: Served) -> None:
        self.served = served
        self.env = {"AUTHZ_DATABASE_URL": url.replace("+asyncpg", ""), "AUTHZ_PEPPERS": f"t1:{PEPPER}"}

    async def sql(self, statement: str, **values: Any) -> None:
        async with self.served.management.database.transaction() as conn:
            await conn.execute(text(statement), values)

    async def said(self, check: str, **env: str) -> list[Finding]:
        found = await examine({**self.env, **env})
        return [one for one in found if one.check == check]

    async def said_once(self, check: str, **env: str) -> Finding:
        [found] = [one for one in await self.said(check, **env) if one.level is not Level.FINE]
        assert found.mend, found
        return found


@pytest.fixture
async def patient(database_url: str) -> AsyncIterator[Patient]:
    async with serving(database_url) as served:
        yield Patient(database_url, served)


async def test_a_service_that_is_well_has_nothing_wrong_but_what_tests_do_to_their_server(patient):
    found = await examine(patient.env)
    assert {one.check for one in found if one.level is Level.WRONG} == {"server"}, found  # fsync is off here
    assert {one.check for one in found if one.level is Level.ADVICE} <= {"role", "replicas", "server"}, found
    assert {"settings", "files", "database", "bell", "clock", "schema", "connections"} <= {one.check for one in found}
    assert {"peppers", "admins", "audit", "sweeps"} <= {one.check for one in found}


@dataclass(frozen=True)
class Done:
    status: int
    out: str
    err: str


@pytest.fixture
def authz(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Awaitable[Done]]:
    """A command in this process: it costs no start."""

    async def call(*arguments: str, env: dict[str, str]) -> Done:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        capsys.readouterr()
        status = await asyncio.to_thread(run, arguments)
        shown = capsys.readouterr()
        return Done(status, shown.out, shown.err)

    return call


# it cannot begin


@pytest.mark.parametrize(
    ("env", "variable"),
    [
        ({"AUTHZ_PEPPERS": ""}, "AUTHZ_PEPPERS"),
        ({"AUTHZ_PEPPERS": "k1:" + base64.b64encode(bytes(8)).decode()}, "AUTHZ_PEPPERS"),
        ({"AUTHZ_POOL_SIZE": "many"}, "AUTHZ_POOL_SIZE"),
        ({"AUTHZ_POLL_INTERVAL": "30"}, "AUTHZ_MAX_STALENESS"),
    ],
)
async def test_settings_that_cannot_be_are_named_and_the_rest_is_looked_at_all_the_same(patient, env, variable):
    found = await examine({**patient.env, **env})
    assert [one.message.partition(":")[0] for one in found if one.check == "settings"] == [variable]
    assert any(one.check == "database" for one in found)


async def test_without_a_database_that_alone_is_said():
    found = await examine({"AUTHZ_PEPPERS": f"t1:{PEPPER}"})
    assert [one.level for one in found] == [Level.WRONG]
    assert "AUTHZ_DATABASE_URL" in found[0].message


async def test_a_setting_that_nobody_knows_is_a_slip_of_the_pen(patient):
    found = await patient.said_once("settings", AUTHZ_POOLSIZE="5")
    assert (found.level, "`AUTHZ_POOLSIZE`" in found.message) == (Level.ADVICE, True)


async def test_a_database_that_does_not_answer_is_named_without_its_password(patient):
    found = await patient.said_once("database", AUTHZ_DATABASE_URL="postgresql://u:hunter2hunter2@127.0.0.1:1/x")
    assert found.level is Level.WRONG
    assert "hunter2" not in str(found)
    assert "`x` at `127.0.0.1:1`" in found.message


async def test_a_wrong_password_is_said_to_be_one(patient):
    parts = urlsplit(patient.env["AUTHZ_DATABASE_URL"])
    url = parts._replace(netloc="authz:wrong@" + parts.netloc.rpartition("@")[2]).geturl()
    assert "refused our password" in (await patient.said_once("database", AUTHZ_DATABASE_URL=url)).message


async def test_an_empty_database_and_an_older_schema_need_a_migration(empty_database_url):
    env = {"AUTHZ_DATABASE_URL": empty_database_url.replace("+asyncpg", ""), "AUTHZ_PEPPERS": f"t1:{PEPPER}"}
    for target in (None, "20261121_first_tables"):
        if target is not None:
            await migrate(empty_database_url, target)
        [found] = [one for one in await examine(env) if one.check == "schema"]
        assert (found.level, "`authz migrate`" in found.mend) == (Level.WRONG, True)


async def test_a_schema_from_the_future_needs_a_newer_service(patient):
    await patient.sql("update alembic_version set version_num = '20991231_from_the_future'")
    found = await patient.said_once("schema")
    assert (found.level, "newer version" in found.mend) == (Level.WRONG, True)


async def test_a_newer_schema_that_serves_this_version_too_is_an_upgrade_under_way(patient):
    await patient.sql("update alembic_version set version_num = '20991231_next'")
    await patient.sql(
        f"comment on table alembic_version is 'schema 20991231_next serves the code of 20991231_next, {schema_head()}'"
    )
    assert (await patient.said_once("schema")).level is Level.ADVICE


# roles


@pytest.fixture
async def role_url(patient: Patient, database_url: str) -> str:
    async with patient.served.management.database.transaction() as conn:
        exists = (await conn.execute(text("select 1 from pg_roles where rolname = :role"), {"role": ROLE})).scalar()
        if not exists:
            await conn.execute(text(f"create role \"{ROLE}\" login password '{PASSWORD}'"))
        await grant_service_role(conn, ROLE)
    parts = urlsplit(database_url)
    return parts._replace(scheme="postgresql", netloc=f"{ROLE}:{PASSWORD}@{parts.netloc.rpartition('@')[2]}").geturl()


async def test_a_role_that_may_only_serve_is_fine(patient, role_url):
    assert [one.level for one in await patient.said("role", AUTHZ_DATABASE_URL=role_url)] == [Level.FINE]
    # and everything else can be looked at by it
    found = await examine({**patient.env, "AUTHZ_DATABASE_URL": role_url})
    assert {one.check for one in found if one.level is Level.WRONG} == {"server"}, found


async def test_a_role_that_may_rewrite_the_audit_or_make_tables_is_too_powerful(patient, role_url):
    assert "superuser" in (await patient.said_once("role")).message
    for statement, said in (
        (f'grant update, delete on audit to "{ROLE}"', "delete on audit, update on audit"),
        (f'grant create on schema public to "{ROLE}"', "may create tables"),
    ):
        await patient.sql(statement)
        found = await patient.said_once("role", AUTHZ_DATABASE_URL=role_url)
        assert (found.level, said in found.message) == (Level.ADVICE, True), found


async def test_a_role_that_lacks_a_right_cannot_serve(patient, role_url):
    await patient.sql(f'revoke insert on audit from "{ROLE}"')
    found = await patient.said_once("role", AUTHZ_DATABASE_URL=role_url)
    assert (found.level, "insert on audit" in found.message) == (Level.WRONG, True)
    assert f"--service-role {ROLE}" in found.mend


async def test_a_role_that_may_not_even_look_is_told_so(patient, role_url):
    await patient.sql(f'revoke select on audit from "{ROLE}"')
    found = await patient.said_once("role", AUTHZ_DATABASE_URL=role_url)
    assert (found.level, "select on audit" in found.message) == (Level.WRONG, True)
    await patient.sql(f'revoke all on alembic_version from "{ROLE}"')
    found = await patient.said_once("role", AUTHZ_DATABASE_URL=role_url)
    assert (found.level, "may not read" in found.message) == (Level.WRONG, True)


async def test_the_mend_of_a_role_mends_it(patient, role_url, authz):
    await patient.sql(f'revoke insert on audit from "{ROLE}"')
    await patient.sql(f'grant delete on audit to "{ROLE}"')
    assert (await authz("migrate", "--service-role", ROLE, env=patient.env)).status == 0
    assert [one.level for one in await patient.said("role", AUTHZ_DATABASE_URL=role_url)] == [Level.FINE]


# servers, replicas


async def test_a_server_that_forgets_in_a_crash_is_wrong(patient):
    found = await patient.said_once("server")
    assert (found.level, "fsync" in found.message) == (Level.WRONG, True)


async def test_more_connections_than_the_server_takes(patient):
    async with patient.served.management.database.read() as conn:
        limit = await load_connection_limit(conn)
    many = {"AUTHZ_WORKERS": "20", "AUTHZ_POOL_SIZE": "20"}
    assert (await patient.said_once("connections", **many)).level is Level.WRONG
    await patient.sql("update replica set connections = :many", many=limit - 2)
    found = await patient.said_once("connections")
    assert (found.level, "room for one replica more" in found.mend) == (Level.ADVICE, True)


async def test_replicas_of_different_versions_and_promises(patient):
    await patient.sql("update replica set name = 'elsewhere:1 0.0.1', max_staleness = 30")
    found = await patient.said("replicas")
    assert [one.level for one in found] == [Level.ADVICE, Level.ADVICE]
    assert "0.0.1" in found[0].message
    assert "(5, 30 s)" in found[1].message


async def test_a_bell_that_is_off_makes_revokes_as_slow_as_polls(patient):
    found = await patient.said_once("bell", AUTHZ_BELL="false", AUTHZ_POLL_INTERVAL="3")
    assert (found.level, "up to 3 s" in found.message) == (Level.ADVICE, True)


async def test_the_clock_of_a_test_is_left_in_no_real_database(patient):
    await patient.sql("update clock_shift set shift = interval '1 hour'")
    found = [one for one in await patient.said("clock") if one.level is Level.WRONG]
    assert "3,600 s" in found[0].message


# what is stored


async def test_a_pepper_that_is_gone_takes_its_tokens_with_it(patient):
    found = await patient.said_once("peppers", AUTHZ_PEPPERS=f"k9:{OTHER_PEPPER}")
    assert found.level is Level.WRONG
    assert "of `t1`" in found.message
    both = f"t1:{PEPPER},k9:{OTHER_PEPPER}"
    assert [one.level for one in await patient.said("peppers", AUTHZ_PEPPERS=both, AUTHZ_PEPPER_KID="k9")] == ["fine"]


async def test_nobody_who_can_manage(patient):
    await patient.sql(
        "update token set revoked_at = authz_now() where owner_id in (select node_id from account where admin)"
    )
    assert "nobody can" in (await patient.said_once("admins")).message
    await patient.sql("update account set admin = false")
    assert (await patient.said_once("admins")).mend == "`authz bootstrap`"


async def test_a_gateway_token_that_is_about_to_expire_is_named_and_a_replaced_one_is_not(patient):
    await patient.sql(
        "update token set expires_at = authz_now() + interval '3 days 1 hour' where cardinality(evaluates) > 0"
    )
    found = await patient.said_once("gateway")
    assert (found.level, "in 3.0 days" in found.message) == (Level.ADVICE, True)
    assert "`authz token rotate tok_" in found.mend
    await patient.sql("update token set successor_id = id where cardinality(evaluates) > 0")
    assert await patient.said("gateway") == []


async def test_the_token_of_the_gateways_own_listener(patient, tmp_path: Path):
    file = tmp_path / "token"
    file.touch(0o600)
    env = {"AUTHZ_GATEWAY_LISTEN": "127.0.0.1:8081", "AUTHZ_GATEWAY_TOKEN_FILE": str(file)}
    file.write_text(patient.served.tokens.gateway)
    assert [one.level for one in await patient.said("gateway", **env)] == [Level.FINE]
    file.write_text(patient.served.tokens.sample)
    assert "may not ask" in (await patient.said_once("gateway", **env)).message
    file.write_text(patient.served.tokens.gateway)
    await patient.sql("update token set revoked_at = authz_now() where cardinality(evaluates) > 0")
    found = await patient.said_once("gateway", **env)
    assert (found.level, "was revoked" in found.message) == (Level.WRONG, True)
    assert patient.served.tokens.gateway not in str(found)


async def test_a_catalog_that_tokens_were_made_under_and_that_is_gone(patient):
    await patient.sql("update token set catalogs = '{\"orders\": 3}' where cardinality(evaluates) > 0")
    found = await patient.said_once("catalogs")
    assert (found.level, "orders@3" in found.message) == (Level.WRONG, True)


async def test_sweeps_that_nobody_runs(patient):
    await patient.sql("insert into audit (action, subject, details, at) values ('x', 'y', '{}', '2020-01-01')")
    found = await patient.said_once("sweeps")
    assert (found.level, "none of them ever" in found.message) == (Level.WRONG, True)
    await patient.sql(
        "insert into sweep (name, holder, finished_at, done) values ('notices', gen_random_uuid(), '2020-01-01', 0)"
    )
    assert "notices" in (await patient.said_once("sweeps")).message


async def test_an_audit_that_nobody_seals(database_url):
    """Nobody serves here, so nobody seals."""
    database = Database(database_url)
    async with database.transaction() as conn:
        await conn.execute(
            text("insert into audit (action, subject, details, at) values ('x', 'y', '{}', '2020-01-01')")
        )
    async with database.read() as conn:
        upkeep = await load_upkeep(conn)
    await database.close()
    for running, level in ((True, Level.WRONG), (False, Level.ADVICE)):
        [found] = [one for one in look_at_upkeep(settings_for(database_url), upkeep, running=running) if one.mend][:1]
        assert (found.check, found.level) == ("audit", level)


async def test_a_change_log_that_nobody_prunes(patient):
    await patient.sql("update change_log set rev = rev - 300000 where rev = (select min(rev) from change_log)")
    assert (await patient.said_once("change log")).level is Level.ADVICE


# files, and the command


async def test_a_secret_file_that_everybody_may_read(patient, tmp_path: Path):
    file = tmp_path / "peppers"
    file.write_text(f"t1:{PEPPER}\n")
    file.chmod(0o644)
    env = {"AUTHZ_PEPPERS": "", "AUTHZ_PEPPERS_FILE": str(file)}
    found = await patient.said_once("files", **env)
    assert (found.level, "0644" in found.message) == (Level.ADVICE, True)
    file.chmod(0o600)
    assert [one.level for one in await patient.said("files", **env)] == [Level.FINE]


async def test_the_command_shows_a_table_or_json_and_says_by_its_status_whether_anything_is_wrong(
    patient, role_url, authz
):
    before = await counts(patient)
    table = await authz("doctor", env=patient.env)
    assert table.status == 1
    assert "fsync" in table.out
    assert "1 wrong" in table.err
    document = await authz("doctor", "--output", "json", env=patient.env)
    found = json.loads(document.out)
    assert (document.status, found["healthy"]) == (1, False)
    assert {"check", "level", "message", "mend"} == set(found["findings"][0])
    for done in (table, document):
        for secret in (PEPPER, patient.served.tokens.gateway, urlsplit(patient.env["AUTHZ_DATABASE_URL"]).password):
            assert secret not in done.out + done.err
    assert await counts(patient) == before


async def counts(patient: Patient) -> list[int]:
    """Doctor leaves nothing behind."""
    database: Database = patient.served.management.database
    async with database.read() as conn:
        return [
            (await conn.execute(text(f"select count(*) from {table}"))).scalar_one()
            for table in ("audit", "change_log", "token", "event", "node", "sweep")
        ]
