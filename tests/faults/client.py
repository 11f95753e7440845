"""A lean HTTP client over one connection: what measures must cost less than what is measured."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any


def now() -> float:
    """The clock that goes on while the machine sleeps, as the service's own."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    head: bytes
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)

    @property
    def allows(self) -> bool:
        return self.status == 200 and b'"decision":"allow"' in self.body

    def header(self, name: str) -> str | None:
        for line in self.head.split(b"\r\n")[1:]:
            key, _, value = line.partition(b":")
            if key.strip().lower() == name.encode().lower():
                return value.strip().decode()
        return None


class Connection:
    """One request at a time; connects when needed, and again after a fault. Faults are OSError or EOFError."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, raw: bytes) -> Answer:
        if self._streams is not None and self._streams[0].at_eof():
            self.close()  # the other side ended it while nothing was under way
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = self._streams
        try:
            writer.write(raw)
            head = await reader.readuntil(b"\r\n\r\n")
            status = int(head[9:12])
            at = head.lower().find(b"content-length:")
            length = int(head[at + 15 : head.index(b"\r\n", at)]) if at >= 0 else 0
            body = await reader.readexactly(length) if length else b""
        except BaseException:
            self.close()
            raise
        if b"connection: close" in head.lower():
            self.close()
        return Answer(status, head, body)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None


def request(method: str, path: str, secret: str, body: bytes = b"", *, kind: str = "application/json") -> bytes:
    """The bytes of a request."""
    head = f"{method} {path} HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {secret}\r\n"
    if body or method in ("POST", "PUT"):
        head += f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
    return f"{head}\r\n".encode() + body


def check_request(gateway: str, secret: str, target: str, permission: str = "job:read", **more: object) -> bytes:
    """A `POST /check` of the shape that gateways send."""
    resource, _, action = permission.partition(":")
    body = {"token": secret, "catalog": "gitlab", "resource": resource, "action": action, "target": target, **more}
    return request("POST", "/check", gateway, json.dumps(body, separators=(",", ":")).encode())
