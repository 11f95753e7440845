"""How much anybody may ask of management: counted by caller, owner and address, so that a flood is its maker's alone.

Decisions are not counted here: a caller's budget of them, where there is one, is `api/check/counted.py`'s.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from dataclasses import dataclass
from typing import Final

from fastapi import Request
from limits import RateLimitItem, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter
from starlette.types import ASGIApp, Receive, Scope, Send

from authz_service.admin.client_networks import network_of
from authz_service.api.problems import render_error
from authz_service.api.surfaces import Surface, is_limited, surface_of
from authz_service.api.wire import client_address, shown_secret
from authz_service.errors import AuthzError, OverloadedError, RateLimitedError
from authz_service.tokens.model import Token

_HELD: Final = "limited_caller"
"""In a request's state: whose share it takes, until it was answered."""
_SEARCHES: Final = frozenset(
    {
        "/v1/search/tokens",
        "/v1/tokens/{token_id}/effective",
        "/v1/tokens/{token_id}/suggestion",
        "/v1/tokens/{token_id}/blast-radius",
        "/v1/self/effective",
        "/v1/simulate",
        "/v1/simulate/change",
        "/v1/catalogs/{name}/compare",
        "/v1/catalogs/{name}/upgrade",
        "/v1/token-export",
        "/v1/audit/export",
        "/v1/directory/export",
    }
)
_IMPORTS: Final = frozenset({"/v1/directory/import", "/v1/tokens/import"})
_INSTALLS: Final = frozenset({"/v1/catalogs", "/v1/catalogs/{name}/graphql-schema"})
"""Imports when they are written, not when they are read."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Requests a minute; `running` and `running_per_caller` are requests at once. All of one worker."""

    per_caller: int
    per_owner: int
    per_address: int
    searches: int
    imports: int
    running: int
    running_per_caller: int


class Limiter:
    """Stored at `app.state.limiter`. In this process's memory: with several workers, each has its own counts."""

    def __init__(self, rates: Rates) -> None:
        self._per_caller = RateLimitItemPerMinute(rates.per_caller)
        self._per_owner = RateLimitItemPerMinute(rates.per_owner)
        self._per_address = RateLimitItemPerMinute(rates.per_address)
        self._searches = RateLimitItemPerMinute(rates.searches)
        self._imports = RateLimitItemPerMinute(rates.imports)
        self._most_running = rates.running
        self._share = rates.running_per_caller
        self._running = 0
        self._running_of: Counter[str] = Counter()
        self._limiter = FixedWindowRateLimiter(MemoryStorage())

    def enter(self, request: Request) -> None:
        """A request begins, of whomever. Raises OverloadedError where too many run, RateLimitedError by its address.

        What it raises for did not begin; what did has to `leave`.
        """
        if self._running >= self._most_running:
            raise OverloadedError("too many requests run at once; try again shortly")
        self._hit(self._per_address, "address", network_of(client_address(request)), "this address")
        if request.url.path.startswith("/access/"):
            shown = shown_secret(request.headers.get("authorization", ""))
            self._hit(self._searches, "search", hashlib.sha256(shown.encode()).hexdigest(), "this caller")
        self._running += 1

    def admit(self, request: Request, caller: Token) -> None:
        """The request turns out to be this caller's. Raises RateLimitedError. No other caller's count is touched."""
        if surface_of(request.url.path) is not Surface.MANAGE or getattr(request.state, _HELD, None) is not None:
            return
        key = str(caller.id)
        if self._running_of[key] >= self._share:
            raise RateLimitedError("this token has too many requests under way; wait for their answers", retry_after=1)
        self._hit(self._per_caller, "caller", key, "this token")
        self._hit(self._per_owner, "owner", str(caller.owner), "this owner")
        path = getattr(request.scope.get("route"), "path", "")
        if path in _SEARCHES:
            self._hit(self._searches, "search", key, "this token")
        elif path in _IMPORTS or (path in _INSTALLS and request.method != "GET"):
            self._hit(self._imports, "import", key, "this token")
        self._running_of[key] += 1
        setattr(request.state, _HELD, key)

    def leave(self, request: Request) -> None:
        """It was answered."""
        self._running -= 1
        key = getattr(request.state, _HELD, None)
        if key is not None:
            self._running_of[key] -= 1
            if self._running_of[key] <= 0:
                del self._running_of[key]

    def _hit(self, item: RateLimitItem, kind: str, key: str, who: str) -> None:
        if not self._limiter.hit(item, kind, key):
            ends = self._limiter.get_window_stats(item, kind, key).reset_time
            seconds = max(1, round(ends - time.time() + 0.5))
            raise RateLimitedError(f"{who} asks too often; try again in {seconds} s", retry_after=seconds)


class Limited:
    """The layer that counts requests of management in and out. Inside the guard, so that refusals are the house's."""

    def __init__(self, app: ASGIApp, limiter: Limiter) -> None:
        self._app = app
        self._limiter = limiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not is_limited(scope["path"]):
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        try:
            self._limiter.enter(request)
        except AuthzError as error:
            await render_error(error, request)(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        finally:
            self._limiter.leave(request)


def limiter_of(request: Request) -> Limiter:
    """The limiter of the application that got this request."""
    found = request.app.state.limiter
    if not isinstance(found, Limiter):
        raise TypeError("the application has no limiter")
    return found
