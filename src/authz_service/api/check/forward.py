"""`/gateway/forward/{family}`: what nginx, Caddy, Traefik and HAProxy ask before they pass a request on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from fastapi import APIRouter, Depends, Request, Response
from fastapi.security import APIKeyHeader

from authz_service.api.check.bodies import Undecided
from authz_service.api.check.gateway import Call, answer_gateway, check_constants
from authz_service.api.check.gateway_headers import CONSTANT_HEADERS, GatewayHeaders
from authz_service.api.documents import problems
from authz_service.errors import InvalidInputError

GATEWAY_SCHEME: Final = APIKeyHeader(
    name="X-Authz-Gateway",
    auto_error=False,
    scheme_name="gateway_header",
    description="the gateway's own token; not needed at its own listener",
)
router = APIRouter(tags=["gateways"], dependencies=[Depends(GATEWAY_SCHEME)])


@dataclass(frozen=True, slots=True)
class Family:
    """The headers in which one kind of gateway tells the client's request."""

    method: str
    uri: str
    address: str
    url: str | None = None
    """A whole URL, which some of the kind send in place of the URI or beside it."""

    @property
    def names(self) -> frozenset[str]:
        found = {self.method, self.uri, self.address, *CONSTANT_HEADERS.values()}
        return frozenset(found if self.url is None else found | {self.url})


FAMILIES: Final[Mapping[str, Family]] = {
    "x-forwarded": Family("x-forwarded-method", "x-forwarded-uri", "x-forwarded-for"),
    "x-original": Family("x-original-method", "x-original-uri", "x-real-ip", url="x-original-url"),
}
"""One family for each URL: a header of the other was the client's own idea, and is not looked at."""

FROM_HEADERS: Final = "headers"
"""In `?constants=headers`: the gateway sets, or removes, each `X-Authz-…` constant itself."""
METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

_URL: Final = re.compile(r"https?://[A-Za-z0-9.:_\[\]-]+(/.*)?", re.DOTALL)

ALLOWED_HEADERS: Final[dict[str, Any]] = {
    "X-Authz-Token-Id": {"description": "the token's public id", "schema": {"type": "string"}},
    "X-Authz-Owner": {
        "description": "its owner; what is not ASCII is percent-encoded",
        "schema": {"type": "string"},
    },
    "X-Authz-Permission": {
        "description": "the permissions that the request needed, with spaces between; empty where alternatives differ",
        "schema": {"type": "string"},
    },
}
_CHALLENGE: Final = {"WWW-Authenticate": {"description": "by RFC 6750", "schema": {"type": "string"}}}
ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    **problems(400, 500),
    200: {"description": "Pass it on, without the token and with these headers", "headers": ALLOWED_HEADERS},
    401: {"description": "No valid token was shown", "headers": _CHALLENGE},
    403: {"description": "Denied, with what is missing; or the request is not in order", "headers": _CHALLENGE},
    503: {"model": Undecided, "description": "Nothing can be decided now; treat it as a deny"},
}


def parameters_of(*names: str, path: str | None = None) -> dict[str, Any]:
    """The headers that a route reads, and the parameter of its path where it is read raw, for its `openapi_extra`."""
    header = {"in": "header", "required": False, "schema": {"type": "string"}}
    found: list[dict[str, Any]] = [{"name": name, **header} for name in names]
    if path is not None:
        found.append({"name": path, "in": "path", "required": True, "schema": {"type": "string"}})
    return {"parameters": found}


@router.get(
    "/gateway/forward/{family}",
    response_class=Response,
    responses=ANSWERS,
    openapi_extra=parameters_of("x-forwarded-method", "x-forwarded-uri", "x-original-method", "x-original-uri"),
    summary="May this request pass?",
)
async def forward(request: Request, family: Literal["x-forwarded", "x-original"]) -> Response:
    """For forward-auth gateways. The client's request comes in one family of headers, and its token in `Authorization`.

    The query is the gateway's configuration: `catalog`, and `resource`, `action`, `target` where they are constant.
    """
    return await _forward(request, family)


@router.api_route("/gateway/forward/{family}", methods=list(METHODS[1:]), include_in_schema=False)
async def forward_any(request: Request, family: Literal["x-forwarded", "x-original"]) -> Response:
    return await _forward(request, family)


async def _forward(request: Request, name: str) -> Response:
    family = FAMILIES[name]

    def read(headers: GatewayHeaders) -> Call:
        return read_forwarded(request, family, headers)

    return await answer_gateway(request, family.names, read)


def read_forwarded(request: Request, family: Family, headers: GatewayHeaders) -> Call:
    """What the client wants. Raises InvalidInputError for headers or constants that are not in order."""
    secret, shown = headers.find_secret()
    return Call(
        secret,
        shown,
        method=headers.need(family.method),
        path=_path(headers, family),
        client_address=headers.find_address(family.address),
        constants=_constants(request, headers),
    )


def _path(headers: GatewayHeaders, family: Family) -> str:
    """The path as the client sent it. Where it is told twice, both have to say the same.

    The ingress controller of nginx sets the URL, and other configurations the URI: the one that the gateway does not
    set may be the client's.
    """
    if family.url is None:
        return headers.need(family.uri)
    uri, url = headers.find(family.uri), headers.find(family.url)
    if url is None:
        return headers.need(family.uri)
    found = _URL.fullmatch(url)
    path = None if found is None else found.group(1) or "/"
    if path is None or (uri is not None and uri != path):
        raise InvalidInputError(f"the headers `{family.uri}` and `{family.url}` do not name one path")
    return path


def _constants(request: Request, headers: GatewayHeaders) -> Mapping[str, str]:
    """From the gateway's URL; headers only where that says so, or for the catalog alone where it names none.

    Many gateways pass on whatever the client sent: a client must not choose the question that it is asked.
    """
    given: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name in given or not value:
            raise InvalidInputError(f"the parameter `{name[:64]}` stands twice, or empty, in the gateway's URL")
        given[name] = value
    source = given.pop("constants", None)
    if source not in (None, FROM_HEADERS):
        raise InvalidInputError("write `constants=headers`, or leave it out")
    alone = source is None and not given
    for name, header in CONSTANT_HEADERS.items():
        found = headers.find(header)
        if found is None:
            continue
        if name in given or not (source == FROM_HEADERS or (alone and name == "catalog")):
            raise InvalidInputError(f"the header `{header}` is taken only where the gateway's URL leaves it to headers")
        given[name] = found
    return check_constants(given)
