"""Leaks: a secret that somebody found is ended here, and what was ended so far is listed for those who may read it."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from fastapi import APIRouter, Request, Response

from authz_service.admin.audit import AuditQuery, list_audit
from authz_service.admin.leaks import Found, may_report, report
from authz_service.console.errors import status_of
from authz_service.console.guarding import SignedIn, read_form
from authz_service.console.listing import Pager, query_of, text_of
from authz_service.console.parts import Console, ConsoleHere
from authz_service.console.rendering import render
from authz_service.console.route import PageRoute
from authz_service.errors import AuthzError, Fault, ForbiddenError, InvalidInputError

router = APIRouter(route_class=PageRoute)
_MOST: Final = 100
_LONGEST: Final = 400
_ACTION: Final = "token.leak"


@router.get("/leaks")
async def show_leaks(request: Request, console: ConsoleHere, session: SignedIn) -> Response:
    return await _show(request, console, session)


@router.post("/leaks")
async def report_found(request: Request, console: ConsoleHere, session: SignedIn) -> Response:
    """The same answer whether a text is a secret of ours or not; none of them is shown again."""
    form = await read_form(request, console)
    try:
        secrets = form.raw("secrets").split()
        if not 0 < len(secrets) <= _MOST or any(len(one) > _LONGEST for one in secrets):
            fault = Fault("secrets", "invalid_value", f"write 1 to {_MOST} secrets, one a line")
            raise InvalidInputError("nothing was reported", faults=[fault])
        if not await may_report(console.management, session.actor):
            await console.leaks.reports.require_room(session.actor.client_address)
        where = form.get("found_in")[:500] or None
        found = [Found(one, where) for one in secrets]
        await report(console.management, found, origin="console", reporter=session.actor.token.id)
        console.leaks.desk.wake()
    except AuthzError as error:
        return await _show(request, console, session, error=error)
    return await _show(request, console, session, reported=len(secrets))


async def _show(
    request: Request, console: Console, session: SignedIn, *, reported: int = 0, error: AuthzError | None = None
) -> Response:
    query = query_of(request, "node", "cursor")
    page: Mapping[str, Any] | None = None
    try:
        wanted = AuditQuery(
            node=text_of(request, "node", 1100),
            action=_ACTION,
            limit=25,
            cursor=text_of(request, "cursor", 1000),
        )
        page = await list_audit(console.management, session.actor, wanted)
    except ForbiddenError:
        page = None
    except AuthzError as found:
        error = error or found
    return render(
        request,
        "leaks.html",
        status=HTTPStatus.OK if error is None else status_of(error),
        title="Leaks",
        reported=reported,
        query=query,
        page=page,
        pager=None if page is None else Pager("/console/leaks", query, page["next_cursor"]),
        error=error,
    )
