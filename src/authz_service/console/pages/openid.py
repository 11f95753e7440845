"""Sign-in by a provider: there with the browser, and back with what it says, bound to that browser by a cookie."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from authz_service.admin.openid import FLOW_SECONDS, OpenId, Returned
from authz_service.admin.signing import sign_in_by_account
from authz_service.console.guarding import (
    FLOW_COOKIE,
    cookies_of,
    drop_flow,
    keep_flow,
    keep_session,
    visitor_of,
)
from authz_service.console.pages.signing import next_of, sign_in_page
from authz_service.console.parts import Console, ConsoleHere
from authz_service.console.rendering import render
from authz_service.console.route import PageRoute
from authz_service.errors import AuthzError, NotFoundError, UnauthenticatedError

router = APIRouter(route_class=PageRoute)
CALLBACK: Final = "/console/sign-in/openid/callback"
_ANSWERS: Final = ("code", "state", "iss", "error")


@router.get("/sign-in/openid")
async def go_there(request: Request, console: ConsoleHere) -> Response:
    """To the provider. Another site may send somebody here: they would sign in as nobody but themselves."""
    openid = _provider(console)
    next_page = next_of(request.query_params.get("next", ""))
    try:
        where, cookie = await openid.begin(next_page)
    except AuthzError as error:
        return sign_in_page(request, console, next_page=next_page, error=error)
    response = RedirectResponse(where, HTTPStatus.SEE_OTHER)
    keep_flow(response, cookie, FLOW_SECONDS)
    return response


@router.get("/sign-in/openid/callback")
async def come_back(request: Request, console: ConsoleHere) -> Response:
    """A page, and no redirect: what another site began would reach the next page without the session's cookie."""
    openid = _provider(console)
    visitor = visitor_of(request)
    given = cookies_of(request).get(FLOW_COOKIE, [])
    try:
        console.attempts.require_left("", visitor.address)
        account, flow = await openid.finish(given[0] if len(given) == 1 else "", _returned(request))
        cookie = await sign_in_by_account(
            console.management, account, console.timeouts, visitor, source=openid.client.source
        )
    except AuthzError as error:
        if isinstance(error, UnauthenticatedError):
            console.attempts.note_failure("", visitor.address)
        response: Response = sign_in_page(request, console, error=error)
        drop_flow(response)
        return response
    onward = f"/console/welcome?next={quote(next_of(flow.next_page), safe='/')}"
    response = render(request, "signed_in.html", title="Signed in", onward=onward)
    drop_flow(response)
    keep_session(response, cookie)
    return response


def _returned(request: Request) -> Returned:
    query = request.query_params
    return Returned(
        code=query.get("code", ""),
        state=query.get("state", ""),
        issuer=query.get("iss"),
        error=query.get("error", ""),
        repeated=any(len(query.getlist(name)) > 1 for name in _ANSWERS),
    )


def _provider(console: Console) -> OpenId:
    if console.openid is None:
        raise NotFoundError("there is no provider to sign in with; use a password or a token")
    return console.openid
