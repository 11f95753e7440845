"""Whoever answers over a socket: started, asked everything once, compared with the oracle, and put under load."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

from benchmarks.grpc import Grpc
from benchmarks.machine import cpu_seconds
from benchmarks.peers import cerbos
from benchmarks.peers.bare import TABLE
from benchmarks.pressure import Connection, Http1, Post, Reply, ask_each, press
from benchmarks.routes import calls_of
from benchmarks.servers import Server, free_port
from benchmarks.service import Stored, batch_requests, call_requests, check_requests, read_batch, read_check, serve
from benchmarks.workload import Batch, Workload, make_batches
from benchmarks.wrk import press_with_wrk, write_requests

CALLS_AT_ONCE = 8
"""Calls under way on one connection of gRPC."""
_TRIES = 20


@dataclass(frozen=True, slots=True)
class Run:
    """One stretch of load. Times in seconds; `cpu` is the server's processor time for one request."""

    rate: float
    p50: float
    p99: float
    cpu: float
    failed: int


@dataclass
class Contender:
    """One server and the questions it is asked. `right` has what `read` must find in each answer."""

    name: str
    label: str
    over: str
    port: int
    pid: int
    requests: Sequence[bytes]
    read: Callable[[bytes], list[Any]]
    right: Sequence[list[Any]]
    posts: Path | None = None
    """The requests as wrk's script reads them; without it our own load is used."""
    checked: int = 0
    wrong: int = 0
    put_off: int = 0
    """Requests that were answered "cannot decide now" in the comparison, and asked again."""
    runs: list[Run] = field(default_factory=list)
    alone: Run | None = None
    """With one question under way at a time."""

    @property
    def per_request(self) -> int:
        return len(self.right[0])

    def connect(self, at_once: int) -> list[Connection]:
        """Connections with room for `at_once` requests together."""
        if self.over == "gRPC":
            each = min(CALLS_AT_ONCE, at_once)
            return [Grpc(self.port, room=each) for _ in range(at_once // each)]
        return [Http1(self.port) for _ in range(at_once)]

    def cross_check(self) -> None:
        """Ask everything once and compare every answer; who cannot decide at once (503) is asked again, in turn."""
        waiting = list(range(len(self.requests)))
        for patience in range(_TRIES):
            with connected(self, 32 if patience == 0 else 1) as connections:
                replies, _ = ask_each(connections, [self.requests[number] for number in waiting])
            waiting = self.compare(replies, waiting)
            if not waiting:
                return
        self.wrong += sum(len(self.right[number]) for number in waiting)

    def compare(self, replies: Sequence[Reply], numbers: Sequence[int] | None = None) -> list[int]:
        """Count what is wrong in the replies to these requests (all); answers with those that were put off."""
        put_off = []
        for number, reply in zip(numbers or range(len(replies)), replies, strict=True):
            if reply.status == HTTPStatus.SERVICE_UNAVAILABLE:
                put_off.append(number)
                continue
            self.checked += len(self.right[number])
            self.wrong += self._faults(reply, self.right[number])
        self.put_off += len(put_off)
        return put_off

    def _faults(self, reply: Reply, right: list[Any]) -> int:
        found = self.read(reply.body) if reply.status == 200 else []
        if len(found) != len(right):
            return len(right)
        return sum(one != other for one, other in zip(found, right, strict=True))

    def press(self, *, at_once: int, seconds: float) -> Run:
        """Closed loop: by wrk where it can, else by our own."""
        before = cpu_seconds(self.pid)
        if self.posts is not None:
            said = press_with_wrk(self.posts, self.port, connections=at_once, seconds=seconds)
            count = said.rate * max(1, round(seconds))
            return Run(said.rate, said.p50, said.p99, (cpu_seconds(self.pid) - before) / count, said.failed)
        with connected(self, at_once) as connections:
            measured = press(connections, self.requests, seconds=seconds)
        cpu = (cpu_seconds(self.pid) - before) / len(measured.times)
        return Run(measured.rate, measured.quantile(0.5), measured.quantile(0.99), cpu, measured.failed)


@contextmanager
def connected(contender: Contender, at_once: int) -> Iterator[list[Connection]]:
    connections = contender.connect(at_once)
    try:
        yield connections
    finally:
        for connection in connections:
            connection.close()


class Field:
    """Starts contenders on one core, and knows who was left out and why."""

    def __init__(self, stack: ExitStack, folder: Path, workload: Workload, *, core: int, wrk: bool) -> None:
        self._stack = stack
        self._folder = folder
        self._workload = workload
        self._core = core
        self._wrk = wrk
        self._bools = [[allowed] for allowed in workload.allowed]
        self.contenders: list[Contender] = []

    def _add(self, name: str, label: str, server: Server, port: int, posts: Sequence[Post], **rest: Any) -> Contender:
        path = write_requests(self._folder, name, posts) if self._wrk else None
        requests = [post.encode() for post in posts]
        contender = Contender(name, label, "HTTP", port, server.pid, requests, posts=path, **rest)
        self.contenders.append(contender)
        return contender

    # this service

    def add_service(self, stored: Stored, *, batch: int, batches: int) -> None:
        """`/check`, `/check/http`, `/check/batch` of many and of 20, all by one worker."""
        environment = stored.keys.environment(stored.url)
        server, port = serve("authz", environment, cores=[self._core], folder=self._folder)
        self._stack.enter_context(server)
        workload = self._workload
        posts = check_requests(workload, stored)
        right = [[answer] for answer in workload.answers]
        self._add("check", "authz-service, `/check`", server, port, posts, read=read_check, right=right)
        calls = calls_of(workload)
        asked = [(workload.asks[position].token, call) for position, call in calls]
        right = [[workload.answers[position]] for position, _ in calls]
        posts = call_requests(asked, stored)
        self._add("http", "authz-service, `/check/http`", server, port, posts, read=read_check, right=right)
        for size, count in ((batch, batches), (20, batches * 5)):
            made = make_batches(workload, size=size, count=count)
            label = f"authz-service, `/check/batch` of {size:,}"
            posts = batch_requests(made, stored)
            answers = [list(each.answers) for each in made]
            name = "batch" if size == batch else "batch20"
            self._add(name, label, server, port, posts, read=read_batch, right=answers)

    # bare servers

    def add_bare(self, stored: Stored) -> None:
        """Echo, look-up, and FastAPI with pydantic, on the very requests of `/check`."""
        posts = check_requests(self._workload, stored)
        table: dict[str, dict[str, list[str]]] = {}
        for ask, allowed in zip(self._workload.asks, self._workload.allowed, strict=True):
            at = table.setdefault(stored.tokens[ask.token].secret, {}).setdefault(ask.target, [])
            if allowed:
                at.append(ask.permission)
        file = self._folder / "table.json"
        file.write_text(json.dumps(table), encoding="utf-8")
        for name, label in (
            ("echo", "uvicorn, raw ASGI echo"),
            ("lookup", "uvicorn, raw ASGI and a dictionary"),
            ("plain", "FastAPI route, pydantic in and out"),
        ):
            port = free_port()
            command = [sys.executable, "-m", "benchmarks.peers.bare", name, str(port)]
            server = self._server(name, command, port, environment={TABLE: str(file)})
            if name == "echo":
                self._add(name, label, server, port, posts, read=lambda body: [body], right=[[p.body] for p in posts])
            else:
                self._add(name, label, server, port, posts, read=_read_plain, right=self._bools)

    # Cerbos

    def add_cerbos(self, binary: Path, *, batch: int = 20, batches: int = 100) -> None:
        """Both ways to tell it the grants, over HTTP and gRPC; batches where it is fastest."""
        workload = self._workload
        for by_principal in (False, True):
            how = "a policy per principal" if by_principal else "grants as attributes"
            name = "cerbos_principal" if by_principal else "cerbos"
            http, grpc = free_port(), free_port()
            folder = self._folder / name
            folder.mkdir()
            settings = cerbos.write_configuration(folder, workload, by_principal=by_principal, http=http, grpc=grpc)
            command = [str(binary), "server", "--log-level=error", f"--config={settings}"]
            server = self._server(name, command, http, path="/_cerbos/health", environment={"GOMAXPROCS": "1"})
            posts = cerbos.http_requests(workload, by_principal=by_principal)
            label = f"Cerbos, {how}"
            self._add(f"{name}_http", label, server, http, posts, read=cerbos.read_http, right=self._bools)
            calls = cerbos.grpc_requests(workload, by_principal=by_principal)
            self._add_grpc(f"{name}_grpc", label, server, grpc, calls, self._bools)
            if not by_principal:
                made = make_batches(workload, size=batch, count=min(batches, len(workload.tokens)))
                calls = cerbos.grpc_batches(workload, made)
                self._add_grpc(f"{name}_batch", f"{label}, batches of {batch}", server, grpc, calls, _bools(made))

    def _add_grpc(
        self, name: str, label: str, server: Server, port: int, calls: Sequence[bytes], right: Sequence[list[bool]]
    ) -> None:
        self.contenders.append(
            Contender(name, label, "gRPC", port, server.pid, calls, read=cerbos.read_grpc, right=right)
        )

    def _server(self, name: str, command: Sequence[str], port: int, **rest: Any) -> Server:
        environment = {**os.environ, **rest.pop("environment", {})}
        server = Server(
            name, command, ready=port, cores=[self._core], folder=self._folder, environment=environment, **rest
        )
        return self._stack.enter_context(server)


def _read_plain(body: bytes) -> list[bool]:
    return [json.loads(body)["decision"] == "allow"]


def _bools(batches: Sequence[Batch]) -> list[list[bool]]:
    return [[answer == "granted" for answer in batch.answers] for batch in batches]


def find_cerbos(folder: Path) -> Path | None:
    """The server's binary from the npm package that the tools script installs, or from the path."""
    for found in sorted(folder.glob("node_modules/@cerbos/cerbos-*/cerbos*")):
        if found.is_file() and found.stat().st_mode & 0o111:
            return found
    found_on_path = shutil.which("cerbos")
    return None if found_on_path is None else Path(found_on_path)
