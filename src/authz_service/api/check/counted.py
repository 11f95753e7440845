"""The short way with a budget for each caller: of requests for decisions a second, in this worker."""

from __future__ import annotations

from time import monotonic
from typing import Final

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from authz_service.api.check.hot import HotPath, Route
from authz_service.api.check.serving import Serving
from authz_service.api.surfaces import Surface, surface_of
from authz_service.api.wire import shown_secret

_MOST_CALLERS: Final = 10_000
_BODY: Final = {
    "decision": "deny",
    "reason": "rate_limited",
    "message": "this caller asks too often; try again in a second",
}


class CountedHotPath(HotPath):
    """Counts by the secret that the caller shows, whether it is good or not, in windows of one second.

    What is beyond is 429, whose body says deny. A batch counts as one request.
    """

    def __init__(self, app: ASGIApp, serving: Serving, *, limit: int) -> None:
        super().__init__(app, serving)
        self._most = limit
        self._window = 0
        self._counts: dict[str, int] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and surface_of(scope["path"]) is Surface.DECIDE:
            shown = _caller(dict(scope["headers"]).get(b"authorization", b""))
            if not self._has_left(shown):
                headers = {"Cache-Control": "no-store", "Retry-After": "1"}
                await JSONResponse(_BODY, 429, headers=headers)(scope, receive, send)
                return
            self._count(shown)
        await super().__call__(scope, receive, send)

    def respond(self, route: Route, authorization: bytes, given_id: bytes | None, body: bytes) -> bytes | None:
        """None also for a caller that has nothing left: the long way says so."""
        shown = _caller(authorization)
        if not self._has_left(shown):
            return None
        response = super().respond(route, authorization, given_id, body)
        if response is not None:
            self._count(shown)
        return response

    def _has_left(self, shown: str) -> bool:
        now = int(monotonic())
        if now != self._window:
            self._window = now
            self._counts.clear()
        return self._counts.get(shown, 0) < self._most

    def _count(self, shown: str) -> None:
        if len(self._counts) < _MOST_CALLERS or shown in self._counts:
            self._counts[shown] = self._counts.get(shown, 0) + 1


def _caller(authorization: bytes) -> str:
    return shown_secret(authorization.decode("latin-1"))
