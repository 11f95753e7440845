"""One `authz serve` process: started, asked how it is, frozen, killed."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from tests.faults.postgres import children

ROOT = Path(__file__).parents[2]
_CLEAN = ("AUTHZ_", "DATABASE_URL", "PG")


class Service:
    """Its log lies beside the database and is shown when a start fails."""

    def __init__(self, log: Path, env: Mapping[str, str], *, mutant: str = "none", files: int | None = None) -> None:
        """`files` is the limit of open files that it is started under."""
        self.log = log
        self._limit = [] if files is None else ["sh", "-c", f'ulimit -n {files}; exec "$@"', "sh"]
        self._env = dict(env)
        self._mutant = mutant
        self._process: subprocess.Popen[bytes] | None = None
        self.port = int(env.get("AUTHZ_PORT", "0"))

    def launch(self) -> Self:
        """Start without waiting."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_CLEAN)}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._limit, sys.executable, "-m", "tests.faults.entry", str(os.getpid()), self._mutant, "serve"],
                cwd=ROOT,
                env={**kept, "AUTHZ_PORT": str(self.port), **self._env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self

    def await_answering(self, seconds: float = 60.0) -> Self:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for event in self.events():
                if event.get("event") == "answering":
                    self.port = int(event["url"].rpartition(":")[2])
                    return self
            if not self.runs:
                break
            time.sleep(0.02)
        raise AssertionError(f"the service did not start: {self.log.read_text()[-2000:]}")

    def events(self) -> list[dict[str, Any]]:
        """The log's lines that are JSON, since the last start."""
        found: list[dict[str, Any]] = []
        for line in self.log.read_text().splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        return found

    def relaunch(self) -> Self:
        """A new process on the same port, not waited for. From the main thread: a process ends with its thread."""
        self.log.write_text("")
        return self.launch()

    @property
    def pid(self) -> int:
        if self._process is None:
            raise AssertionError("the service was not started")
        return self._process.pid

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        if self.runs:
            os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def workers(self) -> list[int]:
        """The processes that it started."""
        return children(self.pid)

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)

    def wait(self, seconds: float = 40.0) -> int:
        if self._process is None:
            raise AssertionError("the service was not started")
        return self._process.wait(seconds)

    def stop(self) -> None:
        """Whatever state it is in."""
        if self._process is None:
            return
        self.thaw()
        if self.runs:
            self.terminate()
        try:
            self.wait()
        except subprocess.TimeoutExpired:
            self.kill()

    # how it is

    def get(self, path: str, timeout: float = 5.0) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def is_ready(self) -> bool:
        try:
            return self.get("/readyz")[0] == 200
        except OSError:
            return False

    def obstacles(self) -> list[str]:
        """What `/readyz` says is in the way."""
        return [one["code"] for one in json.loads(self.get("/readyz")[1])["reasons"]]

    def await_ready(self, *, ready: bool = True, seconds: float = 30.0) -> None:
        end = time.monotonic() + seconds
        while self.is_ready() is not ready:
            if time.monotonic() > end:
                said = self.get("/readyz")[1].decode() if self.runs else "it is gone"
                raise AssertionError(f"the service is {'not ' if ready else ''}ready after {seconds:g} s: {said}")
            time.sleep(0.02)

    def figure(self, name: str) -> float:
        """The sum of a metric over its labels."""
        text = self.get("/metrics")[1].decode()
        return sum(float(one) for one in re.findall(rf"(?m)^{name}(?:\{{[^}}]*\}})? (\S+)$", text))

    def memory(self) -> int:
        """Bytes resident."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def files(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))
