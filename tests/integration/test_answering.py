"""Over a real socket: what the server answers before there is a request is what the application would answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import socket
from collections.abc import AsyncIterator, Sequence

import pytest
import uvicorn
from tests.integration.test_hot_path import GOOD, bodies, figures, gateway, subject
from tests.support.managing import Stage, staged

from authz_service.api.check import hot as hot_module
from authz_service.cli.answering import Answering
from authz_service.cli.connections import Bounded

IDS = re.compile(rb"x-request-id: [0-9a-f]{32}\r\n")
DATES = re.compile(rb"date: [^\r]+\r\n")
CANARY = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"


class Socket:
    """A server on loopback, and bytes to and from it."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def ask(self, *requests: bytes) -> list[bytes]:
        """On one connection, each after the one before was answered."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            answers = []
            for request in requests:
                writer.write(request)
                answers.append(await _answer(reader))
            return answers
        finally:
            writer.close()

    async def say(self, *pieces: bytes, answers: int) -> list[bytes]:
        """Send the pieces, each when the one before was taken; the answers in order, without ids and dates."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            for number, piece in enumerate(pieces):
                if number:
                    await asyncio.sleep(0.02)
                writer.write(piece)
                await writer.drain()
            return [await _answer(reader) for _ in range(answers)]
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


async def _answer(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(20):
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        body = b"" if length is None else await reader.readexactly(int(length[1]))
    lines = sorted(DATES.sub(b"", IDS.sub(b"x-request-id: made\r\n", head)).split(b"\r\n"))
    return b"\n".join([*lines, body])


@contextlib.asynccontextmanager
async def listening(app: object) -> AsyncIterator[Socket]:
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, http=Bounded, ws="none", lifespan="off", log_config=None, access_log=False, proxy_headers=False,
        server_header=False,
    )  # fmt: skip
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign]
    task = asyncio.create_task(server.serve(sockets=[bound]))
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield Socket(bound.getsockname()[1])
    finally:
        server.should_exit = True
        await task
        bound.close()


@pytest.fixture
async def stage(database_url):
    async with staged(database_url) as running:
        yield running


@pytest.fixture
async def both(stage: Stage):
    """The server as it is deployed, and the documented application behind the same protocol."""
    Answering.heads.clear()
    async with listening(stage.app.state.hot) as short, listening(stage.app) as long:
        yield short, long


async def warm(way: Socket, request: bytes) -> None:
    """Ask until the request's head is remembered, so that what follows is answered in the short way."""
    for _ in range(100):
        await way.ask(request)
        if Answering.heads:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("nothing was remembered")


def post(body: bytes, caller: str, *more: str, path: str = "/check", length: int | None = None) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: a", f"Authorization: Bearer {caller}", "Content-Type: application/json"]
    lines += [f"Content-Length: {len(body) if length is None else length}", *more]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@pytest.mark.parametrize("route", ["/check", "/check/http", "/check/batch"])
async def test_every_body_has_the_same_answer_on_the_wire(stage, both, route):
    secret, caller = await subject(stage), await gateway(stage)
    asked = list(bodies(secret, route)) * 3
    random.Random(5).shuffle(asked)
    for body in asked:
        found = [await way.say(post(body, caller, path=route), answers=1) for way in both]
        assert found[0] == found[1], body[:200]


HEADS: list[Sequence[str]] = [
    ("X-Request-ID: my-own",),
    ("X-Request-ID: not sane",),
    ("Connection: close",),
    ("Connection: keep-alive",),
    ("Expect: 100-continue",),
    ("Authorization: Bearer twice",),
    ("Content-Type: text/plain",),
    ("Transfer-Encoding: chunked",),
    ("Connection: upgrade", "Upgrade: h2c"),
    ("Content-Encoding: gzip",),
    ("Content-Length: 1",),
    (" folded: line",),
    ("X-Request-ID : spaced",),
    ("X-Nul: a\x00b",),
]


@pytest.mark.parametrize("more", HEADS)
async def test_every_head_has_the_same_answer_on_the_wire(stage, both, more):
    secret, caller = await subject(stage), await gateway(stage)
    body = json.dumps({**GOOD, "token": secret}).encode()
    for _ in range(3):
        found = [await way.ask(post(body, caller), post(body, caller, *more)) for way in both]
        if "chunked" not in more[0]:
            assert found[0] == found[1]
        else:
            assert found[0][0] == found[1][0]
            assert found[0][1].split()[1] == found[1][1].split()[1]


async def test_requests_one_after_the_other_in_one_piece_are_answered_in_order(stage, both):
    secret, caller = await subject(stage), await gateway(stage)
    good = post(json.dumps({**GOOD, "token": secret}).encode(), caller)
    bad = post(json.dumps({**GOOD, "token": secret, "action": "run"}).encode(), caller)
    fresh = {**GOOD, "token": secret, "target": "project:42", "fully_consistent": True}
    slow = post(json.dumps(fresh).encode(), caller)
    for pieces in ([good * 3], [good + bad + good], [good + slow + bad + CANARY], [slow + good], [good] * 4):
        count = sum(piece.count(b" HTTP/1.1\r\n") for piece in pieces)
        for _ in range(2):
            found = [await way.say(*pieces, answers=count) for way in both]
            assert found[0] == found[1]


async def test_a_request_may_be_cut_anywhere(stage, both):
    secret, caller = await subject(stage), await gateway(stage)
    whole = post(json.dumps({**GOOD, "token": secret}).encode(), caller)
    short, _ = both
    (right,) = await short.say(whole, answers=1)
    head = whole.index(b"\r\n\r\n")
    for cut in (1, 5, 30, head - 1, head, head + 2, head + 4, head + 5, len(whole) - 1):
        assert await short.say(whole[:cut], whole[cut:], answers=1) == [right], cut
        assert await short.say(whole + whole[:cut], whole[cut:] + whole, answers=3) == [right] * 3, cut


async def test_a_remembered_head_does_not_let_another_body_in(stage, both):
    """Bytes beyond the announced body are the next request's, never this one's."""
    secret, caller = await subject(stage), await gateway(stage)
    body = json.dumps({**GOOD, "token": secret}).encode()
    other = json.dumps({**GOOD, "token": secret, "action": "run"}).encode()
    short, long = both
    await warm(short, post(body, caller))
    head = post(body, caller)[: -len(body)]
    for tail in (body + CANARY, body + b"\r\n" + CANARY):
        found = [await way.say(head + tail, answers=2) for way in (short, long)]
        assert found[0] == found[1]
    for tail in (body + other, body + b"x", body + b"\r\n\r\n" + other):
        first, second = await short.say(head + tail, answers=2)
        assert b'"allow"' in first
        assert b"400 Bad Request" in second


async def test_a_remembered_head_of_a_revoked_caller_opens_nothing(stage, both):
    secret, caller, admin = await subject(stage), await gateway(stage), await stage.admin()
    short, _ = both
    whole = post(json.dumps({**GOOD, "token": secret}).encode(), caller)
    for _ in range(3):
        (answer,) = await short.say(whole, answers=1)
        assert b'"allow"' in answer
    point = stage.app.state.services.point
    token = await point.find_token(caller)
    await stage.call("DELETE", f"/v1/tokens/{token.id}", admin)
    await point.follower.poll_now()
    (answer,) = await short.say(whole, answers=1)
    assert b"HTTP/1.1 401" in answer


async def test_while_leaving_each_answer_closes_its_connection(stage, both, monkeypatch):
    secret, caller = await subject(stage), await gateway(stage)
    short, _ = both
    whole = post(json.dumps({**GOOD, "token": secret}).encode(), caller)
    for _ in range(2):
        (answer,) = await short.say(whole, answers=1)
        assert b"connection: close" not in answer
    monkeypatch.setattr(Bounded, "leaving", True)
    (answer,) = await short.say(whole, answers=1)
    assert b"connection: close" in answer


async def test_no_request_is_made_of_what_memory_answers(stage, both, monkeypatch):
    """Else the other tests would compare the application with itself."""
    secret, caller = await subject(stage), await gateway(stage)
    short, _ = both
    whole = post(json.dumps({**GOOD, "token": secret}).encode(), caller)
    named = post(json.dumps({**GOOD, "token": secret}).encode(), caller, "X-Request-ID: mine")
    await warm(short, whole)

    async def closed(*_: object) -> None:
        raise AssertionError("a request was made")

    monkeypatch.setattr(hot_module.HotPath, "__call__", closed)
    answers = await short.say(whole, named, whole + named, answers=4)
    assert all(b'"allow"' in answer for answer in answers)
    assert b"x-request-id: mine" in answers[1]


async def test_an_idle_connection_ends_and_a_busy_one_stays(stage, both):
    secret, caller = await subject(stage), await gateway(stage)
    short, _ = both
    whole = post(json.dumps({**GOOD, "token": secret}).encode(), caller)
    await short.say(whole, answers=1)
    made: list[Answering] = []

    class Watched(Bounded):
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, **kwargs)
            self.timeout_keep_alive = 1
            made.append(self)

    reader, writer = await _open_watched(stage, Watched)
    try:
        for _ in range(15):
            writer.write(whole)
            await _answer(reader)
            await asyncio.sleep(0.1)
        assert not reader.at_eof()
        async with asyncio.timeout(20):
            assert await reader.read() == b""
    finally:
        writer.close()
    assert len(made) == 1


async def _open_watched(stage: Stage, protocol: type[Bounded]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    config = uvicorn.Config(
        stage.app.state.hot, http=protocol, ws="none", lifespan="off", log_config=None, access_log=False,
        proxy_headers=False,
    )  # fmt: skip
    config.load()
    state = uvicorn.server.ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: protocol(config, state, {}), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    opened = await asyncio.open_connection("127.0.0.1", port)
    server.close()
    return opened


async def test_metrics_count_what_memory_answers(stage, both):
    secret, caller = await subject(stage), await gateway(stage)
    short, _ = both
    whole = post(json.dumps({**GOOD, "token": secret}).encode(), caller)
    await short.say(whole, answers=1)
    before = figures((await stage.client.get("/metrics")).text)
    await short.say(*[whole] * 3, whole * 2, answers=5)
    after = figures((await stage.client.get("/metrics")).text)
    changed = {name: value - before.get(name, 0.0) for name, value in after.items() if value != before.get(name, 0.0)}
    assert sorted(changed.values()) == [5.0, 5.0]
