"""Changing a token: edited in the steps it was made in, or narrowed to what it was used for; always looked at first."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from authz_service.admin.editing import TokenChange, edit_token
from authz_service.admin.sessions import Session
from authz_service.admin.tokens import show_token
from authz_service.admin.trials import try_edit
from authz_service.admin.usage import DAYS, apply_suggestion, show_suggestion
from authz_service.console.comparing import compare
from authz_service.console.desk import Desk, act, open_desk, read_beside, show_desk
from authz_service.console.drafting import Draft, draft_of, read_draft, with_steps
from authz_service.console.errors import status_of
from authz_service.console.guarding import Form, SignedIn, read_form
from authz_service.console.listing import link
from authz_service.console.pages.creating import token_draft_of
from authz_service.console.parts import Console, ConsoleHere
from authz_service.console.rendering import render
from authz_service.console.route import PageRoute
from authz_service.errors import AuthzError, ForbiddenError, PreconditionFailedError

router = APIRouter(route_class=PageRoute)
_SPANS: Final = (7, 30, 90)


@router.get("/tokens/{token_id}/edit")
async def begin(request: Request, console: ConsoleHere, session: SignedIn, token_id: str) -> Response:
    """As the token is; with `fix`, after the steps that the playground named."""
    token = await _token(console, session, token_id)
    draft = draft_of(token)
    fix = request.query_params.get("fix", "")
    if fix:
        draft = with_steps(draft, fix[:20_000])
    desk = await open_desk(console, session, draft, "finish", token)
    return await _show(request, console, session, desk)


@router.post("/tokens/{token_id}/edit")
async def go_on(request: Request, console: ConsoleHere, session: SignedIn, token_id: str) -> Response:
    """One step, as a new token is made; `save` saves what the page before it showed, and nothing that it did not."""
    form = await read_form(request, console)
    token = await _token(console, session, token_id)
    desk = await open_desk(console, session, read_draft(form), form.get("step"), token)
    read_beside(desk, form)
    verb, _, rest = form.get("go").partition(":")
    try:
        if verb == "save":
            desk.step = "finish"
            if form.get("seen") == desk.draft.digest:
                return await _save(console, session, desk, token, wait=form.get("wait") == "yes")
            desk.unseen = True
        else:
            await act(console, session, desk, verb, rest)
    except AuthzError as error:
        desk.error = error
    return await _show(request, console, session, desk)


async def _token(console: Console, session: Session, token_id: str) -> dict[str, Any]:
    token = dict(await show_token(console.management, session.actor, token_id))
    if token["partial"]:
        raise ForbiddenError("you see only a part of this token; its owner edits it")
    return token


async def _show(request: Request, console: Console, session: Session, desk: Desk) -> Response:
    """On the last step with what would be another, found by doing it and undoing it."""
    if desk.step == "finish" and desk.error is None and desk.token is not None:
        try:
            change = change_of(desk.token, desk.draft)
            if change.given:
                tags = [desk.draft.etag]
                desk.tried = await try_edit(console.management, session.actor, desk.token["id"], change, tags)
                desk.differences = compare(desk.token, desk.tried.token)
        except PreconditionFailedError as error:
            desk.error = error
        except AuthzError as error:
            desk.refused = error
    return await show_desk(request, console, session, desk)


async def _save(console: Console, session: Session, desk: Desk, token: dict[str, Any], *, wait: bool) -> Response:
    change = change_of(token, desk.draft)
    if change.given:
        await edit_token(console.management, session.actor, token["id"], change, [desk.draft.etag], wait=wait)
    where = link(f"/console/tokens/{token['id']}", {"changed": "1" if change.given else ""})
    return RedirectResponse(where, HTTPStatus.SEE_OTHER)


def change_of(token: Mapping[str, Any], draft: Draft) -> TokenChange:
    """What of the draft differs from the token: the rest stays as it is stored, not as it was shown.

    Raises InvalidInputError where the day is none.
    """
    before, wanted = draft_of(token), token_draft_of(draft)
    pairs = {
        "name": (before.name, draft.name),
        "reason": (before.reason, draft.reason),
        "conditions": (before.token_networks, draft.token_networks),
        "evaluates": (before.evaluates.split(), list(wanted.evaluates)),
        "may_rotate_self": (before.rotates, draft.rotates),
        "legacy_scopes": (sorted(before.legacy), sorted(draft.legacy)),
        "scopes": (before.scopes_said, draft.scopes_said),
    }
    given = {name for name, (old, new) in pairs.items() if old != new}
    if draft.expires != "keep":
        given.add("expires_at")
    return TokenChange(frozenset(given), wanted)


# narrowed by use


@router.get("/tokens/{token_id}/shrink")
async def show_shrink(request: Request, console: ConsoleHere, session: SignedIn, token_id: str) -> Response:
    return await _shrink(request, console, session, token_id, _days(Form(list(request.query_params.multi_items()))))


@router.post("/tokens/{token_id}/shrink")
async def do_shrink(request: Request, console: ConsoleHere, session: SignedIn, token_id: str) -> Response:
    form = await read_form(request, console)
    days = _days(form)
    try:
        if form.get("confirmed") != "yes":
            raise ForbiddenError("nothing was changed: say that you mean it")
        shown = await apply_suggestion(console.management, session.actor, token_id, days, [form.get("etag")])
    except AuthzError as error:
        return await _shrink(request, console, session, token_id, days, error=error)
    return RedirectResponse(f"/console/tokens/{shown['id']}?changed=1", HTTPStatus.SEE_OTHER)


async def _shrink(
    request: Request, console: Console, session: Session, token_id: str, days: int, *, error: AuthzError | None = None
) -> Response:
    found = await show_suggestion(console.management, session.actor, token_id, days)
    token = await show_token(console.management, session.actor, token_id)
    wanted = [{**scope, "catalog": scope["catalog"].partition("@")[0]} for scope in found["token"]["scopes"]]
    after = {**token, "scopes": wanted, "legacy_scopes": []}
    return render(
        request,
        "shrink.html",
        status=HTTPStatus.OK if error is None else status_of(error),
        title=f"Narrow {token['name']}",
        token=token,
        found=found,
        days=days,
        spans=_SPANS,
        differences=compare(token, after) if found["narrower"] else [],
        error=error,
    )


def _days(form: Form) -> int:
    given = form.get("days")
    return next((days for days in _SPANS if str(days) == given), DAYS)
