"""The short way for `/check`, `/check/http` and `/check/batch`: bytes in, a look-up, bytes out, if nothing is unusual.

A server that knows it asks `respond` before it makes anything of a request; any other calls it as an application.

INVARIANT: the short way gives the bytes, headers and metrics that the long way gives. It answers only what the long
way answered before, from facts that still stand; a test sends the same corpus both ways.
"""

from __future__ import annotations

import itertools
import secrets
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter
from typing import Final, TypeAlias

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from authz_service.api.check.encoding import revision_tail, with_revision, with_revision_many
from authz_service.api.check.serving import Serving
from authz_service.api.wire import request_id_of
from authz_service.pdp.question import Stamp
from authz_service.pdp.quick import QuickAnswers

_JSON_TYPE: Final = (b"content-type", b"application/json")
_NO_STORE: Final = (b"cache-control", b"no-store")
_RESPONSE: Final = (
    b"cache-control: no-store\r\ncontent-length: %d\r\ncontent-type: application/json\r\nx-request-id: %b\r\n\r\n%b"
)
_UNUSUAL: Final = frozenset({b"content-encoding", b"transfer-encoding", b"expect"})
"""Headers that send a request the long way."""


class _Check(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    token: str
    catalog: str
    resource: str
    action: str
    target: str


class _Http(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    token: str
    catalog: str
    method: str
    path: str


class _Item(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    resource: str
    action: str
    target: str


class _Batch(msgspec.Struct, forbid_unknown_fields=True):
    token: str
    catalog: str
    items: list[_Item]


_read_check: Final = msgspec.json.Decoder(_Check).decode
_read_http: Final = msgspec.json.Decoder(_Http).decode
_read_batch: Final = msgspec.json.Decoder(_Batch).decode

# Without a backslash, quotes come in pairs around texts. Each text field is a name and a value, so a body with this
# many quotes has each field once: msgspec itself would keep the last of two fields of one name.
_QUOTES_OF_CHECK: Final = 4 * 5
_QUOTES_OF_HTTP: Final = 4 * 4
_QUOTES_OF_BATCH: Final = 4 * 2 + 2
_QUOTES_OF_ITEM: Final = 4 * 3

CALLER_SECRET: Final = "authz.caller"
"""Where the long way leaves, in the request's scope, the secret of a caller whom it answered."""


class Timings:
    """How long requests took: counts by bucket, as a histogram keeps them, and the sum in seconds."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._seconds = 0.0

    def add(self, seconds: float) -> None:
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._seconds += seconds

    def take(self) -> tuple[list[int], float]:
        """What was added since the last take."""
        taken = self._counts, self._seconds
        self._counts, self._seconds = [0] * len(self._counts), 0.0
        return taken


class RequestIds:
    """The caller's own ids, or short ones of this process."""

    def __init__(self) -> None:
        self._start = secrets.token_hex(8).encode()
        self._numbers = itertools.count(1)

    def choose(self, given: bytes | None) -> bytes:
        """`given` where it is sane, as any other route takes it."""
        if given is None:
            return b"%b%016x" % (self._start, next(self._numbers))
        return request_id_of(given.decode("latin-1")).encode()


_Answer: TypeAlias = Callable[[QuickAnswers, bytes, bytes], bytes | None]
"""From the caller's header and a body to the body of the answer, or None: then the long way has to."""


class Route:
    """A path that has a short way."""

    __slots__ = ("answer", "limit", "path", "timings")

    def __init__(self, path: str, limit: int, bounds: Sequence[float], answer: _Answer) -> None:
        self.path = path
        self.limit = limit
        self.answer = answer
        self.timings = Timings(bounds)


class HotPath:
    """The outermost layer. `quick` is set once the application runs; without it everything takes the long way."""

    def __init__(self, app: ASGIApp, serving: Serving) -> None:
        self._app = app
        self._serving = serving
        self.quick: QuickAnswers | None = None
        self._stamp: Stamp | None = None
        self._tail = b""
        buckets = serving.metrics.buckets
        self.routes = {
            b"/check": Route("/check", serving.body_limit, buckets, self._check),
            b"/check/http": Route("/check/http", serving.body_limit, buckets, self._http),
            b"/check/batch": Route("/check/batch", serving.batch_limit, buckets, self._batch),
        }
        """By the path as it is written in a request line without a query."""
        self._ids = RequestIds()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and not scope["query_string"]:
            route = self.routes.get(scope["path"].encode())
            if route is not None:
                await self._answer(scope, receive, send, route)
                return
        await self._app(scope, receive, send)

    def caller_of(self, headers: Sequence[tuple[bytes, bytes]]) -> bytes | None:
        """The header that names a known caller, of a request with nothing unusual in its headers; names are small."""
        found = dict(headers)
        authorization = found.get(b"authorization")
        quick = self.quick
        if quick is None or authorization is None or len(found) != len(headers) or not _UNUSUAL.isdisjoint(found):
            return None
        return authorization if quick.knows_caller(authorization) else None

    def respond(self, route: Route, authorization: bytes, given_id: bytes | None, body: bytes) -> bytes | None:
        """The answer from its own first header to its end, or None: the request has to be made for the long way."""
        quick = self.quick
        if quick is None or len(body) > route.limit:
            return None
        started = perf_counter()
        request_id = self._ids.choose(given_id)
        quick.request_id = request_id
        answered = route.answer(quick, authorization, body)
        if answered is None:
            return None
        response = _RESPONSE % (len(answered), request_id, answered)
        route.timings.add(perf_counter() - started)
        return response

    async def _answer(self, scope: Scope, receive: Receive, send: Send, route: Route) -> None:
        started = perf_counter()
        headers = scope["headers"]
        authorization = self.caller_of(headers)
        quick = self.quick
        if authorization is None or quick is None:
            await self._take_long_way(scope, receive, send)
            return
        message = await receive()
        messages = [message]
        body: bytes | None = message.get("body", b"") if message["type"] == "http.request" else None
        if body is not None and message.get("more_body"):
            body = await _read_on(messages, receive, route.limit)
        request_id = self._ids.choose(dict(headers).get(b"x-request-id"))
        quick.request_id = request_id
        answered = route.answer(quick, authorization, body) if body is not None and len(body) <= route.limit else None
        if answered is None:
            await self._take_long_way(scope, _again(messages, receive), send)
            return
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [
                    _NO_STORE,
                    (b"content-length", b"%d" % len(answered)),
                    _JSON_TYPE,
                    (b"x-request-id", request_id),
                ],
            }
        )
        await send({"type": "http.response.body", "body": answered})
        route.timings.add(perf_counter() - started)

    def _check(self, quick: QuickAnswers, authorization: bytes, body: bytes) -> bytes | None:
        if b"\\" in body or body.count(b'"') != _QUOTES_OF_CHECK:
            return None
        try:
            asked = _read_check(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        known = quick.admit(authorization, asked.token, asked.catalog)
        if known is None:
            return None
        decision = quick.answer(known, asked.catalog, asked.resource, asked.action, asked.target)
        if decision is None:
            return None
        return with_revision(decision, self._revision(quick))

    def _http(self, quick: QuickAnswers, authorization: bytes, body: bytes) -> bytes | None:
        if b"\\" in body or body.count(b'"') != _QUOTES_OF_HTTP:
            return None
        try:
            asked = _read_http(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        known = quick.admit(authorization, asked.token, asked.catalog)
        if known is None:
            return None
        decision = quick.answer_call(known, asked.catalog, asked.method, asked.path)
        return None if decision is None else with_revision(decision, self._revision(quick))

    def _batch(self, quick: QuickAnswers, authorization: bytes, body: bytes) -> bytes | None:
        if b"\\" in body:
            return None
        try:
            asked = _read_batch(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        items = asked.items
        if not 1 <= len(items) <= 10_000:
            return None
        if body.count(b'"') != _QUOTES_OF_BATCH + _QUOTES_OF_ITEM * len(items):
            return None
        known = quick.admit(authorization, asked.token, asked.catalog)
        if known is None:
            return None
        decisions = quick.answer_all(
            known, asked.catalog, [(item.resource, item.action, item.target) for item in items]
        )
        if decisions is None:
            return None
        return with_revision_many(decisions, self._revision(quick))

    def _revision(self, quick: QuickAnswers) -> bytes:
        stamp = quick.stamp
        if stamp is not None and stamp is not self._stamp:
            self._tail = revision_tail(stamp)
            self._stamp = stamp
        return self._tail

    async def _take_long_way(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The documented route; on its way out the route tells the quick answers what it decided on."""
        await self._app(scope, receive, send)
        quick = self.quick
        caller: str | None = scope.get(CALLER_SECRET)
        if caller is not None and quick is not None:
            quick.learn_caller(dict(scope["headers"])[b"authorization"], caller)

    def fold(self) -> None:
        """Hand over what was counted in plain numbers: once a second, and before the metrics are read."""
        metrics = self._serving.metrics
        for route in self.routes.values():
            metrics.add_requests(route.path, 200, *route.timings.take())
        quick = self.quick
        if quick is not None:
            for reason, count in quick.take_counts().items():
                metrics.add_decisions(reason, count)


async def _read_on(messages: list[Message], receive: Receive, limit: int) -> bytes | None:
    """The rest of a body that comes in pieces, noted in `messages`; None when it is too long or the client left."""
    pieces: list[bytes] = [messages[0].get("body", b"")]
    size = len(pieces[0])
    more = True
    while more and size <= limit:
        message = await receive()
        messages.append(message)
        if message["type"] != "http.request":
            return None
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
        more = message.get("more_body", False)
    return b"".join(pieces) if not more else None


def _again(messages: list[Message], receive: Receive) -> Callable[[], Awaitable[Message]]:
    """`receive` with the first messages put back."""
    first = messages[::-1]

    async def receiving() -> Message:
        return first.pop() if first else await receive()

    return receiving
