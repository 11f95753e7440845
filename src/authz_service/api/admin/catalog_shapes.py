"""Catalogs, permissions and operations, as management's requests and answers show them."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path
from pydantic import BaseModel, Field

from authz_service.admin import catalogs
from authz_service.api.admin.shapes import Cursor, Limit, Page, PlainText, Revision
from authz_service.api.admin.shapes import Query as StrictQuery
from authz_service.catalog.model import OperationKind, OwnerCheck
from authz_service.directory.model import NodeKind

CatalogName = Annotated[str, Path(max_length=80, description="`gitlab` for the newest version, or `gitlab@1`")]
Scalars = dict[str, str | int | bool]


class CatalogSummary(BaseModel):
    """A catalog by its newest version."""

    name: str
    title: str
    versions: list[int] = Field(description="newest first")
    newest: int
    permissions: int = Field(description="how many")
    operations: int = Field(description="how many")
    owner_check: OwnerCheck = Field(description="`upstream`: owners and targets are not looked up in the directory")
    single_owner: bool = Field(description="each token has one resource owner")
    words: dict[NodeKind, str] = Field(description="the API's own words: a GitHub project is a `repository`")


class CatalogPage(Page):
    """All catalogs; the list is one page."""

    items: list[CatalogSummary]


class BoundaryView(BaseModel):
    """A kind of place where a permission exists, and the least role of the owner there."""

    boundary: NodeKind
    min_role: str | None


class PermissionView(BaseModel):
    """A permission of a catalog."""

    name: str
    description: str
    boundaries: list[BoundaryView]
    mutates: bool
    public_read: bool = Field(description="a public project or group satisfies it for any valid token")
    implies: list[str]
    deprecated: bool = Field(description="still works; not for new tokens")
    when: Scalars = Field(description="attributes of the request that must be equal")


class CategoryView(BaseModel):
    """Permissions that belong together."""

    name: str
    permissions: list[PermissionView]


class RoleView(BaseModel):
    """A role that memberships name."""

    name: str
    includes: list[str]
    inherits: bool = Field(description="whether it counts below the place of the membership too")


class LegacyScopeView(BaseModel):
    """A bundle that coarse tokens carry."""

    name: str
    description: str


class CatalogAnswer(CatalogSummary):
    """One version of a catalog; its operations are listed apart."""

    version: int
    base_path: str
    roles: list[RoleView]
    top_role: str | None
    legacy_scopes: list[LegacyScopeView]
    categories: list[CategoryView]
    revision: Revision


class ItemView(BaseModel):
    """A permission that must hold at a target."""

    permission: str
    boundary: NodeKind
    target: str = Field(description="as a catalog file writes it: `project {id}`, `self`, `below group {id}`")
    where: str = Field(description="the same for people: `the project acme/web`, `the token's owner`")


class SetView(BaseModel):
    """One way to satisfy an operation: all of these."""

    all_of: list[ItemView]
    when: Scalars
    min_role: str | None


class OperationView(BaseModel):
    """A call of the API, and what it needs: any one of the sets."""

    id: str
    kind: OperationKind
    summary: str
    mutates: bool
    open: bool = Field(description="any valid token may call it")
    public_read: bool = Field(description="needs nothing where every target is public")
    closed: bool = Field(description="no fine-grained token may call it")
    needs: list[SetView]


class OperationPage(Page):
    """Operations, in the order of the catalog."""

    catalog: str
    total: int = Field(description="how many match, over all pages")
    items: list[OperationView]


class OperationListQuery(StrictQuery):
    """Which operations."""

    q: Annotated[
        PlainText | None, Field(min_length=1, max_length=200, description="in id and summary, without case")
    ] = None
    permission: Annotated[PlainText | None, Field(max_length=129, description="what this permission unlocks")] = None
    kind: OperationKind | None = None
    limit: Limit = 50
    cursor: Cursor = None

    def query(self) -> catalogs.OperationQuery:
        return catalogs.OperationQuery(self.q, self.permission, self.kind, self.limit, self.cursor)
