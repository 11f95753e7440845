"""Errors of the console's own, and what each kind of error is called on its page."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from authz_service.errors import AuthzError


class SignInNeededError(AuthzError):
    """Nobody is signed in. `had_cookie` says that somebody was."""

    code = "unauthenticated"

    def __init__(self, message: str, *, had_cookie: bool = False) -> None:
        super().__init__(message)
        self.had_cookie = had_cookie


class CrossSiteError(AuthzError):
    """A form came from another site, or says not from where."""

    code = "forbidden"


_STATUSES: Final[Mapping[str, HTTPStatus]] = {
    "invalid_input": HTTPStatus.BAD_REQUEST,
    "invalid_body": HTTPStatus.BAD_REQUEST,
    "unauthenticated": HTTPStatus.UNAUTHORIZED,
    "forbidden": HTTPStatus.FORBIDDEN,
    "not_found": HTTPStatus.NOT_FOUND,
    "conflict": HTTPStatus.CONFLICT,
    "precondition_failed": HTTPStatus.PRECONDITION_FAILED,
    "revision_unknown": HTTPStatus.CONFLICT,
    "body_too_large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "rate_limited": HTTPStatus.TOO_MANY_REQUESTS,
    "catalog_invalid": HTTPStatus.BAD_REQUEST,
}
HEADINGS: Final[Mapping[HTTPStatus, str]] = {
    HTTPStatus.BAD_REQUEST: "That does not fit",
    HTTPStatus.UNAUTHORIZED: "Sign in again",
    HTTPStatus.FORBIDDEN: "You may not do that",
    HTTPStatus.NOT_FOUND: "There is no such thing",
    HTTPStatus.CONFLICT: "That cannot be done now",
    HTTPStatus.PRECONDITION_FAILED: "Somebody was faster",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "That is too much at once",
    HTTPStatus.TOO_MANY_REQUESTS: "Too many tries",
    HTTPStatus.SERVICE_UNAVAILABLE: "The service cannot answer just now",
}


def status_of(error: AuthzError) -> HTTPStatus:
    """What is not the visitor's to mend is 503: nothing was decided, and nothing done."""
    return _STATUSES.get(error.code, HTTPStatus.SERVICE_UNAVAILABLE)
