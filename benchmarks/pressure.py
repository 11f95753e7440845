"""Our own load: every question once, as fast as answers come, or at a rate that does not wait for answers."""

from __future__ import annotations

import gc
import random
import re
import select
import socket
import time
from array import array
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from benchmarks.servers import HOST

_SILENCE = 30.0
"""Seconds without any answer after which a server counts as hung."""


class PressureError(Exception):
    """A server closed a connection, or went silent."""


class Reply(NamedTuple):
    """`number` is what the request was sent with. `body` is empty where nobody looks at it."""

    number: int
    status: int
    body: bytes


class Connection(Protocol):
    """One connection that carries up to `room` requests at once."""

    room: int

    def fileno(self) -> int: ...

    def send(self, number: int, request: bytes) -> None: ...

    def receive(self) -> Sequence[Reply]:
        """The replies that are whole now; call it when the socket is readable."""
        ...

    def close(self) -> None: ...


class Http1:
    """One keep-alive connection of HTTP/1.1 with one request under way."""

    room = 1
    _LENGTH = re.compile(rb"content-length: *([0-9]+)", re.IGNORECASE)

    def __init__(self, port: int) -> None:
        self._socket = connect(port)
        self._number = 0
        self._data = b""

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, number: int, request: bytes) -> None:
        self._number = number
        send_all(self._socket, request)

    def receive(self) -> Sequence[Reply]:
        data = self._socket.recv(1 << 20)
        if not data:
            raise PressureError("the server closed a connection")
        if self._data:
            data = self._data + data
        end = data.find(b"\r\n\r\n")
        length = None if end < 0 else self._LENGTH.search(data, 0, end)
        if end >= 0 and length is None:
            body = _unchunk(data[end + 4 :])
        else:
            whole = len(data) - end - 4 if end >= 0 else -1
            body = data[end + 4 :] if length is not None and whole >= int(length[1]) else None
        if body is None:
            self._data = data
            return ()
        self._data = b""
        return (Reply(self._number, int(data[9:12]), body),)

    def close(self) -> None:
        self._socket.close()


def _unchunk(data: bytes) -> bytes | None:
    """The body of a chunked reply; None while some of it is missing."""
    found = bytearray()
    while True:
        line, separator, data = data.partition(b"\r\n")
        if not separator:
            return None
        size = int(line.split(b";")[0], 16)
        if len(data) < size + 2:
            return None
        if size == 0:
            return bytes(found)
        found += data[:size]
        data = data[size + 2 :]


def connect(port: int) -> socket.socket:
    found = socket.create_connection((HOST, port), timeout=10)
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    found.settimeout(0)
    return found


def send_all(to: socket.socket, data: bytes) -> None:
    """All of it, even where the socket takes only a part at once."""
    try:
        sent = to.send(data)
    except BlockingIOError:
        sent = 0
    if sent < len(data):
        to.settimeout(_SILENCE)
        to.sendall(memoryview(data)[sent:])
        to.settimeout(0)


class Post(NamedTuple):
    """One request of HTTP/1.1, ready to be sent."""

    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def encode(self) -> bytes:
        lines = [f"POST {self.path} HTTP/1.1", f"Host: {HOST}"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + self.body


@dataclass
class Measured:
    """Answers in a number of seconds, with the time that each took, in seconds, sorted.

    `late` is how much later than due this process sent a request although a connection was free: 99 of 100 were sooner.
    """

    seconds: float
    times: Sequence[float]
    failed: int = 0
    late: float | None = 0.0
    """None where another program made the load, and does not tell."""
    answered: int | None = None
    """How many were really answered, where `times` also has those that would have been asked."""

    @property
    def rate(self) -> float:
        return (len(self.times) if self.answered is None else self.answered) / self.seconds

    def quantile(self, share: float) -> float:
        """In seconds."""
        if not self.times:
            return float("nan")
        return self.times[min(len(self.times) - 1, int(len(self.times) * share))]


class _Ring:
    """Connections with room, and those that have something to say."""

    def __init__(self, connections: Sequence[Connection]) -> None:
        self.by_number = {connection.fileno(): connection for connection in connections}
        self.free = [connection for connection in connections for _ in range(connection.room)]
        self._poll = select.epoll()
        for number in self.by_number:
            self._poll.register(number, select.EPOLLIN)

    def readable(self, patience: float) -> Sequence[tuple[int, int]]:
        return self._poll.poll(patience)

    def close(self) -> None:
        self._poll.close()


@contextmanager
def _steady() -> Any:
    """No garbage collection of ours while others are measured."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def ask_each(connections: Sequence[Connection], requests: Sequence[bytes]) -> tuple[list[Reply], Measured]:
    """Every request once, in order as far as connections are free; the replies by the requests' positions."""
    ring = _Ring(connections)
    clock = time.perf_counter
    replies: list[Reply | None] = [None] * len(requests)
    sent = [0.0] * len(requests)
    times = array("d")
    position = missing = 0
    with _steady():
        begin = last = clock()
        while position < len(requests) or missing:
            while ring.free and position < len(requests):
                sent[position] = clock()
                ring.free.pop().send(position, requests[position])
                position += 1
                missing += 1
            for number, _ in ring.readable(1.0):
                connection = ring.by_number[number]
                for reply in connection.receive():
                    last = clock()
                    times.append(last - sent[reply.number])
                    replies[reply.number] = reply
                    ring.free.append(connection)
                    missing -= 1
            if clock() - last > _SILENCE:
                raise PressureError(f"{missing} requests got no answer")
    ring.close()
    return [reply for reply in replies if reply is not None], Measured(last - begin, sorted(times))


def press(connections: Sequence[Connection], requests: Sequence[bytes], *, seconds: float) -> Measured:
    """Closed loop: each connection asks again once it was answered."""
    ring = _Ring(connections)
    clock = time.perf_counter
    times = array("d")
    failed = position = 0
    sent: dict[int, float] = {}
    with _steady():
        begin = last = clock()
        while last - begin < seconds:
            while ring.free:
                sent[position] = clock()
                ring.free.pop().send(position, requests[position % len(requests)])
                position += 1
            ready = ring.readable(1.0)
            if not ready and clock() - last > _SILENCE:
                raise PressureError("no answer")
            for number, _ in ready:
                connection = ring.by_number[number]
                for reply in connection.receive():
                    last = clock()
                    times.append(last - sent.pop(reply.number))
                    failed += reply.status != 200
                    ring.free.append(connection)
    ring.close()
    return Measured(last - begin, sorted(times), failed)


def offer(
    connections: Sequence[Connection], requests: Sequence[bytes], *, rate: float, seconds: float, seed: int = 1
) -> Measured:
    """Open loop: requests fall due at random moments, `rate` a second, whether or not earlier ones were answered.

    Each time is counted from the moment a request was due: what waits for a free connection, or for this very process,
    counts as waiting. So no stall of the server can hide by keeping the questions away.
    """
    ring = _Ring(connections)
    clock = time.perf_counter
    rng = random.Random(seed)
    gaps = [rng.expovariate(rate) for _ in range(1 << 16)]
    times, lates = array("d"), array("d")
    failed = position = drawn = missing = 0
    due: dict[int, float] = {}
    with _steady():
        begin = last = clock()
        next_due = begin + gaps[0]
        end = begin + seconds
        while next_due < end or missing:
            now = clock()
            while next_due <= now and next_due < end and ring.free:
                due[position] = next_due
                lates.append(now - next_due)
                ring.free.pop().send(position, requests[position % len(requests)])
                position += 1
                missing += 1
                drawn = (drawn + 1) & 0xFFFF
                next_due += gaps[drawn]
            for number, _ in ring.readable(0):
                connection = ring.by_number[number]
                for reply in connection.receive():
                    last = clock()
                    times.append(last - due.pop(reply.number))
                    failed += reply.status != 200
                    ring.free.append(connection)
                    missing -= 1
            if now - last > _SILENCE:
                raise PressureError(f"{missing} requests got no answer")
    ring.close()
    late = sorted(lates)[len(lates) * 99 // 100] if lates else 0.0
    return Measured(max(seconds, last - begin), sorted(times), failed, late)
