"""The upgrade of docs/operations/upgrading.md: a loaded database of the first schema, while replicas go on."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from tests.faults.client import Connection, check_request, request
from tests.faults.fleet import PROJECT, wait_until
from tests.faults.older import OldReplicas
from tests.faults.postgres import Postgres
from tests.faults.service import Service

from authz_service.pdp.secrets import Peppers
from authz_service.store.database import migrate
from authz_service.store.schema import schema_head
from authz_service.tokens.policy import EVALUATE
from authz_service.tokens.secret import new_secret, new_token_id

FIRST = "20261121_first_tables"
PEPPER = "k1:" + "A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8S9t0U1w="
KNOWN = 120
"""Tokens whose secrets the test has."""


@dataclass(frozen=True)
class World:
    secrets: Mapping[str, str]
    digests: Mapping[str, bytes]
    gateway: str
    manager: str
    owner: int
    place: int


async def load(url: str, tokens: int) -> World:
    """Tens of thousands of rows, by the columns of the first schema."""
    peppers = Peppers(*_peppers())
    conn = await asyncpg.connect(url)
    await conn.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
    try:
        node = "insert into node (source, kind, parent_id, name, name_key, external_id, visibility, namespace_id)"
        owner = await conn.fetchval(
            f"{node} values ('default', 'user', null, 'dana', 'dana', '7', 0, null) returning id"
        )
        group = await conn.fetchval(
            f"{node} values ('default', 'group', null, 'acme', 'acme', '11', 0, '11') returning id"
        )
        place = await conn.fetchval(
            f"{node} values ('default', 'project', $1, 'web', 'web', '43', 0, null) returning id", group
        )
        await conn.execute("insert into account values ($1, 'active', true, false, false)", owner)
        await conn.execute("insert into membership values ($1, $2, 'maintainer')", owner, group)
        await conn.execute(
            "insert into node (source, kind, parent_id, name, name_key, external_id, visibility)"
            " select 'default', 'project', $1, 'p' || n, 'p' || n, (1000 + n)::text, 0 from generate_series(1, $2) n",
            group,
            tokens,
        )
        secrets: dict[str, str] = {}
        digests: dict[str, bytes] = {}

        async def insert(catalog: str, version: int, scope: Mapping[str, Any], evaluates: list[str]) -> str:
            token, secret = new_token_id(), new_secret("azt", peppers.current).reveal()
            digest = peppers.digest(secret)
            assert digest is not None
            await conn.execute(
                "insert into token (id, digest, kid, kind, name, owner_id, catalogs, scopes, legacy_scopes, evaluates,"
                " conditions, family_id, reason, may_rotate_self)"
                " values ($1, $2, 'k1', 'fine_grained', 'x', $3, $4, $5, '{}', $6, '{}', $1, '', false)",
                *(token, digest, owner, {catalog: version}, [{"catalog": catalog, **scope}], evaluates),
            )
            secrets[token], digests[token] = secret, digest
            return token

        everywhere = {"reach": {"kind": "instance"}}
        gateway = await insert("authz", 1, {**everywhere, "permissions": [EVALUATE]}, ["*"])
        manages = ["token:create", "token:create_any", "token:read", "token:revoke"]
        manager = await insert("authz", 1, {**everywhere, "permissions": manages}, [])
        callers = {one: secrets.pop(one) for one in (gateway, manager)}
        for one in callers:
            del digests[one]
        for _ in range(KNOWN):
            reach = {"kind": "selected", "nodes": [place]}
            token = await insert("gitlab", 2, {"reach": reach, "permissions": ["job:read"]}, [])
            await conn.execute("insert into token_node values ($1, $2)", token, place)
        await conn.execute(
            "insert into token (id, digest, kid, kind, name, owner_id, catalogs, scopes, legacy_scopes, evaluates,"
            " conditions, family_id, reason, may_rotate_self)"
            " select 'tok_' || n, sha256(n::text::bytea), 'k1', 'fine_grained', 'x', $1, '{\"gitlab\": 2}', t.scopes,"
            " '{}', '{}', '{}', 'tok_' || n, '', false from generate_series(1, $2) n,"
            " (select scopes from token where id = $3) t",
            *(owner, tokens, next(iter(digests))),
        )
        await conn.execute(
            "insert into audit (action, subject, details) select 'token.create', 'tok_' || n, '{}'"
            " from generate_series(1, $1) n",
            tokens,
        )
        await conn.execute("analyze")
    finally:
        await conn.close()
    return World(secrets, digests, callers[gateway], callers[manager], owner, place)


def _peppers() -> tuple[dict[str, bytes], str]:
    kid, _, encoded = PEPPER.partition(":")
    return {kid: base64.b64decode(encoded)}, kid


@pytest.mark.parametrize("tokens", [20_000, pytest.param(100_000, marks=pytest.mark.long)])
def test_a_loaded_database_is_upgraded_while_older_replicas_go_on(tokens: int, tmp_path: Path):
    with Postgres() as server:
        asyncio.run(upgrade(server, tokens, tmp_path))


async def upgrade(server: Postgres, tokens: int, folder: Path) -> None:
    url = server.server.dsn
    await migrate(url, FIRST)
    world = await load(url, tokens)
    old = OldReplicas(url, FIRST, dict(world.digests), world.owner, world.place)
    working = asyncio.create_task(old.run())
    service = Service(
        folder / "service.log",
        {
            "AUTHZ_DATABASE_URL": url,
            "AUTHZ_PEPPERS": PEPPER,
            "AUTHZ_SCHEMA_PATIENCE": "300",
            "AUTHZ_POOL_SIZE": "4",
            "AUTHZ_LOADS_RUNNING": "4",
        },
    )
    try:
        # The new version is rolled out first: it waits, unready.
        service.launch()
        await asyncio.to_thread(
            wait_until, lambda: logged(service, "waiting for the schema"), 120, "the wait for the schema"
        )
        await until(old, "look-ups", 100)
        assert not logged(service, "answering")
        await bring_up(url)
        await until(old, "look-ups", 100)
        await until(old, "writes", 5)
        await until(old, "polls", 20)
        await asyncio.to_thread(service.await_answering, 180)
        await asyncio.to_thread(service.await_ready, seconds=120)
        # Both versions at work, and what one writes the other sees.
        await compare(service, world, old)
        await revoke_by_the_new(service, world, old)
        await until(old, "look-ups", 100)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        assert not old.wrong, old.wrong[:5]
        assert old.revoked
        await asyncio.sleep(0.5)
        await compare(service, world, old)
    finally:
        working.cancel()
        service.stop()


async def bring_up(url: str) -> None:
    """Migrate beside somebody who reads the tokens in one long transaction: locks are not waited for, but tried for."""
    retried = asyncio.Event()
    reader = await asyncpg.connect(url)
    try:
        transaction = reader.transaction()
        await transaction.start()
        await reader.fetchval("select count(*) from token")
        bringing = asyncio.create_task(
            migrate(url, lock_timeout="500ms", patience=300, pause=0.5, on_retry=retried.set)
        )
        async with asyncio.timeout(120):
            await retried.wait()
        await transaction.rollback()
    finally:
        await reader.close()
    assert await bringing == schema_head()


def logged(service: Service, what: str) -> bool:
    return service.log.exists() and any(one.get("event") == what for one in service.events())


async def until(old: OldReplicas, what: str, count: int) -> None:
    wanted = old.counts[what] + count
    async with asyncio.timeout(120):
        while old.counts[what] < wanted:
            assert not old.wrong, old.wrong[:5]
            await asyncio.sleep(0.02)


async def compare(service: Service, world: World, old: OldReplicas) -> None:
    """The new replica decides by what the old ones wrote, and soon."""
    connection = Connection(service.port)
    try:
        for token, secret in world.secrets.items():
            for _ in range(300):
                revoked = token in old.revoked
                answer = await connection.send(check_request(world.gateway, secret, PROJECT))
                right = answer.status == 200 and (not revoked if answer.allows else token in old.tried)
                if right:
                    break
                await asyncio.sleep(0.05)  # a change that is on its way, or a replica that is busy
            assert right, f"{token} is answered {answer.body!r}"
    finally:
        connection.close()


async def revoke_by_the_new(service: Service, world: World, old: OldReplicas) -> None:
    token = next(one for one in sorted(world.secrets, reverse=True) if one not in old.tried)
    old.tried.add(token)
    connection = Connection(service.port)
    try:
        answer = await connection.send(request("DELETE", f"/v1/tokens/{token}", world.manager))
        assert answer.status == 200, answer.body
    finally:
        connection.close()
    old.revoked.add(token)
