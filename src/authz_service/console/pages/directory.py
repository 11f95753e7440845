"""The directory: groups, projects and people, as far as the visitor may look."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from fastapi import APIRouter, Request, Response

from authz_service.admin.directory import NodeQuery, list_nodes, show_node, show_user
from authz_service.console.guarding import SignedIn
from authz_service.console.listing import Pager, choice_of, query_of, text_of
from authz_service.console.parts import ConsoleHere
from authz_service.console.rendering import render
from authz_service.console.route import PageRoute
from authz_service.directory.model import NodeKind
from authz_service.errors import AuthzError, ForbiddenError

router = APIRouter(route_class=PageRoute)
_PAGE: Final = 50


@router.get("/directory")
async def show_directory(request: Request, console: ConsoleHere, session: SignedIn) -> Response:
    """What lies below a place; without one, all there is, or the visitor's own memberships where that is not theirs."""
    management, actor = console.management, session.actor
    query = query_of(request, "under", "search", "kind", "cursor")
    wanted = NodeQuery(
        under=text_of(request, "under", 1100),
        kind=choice_of(request, "kind", NodeKind),
        search=text_of(request, "search", 100),
        limit=_PAGE,
        cursor=text_of(request, "cursor", 1000),
    )
    page: Mapping[str, Any] = {"items": [], "next_cursor": None}
    error: AuthzError | None = None
    own: Mapping[str, Any] | None = None
    try:
        page = await list_nodes(management, actor, wanted)
    except AuthzError as found:
        error = found
        if isinstance(found, ForbiddenError) and wanted.under is None:
            own = await show_user(management, actor, session.username, None)
    return render(
        request,
        "directory.html",
        status=HTTPStatus.OK if error is None or own is not None else HTTPStatus.BAD_REQUEST,
        title="Directory",
        page=page,
        query=query,
        pager=Pager("/console/directory", query, page["next_cursor"]),
        error=None if own is not None else error,
        own=own,
    )


@router.get("/directory/place")
async def show_place(request: Request, console: ConsoleHere, session: SignedIn) -> Response:
    target = text_of(request, "target", 1100) or ""
    if target.startswith("user:"):
        return await _show_user(request, console, session, target)
    place = await show_node(console.management, session.actor, target, None)
    return render(request, "place.html", title=place["path"], place=place)


async def _show_user(request: Request, console: ConsoleHere, session: SignedIn, target: str) -> Response:
    user = await show_user(console.management, session.actor, target, None)
    return render(request, "person.html", title=user["username"], person=user)
