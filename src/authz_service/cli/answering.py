"""uvicorn's protocol with a short way: a check that memory can answer never becomes a request of the application."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from authz_service.api.check.hot import HotPath, Route
from authz_service.cache.bounded import Bounded

_STATUS: Final = b"HTTP/1.1 200 OK\r\n"
_END_OF_HEAD: Final = b"\r\n\r\n"
_LONGEST_HEAD: Final = 2048
_MOST_HEADS: Final = 4096


@dataclass(frozen=True, slots=True)
class Head:
    """What the parser made of a request's head, from its first byte to its last header."""

    route: Route
    authorization: bytes
    given_id: bytes | None


@dataclass(frozen=True, slots=True)
class KnownHead:
    """A head that the same bytes stand for, and the length of the body that it announces."""

    head: Head
    length: int


class Answering(HttpToolsProtocol):
    """Answers from memory what comes in one piece; the rest is uvicorn's. Works while the application is a HotPath.

    A client that keeps its connection sends the same head with each body of one length, so heads are remembered, byte
    for byte, and not parsed again.

    INVARIANT: a head is taken from memory only where a request begins and none is under way, and only if what came is
    that head and its whole body: then the parser would have ended where it stands now.
    """

    leaving: ClassVar[bool] = False
    """Whether each answer closes its connection: then clients go elsewhere, and none is cut off while it asks."""
    heads: ClassVar[Bounded[bytes, KnownHead]] = Bounded(_MOST_HEADS)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._hot = self.app if isinstance(self.app, HotPath) else None
        self._between = True
        self._heard = float("-inf")
        self._piece = b""
        self._head: Head | None = None
        """Of a request that is held back until its body is here."""
        self._body: list[bytes] = []
        self._defaults: Sequence[tuple[bytes, bytes]] = ()
        self._status = _STATUS

    # what comes

    def data_received(self, data: bytes) -> None:
        hot = self._hot
        if hot is not None and self._between:
            head, _, body = data.partition(_END_OF_HEAD)
            known = self.heads.get(head)
            if known is not None and known.length == len(body) and self._is_free(hot):
                response = hot.respond(known.head.route, known.head.authorization, None, body)
                if response is not None:
                    self._heard = self.loop.time()
                    self._write(response)
                    return
        self._piece = data
        super().data_received(data)
        self._piece = b""
        if self._head is not None:  # the rest is still to come, and that is nothing to wait for here
            self._make_request()

    def on_message_begin(self) -> None:
        self._between = False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        hot = self._hot
        route = None if hot is None else hot.routes.get(self.url)
        if hot is not None and route is not None and self._is_free(hot) and self._is_plain():
            authorization = hot.caller_of(self.headers)
            if authorization is not None:
                self._head = Head(route, authorization, dict(self.headers).get(b"x-request-id"))
                return
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self._head is None:
            super().on_body(body)
        else:
            self._body.append(body)

    def on_message_complete(self) -> None:
        self._between = True
        hot, head = self._hot, self._head
        if hot is None or head is None:
            super().on_message_complete()
            return
        body = b"".join(self._body)
        response = hot.respond(head.route, head.authorization, head.given_id, body)
        if response is None:
            self._make_request()
            super().on_message_complete()
            return
        self._head = None
        self._body.clear()
        self._write(response)
        if self.timeout_keep_alive_task is None:
            self._await_more(self.timeout_keep_alive)
        self._learn(head, body)

    def _learn(self, head: Head, body: bytes) -> None:
        """Only of a piece that was one whole request; a client's own ids make each head another."""
        end = len(self._piece) - len(body)
        text = self._piece[: end - len(_END_OF_HEAD)]
        whole = text + _END_OF_HEAD + body == self._piece and _END_OF_HEAD not in text
        if head.given_id is None and body and whole and len(text) <= _LONGEST_HEAD:
            self.heads[text] = KnownHead(head, len(body))

    def _is_free(self, hot: HotPath) -> bool:
        """Whether an answer may be written now: nobody waits for an earlier one, and this is not to be the last."""
        cycle: RequestResponseCycle | None = self.cycle
        return (
            (cycle is None or cycle.response_complete)
            and self.app is hot
            and not self.leaving
            and not self.flow.write_paused
            and not self.transport.is_closing()
        )

    def _is_plain(self) -> bool:
        parser = self.parser
        return (
            parser.get_method() == b"POST"
            and parser.get_http_version() == "1.1"
            and parser.should_keep_alive()
            and not parser.should_upgrade()
        )

    def _make_request(self) -> None:
        """What was held back becomes the request that it would have been."""
        held, self._body = self._body, []
        self._head = None
        super().on_headers_complete()
        for body in held:
            super().on_body(body)

    # what goes

    def _write(self, response: bytes) -> None:
        defaults = self.server_state.default_headers
        if defaults is not self._defaults:  # uvicorn makes them anew when its date changes
            self._defaults = defaults
            self._status = _STATUS + b"".join(b"%b: %b\r\n" % (name, value) for name, value in defaults)
        self.transport.write(self._status + response)
        self.server_state.total_requests += 1

    # how long an idle connection stays

    def _await_more(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def timeout_keep_alive_handler(self) -> None:
        """The short way leaves the timer alone and notes when it was asked."""
        left = self._heard + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._await_more(left)
        else:
            super().timeout_keep_alive_handler()
