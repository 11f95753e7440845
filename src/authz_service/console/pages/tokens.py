"""Tokens: one table for all kinds, the page of one, its export."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from authz_service.admin.asked_about import token_of
from authz_service.admin.audit import AuditQuery, list_audit
from authz_service.admin.choosing import catalog_of
from authz_service.admin.grants import ApprovalQuery, list_grants, list_requests
from authz_service.admin.lists import TokenQuery, TokenSort, TokenState, list_tokens
from authz_service.admin.management import Actor
from authz_service.admin.tokens import show_token
from authz_service.admin.trials import find_waiting
from authz_service.admin.usage import UsageQuery, show_usage
from authz_service.console.guarding import SignedIn
from authz_service.console.listing import Pager, choice_of, is_filtered, link, query_of, text_of
from authz_service.console.parts import Console, ConsoleHere
from authz_service.console.rendering import render
from authz_service.console.route import PageRoute
from authz_service.console.words import fold, fold_many, marks_of, reach_words
from authz_service.engine.explain import HIDDEN_MESSAGE, describe
from authz_service.engine.model import PermissionRequest
from authz_service.errors import AuthzError, ForbiddenError, NotFoundError
from authz_service.pdp.question import Ask, Question
from authz_service.tokens.model import TokenKind

router = APIRouter(route_class=PageRoute)
_PAGE: Final = 25
_EXPORTED_AT_ONCE: Final = 500
_USAGE: Final = UsageQuery(limit=20)
_FILTERS: Final = ("search", "owner", "node", "kind", "state", "catalog", "permission", "sort", "sessions", "cursor")


def _query(request: Request) -> TokenQuery:
    return TokenQuery(
        owner=text_of(request, "owner"),
        node=text_of(request, "node", 1100),
        kind=choice_of(request, "kind", TokenKind),
        state=choice_of(request, "state", TokenState),
        catalog=text_of(request, "catalog", 64),
        permission=text_of(request, "permission", 129),
        search=text_of(request, "search", 100),
        sort=choice_of(request, "sort", TokenSort) or TokenSort.NEWEST,
        limit=_PAGE,
        cursor=text_of(request, "cursor", 1000),
        sessions=request.query_params.get("sessions") == "1",
    )


@router.get("/tokens")
async def show_tokens(request: Request, console: ConsoleHere, session: SignedIn) -> Response:
    query = query_of(request, *_FILTERS)
    now = datetime.now(UTC)
    error: AuthzError | None = None
    page: Mapping[str, Any] = {"items": [], "next_cursor": None}
    try:
        page = await list_tokens(console.management, session.actor, _query(request))
    except AuthzError as found:
        if not is_filtered(query):
            raise
        error = found
    asked = [item["id"] for item in page["items"] if item["grants"] and not item["partial"]]
    waiting = await find_waiting(console.management, session.actor, asked) if asked else frozenset()
    rows = [
        {
            "token": item,
            "reach": reach_words(item),
            "folded": fold_many(item["scopes"]),
            "marks": marks_of(item, now, waiting=item["id"] in waiting),
        }
        for item in page["items"]
    ]
    return render(
        request,
        "tokens.html",
        status=HTTPStatus.OK if error is None else HTTPStatus.BAD_REQUEST,
        title="Tokens",
        rows=rows,
        query=query,
        filtered=is_filtered(query),
        pager=Pager("/console/tokens", query, page["next_cursor"]),
        export=link("/console/tokens.csv", {**query, "cursor": ""}),
        error=error,
        sorts={
            TokenSort.NEWEST: "newest first",
            TokenSort.OLDEST: "oldest first",
            TokenSort.EXPIRES: "soonest to expire",
            TokenSort.LAST_USED: "last used",
        },
    )


_COLUMNS: Final = ("id", "name", "owner", "kind", "state", "reach", "permissions", "created", "last_used", "expires")


@router.get("/tokens.csv")
async def export_tokens(request: Request, console: ConsoleHere, session: SignedIn) -> Response:
    """All that the filters keep, not only one page, as a table for spreadsheets."""
    query = replace(_query(request), cursor=None, limit=_EXPORTED_AT_ONCE)
    # The first page before the answer begins: a fault is then an error page, and no half a file.
    first = await list_tokens(console.management, session.actor, query)
    headers = {"Content-Disposition": 'attachment; filename="tokens.csv"', "Cache-Control": "no-store"}
    lines = _lines(console, session.actor, query, first)
    return StreamingResponse(lines, media_type="text/csv; charset=utf-8", headers=headers)


async def _lines(console: Console, actor: Actor, query: TokenQuery, page: Mapping[str, Any]) -> AsyncIterator[str]:
    yield _csv(_COLUMNS)
    while True:
        for item in page["items"]:
            scopes = "; ".join(" ".join(scope["permissions"]) for scope in item["scopes"])
            permissions = scopes or " ".join(item["legacy_scopes"])
            yield _csv(
                (
                    *(item[name] for name in ("id", "name", "owner", "kind", "state")),
                    reach_words(item),
                    permissions,
                    *(item[name] or "" for name in ("created_at", "last_used_at", "expires_at")),
                )
            )
        if page["next_cursor"] is None:
            return
        page = await list_tokens(console.management, actor, replace(query, cursor=page["next_cursor"]))


def _csv(cells: tuple[str, ...]) -> str:
    out = io.StringIO()
    # A spreadsheet takes a text that begins so for a formula.
    csv.writer(out).writerow([f"'{cell}" if cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell for cell in cells])
    return out.getvalue()


@router.get("/tokens/{token_id}")
async def show_one(request: Request, console: ConsoleHere, session: SignedIn, token_id: str) -> Response:
    """Its scopes, what it may do at one place, what hangs under it, what was done to it."""
    item = await show_token(console.management, session.actor, token_id)
    place = text_of(request, "place", 1100)
    effective = None
    if place is not None and not item["partial"]:
        effective = await _effective(console, session.actor, item, place, text_of(request, "in", 64))
    children: Mapping[str, Any] = {"items": []}
    if not item["partial"]:
        query = TokenQuery(owner=None, parent=item["id"], limit=50)
        children = await list_tokens(console.management, session.actor, query)
    grants, requests = await _approvals(console, session.actor, item)
    used = None if item["partial"] else await show_usage(console.management, session.actor, item["id"], _USAGE)
    return render(
        request,
        "token.html",
        title=item["name"],
        grants=grants,
        requests=requests,
        waiting=any(one["state"] == "pending" for one in requests),
        used=used,
        token=item,
        scopes=[{"scope": scope, "folded": fold(scope["permissions"])} for scope in item["scopes"]],
        reach=reach_words(item),
        marks=marks_of(item, datetime.now(UTC)),
        place=place,
        effective=effective,
        children=children["items"],
        trail=await _trail(console, session.actor, item["id"]),
        own=item["id"] == session.actor.token.id,
        new="new" in request.query_params,
    )


async def _approvals(console: Console, actor: Actor, item: Mapping[str, Any]) -> tuple[Sequence[Any], Sequence[Any]]:
    """What groups granted, and what still waits; nothing for those who may not see it."""
    if item["partial"] or item["kind"] == TokenKind.LEGACY.value:
        return (), ()
    wanted = ApprovalQuery(token=item["id"], limit=20)
    try:
        granted = (await list_grants(console.management, actor, replace(wanted, state="active")))["items"]
        asked = (await list_requests(console.management, actor, wanted))["items"]
    except (ForbiddenError, NotFoundError):
        return (), ()
    return granted, [one for one in asked if one["state"] in ("pending", "denied")]


async def _trail(console: Console, actor: Actor, token_id: str) -> list[Mapping[str, Any]] | None:
    """What was done to it, newest first; None for those who may not read the audit."""
    try:
        return list((await list_audit(console.management, actor, AuditQuery(subject=token_id)))["items"])
    except ForbiddenError:
        return None


async def _effective(
    console: Console, actor: Actor, item: Mapping[str, Any], place: str, catalog: str | None
) -> dict[str, Any]:
    """What the token may do at a place, by asking for each permission of its catalog as a gateway would."""
    label = next((one for one in item["catalogs"] if one.partition("@")[0] == catalog), item["catalogs"][0])
    found = await catalog_of(console.management, actor, label)
    token = await token_of(console.management, actor, item["id"])
    names = [permission.name for permission in found.permissions]
    question = Question([Ask(PermissionRequest(name, place)) for name in names], label)
    answers = await console.point.check_own(token, question)
    allowed = [name for name, answer in zip(names, answers, strict=False) if answer.decision.allowed]
    why = None
    if not allowed and answers:
        # Of all that is denied, what the token names itself tells most.
        named = {name for scope in item["scopes"] for name in scope["permissions"]}
        decision = next(
            (answer.decision for name, answer in zip(names, answers, strict=False) if name in named),
            answers[0].decision,
        )
        why = HIDDEN_MESSAGE if decision.hide else describe(decision)
    return {"catalog": label, "folded": fold(allowed), "count": len(allowed), "of": len(names), "why": why}
