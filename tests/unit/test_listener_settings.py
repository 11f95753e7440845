"""Settings of listeners and TLS: a start that is half configured is refused, and all that is missing is named."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.support.authorities import Authority

from authz_service.api.surfaces import Surface, surface_of
from authz_service.cli.certificates import read_certificates
from authz_service.config import find_apart, load_settings
from authz_service.errors import StartError

BASE = {
    "AUTHZ_DATABASE_URL": "postgresql://u:p@127.0.0.1/d",
    "AUTHZ_PEPPERS": f"k1:{base64.b64encode(bytes(range(32))).decode()}",
}
CERT, KEY, CA = "AUTHZ_TLS_CERT_FILE", "AUTHZ_TLS_KEY_FILE", "AUTHZ_TLS_CLIENT_CA_FILE"
MANAGE, DECIDE = "AUTHZ_MANAGE_LISTEN", "AUTHZ_DECIDE_LISTEN"
FORWARD, MONITOR = "AUTHZ_FORWARD_LISTEN", "AUTHZ_MONITOR_LISTEN"
G_CERT, G_KEY, G_CA = "AUTHZ_GATEWAY_CERT_FILE", "AUTHZ_GATEWAY_KEY_FILE", "AUTHZ_GATEWAY_CLIENT_CA_FILE"
G_LISTEN, G_TOKEN = "AUTHZ_GATEWAY_LISTEN", "AUTHZ_GATEWAY_TOKEN_FILE"

REFUSED: Mapping[str, tuple[Mapping[str, str], set[tuple[str, str]]]] = {
    "a certificate without its key": ({CERT: "/c"}, {(KEY, "missing")}),
    "a key without its certificate": ({KEY: "/k"}, {(CERT, "missing")}),
    "an authority alone": ({CA: "/a"}, {(CERT, "missing"), (KEY, "missing")}),
    "an authority and a certificate": ({CA: "/a", CERT: "/c"}, {(KEY, "missing")}),
    "an authority and a key": ({CA: "/a", KEY: "/k"}, {(CERT, "missing")}),
    "TLS where all is Unix sockets": (
        {CERT: "/c", KEY: "/k", "AUTHZ_UDS": "/run/a.sock", MANAGE: "unix:/run/m.sock"},
        {(CERT, "contradiction")},
    ),
    "an address without a port": ({MANAGE: "127.0.0.1"}, {(MANAGE, "invalid")}),
    "a port without an address": ({DECIDE: "8081"}, {(DECIDE, "invalid")}),
    "a socket that is not absolute": ({FORWARD: "unix:run/f.sock"}, {(FORWARD, "invalid")}),
    "a URL": ({MONITOR: "http://127.0.0.1:9000"}, {(MONITOR, "invalid")}),
    "two faults": ({MANAGE: "m", MONITOR: "127.0.0.1:65536"}, {(MANAGE, "invalid"), (MONITOR, "invalid")}),
    "the address of the rest": ({MANAGE: "127.0.0.1:8080"}, {(MANAGE, "contradiction")}),
    "the socket of the rest": (
        {"AUTHZ_UDS": "/run/a.sock", MANAGE: "unix:/run/a.sock"},
        {(MANAGE, "contradiction")},
    ),
    "one address for two surfaces": (
        {MANAGE: "127.0.0.1:9000", DECIDE: "127.0.0.1:9000"},
        {(DECIDE, "contradiction")},
    ),
    "the gateway's own address": (
        {G_LISTEN: "127.0.0.1:9000", G_TOKEN: "/t", FORWARD: "127.0.0.1:9000"},
        {(FORWARD, "contradiction")},
    ),
    "nothing left at the main address": (
        {MANAGE: "127.0.0.1:1", DECIDE: "127.0.0.1:2", FORWARD: "127.0.0.1:3", MONITOR: "127.0.0.1:4"},
        {("AUTHZ_PORT", "contradiction")},
    ),
    "a gateway's listener without a token": ({G_LISTEN: "127.0.0.1:9000"}, {(G_TOKEN, "missing")}),
    "a gateway's listener open to the network": (
        {G_LISTEN: "0.0.0.0:9000", G_TOKEN: "/t"},
        {(G_LISTEN, "contradiction")},
    ),
    "half of a gateway's mTLS": (
        {G_LISTEN: "127.0.0.1:9000", G_TOKEN: "/t", G_CERT: "/c", G_KEY: "/k"},
        {(G_CA, "contradiction")},
    ),
    "a gateway's mTLS without a listener": ({G_CERT: "/c", G_KEY: "/k", G_CA: "/a"}, {(G_CA, "contradiction")}),
    "no database": ({"AUTHZ_DATABASE_URL": ""}, {("AUTHZ_DATABASE_URL", "missing")}),
    "no peppers": ({"AUTHZ_PEPPERS": ""}, {("AUTHZ_PEPPERS", "missing")}),
    "a socket and a port": (
        {"AUTHZ_UDS": "/run/a.sock", "AUTHZ_PORT": "8080"},
        {("AUTHZ_UDS", "contradiction")},
    ),
    "all of it": (
        {"AUTHZ_DATABASE_URL": "", "AUTHZ_PEPPERS": "", CA: "/a", MANAGE: "m", G_LISTEN: "127.0.0.1:9000"},
        {
            ("AUTHZ_DATABASE_URL", "missing"),
            ("AUTHZ_PEPPERS", "missing"),
            (CERT, "missing"),
            (KEY, "missing"),
            (MANAGE, "invalid"),
            (G_TOKEN, "missing"),
        },
    ),
}


@pytest.mark.parametrize("given", REFUSED)
def test_a_half_configured_start_is_refused_with_all_that_is_missing(given: str):
    environ, wanted = REFUSED[given]
    with pytest.raises(StartError) as caught:
        load_settings(BASE | environ)
    assert {(fault.where, fault.code) for fault in caught.value.faults} == wanted
    assert all(variable in caught.value.message for variable, _ in wanted)


def test_surfaces_may_listen_apart_and_the_rest_stays_at_the_port():
    settings = load_settings(BASE, manage_listen="127.0.0.1:9000", monitor_listen="unix:/run/monitor.sock")
    found = find_apart(settings)
    assert set(found) == {Surface.MANAGE, Surface.MONITOR}
    assert (found[Surface.MANAGE].host, found[Surface.MANAGE].port) == ("127.0.0.1", 9000)
    assert load_settings(BASE, manage_listen="127.0.0.1:0", decide_listen="127.0.0.1:0").decide_listen is not None


def test_a_path_that_nobody_claims_is_management():
    assert {path: surface_of(path).value for path in ("/check", "/check/batch", "/access/v1/search/subject")} == {
        "/check": "decide",
        "/check/batch": "decide",
        "/access/v1/search/subject": "decide",
    }
    for path in ("/checks", "/check2", "/", "", "/v1/tokens", "/console/", "/oauth/revoke", "/CHECK", "//check"):
        assert surface_of(path) is Surface.MANAGE, path
    assert surface_of("/gateway/forward/x-original") is Surface.FORWARD
    assert surface_of("/metrics") is Surface.MONITOR


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"), "authority")


@pytest.mark.parametrize("broken", ["cert", "key", "client_ca"])
@pytest.mark.parametrize("content", [None, b"", b"-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----\n"])
def test_a_file_that_cannot_be_used_stops_the_start_and_is_named(
    authority: Authority, tmp_path: Path, broken: str, content: bytes | None
):
    certificate, key = authority.issue("server")
    files = {"cert": certificate, "key": key, "client_ca": authority.path}
    files[broken] = tmp_path / "broken.pem"
    if content is not None:
        files[broken].write_bytes(content)
    settings = load_settings(BASE, **{f"tls_{name}_file": path for name, path in files.items()})
    with pytest.raises(StartError) as caught:
        read_certificates(settings)
    assert str(files[broken]) in caught.value.message
    wanted = CA if broken == "client_ca" else CERT
    assert {fault.where for fault in caught.value.faults} == {wanted}


def test_a_key_of_another_certificate_stops_the_start(authority: Authority):
    certificate, _ = authority.issue("one")
    _, key = authority.issue("two")
    with pytest.raises(StartError, match="AUTHZ_TLS_CERT_FILE"):
        read_certificates(load_settings(BASE, tls_cert_file=certificate, tls_key_file=key))


def test_a_reload_that_fails_changes_nothing(authority: Authority):
    certificate, key = authority.issue("server")
    shown = read_certificates(load_settings(BASE, tls_cert_file=certificate, tls_key_file=key))
    kept = key.read_bytes()
    key.write_bytes(b"")
    with pytest.raises(StartError):
        shown.reload()
    key.write_bytes(kept)
    shown.reload()


def meet(server: ssl.SSLContext, authority: Authority, pair: tuple[Path, Path] | None) -> bytes | None:
    """A handshake in memory: the certificate that the server showed; None where it refused the client."""
    client = ssl.create_default_context(cafile=str(authority.path))
    if pair is not None:
        client.load_cert_chain(*pair)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server, server_hostname="127.0.0.1")
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    waiting = [ours, theirs]
    for _ in range(20):
        for side in list(waiting):
            try:
                side.do_handshake()
                waiting.remove(side)
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError:
                return None
    return None if waiting else ours.getpeercert(binary_form=True)


def test_a_reload_counts_from_the_next_handshake_on_for_certificates_and_authorities(tmp_path: Path):
    authority, other = Authority(tmp_path, "ours"), Authority(tmp_path, "other")
    certificate, key = authority.issue("server")
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(authority.path.read_bytes())
    given = {"tls_cert_file": certificate, "tls_key_file": key, "tls_client_ca_file": trusted}
    shown = read_certificates(load_settings(BASE, **given))
    assert shown.clients is not None
    assert shown.probes is not None
    served, friend, stranger = shown.clients.context, authority.issue("friend"), other.issue("stranger")
    first = meet(served, authority, friend)
    assert first is not None
    assert meet(served, authority, stranger) is None
    assert meet(served, authority, None) is None
    assert meet(shown.probes.context, authority, None) == first
    authority.issue("server")
    assert meet(served, authority, friend) == first
    trusted.write_bytes(other.path.read_bytes())
    shown.reload()
    second = meet(served, authority, stranger)
    assert second not in (None, first)
    assert meet(served, authority, friend) is None
    assert meet(shown.probes.context, authority, None) == second
