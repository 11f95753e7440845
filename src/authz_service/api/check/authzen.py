"""AuthZEN's Authorization API 1.0: `/access/v1/evaluation`, `/access/v1/evaluations`, and where they are. Translation.

The caller is known by its own token, before the body is read, and holds `decision:evaluate`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from fastapi import APIRouter, Depends, Request, Response

from authz_service.api.check.authzen_reading import (
    Batch,
    Evaluation,
    Semantic,
    read_evaluation,
    read_evaluations,
    require_json,
)
from authz_service.api.check.authzen_shapes import (
    AuthzenConfiguration,
    AuthzenDecision,
    AuthzenDecisions,
    AuthzenEvaluation,
    AuthzenEvaluations,
)
from authz_service.api.check.bodies import Undecided
from authz_service.api.check.check import GATEWAY_BEARER, cannot_decide
from authz_service.api.check.encoding import JSON_TYPE, encode_decision
from authz_service.api.check.serving import Serving, ServingHere
from authz_service.api.documents import authenticated, body_of, problems
from authz_service.api.state import Services, ServicesHere
from authz_service.api.wire import bearer_secret, client_address, read_body
from authz_service.errors import CannotDecideError, Fault, InvalidBodyError, NotFoundError
from authz_service.pdp.check import ANY_CATALOG, DecisionPoint
from authz_service.pdp.limits import GroupLimit
from authz_service.pdp.question import Answer
from authz_service.pdp.revisions import revision_text
from authz_service.pdp.subjects import SubjectAsk, check_subjects, record_subjects
from authz_service.tokens.model import Token

router = APIRouter(tags=["authzen"], dependencies=[Depends(GATEWAY_BEARER)])
discovery = APIRouter(tags=["authzen"])

UNDECIDED: Final[dict[int | str, dict[str, Any]]] = {
    503: {"model": Undecided, "description": "Nothing can be decided now; treat it as a deny, and try again shortly"}
}
_EXAMPLE: Final = {
    "subject": {"type": "token", "id": "tok_…"},
    "action": {"name": "read"},
    "resource": {"type": "issue", "id": "acme/web"},
}
_PATHS: Final[Mapping[str, str]] = {
    "access_evaluation_endpoint": "/access/v1/evaluation",
    "access_evaluations_endpoint": "/access/v1/evaluations",
    "search_subject_endpoint": "/access/v1/search/subject",
    "search_resource_endpoint": "/access/v1/search/resource",
    "search_action_endpoint": "/access/v1/search/action",
}


@dataclass(slots=True)
class Asker:
    """The PEP, and what it may ask about, found out once for each catalog."""

    point: DecisionPoint
    token: Token
    address: str | None
    _limits: dict[str, GroupLimit | None] = field(default_factory=dict)

    def catalog(self, given: str | None) -> str:
        """The catalog that is meant. Raises InvalidBodyError where it is not said and not clear."""
        evaluates = self.token.evaluates
        if given is not None:
            return given
        if len(evaluates) == 1 and evaluates[0] != ANY_CATALOG:
            return evaluates[0]
        message = "say which catalog is meant: this caller may ask about more than one"
        raise InvalidBodyError(
            "the body has a fault", faults=[Fault("/context/authz/catalog", "missing_field", message)]
        )

    async def limit(self, catalog: str) -> GroupLimit | None:
        """Raises ForbiddenError for a catalog that it may not ask about."""
        if catalog not in self._limits:
            self._limits[catalog] = await self.point.find_limit(self.token, catalog, client_address=self.address)
        return self._limits[catalog]


async def find_asker(request: Request, services: Services) -> Asker:
    """Whoever may not ask learns nothing of what a route takes. Raises UnauthenticatedError, ForbiddenError."""
    point, address = services.point, client_address(request)
    caller = await point.authenticate(bearer_secret(request), client_address=address)
    await point.require_evaluator(caller)
    return Asker(point, caller, address)


@router.post(
    "/access/v1/evaluation",
    response_model=AuthzenDecision,
    response_model_exclude_none=True,
    responses={**authenticated(409, 413), **UNDECIDED},
    openapi_extra=body_of(AuthzenEvaluation, examples={"one": _EXAMPLE}),
    summary="May this subject do this? (AuthZEN)",
)
async def authzen_evaluation(request: Request, services: ServicesHere, serving: ServingHere) -> Response:
    """One question. A deny is a 200 too."""
    return await _evaluate(request, services, serving, read_evaluation, serving.body_limit)


@router.post(
    "/access/v1/evaluations",
    response_model=AuthzenDecisions,
    response_model_exclude_none=True,
    responses={**authenticated(409, 413), **UNDECIDED},
    openapi_extra=body_of(
        AuthzenEvaluations,
        examples={
            "two": {
                "subject": {"type": "user", "id": "dana"},
                "action": {"name": "read"},
                "evaluations": [
                    {"resource": {"type": "issue", "id": "acme/web"}},
                    {"resource": {"type": "issue", "id": "acme/api"}},
                ],
            }
        },
    ),
    summary="May these subjects do these? (AuthZEN)",
)
async def authzen_evaluations(request: Request, services: ServicesHere, serving: ServingHere) -> Response:
    """Up to 10,000 questions, decided at one revision, answered as far as `options.evaluations_semantic` says."""
    return await _evaluate(request, services, serving, read_evaluations, serving.batch_limit)


async def _evaluate(
    request: Request, services: Services, serving: Serving, read: Callable[[bytes], Batch], limit: int
) -> Response:
    metrics = serving.metrics
    try:
        asker = await find_asker(request, services)
        require_json(request)
        batch = read(await read_body(request, limit))
        asks = [await _ask(asker, item) for item in batch.items if isinstance(item, Evaluation)]
        known = [ask for ask in asks if ask is not None]
        answered = await check_subjects(services.point, known, batch.freshly)
        record_subjects(services.point, known, answered)
        answers = iter(answered)
    except CannotDecideError as error:
        metrics.undecided.labels(error.code).inc()
        return cannot_decide(error)
    given = iter(asks)
    told = []
    for item in batch.items:
        if not isinstance(item, Evaluation):
            told.append(_unreadable(item))
            continue
        answer = None if next(given) is None else next(answers)
        if answer is not None:
            metrics.count_decision(allowed=answer.decision.allowed, reason=answer.decision.reason)
        told.append(_render(item, answer))
    body = told[0] if batch.single else {"evaluations": _cut(told, batch.semantic)}
    return answer_json(body)


def answer_json(body: Mapping[str, Any]) -> Response:
    """No cache may keep it: the next answer may differ."""
    return Response(msgspec.json.encode(body), media_type=JSON_TYPE, headers={"Cache-Control": "no-store"})


async def _ask(asker: Asker, item: Evaluation) -> SubjectAsk | None:
    """None for a subject of whose type nothing is known."""
    catalog = asker.catalog(item.ours.catalog)
    limit = await asker.limit(catalog)
    if item.subject is None:
        return None
    return SubjectAsk(item.subject, item.about, catalog, item.attributes, item.ours.client_address, limit)


def _render(item: Evaluation, answer: Answer | None) -> dict[str, Any]:
    """The decision, with its reason where the question asked for it: the words of `/check`."""
    found: dict[str, Any] = {"decision": answer is not None and answer.decision.allowed}
    if not item.ours.explain:
        return found
    if answer is None:
        return found | {"context": {"message": "nothing is known of such subjects; ask about a `token` or a `user`"}}
    context = msgspec.json.decode(encode_decision(answer.decision, answer.token))
    del context["decision"]
    return found | {"context": context | {"revision": revision_text(answer.stamp)}}


def _unreadable(faults: Sequence[Fault]) -> dict[str, Any]:
    listed = [{"where": one.where, "code": one.code, "message": one.message} for one in faults]
    error = {"status": 400, "message": "the item has a fault", "faults": listed}
    return {"decision": False, "context": {"error": error}}


def _cut(told: list[dict[str, Any]], semantic: Semantic) -> list[dict[str, Any]]:
    """The answers up to the one that settles the batch."""
    if semantic is Semantic.EXECUTE_ALL:
        return told
    settles = semantic is Semantic.PERMIT_ON_FIRST_PERMIT
    first = next((at for at, one in enumerate(told) if one["decision"] is settles), len(told))
    return told[: first + 1]


@discovery.get(
    "/.well-known/authzen-configuration",
    response_model=AuthzenConfiguration,
    responses=problems(400, 404, 500),
    summary="Where the AuthZEN endpoints are",
)
async def authzen_configuration(request: Request) -> Response:
    """For anybody. It is not there where the service was not told its own URL (`AUTHZ_PUBLIC_URL`)."""
    base: str | None = request.app.state.public_url
    if base is None:
        raise NotFoundError("this service does not say where it is: set AUTHZ_PUBLIC_URL")
    found = {"policy_decision_point": base} | {name: f"{base}{path}" for name, path in _PATHS.items()}
    return Response(msgspec.json.encode(found), media_type=JSON_TYPE, headers={"Cache-Control": "max-age=3600"})
