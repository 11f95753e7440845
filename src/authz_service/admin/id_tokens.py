"""ID tokens of an OpenID Connect provider: proven by its keys, and meant for this service and this very sign-in."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from authlib.oidc.core import CodeIDToken
from joserfc.errors import JoseError

from authz_service.admin.job_tokens import LONGEST, JobTokenError, key_id, prove

_LEEWAY: Final = 60
_OLDEST: Final = 600
"""Seconds since an ID token was made: it is asked for when it is needed."""
_LONGEST_SUBJECT: Final = 255


class IdTokenError(Exception):
    """The ID token is not taken. `args` is for the log alone."""


@dataclass(frozen=True, slots=True)
class Expected:
    """Whose token it has to be, for whom, and of which sign-in. `claim` names the user."""

    issuer: str
    client_id: str
    nonce: str
    claim: str
    access_token: str | None = None


@dataclass(frozen=True, slots=True)
class Account:
    """Who somebody is at the provider. `subject` stays theirs for ever; `named` is what `claim` holds, if it does.

    `digest` is of this one sign-in: whoever sees it a second time sees a repetition.
    """

    issuer: str
    subject: str
    named: str | None
    digest: bytes


def key_of(text: str) -> str | None:
    """Which key the token says it was signed with. Raises IdTokenError for what is no signed token."""
    if len(text) > LONGEST or text.count(".") != 2 or not text.isascii():
        raise IdTokenError("no signed token")
    try:
        return key_id(text)
    except JobTokenError as error:
        raise IdTokenError(*error.args) from error


def read_id_token(text: str, keys: Sequence[Mapping[str, Any]], expected: Expected, now: float) -> Account:
    """Raises IdTokenError unless a key proves it, by an algorithm of the closed list, and every claim is right."""
    try:
        header, claims = prove(text, keys)
    except JobTokenError as error:
        raise IdTokenError(*error.args) from error
    _check_kinds(claims)
    token = CodeIDToken(
        dict(claims),
        dict(header),
        {
            "iss": {"essential": True, "value": expected.issuer},
            "aud": {"essential": True, "value": expected.client_id},
            "nonce": {"essential": True, "value": expected.nonce},
        },
        {"client_id": expected.client_id, "nonce": expected.nonce, "access_token": expected.access_token},
    )
    try:
        token.validate(now=int(now), leeway=_LEEWAY)
    except (JoseError, ValueError, TypeError, KeyError) as error:
        raise IdTokenError("a claim is not right") from error
    if not _is_for(claims["aud"], expected.client_id) or claims["iat"] < now - _OLDEST:
        raise IdTokenError("for somebody else, or of another time")
    named = claims.get(expected.claim)
    if isinstance(named, int) and not isinstance(named, bool):
        named = str(named)
    digest = hashlib.sha256(f"{expected.issuer}\0{expected.nonce}".encode()).digest()
    known = named if isinstance(named, str) and _is_plain(named) else None
    return Account(expected.issuer, claims["sub"], known, digest)


def _check_kinds(claims: Mapping[str, Any]) -> None:
    """What a claim of another kind would mean to a comparison nobody has to find out."""
    for name in ("iss", "sub", "nonce"):
        if not isinstance(claims.get(name), str):
            raise IdTokenError(f"`{name}` is no text")
    if not _is_plain(claims["sub"]):
        raise IdTokenError("`sub` is no subject")
    audience = claims.get("aud")
    audiences = [audience] if isinstance(audience, str) else audience
    if not isinstance(audiences, list) or not all(isinstance(one, str) for one in audiences):
        raise IdTokenError("`aud` is no audience")
    if "azp" in claims and not isinstance(claims["azp"], str):
        raise IdTokenError("`azp` is no text")
    if "at_hash" in claims and not isinstance(claims["at_hash"], str):
        raise IdTokenError("`at_hash` is no text")
    for name in ("exp", "iat", "nbf"):
        value = claims.get(name)
        if name == "nbf" and value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1 << 36:
            raise IdTokenError(f"`{name}` is no time")


def _is_for(audience: str | list[str], client_id: str) -> bool:
    return client_id in ([audience] if isinstance(audience, str) else audience)


def _is_plain(text: str) -> bool:
    return 0 < len(text) <= _LONGEST_SUBJECT and text.isprintable() and text == text.strip()
