"""The four surfaces of the service: which paths belong to which, and listeners that answer some of them alone."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

HERE: Final = "authz.surfaces"
"""In a request's scope: the surfaces of the listener that it came in by; without it, all. No client can set it."""


class Surface(StrEnum):
    """What can listen at an address of its own."""

    MANAGE = "manage"
    DECIDE = "decide"
    FORWARD = "forward"
    MONITOR = "monitor"


_OF: Final = (
    (Surface.DECIDE, ("/check", "/access", "/.well-known/authzen-configuration", "/oauth/introspect")),
    (Surface.FORWARD, ("/gateway",)),
    (Surface.MONITOR, ("/livez", "/readyz", "/metrics")),
)


def surface_of(path: str) -> Surface:
    """The surface of a path as routes see it, decoded. Whatever no other claims is management, the best guarded one."""
    for surface, roots in _OF:
        if any(path == root or path.startswith(f"{root}/") for root in roots):
            return surface
    return Surface.MANAGE


def is_limited(path: str) -> bool:
    """Whether requests there are counted whatever the settings of decisions: management, and AuthZEN's searches."""
    return surface_of(path) is Surface.MANAGE or path.startswith("/access/v1/search/")


class AtListener:
    """The application as a listener serves it: nothing answers there but these surfaces."""

    def __init__(self, app: ASGIApp, surfaces: Collection[Surface]) -> None:
        self._app = app
        self._surfaces = frozenset(surfaces)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app({**scope, HERE: self._surfaces}, receive, send)
