"""The review queue: what tokens ask of groups, and what groups granted them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import Any, Final

from fastapi import APIRouter, Request, Response

from authz_service.admin.grants import (
    ApprovalQuery,
    Review,
    Verdict,
    decide_requests,
    list_grants,
    list_requests,
    revoke_grants,
)
from authz_service.console.guarding import Form, SignedIn, read_form
from authz_service.console.listing import Pager, query_of, text_of
from authz_service.console.parts import ConsoleHere
from authz_service.console.rendering import render
from authz_service.console.route import PageRoute
from authz_service.errors import AuthzError, Fault, InvalidInputError

router = APIRouter(route_class=PageRoute)
_PAGE: Final = 25
_STATES: Final = {"requests": ("pending", "approved", "denied", "cancelled"), "grants": ("active", "revoked")}


@router.get("/requests")
async def show_requests(request: Request, console: ConsoleHere, session: SignedIn) -> Response:
    """Pending ones unless another state is asked for; of all groups for admins, of one's own group for its owners."""
    return await _show(request, console, session, "requests")


@router.get("/grants")
async def show_grants(request: Request, console: ConsoleHere, session: SignedIn) -> Response:
    return await _show(request, console, session, "grants")


async def _show(
    request: Request,
    console: ConsoleHere,
    session: SignedIn,
    what: str,
    *,
    outcomes: tuple[Mapping[str, Any], ...] = (),
    error: AuthzError | None = None,
) -> Response:
    query = query_of(request, "node", "state", "token", "cursor")
    states = _STATES[what]
    state = query["state"] if query["state"] in (*states, "any") else states[0]
    wanted = ApprovalQuery(
        node=text_of(request, "node", 1100),
        token=text_of(request, "token", 64),
        state=None if state == "any" else state,
        limit=_PAGE,
        cursor=text_of(request, "cursor", 1000),
    )
    page: Mapping[str, Any] = {"items": [], "next_cursor": None}
    unseen: AuthzError | None = None
    try:
        found = list_requests if what == "requests" else list_grants
        page = await found(console.management, session.actor, wanted)
    except AuthzError as refused:
        unseen = refused
    return render(
        request,
        "approvals.html",
        status=HTTPStatus.OK if error is None else HTTPStatus.BAD_REQUEST,
        title="Requests" if what == "requests" else "Grants",
        what=what,
        states=states,
        state=state,
        query=query,
        page=page,
        pager=Pager(f"/console/{what}", query, page["next_cursor"]),
        unseen=unseen,
        error=error,
        outcomes=outcomes,
    )


@router.post("/requests")
async def decide(request: Request, console: ConsoleHere, session: SignedIn) -> Response:
    """One request by its own button, or all that are ticked; each is decided by itself."""
    form = await read_form(request, console)
    verb, _, one = form.get("go").partition(":")
    try:
        ids = _numbers([one] if one else form.all("id"))
        part = verb == "part"
        verb = "approve" if part else verb
        verdict = next((known for known in Verdict if known.value == verb), None)
        if verdict is None or not ids:
            fault = Fault("ids", "missing_field", "tick at least one request, then say what is to become of them")
            raise InvalidInputError("nothing was decided", faults=[fault])
        review = Review(verdict, form.get("reason"))
        if part:
            review = _part_of(form, ids[0], review)
        outcomes = await decide_requests(console.management, session.actor, ids, review)
    except AuthzError as error:
        return await _show(request, console, session, "requests", error=error)
    return await _show(request, console, session, "requests", outcomes=tuple(outcomes))


def _part_of(form: Form, number: int, review: Review) -> Review:
    """Only what is ticked of a request; its places where more than one was asked for. Raises InvalidInputError."""
    names = tuple(dict.fromkeys(word for text in form.all(f"permissions:{number}") for word in text.split()))
    if not names:
        fault = Fault("permissions", "missing_field", "tick the permissions that are approved, or deny the request")
        raise InvalidInputError("nothing was decided", faults=[fault])
    nodes = tuple(dict.fromkeys(form.all(f"nodes:{number}")))
    return replace(review, permissions=names, nodes=nodes or None)


@router.post("/grants")
async def end_grants(request: Request, console: ConsoleHere, session: SignedIn) -> Response:
    """One grant by its own button, or all that are ticked; each ends by itself."""
    form = await read_form(request, console)
    _, _, one = form.get("go").partition(":")
    try:
        ids = _numbers([one] if one else form.all("id"))
        if not ids:
            fault = Fault("ids", "missing_field", "tick at least one grant, then say that it is to end")
            raise InvalidInputError("nothing was ended", faults=[fault])
        outcomes = await revoke_grants(console.management, session.actor, ids, form.get("reason"))
    except AuthzError as error:
        return await _show(request, console, session, "grants", error=error)
    return await _show(request, console, session, "grants", outcomes=tuple(outcomes))


def _numbers(given: list[str]) -> list[int]:
    return list(dict.fromkeys(int(one) for one in given if one.isascii() and one.isdigit() and len(one) < 18))
