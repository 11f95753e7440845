"""Introspection (RFC 7662) and revocation (RFC 7009), by a real OAuth client and by hand."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from authlib.integrations.httpx_client import AsyncOAuth2Client
from sqlalchemy import text
from tests.support.managing import SINGLE_OWNER, UPSTREAM, Stage, scope, staged

from authz_service.tokens.secret import new_secret

INTROSPECT, REVOKE = "/oauth/introspect", "/oauth/revoke"
FORM = "application/x-www-form-urlencoded"
INACTIVE = {"active": False}


@pytest.fixture
async def stage(database_url):
    async with staged(database_url, public_url="https://authz.example.com") as running:
        yield running


async def caller(stage: Stage, *catalogs: str) -> str:
    held = scope("authz", "instance", "decision:evaluate")
    return (await stage.give("root", held, evaluates=catalogs or ("*",)))[1]


async def token(stage: Stage, *permissions: str, **more: Any) -> tuple[str, str]:
    reach = await stage.scope_at("gitlab", ("group:acme",), *(permissions or ("job:read", "job:run")))
    return await stage.give("dana", reach, **more)


async def send(stage: Stage, path: str, secret: str | None, body: Any, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else urlencode(body).encode()
    return await stage.call("POST", path, secret, content, headers={"Content-Type": FORM} | headers)


async def introspect(stage: Stage, secret: str, shown: str, **fields: str) -> Any:
    answer = await send(stage, INTROSPECT, secret, {"token": shown} | fields)
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    return answer.json()


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


async def test_a_renamed_owner_is_told_by_the_new_name(stage):
    asker = await caller(stage)
    _, shown = await token(stage)
    assert (await introspect(stage, asker, shown))["username"] == "dana"
    await stage.apply({"type": "user", "username": "dana.roe", "external_id": "7"})
    await stage.app.state.services.point.follower.poll_now()
    assert (await introspect(stage, asker, shown))["username"] == "dana.roe"
    await stage.apply({"type": "user", "username": "dana.roe", "external_id": "77"})  # she loses the name (D2)
    await stage.app.state.services.point.follower.poll_now()
    told = await introspect(stage, asker, shown)
    assert told["username"].startswith("~")
    assert told["sub"] == told["username"]


async def test_a_real_client_introspects_and_revokes(stage):
    """Authlib, as a client that knows nothing of this service but its two endpoints."""
    _, shown = await token(stage)
    transport = httpx.ASGITransport(app=stage.app)
    async with AsyncOAuth2Client(
        client_id="gateway",
        client_secret=await caller(stage),
        token_endpoint_auth_method="client_secret_basic",
        transport=transport,
    ) as client:
        told = await client.introspect_token(f"http://service{INTROSPECT}", token=shown, token_type_hint="access_token")
        assert (told.status_code, told.json()["active"], told.json()["scope"]) == (200, True, "job:read job:run")
        done = await client.revoke_token(f"http://service{REVOKE}", token=shown, token_type_hint="access_token")
        assert done.status_code == 200
        await stage.app.state.services.point.follower.poll_now()
        told = await client.introspect_token(f"http://service{INTROSPECT}", token=shown)
        assert told.json() == INACTIVE


# Introspection


async def test_an_active_token_says_what_it_is(stage):
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=3)
    token_id, shown = await token(stage, expires_at=until)
    told = await introspect(stage, await caller(stage), shown)
    assert isinstance(told.pop("iat"), int)
    assert told == {
        "active": True,
        "scope": "job:read job:run",
        "client_id": token_id,
        "username": "dana",
        "sub": "dana",
        "jti": token_id,
        "aud": ["gitlab"],
        "iss": "https://authz.example.com",
        "token_type": "Bearer",
        "exp": int(until.timestamp()),
    }


async def test_whatever_is_not_active_says_nothing_else(stage):
    pep = await caller(stage)
    past = datetime.now(UTC) - timedelta(seconds=5)
    _, expired = await token(stage, expires_at=past)
    _, bound = await token(stage, networks=("10.0.0.0/8",))
    reach = await stage.scope_at("gitlab", ("group:acme",), "job:read")
    _, blocked = await stage.give("bob", reach)
    parent, _ = await token(stage, expires_at=past)
    _, child = await token(stage, parent=parent)
    nobody = new_secret("azt", "k1").reveal()
    for shown in (expired, bound, blocked, child, nobody, nobody[:-1], "x", "é", "tok_" + "0" * 22, " "):
        assert await introspect(stage, pep, shown) == INACTIVE, shown
    assert (await introspect(stage, pep, bound, client_address="10.1.2.3"))["active"]
    assert await introspect(stage, pep, bound, client_address="192.0.2.1") == INACTIVE


async def test_a_caller_learns_of_its_own_catalogs_alone(stage):
    await stage.install(SINGLE_OWNER, "hub")
    await stage.install(UPSTREAM, "orders")
    scopes = [await stage.scope_at("gitlab", ("group:acme",), "job:read"), scope("hub", "user", "email:read")]
    _, shown = await stage.give("dana", *scopes)
    for catalogs, words, audience in (
        (("gitlab",), "job:read", ["gitlab"]),
        (("hub",), "email:read", ["hub"]),
        (("*",), "job:read email:read", ["gitlab", "hub"]),
    ):  # fmt: skip
        told = await introspect(stage, await caller(stage, *catalogs), shown)
        assert (told["scope"], told["aud"]) == (words, audience)
    assert await introspect(stage, await caller(stage, "orders"), shown) == INACTIVE


async def test_a_coarse_token_tells_its_coarse_scopes(stage):
    _, shown = await stage.give("dana", catalogs={"gitlab": 2}, legacy_scopes=("read_api",))
    assert (await introspect(stage, await caller(stage), shown))["scope"] == "read_api"


@pytest.mark.parametrize("path", [INTROSPECT, REVOKE])
async def test_a_caller_is_known_by_a_bearer_token_or_as_a_client(stage, path):
    pep = await caller(stage)
    for good in (f"Bearer {pep}", f"bearer {pep}", basic("any name", pep), basic("", pep), basic("é", pep)):
        _, shown = await token(stage)
        answer = await send(stage, path, None, {"token": shown}, Authorization=good)
        assert answer.status_code == 200, good
    _, shown = await token(stage)
    for bad in (
        "Basic", "Basic !!!", "Basic " + base64.b64encode(b"\xff:\xff").decode(), basic("only", ""), "Basic QQ==",
        basic(pep, "wrong"), "Bearer", "Bearer azt_nothing", f"Digest {pep}", pep, "Basic " + "A" * 9999,
    ):  # fmt: skip
        answer = await send(stage, path, None, {"token": shown}, Authorization=bad)
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client"), bad
        assert answer.headers["www-authenticate"].startswith("Basic ")
        assert shown not in answer.text
    await stage.app.state.services.point.follower.poll_now()
    assert (await introspect(stage, pep, shown))["active"]


async def test_whoever_may_not_ask_gets_no_introspection(stage):
    _, shown = await token(stage)
    at = await stage.scope_at("authz", ["group:acme"], "decision:evaluate")
    limited = (await stage.give("olga", at, evaluates=("gitlab",)))[1]
    for secret in (shown, limited):
        answer = await send(stage, INTROSPECT, secret, {"token": shown})
        assert (answer.status_code, answer.json()["error"]) == (403, "insufficient_scope")
        assert 'scope="decision:evaluate"' in answer.headers["www-authenticate"]
    assert (await send(stage, INTROSPECT, None, {"token": shown})).status_code == 401


@pytest.mark.parametrize("path", [INTROSPECT, REVOKE])
async def test_what_cannot_be_read_is_an_invalid_request(stage, path):
    pep = await caller(stage)
    _, shown = await token(stage)
    for body, headers in (
        (b"", {}), (b"token=", {}), (b"tokens=x", {}), (f"token={shown}&token={shown}".encode(), {}),
        (b"token=%ff%fe", {}),
        (b"\xff\xfe", {}), (b"&" * 5000 + b"token=x", {}), (f"token={'x' * 9000}".encode(), {}),
        (f"token={shown}&token_type_hint=a&token_type_hint=b".encode(), {}),
        (f'{{"token": "{shown}"}}'.encode(), {"Content-Type": "application/json"}),
        (f"token={shown}".encode(), {"Content-Type": "text/plain"}),
        (f"token={shown}".encode(), {"Content-Encoding": "gzip"}),
    ):  # fmt: skip
        answer = await send(stage, path, pep, body, **headers)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request"), body[:60]
    assert (await send(stage, path, pep, b"token=" + b"x" * 100_000)).status_code == 413
    assert (await stage.call("GET", path, pep)).status_code == 405
    assert (await send(stage, f"{path}?token={shown}", pep, {"token": shown})).json()["code"] == "secret_in_url"
    bad = await send(stage, INTROSPECT, pep, {"token": shown, "client_address": "here"})
    assert bad.status_code == 400
    await stage.app.state.services.point.follower.poll_now()
    assert (await introspect(stage, pep, shown))["active"]


# Revocation


async def audits(stage: Stage) -> list[tuple[str, str | None]]:
    query = "select subject, actor_token from audit where action = 'token.revoke' order by id"
    async with stage.database.read() as conn:
        return [(row.subject, row.actor_token) for row in await conn.execute(text(query))]


async def test_whoever_shows_a_secret_ends_its_token(stage):
    token_id, shown = await token(stage)
    child, child_secret = await token(stage, parent=token_id)
    assert (await send(stage, REVOKE, None, {"token": shown})).status_code == 200
    assert (await send(stage, REVOKE, None, {"token": shown})).status_code == 200
    await stage.app.state.services.point.follower.poll_now()
    pep = await caller(stage)
    assert await introspect(stage, pep, shown) == INACTIVE
    assert await introspect(stage, pep, child_secret) == INACTIVE
    assert await audits(stage) == [(token_id, token_id)]
    assert child != token_id


async def test_a_caller_who_revokes_is_in_the_audit(stage):
    token_id, shown = await token(stage)
    held = scope("authz", "user", "token:read")
    own_id, own = await stage.give("dana", held)
    assert (await send(stage, REVOKE, own, {"token": shown, "token_type_hint": "refresh_token"})).status_code == 200
    assert (await send(stage, REVOKE, own, {"token": own})).status_code == 200
    assert await audits(stage) == [(token_id, own_id), (own_id, own_id)]
    await stage.app.state.services.point.follower.poll_now()
    assert (await send(stage, REVOKE, own, {"token": own})).status_code == 401


async def test_nothing_tells_an_unknown_token_from_one_that_was_ended(stage):
    _, shown = await token(stage)
    answers = []
    for secret in (shown, shown, new_secret("azt", "k1").reveal(), "nothing", "tok_" + "0" * 22):
        answer = await send(stage, REVOKE, None, {"token": secret}, **{"X-Request-ID": "one"})
        answers.append((answer.status_code, answer.content, dict(answer.headers)))
    assert answers == [answers[0]] * len(answers)
    assert answers[0][:2] == (200, b"")


async def test_a_public_id_ends_nothing(stage):
    token_id, shown = await token(stage)
    assert (await send(stage, REVOKE, await caller(stage), {"token": token_id})).status_code == 200
    await stage.app.state.services.point.follower.poll_now()
    assert (await introspect(stage, await caller(stage), shown))["active"]


async def test_a_token_bound_to_a_network_is_ended_from_elsewhere_too(stage):
    token_id, shown = await token(stage, networks=("10.0.0.0/8",))
    assert (await send(stage, REVOKE, None, {"token": shown})).status_code == 200
    await stage.app.state.services.point.follower.poll_now()
    assert await introspect(stage, await caller(stage), shown, client_address="10.0.0.1") == INACTIVE
    assert await audits(stage) == [(token_id, token_id)]
