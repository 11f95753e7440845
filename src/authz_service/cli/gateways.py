"""What a worker serves to gateways beside the API: their own listener, with mTLS where it is asked for, and gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import uvicorn
from fastapi import FastAPI

from authz_service.cli.connections import Bounded
from authz_service.cli.listening import BACKLOG
from authz_service.config import Settings
from authz_service.errors import StartError

if TYPE_CHECKING:
    from authz_service.api.check.envoy_grpc import Certificates

_KEEP_ALIVE_SECONDS = 75


class _Server(uvicorn.Server):
    """uvicorn without signals: the worker's own server hears them, and this one ends with it."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.answers = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self.answers.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serving_gateways(app: FastAPI, settings: Settings, bound: socket.socket | None) -> AsyncIterator[None]:
    """Answers gateways until left. Raises StartError for certificates that cannot be read, or without gRPC's packages.

    Enter it when the application runs: every answer needs its parts.
    """
    async with contextlib.AsyncExitStack() as opened:
        if bound is not None:
            await opened.enter_async_context(_own_listener(app, settings, bound))
        if settings.grpc_listen is not None:
            await opened.enter_async_context(_grpc(app, settings, settings.grpc_listen))
        yield


@asynccontextmanager
async def _own_listener(app: FastAPI, settings: Settings, bound: socket.socket) -> AsyncIterator[None]:
    config = uvicorn.Config(
        app.state.gateway_listener,
        http=Bounded,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=math.ceil(settings.shutdown_timeout),
        ssl_certfile=settings.gateway_cert_file,
        ssl_keyfile=settings.gateway_key_file,
        ssl_ca_certs=None if settings.gateway_client_ca_file is None else str(settings.gateway_client_ca_file),
        ssl_cert_reqs=ssl.CERT_REQUIRED if settings.gateway_client_ca_file is not None else ssl.CERT_NONE,
    )
    try:
        config.load()
    except OSError as error:  # ssl.SSLError is one
        raise StartError(f"AUTHZ_GATEWAY_CERT_FILE and what belongs to it cannot be used: {error}") from error
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[bound]), name="gateway listener")
    try:
        await server.answers.wait()
        yield
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def _grpc(app: FastAPI, settings: Settings, listen: str) -> AsyncIterator[None]:
    try:
        from authz_service.api.check.envoy_grpc import serving_grpc
    except ImportError as error:
        raise StartError("AUTHZ_GRPC_LISTEN needs more packages: install `authz-service[grpc]`") from error
    async with serving_grpc(app, listen, _certificates(settings), grace=settings.shutdown_timeout):
        yield


def _certificates(settings: Settings) -> Certificates | None:
    from authz_service.api.check.envoy_grpc import Certificates

    paths = (settings.gateway_cert_file, settings.gateway_key_file, settings.gateway_client_ca_file)
    found = []
    for path in paths:
        if path is None:
            return None
        try:
            found.append(path.read_bytes())
        except OSError as error:
            raise StartError(f"`{path}` cannot be read: {(error.strerror or 'unknown').lower()}") from error
    return Certificates(*found)
