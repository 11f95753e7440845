"""A downgrade and an issue that meet: one waits for the other, and the token is made by what was true before it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from tests.reference import naive
from tests.support.asking import LOCAL
from tests.support.forge import CATALOGS
from tests.support.locks import waits_for_a_lock
from tests.support.pair import Pair, Side, pair_of_replicas
from tests.support.powers import powers
from tests.support.stored_rows import install, read_all
from tests.support.upheaval import START

from authz_service.engine.model import PermissionRequest, Request
from authz_service.store import changes, directory_import, tokens
from authz_service.tokens.model import Reach, ReachKind, Scope, Token


@dataclass
class Gate:
    """Stops whoever comes first, until it is opened."""

    reached: asyncio.Event = field(default_factory=asyncio.Event)
    opened: asyncio.Event = field(default_factory=asyncio.Event)

    def before(self, work: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def stopped(*given: Any, **named: Any) -> Any:
            if not self.reached.is_set():
                self.reached.set()
                await self.opened.wait()
            return await work(*given, **named)

        return stopped


@dataclass
class Scene:
    pair: Pair
    issuer: Token
    secret: str
    parent: Token

    async def issue(self, **changed: Any) -> httpx.Response:
        wanted = {"reach": {"kind": "selected", "nodes": ["project:41"]}, "permissions": ["issue:read"]}
        body = {"name": "raced", "catalog": "forge", "scopes": [wanted]} | changed
        return await self.pair.sides[0].call("POST", "/v1/tokens", self.secret, body)


async def scene_of(pair: Pair) -> Scene:
    """olga's token, a child: it issues for her, and for the robot whose home is her group."""
    await install(pair.database, *CATALOGS)
    acme = await pair.node("group", "21")
    scopes = (
        Scope("authz", Reach(ReachKind.USER), ("token:create",)),
        Scope("authz", Reach(ReachKind.SELECTED, (acme,)), ("token:create",)),
        Scope("forge", Reach(ReachKind.SELECTED, (acme,)), ("issue:read", "code:write")),
    )
    parent, _ = await pair.put_token("olga", *scopes)
    issuer, secret = await pair.put_token("olga", *scopes, parent=parent.id)
    return Scene(pair, issuer, secret, parent)


def imported(*lines: Mapping[str, Any]) -> Callable[[Scene, Side], Awaitable[httpx.Response]]:
    async def done(scene: Scene, side: Side) -> httpx.Response:
        body = b"\n".join(json.dumps(line).encode() for line in lines)
        return await side.call("POST", "/v1/directory/import", scene.pair.admin, body)

    return done


async def revoke_issuer(scene: Scene, side: Side) -> httpx.Response:
    return await side.call("DELETE", f"/v1/tokens/{scene.issuer.id}", scene.pair.admin)


async def revoke_parent(scene: Scene, side: Side) -> httpx.Response:
    return await side.call("DELETE", f"/v1/tokens/{scene.parent.id}", scene.pair.admin)


async def revoke_itself(scene: Scene, side: Side) -> httpx.Response:
    return await side.call("DELETE", "/v1/self", scene.secret)


OLGA = {"type": "user", "username": "olga", "external_id": "10"}
BOT = {"type": "user", "username": "bot", "external_id": "11", "service_account": True}
FOR_ITSELF: Mapping[str, Any] = {}
FOR_THE_ROBOT = {"owner": "bot"}
DOWNGRADES = {
    "its token is revoked": (revoke_issuer, FOR_ITSELF),
    "its token revokes itself": (revoke_itself, FOR_THE_ROBOT),
    "the token above it is revoked": (revoke_parent, FOR_ITSELF),
    "its owner is blocked": (imported({**OLGA, "state": "blocked"}), FOR_THE_ROBOT),
    "its owner is deleted": (imported({**OLGA, "state": "deleted"}), FOR_ITSELF),
    "its owner leaves": (
        imported({"type": "delete", "what": "membership", "user": "olga", "node": "acme"}),
        FOR_THE_ROBOT,
    ),
    "its owner is demoted": (
        imported({"type": "membership", "user": "olga", "node": "acme", "role": "guest"}),
        FOR_THE_ROBOT,
    ),
    "the project moves away": (imported({"type": "move", "node": "project:41", "to": "group:26"}), FOR_ITSELF),
    "the robot gets another home": (imported({**BOT, "home": "open"}), FOR_THE_ROBOT),
}


@pytest.fixture
async def pair(database_url):
    async with pair_of_replicas(database_url, START) as running:
        yield running


@pytest.mark.parametrize("downgrade", DOWNGRADES)
async def test_a_downgrade_waits_for_an_issue_that_was_found_allowed(pair, monkeypatch, downgrade: str):
    """It can commit only after the token is there, so that it finds it, or nobody can tell the order from another."""
    gate, (begin, draft) = Gate(), DOWNGRADES[downgrade]
    scene = await scene_of(pair)
    monkeypatch.setattr(tokens, "insert", gate.before(tokens.insert))
    issuing = asyncio.create_task(scene.issue(**draft))
    await gate.reached.wait()
    downgrading = asyncio.create_task(begin(scene, pair.sides[1]))
    waited = await waits_for_a_lock(scene.pair.database, downgrading)
    gate.opened.set()
    issued, downgraded = await asyncio.gather(issuing, downgrading)
    assert waited
    assert (issued.status_code, downgraded.status_code) == (201, 200)
    await within_its_line(scene, issued)


@pytest.mark.parametrize("downgrade", DOWNGRADES)
async def test_an_issue_waits_for_a_downgrade_that_has_begun(pair, monkeypatch, downgrade: str):
    """It is judged by what is true after it: refused, or what comes of it holds no more than its issuer then."""
    gate, (begin, draft) = Gate(), DOWNGRADES[downgrade]
    scene = await scene_of(pair)
    await pair.sides[0].call("GET", "/v1/self", scene.secret)  # who issues is known, as it was before
    monkeypatch.setattr(changes, "append", gate.before(changes.append))
    monkeypatch.setattr(directory_import, "append", gate.before(directory_import.append))
    downgrading = asyncio.create_task(begin(scene, pair.sides[1]))
    await gate.reached.wait()
    issuing = asyncio.create_task(scene.issue(**draft))
    waited = await waits_for_a_lock(scene.pair.database, issuing)
    gate.opened.set()
    issued, downgraded = await asyncio.gather(issuing, downgrading)
    assert waited
    assert downgraded.status_code == 200
    if issued.status_code == 201:
        await within_its_line(scene, issued)
        reading = await read_all(pair.database)
        made, issuer = (naive.token_of(reading.rows, one) for one in (issued.json()["id"], scene.issuer.id))
        assert powers(reading.rows, made, reading.now) <= powers(reading.rows, issuer, reading.now)
    else:
        assert issued.status_code in (400, 401, 403)


async def within_its_line(scene: Scene, issued: httpx.Response) -> None:
    """It hangs under the child that issued it: with a line that has ended it is dead, and told so at both replicas."""
    reading = await read_all(scene.pair.database)
    token = naive.token_of(reading.rows, issued.json()["id"])
    assert token.parent == scene.issuer.id
    request = Request("forge", PermissionRequest("issue:read", "project:41"), reading.now, client_address=LOCAL)
    expected = naive.decide(reading.rows, token.id, request)
    body = {"token": issued.json()["secret"], "catalog": "forge", "resource": "issue", "action": "read"}
    for side in scene.pair.sides:
        answer = await side.call(
            "POST", "/check", scene.pair.gateway, {**body, "target": "project:41", "fully_consistent": True}
        )
        assert answer.json()["reason"] == expected.reason
        assert answer.json()["decision"] == ("allow" if expected.allowed else "deny")
