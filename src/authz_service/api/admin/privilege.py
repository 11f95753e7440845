"""Least privilege: what tokens may do and did, the smallest that would do, and what a change would break."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from authz_service.admin import searching, simulating, simulating_changes, usage
from authz_service.api.admin.headers import ETAG, IF_MATCH, read_if_match, set_etag
from authz_service.api.admin.privilege_shapes import (
    ApplyQuery,
    ChangeBody,
    ChangePage,
    DaysQuery,
    EffectiveListQuery,
    EffectivePage,
    HolderListQuery,
    HolderPage,
    SimulationAnswer,
    SimulationBody,
    TokenSuggestion,
    UsageListQuery,
    UsagePage,
)
from authz_service.api.admin.token_shapes import TokenAnswer
from authz_service.api.callers import ActorHere
from authz_service.api.documents import authenticated, body_of
from authz_service.api.state import ServicesHere
from authz_service.api.wire import json_body, no_store

router = APIRouter(tags=["least privilege"])

_Id = Annotated[str, Path(description="a token's public id, `tok_…`", max_length=64)]
_CALLS: Final = {
    "the smallest token for two calls": {
        "catalog": "gitlab",
        "calls": [
            {"method": "GET", "path": "/api/v4/projects/acme%2Fweb/issues"},
            {"resource": "job", "action": "run", "target": "project:acme/web"},
        ],
    }
}
_CHANGES: Final = {
    "somebody leaves": {"catalog": "gitlab", "user": "dana", "node": "group:acme", "role": None},
    "another version": {"catalog": "gitlab", "version": 2},
}


@router.get(
    "/tokens/{token_id}/effective",
    response_model=EffectivePage,
    responses=authenticated(404),
    summary="What may this token do, and where?",
)
async def show_effective(
    services: ServicesHere,
    actor: ActorHere,
    response: Response,
    token_id: _Id,
    query: Annotated[EffectiveListQuery, Query()],
) -> Any:
    """As checks would answer now, from a network that the token may be used from. Complete over its pages.

    Whoever sees the token whole gets all of it; owners of groups what lies in their groups.
    """
    no_store(response)
    return await searching.list_effective(services.management, services.search, actor, token_id, query.query())


@router.get(
    "/search/tokens",
    response_model=HolderPage,
    responses=authenticated(),
    summary="Which tokens may do this here?",
)
async def search_tokens(
    services: ServicesHere, actor: ActorHere, response: Response, query: Annotated[HolderListQuery, Query()]
) -> Any:
    """Every live token that a check at the place would allow. Needs `token:read`, for all tokens or at the group."""
    no_store(response)
    return await searching.list_holders(services.management, services.search, actor, query.query())


@router.get(
    "/tokens/{token_id}/usage",
    response_model=UsagePage,
    responses=authenticated(404),
    summary="What was this token used for?",
)
async def show_usage(
    services: ServicesHere,
    actor: ActorHere,
    response: Response,
    token_id: _Id,
    query: Annotated[UsageListQuery, Query()],
) -> Any:
    """By permission and place, with the tokens that it replaced and those issued under it; some seconds behind."""
    no_store(response)
    return await usage.show_usage(services.management, actor, token_id, query.query())


@router.get(
    "/tokens/{token_id}/suggestion",
    response_model=TokenSuggestion,
    response_model_exclude_none=True,
    responses=authenticated(404),
    summary="The smallest token for what this one was used for",
)
async def show_suggestion(
    services: ServicesHere, actor: ActorHere, response: Response, token_id: _Id, query: Annotated[DaysQuery, Query()]
) -> Any:
    """Exactly the permissions that calls rested on, where they did. Look at the days before you trust it."""
    no_store(response)
    return await usage.show_suggestion(services.management, actor, token_id, query.days)


@router.post(
    "/tokens/{token_id}/suggestion/apply",
    response_model=TokenAnswer,
    responses={
        **authenticated(404, 409, 412, 428),
        200: {"description": "The token as it is now", "headers": ETAG},
    },
    openapi_extra={"parameters": [IF_MATCH]},
    summary="Narrow a token to what it was used for",
)
async def apply_suggestion(
    services: ServicesHere,
    actor: ActorHere,
    request: Request,
    response: Response,
    token_id: _Id,
    query: Annotated[ApplyQuery, Query()],
) -> Any:
    """An edit of its scopes, for whoever holds `token:edit` for its owner. The next check is decided by it."""
    if_match = read_if_match(request)
    found = await usage.apply_suggestion(services.management, actor, token_id, query.days, if_match, wait=query.wait)
    no_store(response)
    set_etag(response, found["etag"])
    return found


@router.post(
    "/simulate",
    response_model=SimulationAnswer,
    response_model_exclude_none=True,
    responses=authenticated(404, 413),
    openapi_extra=body_of(SimulationBody, examples=_CALLS),
    summary="Would this token make these calls, and what is the smallest that would?",
)
async def simulate(
    services: ServicesHere,
    actor: ActorHere,
    response: Response,
    body: Annotated[SimulationBody, Depends(json_body(SimulationBody))],
) -> Any:
    """Stores nothing. Needs `token:create` for the owner, or to see the whole token that is named."""
    no_store(response)
    return await simulating.simulate(services.management, services.point.routing, actor, body.simulation())


@router.post(
    "/simulate/change",
    response_model=ChangePage,
    responses=authenticated(413),
    openapi_extra=body_of(ChangeBody, examples=_CHANGES),
    summary="Which recent uses would this change end?",
)
async def simulate_change(
    services: ServicesHere,
    actor: ActorHere,
    response: Response,
    body: Annotated[ChangeBody, Depends(json_body(ChangeBody))],
) -> Any:
    """Stores nothing. Names live tokens by what they were used for lately, with each use that would be denied."""
    no_store(response)
    return await simulating_changes.simulate_change(services.management, actor, body.change())
