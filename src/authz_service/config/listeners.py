"""Settings of listeners: surfaces at addresses of their own, and TLS where no mesh does it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from pydantic import BaseModel, Field

from authz_service.api.check.gateway_listener import ListenAt, parse_listen
from authz_service.api.surfaces import Surface
from authz_service.errors import Fault

_HOW: Final = "`127.0.0.1:8082` or `unix:/run/authz/{}.sock`"


class ListenerSettings(BaseModel):
    manage_listen: str | None = Field(
        None,
        description=f"an address for management alone (`/v1`, the console), {_HOW.format('manage')}; AUTHZ_PORT then"
        " answers nothing of it",
    )
    decide_listen: str | None = Field(
        None,
        description=f"the same for decisions (`/check`, AuthZEN, introspection), {_HOW.format('decide')}",
    )
    forward_listen: str | None = Field(
        None, description=f"the same for gateways that show a token (`/gateway/`), {_HOW.format('forward')}"
    )
    monitor_listen: str | None = Field(
        None,
        description=f"the same for `/livez`, `/readyz` and `/metrics`, {_HOW.format('monitor')}; it asks for no"
        " certificate, which a probe could not show",
    )
    tls_cert_file: Path | None = Field(
        None,
        description="the certificate, with its chain, that AUTHZ_PORT and the four addresses show, PEM; TLS 1.2 at"
        " least. Unix sockets stay plain",
    )
    tls_key_file: Path | None = Field(None, description="its key")
    tls_client_ca_file: Path | None = Field(
        None, description="authorities whose certificates every client there has to show (mTLS), beside its token"
    )


def find_apart(settings: ListenerSettings) -> Mapping[Surface, ListenAt]:
    """Where surfaces listen that have an address of their own. The settings were found in order before."""
    named = ((surface, getattr(settings, f"{surface}_listen")) for surface in Surface)
    found = ((surface, None if text is None else parse_listen(text)) for surface, text in named)
    return {surface: at for surface, at in found if at is not None}


def listener_contradictions(
    settings: ListenerSettings, *, main: ListenAt, others: Mapping[str, str | None]
) -> Iterator[Fault]:
    """`main` is where everything else listens, `others` are the gateways' own listeners, by variable."""
    texts = {f"AUTHZ_{surface.upper()}_LISTEN": getattr(settings, f"{surface}_listen") for surface in Surface}
    taken: dict[ListenAt, str] = {main: "AUTHZ_PORT" if main.uds is None else "AUTHZ_UDS"}
    for variable, text in {**others, **texts}.items():
        at = None if text is None else parse_listen(text)
        if at is None:
            if text is not None and variable in texts:
                yield Fault(variable, "invalid", "write `127.0.0.1:8082`, or `unix:` and an absolute path")
            continue
        if at in taken and (at.uds is not None or at.port):
            yield Fault(variable, "contradiction", f"{taken[at]} listens there; take another address")
        taken.setdefault(at, variable)
    if all(text is not None for text in texts.values()):
        yield Fault(
            "AUTHZ_PORT",
            "contradiction",
            "every surface has an address of its own, and nothing is left to answer here: leave out one of"
            f" {', '.join(texts)}",
        )
    yield from _tls_contradictions(settings, any_tcp=main.uds is None or _any_tcp(settings))


def _tls_contradictions(settings: ListenerSettings, *, any_tcp: bool) -> Iterator[Fault]:
    cert, key, authorities = settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file
    if (key or authorities) and cert is None:
        yield Fault("AUTHZ_TLS_CERT_FILE", "missing", "TLS needs a certificate to show: name its file")
    if (cert or authorities) and key is None:
        yield Fault("AUTHZ_TLS_KEY_FILE", "missing", "TLS needs the certificate's key: name its file")
    if (cert or key or authorities) and not any_tcp:
        yield Fault(
            "AUTHZ_TLS_CERT_FILE", "contradiction", "every listener is a Unix socket, where nothing asks for TLS"
        )


def _any_tcp(settings: ListenerSettings) -> bool:
    return any(at.uds is None for at in find_apart(settings).values())
