"""In and out: the sign-in page with its ways, one-time links, signing out."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from authz_service.admin.sessions import end_all_sessions, end_session
from authz_service.admin.signing import sign_in_by_link, sign_in_by_password, sign_in_by_token
from authz_service.console.errors import status_of
from authz_service.console.guarding import (
    SignedIn,
    drop_session,
    find_visitor_session,
    keep_session,
    read_form,
    visitor_of,
)
from authz_service.console.parts import Console, ConsoleHere
from authz_service.console.rendering import render
from authz_service.console.route import PageRoute
from authz_service.errors import AuthzError

router = APIRouter(route_class=PageRoute)


@router.get("/sign-in")
async def show_sign_in(request: Request, console: ConsoleHere) -> Response:
    if await find_visitor_session(request, console) is not None:
        return RedirectResponse(next_of(request.query_params.get("next", "")), HTTPStatus.SEE_OTHER)
    return sign_in_page(
        request, console, next_page=request.query_params.get("next", ""), ended="ended" in request.query_params
    )


def sign_in_page(
    request: Request,
    console: Console,
    *,
    next_page: str = "",
    ended: bool = False,
    name: str = "",
    way: str = "password",
    error: AuthzError | None = None,
) -> Response:
    """The ways in, with what was wrong about the last try."""
    return render(
        request,
        "sign_in.html",
        status=HTTPStatus.OK if error is None else status_of(error),
        title="Sign in",
        next_page=next_page,
        ended=ended,
        name=name,
        way=way,
        message=None if error is None else error.message,
        unkept="kept" in request.query_params,
        provider=None if console.openid is None else console.openid.client.name,
    )


@router.post("/sign-in")
async def sign_in(request: Request, console: ConsoleHere) -> Response:
    """By password or by token; whatever is wrong comes back on the same page."""
    form = await read_form(request, console)
    way, name, next_page = form.get("way"), form.get("name"), form.get("next")
    visitor = visitor_of(request)
    try:
        if way == "token":
            cookie = await sign_in_by_token(
                console.management, console.point, console.attempts, form.get("token"), console.timeouts, visitor
            )
        else:
            cookie = await sign_in_by_password(
                console.management,
                console.passwords,
                console.attempts,
                name,
                form.raw("password"),
                console.timeouts,
                visitor,
            )
    except AuthzError as error:
        return sign_in_page(request, console, next_page=next_page, name=name, way=way, error=error)
    return _signed_in(next_of(next_page), cookie)


@router.get("/sign-in/link")
async def follow_link(request: Request, console: ConsoleHere, code: str = "") -> Response:
    """A link that somebody made for this user: it works once, and a second try says so."""
    console.origin_for(request)
    try:
        cookie = await sign_in_by_link(
            console.management, console.attempts, code, console.timeouts, visitor_of(request)
        )
    except AuthzError as error:
        return sign_in_page(request, console, error=error)
    return _signed_in("/console/", cookie)


def _signed_in(where: str, cookie: str) -> Response:
    # Where the browser does not keep the cookie, the page after this one says so.
    response = RedirectResponse(
        f"/console/welcome?next={where.replace('&', '%26').replace('?', '%3F')}", HTTPStatus.SEE_OTHER
    )
    keep_session(response, cookie)
    return response


@router.get("/welcome")
async def welcome(request: Request, console: ConsoleHere) -> Response:
    """On to where the visitor wanted to go; back, with a reason, where the browser dropped the cookie."""
    if await find_visitor_session(request, console) is None:
        return RedirectResponse("/console/sign-in?kept=no", HTTPStatus.SEE_OTHER)
    return RedirectResponse(next_of(request.query_params.get("next", "")), HTTPStatus.SEE_OTHER)


def next_of(given: str) -> str:
    """A page of the console, or its first one: a link to the sign-in page must not lead to another site."""
    plain = given.isascii() and given.isprintable() and "\\" not in given and "//" not in given
    return given if plain and given.startswith("/console/") and len(given) < 4000 else "/console/tokens"


@router.post("/sign-out")
async def sign_out(request: Request, console: ConsoleHere, session: SignedIn) -> Response:
    form = await read_form(request, console)
    if form.get("everywhere"):
        await end_all_sessions(console.management, session)
    else:
        await end_session(console.management, session)
    response = RedirectResponse("/console/sign-in?out=1", HTTPStatus.SEE_OTHER)
    drop_session(response)
    return response
