"""The short way for checks gives what the long way gives: bytes, statuses, headers and metrics."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import httpx
import pytest
from tests.support.managing import Stage, scope, staged

from authz_service.api.check import hot as hot_module
from authz_service.api.check.encoding import encode_decision
from authz_service.pdp.quick import QuickAnswers
from authz_service.pdp.records import Recorder

SECRET = "<secret>"
GOOD: dict[str, Any] = {
    "token": SECRET,
    "catalog": "gitlab",
    "resource": "job",
    "action": "read",
    "target": "acme/web",
}


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in GOOD.items() if key != name}


CHECKS: list[dict[str, Any] | list[Any] | str | int | None] = [
    GOOD,
    {**GOOD, "action": "run"},
    {**GOOD, "target": "project:42"},
    {**GOOD, "target": "group:acme"},
    {**GOOD, "target": "acme/tools/lint"},
    {**GOOD, "target": "hidden/plan"},
    {**GOOD, "target": "open/site"},
    {**GOOD, "target": "nobody/here"},
    {**GOOD, "target": "user:dana"},
    {**GOOD, "target": "instance"},
    {**GOOD, "target": "ACME/Web"},
    {**GOOD, "target": "acme//web"},
    {**GOOD, "target": ""},
    {**GOOD, "target": "42"},
    {**GOOD, "target": "acme/wéb"},
    {**GOOD, "target": None},
    {**GOOD, "resource": "jobs"},
    {**GOOD, "resource": ""},
    {**GOOD, "resource": "job:read"},
    {**GOOD, "catalog": "gitlab@1"},
    {**GOOD, "catalog": "gitlab@2"},
    {**GOOD, "catalog": "orders"},
    {**GOOD, "catalog": "GITLAB"},
    {**GOOD, "catalog": ""},
    {**GOOD, "token": "azt_k1_x"},
    {**GOOD, "token": ""},
    {**GOOD, "token": 5},
    {**GOOD, "resource": "", "action": ""},
    {**GOOD, "resource": None, "action": None},
    {**GOOD, "resource": "", "action": "", "target": "instance"},
    {**GOOD, "attributes": {"resource.status": "open"}},
    {**GOOD, "attributes": {"subject.role": "owner"}},
    {**GOOD, "client_address": "10.0.0.1"},
    {**GOOD, "fully_consistent": True},
    {**GOOD, "at_least": "r1.00000000.1"},
    {**GOOD, "extra": 1},
    {**GOOD, "extra": "token"},
    without("catalog"),
    without("target"),
    without("token"),
    [],
    [GOOD],
    "text",
    5,
    None,
    {},
]
RAW = [
    b"",
    b"{",
    b"nonsense",
    b'{"token": "<secret>", "token": "x", "catalog": "gitlab", "resource": "job", "action": "read", "target": "acme"}',
    b'{"token": "<secret>", "catalog": "gitlab", "resource": "job", "action": "a", "action": "read", "target": "acme"}',
    b'{"token": "<secret>", "catalog": "gitlab", "resource": "job", "action": "read", "target": "acme\\/web"}',
    b'{"token": "<secret>", "catalog": "gitlab", "resource": "j\\u006fb", "action": "read", "target": "acme/web"}',
    b'{"token": "<secret>", "catalog": "gitlab", "resource": "job", "action": "read", "target": "acme/web"} trailing',
    b'\xef\xbb\xbf{"token": "<secret>", "catalog": "gitlab", "resource": "job", "action": "read", "target": "acme"}',
    b'{"token": "<secret>", "catalog": "gitlab", "resource": "job", "action": "read", "target": "acme/\xff"}',
    b'{"token": "<secret>", "catalog": "gitlab", "resource": "job", "action": "read", "target": "acme/web\x00"}',
    b'{"token": "<secret>", "catalog": "gitlab", "resource": "job", "action": "read", "target": NaN}',
    b'  {"target" :"acme/web","action": "read" ,"resource":"job"  , "catalog":"gitlab", "token": "<secret>"}\n',
    b'{"a":' * 1100 + b"1" + b"}" * 1100,
    b'{"token": "' + b"x" * 65 * 1024 + b'"}',
]
PROJECT = "/api/v4/projects/acme%2Fweb"
CALLS: list[Any] = [
    ("GET", f"{PROJECT}/jobs"),
    ("GET", f"{PROJECT}/jobs?scope=failed"),
    ("GET", "/api/v4/projects/42/jobs"),
    ("GET", "/api/v4/projects/043/jobs"),
    ("GET", "/api/v4/projects/ACME%2Fweb/jobs"),
    ("GET", "/api/v4/projects/acme/web/jobs"),
    ("GET", "/api/v4/projects/acme%2Ftools%2Flint/jobs"),
    ("GET", "/api/v4/projects/hidden%2Fplan/jobs"),
    ("GET", "/api/v4/projects/open%2Fsite/jobs"),
    ("GET", "/api/v4/projects/nobody%2Fhere/jobs"),
    ("GET", "/api/v4/projects/acme/jobs"),
    ("POST", f"{PROJECT}/jobs/7/retry"),
    ("POST", f"{PROJECT}/pipeline"),
    ("GET", f"{PROJECT}/pipelines"),
    ("GET", f"{PROJECT}/repository/branches"),
    ("GET", "/api/v4/projects/open%2Fsite/repository/branches"),
    ("GET", "/api/v4/groups/acme/variables"),
    ("GET", "/api/v4/groups/acme/runners"),
    ("GET", "/api/v4/namespaces/acme"),
    ("GET", "/api/v4/projects"),
    ("GET", "/api/v4/user"),
    ("GET", "/api/v4/version"),
    ("HEAD", f"{PROJECT}/jobs"),
    ("get", f"{PROJECT}/jobs"),
    ("BREW", f"{PROJECT}/jobs"),
    ("GET", f"{PROJECT}//jobs"),
    ("GET", f"{PROJECT}/../web/jobs"),
    ("GET", f"{PROJECT}/%6Aobs"),
    ("GET", ""),
    ("GET", "/" + "a" * 2000),
    ("", f"{PROJECT}/jobs"),
]
MANY: list[Any] = [
    [{"resource": "job", "action": "read", "target": "acme/web"}],
    [{"resource": "job", "action": action, "target": "acme/web"} for action in ("read", "run", "read")],
    [
        {"resource": "job", "action": "read", "target": target}
        for target in ("acme/web", "hidden/plan", "nobody", "acme")
    ],
    [{"resource": "", "action": "", "target": "acme/web"}, {"resource": "job", "action": "", "target": "acme/web"}],
    [{"resource": "job", "action": "read"}],
    [{"resource": "job", "action": "read", "target": None}],
    [{"resource": "job", "action": "read", "target": "acme/web", "extra": 1}],
    [{"resource": "job", "action": "read", "target": "acme/web", "attributes": {"context.a": 1}}],
    [],
    [5],
    {},
    None,
]


def bodies(secret: str, route: str) -> list[bytes]:
    if route == "/check":
        found = [json.dumps(body).encode() for body in CHECKS] + RAW
    elif route == "/check/http":
        asked = [{"token": SECRET, "catalog": "gitlab", "method": method, "path": path} for method, path in CALLS]
        asked += [{**asked[0], "target": "acme/web"}, {**asked[0], "path": 5}, {**asked[0], "explain": True}]
        asked += [{**asked[0], "catalog": name} for name in ("gitlab@1", "gitlab@2", "orders", "authz")]
        found = [json.dumps(body).encode() for body in asked]
        found += [
            b'{"token": "<secret>", "catalog": "gitlab", "method": "GET", "method": "POST", "path": "/api/v4/user"}',
            b'{"token": "<secret>", "catalog": "gitlab", "method": "GET", "path": "/api/v4/projects/\\u0034/jobs"}',
        ]
    else:
        found = [json.dumps({"token": SECRET, "catalog": "gitlab", "items": items}).encode() for items in MANY]
        found += [
            json.dumps({"token": SECRET, "items": MANY[0]}).encode(),
            (
                b'{"token": "<secret>", "catalog": "gitlab", "items": [], '
                b'"items": [{"resource": "job", "action": "read", "target": "acme/web"}]}'
            ),
        ]
    return [body.replace(SECRET.encode(), secret.encode()) for body in found]


def seen(answer: httpx.Response) -> tuple[int, bytes, list[tuple[str, str]]]:
    """What a client can tell two answers apart by; a made-up request id is its own."""
    headers = sorted((name, value if name != "x-request-id" else "…") for name, value in answer.headers.items())
    return answer.status_code, answer.content, headers


@pytest.fixture
async def stage(database_url):
    async with staged(database_url) as running:
        yield running


@pytest.fixture
async def hot(stage: Stage):
    transport = httpx.ASGITransport(app=stage.app.state.hot)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        yield client


async def subject(stage: Stage) -> str:
    given = await stage.scope_at("gitlab", ["group:acme"], "job:read", "pipeline:read")
    return (await stage.give("dana", given, catalogs={"gitlab": 2}))[1]


async def gateway(stage: Stage, *catalogs: str) -> str:
    return (await stage.give("root", scope("authz", "instance", "decision:evaluate"), evaluates=catalogs or ("*",)))[1]


@pytest.mark.parametrize("route", ["/check", "/check/http", "/check/batch"])
@pytest.mark.parametrize("catalogs", [("*",), ("gitlab",), ("orders",)])
async def test_both_ways_give_the_same_answer_to_every_body(stage, hot, route, catalogs):
    secret, caller = await subject(stage), await gateway(stage, *catalogs)
    headers = {"Authorization": f"Bearer {caller}"}
    for body in bodies(secret, route) * 3:  # the first time round the short way learns
        long = await stage.client.post(route, content=body, headers=headers)
        short = await hot.post(route, content=body, headers=headers)
        assert seen(short) == seen(long), body[:200]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer azt_k1_wrong"},
        {"Authorization": "Basic eDp5"},
        {"Authorization": "bearer {caller}"},
        {"Authorization": "Bearer  {caller}"},
        {"Authorization": "Bearer {other}"},
        {"Authorization": "Bearer {caller}", "X-Request-ID": "my-own-id"},
        {"Authorization": "Bearer {caller}", "X-Request-ID": "not sane"},
        {"Authorization": "Bearer {caller}", "Content-Encoding": "gzip"},
        {"Authorization": "Bearer {caller}", "Content-Type": "text/plain"},
    ],
)
async def test_both_ways_give_the_same_answer_to_every_header(stage, hot, headers):
    secret, caller = await subject(stage), await gateway(stage)
    sent = {name: value.format(caller=caller, other=secret) for name, value in headers.items()}
    body = json.dumps({**GOOD, "token": secret}).encode()
    for _ in range(3):
        long = await stage.client.post("/check", content=body, headers=sent)
        short = await hot.post("/check", content=body, headers=sent)
        assert seen(short) == seen(long)
        if sent.get("X-Request-ID") == "my-own-id":
            assert short.headers["x-request-id"] == "my-own-id"


async def test_two_authorization_headers_are_refused_both_ways(stage, hot):
    secret, caller = await subject(stage), await gateway(stage)
    body = json.dumps({**GOOD, "token": secret}).encode()
    twice = [("Authorization", f"Bearer {caller}"), ("Authorization", f"Bearer {caller}")]
    await hot.post("/check", content=body, headers=twice[:1])
    for client in (stage.client, hot):
        assert (await client.post("/check", content=body, headers=twice)).status_code == 401


async def test_a_body_in_pieces_is_answered(stage, hot):
    secret, caller = await subject(stage), await gateway(stage)
    body = json.dumps({**GOOD, "token": secret}).encode()

    async def pieces():
        for start in range(0, len(body), 20):
            yield body[start : start + 20]

    for _ in range(3):
        answer = await hot.post("/check", content=pieces(), headers={"Authorization": f"Bearer {caller}"})
        assert answer.json()["decision"] == "allow"


async def test_the_short_way_is_taken(stage, hot, monkeypatch):
    """Else the other tests would compare the long way with itself."""
    secret, caller = await subject(stage), await gateway(stage)
    headers = {"Authorization": f"Bearer {caller}"}
    asked = [{**GOOD, "token": secret}, {**GOOD, "token": secret, "action": "run"}]
    call = {"token": secret, "catalog": "gitlab", "method": "GET", "path": f"{PROJECT}/jobs"}
    refused = {**call, "method": "POST", "path": f"{PROJECT}/jobs/7/retry"}
    for body in asked:
        await hot.post("/check", json=body, headers=headers)
    for body in (call, refused):
        await hot.post("/check/http", json=body, headers=headers)

    async def closed(*_: object) -> None:
        raise AssertionError("the long way was taken")

    monkeypatch.setattr(hot_module.HotPath, "_take_long_way", closed)
    for body, decision in zip(asked, ("allow", "deny"), strict=True):
        assert (await hot.post("/check", json=body, headers=headers)).json()["decision"] == decision
    for body, decision in zip((call, refused), ("allow", "deny"), strict=True):
        assert (await hot.post("/check/http", json=body, headers=headers)).json()["decision"] == decision
    items = [{key: body[key] for key in ("resource", "action", "target")} for body in asked]
    batch = {"token": secret, "catalog": "gitlab", "items": items}
    answer = await hot.post("/check/batch", json=batch, headers=headers)
    assert [one["decision"] for one in answer.json()["decisions"]] == ["allow", "deny"]


CHANGES: list[Any] = [
    {"type": "membership", "user": "dana", "node": "acme", "role": "guest"},
    {"type": "delete", "what": "membership", "user": "dana", "node": "acme"},
    {"type": "membership", "user": "dana", "node": "acme/web", "role": "developer"},
    {"type": "user", "username": "dana", "external_id": "7", "state": "blocked"},
    {"type": "user", "username": "dana", "external_id": "7", "state": "active", "admin": True},
    {"type": "user", "username": "dana", "external_id": "7", "admin": False},
    {"type": "move", "node": "acme/web", "to": "open"},
    {"type": "project", "path": "acme/web", "external_id": "99", "visibility": "private"},
    {"type": "delete", "what": "group", "node": "acme"},
]


async def test_both_ways_stay_equal_while_the_directory_changes(stage, hot):
    secret, caller = await subject(stage), await gateway(stage)
    headers = {"Authorization": f"Bearer {caller}"}
    targets = ["acme/web", "open/web", "acme/tools/lint", "group:acme", "project:42", "project:99"]
    asked = [
        ("/check", {**GOOD, "token": secret, "target": target, "action": action})
        for target in targets
        for action in ("read", "run")
    ]
    asked += [
        (
            "/check/http",
            {"token": secret, "catalog": "gitlab", "method": method, "path": f"/api/v4/projects/{name}/{rest}"},
        )
        for name in ("acme%2Fweb", "open%2Fweb", "42", "99")
        for method, rest in (("GET", "jobs"), ("POST", "jobs/7/retry"), ("GET", "repository/branches"))
    ]
    said = set()
    for change in [None, *CHANGES]:
        if change is not None:
            await stage.apply(change)
            await stage.app.state.services.point.follower.poll_now()
        for _ in range(2):
            for route, body in asked:
                long = await stage.client.post(route, json=body, headers=headers)
                short = await hot.post(route, json=body, headers=headers)
                assert seen(short) == seen(long), (change, body)
                said.add(short.json()["reason"])
    assert {
        "granted",
        "owner_not_member",
        "owner_inactive",
        "target_unknown",
        "outside_reach",
        "permission_missing",
    } <= said


async def test_a_revoked_token_and_a_revoked_caller_are_forgotten(stage, hot):
    secret, caller, admin = await subject(stage), await gateway(stage), await stage.admin()
    headers = {"Authorization": f"Bearer {caller}"}
    body = {**GOOD, "token": secret}
    point = stage.app.state.services.point
    for _ in range(3):
        assert (await hot.post("/check", json=body, headers=headers)).json()["decision"] == "allow"
    token = await point.find_token(secret)
    await stage.call("DELETE", f"/v1/tokens/{token.id}", admin)
    await point.follower.poll_now()
    assert (await hot.post("/check", json=body, headers=headers)).json()["reason"] == "token_revoked"
    token = await point.find_token(caller)
    await stage.call("DELETE", f"/v1/tokens/{token.id}", admin)
    await point.follower.poll_now()
    assert (await hot.post("/check", json=body, headers=headers)).status_code == 401


async def test_a_replica_that_is_not_fresh_answers_503_both_ways(stage, hot):
    secret, caller = await subject(stage), await gateway(stage)
    headers = {"Authorization": f"Bearer {caller}"}
    for _ in range(2):
        await hot.post("/check", json={**GOOD, "token": secret}, headers=headers)
    follower = stage.app.state.services.point.follower
    await follower.stop()
    follower.deadline = float("-inf")
    for client in (stage.client, hot):
        answer = await client.post("/check", json={**GOOD, "token": secret}, headers=headers)
        assert (answer.status_code, answer.json()["decision"], answer.json()["reason"]) == (503, "deny", "stale")


def figures(text: str) -> dict[str, float]:
    """Counts of decisions and requests; how long they took is another's."""
    found = re.findall(r"^(authz_(?:decisions|requests)_total\{[^}]*\}) ([0-9.e+]+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in found if "/metrics" not in name}


async def test_both_ways_count_the_same(stage, hot, database_url):
    secret, caller = await subject(stage), await gateway(stage)
    headers = {"Authorization": f"Bearer {caller}"}
    asked = list(bodies(secret, "/check") * 2)
    batches = list(bodies(secret, "/check/batch") * 2)
    random.Random(4).shuffle(asked)

    async def count(client: httpx.AsyncClient) -> dict[str, float]:
        before = figures((await stage.client.get("/metrics")).text)
        for body in asked:
            await client.post("/check", content=body, headers=headers)
        for body in batches:
            await client.post("/check/batch", content=body, headers=headers)
        for body in bodies(secret, "/check/http") * 2:
            await client.post("/check/http", content=body, headers=headers)
        after = figures((await stage.client.get("/metrics")).text)
        return {name: value - before.get(name, 0.0) for name, value in after.items() if value != before.get(name, 0.0)}

    assert await count(hot) == await count(stage.client) != {}


async def test_both_ways_leave_the_same_records(stage, hot):
    secret, caller = await subject(stage), await gateway(stage)
    headers = {"Authorization": f"Bearer {caller}"}
    kept: list[dict[str, Any]] = []
    point = stage.app.state.services.point
    point.records = Recorder(kept.extend, allows=True)
    stage.app.state.quick = stage.app.state.hot.quick = QuickAnswers(point, encode_decision)

    async def record(client: httpx.AsyncClient) -> list[dict[str, Any]]:
        for route in ("/check", "/check/http", "/check/batch"):
            for number, body in enumerate(bodies(secret, route) * 2):
                await client.post(route, content=body, headers={**headers, "X-Request-ID": f"request-{number}"})
        await point.records.flush()
        found = [{**one, "at": ""} for one in kept]
        kept.clear()
        return found

    long = await record(stage.client)
    assert long
    assert await record(hot) == long
