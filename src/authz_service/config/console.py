"""Settings of the console: whether there is one, and how long a session lasts."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel, Field

from authz_service.errors import Fault


class ConsoleSettings(BaseModel):
    console: bool = Field(
        default=True, description="serve the console at `/console/`; it needs AUTHZ_PUBLIC_URL, but in `authz dev`"
    )
    session_idle: float = Field(
        1800.0, ge=60.0, le=86_400.0, description="seconds after which a session that nobody uses ends"
    )
    session_lifetime: float = Field(
        43_200.0, ge=300.0, le=604_800.0, description="seconds after which a session ends, used or not"
    )


def console_contradictions(settings: ConsoleSettings) -> Iterator[Fault]:
    """What each setting alone cannot show."""
    if settings.session_idle > settings.session_lifetime:
        yield Fault(
            "AUTHZ_SESSION_IDLE", "contradiction", "a session cannot idle for longer than AUTHZ_SESSION_LIFETIME"
        )


def is_loopback(host: str) -> bool:
    """Whether browsers take the host for this very machine."""
    return host in ("localhost", "127.0.0.1", "::1")
