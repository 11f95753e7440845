"""Settings of the console: whether there is one, how long a session lasts, and who else may say who somebody is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from pydantic import BaseModel, Field

from authz_service.errors import Fault, StartError

SHORTEST_SECRET: Final = 16
"""Characters of a client's secret."""
CHANGEABLE_CLAIMS: Final = frozenset(
    {"email", "preferred_username", "upn", "unique_name", "name", "given_name", "family_name", "nickname"}
    | {"phone_number", "profile", "picture", "website"}
)
"""What people choose themselves, or hand on to somebody else: none of it says who somebody is."""
_CLAIM: Final = re.compile(r"[!-~]{1,100}")
_SCOPES: Final = re.compile(r"[!-~]+( [!-~]+)*")


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
    openid_issuer: str | None = Field(
        None,
        description="the OpenID Connect provider that may say who somebody is, as it names itself: `https://id.example`."
        " A host of a private network has to stand in AUTHZ_WEBHOOK_PRIVATE_HOSTS as well",
    )
    openid_client_id: str | None = Field(None, description="what the provider calls the console")
    openid_client_secret_file: Path | None = Field(
        None, description="a file with the secret that the provider gave the console"
    )
    openid_claim: str = Field(
        "sub",
        description="the claim of the provider's ID token that is a user's external id in the directory. Users without"
        " one are linked by `authz user link`",
    )
    openid_source: str = Field("default", description="the source of the directory whose external ids the claim holds")
    openid_scopes: str = Field("openid", description="what the provider is asked for, with spaces; `openid` among it")
    openid_name: str = Field(
        "your organisation", min_length=1, max_length=60, description="what the button calls the provider"
    )


def console_contradictions(settings: ConsoleSettings, public_url: str | None = None) -> Iterator[Fault]:
    """What each setting alone cannot show."""
    yield from _openid_contradictions(settings, public_url)
    if settings.session_idle > settings.session_lifetime:
        yield Fault(
            "AUTHZ_SESSION_IDLE", "contradiction", "a session cannot idle for longer than AUTHZ_SESSION_LIFETIME"
        )


def _openid_contradictions(settings: ConsoleSettings, public_url: str | None) -> Iterator[Fault]:
    parts = {
        "AUTHZ_OPENID_ISSUER": settings.openid_issuer,
        "AUTHZ_OPENID_CLIENT_ID": settings.openid_client_id,
        "AUTHZ_OPENID_CLIENT_SECRET_FILE": settings.openid_client_secret_file,
    }
    given = [name for name, value in parts.items() if value is not None]
    beside = {"openid_claim", "openid_source", "openid_scopes", "openid_name"} & settings.model_fields_set
    if not given and not beside:
        return
    for name, value in parts.items():
        if value is None:
            yield Fault(name, "missing", "sign-in by a provider needs this too; set it, or none of AUTHZ_OPENID_*")
    if public_url is None:
        message = "sign-in by a provider needs the address to which it sends people back; set this too"
        yield Fault("AUTHZ_PUBLIC_URL", "missing", message)
    if not settings.console:
        yield Fault("AUTHZ_CONSOLE", "contradiction", "there is nothing to sign in to; leave AUTHZ_OPENID_* out")
    if settings.openid_issuer is not None and not _is_issuer(settings.openid_issuer):
        message = "write it as the provider names itself, `https://id.example`, without a query"
        yield Fault("AUTHZ_OPENID_ISSUER", "invalid", message)
    if settings.openid_claim.lower() in CHANGEABLE_CLAIMS:
        message = (
            f"`{settings.openid_claim}` can be changed or handed on, so whoever gets it next would be taken for its"
            " owner; name a claim that stays, as `sub`"
        )
        yield Fault("AUTHZ_OPENID_CLAIM", "invalid", message)
    elif not _CLAIM.fullmatch(settings.openid_claim):
        yield Fault("AUTHZ_OPENID_CLAIM", "invalid", "write the name of one claim, as `sub`")
    if not _SCOPES.fullmatch(settings.openid_scopes) or "openid" not in settings.openid_scopes.split(" "):
        yield Fault("AUTHZ_OPENID_SCOPES", "invalid", "write scopes with single spaces, `openid` among them")
    if settings.openid_client_secret_file is not None:
        try:
            read_openid_secret(settings)
        except StartError as error:
            yield from error.faults


def read_openid_secret(settings: ConsoleSettings) -> str:
    """The client's secret, without the line's end. Raises StartError for a file that holds none, and shows nothing."""
    file, variable = settings.openid_client_secret_file, "AUTHZ_OPENID_CLIENT_SECRET_FILE"
    try:
        text = "" if file is None else file.read_text("utf-8").strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        fault = Fault(variable, "unreadable", f"`{file}` cannot be read: {why.lower()}")
        raise StartError(f"{variable}: {fault.message}", faults=[fault]) from None
    if len(text) < SHORTEST_SECRET or not text.isprintable() or not text.isascii():
        message = f"the file has to hold one line with a secret of {SHORTEST_SECRET} ASCII characters or more"
        raise StartError(f"{variable}: {message}", faults=[Fault(variable, "invalid", message)])
    return text


def _is_issuer(text: str) -> bool:
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    plain = text.isascii() and text.isprintable() and " " not in text and "@" not in parts.netloc
    return plain and parts.scheme == "https" and bool(host) and not parts.query and not parts.fragment


def is_loopback(host: str) -> bool:
    """Whether browsers take the host for this very machine."""
    return host in ("localhost", "127.0.0.1", "::1")
