"""`/v1/tokens`: issue, list, show, revoke."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Request, Response

from authz_service.admin import lists, tokens
from authz_service.admin.tokens import Idempotency
from authz_service.api.admin.headers import ETAG, IdempotencyKey, set_etag
from authz_service.api.admin.token_life import ISSUED, render_issued
from authz_service.api.admin.token_shapes import (
    IssuedToken,
    RevocationBody,
    RevokeQuery,
    TokenAnswer,
    TokenBody,
    TokenListQuery,
    TokenPage,
)
from authz_service.api.callers import ActorHere
from authz_service.api.documents import authenticated, body_of
from authz_service.api.state import ServicesHere
from authz_service.api.wire import DEFAULT_LIMIT, no_store, parse_json, read_body, read_model

router = APIRouter(tags=["tokens"])

_EXAMPLES: Final = {
    "retry jobs": {
        "name": "retry-jobs",
        "owner": "dana",
        "catalog": "gitlab",
        "expires_at": "2027-01-31T00:00:00Z",
        "reason": "nightly build",
        "scopes": [
            {
                "reach": {"kind": "selected", "nodes": ["project:acme/platform/api", "group:acme/tools"]},
                "permissions": ["job:read", "job:run"],
            }
        ],
    },
    "from a template": {
        "name": "nightly",
        "owner": "ci-bot",
        "catalog": "gitlab",
        "template": "ci-pipeline",
        "nodes": ["project:acme/platform/api"],
        "expires_at": "2027-01-31T00:00:00Z",
    },
    "a coarse token": {"name": "old-script", "kind": "legacy", "catalog": "gitlab", "legacy_scopes": ["read_api"]},
    "a gateway": {
        "name": "edge",
        "catalog": "authz",
        "scopes": [{"reach": {"kind": "instance"}, "permissions": ["decision:evaluate"]}],
        "evaluates": ["gitlab"],
    },
}
_Id = Annotated[str, Path(description="a token's public id, `tok_…`", max_length=64)]


async def _read_token_body(request: Request) -> tuple[TokenBody, dict[str, Any]]:
    body = await read_body(request, DEFAULT_LIMIT)
    return read_model(TokenBody, body), parse_json(body)


@router.post(
    "/tokens",
    status_code=HTTPStatus.CREATED,
    response_model=IssuedToken,
    responses={**authenticated(409, 413), **ISSUED},
    openapi_extra=body_of(TokenBody, examples=_EXAMPLES),
    summary="Issue a token",
)
async def create_token(
    services: ServicesHere,
    actor: ActorHere,
    request: Request,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> dict[str, Any]:
    """Needs `token:create` for the owner. All faults of the body are listed at once.

    A token issues at most what its own scopes hold, unless it also holds `token:create_any`.
    """
    body, written = await _read_token_body(request)
    repeat = None if idempotency_key is None else Idempotency(idempotency_key, written)
    return render_issued(response, await tokens.create_token(services.management, actor, body.draft(), repeat))


@router.get("/tokens", response_model=TokenPage, responses=authenticated(), summary="List tokens")
async def list_tokens(
    services: ServicesHere, actor: ActorHere, response: Response, query: Annotated[TokenListQuery, Query()]
) -> Any:
    """Needs `token:read`. Without `owner` and `node`, an admin gets all tokens and everybody else their own.

    With `node`, those that reach into it, by what they selected or by what their owner is. Group owners name their
    group, or what lies in it, and see of each token what lies inside.
    """
    no_store(response)
    return await lists.list_tokens(services.management, actor, query.query())


@router.get(
    "/tokens/{token_id}",
    response_model=TokenAnswer,
    responses={**authenticated(404), 200: {"description": "The token, without its secret", "headers": ETAG}},
    summary="Show a token",
)
async def show_token(services: ServicesHere, actor: ActorHere, response: Response, token_id: _Id) -> Any:
    """Never its secret. A token that the caller may not see looks like one that does not exist."""
    no_store(response)
    found = await tokens.show_token(services.management, actor, token_id)
    set_etag(response, found["etag"])
    return found


@router.delete(
    "/tokens/{token_id}",
    response_model=TokenAnswer,
    responses=authenticated(404, 413),
    openapi_extra=body_of(RevocationBody, required=False),
    summary="Revoke a token",
)
async def revoke_token(
    services: ServicesHere,
    actor: ActorHere,
    request: Request,
    response: Response,
    token_id: _Id,
    query: Annotated[RevokeQuery, Query()],
) -> Any:
    """Ends the token and all that were issued under it, for ever; and what it replaced, where that still works.

    Revoking it again changes nothing and is no error.
    """
    said = await read_revocation(request)
    no_store(response)
    return await tokens.revoke_token(services.management, actor, token_id, said.reason, wait=query.wait)


async def read_revocation(request: Request) -> RevocationBody:
    """The body, which may be left out. Raises InvalidBodyError for any other."""
    body = await read_body(request)
    return read_model(RevocationBody, body) if body else RevocationBody(reason="")
