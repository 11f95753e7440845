"""The server's own protocol beside uvicorn's: the same bytes in whatever pieces, the same answers."""

from __future__ import annotations

import asyncio
import logging
import re
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from authz_service.api.check.hot import HotPath, Route
from authz_service.api.check.serving import Serving
from authz_service.cli.answering import Answering
from authz_service.telemetry import Metrics

CALLER: Final = b"Bearer known"
LONGEST: Final = 1500
GOOD: Final = b"POST /check HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer known\r\nContent-Length: 2\r\n\r\n{}"
_HEADERS: Final = re.compile(rb"(?:date|x-request-id|server): [^\r]*\r\n", re.IGNORECASE)


def answer_of(method: bytes, path: bytes, authorization: bytes, body: bytes) -> bytes:
    """What is answered names all that counts, so that no two requests are answered alike by chance."""
    return b"%b %b %b %x" % (method, path, authorization, zlib.crc32(body))


async def application(scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
    """Answers from the request as uvicorn makes it."""
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return
        body += message["body"]
        if not message["more_body"]:
            break
    shown = b"|".join(value for name, value in scope["headers"] if name == b"authorization")
    path = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
    told = answer_of(scope["method"].encode(), path, shown, body)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(told))]})
    await send({"type": "http.response.body", "body": told})


class Quick:
    """Knows one caller."""

    request_id = b""

    @staticmethod
    def knows_caller(authorization: bytes) -> bool:
        return authorization == CALLER

    @staticmethod
    def take_counts() -> dict[Any, int]:
        return {}


def make_hot() -> HotPath:
    """A short way that answers what the application would, for bodies of an even checksum; others go the long way."""
    hot = HotPath(application, Serving(Metrics(), 65536, 65536))
    hot.quick = Quick()  # type: ignore[assignment]

    def answering(path: bytes) -> Callable[..., bytes | None]:
        def answer(_: Any, authorization: bytes, body: bytes) -> bytes | None:
            return answer_of(b"POST", path, authorization, body) if zlib.crc32(body) % 2 == 0 else None

        return answer

    for path, route in list(hot.routes.items()):
        hot.routes[path] = Route(route.path, route.limit, (1.0,), answering(path))
    return hot


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: Any) -> None:
        if not self.closed:
            self.written += bytes(data)

    def writelines(self, pieces: Any) -> None:
        self.write(b"".join(pieces))

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        """Everything is here already."""

    def resume_reading(self) -> None:
        """Everything is here already."""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing is buffered."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name in ("peername", "sockname") else default


QUIET: Final = logging.getLogger("tests.fuzz.quiet")
QUIET.propagate = False
QUIET.addHandler(logging.NullHandler())
LOOP: Final = asyncio.new_event_loop()
HOT: Final = make_hot()


def _config(app: Any) -> uvicorn.Config:
    config = uvicorn.Config(app, ws="none", lifespan="off", log_config=None, access_log=False, proxy_headers=False)
    config.load()
    return config


OURS: Final = _config(HOT)
THEIRS: Final = _config(application)


async def _feed(make: Callable[..., Any], config: uvicorn.Config, pieces: Sequence[bytes]) -> bytes:
    state = ServerState()
    protocol = make(config=config, server_state=state, app_state={}, _loop=LOOP)
    protocol.logger = QUIET
    transport = Transport()
    protocol.connection_made(transport)
    try:
        for piece in pieces:
            if transport.closed:
                break
            protocol.data_received(piece)
            await _rest(state)
        await _rest(state)
    finally:
        timer = protocol.timeout_keep_alive_task
        if timer is not None:
            timer.cancel()
        protocol.connection_lost(None)
        for task in list(state.tasks):
            task.cancel()
        await asyncio.gather(*state.tasks, return_exceptions=True)
    return _HEADERS.sub(b"", transport.written)


async def _rest(state: ServerState) -> None:
    """Until nobody has anything to do."""
    for _ in range(4):
        await asyncio.sleep(0)
    for _ in range(40):
        if not state.tasks:
            return
        await asyncio.sleep(0)


def _answers(text: bytes) -> list[tuple[bytes, bytes]]:
    """Status and body of each answer."""
    return re.findall(rb"HTTP/1\.1 (\d{3})[^\r]*\r\n(?:[^\r\n]+\r\n)*\r\n((?:(?!HTTP/1\.1 ).)*)", text, re.DOTALL)


def same_on_the_wire(data: bytes) -> None:
    """The first byte says in what pieces the rest comes; uvicorn gets the same pieces, or each byte by itself."""
    step, text = (data[0] if data else 0), data[1 : LONGEST + 1]
    pieces = [text] if step == 0 else [text[place : place + step] for place in range(0, len(text), step)]
    Answering.heads.clear()
    first = _answers(LOOP.run_until_complete(_feed(Answering, OURS, [GOOD, GOOD, *pieces])))
    assert len(first) >= 2
    if first == _answers(LOOP.run_until_complete(_feed(HttpToolsProtocol, THEIRS, [GOOD, GOOD, *pieces]))):
        return
    bytewise = [GOOD, GOOD, *(bytes([one]) for one in text)]
    second = _answers(LOOP.run_until_complete(_feed(HttpToolsProtocol, THEIRS, bytewise)))
    if first == second:
        return
    # Bytes that are no request end the connection: uvicorn itself then forgets what came before them in one piece, and
    # ours has answered it as far as it is answered without a request.
    assert first[-1][0] == second[-1][0] == b"400", (first, second)
    whole = [one for one in second if one[0] != b"400"]
    assert [one for one in first if one[0] != b"400"] == whole[: len(first) - 1], (first, second)
