"""Settings of the gateways: their listeners, and what identifies a gateway there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, Field

from authz_service.api.check.gateway import GatewayTrust
from authz_service.api.check.gateway_listener import parse_listen
from authz_service.errors import Fault, StartError
from authz_service.tokens.secret import parse_secret


class GatewaySettings(BaseModel):
    gateway_listen: str | None = Field(
        None,
        description="a listener of the gateway's own, `127.0.0.1:8081` or `unix:/run/authz/gateway.sock`: whoever"
        " reaches it counts as the gateway of AUTHZ_GATEWAY_TOKEN_FILE, and nothing but `/gateway/` answers there",
    )
    gateway_token_file: Path | None = Field(
        None, description="a file with the gateway's token, which holds `decision:evaluate` and nothing else"
    )
    gateway_cert_file: Path | None = Field(None, description="the certificate that the gateway's listeners show, PEM")
    gateway_key_file: Path | None = Field(None, description="its key")
    gateway_client_ca_file: Path | None = Field(
        None,
        description="authorities whose certificates the gateway's listeners ask for (mTLS), PEM; needed beyond this"
        " machine",
    )
    grpc_listen: str | None = Field(
        None, description="where Envoy's gRPC surface listens, `127.0.0.1:9001`; needs `authz-service[grpc]`"
    )


def gateway_contradictions(settings: GatewaySettings, *, dev: bool) -> Iterator[Fault]:
    for variable, text in (
        ("AUTHZ_GATEWAY_LISTEN", settings.gateway_listen),
        ("AUTHZ_GRPC_LISTEN", settings.grpc_listen),
    ):
        at = None if text is None else parse_listen(text)
        if text is None:
            continue
        if at is None:
            yield Fault(variable, "invalid", "write `127.0.0.1:8081`, or `unix:` and an absolute path")
        elif settings.gateway_token_file is not None and settings.gateway_client_ca_file is None and not at.is_local:
            yield Fault(
                variable,
                "contradiction",
                "anybody on the network would count as the gateway: listen at 127.0.0.1 or a Unix socket, or set"
                " AUTHZ_GATEWAY_CLIENT_CA_FILE",
            )
    listens = settings.gateway_listen is not None or settings.grpc_listen is not None
    if settings.gateway_listen is not None and settings.gateway_token_file is None:
        yield Fault(
            "AUTHZ_GATEWAY_TOKEN_FILE", "missing", "the gateway's own listener stands for a token: name its file"
        )
    if settings.gateway_token_file is not None and not listens and not dev:
        yield Fault(
            "AUTHZ_GATEWAY_TOKEN_FILE",
            "contradiction",
            "it counts at AUTHZ_GATEWAY_LISTEN or AUTHZ_GRPC_LISTEN; set one",
        )
    tls = [settings.gateway_cert_file, settings.gateway_key_file, settings.gateway_client_ca_file]
    if any(tls) and not (all(tls) and listens):
        yield Fault(
            "AUTHZ_GATEWAY_CLIENT_CA_FILE",
            "contradiction",
            "mTLS takes AUTHZ_GATEWAY_CERT_FILE, AUTHZ_GATEWAY_KEY_FILE and this, and a listener to use them at",
        )


def read_gateway_trust(settings: GatewaySettings, *, dev: bool) -> GatewayTrust:
    """What identifies a gateway besides the token that it shows. Raises StartError for a file without a token."""
    if settings.gateway_token_file is None:
        return GatewayTrust()
    try:
        secret = settings.gateway_token_file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = (getattr(error, "strerror", None) or "it is no text").lower()
        raise StartError(f"AUTHZ_GATEWAY_TOKEN_FILE: `{settings.gateway_token_file}` cannot be read: {why}") from error
    if parse_secret(secret) is None:
        raise StartError(f"AUTHZ_GATEWAY_TOKEN_FILE: `{settings.gateway_token_file}` holds no token, or more than one")
    return GatewayTrust(secret, loopback=dev)
