"""The command line as processes: started, waited for, asked, and ended by the number they were started with."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

START_SECONDS = 90.0
STOP_SECONDS = 40.0
AUTHZ = (sys.executable, "-m", "authz_service")


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Ours, without settings of the service: a developer's own must not decide a test."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith("AUTHZ_") and name != "DATABASE_URL"
    }
    return kept | {"PYTHONUNBUFFERED": "1"} | dict(extra or {})


def run(
    *arguments: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    given: str | None = None,
    program: Sequence[str] = AUTHZ,
) -> subprocess.CompletedProcess[str]:
    """One command of the command line, to its end."""
    return subprocess.run(
        [*program, *arguments],
        env=environment(env),
        cwd=cwd,
        input=given,
        stdin=subprocess.DEVNULL if given is None else None,
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )


@dataclass
class Running:
    """One long-running command, and what it printed."""

    process: subprocess.Popen[bytes]
    output: Path

    @property
    def printed(self) -> str:
        return self.output.read_text(errors="replace")

    def wait_until(self, condition: Any, seconds: float = START_SECONDS) -> None:
        """Until the condition holds; fails with what was printed when the process ends or time is up."""
        end = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, f"it ended with {self.process.returncode}: {self.printed}"
            assert time.monotonic() < end, f"not within {seconds:g} s: {self.printed}"
            time.sleep(0.02)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to stop, and its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(STOP_SECONDS)


@contextmanager
def started(
    *arguments: str,
    output: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    program: Sequence[str] = AUTHZ,
) -> Iterator[Running]:
    with output.open("wb") as file:
        process = subprocess.Popen(
            [*program, *arguments],
            env=environment(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    running = Running(process, output)
    try:
        yield running
    finally:
        try:
            running.stop()
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


@dataclass
class DevService:
    """A running `authz dev`, as its ready file describes it."""

    running: Running
    folder: Path
    ready: Mapping[str, Any]

    @property
    def url(self) -> str:
        return str(self.ready["url"])

    def client(self, secret: str | None = None) -> httpx.Client:
        headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}
        return httpx.Client(base_url=self.url, headers=headers, trust_env=False, timeout=20)

    def check(self, http: httpx.Client, **question: Any) -> httpx.Response:
        """About the sample token; what is given differs."""
        usual = {
            "token": self.ready["sample_token"],
            "catalog": "gitlab",
            "resource": "job",
            "action": "read",
            "target": "bakery/shop/checkout",
        }
        return http.post("/check", json=usual | question)

    def as_token(self, name: str) -> dict[str, str]:
        """Variables for the command line, with a token of the ready file."""
        return {"AUTHZ_URL": self.url, "AUTHZ_TOKEN": str(self.ready[name])}


@contextmanager
def dev_service(folder: Path, *arguments: str, program: Sequence[str] = AUTHZ, **given: Any) -> Iterator[DevService]:
    """`authz dev` on a free port, with its data in `folder`, until left."""
    ready = folder / "ready.json"
    ready.unlink(missing_ok=True)
    command = ("dev", "--port", "0", "--data", str(folder / "data"), "--ready-file", str(ready), *arguments)
    with started(*command, output=folder / "output.txt", program=program, **given) as running:
        running.wait_until(ready.exists)
        yield DevService(running, folder, json.loads(ready.read_text()))


def workers_of(owner: int) -> list[int]:
    """Processes of the supervisor with this number, on Linux."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
                if int(parent) == owner and b"authz_service.cli.worker" in (folder / "cmdline").read_bytes():
                    found.append(int(folder.name))
    return found


def connections_of(process: int, port: int) -> int:
    """How many established connections of a local port a process holds, on Linux."""
    inodes = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(f":{port:04X}") and fields[3] == "01":
            inodes.add(f"socket:[{fields[9]}]")
    held = 0
    for descriptor in Path(f"/proc/{process}/fd").iterdir():
        with contextlib.suppress(OSError):
            held += str(descriptor.readlink()) in inodes
    return held
