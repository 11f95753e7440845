"""`/v1/self`: what the presented token is, what it may do, and its end (M4)."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, Field

from authz_service.admin import rotating, searching, tokens
from authz_service.admin.management import Actor
from authz_service.admin.tokens import Idempotency
from authz_service.api.admin.headers import IdempotencyKey
from authz_service.api.admin.privilege_shapes import EffectiveListQuery, EffectivePage
from authz_service.api.admin.shapes import Revision, Strict
from authz_service.api.admin.token_life import ISSUED, read_rotation, render_issued
from authz_service.api.admin.token_life_shapes import RotateBody
from authz_service.api.admin.token_shapes import IssuedToken, RevocationBody, RevokeQuery, TokenAnswer
from authz_service.api.admin.tokens import read_revocation
from authz_service.api.callers import ActorHere, RotatingActor
from authz_service.api.check.bodies import FixAnswer
from authz_service.api.documents import authenticated, body_of
from authz_service.api.state import Services, ServicesHere
from authz_service.api.wire import BATCH_LIMIT, json_body, no_store
from authz_service.engine.explain import HIDDEN_MESSAGE, describe
from authz_service.engine.model import TOKEN_REASONS, Decision, PermissionRequest, Reason
from authz_service.errors import Fault, InvalidInputError, UnauthenticatedError
from authz_service.pdp.question import Answer, Ask, Freshly, Question
from authz_service.pdp.revisions import revision_text

router = APIRouter(prefix="/v1/self", tags=["self"])

_PLACE: Final = (
    "where: a path as `acme/web`, a kind and a path or external id as `project:acme/web` or `project:42`, "
    "`user:dana`, or `instance`"
)


class OwnItem(Strict):
    """One question of a token about itself. What decides otherwise is not the token's to say: no attributes."""

    resource: str = Field(min_length=1, description="the first half of a permission: `issue` of `issue:read`")
    action: str = Field(min_length=1, description="the second half: `read` of `issue:read`")
    target: str | None = Field(None, description=_PLACE)

    def ask(self) -> Ask:
        return Ask(PermissionRequest(f"{self.resource}:{self.action}", self.target))


class OwnCommon(Strict):
    """What one question and a batch share."""

    catalog: str | None = Field(
        None, description="as `gitlab` or `gitlab@1`; may be left out by a token that is for a single one"
    )
    at_least: str | None = Field(None, description="decide by facts at least as fresh as this revision")
    fully_consistent: bool = Field(default=False, description="decide by facts read after this request came")


class OwnCheck(OwnCommon, OwnItem):
    """What one question holds."""

    explain: bool = Field(default=False, description="of a deny: name the smallest changes that would allow it")


class OwnBatch(OwnCommon):
    """What many questions hold."""

    items: Annotated[list[OwnItem], Field(min_length=1, max_length=10_000)]


class OwnMissing(BaseModel):
    """A permission that the token would need, and where."""

    permission: str
    boundary: str
    target: str


class OwnDecision(BaseModel):
    """Allow or deny, and why. A target that the token may not know of looks like one that does not exist."""

    decision: Literal["allow", "deny"]
    reason: Reason
    message: str = Field(description="for people: what is missing, and the smallest fix; it may change")
    missing: list[OwnMissing] | None = Field(None, description="everything that the token lacks for this")


class OwnCheckAnswer(OwnDecision):
    """The decision, at a revision."""

    fixes: list[FixAnswer] | None = Field(
        None, description="with `explain`, of a deny: the smallest changes that would allow it; none of what is hidden"
    )
    token_id: str
    revision: Revision


class OwnBatchAnswer(BaseModel):
    """One decision for each item, in their order, all at one revision."""

    decisions: list[OwnDecision]
    token_id: str
    revision: Revision


@router.get("", response_model=TokenAnswer, responses=authenticated(), summary="Show the presented token")
async def show_self(services: ServicesHere, actor: ActorHere, response: Response) -> Any:
    """Needs no permission: whoever holds a token may know what it is."""
    no_store(response)
    return await tokens.show_self(services.management, actor)


@router.delete(
    "",
    response_model=TokenAnswer,
    responses=authenticated(413),
    openapi_extra=body_of(RevocationBody, required=False),
    summary="Revoke the presented token",
)
async def revoke_self(
    services: ServicesHere,
    actor: ActorHere,
    request: Request,
    response: Response,
    query: Annotated[RevokeQuery, Query()],
) -> Any:
    """Needs no permission, and ends for ever what was issued under it too."""
    said = await read_revocation(request)
    no_store(response)
    return await tokens.revoke_self(services.management, actor, said.reason, wait=query.wait)


@router.post(
    "/rotate",
    status_code=HTTPStatus.CREATED,
    response_model=IssuedToken,
    responses={**authenticated(409, 413), **ISSUED},
    openapi_extra=body_of(RotateBody, examples={"with a bridge": {"overlap_seconds": 3600}}),
    summary="Replace the presented token's secret",
)
async def rotate_self(
    services: ServicesHere,
    actor: RotatingActor,
    request: Request,
    response: Response,
    query: Annotated[RevokeQuery, Query()],
    idempotency_key: IdempotencyKey = None,
) -> Any:
    """Needs the flag `may_rotate_self`, and a token that is no child. Take an overlap: an answer may be lost.

    Whoever tries it with a secret that is out already revokes all that came of it.
    """
    body, written = await read_rotation(request)
    repeat = None if idempotency_key is None else Idempotency(idempotency_key, written)
    issued = await rotating.rotate_self(services.management, actor, body.rotation(), repeat, wait=query.wait)
    return render_issued(response, issued)


@router.get(
    "/effective", response_model=EffectivePage, responses=authenticated(), summary="What may the presented token do?"
)
async def show_own_effective(
    services: ServicesHere, actor: ActorHere, response: Response, query: Annotated[EffectiveListQuery, Query()]
) -> Any:
    """All of it, what at one place, or where one permission: complete over its pages. Needs no permission."""
    no_store(response)
    return await searching.list_own(services.management, services.search, actor, query.query())


@router.post(
    "/check",
    response_model=OwnCheckAnswer,
    response_model_exclude_none=True,
    responses=authenticated(409, 413),
    openapi_extra=body_of(
        OwnCheck, examples={"one": {"resource": "job", "action": "run", "target": "project:acme/web"}}
    ),
    summary="May the presented token do this?",
)
async def check_self(
    services: ServicesHere,
    actor: ActorHere,
    response: Response,
    body: Annotated[OwnCheck, Depends(json_body(OwnCheck))],
) -> Any:
    """The same decision as an API server gets. Treat 503 as a deny."""
    no_store(response)
    [answer] = await _ask(services, actor, body, [body], explain=body.explain)
    fixes = {"fixes": [fix.document() for fix in answer.fixes]} if body.explain and not answer.decision.allowed else {}
    return render_decision(answer.decision) | fixes | _tail(actor, answer)


@router.post(
    "/check/batch",
    response_model=OwnBatchAnswer,
    response_model_exclude_none=True,
    responses=authenticated(409, 413),
    openapi_extra=body_of(
        OwnBatch, examples={"two": {"items": [{"resource": "job", "action": "run", "target": "project:acme/web"}]}}
    ),
    summary="May the presented token do these?",
)
async def check_self_batch(
    services: ServicesHere,
    actor: ActorHere,
    response: Response,
    body: Annotated[OwnBatch, Depends(json_body(OwnBatch, BATCH_LIMIT))],
) -> Any:
    """Up to 10,000 questions, answered at one revision."""
    no_store(response)
    answers = await _ask(services, actor, body, body.items)
    return {"decisions": [render_decision(answer.decision) for answer in answers]} | _tail(actor, answers[0])


async def _ask(
    services: Services, actor: Actor, common: OwnCommon, items: Sequence[OwnItem], *, explain: bool = False
) -> list[Answer]:
    catalog = common.catalog
    if catalog is None and len(actor.token.catalogs) == 1:
        catalog = next(iter(actor.token.catalogs))
    if catalog is None:
        message = "this token is for more than one catalog; say which one is meant"
        raise InvalidInputError("the body has a fault", faults=[Fault("/catalog", "missing_field", message)])
    question = Question(
        [item.ask() for item in items],
        catalog,
        client_address=actor.client_address,
        freshly=Freshly(common.at_least, common.fully_consistent),
        explain=explain,
    )
    answers = await services.point.check_own(actor.token, question)
    if any(answer.decision.reason in TOKEN_REASONS for answer in answers):
        raise UnauthenticatedError("show a valid token as `Authorization: Bearer`")
    return answers


def render_decision(decision: Decision) -> dict[str, Any]:
    """A decision for an end client: what is hidden is told in the very bytes of what does not exist (A10)."""
    if decision.hide and not decision.allowed:
        return {"decision": "deny", "reason": Reason.TARGET_UNKNOWN, "message": HIDDEN_MESSAGE}
    found: dict[str, Any] = {
        "decision": "allow" if decision.allowed else "deny",
        "reason": decision.reason,
        "message": describe(decision),
    }
    if decision.missing:
        found["missing"] = [
            {"permission": item.permission, "boundary": item.boundary.value, "target": item.target}
            for item in decision.missing
        ]
    return found


def _tail(actor: Actor, answer: Answer) -> dict[str, Any]:
    return {"token_id": actor.token.id, "revision": revision_text(answer.stamp)}
