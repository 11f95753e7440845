"""A connection that speaks just enough HTTP/2 to ask a gRPC server, at next to no cost of our own."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from benchmarks.pressure import PressureError, Reply, connect, send_all
from benchmarks.servers import HOST

_DATA: Final = 0
_HEADERS: Final = 1
_RST_STREAM: Final = 3
_SETTINGS: Final = 4
_PING: Final = 6
_GOAWAY: Final = 7
_WINDOW_UPDATE: Final = 8
_END_STREAM: Final = 1
_ACK: Final = 1
_END_HEADERS: Final = 4
_LARGEST_FRAME: Final = 16_384
_LARGEST_WINDOW: Final = 2**31 - 1
_FIRST_WINDOW: Final = 65_535


class Grpc:
    """Up to `room` calls at once on one connection. A request is what `encode_call` made.

    A reply's body is the message without its prefix; its status is 200 when there is a message, else 500: the trailers
    are not decoded. Requests must stay small, for the server's flow control is trusted and not counted.
    """

    def __init__(self, port: int, *, room: int = 8) -> None:
        self.room = room
        self._socket = connect(port)
        self._stream = 1
        self._numbers: dict[int, int] = {}
        self._bodies: dict[int, bytes] = {}
        self._data = b""
        window = _frame(_SETTINGS, 0, 0, struct.pack(">HI", 4, _LARGEST_WINDOW))
        whole = _frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", _LARGEST_WINDOW - _FIRST_WINDOW))
        send_all(self._socket, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + window + whole)

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, number: int, request: bytes) -> None:
        stream = self._stream
        self._stream += 2
        self._numbers[stream] = number
        (split,) = struct.unpack_from(">I", request)
        mark = struct.pack(">I", stream)
        headers, data = request[4:split], request[split:]
        send_all(self._socket, headers[:5] + mark + headers[9:] + data[:5] + mark + data[9:])

    def receive(self) -> Sequence[Reply]:
        got = self._socket.recv(1 << 20)
        if not got:
            raise PressureError("the server closed a connection")
        data = self._data + got if self._data else got
        at, size = 0, len(data)
        replies: list[Reply] = []
        while size - at >= 9:
            length = int.from_bytes(data[at : at + 3])
            end = at + 9 + length
            if end > size:
                break
            kind, flags = data[at + 3], data[at + 4]
            stream = int.from_bytes(data[at + 5 : at + 9])
            if kind == _DATA:
                self._bodies[stream] = self._bodies.get(stream, b"") + data[at + 9 : end]
            elif kind == _RST_STREAM:
                replies.append(Reply(self._numbers.pop(stream), 500, b""))
            elif kind == _GOAWAY:
                raise PressureError("the server ended a connection")
            elif kind in (_SETTINGS, _PING) and not flags & _ACK:
                send_all(self._socket, _frame(kind, _ACK, 0, data[at + 9 : end] if kind == _PING else b""))
            if kind in (_DATA, _HEADERS) and flags & _END_STREAM:
                body = self._bodies.pop(stream, b"")
                replies.append(Reply(self._numbers.pop(stream), 200 if body else 500, body[5:]))
            at = end
        self._data = data[at:]
        return replies

    def close(self) -> None:
        self._socket.close()


def encode_call(method: str, message: bytes) -> bytes:
    """One call's frames, with room for the stream's number, and in front where the second one begins."""
    if len(message) + 5 > _LARGEST_FRAME:
        raise ValueError("the message does not fit into one frame")
    headers = (
        b"\x83\x86"  # POST, http
        + _literal(4, method.encode())  # :path
        + _literal(1, HOST.encode())  # :authority
        + _literal(31, b"application/grpc")  # content-type
        + b"\x00\x02te\x08trailers"
    )
    first = _frame(_HEADERS, _END_HEADERS, 0, headers)
    second = _frame(_DATA, _END_STREAM, 0, b"\x00" + struct.pack(">I", len(message)) + message)
    return struct.pack(">I", 4 + len(first)) + first + second


def _literal(name: int, value: bytes) -> bytes:
    """A header of the static table's name, never indexed, so that every call is the same bytes (RFC 7541, 6.2.2)."""
    if len(value) > 126:
        raise ValueError("the header is too long")
    index = bytes([name]) if name < 15 else bytes([15, name - 15])
    return index + bytes([len(value)]) + value


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + struct.pack(">I", stream) + payload
