"""`/v1/policies`: what tokens may be at a group or on the whole instance."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response

from authz_service.admin import policies
from authz_service.admin.policies import PolicyChange
from authz_service.api.admin.headers import ETAG, IF_MATCH, read_if_match, set_etag
from authz_service.api.admin.policy_shapes import (
    PolicyAnswer,
    PolicyBody,
    PolicyQuery,
    PolicySetAnswer,
    PolicySetQuery,
)
from authz_service.api.callers import ActorHere
from authz_service.api.documents import authenticated, body_of
from authz_service.api.state import ServicesHere
from authz_service.api.wire import no_store, read_body, read_model
from authz_service.errors import Fault, InvalidBodyError

router = APIRouter(tags=["policies"])
_EXAMPLES: Final = {
    "approval, and no coarse tokens": {
        "catalog": "gitlab",
        "approval": {"value": "required", "auto_approve": [{"only_reads": True, "max_lifetime_days": 30}]},
        "legacy": {"forbidden_from": "2027-01-31", "force": True},
        "max_lifetime_days": {"fine_grained": {"value": 365}},
    },
    "nothing: the policy goes": {"catalog": "gitlab"},
}


@router.get("/policies", response_model=PolicyAnswer, responses=authenticated(), summary="Show policies")
async def show_policies(
    services: ServicesHere, actor: ActorHere, response: Response, query: Annotated[PolicyQuery, Query()]
) -> Any:
    """Needs `policy:read` at the group, or as an admin. With `catalog` the answer has an `ETag`."""
    no_store(response)
    shown = await policies.show_policies(services.management, actor, query.node, query.catalog)
    if query.catalog is not None:
        set_etag(response, shown["policies"][0]["etag"])
    return shown


@router.put(
    "/policies",
    response_model=PolicySetAnswer,
    responses={**authenticated(412, 413), 200: {"headers": ETAG}},
    openapi_extra=body_of(PolicyBody, examples=_EXAMPLES) | {"parameters": [{**IF_MATCH, "required": False}]},
    summary="Set a policy, or try one out",
)
async def set_policy(
    services: ServicesHere,
    actor: ActorHere,
    request: Request,
    response: Response,
    query: Annotated[PolicySetQuery, Query()],
) -> Any:
    """Needs `policy:edit` at the group, or as an admin. What a policy above forces is refused, and that one named.

    The body replaces the whole policy: `looser` names what it says less strictly. With `If-Match` a policy that was
    changed meanwhile is left alone (412). `dry_run=true` changes nothing.
    """
    body = read_model(PolicyBody, await read_body(request))
    if body.legacy is not None and (body.legacy.value is None) is (body.legacy.forbidden_from is None):
        message = "say either `value` or `forbidden_from`"
        raise InvalidBodyError("the body has a fault", faults=[Fault("/legacy", "missing_field", message)])
    no_store(response)
    tags = tuple(read_if_match(request)) if "if-match" in request.headers else None
    change = PolicyChange(
        query.node, body.catalog, body.policy(), tags, query.dry_run, query.grandfather, query.allow_loosening
    )
    done = await policies.set_policy(services.management, actor, change, wait=query.wait)
    if done.get("policies"):
        set_etag(response, done["policies"][0]["etag"])
    return done
