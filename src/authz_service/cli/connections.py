"""Connections of clients: as many as there are files for, and none that takes for ever over a request."""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections.abc import Iterable
from typing import Any, ClassVar, Final

from authz_service.cli.answering import Answering

_HEAD_SECONDS: Final = 10.0
"""From a request's first byte until its last header."""
_PROGRESS_SECONDS: Final = 20.0
"""Between two pieces of a body, or until some of an answer is taken."""
_OWN_FILES: Final = 256
"""Left for the database, logs, metrics and whatever a library opens."""
_SHED: Final = b'{"decision":"deny","reason":"overloaded","message":"too many connections; try again shortly"}'


async def shed(scope: Any, receive: Any, send: Any) -> None:
    """Answers whatever is asked: not now."""
    del scope, receive
    headers = [
        (b"content-type", b"application/json"),
        (b"cache-control", b"no-store"),
        (b"retry-after", b"1"),
        (b"connection", b"close"),
        (b"content-length", str(len(_SHED)).encode()),
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": _SHED})


def allow_files() -> int:
    """Raise this process's limit of open files as far as it may; answers how many connections that leaves room for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # some systems name a limit that they do not grant
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 1_000_000 if soft == resource.RLIM_INFINITY else max(16, soft - _OWN_FILES)


class Bounded(Answering):
    """The protocol with an end to patience. One worker, one process: its state is the class's."""

    limit: ClassVar[int] = 1_000_000
    """Connections of one listener that are served; set before the first one."""
    shedding: ClassVar[int] = 128
    """Connections beyond the limit that still get an answer, of 503; what is beyond them is reset."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._reading = False
        self._in_head = False
        self._impatience: asyncio.TimerHandle | None = None
        self._untaken: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        beyond = len(self.connections) - self.limit
        if beyond > self.shedding:
            transport.abort()
            return
        if beyond > 0:
            self.app = shed
        # As long as an answered connection may idle, a new one may.
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def data_received(self, data: bytes) -> None:
        if self._impatience is not None and not self._in_head:
            self._impatience.cancel()
            self._impatience = None
        super().data_received(data)
        # The usual request comes in one piece and never gets here.
        if self._reading and self._impatience is None:
            seconds = _HEAD_SECONDS if self._in_head else _PROGRESS_SECONDS
            self._impatience = self.loop.call_later(seconds, self._give_up)

    def on_message_begin(self) -> None:
        self._reading = self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._be_patient()
        super().on_headers_complete()
        if self.leaving and self.cycle is not None:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        self._reading = False
        self._be_patient()
        super().on_message_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._untaken is None:
            self._untaken = self.loop.call_later(_PROGRESS_SECONDS, self._give_up)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._untaken is not None:
            self._untaken.cancel()
            self._untaken = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._be_patient()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        if self._untaken is not None:
            self._untaken.cancel()

    @classmethod
    def leave(cls, connections: Iterable[Any]) -> None:
        """From here on each answer is the last of its connection, also those that are under way."""
        cls.leaving = True
        for connection in connections:
            if connection.cycle is not None:
                connection.cycle.keep_alive = False

    def _be_patient(self) -> None:
        if self._impatience is not None:
            self._impatience.cancel()
            self._impatience = None

    def _give_up(self) -> None:
        self.transport.abort()
