"""Two replicas of the whole service on one database, each asked the long way and the short way."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx
from sqlalchemy import text
from starlette.types import ASGIApp, Receive, Scope, Send
from tests.support.replica import Replica, replica
from tests.support.stored_rows import import_lines

from authz_service.app import create_app
from authz_service.config import load_settings
from authz_service.pdp.check import DecisionPoint
from authz_service.pdp.secrets import Peppers
from authz_service.store import tokens
from authz_service.store.changes import begin_epoch
from authz_service.store.database import Database
from authz_service.store.shipped import shipped_catalogs
from authz_service.store.token_rows import TokenRecord
from authz_service.tokens.model import Reach, ReachKind, Token
from authz_service.tokens.model import Scope as TokenScope
from authz_service.tokens.secret import new_secret, new_token_id

FOREIGN = "glpat-"
"""How secrets of another system begin, where replicas are told so."""
PEPPERS = Peppers({"k1": bytes(range(60, 92))}, "k1", foreign={FOREIGN: "k1"})
MANAGE = (
    "token:create",
    "token:read",
    "token:edit",
    "token:rotate",
    "token:revoke",
    "directory:read",
    "catalog:read",
)
RULING = ("policy:read", "policy:edit", "grant:read", "grant:decide", "grant:revoke")
ADMIN = (
    *(*MANAGE, *RULING, "token:create_any", "token:import", "directory:import"),
    *("webhook:read", "webhook:edit", "decision:evaluate"),
)

NARROW: Mapping[str, int] = {
    "tokens": 12,
    "unknown_digests": 2,
    "users": 12,
    "members": 12,
    "nodes": 40,
    "edges": 40,
    "free_names": 40,
    "above": 12,
    "under": 8,
    "approvals": 6,
}
"""Bounds of a replica that forgets what it knew all the time, so that its facts are loaded again and again."""


@dataclass
class Counted:
    """Passes requests on and counts them: those that the short way did not answer."""

    app: ASGIApp
    requests: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.requests += 1
        await self.app(scope, receive, send)


@dataclass
class Side:
    """One replica as its clients see it."""

    app: Any
    long: httpx.AsyncClient
    hot: httpx.AsyncClient
    behind: Counted

    @property
    def point(self) -> DecisionPoint:
        return self.app.state.services.point

    async def call(
        self,
        method: str,
        path: str,
        secret: str | None,
        body: Any = None,
        *,
        short: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        headers = dict(headers or {}) | ({} if secret is None else {"Authorization": f"Bearer {secret}"})
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        client = self.hot if short else self.long
        return await client.request(method, path, headers=headers, content=content)


@dataclass
class Pair:
    """`root` is the admin whose token `admin` is; the gateway asks about everything. Nothing may happen to them."""

    url: str
    database: Database
    sides: tuple[Side, Side]
    admin: str = ""
    gateway: str = ""
    shifted: timedelta = field(default_factory=timedelta)

    async def node(self, kind: str, external_id: str) -> int:
        """The database id of a place or a user."""
        async with self.database.read() as conn:
            query = text("select id from node where source = 'default' and kind = :kind and external_id = :id")
            return int((await conn.execute(query, {"kind": kind, "id": external_id})).scalar_one())

    async def put_token(self, owner: str, *scopes: TokenScope, **given: Any) -> tuple[Token, str]:
        """Without asking anybody."""
        async with self.database.read() as conn:
            query = text("select id from node where source = 'default' and kind = 'user' and name = :name")
            number = (await conn.execute(query, {"name": owner})).scalar_one()
        secret = new_secret(PEPPERS.prefix, PEPPERS.current)
        digest = PEPPERS.digest(secret.reveal())
        assert digest is not None
        named = given.pop("catalogs", None) or {scope.catalog: 1 for scope in scopes}
        token = Token(new_token_id(), number, named, scopes=scopes, **given)
        async with self.database.transaction() as conn:
            record = await tokens.insert(conn, TokenRecord(token, PEPPERS.current, token.id), digest)
        return record.token, secret.reveal()

    async def shift(self, by: timedelta) -> None:
        """Move the database's clock on; replicas know of it with their next poll."""
        self.shifted += by
        async with self.database.transaction() as conn:
            await conn.execute(text("update clock_shift set shift = :shift"), {"shift": self.shifted})
        await self.poll()

    async def new_epoch(self) -> None:
        """What an operator does after a restore."""
        async with self.database.transaction() as conn:
            await begin_epoch(conn)
        await self.poll()

    async def poll(self) -> None:
        for side in self.sides:
            await side.point.follower.poll_now()

    @asynccontextmanager
    async def newcomer(self) -> AsyncIterator[Replica]:
        """A replica that starts now and knows nothing."""
        async with replica(self.url, shipped_catalogs(), peppers=PEPPERS) as found:
            yield found


@asynccontextmanager
async def pair_of_replicas(url: str, lines: Iterable[Mapping[str, Any]], **given: Any) -> AsyncIterator[Pair]:
    """Running, with these lines imported, `root` and `gateway` among them. `given` are settings of both."""
    pepper = base64.b64encode(bytes(range(60, 92))).decode()
    database = Database(url)
    await import_lines(database, *lines)

    @asynccontextmanager
    async def side(*, bell: bool) -> AsyncIterator[Side]:
        app = create_app(load_settings({}, database_url=url, peppers=f"k1:{pepper}", bell=bell, **given))
        behind = Counted(app)
        app.state.hot._app = behind
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://one") as long,
            httpx.AsyncClient(transport=httpx.ASGITransport(app=app.state.hot), base_url="http://one") as hot,
        ):
            yield Side(app, long, hot, behind)

    async with side(bell=True) as one, side(bell=False) as other:
        for name, bound in NARROW.items():
            getattr(other.point.facts, name).bound = bound
        pair = Pair(url, database, (one, other))
        pair.admin = (await pair.put_token("root", TokenScope("authz", Reach(ReachKind.INSTANCE), ADMIN)))[1]
        asks = TokenScope("authz", Reach(ReachKind.INSTANCE), ("decision:evaluate",))
        pair.gateway = (await pair.put_token("gateway", asks, evaluates=("*",)))[1]
        try:
            yield pair
        finally:
            await database.close()
