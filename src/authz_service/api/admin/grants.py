"""`/v1/grant-requests` and `/v1/grants`: what tokens ask of groups, and what groups granted."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import StreamingResponse

from authz_service.admin import asking_again, grants, lists
from authz_service.api.admin.grant_shapes import (
    AskBody,
    BulkReviewBody,
    GrantAnswer,
    GrantListQuery,
    GrantPage,
    GrantResults,
    RequestAnswer,
    RequestListQuery,
    RequestPage,
    RequestResults,
    ReviewBody,
    RevokeBody,
    WaitQuery,
)
from authz_service.api.admin.token_shapes import TokenListQuery
from authz_service.api.callers import ActorHere
from authz_service.api.documents import authenticated, body_of
from authz_service.api.state import ServicesHere
from authz_service.api.wire import no_store, read_body, read_model

router = APIRouter(tags=["approval"])
_NDJSON: Final = "application/x-ndjson"
_EXPORT_PAGE: Final = 200
_Number = Annotated[int, Path(ge=1, le=2**63 - 1, description="its number")]


@router.get(
    "/grant-requests", response_model=RequestPage, responses=authenticated(404), summary="List requests for approval"
)
async def list_grant_requests(
    services: ServicesHere, actor: ActorHere, response: Response, query: Annotated[RequestListQuery, Query()]
) -> Any:
    """Needs `grant:read` at the group or as an admin; those of a token, `token:read` for its owner."""
    no_store(response)
    return await grants.list_requests(services.management, actor, query.query())


@router.post(
    "/grant-requests/{request_id}",
    response_model=RequestAnswer,
    responses=authenticated(404, 409, 413),
    openapi_extra=body_of(ReviewBody),
    summary="Approve, deny or cancel a request",
)
async def decide_grant_request(
    services: ServicesHere,
    actor: ActorHere,
    request: Request,
    response: Response,
    request_id: _Number,
    query: Annotated[WaitQuery, Query()],
) -> Any:
    """Needs `grant:decide` at the group or as an admin; nobody approves their own while another owner is there.

    A service account approves nothing where a person owns the group. To cancel needs `token:edit` for the token's
    owner. What is closed already is 409, and nothing changes. To deny revokes no grant: `still_granted` names what of
    the request stands by one.
    """
    body = read_model(ReviewBody, await read_body(request))
    no_store(response)
    return await grants.decide_request(services.management, actor, request_id, body.review(), wait=query.wait)


@router.post(
    "/grant-requests",
    response_model=RequestResults,
    responses=authenticated(413),
    openapi_extra=body_of(BulkReviewBody),
    summary="Decide up to 100 requests",
)
async def decide_grant_requests(services: ServicesHere, actor: ActorHere, request: Request, response: Response) -> Any:
    """Each by itself: one that cannot be decided stops no other, and says why."""
    body = read_model(BulkReviewBody, await read_body(request))
    no_store(response)
    return {"results": await grants.decide_requests(services.management, actor, body.ids, body.review())}


@router.post(
    "/tokens/{token_id}/grant-requests",
    response_model=RequestPage,
    responses=authenticated(404, 409, 413),
    openapi_extra=body_of(AskBody),
    summary="Ask a group again",
)
async def ask_again(
    services: ServicesHere,
    actor: ActorHere,
    request: Request,
    response: Response,
    token_id: Annotated[str, Path(description="a token's public id, `tok_…`", max_length=64)],
) -> Any:
    """For what the group denied, revoked or was never asked. Needs `token:edit` for the token's owner."""
    body = read_model(AskBody, await read_body(request))
    no_store(response)
    return await asking_again.ask_again(
        services.management, actor, token_id, node=body.node, catalog=body.catalog, reason=body.reason
    )


@router.get(
    "/token-export",
    response_class=StreamingResponse,
    responses={
        **authenticated(),
        200: {
            "description": "One token a line, as `GET /v1/tokens` shows it",
            "content": {_NDJSON: {"schema": {"type": "string"}}},
        },
    },
    summary="Export tokens",
)
async def export_tokens(services: ServicesHere, actor: ActorHere, query: Annotated[TokenListQuery, Query()]) -> Any:
    """All that the list of tokens has, not a page: one JSON object a line. Needs what the list needs."""
    wanted = replace(query.query(), limit=_EXPORT_PAGE)
    first = await lists.list_tokens(services.management, actor, wanted)

    async def lines() -> AsyncIterator[bytes]:
        page = first
        while True:
            for item in page["items"]:
                yield json.dumps(item, separators=(",", ":")).encode() + b"\n"
            if page["next_cursor"] is None:
                return
            page = await lists.list_tokens(services.management, actor, replace(wanted, cursor=page["next_cursor"]))

    return StreamingResponse(lines(), media_type=_NDJSON, headers={"Cache-Control": "no-store"})


@router.get("/grants", response_model=GrantPage, responses=authenticated(404), summary="List grants")
async def list_grants(
    services: ServicesHere, actor: ActorHere, response: Response, query: Annotated[GrantListQuery, Query()]
) -> Any:
    """Needs `grant:read` at the group or as an admin; those of a token, `token:read` for its owner."""
    no_store(response)
    return await grants.list_grants(services.management, actor, query.query())


@router.delete("/grants/{grant_id}", response_model=GrantAnswer, responses=authenticated(404), summary="Revoke a grant")
async def revoke_grant(
    services: ServicesHere,
    actor: ActorHere,
    response: Response,
    grant_id: _Number,
    query: Annotated[WaitQuery, Query()],
) -> Any:
    """Needs `grant:revoke` at the group or as an admin. The token lives on elsewhere. Again changes nothing."""
    no_store(response)
    return await grants.revoke_grant(services.management, actor, grant_id, wait=query.wait)


@router.post(
    "/grants",
    response_model=GrantResults,
    responses=authenticated(413),
    openapi_extra=body_of(RevokeBody),
    summary="Revoke up to 100 grants",
)
async def revoke_grants(services: ServicesHere, actor: ActorHere, request: Request, response: Response) -> Any:
    """Each by itself, as with requests."""
    body = read_model(RevokeBody, await read_body(request))
    no_store(response)
    return {"results": await grants.revoke_grants(services.management, actor, body.ids, body.reason)}
