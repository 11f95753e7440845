"""GraphQL through a real Envoy that passes bodies on, over HTTP and over gRPC."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.support.gateways import ENVOY, ENVOY_GRPC, Kind, Places, Upstream, free_port, require, running, upstream
from tests.support.processes import dev_service

BODIES = """\
                      with_request_body:
                        max_request_bytes: 65536
                        allow_partial_message: false
                        pack_as_bytes: true
"""
HEADERS = """\
                          - {exact: content-type}
                          - {exact: content-encoding}
                          - {exact: x-envoy-auth-partial-body}
"""
PATH = "/api/graphql"


def with_bodies(kind: Kind) -> Kind:
    """The sample as docs/graphql.md says to change it."""

    def write(folder: Path, places: Places) -> Sequence[str]:
        command = kind.write(folder, places)
        file = folder / "envoy.yaml"
        text = file.read_text()
        mark = "                      failure_mode_allow: false\n"
        assert mark in text
        text = text.replace(mark, mark + BODIES)
        address = "                          - {exact: x-real-ip}\n"
        if address in text:
            text = text.replace(address, address + HEADERS)
        file.write_text(text)
        return command

    return Kind(f"{kind.name}-bodies", kind.missing, write)


@dataclass
class Stand:
    """An API behind an Envoy, and a token that may retry jobs of one project."""

    client: httpx.Client
    api: Upstream
    secret: str

    def send(self, body: Any, **headers: str) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"Content-Type": "application/json", "Authorization": f"Bearer {self.secret}"} | headers
        return self.client.post(PATH, content=content, headers=sent)


@pytest.fixture(scope="module", params=[ENVOY, ENVOY_GRPC], ids=lambda kind: kind.name)
def stand(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    require(request.param)
    folder = tmp_path_factory.mktemp(request.param.name)
    port = free_port()
    env = {"AUTHZ_GRPC_LISTEN": f"127.0.0.1:{port}"}
    with dev_service(tmp_path_factory.mktemp("dev"), env=env) as dev, upstream() as api:
        places = Places(
            free_port(),
            pdp=int(dev.url.rpartition(":")[2]),
            api=api.port,
            token=str(dev.ready["gateway_token"]),
            catalog="gitlab",
            grpc=port,
        )
        with dev.client(str(dev.ready["admin_token"])) as http:
            reach = {"kind": "selected", "nodes": ["project:bakery/shop/checkout"]}
            scopes = [{"reach": reach, "permissions": ["pipeline:create"]}]
            asked = {"name": "graphql", "owner": "dana", "catalog": "gitlab", "scopes": scopes}
            made = http.post("/v1/tokens", json=asked)
            assert made.status_code == 201, made.text
        with (
            running(with_bodies(request.param), folder / "envoy", places) as gateway,
            httpx.Client(base_url=f"http://127.0.0.1:{gateway.places.listen}", timeout=10) as client,
        ):
            yield Stand(client, api, made.json()["secret"])


def create(path: str) -> str:
    return f'mutation {{ pipelineCreate(input: {{projectPath: "{path}", ref: "main"}}) {{ errors }} }}'


def test_a_document_reaches_the_api_as_it_was_sent(stand):
    body = {"query": create("bakery/shop/checkout"), "variables": {}}
    answer = stand.send(body)
    assert answer.status_code == 200, answer.text
    seen = stand.api.seen[-1]
    assert (seen.method, seen.path, json.loads(seen.body)) == ("POST", PATH, body)
    assert ("x-authz-permission", "pipeline:create") in [(name.lower(), value) for name, value in seen.headers]


def test_a_document_of_another_place_does_not(stand):
    before = len(stand.api.seen)
    good, bad = {"query": create("bakery/shop/checkout")}, {"query": create("bakery/shop/website")}
    for body in (bad, [good, bad], {"query": create("bakery")}, {"query": "{ project { name } }"}):
        answer = stand.send(body)
        assert answer.status_code == 403, answer.text
    assert len(stand.api.seen) == before


def test_what_cannot_be_read_in_one_way_does_not_either(stand):
    before = len(stand.api.seen)
    good = json.dumps({"query": create("bakery/shop/checkout")})
    for answer in (
        stand.send(b""),
        stand.send(b"{"),
        stand.send(good.replace("{", '{"query": "{ a }", ', 1).encode()),
        stand.send(good.encode(), **{"Content-Type": "text/plain"}),
        stand.send(good.encode(), **{"Content-Encoding": "gzip"}),
    ):
        assert answer.status_code == 403, answer.text
        assert answer.json()["reason"] == "bad_document"
    assert stand.send((good + " " * 70_000).encode()).status_code == 413
    assert len(stand.api.seen) == before


def test_a_get_says_all_in_its_url_or_does_not_pass(stand):
    before = len(stand.api.seen)
    headers = {"Authorization": f"Bearer {stand.secret}", "Content-Type": "application/json"}
    url = f"{PATH}?query=%7B__typename%7D"
    for content in (b"{}", b'{"variables": {}}', b" "):
        answer = stand.client.request("GET", url, content=content, headers=headers)
        assert (answer.status_code, answer.json()["reason"]) == (403, "bad_document"), content
    left = f"{PATH}?query=query(%24a:ID%3D1)%7B__typename%7D"
    assert stand.client.get(left, headers=headers).status_code == 403
    assert len(stand.api.seen) == before
    for whole in (url, f"{left}&variables=%7B%22a%22:2%7D"):
        assert stand.client.get(whole, headers=headers).status_code == 200, whole
