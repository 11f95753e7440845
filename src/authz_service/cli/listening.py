"""Sockets to listen at, made before anything else is started: a port that is taken must stop the start, not end it."""

from __future__ import annotations

import contextlib
import errno
import platform
import socket
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from authz_service.api.surfaces import Surface
from authz_service.errors import StartError

BACKLOG: Final = 2048
_OWN_QUEUES: Final = platform.system() == "Linux"  # elsewhere SO_REUSEPORT does not spread connections


@dataclass(frozen=True, slots=True)
class Listening:
    """One socket for each worker, and where they answer. They stay open here, so a restarted worker loses no call."""

    sockets: tuple[socket.socket, ...]
    url: str
    gateways: tuple[socket.socket, ...] = ()
    """The same for a gateway's own listener, where there is one."""
    surfaces: Mapping[Surface, tuple[socket.socket, ...]] = field(default_factory=dict)
    """The same for surfaces that have an address of their own."""


@contextmanager
def listen(*, host: str, port: int, uds: Path | None, workers: int, named: str = "AUTHZ_PORT") -> Iterator[Listening]:
    """Listens until left. Raises StartError, which blames the variable `named`, for an address taken or not ours."""
    if uds is not None:
        with _unix_socket(uds, named) as bound:
            yield Listening((bound,) * workers, f"http+unix://{uds}")
        return
    with contextlib.ExitStack() as opened:
        sockets = _tcp_sockets(host, port, workers, opened, named)
        yield Listening(sockets, _url(sockets[0]))


def _tcp_sockets(
    host: str, port: int, workers: int, opened: contextlib.ExitStack, named: str
) -> tuple[socket.socket, ...]:
    """Each worker has a queue of its own where the system spreads connections over them; else they share one.

    A shared queue wakes whoever waited last: gateways that keep a few connections open would all hang on one worker.
    """
    family, address = _resolve(host, port, named)
    own = workers > 1 and _OWN_QUEUES
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # Without SO_REUSEPORT, so that another service of the same user on this port is seen.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
        sockets: list[socket.socket] = []
        for _ in range(workers if own else 1):
            bound = opened.enter_context(socket.socket(family, socket.SOCK_STREAM))
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if own:
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            bound.bind(address)
            bound.listen(BACKLOG)
            bound.setblocking(False)
            address = bound.getsockname()  # port 0 became a number, which the next one takes too
            sockets.append(bound)
    except OSError as error:
        raise StartError(_refusal(host, port, error, named)) from error
    return tuple(sockets) if own else (sockets[0],) * workers


def _resolve(host: str, port: int, named: str) -> tuple[socket.AddressFamily, Any]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise StartError(f"`{host}` is no address of this machine ({error.strerror}); check {_host(named)}") from error
    family, _, _, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
    return family, address


def _host(named: str) -> str:
    return "AUTHZ_HOST" if named == "AUTHZ_PORT" else named


def _refusal(host: str, port: int, error: OSError, named: str) -> str:
    where = f"{host}:{port}"
    how = "`--port`, AUTHZ_PORT" if named == "AUTHZ_PORT" else named
    match error.errno:
        case errno.EADDRINUSE:
            return f"something else listens at {where}; stop it, or choose another port ({how})"
        case errno.EACCES:
            return f"this user may not listen at {where}; choose a port above 1023 ({how})"
        case errno.EADDRNOTAVAIL:
            return f"`{host}` is no address of this machine; check {_host(named)}"
    return f"nothing can listen at {where} ({error.strerror}); choose another address"


def _url(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104 - what to show for it, not to bind to
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextmanager
def _unix_socket(path: Path, named: str) -> Iterator[socket.socket]:
    path = path.absolute()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as bound:
        try:
            _remove_stale(path)
            bound.bind(str(path))
            path.chmod(0o660)
            bound.listen(BACKLOG)
            bound.setblocking(False)
        except OSError as error:
            raise StartError(
                f"nothing can listen at `{path}` ({error.strerror or error}); choose another path"
                f" ({'AUTHZ_UDS' if named == 'AUTHZ_PORT' else named})"
            ) from error
        ours = path.stat().st_ino
        try:
            yield bound
        finally:
            with contextlib.suppress(OSError):
                if path.stat().st_ino == ours:
                    path.unlink()


def _remove_stale(path: Path) -> None:
    """A socket whose owner was killed is removed; one that somebody answers at, or anything else, is left alone."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise FileExistsError(errno.EEXIST, "there is a file that is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise OSError(errno.EADDRINUSE, "something else listens there")
