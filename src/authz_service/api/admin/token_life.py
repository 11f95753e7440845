"""`/v1/tokens/{id}`: edit, rotate, clone; and `/v1/templates`."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Request, Response

from authz_service.admin import cloning, editing, rotating
from authz_service.admin.templates import list_templates
from authz_service.admin.tokens import Idempotency, Issued
from authz_service.api.admin.headers import ETAG, IF_MATCH, IdempotencyKey, read_if_match, set_etag
from authz_service.api.admin.token_life_shapes import (
    CloneBody,
    EditQuery,
    RotateBody,
    TemplateList,
    TemplateQuery,
    TemplateView,
    TokenPatch,
)
from authz_service.api.admin.token_shapes import IssuedToken, RevokeQuery, TokenAnswer
from authz_service.api.callers import ActorHere
from authz_service.api.documents import authenticated, body_of
from authz_service.api.state import ServicesHere
from authz_service.api.wire import DEFAULT_LIMIT, no_store, parse_json, read_body, read_model

router = APIRouter(tags=["tokens"])

_Id = Annotated[str, Path(description="a token's public id, `tok_…`", max_length=64)]
ISSUED: Final[dict[int | str, dict[str, Any]]] = {
    201: {
        "description": "The token with its secret, which is shown this once",
        "headers": {
            **ETAG,
            "Location": {"description": "where the token is shown", "schema": {"type": "string"}},
            "Idempotent-Replayed": {
                "description": "`true` when the answer is a former one, without its secret",
                "schema": {"type": "string"},
            },
        },
    }
}
_EDITS: Final = {
    "fewer permissions": {
        "scopes": [{"reach": {"kind": "selected", "nodes": ["project:acme/platform/api"]}, "permissions": ["job:read"]}]
    },
    "another name and a later end": {"name": "retry-jobs", "expires_at": "2027-01-31T00:00:00Z"},
}


@router.patch(
    "/tokens/{token_id}",
    response_model=TokenAnswer,
    responses={
        **authenticated(404, 409, 412, 413, 428),
        200: {"description": "The token as it is now", "headers": ETAG},
    },
    openapi_extra={**body_of(TokenPatch, examples=_EDITS), "parameters": [IF_MATCH]},
    summary="Edit a token",
)
async def edit_token(
    services: ServicesHere,
    actor: ActorHere,
    request: Request,
    response: Response,
    token_id: _Id,
    query: Annotated[EditQuery, Query()],
) -> Any:
    """Needs `token:edit` for its owner. What narrows the token counts at once and needs no more.

    What widens it, a later expiry among that, is judged as if the token were created. All faults are listed at once.
    """
    if_match = read_if_match(request)
    body = read_model(TokenPatch, await read_body(request, DEFAULT_LIMIT))
    found = await editing.edit_token(services.management, actor, token_id, body.change(), if_match, wait=query.wait)
    no_store(response)
    set_etag(response, found["etag"])
    return found


@router.post(
    "/tokens/{token_id}/rotate",
    status_code=HTTPStatus.CREATED,
    response_model=IssuedToken,
    responses={**authenticated(404, 409, 413), **ISSUED},
    openapi_extra=body_of(
        RotateBody, examples={"at once": {"overlap_seconds": 0}, "a day": {"overlap_seconds": 86400}}
    ),
    summary="Replace a token's secret",
)
async def rotate_token(
    services: ServicesHere,
    actor: ActorHere,
    request: Request,
    response: Response,
    token_id: _Id,
    query: Annotated[RevokeQuery, Query()],
    idempotency_key: IdempotencyKey = None,
) -> dict[str, Any]:
    """Needs `token:rotate` for its owner, and the right to create that token. Answers a new token, of a new id.

    Scopes stay, the end never moves to a later date, and what the old one issued hangs under the new one. Rotating a
    token that is out already revokes all that came of it: rotate the new one.
    """
    body, written = await read_rotation(request)
    repeat = None if idempotency_key is None else Idempotency(idempotency_key, written)
    issued = await rotating.rotate_token(services.management, actor, token_id, body.rotation(), repeat, wait=query.wait)
    return render_issued(response, issued)


@router.post(
    "/tokens/{token_id}/clone",
    status_code=HTTPStatus.CREATED,
    response_model=IssuedToken,
    responses={**authenticated(404, 409, 413), **ISSUED},
    openapi_extra=body_of(
        CloneBody, examples={"for another project's bot": {"name": "retry-jobs-2", "owner": "bot-2"}}
    ),
    summary="Issue a token like another",
)
async def clone_token(
    services: ServicesHere,
    actor: ActorHere,
    request: Request,
    response: Response,
    token_id: _Id,
    idempotency_key: IdempotencyKey = None,
) -> dict[str, Any]:
    """Needs `token:create` for the owner, and to see the whole of the other token, which may have ended.

    The clone has the same scopes, conditions, flags and parent, in the catalog versions of the other.
    """
    body = await read_body(request, DEFAULT_LIMIT) or b"{}"
    draft = read_model(CloneBody, body).draft()
    repeat = None if idempotency_key is None else Idempotency(idempotency_key, parse_json(body))
    return render_issued(response, await cloning.clone_token(services.management, actor, token_id, draft, repeat))


@router.get("/templates", response_model=TemplateList, responses=authenticated(), summary="List templates of tokens")
async def list_token_templates(actor: ActorHere, query: Annotated[TemplateQuery, Query()]) -> TemplateList:
    """What tokens for the usual jobs need, in each shipped catalog's own names. Any valid token may ask."""
    del actor
    return TemplateList(items=[TemplateView.of(template) for template in list_templates(query.catalog)])


async def read_rotation(request: Request) -> tuple[RotateBody, dict[str, Any]]:
    """The body, and as it was written; none at all is an empty one."""
    body = await read_body(request, DEFAULT_LIMIT) or b"{}"
    return read_model(RotateBody, body), parse_json(body)


def render_issued(response: Response, issued: Issued) -> dict[str, Any]:
    """A new token, told as all of them are."""
    no_store(response)
    response.headers["Location"] = f"/v1/tokens/{issued.token['id']}"
    set_etag(response, issued.token.get("etag"))
    if issued.repeated:
        response.headers["Idempotent-Replayed"] = "true"
    return {**issued.token, "secret": issued.secret}
