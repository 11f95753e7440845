"""Settings of the surfaces that standards describe: where clients find the service."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from pydantic import BaseModel, Field

from authz_service.config.console import is_loopback
from authz_service.errors import Fault


class StandardsSettings(BaseModel):
    public_url: str | None = Field(
        None,
        description="how clients reach the service, `https://authz.example.com`: published in"
        " `/.well-known/authzen-configuration`, which is not there without it; no `Host` header is ever believed."
        " Browsers find the console there, and it takes forms from there alone",
    )


def standards_contradictions(settings: StandardsSettings) -> Iterator[Fault]:
    """What each setting alone cannot show."""
    if settings.public_url is not None and not _is_origin(settings.public_url):
        yield Fault("AUTHZ_PUBLIC_URL", "invalid", "write `https://authz.example.com`, without a path")


def _is_origin(text: str) -> bool:
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return False
    secure = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))
    return secure and bool(host) and text == f"{parts.scheme}://{parts.netloc}" and "@" not in parts.netloc
