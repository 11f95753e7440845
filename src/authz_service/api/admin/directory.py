"""`/v1/directory`: import, and look-ups for people."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from authz_service.admin import directory, directory_export
from authz_service.api.admin.shapes import Cursor, Limit, Page, PlainText, Revision, Source
from authz_service.api.admin.shapes import Query as StrictQuery
from authz_service.api.callers import ActorHere
from authz_service.api.documents import authenticated
from authz_service.api.state import ServicesHere
from authz_service.api.wire import no_store, read_body
from authz_service.directory.model import DEFAULT_SOURCE, NodeKind, UserState

router = APIRouter(prefix="/directory", tags=["directory"])

_NDJSON: Final = "application/x-ndjson"
REVISION: Final = "X-Authz-Revision"
_LINES: Final = """\
{"type": "user", "username": "dana", "external_id": "7"}
{"type": "group", "path": "acme", "external_id": "12", "visibility": "private"}
{"type": "project", "path": "acme/web", "external_id": "42", "visibility": "private"}
{"type": "membership", "user": "dana", "node": "acme", "role": "developer"}
"""


class ListedKind(StrEnum):
    """What can be listed."""

    GROUP = "group"
    PROJECT = "project"
    USER = "user"


class ImportQuery(StrictQuery):
    """Whose directory it is."""

    source: Annotated[
        PlainText,
        Field(max_length=63, pattern=r"^[a-z0-9][a-z0-9_-]*$", description="the source of lines that name none"),
    ] = DEFAULT_SOURCE
    grandfather: bool = Field(
        default=True,
        description="where places move into a group that requires approval: live tokens keep what they held there",
    )


class ImportAnswer(BaseModel):
    """What an import did."""

    lines: int
    counts: dict[str, int] = Field(
        description="as `users_created`, `groups_changed`, `memberships_deleted`, `tokens_revoked`; no zeros"
    )
    revision: Revision


class NodeListQuery(StrictQuery):
    """Which groups, projects and users."""

    under: Annotated[
        PlainText | None,
        Field(max_length=1100, description="a group or user: what lies below it, however deep; without it everything"),
    ] = None
    kind: ListedKind | None = None
    search: Annotated[
        PlainText | None, Field(min_length=1, max_length=100, description="in the name alone, without case")
    ] = None
    source: Source = None
    limit: Limit = 50
    cursor: Cursor = None

    def query(self) -> directory.NodeQuery:
        kind = None if self.kind is None else NodeKind(self.kind.value)
        return directory.NodeQuery(self.under, kind, self.search, self.source, self.limit, self.cursor)


class NodeView(BaseModel):
    """A group, a project or a user."""

    target: str = Field(description="as scopes and checks take it: `project:acme/web`")
    kind: ListedKind
    path: str
    source: str
    external_id: str | None
    visibility: str | None = Field(description="its own: `public`, `internal` or `private`; null for users")
    archived: bool
    attributes: dict[str, str | int | bool]


class NodeAnswer(NodeView):
    """One of them, at a revision."""

    effective_visibility: str | None = Field(description="the most closed one on the way up; null for users")
    revision: Revision


class NodePage(Page):
    """Groups, projects and users, in the order in which they came."""

    items: list[NodeView]


class MembershipView(BaseModel):
    """A role of a user at a group or project, and with it below."""

    node: str
    role: str


class UserAnswer(BaseModel):
    """A user or service account."""

    username: str
    source: str
    external_id: str | None
    state: UserState
    admin: bool
    external: bool
    service_account: bool
    home: str | None = Field(description="of a service account: the group whose owners manage it")
    same_as: str | None = Field(description="the same person in another source")
    attributes: dict[str, str | int | bool]
    memberships: list[MembershipView]
    revision: Revision


class ExportQuery(StrictQuery):
    """Whose directory it is."""

    source: Annotated[PlainText, Field(max_length=63, pattern=r"^[a-z0-9][a-z0-9_-]*$")] = DEFAULT_SOURCE


class NodeShowQuery(StrictQuery):
    """Which one."""

    target: Annotated[
        PlainText, Field(min_length=1, max_length=1100, description="as `project:acme/web`, `group:12` or a bare path")
    ]
    source: Source = None


class UserShowQuery(StrictQuery):
    """In which source."""

    source: Source = None


@router.post(
    "/import",
    response_model=ImportAnswer,
    responses=authenticated(413),
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": "One change a line, applied in their order: upserts, `delete` and `move`.",
            "content": {_NDJSON: {"schema": {"type": "string"}, "examples": {"a start": {"value": _LINES}}}},
        }
    },
    summary="Import users, groups, projects and memberships",
)
async def import_directory(
    services: ServicesHere, actor: ActorHere, request: Request, query: Annotated[ImportQuery, Query()]
) -> Any:
    """Needs `directory:import` and an admin. All lines or none, in one revision.

    Faults are listed by line, the first 1,000 of them; the detail says how many there are. What the lines name is
    looked up once all are well written.
    """
    management = services.management
    await directory.require_may_import(management, actor)
    body = await read_body(request, management.limits.import_bytes)
    return await directory.import_directory(management, actor, body, source=query.source, grandfather=query.grandfather)


@router.get(
    "/export",
    response_class=StreamingResponse,
    responses={
        **authenticated(),
        200: {
            "description": "One thing a line, as an import takes it, all of one revision",
            "headers": {REVISION: {"description": "the revision", "schema": {"type": "string"}}},
            "content": {_NDJSON: {"schema": {"type": "string"}}},
        },
    },
    summary="Export a source's directory",
)
async def export_directory(services: ServicesHere, actor: ActorHere, query: Annotated[ExportQuery, Query()]) -> Any:
    """Needs `directory:read` as an admin. Ids that were deleted end the list: they are never given again.

    What lost its name to another has `path` null.
    """
    revision, chunks = await directory_export.export_directory(services.management, actor, query.source)
    headers = {"Cache-Control": "no-store", REVISION: revision}
    return StreamingResponse(iter(chunks), media_type=_NDJSON, headers=headers)


@router.get("/nodes", response_model=NodePage, responses=authenticated(), summary="List groups, projects and users")
async def list_nodes(
    services: ServicesHere, actor: ActorHere, response: Response, query: Annotated[NodeListQuery, Query()]
) -> Any:
    """Needs `directory:read` at the group, or as an admin."""
    no_store(response)
    return await directory.list_nodes(services.management, actor, query.query())


@router.get("/node", response_model=NodeAnswer, responses=authenticated(404), summary="Show a group, project or user")
async def show_node(
    services: ServicesHere, actor: ActorHere, response: Response, query: Annotated[NodeShowQuery, Query()]
) -> Any:
    """Needs `directory:read` at the group, or as an admin. What may not be seen looks like what does not exist."""
    no_store(response)
    return await directory.show_node(services.management, actor, query.target, query.source)


@router.get("/users/{name}", response_model=UserAnswer, responses=authenticated(404), summary="Show a user")
async def show_user(
    services: ServicesHere,
    actor: ActorHere,
    response: Response,
    name: Annotated[str, Path(max_length=300, description="a username, or `user:7` by external id")],
    query: Annotated[UserShowQuery, Query()],
) -> Any:
    """With their memberships. Needs `directory:read`, for others than oneself as an admin."""
    no_store(response)
    return await directory.show_user(services.management, actor, name, query.source)
