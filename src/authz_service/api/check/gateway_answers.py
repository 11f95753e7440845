"""What a gateway is answered: a status, headers for the API behind it, and words for the end client."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

import msgspec

from authz_service.api.self import render_decision
from authz_service.engine.model import TOKEN_REASONS, Decision
from authz_service.pdp.check import Use
from authz_service.tokens.model import Token

TOKEN_ID: Final = "X-Authz-Token-Id"
OWNER: Final = "X-Authz-Owner"
PERMISSION: Final = "X-Authz-Permission"
CHALLENGE: Final = "WWW-Authenticate"

_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")
_NOT_QUOTABLE: Final = re.compile(r"[^\x20\x21\x23-\x5b\x5d-\x7e]")
_LONGEST_WORDS: Final = 400
_SHOW_A_TOKEN: Final = "show a valid token as `Authorization: Bearer`"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One answer, in the terms of HTTP. Status 200 is an allow, and nothing else is."""

    status: HTTPStatus
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def allowed(self) -> bool:
        return self.status == HTTPStatus.OK


def allowed(token: Token, use: Use) -> Verdict:
    """All three headers each time, so that whatever a client sent under these names is overwritten."""
    headers = {
        TOKEN_ID: token.id,
        OWNER: quote(use.owner, safe="/:@!$&'()*+,;=~ ").strip(),
        PERMISSION: " ".join(use.permissions),
    }
    return Verdict(HTTPStatus.OK, headers)


def denied(decision: Decision) -> Verdict:
    """A deny for the end client: rule A1 is 401 in one form for all that may be wrong with a token, the rest is 403.

    What is hidden is told in the very bytes of what does not exist (rule A10).
    """
    if decision.reason in TOKEN_REASONS:
        return unauthenticated(shown=True)
    told = render_decision(decision)
    wanted = [] if decision.hide else [item.permission for item in decision.missing]
    scope = " ".join(dict.fromkeys(name for name in wanted if _SCOPE.fullmatch(name)))
    challenge = {"error": "insufficient_scope", "error_description": told["message"]}
    if scope:
        challenge["scope"] = scope
    return _deny(HTTPStatus.FORBIDDEN, challenge, told)


def unauthenticated(*, shown: bool) -> Verdict:
    """No token, or none that is good. `shown` says whether there was any (RFC 6750, section 3)."""
    told = {"decision": "deny", "reason": "unauthenticated", "message": _SHOW_A_TOKEN}
    return _deny(HTTPStatus.UNAUTHORIZED, {"error": "invalid_token"} if shown else {}, told)


def refused(code: str, message: str) -> Verdict:
    """No question came about: the request or the gateway is not in order. 403, since some gateways know no other."""
    told = {"decision": "deny", "reason": code, "message": message}
    return _deny(HTTPStatus.FORBIDDEN, {"error": "invalid_request"}, told)


def _deny(status: HTTPStatus, challenge: Mapping[str, str], told: Mapping[str, Any]) -> Verdict:
    parts = ", ".join(f'{name}="{_NOT_QUOTABLE.sub("?", text[:_LONGEST_WORDS])}"' for name, text in challenge.items())
    headers = {CHALLENGE: f"Bearer {parts}".strip(), "Content-Type": "application/json"}
    return Verdict(status, headers, msgspec.json.encode(told))
