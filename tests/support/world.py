"""Writes that tests make directly in the store, behind every replica's back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from tests.support.replica import PEPPERS

from authz_service.directory.changes import parse_import
from authz_service.store import directory, tokens
from authz_service.store.changes import ChangeSet, Stamp, append
from authz_service.store.database import Database
from authz_service.store.directory_import import apply_import
from authz_service.store.token_rows import TokenRecord
from authz_service.tokens.model import Reach, ReachKind, Scope, Token, TokenId
from authz_service.tokens.secret import digest, new_secret, new_token_id

ORGANISATION: tuple[Mapping[str, Any], ...] = (
    {"type": "user", "username": "dana", "external_id": "7"},
    {"type": "user", "username": "erin", "external_id": "8"},
    {"type": "group", "path": "acme", "external_id": "11", "visibility": "private"},
    {"type": "group", "path": "acme/platform", "external_id": "12", "visibility": "private"},
    {"type": "project", "path": "acme/platform/api", "external_id": "42", "visibility": "private"},
    {"type": "project", "path": "acme/web", "external_id": "43", "visibility": "private"},
    {"type": "membership", "user": "dana", "node": "acme", "role": "developer"},
)


async def import_lines(database: Database, lines: Iterable[Mapping[str, Any]] = ORGANISATION) -> Stamp:
    body = b"\n".join(json.dumps(line).encode() for line in lines)
    result = await database.run_in_transaction(lambda conn: apply_import(conn, parse_import(body)))
    return result.stamp


async def issue(
    database: Database,
    *,
    owner: str = "dana",
    nodes: Iterable[str] = ("acme/platform/api",),
    permissions: tuple[str, ...] = ("pipeline:read",),
    catalog: str = "gitlab",
    **changes: Any,
) -> tuple[Token, str]:
    """A stored token, and its secret."""
    from authz_service.directory.model import TargetText

    async with database.read() as conn:
        user = (await directory.find_user(conn, username=owner)).user
        assert user is not None
        ids = [(await directory.load_chain(conn, TargetText(None, path=path))).chain[0].id for path in nodes]
    token = Token(
        TokenId(new_token_id()),
        user.id,
        {catalog: 1},
        scopes=(Scope(catalog, Reach(ReachKind.SELECTED, tuple(ids)), permissions),),
        **changes,
    )
    secret = new_secret(PEPPERS.prefix, PEPPERS.current)
    record = TokenRecord(token, PEPPERS.current, token.id)
    async with database.transaction() as conn:
        record = await tokens.insert(conn, record, digest(secret, b"p" * 32))
    return record.token, secret.reveal()


async def revoke(database: Database, token: TokenId) -> Stamp:
    """Returns when the revoke is committed: from then on S counts."""

    async def work(conn: Any) -> Stamp:
        changes = ChangeSet()
        await tokens.revoke(conn, changes, token, reason="test")
        return await append(conn, changes)

    return await database.run_in_transaction(work)
