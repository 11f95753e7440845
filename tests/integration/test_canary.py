"""A token that is put wherever a token can be put: afterwards it stands in no log, metric, table, record or answer."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import pytest_asyncio
import structlog
from sqlalchemy import text
from tests.support.managing import Stage, body_of, scope, staged

from authz_service.app import create_app
from authz_service.config import Settings
from authz_service.pdp.check import DecisionPoint
from authz_service.store.all_tables import metadata
from authz_service.telemetry import configure_logging
from authz_service.tokens.secret import new_secret

pytestmark = pytest.mark.asyncio(loop_scope="module")

DOCUMENT = create_app(Settings()).openapi()
HEADERS = (
    "authorization",
    "x-authz-gateway",
    "x-request-id",
    "traceparent",
    "idempotency-key",
    "if-match",
    "cookie",
    "user-agent",
    "referer",
    "content-type",
    "accept",
    "x-forwarded-uri",
    "x-original-url",
    "x-forwarded-for",
    "origin",
)
LEAVES: dict[str, Any] = {"integer": 1, "number": 1, "boolean": True, "null": None}


@contextmanager
def logged() -> Iterator[io.StringIO]:
    """All that is logged, down to the drivers' own words; afterwards everything is as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    out = io.StringIO()
    configure_logging(json=True, level="debug", out=out)
    logging.getLogger("sqlalchemy.engine").setLevel(logging.DEBUG)
    try:
        yield out
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.getLogger("sqlalchemy.engine").setLevel(logging.NOTSET)
        logging.getLogger("uvicorn.error").setLevel(logging.NOTSET)
        structlog.reset_defaults()


class Scene:
    """A service that says all it ever says, and whatever it answered."""

    def __init__(self, stage: Stage, http: httpx.AsyncClient, log: io.StringIO) -> None:
        self.stage, self.http, self.log = stage, http, log
        self.answers: list[tuple[str, httpx.Response]] = []
        self.statuses: Counter[int] = Counter()

    async def send(self, what: str, method: str, path: str, **more: Any) -> httpx.Response:
        answer = await self.http.request(method, path, **more)
        self.statuses[answer.status_code] += 1
        self.answers.append((what, answer))
        return answer


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def scene(make_database, tmp_path_factory):
    records = tmp_path_factory.mktemp("records") / "decisions.ndjson"
    given = {"decision_records": "all", "decision_records_sink": "file", "decision_records_file": records}
    with logged() as log:
        async with staged(make_database(), public_url="https://authz.example.com", **given) as stage:
            transport = httpx.ASGITransport(app=stage.app.state.hot, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://service") as http:
                found = Scene(stage, http, log)
                found.records = records
                yield found


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def fill(schema: dict[str, Any], secret: str, depth: int = 0) -> Any:
    """A value of the schema in which each text is the secret."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return fill(DOCUMENT["components"]["schemas"][name], secret, depth + 1) if depth < 8 else secret
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema:
            return fill(schema[several][0], secret, depth + 1)
    if "properties" in schema:
        return {name: fill(inner, secret, depth + 1) for name, inner in schema["properties"].items()}
    kind = schema.get("type")
    if kind == "array":
        return [fill(schema.get("items", {}), secret, depth + 1)]
    if kind == "object":
        return {secret: secret}
    return LEAVES.get(str(kind), secret)


def at(path: str, secret: str) -> str:
    """The path with something harmless in each parameter."""
    return "/".join(
        "x-forwarded" if part == "{family}" else "1" if part[:1] == "{" else part for part in path.split("/")
    )


async def dump(stage: Stage) -> str:
    """Every row of every table."""
    rows: list[str] = []
    async with stage.database.read() as conn:
        for table in metadata.sorted_tables:
            found = await conn.execute(text(f'select row_to_json(t)::text from "{table.name}" as t'))
            rows += [f"{table.name} {row}" for (row,) in found]
    assert len(rows) > 30
    return "\n".join(rows)


async def test_a_token_shown_everywhere_is_told_nowhere(scene):
    stage = scene.stage
    _, working = await stage.give("dana", await stage.scope_at("gitlab", ["acme/web"], "job:read"))
    unknown = new_secret("azt", "k1").reveal()
    mistyped = working[:-1] + ("0" if working[-1] != "0" else "1")
    admin = {"Authorization": f"Bearer {await stage.admin()}"}
    for secret in (working, unknown, mistyped):
        for method, path, operation in operations():
            plain = at(path, secret)
            if path == "/metrics" or plain.startswith("/static"):
                continue
            what = f"{method} {path}"
            await scene.send(f"{what} by it", method, plain, headers={"Authorization": f"Bearer {secret}"})
            await scene.send(f"{what} beside it", method, f"{plain}?token={secret}", headers=admin)
            await scene.send(f"{what} in the path", method, f"{plain}/{secret}", headers=admin)
            headers = [(name, secret) for name in HEADERS]
            await scene.send(f"{what} in headers", method, plain, headers=headers)
            await scene.send(f"{what} in headers, twice", method, plain, headers=[*headers, *admin.items()])
            content = operation.get("requestBody", {}).get("content", {})
            for kind, body in content.items():
                if path == "/v1/leaks/report" and secret == working:
                    continue
                filled = json.dumps(fill(body.get("schema", {}), secret)).encode()
                for sent in (filled, secret.encode(), json.dumps({secret: [secret]}).encode(), filled[:-2]):
                    if path.startswith("/v1/self") or path == "/oauth/revoke":
                        break  # such a call may end the token that is shown, and the rest would say nothing
                    await scene.send(
                        f"{what} in a body", method, plain, headers=admin | {"Content-Type": kind}, content=sent
                    )
    # That was no walk past closed doors: most kinds of answers came.
    assert scene.statuses.keys() >= {200, 400, 401, 403, 404}
    for secret in (working, unknown, mistyped):
        core = secret[8:40]
        told = [
            (what, answer.status_code, answer.text[:200])
            for what, answer in scene.answers
            if core in answer.text or core in str(answer.headers)
        ]
        assert not told, told[:20]
        assert core not in scene.log.getvalue()
        assert core not in (await scene.http.get("/metrics")).text
        found = [row[:300] for row in (await dump(stage)).splitlines() if core in row]
        assert not found, found
    assert scene.log.getvalue().count("\n") > 500


NOTED = {
    "name": ("POST", "/v1/tokens", lambda secret: body_of(name=f"for {secret}")),
    "reason": ("POST", "/v1/tokens", lambda secret: body_of(reason=f"because of {secret}, again")),
    "somewhere deep": ("POST", "/v1/tokens", lambda secret: body_of(scopes=[{"reach": {"kind": [secret]}}])),
    "a field's name": ("POST", "/v1/tokens", lambda secret: body_of(**{secret: 1})),
    "policy": ("PUT", "/v1/policies?node=group:acme", lambda secret: {"catalog": "gitlab", "note": secret}),
    "webhook": ("POST", "/v1/webhooks", lambda secret: {"url": f"https://example.com/{secret}", "events": ["*"]}),
    "review": ("POST", "/v1/grant-requests/1", lambda secret: {"action": "deny", "reason": f"x{secret}x"}),
}


@pytest.mark.parametrize("what", NOTED)
async def test_a_token_in_a_text_that_is_kept_is_refused_and_not_repeated(scene, what):
    method, path, body = NOTED[what]
    admin = await scene.stage.admin()
    secret = new_secret("azt", "k1").reveal()
    answer = await scene.stage.call(method, path, admin, body(secret))
    assert answer.status_code == 400
    assert {fault["code"] for fault in answer.json()["faults"]} == {"secret_in_text"}
    assert secret[8:40] not in answer.text
    assert secret[8:40] not in await dump(scene.stage)
    # What only looks like one is another text: keys and hashes may.
    assert "secret_in_text" not in (await scene.stage.call(method, path, admin, body(secret[:-6] + "000000"))).text


async def test_a_crash_that_repeats_a_token_tells_it_to_nobody(scene, monkeypatch):
    secret = new_secret("azt", "k1").reveal()

    async def breaks(*_: object, **__: object) -> None:
        raise RuntimeError(f"cannot go on with {secret}, called by Bearer {secret}")

    monkeypatch.setattr(DecisionPoint, "authenticate", breaks)
    scene.log.truncate(0)
    for method, path, _ in operations():
        if path.startswith(("/v1/", "/check")):
            headers = {"Authorization": f"Bearer {secret}"}
            answer = await scene.send(f"{method} {path}", method, at(path, ""), headers=headers, content=b"{}")
            assert secret[8:40] not in answer.text + str(answer.headers)
    assert scene.statuses[500] > 20
    log = scene.log.getvalue()
    assert "cannot go on with" in log
    assert "Traceback" in log
    assert secret[8:40] not in log


async def test_what_is_recorded_of_decisions_names_tokens_by_their_ids_alone(scene):
    token_id, secret = await scene.stage.give("dana", await scene.stage.scope_at("gitlab", ["acme/web"], "job:read"))
    caller = (await scene.stage.give("root", scope("authz", "instance", "decision:evaluate"), evaluates=("*",)))[1]
    ask = {"token": secret, "catalog": "gitlab", "resource": "job", "action": "read", "target": "acme/web"}
    odd = [ask, ask | {"target": secret}, ask | {"resource": secret[:60]}, ask | {"token": secret[:-1]}]
    odd += [ask, ask | {"attributes": {"context.x": secret}}, ask | {"explain": True, "target": secret}]
    for body in odd:
        await scene.send("a check", "POST", "/check", headers={"Authorization": f"Bearer {caller}"}, json=body)
    point = scene.stage.app.state.services.point
    for _ in range(600):
        if point.records.written >= len(odd) - 1:
            break
        await asyncio.sleep(0.05)
    told = scene.records.read_text()
    assert token_id in told
    assert secret[8:40] not in told
