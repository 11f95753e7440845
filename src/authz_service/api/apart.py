"""The layer that keeps surfaces apart where some of them have listeners of their own."""

from __future__ import annotations

from fastapi import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from authz_service.api.problems import render_error
from authz_service.api.surfaces import HERE, surface_of
from authz_service.errors import NotFoundError


class Apart:
    """Inside the guard: a path of another surface gets the very answer of a path that does not exist."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        here = scope.get(HERE)
        if here is not None and scope["type"] == "http" and surface_of(scope["path"]) not in here:
            nothing = render_error(NotFoundError("there is nothing at this path"), Request(scope))
            await nothing(scope, receive, send)
            return
        await self._app(scope, receive, send)
