"""Grant requests and grants in requests and answers, as OpenAPI shows them."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from authz_service.admin.grants import ApprovalQuery, Review, Verdict
from authz_service.api.admin.shapes import Cursor, Limit, MomentText, Page, PlainText, Query, Revision, Strict
from authz_service.tokens.grants import GrantState, Origin, RequestState


class ReviewBody(Strict):
    """What a reviewer says of a request."""

    action: Verdict = Field(description="`approve`, `deny`, or `cancel` by whoever manages the token")
    reason: Annotated[str, Field(max_length=1000)] = Field("", description="for whoever asked")
    permissions: list[str] | None = Field(None, description="approve these of the asked permissions alone")
    nodes: list[str] | None = Field(None, description="approve on these places alone, each at or below an asked one")

    def review(self) -> Review:
        return Review(
            self.action,
            self.reason,
            None if self.permissions is None else tuple(self.permissions),
            None if self.nodes is None else tuple(self.nodes),
        )


class BulkReviewBody(Strict):
    """One word for many requests."""

    ids: list[int] = Field(description="1 to 100 requests")
    action: Verdict
    reason: Annotated[str, Field(max_length=1000)] = ""

    def review(self) -> Review:
        return Review(self.action, self.reason)


class AskBody(Strict):
    """Ask again for what a group has not granted."""

    node: str = Field(description="the group, or a place in it")
    catalog: str | None = Field(None, description="where the token is for several")
    reason: Annotated[str, Field(max_length=1000)] = ""


class RevokeBody(Strict):
    """Grants to end."""

    ids: list[int] = Field(description="1 to 100 grants")
    reason: Annotated[str, Field(max_length=1000)] = ""


class _ListQuery(Query):
    node: Annotated[
        PlainText | None,
        Field(max_length=1100, description="a group with all below it, or `instance`; without it everything"),
    ] = None
    token: Annotated[PlainText | None, Field(max_length=64, description="a token's id: whoever manages it may ask")] = (
        None
    )
    catalog: Annotated[PlainText | None, Field(max_length=64)] = None
    limit: Limit = 50
    cursor: Cursor = None


class RequestListQuery(_ListQuery):
    """Which requests, newest first."""

    state: RequestState | None = None

    def query(self) -> ApprovalQuery:
        return ApprovalQuery(**dict(self))


class GrantListQuery(_ListQuery):
    """Which grants, newest first."""

    state: GrantState | None = None

    def query(self) -> ApprovalQuery:
        return ApprovalQuery(**dict(self))


class WaitQuery(Query):
    """How long to wait."""

    wait: bool = Field(default=False, description="answer when every replica decides by it; takes seconds at most")


class ByAnswer(BaseModel):
    """Who did it; both null for the service itself."""

    token: str | None
    user: str | None


class TokenBrief(BaseModel):
    """The token, as a group's owners may know it."""

    id: str
    name: str
    owner: str
    expires_at: MomentText | None
    revoked: bool


class PlacePermissions(BaseModel):
    """Permissions on a place and all below it."""

    node: str
    permissions: list[str]


class RequestView(BaseModel):
    """What was asked of a group for a token."""

    id: int
    state: RequestState
    catalog: str
    node: str = Field(description="the group")
    token: TokenBrief
    asked: list[PlacePermissions]
    given: list[PlacePermissions]
    reason: str
    asked_at: MomentText
    asked_by: ByAnswer
    closed_at: MomentText | None
    closed_by: ByAnswer
    closed_reason: str | None
    superseded_by: int | None = Field(description="the newer request that took its place")


class RequestAnswer(RequestView):
    """A request, at a revision."""

    still_granted: list[PlacePermissions] = Field(
        description="what was not given now and stands all the same, by the token's active grant there: revoke that "
        "to end it"
    )
    revision: Revision


class RequestPage(Page):
    """Requests, newest first."""

    items: list[RequestView]


class GrantView(BaseModel):
    """What a group granted to a token."""

    id: int
    state: GrantState
    catalog: str
    node: str = Field(description="the group")
    token: TokenBrief
    granted: list[PlacePermissions]
    origin: Origin = Field(description="by a review, by an owner for themselves, by a rule, or carried over")
    granted_at: MomentText
    granted_by: ByAnswer
    revoked_at: MomentText | None
    revoked_by: ByAnswer
    revoked_reason: str | None


class GrantAnswer(GrantView):
    """A grant, at a revision."""

    revision: Revision


class GrantPage(Page):
    """Grants, newest first."""

    items: list[GrantView]


class BulkProblem(BaseModel):
    """Why one of many was left as it was."""

    code: str
    detail: str
    faults: list[dict[str, str]]


class RequestResult(BaseModel):
    """What became of one of many requests."""

    id: int
    done: RequestAnswer | None
    problem: BulkProblem | None


class GrantResult(BaseModel):
    """What became of one of many grants."""

    id: int
    done: GrantAnswer | None
    problem: BulkProblem | None


class RequestResults(BaseModel):
    """Each by itself, in the order asked."""

    results: list[RequestResult]


class GrantResults(BaseModel):
    """Each by itself, in the order asked."""

    results: list[GrantResult]
