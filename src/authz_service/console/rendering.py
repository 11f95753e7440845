"""Templates to pages: everything escaped, every time in the reader's zone, every script and style by its digest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from functools import cache
from http import HTTPStatus
from importlib import resources
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup, escape

from authz_service import __version__
from authz_service.console.guarding import form_token, keep_form_secret

_NAMES: Final[Mapping[str, str]] = {"ci_cd": "CI/CD", "gitlab_orbit": "GitLab Orbit"}
_ACRONYMS: Final[Mapping[str, str]] = {
    word.lower(): word
    for word in ("CI", "CD", "API", "SSH", "GPG", "URL", "IP", "LDAP", "SAML", "SCIM", "DORA", "AI", "MCP", "SBOM",
                 "DAST", "SAST", "IDE", "HTTP", "OAuth", "PAT", "JWT", "ID", "npm", "NuGet", "GitHub", "GitLab")
}  # fmt: skip
ZONE_COOKIE: Final = "authz-zone"
_MEDIA: Final = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}


def render(request: Request, template: str, *, status: HTTPStatus = HTTPStatus.OK, **context: Any) -> HTMLResponse:
    """A page. `session` is the visitor's, where there is one."""
    token = form_token(request)
    given = {
        "request": request,
        "session": getattr(request.state, "session", None),
        "form_token": token,
        "zone": zone_of(request),
        "path": request.url.path,
    }
    response = HTMLResponse(_environment().get_template(template).render(given | context), status)
    keep_form_secret(request, response)
    return response


def zone_of(request: Request) -> tzinfo:
    """The reader's zone, as their browser or they themselves said; UTC where nobody did or nobody knows it here."""
    name = request.cookies.get(ZONE_COOKIE, "").replace("%2F", "/")
    return find_zone(name) or UTC


def find_zone(name: str) -> tzinfo | None:
    if (
        not name
        or len(name) > 64
        or not all(part.replace("_", "").replace("-", "").replace("+", "").isalnum() for part in name.split("/"))
    ):
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


class Asset:
    """A file of `static/`, in memory: there are few, and they are small."""

    def __init__(self, name: str, content: bytes) -> None:
        self.content = content
        self.media = _MEDIA["." + name.rpartition(".")[2]]
        self.digest = hashlib.sha256(content).hexdigest()[:16]


@cache
def assets() -> Mapping[str, Asset]:
    folder = resources.files("authz_service.console") / "static"
    return {
        one.name: Asset(one.name, one.read_bytes())
        for one in folder.iterdir()
        if one.is_file() and "." + one.name.rpartition(".")[2] in _MEDIA
    }


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("authz_service.console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(asset=_asset, version=__version__)
    environment.filters.update(moment=_moment, day=_day, plural=plural, words=humanize, clipped=clipped, said=said)
    return environment


def _asset(name: str) -> str:
    return f"/console/static/{name}?v={assets()[name].digest}"


def parse_moment(given: str | datetime | None) -> datetime | None:
    if given is None or isinstance(given, datetime):
        return given
    return datetime.fromisoformat(given)


@pass_context
def _moment(context: Context, given: str | datetime | None, never: str = "never") -> Markup:
    """`31 Jan 2027, 01:00`, with the exact moment for machines; a script says it in the reader's own zone."""
    return _time(context, given, never, "%H:%M")


@pass_context
def _day(context: Context, given: str | datetime | None, never: str = "never") -> Markup:
    return _time(context, given, never, "")


def _time(context: Context, given: str | datetime | None, never: str, clock: str) -> Markup:
    moment = parse_moment(given)
    if moment is None:
        return Markup('<span class="quiet">{}</span>').format(never)
    zone: tzinfo = context["zone"]
    local = moment.astimezone(zone)
    exact = moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    shown = f"{local.day} {local.strftime('%b %Y')}" + (f", {local.strftime(clock)}" if clock else "")
    kind = "moment" if clock else "day"
    whole = f"{local.strftime('%Y-%m-%d %H:%M:%S')} {local.tzname() or 'UTC'}"
    return Markup('<time class="{}" datetime="{}" title="{}">{}</time>').format(kind, exact, whole, shown)


def plural(count: int, one: str, many: str | None = None) -> str:
    """`1 project`, `3 projects`, `12,000 projects`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def humanize(name: str) -> str:
    """`container_repository` as people read it: `Container repository`."""
    if name in _NAMES:
        return _NAMES[name]
    words = [_ACRONYMS.get(word, word) for word in name.strip("_").split("_")]
    text = " ".join(words)
    return text[:1].upper() + text[1:]


def clipped(text: str, length: int = 80) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def said(message: str) -> Markup:
    """A message of the service as a sentence: what stands between backticks is set as code, and all of it escaped."""
    parts = message.split("`")
    if len(parts) % 2 == 0:  # a backtick without its partner is only a backtick
        parts = [message]
    parts[0] = parts[0][:1].upper() + parts[0][1:]
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if position % 2 else escape(part) for position, part in enumerate(parts)
    )
