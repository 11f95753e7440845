"""A new secret for a token, and a token like another: looked at first, the secret shown on the page that answers."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any, Final

from fastapi import APIRouter, Request, Response

from authz_service.admin.cloning import CloneDraft, clone_token
from authz_service.admin.lists import TokenQuery, list_tokens
from authz_service.admin.rotating import Rotation, rotate_token
from authz_service.admin.sessions import Session
from authz_service.admin.tokens import Idempotency, Issued, show_token
from authz_service.admin.trials import Tried, try_clone, try_rotate
from authz_service.console.drafting import DAYS
from authz_service.console.errors import status_of
from authz_service.console.guarding import Form, SignedIn, read_form
from authz_service.console.parts import Console, ConsoleHere
from authz_service.console.rendering import plural, render
from authz_service.console.route import PageRoute
from authz_service.console.words import reach_words
from authz_service.errors import AuthzError, Fault, ForbiddenError, InvalidInputError

router = APIRouter(route_class=PageRoute)
_OVERLAPS: Final = {
    "0": "at once",
    "3600": "in an hour",
    "86400": "in a day",
    "604800": "in a week",
}


# rotate


@router.get("/tokens/{token_id}/rotate")
async def ask_to_rotate(request: Request, console: ConsoleHere, session: SignedIn, token_id: str) -> Response:
    return await _show_rotate(request, console, session, token_id, Form([]))


@router.post("/tokens/{token_id}/rotate")
async def rotate(request: Request, console: ConsoleHere, session: SignedIn, token_id: str) -> Response:
    form = await read_form(request, console)
    try:
        if form.get("confirmed") != "yes":
            raise ForbiddenError("nothing was rotated: say that you mean it")
        before = await show_token(console.management, session.actor, token_id)
        repeat = Idempotency(form.get("key")[:64], {"overlap": form.get("overlap")}) if form.get("key") else None
        issued = await rotate_token(
            console.management, session.actor, token_id, _rotation(form), repeat, wait=form.get("wait") == "yes"
        )
    except AuthzError as error:
        return await _show_rotate(request, console, session, token_id, form, error=error)
    return _show_issued(request, console, issued, f"in the place of {before['name']}")


def _rotation(form: Form) -> Rotation:
    overlap = form.get("overlap")
    return Rotation(timedelta(seconds=int(overlap)) if overlap in _OVERLAPS else timedelta())


async def _show_rotate(
    request: Request,
    console: Console,
    session: Session,
    token_id: str,
    form: Form,
    *,
    error: AuthzError | None = None,
) -> Response:
    """With why it could not be, found by doing it and undoing it."""
    token = await show_token(console.management, session.actor, token_id)
    refused: AuthzError | None = None
    if error is None:
        try:
            await try_rotate(console.management, session.actor, token_id, Rotation())
        except AuthzError as found:
            refused = found
    children: list[Any] = []
    if not token["partial"]:
        found_children = await list_tokens(console.management, session.actor, TokenQuery(parent=token["id"], limit=50))
        children = [one for one in found_children["items"] if one["state"] in ("active", "early")]
    return render(
        request,
        "rotate.html",
        status=HTTPStatus.OK if error is None else status_of(error),
        title=f"Rotate {token['name']}",
        token=token,
        children=children,
        overlaps=_OVERLAPS,
        overlap=form.get("overlap") or "0",
        key=form.get("key")[:64] or secrets.token_urlsafe(18),
        refused=refused,
        error=error,
        own=token["id"] == session.actor.token.id,
    )


# clone


@router.get("/tokens/{token_id}/clone")
async def ask_to_clone(request: Request, console: ConsoleHere, session: SignedIn, token_id: str) -> Response:
    return await _show_clone(request, console, session, token_id, None)


@router.post("/tokens/{token_id}/clone")
async def clone(request: Request, console: ConsoleHere, session: SignedIn, token_id: str) -> Response:
    """`look` says anew what would wait for an approval; `clone` makes it."""
    form = await read_form(request, console)
    try:
        draft = _clone_draft(form)
        if form.get("go") != "clone":
            return await _show_clone(request, console, session, token_id, form)
        repeat = None
        if form.get("key"):
            said = {name: form.get(name) for name in ("name", "owner", "reason", "expires", "date")}
            repeat = Idempotency(form.get("key")[:64], said)
        issued = await clone_token(console.management, session.actor, token_id, draft, repeat)
    except AuthzError as error:
        return await _show_clone(request, console, session, token_id, form, error=error)
    return _show_issued(request, console, issued, "like the other one")


def _clone_draft(form: Form) -> CloneDraft:
    """Raises InvalidInputError where the day is none."""
    expires = form.get("expires") or "keep"
    ends: datetime | None = None
    if expires == "date":
        try:
            ends = datetime.fromisoformat(form.get("date")[:10]).replace(tzinfo=UTC) + timedelta(days=1)
        except ValueError:
            fault = Fault("/expires_at", "invalid_value", "write the day as `2027-01-31`, or choose another end")
            raise InvalidInputError("the clone has a fault", faults=[fault]) from None
    elif expires.isascii() and expires.isdigit() and len(expires) < 6:
        ends = datetime.now(UTC).replace(microsecond=0) + timedelta(days=int(expires))
    return CloneDraft(
        name=form.get("name")[:200],
        owner=form.get("owner")[:255] or None,
        reason=form.get("reason")[:2000],
        expires_at=ends,
        keep_end=ends is None and expires != "never",
    )


async def _show_clone(
    request: Request,
    console: Console,
    session: Session,
    token_id: str,
    form: Form | None,
    *,
    error: AuthzError | None = None,
) -> Response:
    token = await show_token(console.management, session.actor, token_id)
    if token["partial"]:
        raise ForbiddenError("you see only a part of this token; who sees the whole of it clones it")
    ended = token["state"] in ("expired", "revoked")
    usual = {"name": f"{token['name'][:90]} copy", "owner": "", "reason": token["reason"], "date": ""}
    usual["expires"] = "30" if ended else "keep"
    fields = usual if form is None else {name: form.get(name)[:2000] for name in usual}
    tried: Tried | None = None
    refused: AuthzError | None = None
    if error is None:
        try:
            draft = _clone_draft(Form(list(fields.items())))
            tried = await try_clone(console.management, session.actor, token_id, draft)
        except AuthzError as found:
            refused = found
    return render(
        request,
        "clone.html",
        status=HTTPStatus.OK if error is None else status_of(error),
        title=f"Clone {token['name']}",
        token=token,
        reach=reach_words(token),
        fields=fields,
        days=DAYS,
        ended=ended,
        key=(form.get("key")[:64] if form else "") or secrets.token_urlsafe(18),
        tried=tried,
        refused=refused,
        error=error,
    )


def _show_issued(request: Request, console: Console, issued: Issued, about: str) -> Response:
    token = issued.token
    count = sum(len(scope["permissions"]) for scope in token["scopes"])
    return render(
        request,
        "created.html",
        status=HTTPStatus.CREATED,
        title="Copy the secret now" if issued.secret else "This was done already",
        token=token,
        secret=issued.secret,
        origin=console.origin_for(request),
        example={"resource": "", "action": "", "target": ""},
        about=f"{about}, {plural(count, 'permission')}" if count else about,
        another="",
    )
