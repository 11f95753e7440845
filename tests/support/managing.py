"""A whole service on a database of its own, a small company in its directory, and tokens put in without asking."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import httpx
from sqlalchemy import text

from authz_service.app import create_app
from authz_service.config import Environment, load_settings
from authz_service.directory.changes import parse_import
from authz_service.directory.model import TargetText, parse_target
from authz_service.pdp.secrets import Peppers
from authz_service.store import catalogs, changes, directory, directory_import, tokens
from authz_service.store.database import Database
from authz_service.store.token_rows import TokenRecord
from authz_service.tokens.model import Conditions, Reach, ReachKind, Scope, Token, TokenId, TokenKind
from authz_service.tokens.secret import new_secret, new_token_id

PEPPER = bytes(range(100, 132))

COMPANY: Sequence[Mapping[str, Any]] = (
    {"type": "user", "username": "root", "external_id": "1", "admin": True},
    {"type": "user", "username": "dana", "external_id": "7"},
    {"type": "user", "username": "olga", "external_id": "8"},
    {"type": "user", "username": "eve", "external_id": "9"},
    {"type": "user", "username": "bob", "external_id": "10", "state": "blocked"},
    {"type": "group", "path": "acme", "external_id": "12", "visibility": "private"},
    {"type": "group", "path": "acme/tools", "external_id": "13", "visibility": "private"},
    {"type": "group", "path": "hidden", "external_id": "14", "visibility": "private"},
    {"type": "group", "path": "open", "external_id": "15", "visibility": "public"},
    {"type": "project", "path": "acme/web", "external_id": "42", "visibility": "private"},
    {"type": "project", "path": "acme/tools/lint", "external_id": "43", "visibility": "private"},
    {"type": "project", "path": "hidden/plan", "external_id": "44", "visibility": "private"},
    {"type": "project", "path": "open/site", "external_id": "45", "visibility": "public"},
    {"type": "project", "path": "dana/notes", "external_id": "46", "visibility": "private"},
    {"type": "user", "username": "bot", "external_id": "11", "service_account": True, "home": "acme"},
    {"type": "membership", "user": "dana", "node": "acme", "role": "developer"},
    {"type": "membership", "user": "olga", "node": "acme", "role": "owner"},
    {"type": "membership", "user": "bot", "node": "acme", "role": "maintainer"},
)

UPSTREAM = """
catalog: orders
version: 1
owner_check: upstream
permissions:
  order:
    read: [project, group]
    write: [project]
"""
"""A catalog without a directory (C9)."""

SINGLE_OWNER = """
catalog: hub
version: 1
single_owner: true
permissions:
  contents:
    read: [project]
    write:
      project:
      implies: ["contents:read"]
  members:
    read: [group]
  email:
    read: [user]
"""
"""A catalog of tokens with one resource owner, and an implication (T6, C2)."""

ALL_AUTHZ = (
    "token:create",
    "token:create_any",
    "token:read",
    "token:edit",
    "token:rotate",
    "token:revoke",
    "token:import",
    "policy:read",
    "policy:edit",
    "grant:read",
    "grant:decide",
    "grant:revoke",
    "directory:read",
    "directory:import",
    "catalog:read",
    "decision:evaluate",
    "audit:read",
    "webhook:read",
    "webhook:edit",
    "leak:report",
)


@dataclass
class Stage:
    """The service and what a test does with it."""

    client: httpx.AsyncClient
    database: Database
    peppers: Peppers
    app: Any

    async def apply(self, *lines: Mapping[str, Any]) -> None:
        """Import without asking anybody."""
        body = "\n".join(json.dumps(line) for line in lines).encode()
        async with self.database.transaction() as conn:
            await directory_import.apply_import(conn, parse_import(body))

    async def install(self, text: str, name: str, version: int = 1) -> None:
        """A catalog version, without asking."""
        async with self.database.transaction() as conn:
            touched = changes.ChangeSet()
            await catalogs.install(conn, touched, name=name, version=version, text=text, installed_by="test")
            await changes.append(conn, touched)

    async def node(self, target: str) -> int:
        """The database id of `group:acme`."""
        written = parse_target(target)
        assert isinstance(written, TargetText)
        async with self.database.read() as conn:
            reading = await directory.load_chain(conn, written)
        return int(reading.chain[0].id)

    async def give(
        self,
        owner: str,
        *scopes: Scope,
        upstream: bool = False,
        catalogs: Mapping[str, int] | None = None,
        legacy_scopes: tuple[str, ...] = (),
        expires_at: datetime | None = None,
        networks: tuple[str, ...] = (),
        parent: str | None = None,
        evaluates: tuple[str, ...] = (),
        may_rotate_self: bool = False,
        not_before: datetime | None = None,
    ) -> tuple[str, str]:
        """Put a token in, without asking; its id and its secret. `upstream` owners are no users of ours (C9)."""
        secret = new_secret("azt", "k1")
        digest = self.peppers.digest(secret.reveal())
        assert digest is not None
        new = new_token_id()
        token = Token(
            id=new,
            owner=owner if upstream else await self.node(f"user:{owner}"),
            catalogs=dict(catalogs or {scope.catalog: 1 for scope in scopes}),
            kind=TokenKind.LEGACY if legacy_scopes else TokenKind.FINE_GRAINED,
            scopes=scopes,
            legacy_scopes=legacy_scopes,
            name="given",
            not_before=not_before,
            expires_at=expires_at,
            conditions=Conditions(networks),
            parent=None if parent is None else TokenId(parent),
            evaluates=evaluates,
        )
        async with self.database.transaction() as conn:
            await tokens.insert(conn, TokenRecord(token, "k1", new, may_rotate_self=may_rotate_self), digest)
        return new, secret.reveal()

    async def admin(self) -> str:
        """The secret of a token that may do all."""
        given = scope("authz", "instance", *ALL_AUTHZ)
        return (await self.give("root", given, evaluates=("*",)))[1]

    async def scope_at(self, catalog: str, nodes: Sequence[str], *permissions: str) -> Scope:
        ids = [await self.node(node) for node in nodes]
        return Scope(catalog, Reach(ReachKind.SELECTED, tuple(ids)), permissions)

    async def shift(self, **by: float) -> None:
        """Set the database's clock so far ahead, and have the replica know of it."""
        async with self.database.transaction() as conn:
            await conn.execute(text("update clock_shift set shift = :shift"), {"shift": timedelta(**by)})
        await self.app.state.services.point.follower.poll_now()

    async def allows(self, secret: str, permission: str = "job:read", target: str = "project:acme/web") -> bool:
        """Whether the token may, at the newest revision; False also for one that is none any more."""
        resource, _, action = permission.partition(":")
        body = {"resource": resource, "action": action, "target": target, "fully_consistent": True}
        answer = await self.call("POST", "/v1/self/check", secret, body)
        return answer.status_code == 200 and bool(answer.json()["decision"] == "allow")

    async def call(
        self, method: str, path: str, secret: str | None = None, body: Any = None, **more: Any
    ) -> httpx.Response:
        headers = dict(more.pop("headers", {}))
        if secret is not None:
            headers["Authorization"] = f"Bearer {secret}"
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        return await self.client.request(method, path, headers=headers, content=content, **more)


def scope(catalog: str, reach: str, *permissions: str) -> Scope:
    """A scope of a reach without nodes."""
    return Scope(catalog, Reach(ReachKind(reach)), permissions)


def body_of(**changes: Any) -> dict[str, Any]:
    """A token to ask for, valid for an admin."""
    given: dict[str, Any] = {
        "name": "retry jobs",
        "owner": "dana",
        "catalog": "gitlab",
        "scopes": [
            {"reach": {"kind": "selected", "nodes": ["project:acme/web"]}, "permissions": ["job:read", "job:run"]}
        ],
    }
    return {name: value for name, value in (given | changes).items() if value is not ...}


@asynccontextmanager
async def staged(url: str, *lines: Mapping[str, Any], **given: Any) -> AsyncIterator[Stage]:
    """The service, running, with these settings; its directory has `lines`, or the company."""
    pepper = base64.b64encode(PEPPER).decode()
    environ = {"AUTHZ_DATABASE_URL": url, "AUTHZ_PEPPERS": f"k1:{pepper}"}
    settings = load_settings(environ, environment=Environment.DEV, **given)
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        management = app.state.services.management
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            stage = Stage(client, management.database, management.peppers, app)
            await stage.apply(*(lines or COMPANY))
            yield stage
