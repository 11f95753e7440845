"""`authz health`: does the service of this machine answer? For container runtimes; by the standard library alone."""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from authz_service.cli import exits

SECONDS: Final = 3.0
_ANYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - what to ask instead


def health(*, ready: bool, environ: Mapping[str, str] | None = None) -> int:
    """Ask `/livez`, or `/readyz`, where the settings of the environment say that this machine's service listens.

    0 for a 200, 1 for any other answer, 3 for none within 3 s. What `/readyz` has against it goes to stderr.
    """
    path = "/readyz" if ready else "/livez"
    connection = _connect(os.environ if environ is None else environ)
    where = connection.where if isinstance(connection, _OverUnixSocket) else f"{connection.host}:{connection.port}"
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read(4096)
    except (OSError, http.client.HTTPException, ValueError) as error:
        print(f"authz: no answer from {path} at {where} ({str(error) or type(error).__name__})", file=sys.stderr)
        return exits.UNREACHABLE
    finally:
        connection.close()
    if answer.status == http.client.OK:
        return exits.OK
    print(f"authz: {path} at {where} answered {answer.status}: {body.decode('utf-8', 'replace')}", file=sys.stderr)
    return exits.DENIED


def run(arguments: Sequence[str]) -> int:
    """The command by itself, without loading all others: a runtime asks every few seconds."""
    return health(ready="--ready" in arguments)


def _connect(environ: Mapping[str, str]) -> http.client.HTTPConnection:
    monitor = environ.get("AUTHZ_MONITOR_LISTEN", "")
    uds = monitor.removeprefix("unix:") if monitor.startswith("unix:") else environ.get("AUTHZ_UDS", "")
    if uds and (monitor.startswith("unix:") or not monitor):
        return _OverUnixSocket(uds)
    host, port = environ.get("AUTHZ_HOST", "127.0.0.1"), environ.get("AUTHZ_PORT") or "8080"
    if monitor:
        host, _, port = monitor.rpartition(":")
    host = host.strip("[]")
    host = _ANYWHERE.get(host, host)
    if environ.get("AUTHZ_TLS_CERT_FILE"):
        # This machine asks itself, by an address that no certificate names; nothing secret goes there or comes back.
        return http.client.HTTPSConnection(host, int(port), timeout=SECONDS, context=ssl._create_unverified_context())  # noqa: S323, SLF001
    return http.client.HTTPConnection(host, int(port), timeout=SECONDS)


class _OverUnixSocket(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=SECONDS)
        self._path = path
        self.where = f"unix:{path}"

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(SECONDS)
        self.sock.connect(self._path)
