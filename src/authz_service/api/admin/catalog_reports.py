"""What is told of a catalog: coverage, needs, what a permission unlocks, what another version means for tokens."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, Field, model_validator
from pydantic_core import PydanticCustomError

from authz_service.admin import catalog_questions, catalog_versions
from authz_service.admin.catalog_versions import CatalogText
from authz_service.admin.surveys import Allowance, Refusal
from authz_service.api.admin.catalog_shapes import OperationView
from authz_service.api.admin.shapes import Cursor, Limit, Page, PlainText, Revision, Strict
from authz_service.api.admin.shapes import Query as StrictQuery
from authz_service.api.wire import OURS
from authz_service.catalog.effects import Turn
from authz_service.catalog.format import MAX_VERSION
from authz_service.catalog.model import OperationKind
from authz_service.directory.model import NodeKind
from authz_service.tokens.model import TokenKind

Version = Annotated[int, Field(ge=1, le=MAX_VERSION)]
FileName = Annotated[PlainText, Field(min_length=1, max_length=255, description="its name in messages")]


# coverage, needs, unlocks


class OperationCountsView(BaseModel):
    """Published operations: `bare`, `needs_target`, `open` and `closed` add up to `total`."""

    total: int
    bare: int = Field(description="say themselves where their permissions must be held")
    needs_target: int = Field(description="the asker must name the place")
    open: int = Field(description="any valid token may call them")
    closed: int = Field(description="no fine-grained token can ever call them")
    public_read: int = Field(description="need nothing where every target is public")
    idle_public_read: int = Field(description="marked so, without effect")
    alternatives: int = Field(description="ways to satisfy them, in all")
    unusable: int = Field(description="of these, ways whose target can never be of the boundary")
    needs_schema: int = Field(0, description="reached by GraphQL documents only where the API's schema is installed")


class CoverageAnswer(BaseModel):
    """How much of an API a catalog version decides. Extensions are in no published table, and counted apart."""

    catalog: str
    permissions: int
    pairs: int = Field(description="permissions, each counted at each of its boundaries")
    with_min_role: int = Field(description="permissions that name a least role somewhere")
    operations: OperationCountsView
    by_kind: dict[OperationKind, OperationCountsView]
    extension_permissions: int
    extension_operations: int
    schema_number: int = Field(0, description="the GraphQL schema that counts, 0 for none; see `graphql-schema`")
    revision: Revision


class NeedQuery(StrictQuery):
    """Which call: `method` and `path`, or `operation`."""

    method: Annotated[PlainText | None, Field(max_length=16, description="as `GET`")] = None
    path: Annotated[
        PlainText | None,
        Field(max_length=8192, description="as the client sends it, with the API's base path and its escapes"),
    ] = None
    operation: Annotated[
        PlainText | None, Field(max_length=1024, description="an operation's id, as `Mutation.createIssue`")
    ] = None

    def query(self) -> catalog_questions.NeedQuery:
        return catalog_questions.NeedQuery(self.method, self.path, self.operation)


class NeedAnswer(BaseModel):
    """The operation that a call is, and what it needs."""

    catalog: str
    operation: OperationView
    parameters: dict[str, str] = Field(description="of the path, decoded")
    revision: Revision


class UnlockQuery(StrictQuery):
    """Which page."""

    limit: Limit = 50
    cursor: Cursor = None

    def query(self) -> catalog_questions.UnlockQuery:
        return catalog_questions.UnlockQuery(self.limit, self.cursor)


class UnlockedView(OperationView):
    """An operation that a permission opens or helps to open."""

    boundaries: list[NodeKind] = Field(description="where the permission counts for it")
    alone: bool = Field(description="the permission is enough by itself, held wherever it is asked for")
    beside: list[list[str]] = Field(description="else what else it takes; any one of these lists")


class UnlockedPage(Page):
    """What a permission unlocks, in the order of the catalog."""

    catalog: str
    permission: str
    includes: list[str] = Field(description="what holding it confers besides")
    total: int = Field(description="how many, over all pages")
    items: list[UnlockedView]


# install


class InstallBody(Strict):
    """A catalog's file, in JSON."""

    text: str = Field(description="the YAML text, whole")
    file: FileName = "catalog.yaml"

    def given(self) -> CatalogText:
        return CatalogText(self.text, self.file)


class InstalledAnswer(BaseModel):
    """A version that is installed now."""

    catalog: str = Field(description="as `orders@2`")
    name: str
    version: int
    new: bool = Field(description="false: this very text was installed before")
    permissions: int
    operations: int
    revision: Revision


# compare and upgrade


class CompareBody(Strict):
    """A text that is not installed, or a version that is there."""

    text: str | None = Field(default=None, description="the YAML text, whole")
    version: Version | None = Field(default=None, description="in place of a text")
    file: FileName = "catalog.yaml"

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.text is None) is (self.version is None):
            raise PydanticCustomError(f"{OURS}missing_field", "send `text`, or `version`, and not both")
        return self

    def given(self) -> CatalogText | int:
        if self.version is not None:
            return self.version
        return CatalogText(self.text or "", self.file)


class ReportQuery(StrictQuery):
    """Which page of the tokens."""

    limit: Annotated[int, Field(ge=1, le=1000, description="how many at most")] = 50
    cursor: Cursor = None

    def query(self) -> catalog_versions.ReportQuery:
        return catalog_versions.ReportQuery(self.limit, self.cursor)


class ChangeView(BaseModel):
    """One aspect, before and after; null is "not so"."""

    aspect: str
    before: str | None
    after: str | None


class ChangedView(BaseModel):
    """What differs of a thing that both versions have."""

    name: str
    former: str | None = Field(description="what the older version calls it, where that is another name")
    changes: list[ChangeView]


class NamesView(BaseModel):
    """What is new, gone, and changed."""

    added: list[str]
    removed: list[str]
    changed: list[ChangedView]


class DifferenceView(BaseModel):
    """Everything by which two versions differ, descriptions left out."""

    old: str
    new: str
    settings: list[ChangeView]
    roles: NamesView
    permissions: NamesView
    operations: NamesView
    bundles: NamesView


class PermissionTurnView(BaseModel):
    """A permission that the token has otherwise than before."""

    permission: str
    boundary: NodeKind
    turn: Turn
    implied: bool = Field(description="not by its own name: something that the token names includes it")


class CallTurnView(BaseModel):
    """A call that the token may make otherwise than before."""

    operation: str
    turn: Turn
    unknown: bool = Field(description="the older version does not know the call")


class ShiftView(BaseModel):
    """A change of the whole catalog, whatever the token holds."""

    code: str
    message: str


class TokenEffectView(BaseModel):
    """What another version means for one live token."""

    id: str
    name: str
    owner: str
    kind: TokenKind
    version: int = Field(description="the one it is pinned to")
    broken: bool = Field(description="something that it may now is denied")
    widened: bool = Field(description="something that is denied now it may")
    refusal: Refusal | None = Field(description="why it is not moved")
    lacking: list[str] = Field(description="names that it holds and the newer version does not have")
    permissions: list[PermissionTurnView] = Field(description="20 at most")
    permissions_total: int
    calls: list[CallTurnView] = Field(description="20 at most, those that the older version knows first")
    calls_total: int
    new_calls_total: int = Field(description="of these, calls that the older version does not know")
    shifts: list[ShiftView]
    above: list[str] = Field(description="tokens above it that change, and it with them")


class EffectCounts(BaseModel):
    """Live tokens."""

    tokens: int = Field(description="that were compared")
    broken: int
    widened: int
    refused: int
    unchanged: int


class ReportAnswer(BaseModel):
    """What another version means for the live tokens: counts of all, and one page of those that are touched."""

    counts: EffectCounts
    refusals: dict[Refusal, int]
    incompatible: dict[str, list[str]] = Field(
        description="older versions whose tokens cannot be moved at all, and why"
    )
    items: list[TokenEffectView]
    total: int = Field(description="how many are touched, over all pages")
    next_cursor: str | None
    revision: Revision


class ComparisonAnswer(ReportAnswer):
    """Two versions side by side."""

    from_: str = Field(alias="from")
    to: str
    installable: bool
    refusal: str | None = Field(description="why the text cannot be installed")
    difference: DifferenceView


class UpgradeBody(Strict):
    """Where the tokens go."""

    to: Version
    dry_run: bool = Field(default=False, description="move nothing, and tell the same")
    allow: Allowance = Field(
        default=Allowance.NOTHING,
        description="what a token may gain: `nothing`, `new_calls` that its version does not know, or any `widening`",
    )

    def upgrade(self) -> catalog_versions.Upgrade:
        return catalog_versions.Upgrade(self.to, self.allow, self.dry_run)


class UpgradeAnswer(ReportAnswer):
    """What was moved, and what was refused."""

    to: str
    dry_run: bool
    upgraded: int
    meanwhile: int = Field(description="changed while this ran, and left alone: run it again")
