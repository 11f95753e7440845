"""`/v1/audit`: who changed what, as pages or as one export, and the signed heads of its chain."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from authz_service.admin import audit
from authz_service.api.admin.shapes import Cursor, Limit, Moment, MomentText, Page, PlainText
from authz_service.api.admin.shapes import Query as StrictQuery
from authz_service.api.callers import ActorHere
from authz_service.api.documents import authenticated
from authz_service.api.state import ServicesHere
from authz_service.api.wire import no_store

router = APIRouter(prefix="/audit", tags=["audit"])

_NDJSON: Final = "application/x-ndjson"


class AuditExportQuery(StrictQuery):
    """Which rows."""

    node: Annotated[
        PlainText | None,
        Field(max_length=1100, description="a group or project: what concerns it or what lies below it"),
    ] = None
    actor: Annotated[
        PlainText | None, Field(max_length=255, description="who did it: a username, or `user:7` by external id")
    ] = None
    actor_token: Annotated[PlainText | None, Field(max_length=64, description="by which token")] = None
    action: Annotated[
        PlainText | None, Field(max_length=64, description="as `token.revoke`, or `token.` for all that begin so")
    ] = None
    subject: Annotated[
        PlainText | None, Field(max_length=255, description="what it was done to: `tok_…`, `group:acme`, `gitlab@2`")
    ] = None
    at_from: Annotated[Moment | None, Field(description="then or later; a day is its beginning, in UTC")] = None
    at_before: Annotated[Moment | None, Field(description="earlier than that; a day is its beginning, in UTC")] = None

    def query(self) -> audit.AuditQuery:
        return audit.AuditQuery(**dict(self))


class AuditListQuery(AuditExportQuery):
    """Which rows, and how many."""

    limit: Limit = 50
    cursor: Cursor = None


class AuditActor(BaseModel):
    """Who did it; all null is the service by itself."""

    token: str | None
    user: str | None = Field(description="the username of today; null when the user is gone")
    user_id: int | None = Field(description="the service's own number of the user, which the chain holds")


class AuditItem(BaseModel):
    """One change."""

    id: int
    at: MomentText
    action: str
    subject: str
    actor: AuditActor
    nodes: list[str] = Field(description="what it concerns, by the paths of today")
    node_ids: list[int] = Field(description="the same as the service's own numbers, which the chain holds")
    details: dict[str, Any]
    at_revision: int | None = Field(description="the revision that the change made")
    seal: int | None = Field(description="its place in the chain; null until it is sealed, within a second or so")
    hash: str | None = Field(description="SHA-256, hexadecimal; shown to those who may read the whole audit")
    partial: bool = Field(description="details and places outside the caller's groups are left out")


class AuditPage(Page):
    """Changes, newest first."""

    items: list[AuditItem]


class CheckpointItem(BaseModel):
    """The head of the chain as it was signed. Keep it where this service cannot write."""

    seal: int
    hash: str
    at: MomentText
    algorithm: str
    key_id: str
    signature: str


class CheckpointPage(Page):
    """Signed heads, newest first."""

    items: list[CheckpointItem]


class CheckpointListQuery(StrictQuery):
    """How many."""

    limit: Limit = 50
    cursor: Cursor = None


@router.get("", response_model=AuditPage, responses=authenticated(), summary="List changes")
async def list_audit(
    services: ServicesHere, actor: ActorHere, response: Response, query: Annotated[AuditListQuery, Query()]
) -> Any:
    """Needs `audit:read`. Owners of a group name it as `node`, and read what concerns it."""
    no_store(response)
    return await audit.list_audit(services.management, actor, query.query())


@router.get(
    "/export",
    response_class=StreamingResponse,
    responses={**authenticated(), 200: {"description": "One change a line", "content": {_NDJSON: {}}}},
    summary="Export changes",
)
async def export_audit(
    services: ServicesHere, actor: ActorHere, query: Annotated[AuditExportQuery, Query()]
) -> StreamingResponse:
    """All that the list would show, newest first, as NDJSON; `authz audit verify --export` proves it whole."""
    lines = audit.export_audit(services.management, actor, query.query())
    # The first line is asked for here: who may not read gets a problem, not half an answer.
    first = await anext(lines, b"")

    async def whole() -> Any:
        yield first
        async for line in lines:
            yield line

    return StreamingResponse(whole(), media_type=_NDJSON, headers={"Cache-Control": "no-store"})


@router.get("/checkpoints", response_model=CheckpointPage, responses=authenticated(), summary="List signed checkpoints")
async def list_checkpoints(
    services: ServicesHere, actor: ActorHere, response: Response, query: Annotated[CheckpointListQuery, Query()]
) -> Any:
    """Needs `audit:read` at the instance. With one of these kept elsewhere nobody can cut the end off unseen."""
    no_store(response)
    return await audit.list_checkpoints(services.management, actor, limit=query.limit, cursor=query.cursor)
