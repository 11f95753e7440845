"""What an API answers its client for a decision: the one table behind the middleware and the FastAPI dependency."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from authz_service.client.errors import ClientError, UndecidedError
from authz_service.client.model import Answer
from authz_service.engine.model import TOKEN_REASONS

_LONGEST_TOKEN: Final = 4096


@dataclass(frozen=True, slots=True)
class Refusal:
    """An HTTP answer that is no allow; the body is a problem (RFC 9457)."""

    status: int
    body: Mapping[str, Any]
    headers: Mapping[str, str]


def read_bearer(values: Iterable[bytes]) -> str | None:
    """The token of the request's `Authorization` fields; None for none, several, or another scheme."""
    several = list(values)
    if len(several) != 1:
        return None
    scheme, _, token = several[0].partition(b" ")
    token = token.strip(b" ")
    if scheme.lower() != b"bearer" or not token or len(token) > _LONGEST_TOKEN or not token.isascii() or b" " in token:
        return None
    return token.decode("ascii")


def no_token() -> Refusal:
    """401 for a request that shows none."""
    return _refuse(
        HTTPStatus.UNAUTHORIZED,
        "unauthenticated",
        "show a token as `Authorization: Bearer`",
        {"WWW-Authenticate": "Bearer"},
    )


def refuse(answer: Answer) -> Refusal:
    """For a deny: 401 when the token itself does not work, 404 for a place it must not know of, else 403."""
    if answer.reason in TOKEN_REASONS:
        challenge = {"WWW-Authenticate": 'Bearer error="invalid_token"'}
        return _refuse(HTTPStatus.UNAUTHORIZED, "unauthenticated", "show a valid token", challenge)
    if answer.hide:
        return _refuse(HTTPStatus.NOT_FOUND, "not_found", "there is no such thing, or this token may not see it", {})
    needed = " ".join(dict.fromkeys(one.permission for one in answer.missing))
    challenge = (
        {"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{needed}"'} if _is_plain(needed) else {}
    )
    return _refuse(HTTPStatus.FORBIDDEN, answer.reason, answer.message or "this token may not do that", challenge)


def refuse_path() -> Refusal:
    """403 for a path that the application would read otherwise than the service: nobody is asked about it."""
    return _refuse(
        HTTPStatus.FORBIDDEN, "bad_path", "the path encodes a slash, which is a separator to this application", {}
    )


def refuse_undecided(error: ClientError) -> Refusal:
    """503 when nothing is known: it is never an allow, and says nothing of the service behind."""
    seconds = error.retry_after if isinstance(error, UndecidedError) else 1.0
    return _refuse(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "cannot_decide",
        "access cannot be decided now; try again shortly",
        {"Retry-After": str(max(1, round(min(seconds, 3600.0))))},
    )


def _is_plain(text: str) -> bool:
    return bool(text) and text.isascii() and text.isprintable() and '"' not in text and "\\" not in text


def _refuse(status: HTTPStatus, code: str, detail: str, headers: Mapping[str, str]) -> Refusal:
    body = {"type": "about:blank", "title": status.phrase, "status": status.value, "code": code, "detail": detail}
    return Refusal(status.value, body, {"Cache-Control": "no-store", **headers})
