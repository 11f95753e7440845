"""Tokens in requests and answers, as OpenAPI shows them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from authz_service.admin.drafts import ScopeDraft, TokenDraft
from authz_service.admin.lists import TokenQuery, TokenSort, TokenState
from authz_service.api.admin.shapes import (
    Cursor,
    End,
    Limit,
    Moment,
    MomentText,
    Page,
    PlainText,
    Query,
    Revision,
    Strict,
)
from authz_service.tokens.model import ReachKind, TokenKind

_CATALOG = "a catalog's name for its newest version, `gitlab`, or one version, `gitlab@1`"


class ReachBody(Strict):
    """Where a scope applies."""

    kind: ReachKind = Field(
        description="`selected` nodes; `all_memberships`: wherever the owner is a member, at each use; "
        "`personal_projects`: in the owner's own namespace; `user`: the owner's account; `instance`"
    )
    nodes: list[str] = Field(
        default_factory=list,
        description="of `selected` alone: groups (with all below them), projects, and users (for their projects), as "
        "`project:acme/web`, `group:12` or a bare path",
    )


class ScopeBody(Strict):
    """Permissions, and where they apply."""

    catalog: str | None = Field(None, description=f"{_CATALOG}; without it the token's")
    reach: ReachBody
    permissions: list[str] = Field(description="as `job:read`")


class ConditionsBody(Strict):
    """What must hold at each use."""

    networks: list[str] = Field(
        default_factory=list, description="networks of the client, as `10.0.0.0/8`; an unknown address is in none"
    )


class TokenBody(Strict):
    """A token to issue."""

    name: str = Field(description="what it is for, for people")
    owner: str | None = Field(
        None, description="the user or service account that it acts for; without it the caller's own"
    )
    catalog: str | None = Field(None, description=f"{_CATALOG}; may be left out where each scope names its own")
    kind: TokenKind = Field(TokenKind.FINE_GRAINED, description="`legacy` is a coarse token with `legacy_scopes`")
    scopes: list[ScopeBody] = Field(
        default_factory=list, description="none at all is a token that reads what is public"
    )
    legacy_scopes: list[str] = Field(default_factory=list, description="of a legacy token: as `read_api`")
    expires_at: End | None = Field(
        None, description="a day counts to its end, in UTC; without it the token does not expire by itself"
    )
    not_before: Moment | None = Field(
        None, description="the token does not work before it; a day is its beginning, in UTC"
    )
    reason: str = Field("", description="why it is needed, for whoever reviews it")
    conditions: ConditionsBody = Field(default_factory=ConditionsBody)
    resource_owner: str | None = Field(
        None, description="where a catalog demands one: the group or user under which all selected nodes lie"
    )
    evaluates: list[str] = Field(
        default_factory=list,
        description="of a token with `decision:evaluate`: the catalogs that it may ask about, `*` for all",
    )
    parent: str | None = Field(
        None,
        description="issues a child of this token, `self` or an id: it never does what the parent may not do, and ends "
        "with it at the latest. A token that is a child itself issues only children",
    )
    may_rotate_self: bool = Field(default=False, description="whether the token may replace its own secret")
    template: str | None = Field(
        None, description="in place of scopes: one of `GET /v1/templates` for this catalog, as `ci-pipeline`"
    )
    nodes: list[str] = Field(default_factory=list, description="beside a template: the groups and projects it is for")

    def draft(self) -> TokenDraft:
        return TokenDraft(
            name=self.name,
            owner=self.owner,
            catalog=self.catalog,
            kind=self.kind,
            scopes=tuple(
                ScopeDraft(scope.reach.kind, tuple(scope.permissions), tuple(scope.reach.nodes), scope.catalog)
                for scope in self.scopes
            ),
            legacy_scopes=tuple(self.legacy_scopes),
            expires_at=self.expires_at,
            not_before=self.not_before,
            reason=self.reason,
            networks=tuple(self.conditions.networks),
            resource_owner=self.resource_owner,
            evaluates=tuple(self.evaluates),
            parent=self.parent,
            may_rotate_self=self.may_rotate_self,
            template=self.template,
            nodes=tuple(self.nodes),
        )


class TokenListQuery(Query):
    """Which tokens, in which order."""

    owner: Annotated[PlainText | None, Field(max_length=255, description="a username, or `user:7` by external id")] = (
        None
    )
    node: Annotated[
        PlainText | None,
        Field(max_length=1100, description="a group, project or user: tokens that reach into it"),
    ] = None
    kind: TokenKind | None = None
    state: TokenState | None = None
    catalog: Annotated[PlainText | None, Field(max_length=64, description="a catalog's name, without a version")] = None
    permission: Annotated[
        PlainText | None, Field(max_length=129, description="tokens with a scope of exactly this name")
    ] = None
    parent: Annotated[PlainText | None, Field(max_length=64, description="tokens issued under this one")] = None
    search: Annotated[
        PlainText | None, Field(min_length=1, max_length=100, description="in name, id and owner, without case")
    ] = None
    sort: TokenSort = TokenSort.NEWEST
    limit: Limit = 50
    cursor: Cursor = None

    def query(self) -> TokenQuery:
        return TokenQuery(**dict(self))


class RevokeQuery(Query):
    """How long to wait."""

    wait: bool = Field(
        default=False, description="answer when no replica can allow by the token any more; takes seconds at most"
    )


class RevocationBody(Strict):
    """What may be said of a revocation."""

    reason: str = Field("", max_length=1000, description="why, for the token's owner, for admins and for the audit")


class ReachAnswer(BaseModel):
    """Where a scope applies. Nodes go by their paths of today; those gone or not to be seen are left out."""

    kind: ReachKind
    nodes: list[str] = Field(default_factory=list)


class ScopeAnswer(BaseModel):
    """Permissions, and where they apply."""

    catalog: str
    reach: ReachAnswer
    permissions: list[str]


class ConditionsAnswer(BaseModel):
    """What must hold at each use."""

    networks: list[str]


class CreatedBy(BaseModel):
    """Who issued the token: the token that asked for it, and that one's owner then."""

    token: str | None
    user: str | None


class StandingAnswer(BaseModel):
    """What a group has granted to a token, or what waits for the group: until then it is denied there."""

    group: str
    catalog: str
    state: Literal["pending", "active"]
    permissions: list[str] = Field(description="whatever is granted, or asked, anywhere in the group")
    request_id: int | None = Field(description="of what is pending, for `/v1/grant-requests/{id}`")


class TokenView(BaseModel):
    """A token, without its secret."""

    id: str
    name: str
    owner: str = Field(description="a username, or the API's own name where the catalog knows no directory")
    kind: TokenKind
    state: TokenState = Field(description="by its dates; the owner of an active token may still be blocked")
    catalogs: list[str] = Field(description="with their versions, as `gitlab@1`")
    scopes: list[ScopeAnswer]
    legacy_scopes: list[str]
    evaluates: list[str]
    resource_owner: str | None
    conditions: ConditionsAnswer
    created_at: MomentText
    not_before: MomentText | None
    expires_at: MomentText | None
    revoked_at: MomentText | None
    revoked_reason: str | None = Field(
        description="`revoked on request`, where the whole token is shown with `: ` and the reason that was given; "
        "or what else ended it"
    )
    last_used_at: MomentText | None
    reason: str
    parent: str | None = Field(description="the token that this one is a child of")
    may_rotate_self: bool
    created_by: CreatedBy
    replaced_by: str | None = Field(
        None, description="the token that a rotation put in its place; while active it still works beside that one"
    )
    imported_as: str | None = Field(None, description="what its secret begins with, where another system made it")
    etag: str | None = Field(None, description="for `If-Match` of an edit; null where only a part is shown")
    partial: bool = Field(description="only what lies inside groups that the caller manages is shown")
    unseen_nodes: int = Field(
        0, description="selected nodes, and a resource owner, that are gone or that the caller may not see: not named"
    )
    grants: list[str] = Field(description="groups whose approval the token has or waits for")
    approvals: list[StandingAnswer] = Field(
        default_factory=list, description="of each of these: what it has or waits for"
    )


class TokenPrivilege(BaseModel):
    """What a token holds beyond what it was used for in the last 30 days."""

    permissions: int = Field(description="how many it holds, those of `authz` not counted")
    unused: int = Field(description="how many of these nothing rested on")
    wide: bool = Field(description="some are unused, and the token has had a week; see its suggestion")


class ListedToken(TokenView):
    """A token in a list."""

    privilege: TokenPrivilege | None = Field(
        description="null for coarse tokens, and where only a part of the token is shown"
    )


class TokenAnswer(TokenView):
    """A token, at a revision."""

    revision: Revision


class IssuedToken(TokenAnswer):
    """A new token."""

    secret: str | None = Field(description="shown this once; null when the answer is given again")


class TokenPage(Page):
    """Tokens."""

    items: list[ListedToken]
