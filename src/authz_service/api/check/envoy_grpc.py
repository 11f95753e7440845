"""Envoy's `envoy.service.auth.v3.Authorization/Check` over gRPC: the same question and verdict as over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import unquote

import grpc
import grpc.aio
from envoy.config.core.v3 import base_pb2
from envoy.service.auth.v3 import external_auth_pb2, external_auth_pb2_grpc
from fastapi import FastAPI
from google.rpc import code_pb2, status_pb2

from authz_service.api.check.gateway import Asker, Call, GatewayTrust, body_of_gateway, check_constants, decide
from authz_service.api.check.gateway_answers import Verdict
from authz_service.api.check.gateway_headers import (
    AUTHORIZATION,
    CONSTANT_HEADERS,
    GATEWAY,
    GatewayHeaders,
)
from authz_service.api.check.gateway_listener import parse_listen
from authz_service.api.wire import plain_address
from authz_service.errors import AuthzError, CannotDecideError, InvalidInputError, StartError

_OVERWRITE: Final = base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
_CODES: Final[Mapping[int, int]] = {200: code_pb2.OK, 401: code_pb2.UNAUTHENTICATED}


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM texts: what the server shows, its key, and whose certificates it takes."""

    certificate: bytes
    key: bytes
    client_ca: bytes


@asynccontextmanager
async def serving_grpc(
    app: FastAPI, listen: str, certificates: Certificates | None, *, grace: float
) -> AsyncIterator[None]:
    """Answers until left; calls under way get `grace` seconds. Raises StartError for an address that is taken."""
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 1 << 20)])
    external_auth_pb2_grpc.add_AuthorizationServicer_to_server(Authorization(app), server)
    at = parse_listen(listen)
    address = listen if at is None or at.uds is None else f"unix:{at.uds}"
    try:
        if certificates is None:
            server.add_insecure_port(address)
        else:
            pair = [(certificates.key, certificates.certificate)]
            credentials = grpc.ssl_server_credentials(pair, certificates.client_ca, require_client_auth=True)
            server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise StartError(f"nothing can listen at `{listen}`; choose another address, AUTHZ_GRPC_LISTEN") from error
    await server.start()
    try:
        yield
    finally:
        await server.stop(grace)


class Authorization(external_auth_pb2_grpc.AuthorizationServicer):  # type: ignore[misc]
    """The gateway is known by metadata that its own configuration sets, or by the listener; never by a client's header.

    Constants are `context_extensions` of the route, or else metadata; an extension wins over metadata of its name.
    """

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's own name
        """A verdict; status UNAVAILABLE when nothing can be decided, which Envoy denies unless it is told not to."""
        services, serving, quick = self._app.state.services, self._app.state.serving, self._app.state.quick

        def read() -> tuple[Asker, Call]:
            metadata = _metadata(context)
            return self._asker(metadata, context.peer()), _call(request.attributes, metadata)

        try:
            verdict = await decide(services, serving.metrics, quick, read)
        except AuthzError as error:
            if isinstance(error, CannotDecideError):
                serving.metrics.undecided.labels(error.code).inc()
            return await context.abort(grpc.StatusCode.UNAVAILABLE, error.code)
        return _response(verdict)

    def _asker(self, metadata: GatewayHeaders, peer: str) -> Asker:
        trust: GatewayTrust = self._app.state.gateways
        address = _peer_address(peer)
        secret = metadata.find(GATEWAY)
        if secret is None and self._counts_as_gateway(address):
            secret = trust.secret
        return Asker(secret, address)

    def _counts_as_gateway(self, address: str | None) -> bool:
        """Settings see to it that a listener that stands for a token is a local one, or asks for certificates."""
        trust: GatewayTrust = self._app.state.gateways
        return not trust.loopback or address is None or ip_address(address).is_loopback


def _metadata(context: Any) -> GatewayHeaders:
    pairs = [
        (name.encode(), value.encode("utf-8", "replace") if isinstance(value, str) else value)
        for name, value in context.invocation_metadata() or ()
    ]
    return GatewayHeaders(pairs, {GATEWAY, *CONSTANT_HEADERS.values()})


def _call(attributes: Any, metadata: GatewayHeaders) -> Call:
    http = attributes.request.http
    secret, shown = GatewayHeaders(_pairs(http), {AUTHORIZATION}).find_secret()
    constants = {name: metadata.find(header) for name, header in CONSTANT_HEADERS.items()}
    constants |= {
        name: attributes.context_extensions[name] for name in constants if attributes.context_extensions.get(name)
    }
    if not http.method or not http.path:
        raise InvalidInputError("the question has no method or no path: the gateway has to send them")
    return Call(
        secret,
        shown,
        method=http.method,
        path=http.path,
        client_address=plain_address(attributes.source.address.socket_address.address),
        constants=check_constants({name: value for name, value in constants.items() if value}),
        body=body_of_gateway(http.raw_body or http.body.encode(), _pairs(http)),
    )


def _pairs(http: Any) -> Iterable[tuple[bytes, bytes]]:
    """Raw headers where the gateway sends them, so that two of one name are seen; else its map, which joined them."""
    if http.header_map.headers:
        for header in http.header_map.headers:
            yield header.key.encode(), header.raw_value or header.value.encode("utf-8", "replace")
        return
    for name, value in http.headers.items():
        yield name.encode(), value.encode("utf-8", "replace")


def _peer_address(peer: str) -> str | None:
    """`ipv4:127.0.0.1:4711` or `ipv6:[::1]:4711`, whose brackets come percent-encoded; None for a Unix socket."""
    scheme, _, rest = peer.partition(":")
    if scheme not in ("ipv4", "ipv6"):
        return None
    return plain_address(unquote(rest).rpartition(":")[0].strip("[]"))


def _response(verdict: Verdict) -> Any:
    headers = [
        base_pb2.HeaderValueOption(header=base_pb2.HeaderValue(key=name, value=value), append_action=_OVERWRITE)
        for name, value in verdict.headers.items()
    ]
    status = status_pb2.Status(code=_CODES.get(verdict.status, code_pb2.PERMISSION_DENIED))
    response = external_auth_pb2.CheckResponse(status=status)
    if verdict.allowed:
        response.ok_response.headers.extend(headers)
        response.ok_response.headers_to_remove.append(AUTHORIZATION)
    else:
        response.denied_response.status.code = int(verdict.status)
        response.denied_response.headers.extend(headers)
        response.denied_response.body = verdict.body.decode()
    return response
