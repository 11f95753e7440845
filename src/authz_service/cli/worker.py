"""One worker: the application on a socket, from its lifespan's start to the end of its last request."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import uvicorn

from authz_service.api.surfaces import Surface
from authz_service.app import create_app
from authz_service.cli.certificates import read_certificates
from authz_service.cli.connections import Bounded, allow_files
from authz_service.cli.gateways import serving_gateways
from authz_service.cli.reloader import Source, listen_for_reload, source_of
from authz_service.cli.surfaces import listener_config, serving_apart, share_files
from authz_service.config import LogFormat, Settings, load_settings
from authz_service.errors import AuthzError
from authz_service.telemetry import configure_logging

SOCKET_FD: Final = "AUTHZ_WORKER_SOCKET"
READY_FD: Final = "AUTHZ_WORKER_READY"
LIFELINE_FD: Final = "AUTHZ_WORKER_LIFELINE"
"""Numbers of inherited files: what to listen at, where to say that it answers, and what closes when the owner dies."""
GATEWAY_FD: Final = "AUTHZ_WORKER_GATEWAY_SOCKET"
"""The same for the gateway's own listener; not set where there is none."""
SURFACE_FDS: Final = "AUTHZ_WORKER_SURFACE_SOCKETS"
"""The same for surfaces at addresses of their own: `manage=7 monitor=8`."""
WORKER_VARIABLES: Final = (SOCKET_FD, READY_FD, LIFELINE_FD)
CANNOT_START: Final = 4
"""The exit status of a worker that said on stderr why it cannot start."""


class Server(uvicorn.Server):
    """uvicorn with our signals: its own end the process before the application's lifespan is over.

    `on_answering` is called when the service answers; what it raises ends the service.
    """

    def __init__(
        self, config: uvicorn.Config, on_answering: Callable[[], None], *, drain: float, on_leaving: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._on_answering = on_answering
        self._on_leaving = on_leaving
        self._drain = drain
        self._leaving = False

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        # In a thread: whoever hears of it may ask the service itself.
        await asyncio.to_thread(self._on_answering)

    def stop(self) -> None:
        """Say that nobody should ask here any more, answer whoever still does, then finish what is under way.

        Asked again, do not wait for anything.
        """
        if self._leaving or not self.started:
            self.force_exit = self._leaving or self.should_exit
            self.should_exit = True
            return
        self._leaving = True
        self._on_leaving()
        Bounded.leave(self.server_state.connections)
        asyncio.get_running_loop().call_later(self._drain, self._end)

    def _end(self) -> None:
        self.should_exit = True


def run_worker(
    settings: Settings,
    bound: socket.socket,
    on_answering: Callable[[], None],
    *,
    lifeline: int | None = None,
    gateway: socket.socket | None = None,
    apart: Mapping[Surface, socket.socket] | None = None,
    source: Source | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM, or until the lifeline's other end closes. Raises what the lifespan raises.

    With a `source` SIGHUP has the settings read again.
    """
    import uvloop  # here: not every platform has it

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings, bound, on_answering, lifeline, gateway, apart or {}, source))


async def _serve(
    settings: Settings,
    bound: socket.socket,
    on_answering: Callable[[], None],
    lifeline: int | None,
    gateway: socket.socket | None,
    apart: Mapping[Surface, socket.socket],
    source: Source | None,
) -> None:
    if source is not None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is something to take settings over
    app = create_app(settings)
    shown = read_certificates(settings)
    share_files(allow_files(), settings, apart)
    config = listener_config(app.state.main, settings, None if bound.family == socket.AF_UNIX else shown.clients)
    sides: list[uvicorn.Server] = []

    def on_leaving() -> None:
        app.state.leaving = True
        for side in sides:
            Bounded.leave(side.server_state.connections)

    server = Server(config, on_answering, drain=settings.drain, on_leaving=on_leaving)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, server.stop)
    if lifeline is not None:
        loop.add_reader(lifeline, server.stop)
    try:
        async with (
            app.router.lifespan_context(app),
            serving_gateways(app, settings, gateway, shown.gateways) as at_gateways,
            serving_apart(app, settings, apart, shown) as at_surfaces,
        ):
            sides += [*at_gateways, *at_surfaces]
            listen_for_reload(app, source, shown)
            if not server.should_exit:
                await server.serve(sockets=[bound])
    finally:
        if lifeline is not None:
            loop.remove_reader(lifeline)


def main() -> int:
    """What the supervisor starts: settings from the environment, the socket and the pipes inherited."""
    bound, ready, lifeline = (int(os.environ.pop(name)) for name in WORKER_VARIABLES)
    inherited = os.environ.pop(GATEWAY_FD, None)
    gateway = None if inherited is None else socket.socket(fileno=int(inherited))
    surfaces = dict(pair.split("=") for pair in os.environ.pop(SURFACE_FDS, "").split())
    apart = {Surface(name): socket.socket(fileno=int(number)) for name, number in surfaces.items()}
    source = source_of(os.environ)
    settings = load_settings(without_file=True)  # what it said when it was good is in the environment
    configure_logging(json=settings.log_format is LogFormat.JSON, level=settings.log_level)
    logging.captureWarnings(capture=True)

    def say_ready() -> None:
        os.write(ready, b"1")
        os.close(ready)

    try:
        run_worker(
            settings,
            socket.socket(fileno=bound),
            say_ready,
            lifeline=lifeline,
            gateway=gateway,
            apart=apart,
            source=source,
        )
    except AuthzError as error:
        print(f"authz: {error.message}", file=sys.stderr)
        return CANNOT_START
    return 0


if __name__ == "__main__":
    sys.exit(main())
