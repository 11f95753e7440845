"""Bytes that two readers could cut into requests differently: nothing hidden in them runs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re

import pytest
from tests.integration.test_answering import both, listening, post, stage  # noqa: F401 - fixtures
from tests.integration.test_hot_path import GOOD, gateway, subject
from tests.support.managing import Stage

from authz_service.cli.answering import Answering

CRLF = "\r\n"


def hidden(secret: str) -> str:
    """A request that would leave a trace: it ends the token that it shows."""
    return CRLF.join(
        ["DELETE /v1/self HTTP/1.1", "Host: a", f"Authorization: Bearer {secret}", "Content-Length: 0", "", ""]
    )


# Each head comes before a body that ends where one reader thinks, and goes on with a hidden request for another.
# `{n}` is the length of all that follows, `{body}` a whole chunked body of nothing, `{inner}` the hidden request.
CORPUS = {
    "length and chunks": ("Content-Length: {n}", "Transfer-Encoding: chunked", "", "0\r\n\r\n{inner}"),
    "chunks and length": ("Transfer-Encoding: chunked", "Content-Length: {n}", "", "0\r\n\r\n{inner}"),
    "a short length and chunks": ("Content-Length: 3", "Transfer-Encoding: chunked", "", "0\r\n\r\n{inner}"),
    "two lengths": ("Content-Length: 0", "Content-Length: {n}", "", "{inner}"),
    "two lengths, the long one first": ("Content-Length: {n}", "Content-Length: 0", "", "{inner}"),
    "a list of lengths": ("Content-Length: 0, {n}", "", "{inner}"),
    "a length with a sign": ("Content-Length: +{n}", "", "{inner}"),
    "a length with a minus": ("Content-Length: -1", "", "{inner}"),
    "a length in hex": ("Content-Length: 0x0", "", "{inner}"),
    "a length with a space inside": ("Content-Length: 0 {n}", "", "{inner}"),
    "a length beyond all numbers": ("Content-Length: 18446744073709551616", "", "{inner}"),
    "a length of nothing": ("Content-Length: ", "", "{inner}"),
    "a space before the colon": ("Content-Length : {n}", "", "{inner}"),
    "a tab before the colon": ("Content-Length\t: {n}", "", "{inner}"),
    "a length on a folded line": ("X-A: b", " Content-Length: {n}", "", "{inner}"),
    "chunks spelt oddly": ("Transfer-Encoding: xchunked", "Content-Length: {n}", "", "0\r\n\r\n{inner}"),
    "chunks, and as it is": ("Transfer-Encoding: chunked, identity", "", "0\r\n\r\n{inner}"),
    "chunks twice": (
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: chunked",
        "Content-Length: {n}",
        "",
        "0\r\n\r\n{inner}",
    ),
    "chunks behind a tab": ("Transfer-Encoding:\tchunked", "Content-Length: {n}", "", "0\r\n\r\n{inner}"),
    "chunks behind a vertical tab": ("Transfer-Encoding: \x0bchunked", "Content-Length: {n}", "", "0\r\n\r\n{inner}"),
    "chunks with a NUL": ("Transfer-Encoding: chunked\x00", "Content-Length: {n}", "", "0\r\n\r\n{inner}"),
    "an underscore": ("Transfer_Encoding: chunked", "Content-Length: {n}", "", "0\r\n\r\n{inner}"),
    "a chunk with a bare line feed": ("Transfer-Encoding: chunked", "", "0\n\n{inner}"),
    "a chunk size with a sign": ("Transfer-Encoding: chunked", "", "-0\r\n\r\n{inner}"),
    "a chunk size in another form": ("Transfer-Encoding: chunked", "", "0x0\r\n\r\n{inner}"),
    "a chunk size beyond all numbers": ("Transfer-Encoding: chunked", "", "fffffffffffffffff0\r\n\r\n{inner}"),
    "a chunk that ends too late": ("Transfer-Encoding: chunked", "", "2\r\nxyz\r\n0\r\n\r\n{inner}"),
    "a header in the trailer": ("Transfer-Encoding: chunked", "", "0\r\nContent-Length: 5\r\n\r\n{inner}"),
    "a bare carriage return": ("X-A: b\rContent-Length: {n}", "", "{inner}"),
    "a bare line feed": ("X-A: b\nContent-Length: {n}", "", "{inner}"),
    "a NUL in a value": ("X-A: b\x00c", "Content-Length: {n}", "", "{inner}"),
    "a NUL in a name": ("X-\x00A: b", "Content-Length: {n}", "", "{inner}"),
    "no colon": ("Content-Length {n}", "", "{inner}"),
    "a header without a name": (": {n}", "", "{inner}"),
    "an upgrade": (
        "Connection: Upgrade",
        "Upgrade: h2c",
        "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
        "Content-Length: {n}",
        "",
        "{inner}",
    ),
    "an expectation": ("Expect: 100-continue", "Content-Length: {n}", "", "{inner}"),
}
STARTS = ("POST /check HTTP/1.1", "POST /check HTTP/1.0", "GET /livez HTTP/1.1")
AMBIGUOUS = frozenset(
    name
    for name in CORPUS
    if any(word in name for word in ("two lengths", "length and chunks", "chunks and length", "list", "sign"))
)
"""Where there is no right reading, the connection ends: what comes after is nobody's."""


async def exchange(port: int, request: bytes) -> bytes:
    """All that comes back until the server falls silent or closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    found = b""
    try:
        writer.write(request)
        with contextlib.suppress(TimeoutError, ConnectionError):
            while True:
                # Whoever waits for more of a body says nothing; a second of silence on loopback is no answer.
                async with asyncio.timeout(0.25 if found else 1.0):
                    piece = await reader.read(65536)
                if not piece:
                    break
                found += piece
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    return found


def make(start: str, lines: tuple[str, ...], inner: str, caller: str) -> bytes:
    *head, tail = lines
    body = tail.format(inner=inner)
    text = CRLF.join([start, "Host: a", f"Authorization: Bearer {caller}", *head]) + CRLF + body
    return text.replace("{n}", str(len(body))).encode("latin-1")


@pytest.mark.parametrize("start", STARTS)
async def test_a_request_hidden_in_another_is_not_taken_for_one(stage: Stage, start):  # noqa: F811
    caller = await gateway(stage)
    async with listening(stage.app.state.hot) as server:
        # What stands there plainly does run: the test would see it.
        plain, secret = await stage.give("dana", await stage.scope_at("gitlab", ["acme/web"], "job:read"))
        await exchange(server.port, make(STARTS[2], ("Content-Length: 0", "", "{inner}"), hidden(secret), caller))
        assert (await stage.call("GET", f"/v1/tokens/{plain}", await stage.admin())).json()["state"] == "revoked"
        ran = []
        for name, lines in CORPUS.items():
            victim, secret = await stage.give("dana", await stage.scope_at("gitlab", ["acme/web"], "job:read"))
            answer = await exchange(server.port, make(start, lines, hidden(secret), caller))
            state = (await stage.call("GET", f"/v1/tokens/{victim}", await stage.admin())).json()["state"]
            statuses = [line.split()[1] for line in answer.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]
            if name in AMBIGUOUS:
                assert state == "active", (name, answer)
                assert b"200" not in statuses[1:], (name, answer)
            elif state != "active":
                ran.append((name, statuses))
        # What is left has one reading for every server: the body ends there, and a second request follows.
        assert {name for name, _ in ran} <= ONE_READING, ran


ONE_READING: frozenset[str] = frozenset()


async def test_a_head_from_memory_is_cut_as_the_parser_cuts_it(stage, both):  # noqa: F811
    """The short way remembers heads byte for byte: a corpus of odd ends behind a head that it knows."""
    secret, caller = await subject(stage), await gateway(stage)
    body = json.dumps({**GOOD, "token": secret}).encode()
    victim, shown = await stage.give("dana", await stage.scope_at("gitlab", ["acme/web"], "job:read"))
    short, long = both
    good = post(body, caller)
    for _ in range(50):
        await short.ask(good)
        if Answering.heads:
            break
        await asyncio.sleep(0.02)
    assert Answering.heads
    inner = hidden(shown).encode()
    right = strip(await exchange(short.port, good))
    assert right == [b"HTTP/1.1 200", b'"decision":"allow"']
    for tail in (
        b"0\r\n\r\n" + inner,
        b"\x00" + inner,
        b"\n" + inner[:20],
        b"GET" + inner,
        inner.replace(b"DELETE", b"DEL\x00ETE"),
        b" " + inner,
    ):
        found = [strip(await exchange(way.port, good + tail)) for way in (short, long)]
        # The first request was whole and good: the short way has answered it before it looks at what follows.
        assert found[0] in (found[1], [*right, *found[1]]), tail[:40]
    answer = (await stage.call("GET", f"/v1/tokens/{victim}", await stage.admin())).json()
    assert answer["state"] == "active"


def strip(answer: bytes) -> list[bytes]:
    """The answers' statuses and decisions; their ids and dates differ."""
    return re.findall(rb'HTTP/1\.1 \d{3}|"decision":"[a-z]+"', answer)


TWICE = [
    ("Authorization: Bearer {caller}", "Authorization: Bearer nonsense"),
    ("Authorization: Bearer nonsense", "Authorization: Bearer {caller}"),
    ("Authorization: Bearer {caller}", "authorization: Bearer {caller}"),
    ("Authorization: Bearer {caller}, Bearer {caller}",),
    ("Authorization: Bearer {caller} {caller}",),
    ("Authorization : Bearer {caller}",),
    ("Authorization\x00: Bearer {caller}",),
    ("Authorization: Bearer {caller}\x00",),
    ("Authorization: Bearer {caller}\x0b",),
    (" Authorization: Bearer {caller}",),
    ("X: y", " Authorization: Bearer {caller}"),
    ("Author_ization: Bearer {caller}",),
    ("Authorization: Basic x", "Proxy-Authorization: Bearer {caller}"),
]


@pytest.mark.parametrize("lines", TWICE, ids=range(len(TWICE)))
async def test_a_caller_is_known_by_one_plain_header_alone(stage, both, lines):  # noqa: F811
    secret, caller = await subject(stage), await gateway(stage)
    body = json.dumps({**GOOD, "token": secret})
    given = CRLF.join(line.format(caller=caller) for line in lines)
    request = f"POST /check HTTP/1.1{CRLF}Host: a{CRLF}{given}{CRLF}Content-Length: {len(body)}{CRLF}{CRLF}{body}"
    for way in both:
        for _ in range(2):
            answer = await exchange(way.port, request.encode("latin-1"))
            assert answer.split()[1:2] in ([b"400"], [b"401"]), answer
            assert b'"allow"' not in answer
    allowed = await exchange(both[0].port, post(body.encode(), caller))
    assert b'"allow"' in allowed
