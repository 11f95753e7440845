"""How every page is answered: with the headers that keep other sites out, and errors as pages."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute

from authz_service.console.errors import HEADINGS, SignInNeededError, status_of
from authz_service.console.guarding import drop_session
from authz_service.console.rendering import render
from authz_service.errors import AuthzError

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": POLICY,
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    # Not `no-referrer`: browsers would then send forms with the origin `null`, which is nobody's.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}


class PageRoute(APIRoute):
    """Every answer gets the headers, and every deliberate error becomes a page."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_page(request: Request) -> Response:
            try:
                response = await handle(request)
            except SignInNeededError as error:
                response = _to_sign_in(request, error)
            except AuthzError as error:
                response = show_error(request, error)
            for name, value in HEADERS.items():
                response.headers[name] = value
            response.headers.setdefault("Cache-Control", "no-store")
            return response

        return handle_page


def _to_sign_in(request: Request, error: SignInNeededError) -> Response:
    query = f"?{request.url.query}" if request.url.query else ""
    # Back to a page, never to a form that was under way: its answer would be sent twice, or lost.
    wanted = f"{request.url.path}{query}" if request.method == "GET" else ""
    url = "/console/sign-in"
    if wanted not in ("", "/console", "/console/"):
        url += f"?next={quote(wanted, safe='')}"
    if error.had_cookie:
        url += ("&" if "?" in url else "?") + "ended=1"
    response = RedirectResponse(url, HTTPStatus.SEE_OTHER)
    if error.had_cookie:
        drop_session(response)
    return response


def show_error(request: Request, error: AuthzError) -> Response:
    """A page with the message, all faults, and a way on."""
    status = status_of(error)
    return render(
        request,
        "error.html",
        status=status,
        title=HEADINGS[status],
        message=error.message,
        faults=error.faults,
        code=error.code,
    )
