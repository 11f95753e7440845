"""Surfaces at addresses of their own and TLS, as processes: what answers where, whom, and the same bytes everywhere."""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from tests.support.authorities import Authority
from tests.support.gateways import free_port
from tests.support.processes import run, started
from tests.support.serving import PEPPER, bearer

_ANSWERING = re.compile(r'"url": "(http[^"]+)".*"answering"|"answering".*"url": "(http[^"]+)"')
SURFACES = ("manage", "decide", "forward", "monitor")
PATHS = {
    "manage": ("/v1/self", "/v1/tokens", "/console/", "/openapi.json", "/oauth/revoke"),
    "decide": ("/check", "/check/http", "/check/batch", "/access/v1/evaluation", "/oauth/introspect"),
    "forward": ("/gateway/forward/x-original", "/gateway/envoy/x"),
    "monitor": ("/livez", "/readyz", "/metrics"),
}


class Place:
    """A database with an admin, and the service in front of it, started as a test asks."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self.folder = folder
        self.env = {"AUTHZ_DATABASE_URL": database_url, "AUTHZ_PEPPERS": f"t1:{PEPPER}", "AUTHZ_PORT": "0"}
        self.env |= {"AUTHZ_DRAIN": "0", "AUTHZ_PUBLIC_URL": "https://authz.example.com"}
        self.admin = run("bootstrap", env=self.env).stdout.strip()
        assert self.admin.startswith("azt_")
        self.asker = ""

    @contextmanager
    def serve(self, **settings: object) -> Iterator[str]:
        given = {f"AUTHZ_{name.upper()}": str(value) for name, value in settings.items()}
        with started("serve", env=self.env | given, output=self.folder / "log.jsonl") as running:
            running.wait_until(lambda: _ANSWERING.search(running.printed))
            found = _ANSWERING.search(running.printed)
            assert found is not None
            yield next(one for one in found.groups() if one)

    def question(self) -> bytes:
        """The admin's token may read itself: about a catalog that every installation has."""
        asked = {"token": self.admin, "catalog": "authz", "resource": "token", "action": "read", "target": "instance"}
        return json.dumps(asked, separators=(",", ":")).encode()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, make_database: Callable[..., str]) -> Place:
    place = Place(tmp_path_factory.mktemp("listeners"), make_database())
    asker = {
        "name": "asker",
        "catalog": "authz",
        "evaluates": ["*"],
        "scopes": [{"reach": {"kind": "instance"}, "permissions": ["decision:evaluate"]}],
    }
    with place.serve() as url:
        made = httpx.post(f"{url}/v1/tokens", json=asker, headers=bearer(place.admin), trust_env=False)
        assert made.status_code == 201, made.text
        place.asker = made.json()["secret"]
    return place


@contextmanager
def clients(main: str, apart: Mapping[str, str]) -> Iterator[dict[str, httpx.Client]]:
    """One for each address, by what listens there; a path of the file system is a Unix socket."""
    found: dict[str, httpx.Client] = {}
    for name, at in {"main": main, **apart}.items():
        if at.startswith("unix:"):
            transport = httpx.HTTPTransport(uds=at.removeprefix("unix:"))
            found[name] = httpx.Client(transport=transport, base_url="http://authz", timeout=30)
        else:
            url = at if at.startswith("http") else f"http://{at}"
            found[name] = httpx.Client(base_url=url, trust_env=False, timeout=30)
    try:
        yield found
    finally:
        for client in found.values():
            client.close()


def as_written(at: str, path: str, secret: str) -> int:
    connection = http.client.HTTPConnection(at, timeout=30)
    try:
        connection.putrequest("GET", path)
        connection.putheader("Authorization", f"Bearer {secret}")
        connection.endheaders()
        return connection.getresponse().status
    finally:
        connection.close()


def is_nothing(answer: httpx.Response) -> bool:
    return answer.status_code == 404 and "there is nothing at this path" in answer.text


@pytest.mark.parametrize("workers", [1, 2])
def test_a_surface_at_an_address_of_its_own_answers_there_alone_and_nothing_else_does(place: Place, workers: int):
    apart = {
        "manage": f"127.0.0.1:{free_port()}",
        "decide": f"unix:{place.folder}/decide-{workers}.sock",
        "monitor": f"127.0.0.1:{free_port()}",
    }
    settings = {f"{surface}_listen": at for surface, at in apart.items()}
    with place.serve(workers=workers, **settings) as url, clients(url, apart) as asked:
        for there, client in asked.items():
            unknown = client.get("/no/such/path", headers=bearer(place.admin))
            assert is_nothing(unknown)
            for surface in SURFACES:
                own = surface == there or (there == "main" and surface == "forward")
                for path in PATHS[surface]:
                    for method in ("GET", "POST", "PUT", "OPTIONS"):
                        answer = client.request(method, path, headers=bearer(place.admin), follow_redirects=False)
                        assert is_nothing(answer) is (not own), (there, method, path)
                        if not own:
                            assert answer.content == unknown.content
                            assert answer.headers.keys() == unknown.headers.keys()
        for at in (url.removeprefix("http://"), apart["monitor"]):
            for odd in (
                "//v1/self",
                "/check/../v1/self",
                "/gateway/../v1/self",
                "/gateway/%2e%2e/v1/self",
                "/%761/self",
            ):
                # As it is written: a client library would tidy it up.
                assert as_written(at, odd, place.admin) in (400, 403, 404, 405), (at, odd)


def test_the_short_way_gives_the_same_bytes_at_every_listener(place: Place):
    socket_path = f"unix:{place.folder}/short.sock"
    decisions = []
    for given in ({}, {"decide_listen": socket_path}, {"manage_listen": socket_path}):
        own = {"decide": socket_path} if "decide_listen" in given else {}
        with place.serve(**given) as url, clients(url, own) as asked:
            client = asked.get("decide", asked["main"])
            found = [
                client.post("/check", content=place.question(), headers={**bearer(place.asker), "X-Request-ID": "same"})
                for _ in range(4)  # the long way teaches the short one
            ]
            assert {answer.status_code for answer in found} == {200}
            assert len({answer.content for answer in found}) == 1
            ours = [{**answer.headers, "date": "", "content-length": ""} for answer in found]
            decisions.append((found[0].json()["decision"], found[0].json()["reason"], ours))
    assert decisions[0][0] == "allow"
    assert all(one == decisions[0] for one in decisions)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_over_tls_nobody_is_answered_in_plain_or_by_an_old_protocol_and_unix_sockets_stay_plain(place: Place):
    authority = Authority(place.folder, "tls")
    certificate, key = authority.issue("server")
    apart = {"monitor": f"127.0.0.1:{free_port()}", "manage": f"unix:{place.folder}/tls-manage.sock"}
    settings = {f"{surface}_listen": at for surface, at in apart.items()}
    with place.serve(tls_cert_file=certificate, tls_key_file=key, **settings) as url, clients(url, apart) as plain:
        assert url.startswith("https://")
        trusted = ssl.create_default_context(cafile=str(authority.path))
        with httpx.Client(base_url=url, verify=trusted, trust_env=False) as client:
            for _ in range(3):
                answer = client.post("/check", content=place.question(), headers=bearer(place.asker))
                assert answer.json()["decision"] == "allow"
        assert httpx.get(f"https://{apart['monitor']}/readyz", verify=trusted, trust_env=False).status_code == 200
        assert plain["manage"].get("/v1/self", headers=bearer(place.admin)).status_code == 200
        for address in (url.replace("https", "http"), f"http://{apart['monitor']}"):
            with pytest.raises(httpx.TransportError):
                httpx.get(f"{address}/livez", trust_env=False)
        assert handshake(url, trusted, at_most=ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
        assert handshake(url, trusted, at_most=ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
        assert handshake(url, trusted, at_most=ssl.TLSVersion.TLSv1_1) is None


def handshake(url: str, context: ssl.SSLContext, *, at_most: ssl.TLSVersion) -> str | None:
    """The protocol that was agreed on; None where there was none."""
    host, port = url.removeprefix("https://").split(":")
    mine = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    mine.load_verify_locations(cadata=context.get_ca_certs(binary_form=True)[0])
    mine.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    mine.maximum_version = at_most
    mine.set_ciphers("ALL:@SECLEVEL=0")
    try:
        with (
            socket.create_connection((host, int(port)), timeout=20) as bare,
            mine.wrap_socket(bare, server_hostname=host) as made,
        ):
            return made.version()
    except (ssl.SSLError, ConnectionError):
        return None


def test_with_an_authority_only_its_clients_are_answered_and_probes_still_are(place: Place):
    ours, others = Authority(place.folder, "clients"), Authority(place.folder, "others")
    certificate, key = ours.issue("mutual-server")
    monitor = f"127.0.0.1:{free_port()}"
    settings = {"tls_cert_file": certificate, "tls_key_file": key, "tls_client_ca_file": ours.path}
    with place.serve(**settings, monitor_listen=monitor) as url:
        for pair, answered in ((ours.issue("friend"), True), (others.issue("stranger"), False), (None, False)):
            context = ssl.create_default_context(cafile=str(ours.path))
            if pair is not None:
                context.load_cert_chain(*map(str, pair))
            with httpx.Client(verify=context, trust_env=False, timeout=30) as client:
                assert client.get(f"https://{monitor}/readyz").status_code == 200
                try:
                    status = client.get(f"{url}/v1/self", headers=bearer(place.admin)).status_code
                except httpx.TransportError:
                    status = None
                assert status == (200 if answered else None)
                if answered:  # a certificate is no token
                    assert client.get(f"{url}/v1/self").status_code == 401


def test_a_certificate_that_cannot_be_read_is_said_once_before_anything_starts(place: Place):
    done = run(
        "serve",
        env=place.env | {"AUTHZ_TLS_CERT_FILE": "/no/cert", "AUTHZ_TLS_KEY_FILE": "/no/key", "AUTHZ_WORKERS": "3"},
    )
    assert done.returncode == 1
    assert done.stderr.count("AUTHZ_TLS_CERT_FILE") == 1
