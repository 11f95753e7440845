"""`/gateway/envoy/…`: external authorization over HTTP, for Envoy and Istio. The client's path follows the prefix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from fastapi import APIRouter, Depends, Request, Response

from authz_service.api.check.forward import ANSWERS, GATEWAY_SCHEME, METHODS, parameters_of
from authz_service.api.check.gateway import Call, answer_gateway, check_constants, read_gateway_body
from authz_service.api.check.gateway_headers import CONSTANT_HEADERS, GatewayHeaders
from authz_service.api.check.graphql_bodies import HttpBody
from authz_service.api.check.serving import serving_of
from authz_service.errors import InvalidInputError

router = APIRouter(tags=["gateways"], dependencies=[Depends(GATEWAY_SCHEME)])

PREFIX: Final = "/gateway/envoy"
CONSTANTS_PREFIX: Final = "/gateway/envoy-constants"
_ADDRESS: Final = "x-real-ip"
NAMES: Final = frozenset({_ADDRESS, *CONSTANT_HEADERS.values()})
"""The headers that are looked at, besides the gateway's own and the client's token."""
STRIP: Final = {"X-Envoy-Auth-Headers-To-Remove": "authorization"}
"""Envoy takes the token away by itself when it reads this."""


@router.get(
    "/gateway/envoy/{path:path}",  # noqa: FAST003 - the path is read as it came, not as it was decoded
    response_class=Response,
    responses=ANSWERS,
    openapi_extra=parameters_of("x-authz-catalog", path="path"),
    summary="May this request pass? (Envoy)",
)
async def envoy(request: Request) -> Response:
    """For Envoy's `http_service` with `path_prefix: /gateway/envoy`: method, path and query are the client's own.

    `X-Authz-Catalog` is the gateway's, by `headers_to_add`. An allow is 200 and nothing else.
    """
    return await _ask(request, PREFIX)


@router.api_route("/gateway/envoy/{path:path}", methods=list(METHODS[1:]), include_in_schema=False)
async def envoy_any(request: Request) -> Response:
    return await _ask(request, PREFIX)


@router.api_route("/gateway/envoy-constants/{path:path}", methods=list(METHODS), include_in_schema=False)
async def envoy_constants(request: Request) -> Response:
    """The same, where the gateway also sets `X-Authz-Resource`, `-Action` and `-Target`, or removes them."""
    return await _ask(request, CONSTANTS_PREFIX)


async def _ask(request: Request, prefix: str) -> Response:
    body = await read_gateway_body(request, (await serving_of(request)).batch_limit)

    def read(headers: GatewayHeaders) -> Call:
        return read_prefixed(request, prefix, headers, body)

    return await answer_gateway(request, NAMES, read, STRIP)


def read_prefixed(request: Request, prefix: str, headers: GatewayHeaders, body: HttpBody | None) -> Call:
    """What the client wants. Raises InvalidInputError for headers or a path that are not in order."""
    secret, shown = headers.find_secret()
    return Call(
        secret,
        shown,
        method=request.method,
        path=_path(request, prefix),
        client_address=headers.find_address(_ADDRESS),
        constants=_constants(headers, whole=prefix == CONSTANTS_PREFIX),
        body=body,
    )


def _path(request: Request, prefix: str) -> str:
    """The path as it came in, nothing decoded. Raises InvalidInputError where even the prefix was encoded."""
    raw: bytes = request.scope["raw_path"]
    if not raw.startswith(prefix.encode() + b"/"):
        raise InvalidInputError(f"the path has to begin with `{prefix}/`, spelt exactly so")
    path = raw.decode("latin-1").removeprefix(prefix)
    query = request.scope["query_string"].decode("latin-1")
    return f"{path}?{query}" if query else path


def _constants(headers: GatewayHeaders, *, whole: bool) -> Mapping[str, str]:
    given: dict[str, str] = {}
    for name, header in CONSTANT_HEADERS.items():
        value = headers.find(header)
        if value is None:
            continue
        if name != "catalog" and not whole:
            raise InvalidInputError(f"the header `{header}` is taken under `{CONSTANTS_PREFIX}` only")
        given[name] = value
    return check_constants(given)
