"""What the pages use, as the composition root put it together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request

from authz_service.admin.leaks import LeakIntake
from authz_service.admin.management import Management
from authz_service.admin.openid import OpenId
from authz_service.admin.passwords import Attempts, Passwords
from authz_service.admin.sessions import Timeouts
from authz_service.errors import ForbiddenError, NotFoundError
from authz_service.pdp.check import DecisionPoint
from authz_service.pdp.search import Search

_HERE = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Console:
    """Stored at `app.state.console` before the first request; None there switches the console off.

    `origin` is how browsers reach it. None is for trying things out on one machine: then whatever loopback name the
    browser used is taken, and no other.
    """

    management: Management
    point: DecisionPoint
    search: Search
    leaks: LeakIntake
    origin: str | None
    timeouts: Timeouts = field(default_factory=Timeouts)
    passwords: Passwords = field(default_factory=Passwords)
    attempts: Attempts = field(default_factory=Attempts)
    openid: OpenId | None = None
    """Whoever else may say who somebody is; None where nobody may."""

    def origin_for(self, request: Request) -> str:
        """The one origin that forms may come from. Raises ForbiddenError for a name that is not this machine's."""
        if self.origin is not None:
            return self.origin
        host = request.headers.get("host", "")
        if urlsplit(f"//{host}").hostname not in _HERE:
            raise ForbiddenError(
                "the console answers on this machine alone; set AUTHZ_PUBLIC_URL to the address that people use"
            )
        return f"http://{host}"


async def console_of(request: Request) -> Console:
    """The console's parts. Raises NotFoundError where it is switched off."""
    found = getattr(request.app.state, "console", None)
    if not isinstance(found, Console):
        raise NotFoundError(
            "there is no console here: it needs AUTHZ_PUBLIC_URL, the address at which browsers reach the service"
        )
    return found


ConsoleHere = Annotated[Console, Depends(console_of)]
"""As a route's parameter."""
