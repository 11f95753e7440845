"""A TCP proxy that does to connections what networks do: it resets, swallows, refuses and delays.

It runs in a process of its own, so that a busy test never looks like a slow network.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

OK = "ok"
"""Pass everything on."""
HOLE = "hole"
"""Swallow: nothing passes, nothing closes. What was under way passes once the hole is over, as TCP sends it again."""
DEAF = "deaf"
"""A hole for connections on which LISTEN was sent, and for no others."""
DEAD = "dead"
"""Those that are open pass nothing ever again, and are not closed: the host behind them is gone. New ones pass."""
REFUSE = "refuse"
"""Reset what is open and whatever connects."""

_CHUNK = 65536


class Proxies:
    """The test's handle on the proxy process; each proxy has a name."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.proxy", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            text=True,
            bufsize=1,
        )

    def add(self, name: str, target: str) -> int:
        """Forward to `target`, a Unix socket's path or `host:port`; answers the port that the proxy listens at."""
        return int(self._do({"do": "add", "name": name, "target": target})["port"])

    def aim(self, name: str, target: str) -> None:
        """New connections go elsewhere, as after a failover."""
        self._do({"do": "aim", "name": name, "target": target})

    def set(self, name: str, mode: str) -> None:
        self._do({"do": "mode", "name": name, "mode": mode})

    def delay(self, name: str, seconds: float) -> None:
        """Hold back what comes from the server by so long."""
        self._do({"do": "delay", "name": name, "seconds": seconds})

    def cut(self, name: str) -> None:
        """Reset every open connection."""
        self._do({"do": "cut", "name": name})

    def count(self, name: str) -> int:
        """How many connections are open."""
        return int(self._do({"do": "count", "name": name})["count"])

    def heal(self, name: str) -> None:
        self.set(name, OK)
        self.delay(name, 0)

    def close(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(10)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _do(self, order: Mapping[str, object]) -> dict[str, Any]:
        if self._process.stdin is None or self._process.stdout is None:
            raise AssertionError("the process was started with pipes")
        self._process.stdin.write(json.dumps(order) + "\n")
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer


@dataclass(eq=False)
class _Link:
    """Two ends; `listens` once LISTEN was seen, `dead` once its server is gone."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    listens: bool = False
    dead: bool = False


@dataclass
class _Proxy:
    target: str
    mode: str = OK
    seconds: float = 0.0
    links: set[_Link] = field(default_factory=set)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.mode == REFUSE:
            _reset(writer)
            return
        while self.mode == HOLE:
            await self._until_changed()
        try:
            if self.target.startswith("/"):
                far_reader, far_writer = await asyncio.open_unix_connection(self.target)
            else:
                host, _, port = self.target.rpartition(":")
                far_reader, far_writer = await asyncio.open_connection(host, int(port))
        except OSError:
            _reset(writer)
            return
        link = _Link(writer, far_writer)
        self.links.add(link)
        try:
            await asyncio.gather(self._pump(link, reader, far_writer, 0), self._pump(link, far_reader, writer, 1))
        finally:
            self.links.discard(link)
            _reset(writer)
            _reset(far_writer)

    async def _pump(self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: int) -> None:
        """One direction. Several chunks may be held back at once: a delay is no lack of bandwidth."""
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def pour() -> None:
            while True:
                due, data = await queue.get()
                if due > loop.time():
                    await asyncio.sleep(due - loop.time())
                await self._until_passable(link)
                if not data:
                    writer.write_eof()
                    return
                writer.write(data)
                await writer.drain()

        async def draw() -> None:
            while True:
                data = await reader.read(_CHUNK)
                link.listens |= way == 0 and b"LISTEN " in data
                await queue.put((loop.time() + (self.seconds if way else 0.0), data))
                if not data:
                    return

        with contextlib.suppress(OSError):
            await asyncio.gather(draw(), pour())
        # Whoever closes first closes for both, as the parties of this protocol do; but only through what passes.
        await self._until_passable(link)
        _reset(link.client)
        _reset(link.server)

    async def _until_passable(self, link: _Link) -> None:
        while link.dead or self.mode == HOLE or (self.mode == DEAF and link.listens):
            await self._until_changed()

    async def _until_changed(self) -> None:
        async with self.changed:
            await self.changed.wait()

    async def set(self, mode: str) -> None:
        if mode == DEAD:
            for link in self.links:
                link.dead = True
            mode = OK
        self.mode = mode
        if mode == REFUSE:
            self.cut()
        async with self.changed:
            self.changed.notify_all()

    def cut(self) -> None:
        for link in list(self.links):
            _reset(link.client)
            _reset(link.server)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST where there is such a thing."""
    found = writer.get_extra_info("socket")
    if found is not None and found.family == socket.AF_INET:
        with contextlib.suppress(OSError):
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _main() -> None:
    loop = asyncio.get_running_loop()
    orders = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    proxies: dict[str, _Proxy] = {}
    servers = []
    while line := await orders.readline():
        order = json.loads(line)
        answer: dict[str, object] = {}
        proxy = proxies.get(order["name"])
        match order["do"]:
            case "add":
                proxy = proxies[order["name"]] = _Proxy(order["target"])
                servers.append(await asyncio.start_server(proxy.serve, "127.0.0.1", 0, backlog=1024))
                answer["port"] = servers[-1].sockets[0].getsockname()[1]
            case _ if proxy is None:
                answer["error"] = f"there is no proxy `{order['name']}`"
            case "aim":
                proxy.target = order["target"]
            case "mode":
                await proxy.set(order["mode"])
            case "delay":
                proxy.seconds = order["seconds"]
            case "cut":
                proxy.cut()
            case "count":
                answer["count"] = len(proxy.links)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    os._exit(0)  # links that pass nothing would be waited for


def die_with_parent(parent: int) -> None:
    """Where the system can do it, end this process when its parent ends, however that happens."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)


if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the test, which closes us
    asyncio.run(_main())
