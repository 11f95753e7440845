"""What docs/gateways shows for pages of other origins, put into the samples before real gateways."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support.docs_pages import blocks
from tests.support.gateways import (
    CADDY,
    ENVOY,
    ENVOY_GRPC,
    HAPROXY,
    KINDS,
    NGINX,
    Gateway,
    Kind,
    Places,
    Upstream,
    free_port,
    require,
    running,
    upstream,
)
from tests.support.processes import dev_service

_ENVOY = ("envoy.yaml", 'domains: ["*"]\n', "http_filters:\n")
MARKS: Mapping[str, Sequence[str]] = {
    NGINX.name: ("api.conf", 'map "" $authz_gateway {\n', "location / {\n"),
    CADDY.name: ("Caddyfile", "\troute {\n"),
    HAPROXY.name: ("haproxy.cfg", "frontend clients\n"),
    ENVOY.name: _ENVOY,
    ENVOY_GRPC.name: _ENVOY,
}
"""The file that is changed, and the line behind which each block goes; nginx's map goes before its line."""

JOBS = "/api/v4/projects/bakery%2Fshop%2Fcheckout/jobs"
ORIGIN = ("Origin", "https://app.example")
PREFLIGHT = ("Access-Control-Request-Method", "GET")


def with_stanzas(kind: Kind) -> Kind:
    """The sample as its page says to change it."""

    def write(folder: Path, places: Places) -> Sequence[str]:
        command = kind.write(folder, places)
        name, *marks = MARKS[kind.name]
        page = f"docs/gateways/{kind.name.partition('-')[0]}.md"
        shown = [block.text for block in blocks(page) if "preflight" in block.text or "filters.http.cors" in block.text]
        assert len(shown) == len(marks)
        file = folder / name
        text = file.read_text()
        for mark, stanza in zip(marks, shown, strict=True):
            assert text.count(mark) == 1, mark
            lines = stanza.rstrip("\n") + "\n"
            text = text.replace(mark, lines + mark if mark.startswith("map") else mark + lines)
        file.write_text(text)
        return command

    return Kind(f"{kind.name}-preflight", kind.missing, write)


@dataclass
class Stand:
    """An API behind a gateway that answers preflights, and a token that may read jobs."""

    gateway: Gateway
    api: Upstream
    secret: str

    def send(self, method: str, *headers: tuple[str, str]) -> tuple[int, str | None]:
        """The status, and whose pages may ask."""
        with self.gateway.client() as client:
            answer = client.send(method, JOBS, headers)
        return answer.status, answer.headers.get("access-control-allow-origin")


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Places, Upstream, str]]:
    port = free_port()
    with (
        dev_service(tmp_path_factory.mktemp("dev"), env={"AUTHZ_GRPC_LISTEN": f"127.0.0.1:{port}"}) as dev,
        upstream() as api,
        dev.client(str(dev.ready["admin_token"])) as http,
    ):
        reach = {"kind": "selected", "nodes": ["group:bakery/shop"]}
        scopes = [{"reach": reach, "permissions": ["job:read"]}]
        made = http.post("/v1/tokens", json={"name": "page", "owner": "dana", "catalog": "gitlab", "scopes": scopes})
        assert made.status_code == 201, made.text
        service = int(dev.url.rpartition(":")[2])
        yield (
            Places(0, service, api.port, str(dev.ready["gateway_token"]), "gitlab", port),
            api,
            made.json()["secret"],
        )


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def stand(request: pytest.FixtureRequest, tmp_path: Path, behind: tuple[Places, Upstream, str]) -> Iterator[Stand]:
    require(request.param)
    places, api, secret = behind
    api.seen.clear()
    here = Places(free_port(), places.pdp, places.api, places.token, places.catalog, places.grpc)
    with running(with_stanzas(request.param), tmp_path, here) as gateway:
        yield Stand(gateway, api, secret)


def test_a_preflight_is_answered_by_the_gateway_and_nothing_else_is(stand):
    token = ("Authorization", f"Bearer {stand.secret}")
    for headers in ([ORIGIN, PREFLIGHT], [ORIGIN, PREFLIGHT, token]):
        status, allowed = stand.send("OPTIONS", *headers)
        assert (status in (200, 204), allowed) == (True, "https://app.example")
    assert stand.send("OPTIONS", ORIGIN)[0] == 401
    assert stand.send("OPTIONS", ORIGIN, token)[0] == 403
    for method in ("GET", "POST", "HEAD"):
        assert stand.send(method, ORIGIN, PREFLIGHT)[0] == 401
    assert stand.send("options", ORIGIN, PREFLIGHT)[0] in (0, 400, 401, 403, 405)
    assert not stand.api.seen
    assert stand.send("GET", ORIGIN, PREFLIGHT, token)[0] == 200
    assert [seen.method for seen in stand.api.seen] == ["GET"]
