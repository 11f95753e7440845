"""A token that does not work tells nothing of itself: five classes of them, the same bytes after the same work."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import pytest_asyncio
from sqlalchemy import text
from tests.integration.test_check_http import FORGE
from tests.integration.test_hidden_places import counting
from tests.support.managing import Stage, scope, staged

from authz_service.tokens.secret import new_secret

pytestmark = pytest.mark.asyncio(loop_scope="module")

CLASSES = ("unknown", "revoked", "expired", "early", "owner blocked")
VARYING = {"x-request-id", "date"}


@dataclass
class Scene:
    stage: Stage
    caller: str
    working: str
    """A token that works."""
    statements: list[str]

    async def make(self, kind: str) -> str:
        """A fresh secret of the class."""
        stage = self.stage
        at = await stage.scope_at("forge", ["group:acme"], "pipeline:read")
        if kind == "unknown":
            return new_secret("azt", "k1").reveal()
        token_id, secret = await stage.give("bob" if kind == "owner blocked" else "dana", at)
        change = {
            "revoked": "update token set revoked_at = authz_now() where id = :id",
            "expired": "update token set expires_at = authz_now() - interval '1 hour' where id = :id",
            "early": "update token set not_before = authz_now() + interval '1 hour' where id = :id",
        }.get(kind)
        if change is not None:
            async with stage.database.transaction() as conn:
                await conn.execute(text(change), {"id": token_id})
        return secret


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def scene(make_database):
    async with staged(make_database()) as stage:
        await stage.install(FORGE, "forge")
        caller = (await stage.give("root", scope("authz", "instance", "decision:evaluate"), evaluates=("forge",)))[1]
        working = (await stage.give("dana", await stage.scope_at("forge", ["group:acme"], "pipeline:read")))[1]
        with counting(stage) as statements:
            yield Scene(stage, caller, working, statements)


async def to_itself(scene: Scene, secret: str) -> httpx.Response:
    return await scene.stage.call("GET", "/v1/self", secret)


async def to_manage(scene: Scene, secret: str) -> httpx.Response:
    return await scene.stage.call("GET", "/v1/tokens", secret)


async def as_caller(scene: Scene, secret: str) -> httpx.Response:
    body = {"token": scene.caller, "catalog": "forge", "resource": "pipeline", "action": "read", "target": "acme/web"}
    return await scene.stage.call("POST", "/check", secret, body)


async def at_a_gateway(scene: Scene, secret: str) -> httpx.Response:
    headers = {
        "Authorization": f"Bearer {secret}",
        "X-Authz-Gateway": scene.caller,
        "X-Forwarded-Method": "GET",
        "X-Forwarded-Uri": "/api/v4/projects/42/pipelines",
    }
    return await scene.stage.client.get("/gateway/forward/x-forwarded?catalog=forge", headers=headers)


async def introspected(scene: Scene, secret: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {scene.caller}"}
    return await scene.stage.client.post("/oauth/introspect", data={"token": secret}, headers=headers)


async def reported(scene: Scene, secret: str) -> httpx.Response:
    body: dict[str, Any] = {"secrets": [secret]}
    return await scene.stage.call("POST", "/v1/leaks/report", None, body)


DOORS = (to_itself, to_manage, as_caller, at_a_gateway, introspected, reported)


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
async def test_five_classes_of_dead_tokens_look_the_same_and_cost_the_same(scene, door):
    seen = {}
    for kind in CLASSES:
        secret = await scene.make(kind)
        facts = scene.stage.app.state.services.point.facts
        facts.drop_all()
        await to_itself(scene, scene.caller)  # whoever asks is known, and so is the catalog
        assert (await at_a_gateway(scene, scene.working)).status_code == 200
        before = len(scene.statements)
        cold = await door(scene, secret)
        await asyncio.sleep(0)
        statements = len(scene.statements) - before
        warm = await door(scene, secret)
        assert warm.content == cold.content
        headers = {name: value for name, value in cold.headers.items() if name not in VARYING}
        seen[kind] = (cold.status_code, cold.content, headers, statements)
    assert len({repr(one) for one in seen.values()}) == 1, seen


async def test_a_million_guesses_end_no_token(make_database):
    """A thousand reports of a thousand each: the first few are looked at, and a hit takes luck of 1 in 2 to the 256."""
    async with staged(make_database(), leak_reports_per_minute=6, leak_reports_in_all=10) as stage:
        at = await stage.scope_at("gitlab", ["acme/web"], "job:read")
        living = [await stage.give("dana", at) for _ in range(20)]
        guesses = [new_secret("azt", "k1").reveal() for _ in range(980)]
        guesses += [secret[:20] + guess[20:] for (_, secret), guess in zip(living, guesses, strict=False)]
        assert len(guesses) == 1000
        statuses = [
            (await stage.call("POST", "/v1/leaks/report", None, {"secrets": guesses})).status_code for _ in range(1000)
        ]
        assert statuses[0] == 202
        assert 1 <= statuses.count(202) <= 20  # however slowly the thousand are sent, that is for minutes
        assert set(statuses) == {202, 429}
        for _ in range(600):
            async with stage.database.read() as conn:
                if not (await conn.execute(text("select count(*) from leak_report"))).scalar_one():
                    break
            await asyncio.sleep(0.05)
        admin = await stage.admin()
        for token_id, secret in living:
            assert (await stage.call("GET", f"/v1/tokens/{token_id}", admin)).json()["state"] == "active"
            assert await stage.allows(secret)
