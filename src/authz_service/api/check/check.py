"""`POST /check` and `POST /check/batch`: whether a token may do this here."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

import msgspec
from fastapi import APIRouter, Depends, Request, Response
from fastapi.security import HTTPBearer

from authz_service.api.check.bodies import (
    BatchRequest,
    BatchResponse,
    CheckRequest,
    CheckResponse,
    HttpRequest,
    Undecided,
)
from authz_service.api.check.encoding import JSON_TYPE, encode_answer, encode_answers
from authz_service.api.check.hot import CALLER_SECRET
from authz_service.api.check.reading import Asked, read_batch, read_check, read_http
from authz_service.api.check.serving import Serving, ServingHere
from authz_service.api.documents import authenticated, body_of
from authz_service.api.state import Services, ServicesHere
from authz_service.api.wire import bearer_secret, client_address, read_body
from authz_service.engine.model import PermissionRequest
from authz_service.errors import CannotDecideError, Fault, InvalidBodyError
from authz_service.pdp.check import ANY_CATALOG
from authz_service.pdp.question import Answer, HttpCall, Question
from authz_service.pdp.quick import QuickAnswers
from authz_service.tokens.model import Token

GATEWAY_BEARER: Final = HTTPBearer(
    auto_error=False, scheme_name="gateway", description="the token of a gateway or API server"
)
router = APIRouter(tags=["decide"], dependencies=[Depends(GATEWAY_BEARER)])

RETRY_AFTER: Final = {"Retry-After": "1", "Cache-Control": "no-store"}
UNDECIDED: Final[dict[int | str, dict[str, Any]]] = {
    503: {"model": Undecided, "description": "Nothing can be decided now; treat it as a deny, and try again shortly"}
}
_EXAMPLE: Final = {
    "catalog": "gitlab",
    "token": "azt_…",
    "resource": "job",
    "action": "read",
    "target": "acme/platform/api",
}


@router.post(
    "/check",
    response_model=CheckResponse,
    response_model_exclude_none=True,
    responses={**authenticated(409, 413), **UNDECIDED},
    openapi_extra=body_of(CheckRequest, examples={"one": _EXAMPLE}),
    summary="May this token do this here?",
)
async def check(request: Request, services: ServicesHere, serving: ServingHere) -> Response:
    """One question; the answer is 200 for a deny too. The caller is known by its own token, before the body is read."""

    def encode(answers: list[Answer]) -> bytes:
        return encode_answer(answers[0])

    return await answer_asked(request, services, serving, read_check, serving.body_limit, encode)


@router.post(
    "/check/http",
    response_model=CheckResponse,
    response_model_exclude_none=True,
    responses={**authenticated(409, 413), **UNDECIDED},
    openapi_extra=body_of(
        HttpRequest,
        examples={
            "one": {
                "catalog": "gitlab",
                "token": "azt_…",
                "method": "GET",
                "path": "/api/v4/projects/acme%2Fweb/issues?state=opened",
            }
        },
    ),
    summary="May this token make this request?",
)
async def check_http(request: Request, services: ServicesHere, serving: ServingHere) -> Response:
    """The operation, its target and what it needs come from the catalog; nothing is guessed."""

    def encode(answers: list[Answer]) -> bytes:
        return encode_answer(answers[0])

    return await answer_asked(request, services, serving, read_http, serving.body_limit, encode)


@router.post(
    "/check/batch",
    response_model=BatchResponse,
    response_model_exclude_none=True,
    responses={**authenticated(409, 413), **UNDECIDED},
    openapi_extra=body_of(
        BatchRequest,
        examples={"two": {"token": "azt_…", "items": [{"resource": "job", "action": "read", "target": "acme/web"}]}},
    ),
    summary="May this token do these things?",
)
async def check_batch(request: Request, services: ServicesHere, serving: ServingHere) -> Response:
    """Up to 10,000 questions about one token, all answered at one revision (rule A12)."""
    return await answer_asked(request, services, serving, read_batch, serving.batch_limit, encode_answers)


async def answer_asked(
    request: Request,
    services: Services,
    serving: Serving,
    read: Callable[[bytes], Asked],
    limit: int,
    encode: Callable[[list[Answer]], bytes],
) -> Response:
    """What all routes of decisions share: who asks, what is asked within `limit` bytes, and the answer, encoded."""
    point, metrics = services.point, serving.metrics
    try:
        # Whoever may not ask learns nothing of what this route takes.
        secret = bearer_secret(request)
        address = client_address(request)
        caller = await point.authenticate(secret, client_address=address)
        await point.require_evaluator(caller)
        asked = read(await read_body(request, limit))
        catalog = asked.catalog or _only_catalog(caller)
        bare = [ask.about.target for ask in asked.items if isinstance(ask.about, PermissionRequest)]
        seen_through = None
        if bare:
            await point.require_may_ask(caller, catalog, bare, client_address=address)
        else:
            seen_through = await point.find_limit(caller, catalog, client_address=address)
        question = Question(asked.items, catalog, asked.client_address, asked.freshly, asked.explain)
        answers = await point.check(asked.secret, question, limit=seen_through)
        quick: QuickAnswers = request.app.state.quick
        quick.learn(
            asked.secret,
            catalog,
            [ask.about if isinstance(ask.about, HttpCall) else ask.about.target for ask in asked.items],
        )
        request.scope[CALLER_SECRET] = secret
    except CannotDecideError as error:
        metrics.undecided.labels(error.code).inc()
        return cannot_decide(error)
    for answer in answers:
        metrics.count_decision(allowed=answer.decision.allowed, reason=answer.decision.reason)
    return Response(encode(answers), media_type=JSON_TYPE, headers={"Cache-Control": "no-store"})


def _only_catalog(caller: Token) -> str:
    """The catalog of a caller that may ask about one alone."""
    if len(caller.evaluates) == 1 and caller.evaluates[0] != ANY_CATALOG:
        return caller.evaluates[0]
    message = "say which catalog is meant: this caller may ask about more than one"
    raise InvalidBodyError("the body has a fault", faults=[Fault("/catalog", "missing_field", message)])


def cannot_decide(error: CannotDecideError) -> Response:
    """503, and a body that says deny to those who do not look at statuses (rule A11)."""
    body = msgspec.json.encode({"decision": "deny", "reason": error.code, "message": error.message})
    return Response(body, HTTPStatus.SERVICE_UNAVAILABLE, media_type=JSON_TYPE, headers=RETRY_AFTER)
