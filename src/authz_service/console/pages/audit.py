"""The record of changes: who did what to what, as far as the visitor may read it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request, Response

from authz_service.admin.audit import AuditQuery, list_audit
from authz_service.admin.chain_state import ChainState, show_chain
from authz_service.console.guarding import SignedIn
from authz_service.console.listing import Pager, is_filtered, query_of, text_of
from authz_service.console.parts import ConsoleHere
from authz_service.console.rendering import render
from authz_service.console.route import PageRoute
from authz_service.errors import AuthzError, ForbiddenError

router = APIRouter(route_class=PageRoute)


@router.get("/audit")
async def show_audit(request: Request, console: ConsoleHere, session: SignedIn) -> Response:
    query = query_of(request, "actor", "action", "subject", "node", "cursor")
    wanted = AuditQuery(
        node=text_of(request, "node", 1100),
        actor=text_of(request, "actor"),
        action=text_of(request, "action", 64),
        subject=text_of(request, "subject"),
        cursor=text_of(request, "cursor", 1000),
    )
    page: Mapping[str, Any] = {"items": [], "next_cursor": None}
    error: AuthzError | None = None
    chain: ChainState | None = None
    with suppress(ForbiddenError):
        chain = await show_chain(console.management, session.actor)
    try:
        page = await list_audit(console.management, session.actor, wanted)
    except AuthzError as found:
        error = found
    return render(
        request,
        "audit.html",
        status=HTTPStatus.OK if error is None else HTTPStatus.BAD_REQUEST,
        title="Audit",
        page=page,
        chain=chain,
        query=query,
        filtered=is_filtered(query),
        pager=Pager("/console/audit", query, page["next_cursor"]),
        error=error,
    )
