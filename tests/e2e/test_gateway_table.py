"""One table of cases before every gateway: what passes, what does not, and what the API behind it gets to see."""

from __future__ import annotations

import itertools
import json
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest
from tests.faults.proxy import HOLE, REFUSE, Proxies
from tests.support.gateways import (
    KINDS,
    NGINX,
    Answer,
    Gateway,
    Kind,
    Places,
    Upstream,
    free_port,
    require,
    running,
    upstream,
)
from tests.support.processes import DevService, dev_service

from authz_service.engine.model import TOKEN_REASONS

JOBS = "/api/v4/projects/bakery%2Fshop%2Fcheckout/jobs"
RETRY = f"{JOBS}/1/retry"
HIDDEN = "/api/v4/projects/recipes%2Fsourdough/jobs"
UNKNOWN = "/api/v4/projects/recipes%2Fnothing/jobs"
REQUESTS = 1000


@dataclass
class Stand:
    """The service with its demo, a link to it that can fail, and the API behind the gateways."""

    dev: DevService
    proxies: Proxies
    api: Upstream
    places: Places
    secrets: Mapping[str, str]
    asker: httpx.Client

    def check(self, secret: str, method: str, path: str) -> str:
        """What the service itself says: the status that a gateway has to turn it into."""
        body = {"token": secret, "catalog": "gitlab", "method": method, "path": path}
        answer = self.asker.post("/check/http", json=body)
        assert answer.status_code == 200, answer.text
        found = answer.json()
        if found["decision"] == "allow":
            return "200"
        return "401" if found["reason"] in TOKEN_REASONS else "403"


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    port = free_port()
    env = {"AUTHZ_GRPC_LISTEN": f"127.0.0.1:{port}"}
    folder = tmp_path_factory.mktemp("stand")
    proxies = Proxies()
    try:
        with dev_service(folder, env=env) as dev, upstream() as api:
            places = Places(
                0,
                pdp=proxies.add("http", dev.url.removeprefix("http://")),
                api=api.port,
                token=str(dev.ready["gateway_token"]),
                catalog="gitlab",
                grpc=proxies.add("grpc", f"127.0.0.1:{port}"),
            )
            with dev.client(places.token) as asker:
                yield Stand(dev, proxies, api, places, _secrets(dev), asker)
    finally:
        proxies.close()


def _secrets(dev: DevService) -> Mapping[str, str]:
    found = {"nonsense": "nonsense"}
    wanted: Mapping[str, Mapping[str, Any]] = {
        "dana": {},
        "bound": {"conditions": {"networks": ["10.0.0.0/8"]}},
        "local": {"conditions": {"networks": ["127.0.0.0/8"]}},
        "sam": {
            "owner": "sam",
            "scopes": [_scope("group:bakery", "job:read", "job:run", "pipeline:read")],
        },
        "gone": {},
    }
    with dev.client(str(dev.ready["admin_token"])) as http:
        for name, changes in wanted.items():
            body = {
                "name": name,
                "owner": "dana",
                "catalog": "gitlab",
                "scopes": [_scope("group:bakery/shop", "job:read")],
            }
            answer = http.post("/v1/tokens", json=body | dict(changes))
            assert answer.status_code == 201, answer.text
            found[name] = answer.json()["secret"]
        assert http.delete(f"/v1/tokens/{answer.json()['id']}", params={"wait": "true"}).is_success
    found["unknown"] = found["dana"][:-1] + ("0" if found["dana"][-1] != "0" else "1")
    return found


def _scope(node: str, *permissions: str) -> dict[str, Any]:
    return {"reach": {"kind": "selected", "nodes": [node]}, "permissions": permissions}


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.name)
def gateway(
    request: pytest.FixtureRequest, stand: Stand, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    kind: Kind = request.param
    require(kind)
    places = replace(stand.places, listen=free_port())
    with running(kind, tmp_path_factory.mktemp(kind.name), places) as found:
        yield found


@dataclass(frozen=True)
class Case:
    """One request. `wanted` are the statuses that are right; only a 200 may have reached the API."""

    name: str
    method: str
    path: str
    wanted: str
    token: str | None = "dana"
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


REFUSED = "400 401 403 404"
"""What is odd may be refused by the gateway itself, in its own way."""
FORGED = (
    "x-forwarded-uri",
    "x-original-uri",
    "x-original-url",
    "x-authz-resource",
    "x-authz-catalog",
    "x-authz-target",
)
VARIANTS = (
    "x_forwarded_uri",
    "X-Original_URI",
    "x_original_method",
    "X_Authz_Owner",
    "x-authz_token_id",
    "X_AUTHZ_GATEWAY",
)

CASES = [
    Case("allowed", "GET", JOBS, "200"),
    Case("allowed with a query", "GET", f"{JOBS}?scope=failed&x=..%2f", "200"),
    Case("allowed without a body", "HEAD", JOBS, "200"),
    Case("allowed by the id", "GET", "/api/v4/projects/110/jobs", "200"),
    Case("allowed with a body", "POST", RETRY, "200", token="sam", body=b'{"a": 1}'),
    Case("no token", "GET", JOBS, "401", token=None),
    Case("nonsense for a token", "GET", JOBS, "401", token="nonsense"),
    Case("a token that is none", "GET", JOBS, "401", token="unknown"),
    Case("a token that was revoked", "GET", JOBS, "401", token="gone"),
    Case("a permission that is missing", "POST", RETRY, "403", body=b'{"a": 1}'),
    Case("a place out of reach", "GET", "/api/v4/projects/bakery%2Fwebsite/jobs", "403"),
    Case("a hidden place", "GET", HIDDEN, "403"),
    Case("an unknown place", "GET", UNKNOWN, "403"),
    Case("an operation in no table", "GET", "/api/v4/nothing", "403"),
    Case("another network", "GET", JOBS, "401", token="bound"),
    Case("this network", "GET", JOBS, "200", token="local"),
    *(
        Case(f"another network, forged in {name}", "GET", JOBS, "401", token="bound", headers=((name, "10.1.1.1"),))
        for name in ("X-Forwarded-For", "X-Real-IP", "Forwarded")
    ),
    *(Case(f"a forged {name}", "POST", RETRY, REFUSED, headers=((name, JOBS),)) for name in FORGED),
    *(
        Case(f"a forged {name}", "POST", RETRY, REFUSED, headers=((name, "GET"),))
        for name in ("X-Forwarded-Method", "X-Original-Method")
    ),
    *(Case(f"{name}, spelt oddly", "POST", RETRY, REFUSED, headers=((name, JOBS),)) for name in VARIANTS),
    Case(
        "constants of the client's",
        "POST",
        RETRY,
        REFUSED,
        headers=(
            ("X-Authz-Catalog", "gitlab"),
            ("X-Authz-Resource", "job"),
            ("X-Authz-Action", "read"),
            ("X-Authz-Target", "bakery/shop/checkout"),
        ),
    ),
    Case("a gateway's token of the client's", "POST", RETRY, REFUSED, headers=(("X-Authz-Gateway", "x"),)),
    Case(
        "headers to be dropped on the way",
        "POST",
        RETRY,
        REFUSED,
        headers=(
            ("Connection", "X-Forwarded-Uri, X-Original-URI, X-Forwarded-Method, X-Original-Method, X-Authz-Gateway"),
            ("X-Forwarded-Uri", JOBS),
            ("X-Original-URI", JOBS),
        ),
    ),
    Case(
        "two tokens, the good one last", "GET", JOBS, REFUSED, token="nonsense", headers=(("Authorization", "{dana}"),)
    ),
    Case("two tokens, the good one first", "GET", JOBS, REFUSED, headers=(("Authorization", "Bearer nonsense"),)),
    Case("the same token twice", "GET", JOBS, REFUSED, headers=(("Authorization", "{dana}"),)),
    Case("another method in the query", "POST", f"{RETRY}?_method=DELETE", REFUSED, token="sam"),
    Case("a token in the URL", "GET", f"{JOBS}?private_token={{dana}}", REFUSED, token=None),
    Case("a token in the URL beside a good one", "GET", f"{JOBS}?private_token={{dana}}", REFUSED),
    *(
        Case(f"the path {path}", "GET", path, REFUSED)
        for path in (
            f"/{JOBS}",
            "/api/v4/../v4/projects/110/jobs",
            "/api/v4/%2e%2e/v4/projects/110/jobs",
            "/api/v4/./projects/110/jobs",
            "/api/v4/projects/111/..%2f110/jobs",
            "/api/v4/projects/recipes%2Fsourdough/../110/jobs",
            "/api/v4/projects/110//jobs",
            "/api/v4/projects/110/jobs/",
            "/api/v4/projects/110/jobs;x=1",
            "/api/v4/projects/110%00/jobs",
            "/api/v4/projects/110%5cjobs",
            "/api/v4\\projects\\110\\jobs",
            "/api/v4/projects/bakery%252Fshop%252Fcheckout/jobs",
            "/API/v4/projects/110/jobs",
            "/api%2Fv4/projects/110/jobs",
            "/api/v4/projects/110/%6aobs",
            "/api/v4/projects/110/jobs%ff",
            "/api/v4/projects/110/jobs#/",
            "api/v4/projects/110/jobs",
            "*",
        )
    ),
    *(
        Case(f"the method {method}", method, JOBS, f"{REFUSED} 405 501")
        for method in ("BREW", "get", "TRACE", "CONNECT")
    ),
]


def send(stand: Stand, gateway: Gateway, case: Case) -> Answer:
    def fill(text: str) -> str:
        return text.replace("{dana}", stand.secrets["dana"])

    headers = [] if case.token is None else [("Authorization", f"Bearer {stand.secrets[case.token]}")]
    for name, value in case.headers:
        headers.append((name, f"Bearer {fill(value)}" if name == "Authorization" and "{" in value else fill(value)))
    with gateway.client() as client:
        return client.send(case.method, fill(case.path), headers, case.body)


def test_every_case_of_the_table_ends_as_it_should(stand, gateway):
    wrong = []
    for case in CASES:
        stand.api.seen.clear()
        answer = send(stand, gateway, case)
        reached = [(seen.method, seen.path) for seen in stand.api.seen]
        right = reached == [(case.method, case.path)] if case.wanted == "200" else not reached
        # A gateway may close the connection without a word, and answer by itself what is no request.
        polite = str(answer.status) in case.wanted.split() or (case.wanted != "200" and answer.status == 0)
        if not right or not (polite or (case.path == "*" and not reached)):
            wrong.append((case.name, answer.status, reached))
    assert not wrong


def test_the_api_sees_who_it_was_and_never_the_token(stand, gateway):
    forged = [
        ("X-Authz-Owner", "root"),
        ("X-Authz-Token-Id", "tok_x"),
        ("X-Authz-Permission", "all"),
        ("X-Authz-Owner", "admin"),
    ]
    for headers in ([], forged):
        stand.api.seen.clear()
        with gateway.client() as client:
            answer = client.send("GET", JOBS, [("Authorization", f"Bearer {stand.secrets['dana']}"), *headers])
        assert answer.status == 200
        [seen] = stand.api.seen
        assert seen.values("x-authz-owner") == ["dana"]
        assert seen.values("x-authz-permission") == ["job:read"]
        [token_id] = seen.values("x-authz-token-id")
        assert token_id.startswith("tok_")
        everything = json.dumps(seen.headers)
        assert stand.secrets["dana"] not in everything
        assert stand.places.token not in everything


def test_a_name_that_is_spelt_oddly_does_not_reach_the_api(stand, gateway):
    for name in ("X_Authz_Owner", "x-authz_owner", "X_AUTHZ-OWNER", "X_Authz_Permission", "X_Authz_Token_Id"):
        stand.api.seen.clear()
        with gateway.client() as client:
            answer = client.send("GET", JOBS, [("Authorization", f"Bearer {stand.secrets['dana']}"), (name, "root")])
        assert (answer.status == 200) is bool(stand.api.seen)
        for seen in stand.api.seen:
            assert "root" not in seen.values(name), name


def test_the_client_learns_what_is_missing_and_of_hidden_places_nothing(stand, gateway):
    answer = send(stand, gateway, Case("", "POST", RETRY, ""))
    challenge = answer.headers["www-authenticate"]
    assert challenge.startswith('Bearer error="insufficient_scope"')
    assert 'scope="job:run"' in challenge
    assert "`job:run` on `project:bakery/shop/checkout`" in challenge
    told = [
        send(stand, gateway, Case("", "GET", path, ""))
        for path in (HIDDEN, UNKNOWN, HIDDEN.replace("jobs", "pipelines"))
    ]
    varying = {"date", "x-request-id", "x-envoy-upstream-service-time"}
    shown = {
        (one.status, one.body, tuple(sorted((k, v) for k, v in one.headers.items() if k not in varying)))
        for one in told
    }
    assert len(shown) == 1
    no_token = send(stand, gateway, Case("", "GET", JOBS, "", token=None))
    assert no_token.headers["www-authenticate"] == "Bearer"
    assert (
        send(stand, gateway, Case("", "GET", JOBS, "", token="gone")).headers["www-authenticate"]
        == 'Bearer error="invalid_token"'
    )


def test_a_request_hidden_in_another_does_not_get_through(stand, gateway):
    secret = stand.secrets["dana"]
    inner = f"POST {RETRY} HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {secret}\r\nContent-Length: 0\r\n\r\n"
    start = f"POST {JOBS} HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {secret}\r\n".replace("POST", "GET")
    tricks = [
        f"{start}Content-Length: {5 + len(inner)}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{inner}",
        f"{start}Content-Length: 0\r\nContent-Length: {len(inner)}\r\n\r\n{inner}",
        f"{start}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n{inner}",
        f"{start}Transfer-Encoding : chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{inner}",
        f"{start}X-Original-URI: a\r\n b\r\nX-Forwarded-Uri: a\r\n\tb\r\n\r\n{inner}",
        f"{start}X-Forwarded-Uri: {JOBS}\x00\r\n\r\n",
        f"{start}Authorization\x00: Bearer x\r\n\r\n",
        f"{start}\r\n{inner}",
        f"{inner.replace('Content-Length: 0', 'Content-Length: 0' + chr(10) + 'X-Forwarded-Uri: ' + JOBS)}",
    ]
    for trick in tricks:
        stand.api.seen.clear()
        with gateway.client() as client:
            client.send_raw(trick.encode("latin-1"), seconds=1)
            client.send_raw(b"", seconds=0.3)  # what a second answer would be
        assert not [seen for seen in stand.api.seen if seen.path == RETRY], trick


OTHER_WORDS = (
    ("X-HTTP-Method-Override", "DELETE"),
    ("X-HTTP-Method", "DELETE"),
    ("X-Method-Override", "DELETE"),
    ("X-Original-URL", "/api/v4/admin"),
    ("X-Rewrite-URL", "/api/v4/admin"),
    ("PRIVATE-TOKEN", "other"),
    ("JOB-TOKEN", "other"),
    ("DEPLOY-TOKEN", "other"),
)
"""Another method, path or token than those that are judged, as frameworks and APIs read them."""


def test_the_api_reads_no_other_method_path_or_token_than_what_was_judged(stand, gateway):
    for name, value in OTHER_WORDS:
        for spelt in (name, name.replace("-", "_"), name.lower().replace("-", "_", 1)):
            stand.api.seen.clear()
            with gateway.client() as client:
                sent = [("Authorization", f"Bearer {stand.secrets['sam']}"), (spelt, value)]
                answer = client.send("POST", RETRY, sent, b"{}")
            assert answer.status in (200, 400, 403), spelt
            assert (answer.status == 200) is bool(stand.api.seen), spelt
            for seen in stand.api.seen:
                assert not seen.values(name), spelt


UPGRADES = {
    "websocket": (
        "Connection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    ),
    "h2c": ("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"),
    "another": "Connection: upgrade\r\nUpgrade: x\r\n",
}


@pytest.mark.parametrize("path", [JOBS, "/api/graphql?query=%7B__typename%7D"], ids=["rest", "graphql"])
def test_an_allowed_request_opens_no_way_for_what_nobody_asked_about(stand, gateway, path):
    for name, headers in UPGRADES.items():
        stand.api.seen.clear()
        stand.api.tunnelled.clear()
        start = f"GET {path} HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {stand.secrets['dana']}\r\n"
        with gateway.client() as client:
            answer = client.send_raw(f"{start}{headers}\r\n".encode())
            client.send_raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", seconds=2)
        assert answer.status in (200, 400, 403), name
        assert not stand.api.tunnelled, name
        for seen in stand.api.seen:
            assert not seen.values("upgrade"), name
            assert not seen.values("http2-settings"), name


def test_no_client_takes_away_who_it_was(stand, gateway):
    names = ("X-Authz-Owner", "X-Authz-Token-Id", "X-Authz-Permission")
    for listed in (", ".join(names), "close, x-authz-owner", "X-Authz-Owner, Upgrade"):
        stand.api.seen.clear()
        with gateway.client() as client:
            sent = [("Authorization", f"Bearer {stand.secrets['dana']}"), ("Connection", listed)]
            answer = client.send("GET", JOBS, sent)
        assert (answer.status == 200) is bool(stand.api.seen), listed
        for seen in stand.api.seen:
            assert [len(seen.values(name)) for name in names] == [1, 1, 1], listed


PROJECTS = (
    "bakery%2Fshop%2Fcheckout",
    "110",
    "111",
    "bakery%2Fwebsite",
    "bakery%2Fovens",
    "recipes%2Fsourdough",
    "4711",
    "dana%2Fnotes",
)
TAILS = (
    "/jobs",
    "/jobs/7",
    "/jobs/7/trace",
    "/jobs/7/retry",
    "/pipelines",
    "/pipelines/3",
    "/issues",
    "/issues/1",
    "/members",
    "",
    "/x",
)


@pytest.fixture(scope="module")
def requests(stand: Stand) -> list[tuple[str, str, str, str]]:
    """A thousand different requests: whose token, method, path, and what the service itself says to it."""
    every = list(
        itertools.product(
            ("dana", "sam", "gone", "unknown", "dana", "sam"), ("GET", "POST", "PUT", "DELETE"), PROJECTS, TAILS
        )
    )
    found = []
    for name, method, project, tail in random.Random(7).sample(every, REQUESTS):
        path = f"/api/v4/projects/{project}{tail}"
        found.append((name, method, path, stand.check(stand.secrets[name], method, path)))
    assert len({wanted for *_, wanted in found}) == 3
    return found


def test_a_thousand_requests_over_kept_connections_are_answered_as_the_check_answers_them(stand, gateway, requests):
    stand.api.seen.clear()
    wrong = []
    with gateway.client() as client:
        for name, method, path, wanted in requests:
            answer = client.send(method, path, [("Authorization", f"Bearer {stand.secrets[name]}")])
            if str(answer.status) != wanted:
                wrong.append((name, method, path, wanted, answer.status))
        assert not wrong
        assert client.connections <= 3
    assert len(stand.api.seen) == sum(wanted == "200" for *_, wanted in requests)


@pytest.mark.parametrize("trouble", [REFUSE, HOLE], ids=["down", "slow"])
def test_without_the_service_nothing_passes_and_afterwards_all_is_well(stand, gateway, trouble):
    allowed = Case("", "GET", JOBS, "")
    assert send(stand, gateway, allowed).status == 200
    stand.api.seen.clear()
    for link in ("http", "grpc"):
        stand.proxies.set(link, trouble)
    try:
        for case in (allowed, Case("", "POST", RETRY, "", token="sam")):
            started = time.monotonic()
            assert send(stand, gateway, case).status in (500, 502, 503, 504)
            assert time.monotonic() - started < 15
        assert not stand.api.seen
    finally:
        for link in ("http", "grpc"):
            stand.proxies.heal(link)
            stand.proxies.cut(link)
    end = time.monotonic() + 20
    while send(stand, gateway, allowed).status != 200:
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_newcomer_copies_one_file_and_nginx_asks_the_demo(stand, tmp_path):
    require(NGINX)
    till = json.loads((stand.dev.folder / "data" / "tokens.json").read_text())["orders"]
    places = Places(free_port(), pdp=int(stand.dev.url.rpartition(":")[2]), api=stand.api.port)
    with (
        running(NGINX, tmp_path, places) as gateway,
        httpx.Client(base_url=f"http://127.0.0.1:{places.listen}", trust_env=False) as http,
    ):
        bearer = {"Authorization": f"Bearer {till}"}
        assert http.get("/api/shops/corner-shop/orders", headers=bearer).status_code == 200
        assert http.get("/api/shops/other-shop/orders", headers=bearer).status_code == 403
        assert http.delete("/api/shops/corner-shop/orders/1", headers=bearer).status_code == 403
        assert http.get("/api/shops/corner-shop/orders").status_code == 401
        assert gateway.kind is NGINX
