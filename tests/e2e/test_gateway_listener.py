"""A gateway that is known by its own listener, or by its certificate, over HTTP and gRPC, with several workers."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from envoy.service.auth.v3 import external_auth_pb2, external_auth_pb2_grpc
from tests.support.gateways import free_port
from tests.support.processes import run, started
from tests.support.serving import PEPPER

ORDERS = Path(__file__).parents[2] / "examples" / "orders" / "catalog.yaml"
PATH = "/api/shops/corner-shop/orders"


class Issuer:
    """A certificate authority of a test's own."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = self._sign(name, self._key, authority=True)
        self.path = self._write(f"{name}.pem", self._certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str) -> tuple[Path, Path]:
        """A certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        text = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        certificate = self._sign(name, key, authority=False).public_bytes(serialization.Encoding.PEM)
        return self._write(f"{name}.pem", certificate), self._write(f"{name}.key", text)

    def _sign(self, name: str, key: ec.EllipticCurvePrivateKey, *, authority: bool) -> x509.Certificate:
        now = datetime.now(UTC)
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self._name)])
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
            .sign(self._key, hashes.SHA256())
        )

    def _write(self, name: str, text: bytes) -> Path:
        path = self._folder / name
        path.write_bytes(text)
        return path


class Ready:
    """A database with a catalog, a gateway's token in a file, and a token that reads the orders of one shop."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self.folder = folder
        self.env = {"AUTHZ_DATABASE_URL": database_url, "AUTHZ_PEPPERS": f"t1:{PEPPER}", "AUTHZ_PORT": "0"}
        self.secrets: dict[str, str] = {}
        admin = run("bootstrap", env=self.env).stdout.strip()
        with self.serve() as url, httpx.Client(base_url=url, trust_env=False, headers=_bearer(admin)) as http:
            done = http.post("/v1/catalogs", content=ORDERS.read_bytes(), headers={"Content-Type": "application/yaml"})
            assert done.is_success, done.text
            self._issue(
                http,
                "gateway",
                owner="admin",
                catalog="authz",
                evaluates=["orders"],
                scopes=[
                    {"reach": {"kind": "instance"}, "permissions": ["decision:evaluate"]},
                ],
            )
            self._issue(
                http,
                "till",
                owner="till-1",
                catalog="orders",
                scopes=[
                    {"reach": {"kind": "selected", "nodes": ["project:corner-shop"]}, "permissions": ["order:read"]},
                ],
            )
        self.token_file = folder / "gateway-token"
        self.token_file.write_text(self.secrets["gateway"])

    def _issue(self, http: httpx.Client, name: str, **body: Any) -> None:
        answer = http.post("/v1/tokens", json={"name": name, **body})
        assert answer.status_code == 201, answer.text
        self.secrets[name] = answer.json()["secret"]

    @contextmanager
    def serve(self, **settings: object) -> Iterator[str]:
        log = self.folder / "log.jsonl"
        env = (
            self.env | {f"AUTHZ_{name.upper()}": str(value) for name, value in settings.items()} | {"AUTHZ_DRAIN": "0"}
        )
        with started("serve", env=env, output=log) as running:
            running.wait_until(lambda: '"answering"' in running.printed)
            [url] = re.findall(r'"url": "(http[^"]+)"', running.printed)
            yield url


def _bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory, make_database: Callable[..., str]) -> Ready:
    return Ready(tmp_path_factory.mktemp("listener"), make_database())


def question(ready: Ready, method: str = "GET", path: str = PATH) -> Mapping[str, str]:
    return _bearer(ready.secrets["till"]) | {"X-Original-Method": method, "X-Original-URI": path}


@pytest.mark.parametrize("workers", ["1", "2"])
def test_whoever_reaches_the_gateways_own_listener_is_that_gateway_and_finds_nothing_else(ready, workers):
    port = free_port()
    settings = {"gateway_listen": f"127.0.0.1:{port}", "gateway_token_file": ready.token_file, "workers": workers}
    with ready.serve(**settings) as url:
        for _ in range(8):  # each worker answers at both
            own = httpx.get(
                f"http://127.0.0.1:{port}/gateway/forward/x-original", headers=question(ready), trust_env=False
            )
            assert own.status_code == 200, own.text
            assert own.headers["x-authz-owner"] == "till-1"
            other = httpx.get(f"{url}/gateway/forward/x-original", headers=question(ready), trust_env=False)
            assert other.status_code == 403
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:
            for path in ("/livez", "/metrics", "/check", "/v1/tokens", "/gateway/../livez", "/docs"):
                assert http.get(path, headers=_bearer(ready.secrets["gateway"])).status_code in (403, 404), path
            denied = http.get("/gateway/forward/x-original", headers=question(ready, "DELETE", f"{PATH}/1"))
            assert denied.status_code == 403
            twice = {"X-Authz-Gateway": ready.secrets["gateway"]}
            assert http.get("/gateway/forward/x-original", headers={**question(ready), **twice}).status_code == 403


def test_a_unix_socket_is_a_listener_too(ready):
    path = ready.folder / "gateway.sock"
    transport = httpx.HTTPTransport(uds=str(path))
    with (
        ready.serve(gateway_listen=f"unix:{path}", gateway_token_file=ready.token_file),
        httpx.Client(transport=transport, base_url="http://authz") as http,
    ):
        assert http.get("/gateway/forward/x-original", headers=question(ready)).status_code == 200


def test_a_certificate_of_the_right_authority_is_asked_for(ready):
    ours, others = Issuer(ready.folder, "ours"), Issuer(ready.folder, "others")
    server, good, bad = ours.issue("server"), ours.issue("gateway"), others.issue("stranger")
    http_port, grpc_port = free_port(), free_port()
    settings = {
        "gateway_listen": f"0.0.0.0:{http_port}",
        "grpc_listen": f"0.0.0.0:{grpc_port}",
        "gateway_token_file": ready.token_file,
        "gateway_cert_file": server[0],
        "gateway_key_file": server[1],
        "gateway_client_ca_file": ours.path,
    }
    with ready.serve(**settings):
        for pair, wanted in ((good, 200), (bad, None), (None, None)):
            context = ssl.create_default_context(cafile=str(ours.path))
            if pair is not None:
                context.load_cert_chain(*map(str, pair))
            url = f"https://127.0.0.1:{http_port}/gateway/forward/x-original"
            try:
                found = httpx.get(url, headers=question(ready), verify=context, trust_env=False).status_code
            except httpx.TransportError:
                found = None
            assert found == wanted
            key, chain = (None, None) if pair is None else (pair[1].read_bytes(), pair[0].read_bytes())
            credentials = grpc.ssl_channel_credentials(ours.path.read_bytes(), key, chain)
            with grpc.secure_channel(f"127.0.0.1:{grpc_port}", credentials) as channel:
                assert ask(channel, ready) == wanted


def ask(channel: grpc.Channel, ready: Ready, *, metadata: tuple[tuple[str, str], ...] = (), **more: Any) -> int | None:
    """The status that Envoy would give; None when the service did not answer."""
    request = external_auth_pb2.CheckRequest()
    http = request.attributes.request.http
    http.method, http.path = more.get("method", "GET"), more.get("path", PATH)
    http.headers["authorization"] = f"Bearer {ready.secrets['till']}"
    for name, value in more.get("extensions", {}).items():
        request.attributes.context_extensions[name] = value
    for name, value in more.get("headers", {}).items():
        http.headers[name] = value
    try:
        answer = external_auth_pb2_grpc.AuthorizationStub(channel).Check(request, timeout=3, metadata=metadata)
    except grpc.RpcError:
        return None
    if answer.status.code == 0:
        assert list(answer.ok_response.headers_to_remove) == ["authorization"]
        return 200
    return int(answer.denied_response.status.code)


def test_over_grpc_the_gateway_and_its_constants_are_told_by_the_gateway_alone(ready):
    port = free_port()
    with ready.serve(grpc_listen=f"127.0.0.1:{port}"), grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        mine = (("x-authz-gateway", ready.secrets["gateway"]),)
        assert ask(channel, ready, metadata=mine) == 200
        assert ask(channel, ready) == 403
        assert ask(channel, ready, headers={"x-authz-gateway": ready.secrets["gateway"]}) == 403
        assert ask(channel, ready, metadata=mine, method="DELETE", path=f"{PATH}/1") == 403
        forged = {"x-authz-resource": "order", "x-authz-action": "read", "x-authz-target": "project:corner-shop"}
        assert ask(channel, ready, metadata=mine, method="DELETE", path=f"{PATH}/1", headers=forged) == 403
        constants = {"resource": "order", "action": "read", "target": "project:corner-shop"}
        assert ask(channel, ready, metadata=mine, method="DELETE", path="/x", extensions=constants) == 200
        assert ask(channel, ready, metadata=mine, extensions=constants | {"action": "cancel"}) == 403
        assert ask(channel, ready, metadata=mine, extensions={"catalog": "gitlab"}) == 403
        assert ask(channel, ready, metadata=(*mine, ("x-authz-catalog", "orders"))) == 200
        assert ask(channel, ready, metadata=mine, headers={"authorization": "Bearer a,Bearer b"}) == 401
        assert ask(channel, ready, metadata=mine, method="", path="") == 403


def test_a_port_that_is_taken_is_said_before_anything_else_starts(ready):
    env = ready.env | {"AUTHZ_GATEWAY_TOKEN_FILE": str(ready.token_file)}
    with ready.serve() as url:
        done = run("serve", env=env | {"AUTHZ_GATEWAY_LISTEN": url.removeprefix("http://")})
    assert done.returncode == 1
    assert "something else listens" in done.stderr
