"""The playground: a token, a request, and how the decision came about, rule by rule."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request, Response

from authz_service.admin.asked_about import may_see_hidden, token_of
from authz_service.admin.catalogs import list_catalogs
from authz_service.console.errors import status_of
from authz_service.console.guarding import Form, SignedIn, read_form
from authz_service.console.parts import Console, ConsoleHere
from authz_service.console.rendering import render
from authz_service.console.route import PageRoute
from authz_service.engine.explain import HIDDEN_MESSAGE, describe
from authz_service.engine.model import PermissionRequest, Reason
from authz_service.errors import AuthzError, Fault, InvalidInputError
from authz_service.pdp.question import Answer, Ask, HttpCall, Question
from authz_service.tokens.model import Token
from authz_service.tokens.secret import is_token_id

router = APIRouter(route_class=PageRoute)
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


@router.get("/playground")
async def show_playground(request: Request, console: ConsoleHere, session: SignedIn) -> Response:
    form = Form(list(request.query_params.multi_items()))
    return await _show(request, console, session, form)


@router.post("/playground")
async def decide(request: Request, console: ConsoleHere, session: SignedIn) -> Response:
    form = await read_form(request, console)
    try:
        verdict = await _decide(console, session, form)
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
    return _verdict(answer, shows_all=await may_see_hidden(console.management, session.actor))


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


def _verdict(answer: Answer, *, shows_all: bool) -> Verdict:
    """What is hidden from the token's owner is told as what does not exist, unless the reader sees everything (A10)."""
    decision = answer.decision
    token_id = None if answer.token is None else str(answer.token.id)
    if decision.hide and not decision.allowed and not shows_all:
        return Verdict(False, Reason.TARGET_UNKNOWN.value, HIDDEN_MESSAGE, (), (), token_id, hidden=True)
    return Verdict(
        decision.allowed,
        decision.reason.value,
        describe(decision),
        decision.missing,
        tuple(answer.trace or ()),
        token_id,
        hidden=decision.hide,
    )
