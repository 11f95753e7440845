"""`/oauth/introspect` (RFC 7662) and `/oauth/revoke` (RFC 7009): for clients that speak OAuth and nothing else."""

from __future__ import annotations

import base64
import binascii
from collections import Counter
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qsl, unquote_plus

import msgspec
from fastapi import APIRouter, Depends, Request, Response
from fastapi.security.http import HTTPBase
from pydantic import BaseModel, Field

from authz_service.admin.management import Actor
from authz_service.admin.presented import revoke_presented
from authz_service.api.check.check import GATEWAY_BEARER, RETRY_AFTER
from authz_service.api.check.encoding import JSON_TYPE
from authz_service.api.check.serving import ServingHere
from authz_service.api.documents import body_of, problems
from authz_service.api.state import Services, ServicesHere
from authz_service.api.wire import bearer_secret, client_address, plain_address, read_body
from authz_service.errors import (
    CannotDecideError,
    DatabaseUnavailableError,
    ForbiddenError,
    InvalidBodyError,
    NotFoundError,
    UnauthenticatedError,
)
from authz_service.pdp.introspection import Introspected, introspect
from authz_service.tokens.model import Token

# For the document alone: FastAPI's own reader of `Basic` refuses names that are not ASCII.
_BASIC: Final = HTTPBase(
    scheme="basic",
    auto_error=False,
    scheme_name="client",
    description="any name, and the caller's own token as the password",
)
router = APIRouter(tags=["oauth"], dependencies=[Depends(GATEWAY_BEARER), Depends(_BASIC)])

_FORM: Final = "application/x-www-form-urlencoded"
_NO_STORE: Final = {"Cache-Control": "no-store", "Pragma": "no-cache"}
_CHALLENGE: Final = 'Basic realm="authz", charset="UTF-8", Bearer realm="authz"'
_LONGEST: Final = 8192
_MOST_FIELDS: Final = 32


class IntrospectForm(BaseModel):
    """What may be asked, form-encoded. Other fields are passed over."""

    token: str = Field(description="the secret that an end client showed")
    token_type_hint: str | None = Field(None, description="passed over: there is one type")
    client_address: str | None = Field(None, description="the end client's IP address; tokens may be bound to networks")


class RevokeForm(BaseModel):
    """What to end, form-encoded. Other fields are passed over."""

    token: str = Field(description="the secret of the token to end")
    token_type_hint: str | None = Field(None, description="passed over: there is one type")


class Introspection(BaseModel):
    """`active` false stands alone."""

    active: bool
    scope: str | None = Field(None, description="what the token was given, words with spaces between; not where")
    client_id: str | None = Field(None, description="the token's public id")
    username: str | None = Field(None, description="its owner")
    sub: str | None = Field(None, description="its owner")
    jti: str | None = Field(None, description="the token's public id")
    aud: list[str] | None = Field(None, description="the catalogs it is for, of those that the caller asks about")
    iss: str | None = Field(None, description="the service's own URL, where it knows it")
    token_type: str | None = None
    iat: int | None = Field(None, description="when it was issued, in seconds since 1970")
    nbf: int | None = Field(None, description="before which it does not work")
    exp: int | None = Field(None, description="from which on it does not work")


class OauthError(BaseModel):
    """An error in the words of RFC 6749 and RFC 6750."""

    error: str
    error_description: str | None = None


def _answers(ok: Mapping[str, Any]) -> dict[int | str, dict[str, Any]]:
    failing = {
        400: "The request cannot be read",
        401: "No caller is known by what was shown",
        403: "The caller may not ask",
        503: "Nothing can be said now; try again shortly",
    }
    secret_in_url = problems(400)[400]["content"]
    return {
        **problems(413, 500),
        200: dict(ok),
        **{
            status: {"model": OauthError, "description": text, **({"content": secret_in_url} if status == 400 else {})}
            for status, text in failing.items()
        },
    }


@router.post(
    "/oauth/introspect",
    response_model=Introspection,
    response_model_exclude_none=True,
    responses=_answers(
        {"description": "What the token is; `active` false and nothing else for whatever is not active"}
    ),
    openapi_extra=body_of(IntrospectForm, media_type=_FORM),
    summary="What is this token? (RFC 7662)",
)
async def oauth_introspect(request: Request, services: ServicesHere, serving: ServingHere) -> Response:
    """For callers that hold `decision:evaluate` at the instance, known by a bearer token or by HTTP Basic."""
    try:
        secret = _credentials(request)
        if secret is None:
            raise UnauthenticatedError("show the caller's own token, as a bearer token or as the password")
        caller = await _authenticate(request, services, secret)
        await services.point.require_evaluator(caller)
        form = await _read_form(request, serving.body_limit)
        end = form.get("client_address")
        if end is not None and plain_address(end) is None:
            raise InvalidBodyError("`client_address` is no IP address")
        address = client_address(request)
        found = await introspect(services.point, caller, form["token"], address=address, client_address=end)
    except _EXPECTED as error:
        return _failed(error)
    return _told(_describe(found, request.app.state.public_url))


@router.post(
    "/oauth/revoke",
    response_class=Response,
    responses=_answers({"description": "The token works no more, or never did"}),
    openapi_extra=body_of(RevokeForm, media_type=_FORM),
    summary="End this token (RFC 7009)",
)
async def oauth_revoke(request: Request, services: ServicesHere, serving: ServingHere) -> Response:
    """Whoever shows a token's secret may end it; a caller may show its own token too, and is in the audit then."""
    try:
        secret = _credentials(request)
        caller = None if secret is None else await _authenticate(request, services, secret)
        form = await _read_form(request, serving.body_limit)
        token = await services.point.find_token(form["token"])
        if token is not None:
            actor = None if caller is None else Actor(caller, client_address(request))
            await revoke_presented(services.management, token.id, actor)
    except NotFoundError:
        pass  # it was purged meanwhile
    except _EXPECTED as error:
        return _failed(error)
    return Response(headers=_NO_STORE)


_EXPECTED: Final = (CannotDecideError, DatabaseUnavailableError, ForbiddenError, InvalidBodyError, UnauthenticatedError)


def _failed(
    error: CannotDecideError | DatabaseUnavailableError | ForbiddenError | InvalidBodyError | UnauthenticatedError,
) -> Response:
    """An error as RFC 6749 (5.2) and RFC 6750 (3.1) name it."""
    match error:
        case UnauthenticatedError():
            return _told_error(
                HTTPStatus.UNAUTHORIZED, "invalid_client", error.message, {"WWW-Authenticate": _CHALLENGE}
            )
        case ForbiddenError():
            challenge = {"WWW-Authenticate": 'Bearer error="insufficient_scope", scope="decision:evaluate"'}
            return _told_error(HTTPStatus.FORBIDDEN, "insufficient_scope", error.message, challenge)
        case InvalidBodyError():
            return _told_error(HTTPStatus.BAD_REQUEST, "invalid_request", error.message, {})
    return _told_error(HTTPStatus.SERVICE_UNAVAILABLE, "temporarily_unavailable", error.message, RETRY_AFTER)


def _told_error(status: HTTPStatus, error: str, message: str, headers: Mapping[str, str]) -> Response:
    return _told({"error": error, "error_description": message}, status, headers)


def _told(
    body: Mapping[str, Any], status: HTTPStatus = HTTPStatus.OK, headers: Mapping[str, str] | None = None
) -> Response:
    headers = {**_NO_STORE, **(headers or {})}
    return Response(msgspec.json.encode(body), status.value, media_type=JSON_TYPE, headers=headers)


def _describe(found: Introspected | None, issuer: str | None) -> dict[str, Any]:
    if found is None:
        return {"active": False}
    token = found.token
    told: dict[str, Any] = {
        "active": True,
        "scope": " ".join(found.words),
        "client_id": token.id,
        "username": found.owner,
        "sub": found.owner,
        "jti": token.id,
        "aud": list(found.catalogs),
        "token_type": "Bearer",
    }
    if issuer is not None:
        told["iss"] = issuer
    for name, at in (("iat", token.created_at), ("nbf", token.not_before), ("exp", token.expires_at)):
        if at is not None:
            told[name] = int(at.timestamp())
    return told


# what comes in


async def _authenticate(request: Request, services: Services, secret: str) -> Token:
    return await services.point.authenticate(secret, client_address=client_address(request))


def _credentials(request: Request) -> str | None:
    """The caller's secret, of `Bearer` or as the password of `Basic`; None when nothing was shown.

    Raises UnauthenticatedError for anything odd, and for two headers: others might have read the other one.
    """
    given = request.headers.getlist("authorization")
    scheme, _, encoded = given[0].partition(" ") if given else ("", "", "")
    if len(given) != 1 or scheme.lower() != "basic":
        return bearer_secret(request)
    try:
        name, colon, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        name, colon, password = "", "", ""
    del name  # whoever knows the token is the caller, under whatever name
    if not colon or not password:
        raise UnauthenticatedError("send `Authorization: Basic` with the caller's own token as the password")
    return unquote_plus(password)


async def _read_form(request: Request, limit: int) -> dict[str, str]:
    """The fields, `token` among them. Raises InvalidBodyError, and for a field that came twice (RFC 6749, 3.2)."""
    kinds = request.headers.getlist("content-type")
    if len(kinds) != 1 or kinds[0].partition(";")[0].strip().lower() != _FORM:
        raise InvalidBodyError(f"send the body as `Content-Type: {_FORM}`")
    body = await read_body(request, limit)
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="strict")
    except ValueError:
        raise InvalidBodyError("the body is no form that can be read; send `token=` and the secret") from None
    twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if twice:
        raise InvalidBodyError("a field came twice; send each once")
    fields = dict(pairs)
    if not fields.get("token"):
        raise InvalidBodyError("the field `token` is missing; send the secret in it")
    if len(fields["token"]) > _LONGEST:
        raise InvalidBodyError(f"the token is longer than {_LONGEST} characters; no token is")
    return fields
