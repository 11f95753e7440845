"""`/v1/tokens/{id}/blast-radius`: what a leaked token could reach, and what it did lately."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, Field

from authz_service.admin import blast
from authz_service.admin.lists import TokenState
from authz_service.admin.searching import EffectiveQuery
from authz_service.admin.webhooks import EventKind
from authz_service.api.admin.privilege_shapes import Days, EffectiveListQuery, EffectivePage, UsedItem, UsedNetwork
from authz_service.api.admin.shapes import MomentText
from authz_service.api.callers import ActorHere
from authz_service.api.documents import authenticated
from authz_service.api.state import ServicesHere
from authz_service.api.wire import no_store

router = APIRouter(tags=["leaks"])

_Id = Annotated[str, Path(description="a token's public id, `tok_…`", max_length=64)]


class BlastQuery(EffectiveListQuery):
    """What of it, and how far back."""

    days: Days = 30

    def query(self) -> EffectiveQuery:
        return EffectiveQuery(**{name: value for name, value in dict(self).items() if name != "days"})


class BlastEvent(BaseModel):
    """Something that happened to the token."""

    id: str
    kind: EventKind
    at: MomentText


class BlastRadius(EffectivePage):
    """A page of what the token could reach if it had not ended, and what is known of its use."""

    state: TokenState
    revoked_at: MomentText | None
    revoked_reason: str | None
    last_used_at: MomentText | None
    related: list[str] = Field(description="tokens of its family, and those issued under these: look at them too")
    days: int
    used: list[UsedItem] = Field(description="what it did in these days, the first 1,000")
    used_more: bool = Field(description="there is more: see `/v1/tokens/{id}/usage`")
    networks: list[UsedNetwork]
    events: list[BlastEvent] = Field(description="what happened to it, newest first")
    partial: bool = Field(description="only what lies in the caller's groups is shown")


@router.get(
    "/tokens/{token_id}/blast-radius",
    response_model=BlastRadius,
    responses=authenticated(404),
    summary="What could this token reach, and what did it do?",
)
async def show_blast_radius(
    services: ServicesHere,
    actor: ActorHere,
    response: Response,
    token_id: _Id,
    query: Annotated[BlastQuery, Query()],
) -> Any:
    """Every place and permission, page by page, as checks would answer if the token had not ended."""
    no_store(response)
    return await blast.show_blast_radius(
        services.management, services.search, actor, token_id, query.query(), days=query.days
    )
