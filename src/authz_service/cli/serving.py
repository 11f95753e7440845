"""From settings to a service that answers: one worker in this process, or several under a supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from authz_service.api.check.gateway_listener import parse_listen
from authz_service.cli.listening import Listening, listen
from authz_service.cli.supervisor import Supervisor
from authz_service.cli.worker import run_worker
from authz_service.config import Settings
from authz_service.errors import StartError

_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it


@contextmanager
def listen_as(settings: Settings) -> Iterator[Listening]:
    """The sockets that the settings ask for. Raises StartError."""
    with contextlib.ExitStack() as opened:
        listening = opened.enter_context(
            listen(host=settings.host, port=settings.port, uds=settings.uds, workers=settings.workers)
        )
        at = None if settings.gateway_listen is None else parse_listen(settings.gateway_listen)
        if at is not None:
            gateways = listen(host=at.host, port=at.port, uds=at.uds, workers=settings.workers)
            listening = replace(listening, gateways=opened.enter_context(gateways).sockets)
        yield listening


def serve(settings: Settings, listening: Listening, on_answering: Callable[[], None]) -> None:
    """Serve until SIGINT or SIGTERM. Raises StartError, SchemaOutdatedError or DatabaseUnavailableError."""
    if settings.workers == 1:
        gateway = listening.gateways[0] if listening.gateways else None
        run_worker(settings, listening.sockets[0], on_answering, gateway=gateway)
        return
    with _metrics_folder(settings) as folder:
        asyncio.run(Supervisor(settings, listening, folder, on_answering).run())


@contextmanager
def _metrics_folder(settings: Settings) -> Iterator[Path]:
    """An empty folder for the workers' figures; ours goes with us."""
    if settings.metrics_dir is not None:
        try:
            settings.metrics_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            for leftover in settings.metrics_dir.glob("*.db"):
                leftover.unlink()
        except OSError as error:
            raise StartError(
                f"`{settings.metrics_dir}` cannot hold the workers' figures ({error.strerror}); check AUTHZ_METRICS_DIR"
            ) from error
        yield settings.metrics_dir
        return
    with contextlib.ExitStack() as opened:
        # In memory where there is some: figures are written on every request, and a read-only container has no other.
        base = _MEMORY if os.access(_MEMORY, os.W_OK) else None
        try:
            folder = opened.enter_context(tempfile.TemporaryDirectory(prefix="authz-metrics-", dir=base))
        except OSError as error:
            raise StartError(
                f"there is no place for the workers' figures ({error.strerror}); set AUTHZ_METRICS_DIR to a folder, or"
                " AUTHZ_WORKERS to 1"
            ) from error
        yield Path(folder)
