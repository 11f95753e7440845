"""Who is there, and whether a form is theirs: cookies, origins, form tokens."""

from __future__ import annotations

import base64
import hmac
import secrets
from ipaddress import ip_address
from typing import Annotated, Final
from urllib.parse import parse_qsl

from fastapi import Depends, Request, Response

from authz_service.admin.sessions import Session, Visitor, find_session
from authz_service.console.errors import CrossSiteError, SignInNeededError
from authz_service.console.parts import Console, ConsoleHere
from authz_service.errors import BodyTooLargeError, InvalidBodyError

COOKIE: Final = "__Host-authz-session"
FLOW_COOKIE: Final = "__Host-authz-openid"
FORM_COOKIE: Final = "__Host-authz-form"
FORM_FIELD: Final = "form_token"
_FORM_BYTES: Final = 512 * 1024
_FORM_FIELDS: Final = 5000


# who is there


def visitor_of(request: Request) -> Visitor:
    """From where the request came, as the server saw it."""
    host = None if request.client is None else request.client.host
    try:
        address = None if host is None else str(ip_address(host))
    except ValueError:
        address = None
    return Visitor(address, request.headers.get("user-agent", ""))


async def find_visitor_session(request: Request, console: Console) -> Session | None:
    """The open session of the request's cookie. Two cookies of the name are none: one of them is somebody else's."""
    given = cookies_of(request).get(COOKIE, [])
    if len(given) != 1:
        return None
    session = await find_session(console.management, given[0], console.timeouts, visitor_of(request))
    if session is not None:
        request.state.session = session
        request.state.form_secret = given[0]
    return session


async def session_of(request: Request, console: ConsoleHere) -> Session:
    """The open session, decided again by whatever the page does with it. Raises SignInNeededError."""
    session = await find_visitor_session(request, console)
    if session is None:
        raise SignInNeededError("sign in first", had_cookie=COOKIE in cookies_of(request))
    request.app.state.limiter.admit(request, session.actor.token)
    return session


SignedIn = Annotated[Session, Depends(session_of)]
"""As a route's parameter."""


def cookies_of(request: Request) -> dict[str, list[str]]:
    """Every value of every name: a name that comes twice tells that somebody else set one of them."""
    found: dict[str, list[str]] = {}
    for header in request.headers.getlist("cookie"):
        for pair in header.split(";"):
            name, _, value = pair.strip().partition("=")
            found.setdefault(name, []).append(value)
    return found


def keep_session(response: Response, cookie: str) -> None:
    """The session's cookie: for this very host, over TLS or on this machine, and for no other site's requests."""
    response.set_cookie(COOKIE, cookie, path="/", secure=True, httponly=True, samesite="strict")


def keep_flow(response: Response, cookie: str, seconds: int) -> None:
    """The cookie of a sign-in under way. `lax`: the way back begins at the provider's site, and it is one by GET."""
    response.set_cookie(FLOW_COOKIE, cookie, max_age=seconds, path="/", secure=True, httponly=True, samesite="lax")


def drop_flow(response: Response) -> None:
    response.delete_cookie(FLOW_COOKIE, path="/", secure=True, httponly=True, samesite="lax")


def drop_session(response: Response) -> None:
    response.delete_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="strict")


# forms


class Form:
    """What a form holds; each text without the spaces around it."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self.pairs = pairs

    def get(self, name: str, default: str = "") -> str:
        return next((value.strip() for key, value in self.pairs if key == name), default)

    def raw(self, name: str) -> str:
        """As it was typed: a password may begin with a space."""
        return next((value for key, value in self.pairs if key == name), "")

    def all(self, name: str) -> list[str]:
        return [value.strip() for key, value in self.pairs if key == name and value.strip()]

    def __contains__(self, name: str) -> bool:
        return any(key == name for key, _ in self.pairs)


def form_token(request: Request) -> str:
    """What every form of this page carries; of no use with another cookie than this visitor's."""
    secret = getattr(request.state, "form_secret", None)
    if secret is None:
        given = cookies_of(request).get(FORM_COOKIE, [])
        secret = given[0] if len(given) == 1 and 20 <= len(given[0]) <= 100 else secrets.token_urlsafe(24)
        request.state.form_secret = request.state.new_form_secret = secret
    mac = hmac.digest(secret.encode("utf-8", "replace"), b"authz form", "sha256")
    return base64.urlsafe_b64encode(mac).decode().rstrip("=")


def keep_form_secret(request: Request, response: Response) -> None:
    """For the forms of those who have no session yet."""
    secret = getattr(request.state, "new_form_secret", None)
    if secret is not None:
        response.set_cookie(FORM_COOKIE, secret, path="/", secure=True, httponly=True, samesite="strict")


async def read_form(request: Request, console: Console) -> Form:
    """A form of ours, from this very site. Raises CrossSiteError for any other, InvalidBodyError, BodyTooLargeError."""
    _require_own_origin(request, console)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise InvalidBodyError("this is no form of this page; go back and send it once more")
    form = _parse(await _read(request))
    given = form.raw(FORM_FIELD).encode("utf-8", "replace")
    if not hmac.compare_digest(given, form_token(request).encode()):
        raise CrossSiteError("this form is too old or not from here; load the page anew and send it once more")
    return form


def _require_own_origin(request: Request, console: Console) -> None:
    own = console.origin_for(request)
    origins = request.headers.getlist("origin")
    # Every browser of these years says where a form comes from; what does not say is no browser of ours.
    if origins != [own] or request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
        raise CrossSiteError(f"this form does not come from `{own}`; open the console there and send it once more")


async def _read(request: Request) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > _FORM_BYTES:
            raise BodyTooLargeError(f"the form is larger than {_FORM_BYTES} bytes; choose less at once")
        chunks.append(chunk)
    return b"".join(chunks)


def _parse(body: bytes) -> Form:
    try:
        pairs = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, encoding="utf-8", errors="strict", max_num_fields=_FORM_FIELDS
        )
    except ValueError:
        raise InvalidBodyError("the form cannot be read; load the page anew and fill it in once more") from None
    if any("\x00" in value for pair in pairs for value in pair):
        raise InvalidBodyError("the form holds a character that cannot be stored; leave it out")
    return Form(pairs)
