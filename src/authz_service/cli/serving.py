"""From settings to a service that answers: one worker in this process, or several under a supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from authz_service.api.check.gateway_listener import parse_listen
from authz_service.cli.certificates import read_certificates
from authz_service.cli.listening import Listening, listen
from authz_service.cli.reloader import names_in_file, source_of
from authz_service.cli.supervisor import Supervisor
from authz_service.cli.worker import run_worker
from authz_service.config import Settings, find_apart
from authz_service.errors import StartError

_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it


@contextmanager
def listen_as(settings: Settings) -> Iterator[Listening]:
    """The sockets that the settings ask for. Raises StartError, also for certificates that no listener could show."""
    read_certificates(settings)
    with contextlib.ExitStack() as opened:
        listening = opened.enter_context(
            listen(host=settings.host, port=settings.port, uds=settings.uds, workers=settings.workers)
        )
        at = None if settings.gateway_listen is None else parse_listen(settings.gateway_listen)
        if at is not None:
            gateways = listen(
                host=at.host, port=at.port, uds=at.uds, workers=settings.workers, named="AUTHZ_GATEWAY_LISTEN"
            )
            listening = replace(listening, gateways=opened.enter_context(gateways).sockets)
        apart = {
            surface: opened.enter_context(
                listen(
                    host=own.host,
                    port=own.port,
                    uds=own.uds,
                    workers=settings.workers,
                    named=f"AUTHZ_{surface.upper()}_LISTEN",
                )
            ).sockets
            for surface, own in find_apart(settings).items()
        }
        url = listening.url
        if settings.tls_cert_file is not None and url.startswith("http://"):
            url = url.replace("http://", "https://", 1)
        yield replace(listening, url=url, surfaces=apart)


def serve(
    settings: Settings,
    listening: Listening,
    on_answering: Callable[[], None],
    environ: Mapping[str, str] | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM. Raises StartError, SchemaOutdatedError or DatabaseUnavailableError.

    `environ` is what the settings came from: with it SIGHUP has them read again.
    """
    source = None if environ is None else source_of(environ)
    if settings.workers == 1:
        gateway = listening.gateways[0] if listening.gateways else None
        apart = {surface: sockets[0] for surface, sockets in listening.surfaces.items()}
        run_worker(settings, listening.sockets[0], on_answering, gateway=gateway, apart=apart, source=source)
        return
    with _metrics_folder(settings) as folder:
        from_file = "" if environ is None else names_in_file(environ)
        asyncio.run(Supervisor(settings, listening, folder, on_answering, environ, from_file).run())


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
