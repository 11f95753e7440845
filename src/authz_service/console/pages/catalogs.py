"""Catalogs: what an API has, what one of its calls needs, and what a permission opens."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from fastapi import APIRouter, Request, Response

from authz_service.admin.catalog_questions import NeedQuery, UnlockQuery, list_unlocked, show_need
from authz_service.admin.catalogs import OperationQuery, list_catalogs, list_operations, show_catalog
from authz_service.admin.choosing import catalog_of
from authz_service.catalog.model import BOUNDARIES
from authz_service.console.guarding import SignedIn
from authz_service.console.listing import Pager, query_of, text_of
from authz_service.console.matrix import make_matrix
from authz_service.console.parts import ConsoleHere
from authz_service.console.rendering import humanize, render
from authz_service.console.route import PageRoute
from authz_service.errors import AuthzError

router = APIRouter(route_class=PageRoute)
_PAGE: Final = 25


@router.get("/catalogs")
async def show_catalogs(request: Request, console: ConsoleHere, session: SignedIn) -> Response:
    found = await list_catalogs(console.management, session.actor)
    return render(request, "catalogs.html", title="Catalogs", catalogs=found["items"])


@router.get("/catalogs/{label}")
async def show_one(request: Request, console: ConsoleHere, session: SignedIn, label: str) -> Response:
    """Calls by a search over their paths and summaries, or by method and path as a client sends them."""
    management, actor = console.management, session.actor
    shown = await show_catalog(management, actor, label)
    search, filtered = text_of(request, "search", 1000), text_of(request, "permissions", 100)
    query = query_of(request, "search", "cursor")
    exact: Mapping[str, Any] | None = None
    page: Mapping[str, Any] = {"items": [], "next_cursor": None, "total": 0}
    error: AuthzError | None = None
    try:
        if search is not None:
            exact = await _exact(console, session, label, search)
        wanted = OperationQuery(search=search, limit=_PAGE, cursor=text_of(request, "cursor", 1000))
        page = await list_operations(management, actor, label, wanted)
    except AuthzError as found:
        error = found
    catalog = await catalog_of(management, actor, label)
    return render(
        request,
        "catalog.html",
        status=HTTPStatus.OK if error is None else HTTPStatus.BAD_REQUEST,
        title=shown["title"] or shown["name"],
        catalog=shown,
        label=f"{shown['name']}@{shown['version']}",
        search=search or "",
        filtered=filtered or "",
        exact=exact,
        page=page,
        pager=Pager(f"/console/catalogs/{label}", query, page["next_cursor"]),
        matrix=make_matrix(catalog, frozenset(BOUNDARIES), (), filtered) if filtered else None,
        error=error,
    )


async def _exact(console: ConsoleHere, session: SignedIn, label: str, search: str) -> Mapping[str, Any] | None:
    """What a call written out needs, with the places that its path names; None where the text is no such call."""
    method, _, path = search.partition(" ")
    if not method.isalpha() or not path.strip().startswith("/"):
        return None
    try:
        query = NeedQuery(method=method, path=path.strip())
        found: Mapping[str, Any] = (await show_need(console.management, session.actor, label, query))["operation"]
    except AuthzError:
        return None
    return found


@router.get("/catalogs/{label}/permissions/{name}")
async def show_permission(request: Request, console: ConsoleHere, session: SignedIn, label: str, name: str) -> Response:
    """The reverse: every call that the permission opens or helps to open."""
    management, actor = console.management, session.actor
    query = UnlockQuery(limit=_PAGE, cursor=text_of(request, "cursor", 1000))
    page = await list_unlocked(management, actor, label, name, query)
    catalog = await catalog_of(management, actor, label)
    permission = catalog.by_name[page["permission"]]
    return render(
        request,
        "permission.html",
        title=f"{humanize(permission.resource)}: {permission.action}",
        permission=permission,
        label=catalog.label,
        page=page,
        boundaries=[(one.value, permission.boundaries[one]) for one in BOUNDARIES if one in permission.boundaries],
        pager=Pager(request.url.path, query_of(request, "cursor"), page["next_cursor"]),
    )


@router.get("/catalogs/{label}/operations")
async def show_operation(request: Request, console: ConsoleHere, session: SignedIn, label: str) -> Response:
    """One call by its id, which may hold slashes and spaces: hence a parameter."""
    query = NeedQuery(operation=text_of(request, "id", 1000) or "")
    found = await show_need(console.management, session.actor, label, query)
    return render(
        request, "operation.html", title=found["operation"]["id"], operation=found["operation"], label=found["catalog"]
    )
