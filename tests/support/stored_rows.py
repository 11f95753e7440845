"""Rows in a database: put there through the service's own writes, and read back by plain statements of our own."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from tests.reference.places import path_of
from tests.reference.rows import Rows
from tests.support.stored_rulings import put_rulings, read_rulings

from authz_service.catalog.loader import load_catalog
from authz_service.catalog.model import Catalog
from authz_service.directory.changes import parse_import
from authz_service.directory.model import INSTANCE_ID, Node, NodeId, NodeKind, User, UserState, Visibility
from authz_service.pdp.secrets import Peppers
from authz_service.store import catalogs, tokens
from authz_service.store.changes import ChangeSet, Stamp, append, current
from authz_service.store.database import Database
from authz_service.store.directory_import import apply_import
from authz_service.store.shipped import shipped_catalogs
from authz_service.store.token_rows import TokenRecord
from authz_service.tokens.model import Conditions, Reach, ReachKind, Scope, Token, TokenId, TokenKind
from authz_service.tokens.secret import new_secret

# Reading


@dataclass(frozen=True)
class Reading:
    """All that a decision depends on, as of one revision and one moment of database time."""

    rows: Rows
    stamp: Stamp
    now: datetime


async def read_rows(database: Database) -> Rows:
    """The whole directory, every token and every catalog version."""
    return (await read_all(database)).rows


async def read_all(database: Database, *, tokens: Iterable[str] | None = None) -> Reading:
    """`read_rows` with the revision that they are of; with `tokens` no others. Shares no query with the service."""
    async with database.snapshot() as conn:
        nodes = [_node(row) for row in await _select(conn, "select * from node where deleted_at is null order by id")]
        users = [
            _user(row)
            for row in await _select(
                conn, "select n.name, a.* from account a join node n on n.id = a.node_id order by 1"
            )
        ]
        memberships = [
            (row["user_id"], row["node_id"], row["role"])
            for row in await _select(conn, "select * from membership order by user_id, node_id")
        ]
        every = "select * from token where cast(:ids as text[]) is null or id = any(:ids) order by created_at, id"
        ids = None if tokens is None else list(tokens)
        found = [_token(row) for row in (await conn.execute(text(every), {"ids": ids})).mappings()]
        installed = await _select(conn, "select * from catalog_version where name not like '%#%' order by 1, 2")
        known = [*shipped_catalogs(), *(_catalog(row["text"]) for row in installed)]
        rulings = await read_rulings(conn)
        now = (await conn.execute(text("select authz_now()"))).scalar_one()
        return Reading(Rows(nodes, users, memberships, found, known, *rulings), await current(conn), now)


async def _select(conn: AsyncConnection, query: str) -> list[Mapping[str, Any]]:
    return list((await conn.execute(text(query))).mappings())


def _node(row: Mapping[str, Any]) -> Node:
    kind = NodeKind(row["kind"])
    return Node(
        row["id"],
        kind,
        row["name"],
        row["parent_id"],
        Visibility(row["visibility"]),
        row["external_id"],
        row["namespace_id"] if kind is NodeKind.USER else None,
        row["archived"],
        row["attributes"],
        row["source"],
    )


def _user(row: Mapping[str, Any]) -> User:
    return User(
        row["node_id"],
        row["name"],
        UserState(row["state"]),
        row["admin"],
        row["external"],
        row["service_account"],
        row["home_id"],
    )


def _token(row: Mapping[str, Any]) -> Token:
    return Token(
        TokenId(row["id"]),
        row["owner_name"] if row["owner_id"] is None else row["owner_id"],
        row["catalogs"],
        TokenKind(row["kind"]),
        tuple(
            Scope(
                written["catalog"],
                Reach(ReachKind(written["reach"]["kind"]), tuple(written["reach"].get("nodes", ()))),
                tuple(written["permissions"]),
            )
            for written in row["scopes"]
        ),
        tuple(row["legacy_scopes"]),
        row["name"],
        row["created_at"],
        row["not_before"],
        row["expires_at"],
        row["revoked_at"],
        Conditions(tuple(row["conditions"].get("networks", ()))),
        row["parent_id"],
        row["resource_owner_name"] if row["resource_owner_id"] is None else row["resource_owner_id"],
        tuple(row["evaluates"]),
    )


@cache
def _catalog(written: str) -> Catalog:
    return load_catalog(written)


# Writing


@dataclass(frozen=True)
class Stored:
    """Rows that are in a database now: their ids there, and the secrets of their tokens."""

    ids: Mapping[NodeId, int]
    secrets: Mapping[TokenId, str]


async def import_lines(database: Database, *lines: Mapping[str, Any]) -> Stamp:
    """One import of these lines, without asking anybody."""
    body = b"\n".join(json.dumps(line).encode() for line in lines)
    return (await database.run_in_transaction(lambda conn: apply_import(conn, parse_import(body)))).stamp


async def install(database: Database, *texts: str) -> Stamp:
    """Catalog versions, without asking anybody; one that is there already stays."""
    known = [load_catalog(written) for written in texts]

    async def work(conn: AsyncConnection) -> Stamp:
        changes = ChangeSet()
        for written, catalog in zip(texts, known, strict=True):
            await catalogs.install(
                conn, changes, name=catalog.name, version=catalog.version, text=written, installed_by="test"
            )
        return await append(conn, changes)

    return await database.run_in_transaction(work)


async def put_rows(database: Database, rows: Rows, peppers: Peppers) -> Stored:
    """Put these rows where there are none, but for catalogs. Ids of nodes become the database's own, of tokens stay.

    A place without an external id gets one, so that later lines can speak of it whatever its path is then.
    """
    await import_lines(database, *directory_lines(rows))
    ids = await _ids(database, rows)
    secrets: dict[TokenId, str] = {}
    async with database.transaction() as conn:
        for token in _parents_first(rows.tokens):
            secret = new_secret(peppers.prefix, peppers.current)
            digest = peppers.digest(secret.reveal())
            assert digest is not None
            await tokens.insert(conn, TokenRecord(_with_ids(token, ids), peppers.current, token.id), digest)
            secrets[token.id] = secret.reveal()
        for token in rows.tokens:
            await conn.execute(
                text(
                    "update token set created_at = coalesce(:created, created_at), revoked_at = :revoked where id = :id"
                ),
                {"created": token.created_at, "revoked": token.revoked_at, "id": token.id},
            )
        await put_rulings(conn, rows, ids)
    gone = [user for user in rows.users if user.state is UserState.DELETED]
    if gone:
        await import_lines(
            database, *({"type": "delete", "what": "user", "user": f"user:{user.username}"} for user in gone)
        )
    return Stored(ids, secrets)


def external_id(node: Node) -> str:
    return node.external_id or str(9_000_000 + int(node.id))


def directory_lines(rows: Rows) -> Iterator[dict[str, Any]]:
    """An import that makes the directory of these rows. Deleted users come alive in it."""
    alive = {node.id: node for node in rows.nodes}
    for user in rows.users:
        node = alive.get(user.id)
        yield {
            "type": "user",
            "username": user.username,
            "state": "active" if node is None else user.state.value,
            "admin": user.admin,
            "external": user.external,
            "service_account": user.service_account,
            "attributes": {} if node is None else dict(node.attributes),
            **({} if node is None else {"source": node.source, "namespace_id": node.namespace_external_id}),
            **({} if node is None or node.external_id is None else {"external_id": node.external_id}),
        }
    places = [node for node in rows.nodes if node.kind in (NodeKind.GROUP, NodeKind.PROJECT)]
    for node in sorted(places, key=lambda node: path_of(rows, node).count("/")):
        yield {
            "type": node.kind.value,
            "path": path_of(rows, node),
            "external_id": external_id(node),
            "visibility": node.visibility.name.lower(),
            "archived": node.archived,
            "attributes": dict(node.attributes),
            "source": node.source,
        }
    for user in rows.users:
        if user.home is not None:
            home = path_of(rows, alive[user.home])
            yield {"type": "user", "username": user.username, "home": home, "source": alive[user.id].source}
    for member, place, role in rows.memberships:
        yield {
            "type": "membership",
            "user": alive[member].name,
            "node": path_of(rows, alive[place]),
            "role": role,
            "source": alive[place].source,
        }


async def _ids(database: Database, rows: Rows) -> dict[NodeId, int]:
    async with database.read() as conn:
        stored = await _select(conn, "select id, source, kind, name, external_id from node where deleted_at is null")
    users = {(row["source"], row["name"]): row["id"] for row in stored if row["kind"] == "user"}
    places = {(row["source"], row["kind"], row["external_id"]): row["id"] for row in stored}
    ids: dict[NodeId, int] = {INSTANCE_ID: INSTANCE_ID}
    for node in rows.nodes:
        if node.kind is NodeKind.USER:
            ids[node.id] = users[node.source, node.name]
        elif node.kind is not NodeKind.INSTANCE:
            ids[node.id] = places[node.source, node.kind.value, external_id(node)]
    return ids


def _parents_first(given: Iterable[Token]) -> list[Token]:
    waiting = list(given)
    done: list[Token] = []
    while waiting:
        known = {token.id for token in done}
        ready = [token for token in waiting if token.parent is None or token.parent in known]
        if not ready:
            raise ValueError("no store holds tokens whose parents are missing or form a circle")
        done += ready
        waiting = [token for token in waiting if token not in ready]
    return done


def _with_ids(token: Token, ids: Mapping[NodeId, int]) -> Token:
    def known(node: NodeId) -> NodeId:
        return node if isinstance(node, str) else ids[node]

    return replace(
        token,
        owner=known(token.owner),
        resource_owner=None if token.resource_owner is None else known(token.resource_owner),
        scopes=tuple(
            replace(scope, reach=replace(scope.reach, nodes=tuple(known(node) for node in scope.reach.nodes)))
            for scope in token.scopes
        ),
    )
