"""Holes that others had, each tried here over HTTP, by a token that could go where the trick begins."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import httpx
import pytest
from tests.integration.test_gateway_forward import Gate
from tests.support.managing import Stage, body_of, scope, staged

API = """
catalog: shelf
version: 1
base_path: /api
targets: {/projects/:id: project, /groups/:id: group}
permissions:
  book:
    read: {project: "GET /projects/:id/books"}
    write: {project: "POST /projects/:id/books"}
  lock:
    open: {project: "POST /projects/:id/lock", when: {context.approved: true}}
    turn: {project: "PUT /projects/:id/lock"}
operations:
  GET /public/:name: {open: true}
  GET /admin/secrets: {closed: true}
  DELETE /admin/users/:user: {closed: true}
"""
"""Everything below `/public` is open, everything below `/admin` closed."""

OTHER = API.replace("catalog: shelf", "catalog: other")
UPSTREAM = """
catalog: rows
version: 1
owner_check: upstream
base_path: /api
targets: {/tables/:id: project}
permissions:
  row: {read: {project: "GET /tables/:id/rows", group: }}
"""


@pytest.fixture
async def gate(database_url):
    async with staged(database_url) as stage:
        await stage.install(API, "shelf")
        await stage.install(OTHER, "other")
        await stage.install(UPSTREAM, "rows")
        token = (await stage.give("root", scope("authz", "instance", "decision:evaluate"), evaluates=("*",)))[1]
        at = await stage.scope_at("shelf", ["project:acme/web"], "book:read", "lock:open")
        yield Gate(stage, token, (await stage.give("dana", at))[1])


async def decide(gate: Gate, method: str, path: str, **more: Any) -> dict[str, Any]:
    body = {"token": gate.secret, "catalog": "shelf", "method": method, "path": path, **more}
    answer = await gate.stage.call("POST", "/check/http", gate.token, body)
    assert answer.status_code == 200, answer.text
    return answer.json()


PATHS = {
    # Envoy matched its rules before it resolved dot segments.
    "CVE-2019-9901": [
        "/api/public/../admin/secrets",
        "/api/public/%2e%2e/admin/secrets",
        "/api/public/x/../../admin/secrets",
    ],
    # Envoy kept encoded slashes, and the service behind it decoded them.
    "CVE-2021-29492": [
        "/api/public%2f..%2fadmin%2fsecrets",
        "/api/public/..%2fadmin%2fsecrets",
        "/api/public/x%5c..%5cadmin",
    ],
    # Traefik matched its routers on what it decoded later.
    "CVE-2025-66490": [f"/api/public/x{escape}admin" for escape in ("%2F", "%5C", "%00", "%3B", "%3F", "%23", "%25")],
    # Traefik cut a prefix by the length of the decoded path.
    "CVE-2026-40912": ["/api/./admin/secrets", "/api/%2e/public/x", "/%61pi/public/x", "/api/public/./x"],
    # The Envoy plugin of OPA took what follows two slashes for a host.
    "CVE-2026-26205": ["//public/x", "//api/public/x", "///api/public/x", "//api.test/api/public/x"],
    # Oathkeeper chose the rule by the path as it came, and the service behind got the resolved one.
    "GHSA-p224-6x5r-fjpm": ["/api/public/x/../../admin/secrets", "/api/public/..;/admin/secrets", "/api/public//x"],
    # SciTokens let dot segments inside a scope's own path lead out of it.
    "GHSA-3x2w-63fp-3qvw": [
        "/api/projects/acme%2Fweb%2F..%2Ftools/books",
        "/api/projects/acme%2Fweb%2f%2e%2e%2ftools%2flint/books",
        "/api/projects/acme%2F.%2Fweb/books",
    ],
}


@pytest.mark.parametrize("name", PATHS)
async def test_no_spelling_of_a_path_leads_out_of_what_is_open(gate, name):
    assert (await decide(gate, "GET", "/api/public/x"))["decision"] == "allow"
    assert (await decide(gate, "GET", "/api/admin/secrets"))["reason"] == "operation_closed"
    assert (await decide(gate, "GET", "/api/projects/acme%2Fweb/books"))["decision"] == "allow"
    for path in PATHS[name]:
        for method in ("GET", "DELETE", "POST"):
            found = await decide(gate, method, path)
            reason = "operation_unknown" if path.startswith("/%61pi") and found["reason"] != "bad_path" else "bad_path"
            assert (found["decision"], found["reason"]) == ("deny", reason), (method, path)
        for family in ("x-forwarded", "x-original"):
            answer = await gate.ask("GET", path, family=family, query="catalog=shelf")
            assert answer.status_code in (400, 403), path
        assert await behind_our_prefix(gate, path) in (400, 403), path
    assert await behind_our_prefix(gate, "/api/public/x") == 200


async def behind_our_prefix(gate: Gate, path: str) -> int:
    """The status of Envoy's own way of asking, with the path as it came: clients of ours would tidy it up."""
    headers = {"authorization": f"Bearer {gate.secret}", "x-authz-gateway": gate.token, "x-authz-catalog": "shelf"}
    raw = f"/gateway/envoy{path}"
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": unquote(raw),
        "raw_path": raw.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("test", 80),
    }
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await gate.stage.app.state.hot(scope, receive, send)
    return int(sent[0]["status"])


async def test_a_scope_with_a_way_out_of_itself_is_not_issued_and_reaches_nothing_else(gate):
    """SciTokens GHSA-3x2w-63fp-3qvw, where places are free text (C9)."""
    admin = await gate.stage.admin()
    for node in (
        "project:acme/../other",
        "project:acme/%2e%2e/other",
        "group:acme/.",
        "group:../acme",
        "project:acme//other",
    ):
        scopes = [{"reach": {"kind": "selected", "nodes": [node]}, "permissions": ["row:read"]}]
        body = body_of(owner="anybody", catalog="rows", scopes=scopes)
        answer = await gate.stage.call("POST", "/v1/tokens", admin, body)
        assert answer.status_code == 400, (node, answer.text)
    scopes = [{"reach": {"kind": "selected", "nodes": ["group:acme"]}, "permissions": ["row:read"]}]
    body = body_of(owner="anybody", catalog="rows", scopes=scopes)
    secret = (await gate.stage.call("POST", "/v1/tokens", admin, body)).json()["secret"]
    ask = {"token": secret, "catalog": "rows", "resource": "row", "action": "read"}
    for target, allowed in {
        "project:acme/web": True,
        "project:acme/../other/web": False,
        "project:acme/./web": False,
        "project:acmes/web": False,
        "project:ac": False,
        "group:acme/..": False,
        "project:acme/web/../../other": False,
        "project:acme\\..\\other": False,
    }.items():
        answer = (await gate.stage.call("POST", "/check", gate.token, ask | {"target": target})).json()
        assert (answer["decision"] == "allow") is allowed, target


async def test_what_one_gateway_was_told_is_no_answer_for_another(gate):
    """Oathkeeper GHSA-4mq7-pvjg-xp2r: what was remembered of a token left out the server that it was asked at."""
    for first, second in (("shelf", "other"), ("other", "shelf")):
        for _ in range(3):  # warm: the short way answers
            found = {
                catalog: (await gate.ask("GET", "/api/projects/42/books", query=f"catalog={catalog}"))
                for catalog in (first, second)
            }
            assert found["shelf"].status_code == 200
            assert (found["other"].status_code, found["other"].json()["reason"]) == (403, "catalog_mismatch")
    checks = [
        {"token": gate.secret, "catalog": catalog, "resource": "book", "action": "read", "target": "acme/web"}
        for catalog in ("shelf", "other", "shelf@1", "other@1")
    ]
    for _ in range(3):
        answers = [(await hot(gate.stage, gate.token, body))["decision"] for body in checks]
        assert answers == ["allow", "deny", "allow", "deny"]


async def hot(stage: Stage, caller: str, body: dict[str, Any], path: str = "/check") -> dict[str, Any]:
    """Asked of what a worker serves, where memory answers first."""
    transport = httpx.ASGITransport(app=stage.app.state.hot)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.post(path, json=body, headers={"Authorization": f"Bearer {caller}"})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_what_was_said_with_a_question_is_not_remembered_for_the_next(gate):
    """OpenFGA CVE-2024-56323: a cached answer left out what the caller had given along."""
    ask = {"token": gate.secret, "catalog": "shelf", "resource": "lock", "action": "open", "target": "acme/web"}
    for _ in range(3):
        for attributes, reason in (
            ({"context.approved": True}, "granted"),
            ({"context.approved": False}, "permission_missing"),
            ({"context.approved": "true"}, "permission_missing"),
            ({"context.approved": 1}, "permission_missing"),
            (None, "attribute_missing"),
            ({}, "attribute_missing"),
            ({"context.other": True}, "attribute_missing"),
        ):
            body = ask if attributes is None else ask | {"attributes": attributes}
            assert (await hot(gate.stage, gate.token, body))["reason"] == reason, attributes


async def test_names_with_separators_in_them_are_other_names(gate):
    """OpenFGA CVE-2026-41131: keys of a cache were joined from texts that could hold the separator."""
    good = {"token": gate.secret, "catalog": "shelf", "resource": "book", "action": "read", "target": "acme/web"}
    assert (await hot(gate.stage, gate.token, good))["decision"] == "allow"
    odd = [
        {"resource": "book:read", "action": "acme/web", "target": "x"},
        {"resource": "book:", "action": "read"},
        {"resource": "book", "action": ":read"},
        {"resource": "book", "action": "read:acme/web", "target": "acme/tools/lint"},
        {"resource": "book\x1f", "action": "read"},
        {"resource": "book", "action": "read", "target": "acme/tools/lint|acme/web"},
        {"resource": "book", "action": "read", "target": "acme/tools/lint,acme/web"},
        {"resource": "book", "action": "read", "target": "project:acme/web project:acme/tools/lint"},
        {"resource": "book", "action": "read", "target": "acme/web\n"},
        {"resource": "book", "action": "read\u200b"},
        {"resource": "BOOK", "action": "READ"},
    ]
    for body in odd:
        for _ in range(2):
            found = await hot(gate.stage, gate.token, good | body)
            assert found["decision"] == "deny", body
            assert (await hot(gate.stage, gate.token, good))["decision"] == "allow"


async def test_each_item_of_a_batch_is_answered_for_itself(gate):
    """OpenFGA CVE-2026-34972: of items that looked alike one was decided, and the others got its answer."""
    open_ = {"resource": "lock", "action": "open", "target": "acme/web"}
    read = {"resource": "book", "action": "read", "target": "acme/web"}
    items = [
        open_ | {"attributes": {"context.approved": True}},
        open_ | {"attributes": {"context.approved": False}},
        open_,
        open_ | {"attributes": {"context.approved": True}},
        read,
        read | {"target": "acme/tools/lint"},
        read,
        read | {"action": "write"},
        read | {"target": "project:42"},
        read | {"target": "group:42"},
    ]
    wanted = ["allow", "deny", "deny", "allow", "allow", "deny", "allow", "deny", "allow", "deny"]
    for _ in range(3):
        body = {"token": gate.secret, "catalog": "shelf", "items": items}
        found = await hot(gate.stage, gate.token, body, "/check/batch")
        assert [one["decision"] for one in found["decisions"]] == wanted
        plain = {"token": gate.secret, "catalog": "shelf", "items": items[4:]}  # of a form that memory can answer
        found = await hot(gate.stage, gate.token, plain, "/check/batch")
        assert [one["decision"] for one in found["decisions"]] == wanted[4:]


async def test_what_a_client_says_of_its_own_request_is_not_believed(gate):
    """oauth2-proxy CVE-2026-40575: the client's own `X-Forwarded-Uri` chose the rule by which it was judged."""
    good, closed = "/api/public/x", "/api/admin/secrets"
    for family, own, others in (
        (
            "x-forwarded",
            "x-forwarded-uri",
            ("x-original-uri", "x-original-url", "x-rewrite-url", "forwarded", "x-forwarded-path"),
        ),
        (
            "x-original",
            "x-original-uri",
            ("x-forwarded-uri", "x-rewrite-url", "x-forwarded-prefix", "x-forwarded-path"),
        ),
    ):
        for name in others:
            value = f"https://api.test{good}" if name == "x-original-url" else good
            answer = await gate.ask("GET", closed, family=family, query="catalog=shelf", more=[(name, value)])
            assert answer.status_code == 403, name
        answer = await gate.ask("GET", closed, family=family, query="catalog=shelf", more=[(own, good)])
        assert answer.status_code in (400, 403)
        method = own.replace("uri", "method")
        answer = await gate.ask(
            "POST", "/api/projects/42/books", family=family, query="catalog=shelf", more=[(method, "GET")]
        )
        assert answer.status_code in (400, 403)


@pytest.mark.parametrize(
    "variant", ["x_forwarded_uri", "X_Forwarded-Uri", "x-forwarded_uri", "X_AUTHZ_GATEWAY", "x-authz_catalog"]
)
async def test_a_header_that_others_read_under_another_name_is_refused(gate, variant):
    """oauth2-proxy CVE-2025-64484: `_` for `-` got past what was stripped."""
    value = gate.token if "gateway" in variant.lower() else "/api/public/x"
    answer = await gate.ask("GET", "/api/admin/secrets", query="catalog=shelf", more=[(variant, value)])
    assert answer.status_code in (400, 403)
    answer = await gate.ask("GET", "/api/public/x", query="catalog=shelf", more=[(variant, value)])
    assert answer.status_code in (400, 403)
