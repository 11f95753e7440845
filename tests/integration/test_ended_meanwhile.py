"""Who asks, and what is asked about, is judged as it is when it is judged: a token that ended meanwhile has ended."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from tests.support.managing import Stage, scope, staged

from authz_service.cache.keys import FactKey, PathKey, TokenIdKey

WEB = {"catalog": "gitlab", "resource": "job", "action": "read", "target": "acme/web"}
CALL = {"catalog": "gitlab", "method": "GET", "path": "/api/v4/projects/acme%2Fweb/jobs"}
DOCUMENT = {"catalog": "gitlab", "query": "{ currentUser { id } }"}
ITEMS = {"catalog": "gitlab", "items": [{"resource": "job", "action": "read", "target": "acme/web"}]}
DANA = {"type": "user", "id": "dana"}
NAMED = {"subject": DANA, "action": {"name": "read"}, "resource": {"type": "job", "id": "acme/web"}}
IN_GITLAB = {"context": {"authz": {"catalog": "gitlab"}}}

ROUTES: list[tuple[str, dict[str, Any]]] = [
    ("/check", WEB),
    ("/check/http", CALL),
    ("/check/graphql", DOCUMENT),
    ("/check/batch", ITEMS),
    ("/access/v1/evaluation", NAMED | IN_GITLAB),
    ("/access/v1/evaluations", NAMED | IN_GITLAB | {"evaluations": [{}]}),
    ("/access/v1/search/action", {name: NAMED[name] for name in ("subject", "resource")} | IN_GITLAB),
    ("/oauth/introspect", {}),
]


@pytest.fixture
async def stage(database_url: str) -> AsyncIterator[Stage]:
    async with staged(database_url) as running:
        yield running


async def asker(stage: Stage, *groups: str, **more: Any) -> tuple[str, str]:
    held = scope("authz", "instance", "decision:evaluate")
    if groups:
        held = await stage.scope_at("authz", groups, "decision:evaluate")
    return await stage.give("root", held, evaluates=("*",), **more)


async def shown(stage: Stage, **more: Any) -> tuple[str, str]:
    reach = await stage.scope_at("gitlab", ["group:acme"], "job:read")
    return await stage.give("dana", reach, catalogs={"gitlab": 2}, **more)


async def revoke(stage: Stage, admin: str, token: str) -> None:
    """Returns when no replica can allow by it any more."""
    assert (await stage.call("DELETE", f"/v1/tokens/{token}?wait=true", admin)).status_code == 200


async def ask_slowly(
    stage: Stage, path: str, secret: str, body: dict[str, Any], token: str, meanwhile: Callable[[], Awaitable[None]]
) -> httpx.Response:
    """Send a question about a token, of which the second half comes only after something has happened."""
    if path.startswith("/oauth/"):
        kind, content = "application/x-www-form-urlencoded", urlencode({"token": token}).encode()
    else:
        asked = body if path.startswith("/access/") else body | {"token": token}
        kind, content = "application/json", json.dumps(asked).encode()

    async def halves() -> AsyncIterator[bytes]:
        yield content[:20]
        await meanwhile()
        yield content[20:]

    headers = {"Authorization": f"Bearer {secret}", "Content-Type": kind}
    return await stage.client.post(path, content=halves(), headers=headers)


@asynccontextmanager
async def while_loading(
    stage: Stage, wanted: Callable[[FactKey], bool], happens: Callable[[], Awaitable[None]]
) -> AsyncIterator[None]:
    """Have something happen, whole, while the first of the wanted facts is being loaded."""
    loader = stage.app.state.services.point._loader
    load, waiting = loader.load, [happens]

    async def slow(keys: Iterable[FactKey], **given: Any) -> None:
        keys = list(keys)
        if waiting and any(wanted(key) for key in keys):
            await waiting.pop()()
        await load(keys, **given)

    loader.load = slow
    yield
    loader.load = load
    assert not waiting, "nothing of it was loaded"


async def nothing() -> None:
    pass


@pytest.mark.parametrize(("path", "body"), ROUTES, ids=[path for path, _ in ROUTES])
async def test_whoever_ends_while_their_question_comes_in_gets_no_answer(stage, path, body):
    admin, (_, secret) = await stage.admin(), await shown(stage)
    public, pep = await asker(stage)
    assert (await ask_slowly(stage, path, pep, body, secret, nothing)).status_code == 200
    answer = await ask_slowly(stage, path, pep, body, secret, lambda: revoke(stage, admin, public))
    assert answer.status_code == 401, answer.text


async def test_whoever_is_narrowed_while_their_question_comes_in_asks_as_the_narrowed(stage):
    admin, (_, secret) = await stage.admin(), await shown(stage)
    public, pep = await asker(stage)

    async def narrow() -> None:
        path = f"/v1/tokens/{public}?wait=true"
        edited = await stage.call("PATCH", path, admin, {"evaluates": ["github"]}, headers={"If-Match": "*"})
        assert edited.status_code == 200, edited.text

    assert (await ask_slowly(stage, "/check", pep, WEB, secret, narrow)).status_code == 403


async def test_a_limit_is_that_of_a_caller_who_still_stands(stage):
    """Where a bare request goes is found late: its caller may have ended until then."""
    admin, (_, secret) = await stage.admin(), await shown(stage)
    public, pep = await asker(stage, "group:acme")
    body = CALL | {"token": secret}
    assert (await stage.call("POST", "/check/http", pep, body)).json()["decision"] == "allow"
    point = stage.app.state.services.point
    point.facts.drop_nodes()
    async with while_loading(stage, lambda key: isinstance(key, PathKey), lambda: revoke(stage, admin, public)):
        answer = await stage.call("POST", "/check/http", pep, body)
    assert answer.json()["reason"] == "target_unknown"


async def test_what_ends_while_its_line_is_loaded_is_active_no_more(stage):
    admin, pep = await stage.admin(), (await asker(stage))[1]
    parent, _ = await shown(stage)
    public, secret = await shown(stage, parent=parent)

    async def introspect() -> Any:
        return (await ask_slowly(stage, "/oauth/introspect", pep, {}, secret, nothing)).json()

    assert (await introspect())["active"]
    stage.app.state.services.point.facts.drop_token(parent)
    async with while_loading(stage, lambda key: key == TokenIdKey(parent), lambda: revoke(stage, admin, public)):
        assert await introspect() == {"active": False}


async def test_a_caller_who_ends_while_its_line_is_loaded_is_nobody(stage):
    admin, (_, secret) = await stage.admin(), await shown(stage)
    parent, _ = await asker(stage)
    public, pep = await asker(stage, parent=parent)
    assert (await stage.call("POST", "/check", pep, WEB | {"token": secret})).status_code == 200
    stage.app.state.services.point.facts.drop_token(parent)
    async with while_loading(stage, lambda key: key == TokenIdKey(parent), lambda: revoke(stage, admin, public)):
        assert (await stage.call("POST", "/check", pep, WEB | {"token": secret})).status_code == 401
