"""The gateway's own listener: whoever gets through to it counts as that gateway, and finds nothing else there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from authz_service.api.check.gateway import OWN_LISTENER

_PREFIX: Final = "/gateway/"
_HOST_AND_PORT: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.-]+)):([0-9]{1,5})")
_UNIX: Final = "unix:"


class OwnListener:
    """The application as the gateway's listener serves it.

    INVARIANT: no other path answers here. A client's path with dots in it, tidied up on its way, must not end at a
    route that says 200 to everybody.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            if not scope["path"].startswith(_PREFIX):
                nothing = JSONResponse({"decision": "deny", "reason": "not_found"}, HTTPStatus.NOT_FOUND)
                await nothing(scope, receive, send)
                return
            scope = {**scope, OWN_LISTENER: True}
        await self._app(scope, receive, send)


@dataclass(frozen=True, slots=True)
class ListenAt:
    """Where to listen: a host and port, or a Unix socket."""

    host: str = ""
    port: int = 0
    uds: Path | None = None

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it. A name other than `localhost` may be anything."""
        if self.uds is not None or self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False


def parse_listen(text: str) -> ListenAt | None:
    """`127.0.0.1:8081`, `[::1]:8081` or `unix:/run/authz/gateway.sock`; None for anything else."""
    if text.startswith(_UNIX):
        path = Path(text.removeprefix(_UNIX))
        return ListenAt(uds=path) if path.is_absolute() else None
    found = _HOST_AND_PORT.fullmatch(text)
    if found is None or int(found.group(3)) > 65535:
        return None
    return ListenAt(found.group(1) or found.group(2), int(found.group(3)))
