"""The visitor's own account: open sessions, and the zone in which times are shown."""

from __future__ import annotations

from http import HTTPStatus
from zoneinfo import available_timezones

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from authz_service.admin.sessions import end_one_session, list_sessions
from authz_service.console.guarding import SignedIn, read_form
from authz_service.console.parts import ConsoleHere
from authz_service.console.rendering import ZONE_COOKIE, find_zone, render
from authz_service.console.route import PageRoute

router = APIRouter(route_class=PageRoute)
_YEAR = 31_536_000


@router.get("/account")
async def show_account(request: Request, console: ConsoleHere, session: SignedIn) -> Response:
    sessions = await list_sessions(console.management, session, console.timeouts)
    zones = sorted(name for name in available_timezones() if "/" in name and not name.startswith(("Etc/", "SystemV/")))
    chosen = request.cookies.get(ZONE_COOKIE, "").replace("%2F", "/")
    return render(request, "account.html", title="Your account", sessions=sessions, zones=zones, chosen=chosen)


@router.post("/account/zone")
async def choose_zone(request: Request, console: ConsoleHere, session: SignedIn) -> Response:
    del session
    form = await read_form(request, console)
    response = RedirectResponse("/console/account", HTTPStatus.SEE_OTHER)
    name = form.get("zone")
    if find_zone(name) is not None:
        # Not for this host alone by prefix: a script reads and writes it too, and it decides nothing.
        response.set_cookie(ZONE_COOKIE, name, max_age=_YEAR, path="/console", secure=True, samesite="strict")
    return response


@router.post("/account/sessions/end")
async def end_other(request: Request, console: ConsoleHere, session: SignedIn) -> Response:
    form = await read_form(request, console)
    await end_one_session(console.management, session, form.get("key"))
    return RedirectResponse("/console/account", HTTPStatus.SEE_OTHER)
