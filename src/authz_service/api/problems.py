"""Errors as answers: the one table from codes to HTTP statuses, and problem documents (RFC 9457)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from authz_service.admin.faults import Faults
from authz_service.api.documents import PROBLEM_TYPE, complete_documents
from authz_service.api.wire import REQUEST_ID, escape, looks_like_secret, request_id_of
from authz_service.errors import (
    AuthzError,
    Fault,
    InvalidInputError,
    MethodNotAllowedError,
    NotFoundError,
    RateLimitedError,
    SecretInUrlError,
)
from authz_service.pdp.records import CURRENT_REQUEST
from authz_service.redaction import redact_tokens

STATUSES: Final[Mapping[str, int]] = {
    "invalid_input": 400,
    "invalid_body": 400,
    "secret_in_url": 400,
    "catalog_invalid": 400,
    "unauthenticated": 401,
    "forbidden": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "conflict": 409,
    "idempotency_key_reused": 409,
    "revision_unknown": 409,
    "precondition_failed": 412,
    "body_too_large": 413,
    "precondition_required": 428,
    "rate_limited": 429,
    "internal": 500,
    "cannot_decide": 503,
    "stale": 503,
    "not_fresh_enough": 503,
    "rewound": 503,
    "overloaded": 503,
    "database_unavailable": 503,
    "schema_outdated": 503,
    "cannot_start": 503,
}
"""Every code of errors.py. What cannot decide is 503, never a 200 that says allow (rule A11)."""

TITLES: Final[Mapping[str, str]] = {
    "invalid_input": "the input has faults",
    "invalid_body": "the body is not what this route takes",
    "secret_in_url": "a secret stands in the URL",
    "catalog_invalid": "the catalog has faults",
    "unauthenticated": "no valid token was shown",
    "forbidden": "this token may not do that",
    "not_found": "there is no such thing",
    "method_not_allowed": "the route does not take this method",
    "conflict": "the state of the thing does not allow this",
    "idempotency_key_reused": "the idempotency key came with another body",
    "revision_unknown": "there is no such revision",
    "precondition_failed": "the thing has changed",
    "body_too_large": "the body is too large",
    "precondition_required": "the edit does not say what it was made from",
    "rate_limited": "there were too many tries",
    "internal": "something went wrong here",
    "cannot_decide": "nothing can be decided now",
    "stale": "this replica cannot prove that it is fresh",
    "not_fresh_enough": "this replica is not there yet",
    "rewound": "the database's history went back",
    "overloaded": "there is too much to do",
    "database_unavailable": "the database does not answer",
    "schema_outdated": "the database's schema is another version's",
    "cannot_start": "the service is not ready",
}
_log = logging.getLogger("authz_service.api")


def render(
    code: str, detail: str | None = None, faults: Sequence[Fault] = (), headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """A problem document; an unknown code is an internal error."""
    code = code if code in STATUSES else "internal"
    status = STATUSES[code]
    content: dict[str, Any] = {
        "type": f"urn:authz:problem:{code}",
        "title": TITLES[code],
        "status": status,
        "code": code,
        "faults": [
            {"where": redact_tokens(one.where), "code": one.code, "message": redact_tokens(one.message)}
            for one in faults
        ],
    }
    if detail is not None and status != HTTPStatus.INTERNAL_SERVER_ERROR:
        content["detail"] = redact_tokens(detail)
    return JSONResponse(content, status, headers={**_extra_headers(status), **(headers or {})}, media_type=PROBLEM_TYPE)


def _extra_headers(status: int) -> Mapping[str, str]:
    headers = {"Cache-Control": "no-store"}
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = "1"
    return headers


def render_error(error: AuthzError, request: Request) -> JSONResponse:
    """The problem of a deliberate error. A 401 says whether a token was shown (RFC 6750)."""
    headers: dict[str, str] = {}
    if isinstance(error, RateLimitedError):
        headers["Retry-After"] = str(error.retry_after)
    if STATUSES.get(error.code) == HTTPStatus.UNAUTHORIZED:
        shown = "authorization" in request.headers
        headers["WWW-Authenticate"] = 'Bearer error="invalid_token"' if shown else "Bearer"
    return render(error.code, error.message, error.faults, headers)


def install(app: FastAPI) -> None:
    """Have the application answer every error with a problem, give every answer a request id, refuse secrets in URLs.

    Call it last: what is added to the application after it lies outside.
    """

    async def on_error(request: Request, error: Exception) -> Response:
        if not isinstance(error, AuthzError):
            raise error
        return render_error(error, request)

    async def on_http(request: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException):
            raise error
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            allowed = (error.headers or {}).get("Allow", "")
            refused = MethodNotAllowedError(f"`{request.method[:16]}` is not taken here; use {allowed or 'another'}")
            return render(refused.code, refused.message, headers=error.headers)
        if error.status_code == HTTPStatus.NOT_FOUND:
            return render_error(NotFoundError("there is nothing at this path"), request)
        return render("invalid_body" if error.status_code < 500 else "internal", "the request cannot be read")

    async def on_invalid(request: Request, error: Exception) -> Response:
        if not isinstance(error, RequestValidationError):
            raise error
        faults = Faults()
        for one in error.errors():
            where = "/".join(escape(str(step)) for step in one["loc"][1:]) or str(one["loc"][0])
            faults.add(where, "invalid_parameter", _parameter_message(one))
        return render_error(InvalidInputError(faults.summary("the request"), faults=faults.named), request)

    app.add_exception_handler(AuthzError, on_error)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_middleware(Guard)
    complete_documents(app)


def _parameter_message(found: Mapping[str, Any]) -> str:
    context: Mapping[str, Any] = found.get("ctx") or {}
    match found.get("type"):
        case "missing":
            return "the parameter is missing; add it"
        case "enum" | "literal_error":
            return f"the value is not known; write {str(context.get('expected', '')).replace(chr(39), '`')}"
        case "extra_forbidden":
            return "there is no such parameter here; leave it out"
        case "bool_parsing" | "bool_type":
            return "write `true` or `false`"
        case "int_parsing" | "int_type":
            return "write a whole number"
        case "greater_than_equal" | "less_than_equal":
            bound = f"at least {context['ge']}" if "ge" in context else f"at most {context.get('le')}"
            return f"the number is out of range: {bound}"
        case "string_too_long":
            return f"the text is too long: {context.get('max_length')} characters at most"
        case "string_too_short":
            return "the text is empty; leave the parameter out, or fill it"
    return "the value is not one that this parameter takes"


class Guard:
    """The outermost layer: request ids, secrets in URLs, and whatever went wrong that nobody meant."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        request_id = request_id_of(request.headers.get(REQUEST_ID))
        request.state.request_id = request_id
        CURRENT_REQUEST.set(request_id)
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = [pair for pair in message.get("headers", ()) if pair[0].lower() != b"x-request-id"]
                message = {**message, "headers": [*headers, (b"x-request-id", request_id.encode())]}
            await send(message)

        if _holds_secret(request):
            refused = SecretInUrlError(
                "URLs end up in logs: rotate the token that stands in this one; send it in a header"
            )
            await render_error(refused, request)(scope, receive, send_with_id)
            return
        try:
            await self._app(scope, receive, send_with_id)
        except ClientDisconnect:
            return  # nobody is left to be answered
        except Exception:
            _log.exception("a request failed", extra={"request_id": request_id})
            if started:
                raise
            await render("internal")(scope, receive, send_with_id)


def _holds_secret(request: Request) -> bool:
    """Whether a token stands in the path or the query, in a name or a value, encoded or not."""
    if looks_like_secret(request.scope["path"]):
        return True
    return bool(request.scope["query_string"]) and any(
        looks_like_secret(part) for pair in request.query_params.multi_items() for part in pair
    )
