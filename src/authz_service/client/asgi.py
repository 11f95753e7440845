"""A middleware that protects a whole ASGI application by its catalog: each request is decided by `/check/http`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any
from urllib.parse import quote

import msgspec

from authz_service.client.decisions import DecisionSource
from authz_service.client.enforcing import Refusal, no_token, read_bearer, refuse, refuse_path, refuse_undecided
from authz_service.client.errors import ClientError
from authz_service.client.wire import pass_on

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class AuthzMiddleware:
    """Lets a request through when the catalog's operation for its method and path is allowed, and no other.

    A path in no catalog is denied. `open_paths` need no token and are compared whole, byte for byte; take none that
    the application reads in several ways. An allowed request carries its answer as `scope["authz"]`. Stand it outside
    of anything that changes paths.

    Most frameworks decode a path before they route it: `/shops/a%2Forders` is decided as the shop `a/orders` and served
    as the orders of the shop `a`. So an encoded slash is refused, but for applications that route by `raw_path`.
    """

    def __init__(
        self,
        app: App,
        source: DecisionSource,
        *,
        catalog: str,
        open_paths: Collection[str] = (),
        encoded_slashes: bool = False,
    ) -> None:
        self._app, self._source, self._catalog = app, source, catalog
        self._open = frozenset(path.encode() for path in open_paths)
        self._encoded_slashes = encoded_slashes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] not in ("http", "websocket"):
            raise RuntimeError(f"`{scope['type']}` is no kind of request that can be decided")
        path = _path_of(scope)
        refusal = None if path in self._open else await self._decide(scope, path)
        if refusal is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await _answer(send, refusal)
        else:
            await send({"type": "websocket.close", "code": 1008, "reason": ""})

    async def _decide(self, scope: Scope, path: bytes) -> Refusal | None:
        token = read_bearer(value for name, value in scope["headers"] if name == b"authorization")
        if token is None:
            return no_token()
        if b"%2f" in path.lower() and not self._encoded_slashes:
            return refuse_path()
        client = scope.get("client")
        try:
            with pass_on(scope["headers"]):
                answer = await self._source.check_http(
                    token,
                    scope.get("method", "GET"),
                    path.decode("ascii", "replace"),
                    catalog=self._catalog,
                    client_address=client[0] if client else None,
                )
        except ClientError as error:
            return refuse_undecided(error)
        if not answer.allowed:
            return refuse(answer)
        scope["authz"] = answer
        return None


def _path_of(scope: Scope) -> bytes:
    """As it was sent, still encoded: `%2F` inside a name is no separator."""
    raw: bytes | None = scope.get("raw_path")
    return raw.partition(b"?")[0] if raw else quote(scope["path"], safe="/:@!$&'()*+,;=-._~").encode()


async def _answer(send: Send, refusal: Refusal) -> None:
    body = msgspec.json.encode(refusal.body)
    headers = {"content-type": "application/problem+json", "content-length": str(len(body)), **refusal.headers}
    pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refusal.status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
