"""Bare servers under the very uvicorn that serves this project: what a request costs before anything is decided."""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from pathlib import Path
from typing import Any, Final

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

TABLE: Final = "BENCH_TABLE"
"""The variable that names the look-up's file: JSON of secret → {target → [permission, …]}."""


async def echo(_scope: Scope, receive: Receive, send: Send) -> None:
    """The request's body comes back: nothing in Python under uvicorn answers sooner."""
    message = await receive()
    body = message["body"]
    while message.get("more_body"):
        message = await receive()
        body += message["body"]
    await _answer(send, body)


def make_lookup() -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """Read the body, look into a dictionary, answer: the least that any decision over HTTP needs."""
    import msgspec

    class Body(msgspec.Struct):
        token: str
        resource: str
        action: str
        target: str

    decoder = msgspec.json.Decoder(Body)
    table = read_table()

    async def lookup(_scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        body = message["body"]
        while message.get("more_body"):
            message = await receive()
            body += message["body"]
        asked = decoder.decode(body)
        allowed = f"{asked.resource}:{asked.action}" in table.get(asked.token, {}).get(asked.target, ())
        await _answer(send, b'{"decision":"allow"}' if allowed else b'{"decision":"deny"}')

    return lookup


def read_table() -> Mapping[str, Mapping[str, frozenset[str]]]:
    found = json.loads(Path(os.environ[TABLE]).read_text(encoding="utf-8"))
    return {
        secret: {target: frozenset(names) for target, names in targets.items()} for secret, targets in found.items()
    }


async def _answer(send: Send, body: bytes) -> None:
    length = str(len(body)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", length)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def main() -> None:
    """`python -m benchmarks.peers.bare echo|lookup|plain PORT`."""
    import uvicorn

    name, port = sys.argv[1], int(sys.argv[2])
    app: Any
    if name == "plain":
        from benchmarks.peers.plain import app
    else:
        app = {"echo": lambda: echo, "lookup": make_lookup}[name]()
    gc.collect()
    gc.freeze()
    # As `authz serve` runs it.
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=port,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="warning",
        proxy_headers=False,
        server_header=False,
    )


if __name__ == "__main__":
    main()
