"""Tokens ended, one by one and several at once; and all that one could reach, for when its secret has leaked."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from authz_service.admin.blast import show_blast_radius
from authz_service.admin.lists import TokenQuery, list_tokens
from authz_service.admin.searching import EffectiveQuery
from authz_service.admin.tokens import revoke_token, show_token
from authz_service.console.errors import status_of
from authz_service.console.guarding import SignedIn, read_form
from authz_service.console.listing import Pager, query_of, text_of
from authz_service.console.parts import ConsoleHere
from authz_service.console.rendering import render
from authz_service.console.route import PageRoute
from authz_service.console.words import reach_words
from authz_service.errors import AuthzError, Fault, ForbiddenError, InvalidInputError

router = APIRouter(route_class=PageRoute)
_MOST: Final = 100
_DAYS: Final = 30


@router.post("/tokens/revoke")
async def revoke_many(request: Request, console: ConsoleHere, session: SignedIn) -> Response:
    """First those that are ticked, by name; then each by itself: one that may not be ended stops no other."""
    form = await read_form(request, console)
    ids = list(dict.fromkeys(one[:64] for one in form.all("id")))
    if not 0 < len(ids) <= _MOST:
        fault = Fault("id", "missing_field", f"tick 1 to {_MOST} tokens first")
        raise InvalidInputError("nothing was revoked", faults=[fault])
    rows: list[dict[str, Any]] = []
    confirmed = form.get("confirmed") == "yes"
    for token_id in ids:
        row: dict[str, Any] = {"id": token_id, "token": None, "problem": None, "reach": ""}
        try:
            row["token"] = await show_token(console.management, session.actor, token_id)
            row["reach"] = reach_words(row["token"])
            if confirmed:
                row["token"] = await revoke_token(console.management, session.actor, token_id)
        except AuthzError as error:
            row["problem"] = error.message
        rows.append(row)
    title = "Revoked" if confirmed else "Revoke these tokens?"
    return render(request, "revoke_many.html", title=title, rows=rows, confirmed=confirmed)


@router.get("/tokens/{token_id}/revoke")
async def ask_to_revoke(request: Request, console: ConsoleHere, session: SignedIn, token_id: str) -> Response:
    item = await show_token(console.management, session.actor, token_id)
    children: Mapping[str, Any] = {"items": [], "next_cursor": None}
    if not item["partial"]:
        query = TokenQuery(parent=item["id"], limit=50)
        children = await list_tokens(console.management, session.actor, query)
    return render(
        request,
        "revoke.html",
        title=f"Revoke {item['name']}",
        token=item,
        reach=reach_words(item),
        children=[one for one in children["items"] if one["state"] != "revoked"],
        more=children["next_cursor"] is not None,
        own=item["id"] == session.actor.token.id,
    )


@router.post("/tokens/{token_id}/revoke")
async def revoke(request: Request, console: ConsoleHere, session: SignedIn, token_id: str) -> Response:
    form = await read_form(request, console)
    if form.get("confirmed") != "yes":
        raise ForbiddenError("nothing was revoked: say that you mean it")
    wait = form.get("wait") == "yes"
    shown = await revoke_token(console.management, session.actor, token_id, form.get("reason")[:1000], wait=wait)
    return RedirectResponse(f"/console/tokens/{shown['id']}", HTTPStatus.SEE_OTHER)


@router.get("/tokens/{token_id}/radius")
async def show_radius(request: Request, console: ConsoleHere, session: SignedIn, token_id: str) -> Response:
    """Place by place, as if the token had not ended, with what is known of its use."""
    item = await show_token(console.management, session.actor, token_id)
    query = query_of(request, "in", "cursor")
    chosen = text_of(request, "in", 64) or (item["catalogs"][0].partition("@")[0] if item["catalogs"] else None)
    found: Mapping[str, Any] | None = None
    error: AuthzError | None = None
    try:
        wanted = EffectiveQuery(catalog=chosen, public=False, limit=25, cursor=text_of(request, "cursor", 1000))
        found = await show_blast_radius(console.management, console.search, session.actor, token_id, wanted, days=_DAYS)
    except AuthzError as refused:
        error = refused
    return render(
        request,
        "radius.html",
        status=HTTPStatus.OK if error is None else status_of(error),
        title=f"Reach of {item['name']}",
        token=item,
        chosen=chosen,
        found=found,
        pager=Pager(request.url.path, query, None if found is None else found["next_cursor"]),
        error=error,
    )
