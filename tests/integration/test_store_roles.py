from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.directory.changes import parse_import
from authz_service.errors import InvalidInputError
from authz_service.store import (
    audit,
    audit_chain,
    catalogs,
    directory,
    events,
    idempotency,
    leaks,
    token_sweeps,
    tokens,
    webhooks,
)
from authz_service.store.all_tables import metadata
from authz_service.store.audit import AuditEntry
from authz_service.store.audit_chain import Checkpoint
from authz_service.store.changes import ChangeSet, append, load_clock, prune_log
from authz_service.store.database import Database, check_schema
from authz_service.store.directory_import import apply_import
from authz_service.store.events import Event, EventKind
from authz_service.store.roles import PRIVILEGES, grant_service_role
from authz_service.store.sweeps import Turn, note_batch, take_turn
from authz_service.store.token_rows import TokenRecord
from authz_service.tokens.model import Token, TokenId

ROLE, PASSWORD = "authz-service", "a-password-for-this-test"


@pytest.fixture
async def owner(database_url: str) -> AsyncIterator[Database]:
    found = Database(database_url, bell=False)
    yield found
    await found.close()


@pytest.fixture
async def service(owner: Database, database_url: str) -> AsyncIterator[Database]:
    """The service under a role of its own."""
    async with owner.transaction() as conn:
        exists = (await conn.execute(text("select 1 from pg_roles where rolname = :role"), {"role": ROLE})).scalar()
        if not exists:
            await conn.execute(text(f"create role \"{ROLE}\" login password '{PASSWORD}'"))
        await conn.execute(text(f'grant all on clock_shift to "{ROLE}"'))
        await grant_service_role(conn, ROLE)
    parts = urlsplit(database_url)
    host = parts.netloc.rpartition("@")[2]
    url = parts._replace(netloc=f"{ROLE}:{PASSWORD}@{host}").geturl()
    found = Database(url)
    yield found
    await found.close()


LINES = (
    {"type": "user", "username": "dana", "external_id": "7"},
    {"type": "group", "path": "acme", "external_id": "11"},
    {"type": "membership", "user": "dana", "node": "acme", "role": "owner"},
    {"type": "user", "username": "dana", "state": "blocked"},
    {"type": "delete", "what": "membership", "user": "dana", "node": "acme"},
)


async def test_the_service_does_its_work_under_a_role_without_rights_to_spare(service: Database):
    async with service.transaction() as conn:
        await check_schema(conn)
        changes = ChangeSet()
        for line in LINES:
            await apply_import(conn, parse_import(json.dumps(line).encode()), changes=changes)
        await directory.hold_still(conn)
        dana = (await directory.find_user(conn, username="dana")).user
        assert dana is not None
        await catalogs.install(conn, changes, name="orders", version=1, text="a: 1", installed_by="dana")
        own = TokenId("tok_x")
        await idempotency.claim(conn, key="k", caller="c", body_hash=b"x")
        await tokens.insert(conn, TokenRecord(Token(own, dana.id, {"orders": 1}), "k1", own), b"x")
        await tokens.replace(conn, changes, await tokens.get(conn, own, lock=True))
        await idempotency.keep(conn, key="k", caller="c", response={})
        await tokens.revoke_family(conn, changes, own, reason="test")
        stamp = await append(conn, changes)
        await audit.insert(conn, AuditEntry("directory.import", "instance"), stamp)
        await idempotency.prune(conn)
        await prune_log(conn)
        await keep_records(conn)
        assert await take_turn(conn, "purge", uuid4(), interval=timedelta(), begin=True) is Turn.MINE
        await note_batch(conn, "purge", 0, finished=True)
        await token_sweeps.find_notices(conn, limit=1)
        await token_sweeps.find_unused(conn, days=1, limit=1)
        ended = {"id": own, "at": "2020-01-01T00:00:00+00:00"}
        await conn.execute(text("update token set revoked_at = cast(:at as text)::timestamptz where id = :id"), ended)
        gone, _ = await token_sweeps.purge_families(conn, changes, keep=timedelta(days=2), limit=1)
        assert gone == (own,)


async def keep_records(conn: AsyncConnection) -> None:
    """Seal, sign, tell, deliver, settle a leak."""
    assert await audit_chain.seal_rows(conn) is not None
    head = await audit_chain.load_head(conn)
    now = await load_clock(conn)
    await audit_chain.add_checkpoint(conn, Checkpoint(head.seal, head.hash, now, "none", "none"))
    told = await events.append_event(conn, Event(EventKind.TOKEN_LEAKED, once="leak/tok_x"))
    hook = webhooks.Webhook("whk_x", 1, "", "https://hooks.example.com/", (), active=True, kid="k1", salt=b"")
    await webhooks.insert(conn, hook)
    await webhooks.hand_out(conn, [one.id for one in await events.take_waiting(conn)])
    await webhooks.add_delivery(conn, hook.id, told or 0)
    for due in await webhooks.claim_due(conn, limit=5, lease=timedelta(seconds=1)):
        await webhooks.end_attempt(conn, due.id, attempt={}, state=webhooks.DeliveryState.FAILED, again=None)
    await webhooks.remove(conn, hook.id)
    await events.prune(conn, older_than=timedelta())
    await leaks.insert(conn, [leaks.Reported(b"x", "report")])
    assert await leaks.take(conn)


FORBIDDEN = (
    "update clock_shift set shift = interval '1 hour'",
    "insert into clock_shift values (2, interval '0')",
    "delete from audit",
    "update audit set action = 'nothing'",
    "update audit set details = '{}'",
    "update audit set nodes = '{}'",
    "update audit_checkpoint set seal = 0",
    "delete from audit_checkpoint",
    "truncate audit",
    "update change_log set key = 'x'",
    "delete from node",
    "delete from token",
    "delete from account",
    "update catalog_version set text = ''",
    "delete from catalog_version",
    "delete from revision",
    "insert into revision values (2, 0, gen_random_uuid(), '')",
    "create table mine (id int)",
    "drop table audit",
    "alter table audit add column mine int",
    "create or replace function authz_now() returns timestamptz language sql as 'select now()'",
    "alter table audit disable trigger all",
    "update alembic_version set version_num = 'x'",
)


async def test_the_service_has_no_right_to_rewrite_history_shift_the_clock_or_make_tables(service: Database):
    for statement in FORBIDDEN:
        with pytest.raises(DBAPIError, match=r"permission denied|must be owner"):
            await execute(service, statement)


async def execute(database: Database, statement: str) -> None:
    async with database.transaction() as conn:
        await conn.execute(text(statement))


def test_every_table_is_granted_or_left_out_on_purpose():
    assert set(PRIVILEGES) == set(metadata.tables)


async def test_a_role_that_is_not_there_is_named(owner: Database):
    async with owner.transaction() as conn:
        with pytest.raises(InvalidInputError, match="`nobody; drop table audit`"):
            await grant_service_role(conn, "nobody; drop table audit")
