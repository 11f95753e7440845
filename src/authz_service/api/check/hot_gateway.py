"""The short way for gateways over HTTP: a verdict that memory can give needs no route, and nothing is awaited for it.

INVARIANT: it gives the bytes, headers and metrics of the documented routes; a test sends the same corpus both ways.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Final
from urllib.parse import unquote_plus

from fastapi import FastAPI, Request, Response
from starlette.types import Receive, Scope, Send

from authz_service.api.check.envoy import CONSTANTS_PREFIX, NAMES, PREFIX, STRIP, read_prefixed
from authz_service.api.check.forward import FAMILIES, METHODS, Family, read_forwarded
from authz_service.api.check.gateway import Call, decide_from_memory, find_asker, respond
from authz_service.api.check.gateway_headers import AUTHORIZATION, GATEWAY, GatewayHeaders
from authz_service.api.check.hot import RequestIds, Timings
from authz_service.api.check.serving import Serving
from authz_service.api.surfaces import HERE, Surface
from authz_service.api.wire import looks_like_secret
from authz_service.errors import InvalidInputError
from authz_service.pdp.quick import QuickAnswers

_ALL: Final = "/gateway/"
_FORWARD: Final = "/gateway/forward/"
_LONG: Final = frozenset({b"transfer-encoding", b"expect"})
"""Headers of a request that may have a body."""


@dataclass(frozen=True, slots=True)
class _Form:
    """One way in which gateways ask: the documented route, and what is read of a request."""

    route: str
    names: frozenset[str]
    family: Family | None = None
    prefix: str = ""
    more: Mapping[str, str] | None = None

    def read(self, request: Request, headers: GatewayHeaders) -> Call:
        if self.family is not None:
            return read_forwarded(request, self.family, headers)
        return read_prefixed(request, self.prefix, headers, None)


def _names(names: frozenset[str]) -> frozenset[str]:
    return names | {GATEWAY, AUTHORIZATION}


_FORWARDED: Final[Mapping[str, _Form]] = {
    _FORWARD + name: _Form(_FORWARD + "{family}", _names(family.names), family) for name, family in FAMILIES.items()
}
_PREFIXED: Final[Sequence[_Form]] = [
    _Form(prefix + "/{path:path}", _names(NAMES), prefix=prefix, more=STRIP) for prefix in (PREFIX, CONSTANTS_PREFIX)
]


class GatewayPath:
    """A layer around the application. `quick` is set once that runs; without it everything goes on to the routes."""

    def __init__(self, app: FastAPI, serving: Serving) -> None:
        self._app = app
        self._serving = serving
        self._ids = RequestIds()
        self._timings: dict[tuple[str, int], Timings] = {}
        self.quick: QuickAnswers | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        here = scope.get(HERE)
        served = here is None or Surface.FORWARD in here
        if served and scope["type"] == "http" and scope["path"].startswith(_ALL) and self.quick is not None:
            response = self._answer(scope, self.quick)
            if response is not None:
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _answer(self, scope: Scope, quick: QuickAnswers) -> Response | None:
        started = perf_counter()
        form = _form_of(scope)
        if form is None or scope["method"] not in METHODS:
            return None
        pairs = scope["headers"]
        given_id = None
        for name, value in pairs:
            if name in _LONG or (name == b"content-length" and value != b"0"):
                return None
            if name == b"x-request-id":
                if given_id is not None:
                    return None
                given_id = value
        scope["app"] = self._app  # its state says which gateways are trusted
        request = Request(scope)
        request_id = self._ids.choose(given_id)
        quick.request_id = request_id
        try:
            headers = GatewayHeaders(pairs, form.names)
            verdict = decide_from_memory(quick, find_asker(request, headers), form.read(request, headers))
        except InvalidInputError:
            return None
        if verdict is None:
            return None
        response = respond(verdict, form.more)
        response.raw_headers.append((b"x-request-id", request_id))
        key = (form.route, response.status_code)
        timings = self._timings.get(key)
        if timings is None:
            timings = self._timings[key] = Timings(self._serving.metrics.buckets)
        timings.add(perf_counter() - started)
        return response

    def fold(self) -> None:
        """Hand over what was timed; the quick answers' own counts are handed over by another."""
        for (route, status), timings in self._timings.items():
            self._serving.metrics.add_requests(route, status, *timings.take())


def _form_of(scope: Scope) -> _Form | None:
    path, raw = scope["path"], scope["raw_path"]
    form = _FORWARDED.get(path)
    if form is not None:
        spelt = raw == path.encode() and not looks_like_secret(unquote_plus(scope["query_string"].decode("latin-1")))
        return form if spelt else None
    for one in _PREFIXED:
        if path.startswith(one.prefix + "/"):
            return one
    return None
