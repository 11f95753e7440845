"""Settings of gateways: what contradicts itself stops the start."""

from __future__ import annotations

import base64

import pytest

from authz_service.api.check.gateway_listener import ListenAt, parse_listen
from authz_service.config import Environment, load_settings, read_gateway_trust
from authz_service.errors import StartError
from authz_service.tokens.secret import new_secret

BASE = {
    "AUTHZ_DATABASE_URL": "postgresql://u:p@127.0.0.1/d",
    "AUTHZ_PEPPERS": f"k1:{base64.b64encode(bytes(range(32))).decode()}",
}


def faults_of(**given: str) -> set[str]:
    with pytest.raises(StartError) as caught:
        load_settings(BASE | {f"AUTHZ_{name.upper()}": value for name, value in given.items()})
    return {fault.where for fault in caught.value.faults}


def test_an_address_is_a_host_and_port_or_a_socket():
    assert parse_listen("127.0.0.1:8081") == ListenAt("127.0.0.1", 8081)
    assert parse_listen("[::1]:8081") == ListenAt("::1", 8081)
    found = parse_listen("unix:/run/authz/gateway.sock")
    assert found is not None
    assert str(found.uds) == "/run/authz/gateway.sock"
    for odd in (
        "",
        "8081",
        ":8081",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:65536",
        "::1:8081",
        "unix:run/x",
        "http://a:1",
    ):
        assert parse_listen(odd) is None, odd


def test_only_this_machine_reaches_loopback_and_sockets():
    near = ("127.0.0.1:1", "127.8.0.1:1", "[::1]:1", "localhost:1", "unix:/x")
    far = ("0.0.0.0:1", "10.0.0.1:1", "[::]:1", "gateway.internal:1")
    for text, wanted in [*((text, True) for text in near), *((text, False) for text in far)]:
        found = parse_listen(text)
        assert found is not None
        assert found.is_local is wanted, text


def test_a_listener_that_stands_for_a_gateway_needs_its_token():
    assert faults_of(gateway_listen="127.0.0.1:8081") == {"AUTHZ_GATEWAY_TOKEN_FILE"}
    assert faults_of(gateway_token_file="/x") == {"AUTHZ_GATEWAY_TOKEN_FILE"}
    assert faults_of(gateway_listen="8081", gateway_token_file="/x") == {"AUTHZ_GATEWAY_LISTEN"}
    assert faults_of(grpc_listen="9001") == {"AUTHZ_GRPC_LISTEN"}


def test_a_network_alone_is_no_proof_in_production():
    assert faults_of(gateway_listen="0.0.0.0:8081", gateway_token_file="/x") == {"AUTHZ_GATEWAY_LISTEN"}
    assert faults_of(grpc_listen="10.0.0.1:9001", gateway_token_file="/x") == {"AUTHZ_GRPC_LISTEN"}
    tls = {f"AUTHZ_GATEWAY_{name}_FILE": "/x" for name in ("CERT", "KEY", "CLIENT_CA", "TOKEN")}
    assert load_settings(BASE | tls | {"AUTHZ_GATEWAY_LISTEN": "0.0.0.0:8081"}).gateway_listen == "0.0.0.0:8081"
    assert load_settings(BASE | {"AUTHZ_GRPC_LISTEN": "0.0.0.0:9001"}).grpc_listen == "0.0.0.0:9001"


def test_mutual_tls_takes_all_three_files_and_a_listener():
    assert faults_of(gateway_cert_file="/x", grpc_listen="127.0.0.1:1") == {"AUTHZ_GATEWAY_CLIENT_CA_FILE"}
    assert faults_of(gateway_cert_file="/x", gateway_key_file="/x", gateway_client_ca_file="/x") == {
        "AUTHZ_GATEWAY_CLIENT_CA_FILE"
    }


def test_a_file_without_one_token_stops_the_start(tmp_path):
    path = tmp_path / "token"
    settings = load_settings(BASE, gateway_listen="127.0.0.1:1", gateway_token_file=path)
    for text in (None, "", "nonsense", b"\xff"):
        if text is not None:
            path.write_bytes(text.encode() if isinstance(text, str) else text)
        with pytest.raises(StartError, match="AUTHZ_GATEWAY_TOKEN_FILE"):
            read_gateway_trust(settings, dev=False)
    secret = new_secret("azt", "k1").reveal()
    path.write_text(f"{secret}\n")
    trust = read_gateway_trust(settings, dev=False)
    assert (trust.secret, trust.loopback) == (secret, False)
    assert secret not in repr(trust)
    in_dev = load_settings(BASE, environment=Environment.DEV, gateway_token_file=path)
    assert read_gateway_trust(in_dev, dev=True).loopback
