"""The playground: a token or the draft of one, a request, how the decision came about, and what would change it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Final

from fastapi import APIRouter, Request, Response

from authz_service.admin.asked_about import may_see_hidden, token_of
from authz_service.admin.catalogs import list_catalogs
from authz_service.admin.drafted import explain_draft
from authz_service.admin.sessions import Session
from authz_service.console.desk import Desk, open_desk, summaries_of
from authz_service.console.drafting import read_draft
from authz_service.console.errors import status_of
from authz_service.console.guarding import Form, SignedIn, read_form
from authz_service.console.pages.creating import token_draft_of
from authz_service.console.parts import Console, ConsoleHere
from authz_service.console.rendering import render
from authz_service.console.route import PageRoute
from authz_service.engine.explain import HIDDEN_MESSAGE, describe
from authz_service.engine.model import Decision, PermissionRequest, Reason, TracedToken
from authz_service.engine.steps import Fix, StepKind
from authz_service.errors import AuthzError, Fault, InvalidInputError
from authz_service.pdp.question import Ask, HttpCall, Question
from authz_service.tokens.model import Token
from authz_service.tokens.secret import is_token_id

router = APIRouter(route_class=PageRoute)
_OWN: Final = frozenset({StepKind.ADD_PERMISSIONS, StepKind.ADD_NODES, StepKind.ADD_SCOPE, StepKind.ADD_LEGACY_SCOPE})
_FIELDS = ("token", "catalog", "ask", "permission", "target", "method", "path")


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision as its reader may see it."""

    allowed: bool
    reason: str
    message: str
    missing: tuple[Any, ...]
    trace: tuple[Any, ...]
    token_id: str | None
    hidden: bool
    fixes: tuple[Remedy, ...] = ()


@dataclass(frozen=True, slots=True)
class Remedy:
    """What would turn a denial into an allow. `steps` are for the form of the token, where the token alone changes."""

    sentence: str
    steps: str | None


@router.get("/playground")
async def show_playground(request: Request, console: ConsoleHere, session: SignedIn) -> Response:
    form = Form([(name, value) for name, value in request.query_params.multi_items() if "\x00" not in value])
    return await _show(request, console, session, form)


@router.post("/playground")
async def decide(request: Request, console: ConsoleHere, session: SignedIn) -> Response:
    """A question; `draft` brings a draft here from where tokens are made, with no question yet."""
    form = await read_form(request, console)
    if form.get("go") == "draft":
        return await _show(request, console, session, form)
    try:
        drafted = form.get("draft") == "yes"
        verdict = await (_decide_draft if drafted else _decide)(console, session, form)
    except AuthzError as error:
        return await _show(request, console, session, form, error=error)
    return await _show(request, console, session, form, verdict=verdict)


async def _show(
    request: Request,
    console: Console,
    session: SignedIn,
    form: Form,
    *,
    verdict: Verdict | None = None,
    error: AuthzError | None = None,
) -> Response:
    given = {name: form.get(name)[:2000] for name in _FIELDS}
    if not is_token_id(given["token"]):
        given["token"] = ""  # a secret is not shown again
    found = await list_catalogs(console.management, session.actor)
    desk: Desk | None = None
    if form.get("draft") == "yes" or form.get("go") == "draft":
        desk = await open_desk(console, session, read_draft(form), "finish")
    return render(
        request,
        "playground.html",
        status=HTTPStatus.OK if error is None else status_of(error),
        title="Playground",
        given=given,
        secret_given=bool(form.get("token")) and not given["token"],
        catalogs=found["items"],
        verdict=verdict,
        error=error,
        desk=desk,
        summaries=[] if desk is None else summaries_of(desk),
    )


async def _decide(console: Console, session: SignedIn, form: Form) -> Verdict:
    text = form.get("token")
    if not text:
        raise _fault("token", "paste a token's secret, or write its id, `tok_…`")
    token: Token | None
    if is_token_id(text):
        token = await token_of(console.management, session.actor, text)
    else:
        token = await console.point.find_token(text)
    if token is None:
        reason = Reason.UNKNOWN_TOKEN if console.management.peppers.digest(text) else Reason.MALFORMED_TOKEN
        message = "this is no token of this service, or it was not copied whole"
        return Verdict(False, reason.value, message, (), (), None, False)
    catalog = form.get("catalog") or next(iter(token.catalogs))
    question = Question([Ask(_about(form))], catalog, client_address=session.actor.client_address, explain=True)
    [answer] = await console.point.check_own(token, question)
    token_id = None if answer.token is None else str(answer.token.id)
    shows_all = await may_see_hidden(console.management, session.actor)
    return _verdict(answer.decision, answer.trace or (), answer.fixes, token_id, shows_all=shows_all)


async def _decide_draft(console: Console, session: Session, form: Form) -> Verdict:
    draft = read_draft(form)
    wanted = token_draft_of(draft if draft.name.strip() else replace(draft, name="x"))
    found = await explain_draft(console.management, console.point.routing, session.actor, wanted, _about(form))
    shows_all = await may_see_hidden(console.management, session.actor)
    return _verdict(found.decision, found.trace, found.fixes, None, shows_all=shows_all)


def _about(form: Form) -> PermissionRequest | HttpCall:
    if form.get("ask") == "call":
        if not form.get("path"):
            raise _fault("path", "write the path as a client sends it, `/api/v4/projects/7/jobs`")
        return HttpCall(form.get("method") or "GET", form.get("path"), form.get("target") or None)
    if ":" not in form.get("permission"):
        raise _fault("permission", "write a permission as `job:read`")
    return PermissionRequest(form.get("permission"), form.get("target") or None)


def _fault(where: str, message: str) -> InvalidInputError:
    return InvalidInputError("the question is not complete", faults=[Fault(where, "missing_field", message)])


def _verdict(
    decision: Decision, trace: Sequence[TracedToken], fixes: Sequence[Fix], token_id: str | None, *, shows_all: bool
) -> Verdict:
    """What is hidden from the token's owner is told as what does not exist, unless the reader sees everything (A10)."""
    if decision.hide and not decision.allowed and not shows_all:
        return Verdict(False, Reason.TARGET_UNKNOWN.value, HIDDEN_MESSAGE, (), (), token_id, hidden=True)
    return Verdict(
        decision.allowed,
        decision.reason.value,
        describe(decision),
        decision.missing,
        tuple(trace),
        token_id,
        hidden=decision.hide,
        fixes=tuple(_remedy(fix, token_id) for fix in fixes),
    )


def _remedy(fix: Fix, token_id: str | None) -> Remedy:
    own = all(step.kind in _OWN and token_id in (None, str(step.token)) for step in fix.steps)
    steps = json.dumps([step.document() for step in fix.steps], separators=(",", ":"))
    return Remedy(fix.sentence(), steps if own else None)
