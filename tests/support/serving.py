"""The whole application in this process, on a database of its own, with the demo's organisation in it."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from authz_service.admin.drafts import ScopeDraft, TokenDraft
from authz_service.admin.management import Actor, Management
from authz_service.admin.tokens import create_token, revoke_token
from authz_service.api.state import Services
from authz_service.app import create_app
from authz_service.cli.demo.seed import DemoTokens, seed
from authz_service.config import Settings, load_settings
from authz_service.running import open_management
from authz_service.tokens.model import ReachKind

PEPPER = base64.b64encode(bytes(range(32))).decode()


def settings_for(url: str, **given: Any) -> Settings:
    """Settings of a test; nothing comes from the environment."""
    return load_settings({}, database_url=url, peppers=f"t1:{PEPPER}", **given)


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def scope(*permissions: str, nodes: tuple[str, ...] = (), reach: ReachKind = ReachKind.SELECTED) -> ScopeDraft:
    return ScopeDraft(reach, permissions, nodes)


@dataclass
class Served:
    """The application as its clients see it, and a way to issue tokens behind it."""

    app: FastAPI
    http: httpx.AsyncClient
    tokens: DemoTokens
    management: Management
    admin: Actor
    number: int = field(default=0)

    @property
    def services(self) -> Services:
        return self.app.state.services

    async def issue(self, **draft: Any) -> str:
        """A token of dana's that reads the shop's jobs; what is given differs."""
        self.number += 1
        usual: dict[str, Any] = {
            "name": f"test {self.number}",
            "owner": "dana",
            "catalog": "gitlab",
            "scopes": (scope("job:read", nodes=("group:bakery/shop",)),),
        }
        issued = await create_token(self.management, self.admin, TokenDraft(**(usual | draft)))
        assert issued.secret is not None
        return issued.secret

    async def gateway(self, *catalogs: str, **draft: Any) -> str:
        """A caller that may ask about these catalogs."""
        usual: dict[str, Any] = {
            "owner": "gateway-bot",
            "catalog": "authz",
            "scopes": (scope("decision:evaluate", reach=ReachKind.INSTANCE),),
            "evaluates": catalogs,
        }
        return await self.issue(**(usual | draft))

    async def revoke(self, token_id: str) -> str:
        """The revision from which on it is revoked."""
        return str((await revoke_token(self.management, self.admin, token_id))["revision"])

    async def check(self, caller: str | None = None, **question: Any) -> httpx.Response:
        """The demo's gateway asks about the demo's token; what is given differs, and None is left out."""
        usual: dict[str, Any] = {
            "token": self.tokens.sample,
            "catalog": "gitlab",
            "resource": "job",
            "action": "read",
            "target": "bakery/shop/checkout",
        }
        body = {name: value for name, value in (usual | question).items() if value is not None}
        return await self.http.post("/check", json=body, headers=bearer(caller or self.tokens.gateway))

    async def batch(self, items: list[Any], caller: str | None = None, **given: Any) -> httpx.Response:
        body = {"token": self.tokens.sample, "catalog": "gitlab", "items": items} | given
        return await self.http.post("/check/batch", json=body, headers=bearer(caller or self.tokens.gateway))


@asynccontextmanager
async def serving(url: str, **given: Any) -> AsyncIterator[Served]:
    settings = settings_for(url, **given)
    with tempfile.TemporaryDirectory() as folder:
        async with open_management(settings) as management:
            tokens = await seed(management, Path(folder) / "tokens.json")
            app = create_app(settings)
            async with app.router.lifespan_context(app), client_of(app) as http:
                services: Services = app.state.services
                admin = Actor(await services.point.authenticate(tokens.admin))
                yield Served(app, http, tokens, management, admin)


def client_of(app: FastAPI) -> httpx.AsyncClient:
    # What a worker serves, without a socket: the short way for checks is a part of it.
    transport = httpx.ASGITransport(app=app.state.hot, raise_app_exceptions=False, client=("127.0.0.1", 1))
    return httpx.AsyncClient(transport=transport, base_url="http://authz.test")
