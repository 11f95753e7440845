"""All routes of the console, below `/console`."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from authz_service.console.guarding import SignedIn
from authz_service.console.pages import (
    account,
    approvals,
    audit,
    catalogs,
    creating,
    directory,
    editing,
    ending,
    leaks,
    openid,
    playground,
    policies,
    renewing,
    signing,
    system,
    tokens,
)
from authz_service.console.parts import ConsoleHere
from authz_service.console.rendering import assets
from authz_service.console.route import PageRoute
from authz_service.errors import NotFoundError

router = APIRouter(prefix="/console", route_class=PageRoute, include_in_schema=False)


@router.get("")
async def without_slash(console: ConsoleHere) -> Response:
    del console
    return RedirectResponse("/console/", HTTPStatus.SEE_OTHER)


@router.get("/")
async def home(console: ConsoleHere, session: SignedIn) -> Response:
    del console, session
    return RedirectResponse("/console/tokens", HTTPStatus.SEE_OTHER)


@router.get("/static/{name}")
async def show_asset(console: ConsoleHere, name: str, v: str = "") -> Response:
    """Styles and scripts. Named with their digest they never change."""
    del console
    found = assets().get(name)
    if found is None:
        raise NotFoundError("there is no such file")
    kept = "public, max-age=31536000, immutable" if v == found.digest else "no-cache"
    return Response(found.content, media_type=found.media, headers={"Cache-Control": kept})


for _part in (
    signing,
    openid,
    account,
    creating,
    editing,
    renewing,
    ending,
    tokens,
    leaks,
    approvals,
    policies,
    catalogs,
    playground,
    directory,
    audit,
    system,
):
    router.include_router(_part.router)


@router.api_route("/{path:path}", methods=["GET", "POST"])
async def show_nothing(request: Request, console: ConsoleHere, path: str) -> Response:
    del request, console, path
    raise NotFoundError("there is no such page; the links on the left lead to those that there are")
