"""What a worker serves to gateways beside the API: their own listener, with mTLS where it is asked for, and gRPC."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import uvicorn
from fastapi import FastAPI

from authz_service.cli.certificates import Certificates
from authz_service.cli.surfaces import listener_config, serving_beside
from authz_service.config import Settings
from authz_service.errors import StartError

if TYPE_CHECKING:
    from authz_service.api.check.envoy_grpc import Certificates as GrpcCertificates


@asynccontextmanager
async def serving_gateways(
    app: FastAPI, settings: Settings, bound: socket.socket | None, certificates: Certificates | None
) -> AsyncIterator[list[uvicorn.Server]]:
    """Answers gateways until left; gives the servers that it started.

    Raises StartError for gRPC's certificates that cannot be read, and without its packages. Enter it when the
    application runs: every answer needs its parts.
    """
    servers: list[uvicorn.Server] = []
    async with contextlib.AsyncExitStack() as opened:
        if bound is not None:
            config = listener_config(app.state.gateway_listener, settings, certificates)
            servers.append(await opened.enter_async_context(serving_beside(config, bound)))
        if settings.grpc_listen is not None:
            await opened.enter_async_context(_grpc(app, settings, settings.grpc_listen))
        yield servers


@asynccontextmanager
async def _grpc(app: FastAPI, settings: Settings, listen: str) -> AsyncIterator[None]:
    try:
        from authz_service.api.check.envoy_grpc import serving_grpc
    except ImportError as error:
        raise StartError("AUTHZ_GRPC_LISTEN needs more packages: install `authz-service[grpc]`") from error
    async with serving_grpc(app, listen, _grpc_certificates(settings), grace=settings.shutdown_timeout):
        yield


def _grpc_certificates(settings: Settings) -> GrpcCertificates | None:
    from authz_service.api.check.envoy_grpc import Certificates as GrpcCertificates

    paths = (settings.gateway_cert_file, settings.gateway_key_file, settings.gateway_client_ca_file)
    found = []
    for path in paths:
        if path is None:
            return None
        try:
            found.append(path.read_bytes())
        except OSError as error:
            raise StartError(f"`{path}` cannot be read: {(error.strerror or 'unknown').lower()}") from error
    return GrpcCertificates(*found)
