"""What a worker serves beside its main listener: surfaces at addresses of their own, each with its share of files."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import ClassVar, Final

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from authz_service.api.surfaces import AtListener, Surface
from authz_service.cli.certificates import Certificates, Shown
from authz_service.cli.connections import Bounded
from authz_service.cli.listening import BACKLOG
from authz_service.config import Settings

_KEEP_ALIVE_SECONDS: Final = 75  # longer than gateways keep idle connections: they close first, and no call is lost
_SIDE_SHARE: Final = 8
"""A listener of management or monitoring alone gets one part of files in so many; decisions get what is left."""


class Aside(Bounded):
    """Connections of a listener that no decision comes by: a flood of them leaves files for the others."""

    limit: ClassVar[int] = 1_000_000
    shedding: ClassVar[int] = 16


class Beside(uvicorn.Server):
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


def listener_config(
    app: ASGIApp, settings: Settings, certificates: Certificates | None, http: type[Bounded] = Bounded
) -> uvicorn.Config:
    """How every listener of a worker is served."""
    config = uvicorn.Config(
        app,
        http=http,
        ws="none",
        lifespan="off",  # the worker enters it once, so that its errors are ours to tell
        log_config=None,
        access_log=False,
        proxy_headers=False,  # a client's own word about its address counts for nothing
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=math.ceil(settings.shutdown_timeout),
    )
    if certificates is not None:
        config.load()
        config.ssl = certificates.context  # uvicorn's own could not be read again
    return config


def share_files(files: int, settings: Settings, apart: Collection[Surface]) -> None:
    """Say how many connections each listener of this process may have, of as many as there are files for."""
    many = {Surface.DECIDE, Surface.FORWARD}
    aside = sum(surface not in many for surface in apart)
    Aside.limit = max(16, files // _SIDE_SHARE)
    others = 1 + sum(surface in many for surface in apart) + (settings.gateway_listen is not None)
    Bounded.limit = max(16, (files - aside * Aside.limit) // others)


@asynccontextmanager
async def serving_apart(
    app: FastAPI, settings: Settings, apart: Mapping[Surface, socket.socket], shown: Shown
) -> AsyncIterator[list[uvicorn.Server]]:
    """Answers at addresses of their own until left; gives the servers. Enter it when the application runs."""
    servers: list[uvicorn.Server] = []
    async with contextlib.AsyncExitStack() as opened:
        for surface, bound in apart.items():
            certificates = shown.probes if surface is Surface.MONITOR else shown.clients
            if bound.family == socket.AF_UNIX:
                certificates = None
            served = app.state.hot if surface is Surface.DECIDE else AtListener(app.state.served, {surface})
            http = Bounded if surface in (Surface.DECIDE, Surface.FORWARD) else Aside
            config = listener_config(served, settings, certificates, http)
            servers.append(await opened.enter_async_context(serving_beside(config, bound)))
        yield servers


@asynccontextmanager
async def serving_beside(config: uvicorn.Config, bound: socket.socket) -> AsyncIterator[uvicorn.Server]:
    """One more server in this process, until left."""
    server = Beside(config)
    task = asyncio.create_task(server.serve(sockets=[bound]), name="listener")
    try:
        await server.answers.wait()
        yield server
    finally:
        server.should_exit = True
        await task
