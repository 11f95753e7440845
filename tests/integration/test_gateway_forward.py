"""`/gateway/forward` and `/gateway/envoy`: who may ask, what is asked, and what the end client is told, both ways."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from tests.integration.test_check_http import FORGE, REQUESTS
from tests.integration.test_hot_path import CHANGES, figures, seen
from tests.support.managing import Stage, scope, staged

from authz_service.api.check import hot_gateway
from authz_service.api.check.encoding import encode_decision
from authz_service.pdp.quick import QuickAnswers
from authz_service.pdp.records import Recorder

ODD = {"\x00", "\r\n", "\r", "\n", "\x7f"}


@dataclass
class Gate:
    """One gateway, known by its token, before an API whose catalog is `forge`."""

    stage: Stage
    token: str
    secret: str
    """Dana's: reads pipelines, files and runners in acme."""

    async def ask(
        self,
        method: str = "GET",
        path: str = "/api/v4/projects/42/pipelines",
        *,
        family: str = "x-forwarded",
        query: str = "catalog=forge",
        secret: str | None = None,
        more: list[tuple[str, str]] | None = None,
        without: tuple[str, ...] = (),
    ) -> httpx.Response:
        names = {"x-forwarded": "x-forwarded-uri", "x-original": "x-original-uri"}
        headers = [
            ("authorization", f"Bearer {secret or self.secret}"),
            ("x-authz-gateway", self.token),
            (names[family].replace("uri", "method"), method),
            (names[family], path),
        ]
        headers = [pair for pair in headers if pair[0] not in without] + (more or [])
        return await both_ways(self.stage, "GET", f"/gateway/forward/{family}?{query}", headers)


async def both_ways(
    stage: Stage, method: str, url: str, headers: Iterable[tuple[str, str]], content: bytes | None = None
) -> httpx.Response:
    """The documented route's answer, with nothing in memory; what memory says must be the same."""
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    quick = stage.app.state.quick
    transport = httpx.ASGITransport(app=stage.app.state.hot)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as hot:
        short = [await hot.request(method, url, headers=raw, content=content) for _ in range(2)]
    stage.app.state.quick = QuickAnswers(stage.app.state.services.point, encode_decision)
    try:
        long = await stage.client.request(method, url, headers=raw, content=content)
    finally:
        stage.app.state.quick = quick
    for answer in short:
        assert seen(answer) == seen(long), (method, url, headers)
    return long


@pytest.fixture
async def gate(database_url):
    async with staged(database_url) as stage:
        await stage.install(FORGE, "forge")
        token = (await stage.give("root", scope("authz", "instance", "decision:evaluate"), evaluates=("*",)))[1]
        at = await stage.scope_at("forge", ["group:acme"], "pipeline:read", "file:read", "runner:read")
        secret = (await stage.give("dana", at, scope("forge", "user", "key:read")))[1]
        yield Gate(stage, token, secret)


@pytest.mark.parametrize("family", ["x-forwarded", "x-original"])
async def test_every_request_is_answered_as_the_check_answers_it(gate, family):
    for method, path, _ in REQUESTS:
        body = {"token": gate.secret, "catalog": "forge", "method": method, "path": path}
        decision = (await gate.stage.call("POST", "/check/http", gate.token, body)).json()
        answer = await gate.ask(method, path, family=family)
        wanted = 200 if decision["decision"] == "allow" else 403
        assert answer.status_code == wanted, (method, path)
        if wanted == 403 and path:
            assert answer.json()["reason"] in (decision["reason"], "target_unknown")


async def test_an_allow_names_token_owner_and_permission(gate):
    answer = await gate.ask()
    assert answer.status_code == 200
    assert answer.content == b""
    assert answer.headers["x-authz-token-id"].startswith("tok_")
    assert answer.headers["x-authz-owner"] == "dana"
    assert answer.headers["x-authz-permission"] == "pipeline:read"
    assert answer.headers["cache-control"] == "no-store"


async def test_an_owner_is_named_as_the_directory_names_them_now(gate):
    assert (await gate.ask()).headers["x-authz-owner"] == "dana"
    await gate.stage.apply({"type": "user", "username": "dana.roe", "external_id": "7"})
    await gate.stage.app.state.services.point.follower.poll_now()
    assert (await gate.ask()).headers["x-authz-owner"] == "dana.roe"
    await gate.stage.apply({"type": "user", "username": "dana.roe", "external_id": "77"})  # she loses the name (D2)
    await gate.stage.app.state.services.point.follower.poll_now()
    assert (await gate.ask()).headers["x-authz-owner"].startswith("~")


async def test_a_deny_challenges_with_the_permission_that_is_missing(gate):
    answer = await gate.ask("POST")
    assert answer.status_code == 403
    assert answer.headers["www-authenticate"].startswith('Bearer error="insufficient_scope"')
    assert 'scope="pipeline:run"' in answer.headers["www-authenticate"]
    told = answer.json()
    assert told["reason"] == "permission_missing"
    assert told["missing"] == [{"permission": "pipeline:run", "boundary": "project", "target": "project:acme/web"}]


async def test_whatever_is_wrong_with_a_token_is_told_in_the_same_bytes(gate):
    at = await gate.stage.scope_at("forge", ["group:acme"], "pipeline:read")
    elsewhere = (await gate.stage.give("dana", at, networks=("10.9.0.0/16",)))[1]
    blocked = (await gate.stage.give("bob", at))[1]
    unknown = gate.secret[:-1] + ("0" if gate.secret[-1] != "0" else "1")
    answers = [await gate.ask(secret=secret) for secret in (elsewhere, blocked, unknown, "nonsense")]
    assert {answer.status_code for answer in answers} == {401}
    assert {answer.headers["www-authenticate"] for answer in answers} == {'Bearer error="invalid_token"'}
    assert len({answer.content for answer in answers}) == 1
    assert (await gate.ask(secret=elsewhere, more=[("x-forwarded-for", "10.1.1.1, 10.9.8.7")])).status_code == 200
    assert (await gate.ask(secret=elsewhere, more=[("x-forwarded-for", "10.9.8.7, 10.1.1.1")])).status_code == 401
    assert (await gate.ask(secret=elsewhere, more=[("x-real-ip", "10.9.8.7")])).status_code == 401


async def test_no_token_is_401_without_a_reproach(gate):
    for more in ([], [("authorization", "")]):
        answer = await gate.ask(without=("authorization",), more=more)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    basic = await gate.ask(without=("authorization",), more=[("authorization", "Basic ZGFuYTpkYW5h")])
    assert (basic.status_code, basic.headers["www-authenticate"]) == (401, 'Bearer error="invalid_token"')


async def test_hidden_and_unknown_targets_are_the_same_bytes(gate):
    at = await gate.stage.scope_at("forge", ["group:acme"], "pipeline:read")
    secret = (await gate.stage.give("dana", at))[1]
    answers = [
        await gate.ask(path=f"/api/v4/projects/{target}/pipelines", secret=secret, method=method)
        for target in ("44", "hidden%2Fplan", "4711", "hidden%2Fnothing")
        for method in ("GET", "POST")
    ]
    assert {answer.status_code for answer in answers} == {403}
    assert len({answer.content for answer in answers}) == 1
    assert len({answer.headers["www-authenticate"] for answer in answers}) == 1


async def test_a_gateway_that_is_none_is_403_and_nothing_is_told_of_the_token(gate):
    other = (await gate.stage.give("dana", await gate.stage.scope_at("forge", ["group:acme"], "pipeline:read")))[1]
    tokens = ["nonsense", other, gate.secret]
    answers = [await gate.ask(without=("x-authz-gateway",), more=[("x-authz-gateway", token)]) for token in tokens]
    answers += [await gate.ask(without=("x-authz-gateway",), secret=secret) for secret in (gate.token, "nonsense")]
    assert {answer.status_code for answer in answers} == {403}
    assert {answer.json()["reason"] for answer in answers} == {"forbidden"}


async def test_a_gateway_asks_about_its_own_catalogs_only(gate):
    await gate.stage.install(FORGE.replace("catalog: forge", "catalog: other"), "other")
    mine = (await gate.stage.give("root", scope("authz", "instance", "decision:evaluate"), evaluates=("forge",)))[1]
    gate.token = mine
    assert (await gate.ask(query="")).status_code == 200
    assert (await gate.ask(query="catalog=other")).status_code == 403
    theirs = (await gate.stage.give("root", scope("authz", "instance", "decision:evaluate"), evaluates=("other",)))[1]
    gate.token = theirs
    shown = await gate.ask(query="")
    assert (shown.status_code, shown.json()["reason"]) == (403, "catalog_mismatch")


async def test_headers_that_may_be_read_in_two_ways_are_refused(gate):
    odd = [
        ("x-forwarded-uri", "/api/v4/version"),
        ("x-forwarded-method", "GET"),
        ("authorization", f"Bearer {gate.secret}"),
        ("x-authz-gateway", gate.token),
        ("x_forwarded_uri", "/api/v4/version"),
        ("x-forwarded_method", "GET"),
        ("x_authz_owner", "root"),
        ("X_AUTHZ_GATEWAY", gate.token),
        ("x-authz-catalog", "gitlab"),
        ("x-authz-resource", "pipeline"),
        ("x-authz-target", "acme/web"),
    ]
    for header in odd:
        answer = await gate.ask(more=[header])
        assert answer.status_code == 403, header
        assert answer.json()["reason"] == "invalid_input", header
    for letters in sorted(ODD):
        answer = await gate.ask(path=f"/api/v4/version{letters}/x")
        assert (answer.status_code, answer.json()["reason"]) == (403, "invalid_input"), repr(letters)


async def test_a_header_that_is_missing_is_refused_and_the_other_family_is_not_looked_at(gate):
    assert (await gate.ask(without=("x-forwarded-uri",))).status_code == 403
    assert (await gate.ask(without=("x-forwarded-method",))).status_code == 403
    other = [("x-original-uri", "/api/v4/version"), ("x-original-method", "GET")]
    assert (await gate.ask("POST", more=other)).status_code == 403
    assert (await gate.ask(more=other)).status_code == 200
    assert (await gate.ask(without=("x-forwarded-uri", "x-forwarded-method"), more=other)).status_code == 403
    assert (await gate.stage.client.get("/gateway/forward/x-other")).status_code in (400, 404)


@pytest.mark.parametrize("family", ["x-forwarded", "x-original"])
async def test_headers_that_name_another_request_are_refused(gate, family):
    names = ["x-http-method-override", "X-HTTP-Method", "x-method-override", "x-rewrite-url", "x_http_method_override"]
    names += ["x_rewrite-url"] + ["x-original-url", "x_original_url"] * (family == "x-forwarded")
    assert (await gate.ask(family=family)).status_code == 200
    for name in names:
        for value in ("DELETE", "GET", ""):
            answer = await gate.ask(family=family, more=[(name, value)])
            assert (answer.status_code, answer.json()["reason"]) == (403, "invalid_input"), name


async def test_a_url_that_names_another_method_is_refused(gate):
    assert (await gate.ask(path="/api/v4/projects/42/pipelines?method=x&a_method=y&_methods=z")).status_code == 200
    for query in ("_method=DELETE", "a=1&_METHOD=DELETE", "a=1;_method=GET", "%5fmethod=x", "_method[]=x", "_method"):
        path = f"/api/v4/projects/42/pipelines?{query}"
        answer = await gate.ask(path=path)
        assert (answer.status_code, answer.json()["reason"]) == (403, "bad_path"), query
        constants = "catalog=forge&resource=pipeline&action=read&target=acme/web"
        answer = await gate.ask(path=path, query=constants)
        assert (answer.status_code, answer.json()["reason"]) == (403, "invalid_input"), query


async def test_the_url_of_the_ingress_and_a_uri_beside_it_have_to_agree(gate):
    path = "/api/v4/projects/42/pipelines?page=2"

    async def ask(url: str, **more: Any) -> int:
        return (await gate.ask(path=path, family="x-original", more=[("x-original-url", url)], **more)).status_code

    assert await ask(f"https://api.test{path}", without=("x-original-uri",)) == 200
    assert await ask(f"https://api.test:8443{path}") == 200
    assert await ask("https://api.test/api/v4/version") == 403
    assert await ask("https://api.test/api/v4/projects/44/pipelines", without=("x-original-uri",)) == 403
    for odd in ("", "ftp://api.test/api/v4/version", "//api.test/", "https://a b/api/v4/version", "https:///x"):
        assert await ask(odd, without=("x-original-uri",)) == 403, odd


async def test_constants_come_from_the_url_and_from_headers_only_where_it_says_so(gate):
    asked = "catalog=forge&resource=pipeline&action=read&target=acme/web"
    assert (await gate.ask("DELETE", "/anything", query=asked)).status_code == 200
    assert (await gate.ask(query=asked.replace("read", "run"))).status_code == 403
    assert (await gate.ask(query=asked.replace("acme", "hidden"))).status_code == 403
    headers = [("x-authz-resource", "pipeline"), ("x-authz-action", "read"), ("x-authz-target", "acme/web")]
    assert (await gate.ask("DELETE", more=headers)).status_code == 403
    assert (await gate.ask("DELETE", query="catalog=forge&constants=headers", more=headers)).status_code == 200
    named = [*headers, ("x-authz-catalog", "forge")]
    assert (await gate.ask("DELETE", query="constants=headers", more=named)).status_code == 200
    assert (await gate.ask("DELETE", query="", more=named)).status_code == 403
    assert (await gate.ask(query="", more=[("x-authz-catalog", "forge")])).status_code == 200
    runner = "catalog=forge&target=acme/web"
    assert (await gate.ask(path="/api/v4/runners/9", query=runner)).status_code == 200


async def test_a_gateway_whose_url_is_not_in_order_is_refused(gate):
    for query in (
        "",
        "catalog=",
        "catalog=forge&catalog=forge",
        "catalog=Forge",
        "catalogue=forge",
        "catalog=forge&resource=pipeline",
        "catalog=forge&constants=yes",
        "catalog=forge&resource=" + "x" * 65 + "&action=read",
    ):
        answer = await gate.ask(query=query)
        assert (answer.status_code, answer.json()["reason"]) == (403, "invalid_input"), query


async def test_a_secret_in_the_clients_url_is_refused(gate):
    for path in (
        f"/api/v4/version?private_token={gate.secret}",
        "/api/v4/version?t=" + gate.secret.replace("_", "%5f"),
    ):
        answer = await gate.ask(path=path)
        assert (answer.status_code, answer.json()["reason"]) == (403, "secret_in_url")


async def test_any_method_of_the_check_request_is_taken(gate):
    headers = {
        "authorization": f"Bearer {gate.secret}",
        "x-authz-gateway": gate.token,
        "x-forwarded-method": "GET",
        "x-forwarded-uri": "/api/v4/projects/42/pipelines",
    }
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        url = "/gateway/forward/x-forwarded?catalog=forge"
        answer = await both_ways(gate.stage, method, url, headers.items(), b"ignored")
        assert answer.status_code == 200, method
    assert (await gate.stage.client.request("BREW", url, headers=headers)).status_code == 405


async def test_envoys_path_is_the_clients_own_after_the_prefix(gate):
    headers = {"authorization": f"Bearer {gate.secret}", "x-authz-gateway": gate.token, "x-authz-catalog": "forge"}
    client = gate.stage.client
    for method, path, _ in REQUESTS:
        if not path.startswith("/") or "\\" in path or method in ("BREW", "get"):
            continue  # what the test's own client does not send as it is
        body = {"token": gate.secret, "catalog": "forge", "method": method, "path": path}
        decision = (await gate.stage.call("POST", "/check/http", gate.token, body)).json()
        answer = await both_ways(gate.stage, method, f"/gateway/envoy{path}", headers.items())
        sent = answer.request.url.raw_path.decode().removeprefix("/gateway/envoy")
        if sent != path:
            continue  # the client tidied it up
        assert answer.status_code == (200 if decision["decision"] == "allow" else 403), (method, path)
    allowed = await both_ways(gate.stage, "GET", "/gateway/envoy/api/v4/version", headers.items())
    assert allowed.headers["x-envoy-auth-headers-to-remove"] == "authorization"
    encoded = await client.get("/gateway%2Fenvoy/api/v4/version", headers=headers)
    assert encoded.status_code in (403, 404)
    constants = {"x-authz-resource": "pipeline", "x-authz-action": "read", "x-authz-target": "acme/web"}
    for url, status in (("/gateway/envoy/x", 403), ("/gateway/envoy-constants/x", 200)):
        assert (await both_ways(gate.stage, "GET", url, (headers | constants).items())).status_code == status


async def test_nothing_can_be_decided_is_503_and_a_deny(gate):
    follower = gate.stage.app.state.services.point.follower
    await follower.stop()
    follower.proof = follower.deadline = float("-inf")
    for answer in (await gate.ask(), await gate.ask(secret="nonsense")):
        assert answer.status_code == 503
        assert answer.json()["decision"] == "deny"
        assert answer.headers["retry-after"] == "1"


def asked_of(gate: Gate) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """Method, URL and headers of requests that memory can answer, and of some that it cannot."""
    who = [("authorization", f"Bearer {gate.secret}"), ("x-authz-gateway", gate.token), ("x-forwarded-for", "10.1.2.3")]
    found = []
    for method, path, _ in REQUESTS[:24]:
        told = [("x-forwarded-method", method), ("x-forwarded-uri", path)]
        found.append(("GET", "/gateway/forward/x-forwarded?catalog=forge", who + told))
        if path.startswith("/") and method.isupper():
            found.append((method, f"/gateway/envoy{path}", [*who, ("x-authz-catalog", "forge")]))
    for target in ("acme/web", "open/web", "project:42", "group:acme", "hidden/plan", "nobody"):
        url = f"/gateway/forward/x-forwarded?catalog=forge&resource=pipeline&action=read&target={target}"
        told = [("x-forwarded-method", "GET"), ("x-forwarded-uri", "/any")]
        found.append(("GET", url, who + told))
        found.append(("GET", url.replace("action=read", "action=run"), who + told))
    return found


async def test_gateways_take_the_short_way(gate, monkeypatch):
    """Else the other tests would compare the long way with itself."""
    urls = ["/gateway/forward/x-forwarded?catalog=forge", "/gateway/envoy/api/v4/projects/42/pipelines"]
    taken = []
    decide = hot_gateway.decide_from_memory

    def watch(*given: Any) -> Any:
        taken.append(decide(*given))
        return taken[-1]

    monkeypatch.setattr(hot_gateway, "decide_from_memory", watch)
    for method, status in (("GET", 200), ("POST", 403)):
        headers = [("x-forwarded-method", method), ("x-forwarded-uri", "/api/v4/projects/42/pipelines")]
        headers += [("authorization", f"Bearer {gate.secret}"), ("x-authz-gateway", gate.token)]
        headers += [("x-authz-catalog", "forge")]
        for url in urls:
            taken.clear()
            asked = headers if "envoy" in url else headers[:-1]
            answer = await both_ways(gate.stage, "GET" if "forward" in url else method, url, asked)
            assert answer.status_code == status
            assert [verdict is None for verdict in taken][-1:] == [False], url


async def test_both_ways_of_a_gateway_stay_equal_while_the_directory_changes(gate):
    said = set()
    for change in [None, *CHANGES, {"type": "user", "username": "dora", "external_id": "7"}]:
        if change is not None:
            await gate.stage.apply(change)
            await gate.stage.app.state.services.point.follower.poll_now()
        for asked in asked_of(gate):
            said.add((await both_ways(gate.stage, *asked)).status_code)
    assert said == {200, 401, 403, 405}


async def test_a_revoked_gateway_and_a_revoked_token_are_forgotten(gate):
    point, admin = gate.stage.app.state.services.point, await gate.stage.admin()
    assert (await gate.ask()).status_code == 200
    for secret, status, reason in ((gate.secret, 401, "unauthenticated"), (gate.token, 403, "forbidden")):
        token = await point.find_token(secret)
        await gate.stage.call("DELETE", f"/v1/tokens/{token.id}", admin)
        await point.follower.poll_now()
        answer = await gate.ask()
        assert (answer.status_code, answer.json()["reason"]) == (status, reason)


async def test_both_ways_of_a_gateway_count_and_record_the_same(gate):
    kept: list[dict[str, Any]] = []
    point, state = gate.stage.app.state.services.point, gate.stage.app.state
    point.records = Recorder(kept.extend, allows=True)
    asked = [(*one[:2], [*one[2], ("x-request-id", f"r-{number}")]) for number, one in enumerate(asked_of(gate))] * 2

    async def count(app: Any, *, forgetful: bool) -> tuple[dict[str, float], list[Any], Any]:
        point.usage.take()
        before = figures((await gate.stage.client.get("/metrics")).text)
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            for method, url, headers in asked:
                if forgetful:
                    state.quick = QuickAnswers(point, encode_decision)
                await client.request(method, url, headers=headers)
        after = figures((await gate.stage.client.get("/metrics")).text)
        await point.records.flush()
        records = [{**one, "at": ""} for one in kept]
        kept.clear()
        used = [sorted(map(str, some)) for some in point.usage.take()]
        return {name: value - before.get(name, 0) for name, value in after.items()}, records, used

    quick = state.quick = state.hot._app.quick = QuickAnswers(point, encode_decision)
    state.hot.quick = quick
    short = await count(state.hot, forgetful=False)
    long = await count(state.gateway_listener._app._app, forgetful=True)
    assert short[1] == long[1] != []
    assert short[2] == long[2] != [[], []]
    moved = {name: value for name, value in short[0].items() if value}
    assert moved == {name: value for name, value in long[0].items() if value} != {}
