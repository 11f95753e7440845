"""A small HTTP server in a thread of its own: keeps connections, counts, and fails when a test says so."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

TOKEN = "upstream-token-1234567890"


@dataclass(frozen=True)
class Asked:
    """A request: `path` is decoded but for `%2F`, `query` as a mapping."""

    path: str
    query: dict[str, str]
    headers: dict[str, str]
    number: int


@dataclass
class Answer:
    """`raw` is sent as it is in place of everything else, and then the connection is closed."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None

    def encode(self) -> bytes:
        if self.raw is not None:
            return self.raw
        body = self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
        usual = {"Content-Type": "application/json", "Content-Length": str(len(body)), "Date": formatdate(usegmt=True)}
        lines = [f"HTTP/1.1 {self.status} X", *(f"{name}: {value}" for name, value in (usual | self.headers).items())]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class World(Protocol):
    def answer(self, asked: Asked, origin: str) -> Answer: ...


@dataclass
class StandIn:
    """A world, served. `fail` is asked first, and answers None to let the world answer."""

    world: Any
    url: str = ""
    count: int = 0
    paths: list[str] = field(default_factory=list)
    fail: Callable[[Asked], Answer | None] = lambda asked: None
    reached: threading.Event = field(default_factory=threading.Event)
    stop_at: int | None = None
    """Once so many requests were answered, `reached` is set and nothing is answered until `go_on`."""

    def handle(self, transport: asyncio.Transport, target: str, headers: dict[str, str]) -> None:
        self.count += 1
        parts = urlsplit(target)
        path = unquote(parts.path.replace("%2F", "%252F"))
        self.paths.append(path)
        asked = Asked(path, dict(parse_qsl(parts.query)), headers, self.count)
        if self.stop_at is not None and self.count > self.stop_at:
            self.reached.set()
            return
        self._reply(transport, asked)

    def _reply(self, transport: asyncio.Transport, asked: Asked) -> None:
        if asked.headers.get("authorization") != f"Bearer {TOKEN}":
            answer = Answer({"message": "401 Unauthorized"}, 401)
        else:
            answer = self.fail(asked) or self.world.answer(asked, self.url)
        transport.write(answer.encode())
        if answer.raw is not None:
            transport.close()

    def go_on(self) -> None:
        self.stop_at = None
        self.reached.clear()


class _Connection(asyncio.Protocol):
    def __init__(self, stand_in: StandIn) -> None:
        self._stand_in = stand_in
        self._buffer = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while b"\r\n\r\n" in self._buffer:
            head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
            first, *rest = head.decode("latin-1").split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in rest)}
            self._stand_in.handle(self._transport, first.split(" ")[1], headers)


@contextmanager
def running(world: Any) -> Iterator[StandIn]:
    """Serves the world until left."""
    stand_in = StandIn(world)
    loop = asyncio.new_event_loop()
    ready = threading.Event()

    async def serve() -> None:
        server = await loop.create_server(lambda: _Connection(stand_in), "127.0.0.1", 0)
        stand_in.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ready.set()
        await done.wait()
        server.close()

    done = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert ready.wait(30)
    try:
        yield stand_in
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(30)
        loop.close()
