"""Servers that are measured: started on loopback, kept on one core, ended by their own process id."""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Self

HOST = "127.0.0.1"
_PR_SET_PDEATHSIG = 1


class ServerError(Exception):
    """A server did not start; the message has the end of what it said."""


class Server:
    """One process from `with` to its end. It is ready when the port answers, and `path` with 200 where one is given."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        ready: int,
        cores: Sequence[int],
        folder: Path,
        environment: Mapping[str, str] | None = None,
        path: str | None = None,
        patience: float = 60.0,
    ) -> None:
        self.name = name
        self._command = list(command)
        self._ready = ready
        self._path = path
        self._cores = tuple(cores)
        self._log = folder / f"{name}.log"
        self._environment = dict(os.environ if environment is None else environment)
        self._patience = patience
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        if self._process is None:
            raise ServerError(f"{self.name} does not run")
        return self._process.pid

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                preexec_fn=self._settle,  # noqa: PLW1509 - no thread of ours runs while servers start
            )
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _settle(self) -> None:
        os.sched_setaffinity(0, self._cores)
        with contextlib.suppress(OSError):  # it ends with us, however we end
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    def _wait(self) -> None:
        end = time.monotonic() + self._patience
        while not answers(self._ready, self._path):
            process = self._process
            if process is None or process.poll() is not None or time.monotonic() > end:
                said = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
                raise ServerError(f"{self.name} did not start: {' / '.join(said[-8:]) or 'it said nothing'}")
            time.sleep(0.05)


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def answers(port: int, path: str | None) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        connection.connect()
        if path is None:
            return True
        connection.request("GET", path)
        return connection.getresponse().status == HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
