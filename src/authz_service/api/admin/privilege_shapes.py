"""Least privilege in requests and answers, as OpenAPI shows it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from authz_service.admin.searching import EffectiveQuery, HolderQuery
from authz_service.admin.simulating import MOST_CALLS, Simulation
from authz_service.admin.simulating_changes import Change
from authz_service.admin.usage import DAYS, UsageQuery
from authz_service.api.admin.shapes import Cursor, Limit, MomentText, Page, PlainText, Query, Revision, Strict
from authz_service.api.admin.token_shapes import ReachAnswer, TokenBody, TokenView
from authz_service.api.check.bodies import FixAnswer, MissingItem
from authz_service.directory.model import NodeKind
from authz_service.engine.model import PermissionRequest
from authz_service.errors import Fault, InvalidBodyError
from authz_service.pdp.routing import HttpCall

Days = Annotated[int, Field(ge=1, le=90, description="how many days back, today among them")]
_CatalogName = Annotated[PlainText | None, Field(max_length=64)]
_Target = Annotated[PlainText | None, Field(max_length=1100)]


class EffectiveListQuery(Query):
    """With `target`: what is allowed there. With `permission`: where it is. With neither: everything."""

    catalog: Annotated[_CatalogName, Field(description="may be left out where the token is for one alone")] = None
    target: Annotated[_Target, Field(description="a place: `acme/web`, `project:42`, `user:dana`, `instance`")] = None
    permission: Annotated[PlainText | None, Field(max_length=129, description="as `job:read`")] = None
    kind: Annotated[NodeKind | None, Field(description="only places of this kind")] = None
    public: Annotated[bool, Field(description="false leaves out what is allowed only because anyone may read it")] = (
        True
    )
    limit: Limit = 50
    cursor: Cursor = None

    def query(self) -> EffectiveQuery:
        return EffectiveQuery(**dict(self))


class EffectivePermission(BaseModel):
    permission: str
    reason: str = Field(description="`granted`, or `granted_public_read` where anyone may")


class EffectivePlace(BaseModel):
    """A place and what a check there allows."""

    target: str
    boundary: NodeKind
    below: bool = Field(description="of an API without a directory: everything under the place counts too")
    permissions: list[EffectivePermission]


class EffectivePage(Page):
    """A page may be shorter than asked for; only the one without `next_cursor` is the last."""

    token_id: str
    catalog: str
    items: list[EffectivePlace]


class HolderListQuery(Query):
    """Tokens that may do this there."""

    catalog: PlainText = Field(max_length=64, description="a catalog's name")
    permission: PlainText = Field(max_length=129, description="as `job:run`")
    target: PlainText = Field(max_length=1100, description="a place")
    limit: Limit = 50
    cursor: Cursor = None

    def query(self) -> HolderQuery:
        return HolderQuery(**dict(self))


class HolderPage(Page):
    """Tokens. A page may be shorter than asked for; only the one without `next_cursor` is the last."""

    items: list[TokenView]


class UsageListQuery(Query):
    days: Days = DAYS
    limit: Annotated[int, Field(ge=1, le=1000, description="how many at most")] = 100
    cursor: Cursor = None

    def query(self) -> UsageQuery:
        return UsageQuery(**dict(self))


class DaysQuery(Query):
    days: Days = DAYS


class ApplyQuery(DaysQuery):
    wait: bool = Field(default=False, description="answer when no replica can allow by what was taken away any more")


class SeenSpan(BaseModel):
    """How much of the use is known: days with any, and calls."""

    days: int
    calls: int
    first_day: str | None = None
    last_at: MomentText | None = None


class UsedItem(BaseModel):
    """`target` is `anywhere` for calls that named no place, `*` where there are more places than are kept."""

    catalog: str
    permission: str
    target: str
    calls: int
    days: int = Field(description="on how many days")
    last_at: MomentText


class UsedNetwork(BaseModel):
    """Where calls came from: 256 addresses, or a site's of IPv6."""

    network: str
    calls: int
    first_at: MomentText
    last_at: MomentText


class UsagePage(Page):
    token_id: str
    days: int
    seen: SeenSpan
    items: list[UsedItem]
    networks: list[UsedNetwork] = Field(description="the latest 50")


class SuggestedScope(BaseModel):
    catalog: str | None = None
    reach: ReachAnswer
    permissions: list[str]


class SuggestedToken(BaseModel):
    """What `POST /v1/tokens` takes as it is; give it a better name."""

    name: str
    owner: str
    catalog: str | None = None
    scopes: list[SuggestedScope]
    evaluates: list[str] | None = None
    resource_owner: str | None = None


class TokenSuggestion(BaseModel):
    """The smallest token for what this one was used for."""

    token_id: str
    days: int
    seen: SeenSpan
    token: SuggestedToken
    unused_permissions: list[str] = Field(description="of the token's own, those that nothing rested on")
    narrower: bool = Field(description="whether it differs from what the token holds")
    applicable: bool = Field(description="whether `…/suggestion/apply` would narrow the token to it")
    etag: str
    revision: Revision


class SimulatedCall(Strict):
    """A request of the API (`method`, `path`), or a bare permission (`resource`, `action`)."""

    method: str | None = Field(None, max_length=32)
    path: str | None = Field(None, max_length=8192, description="as clients send it, with the API's base path")
    resource: str | None = Field(None, min_length=1, max_length=64)
    action: str | None = Field(None, min_length=1, max_length=64)
    target: str | None = Field(None, max_length=1100, description="where, as a check takes it")

    def read(self, where: str, faults: list[Fault]) -> PermissionRequest | HttpCall | None:
        bare = (self.resource, self.action)
        http = (self.method, self.path)
        if None not in bare and http == (None, None):
            return PermissionRequest(f"{self.resource}:{self.action}", self.target)
        if self.method is not None and self.path is not None and bare == (None, None):
            return HttpCall(self.method, self.path, self.target)
        message = "write `method` and `path`, or `resource` and `action`"
        faults.append(Fault(where, "missing_field", message))
        return None


class SimulationBody(Strict):
    """Calls, and of what they are asked: a token, a draft of one, or the owner of one to be made."""

    catalog: str = Field(max_length=64, description="a catalog's name, or a version of it")
    calls: list[SimulatedCall] = Field(min_length=1, max_length=MOST_CALLS)
    owner: str | None = Field(None, max_length=255, description="whose token it would be; without it the caller's own")
    token_id: str | None = Field(None, max_length=64, description="a token that there is")
    token: TokenBody | None = Field(None, description="a token as `POST /v1/tokens` would make it")
    client_address: str | None = Field(None, max_length=64, description="where the calls would come from")

    def simulation(self) -> Simulation:
        """Raises InvalidBodyError with every fault."""
        faults: list[Fault] = []
        given = [name for name in ("token_id", "token", "owner") if getattr(self, name) is not None]
        if len(given) > 1:
            listed = " and ".join(f"`{name}`" for name in given)
            faults.append(Fault(f"/{given[1]}", "contradiction", f"{listed} say two things; keep one"))
        calls = [call.read(f"/calls/{position}", faults) for position, call in enumerate(self.calls)]
        if faults:
            raise InvalidBodyError("the body has a fault", faults=faults)
        return Simulation(
            self.catalog,
            [call for call in calls if call is not None],
            self.owner,
            self.token_id,
            None if self.token is None else self.token.draft(),
            self.client_address,
        )


class SimulatedDecision(BaseModel):
    """What a call would be answered, as the token's owner may know it."""

    decision: Literal["allow", "deny"]
    reason: str
    message: str
    missing: list[MissingItem] | None = None
    fixes: list[FixAnswer] | None = Field(None, description="of the first 20 denials: the smallest changes")


class CallSuggestion(BaseModel):
    """The smallest token for the calls.

    `size` counts permissions at places, implied ones too. Where the search was cut (`exact` false), no token for these
    calls has a smaller one than `at_least`.
    """

    token: SuggestedToken
    exact: bool
    size: int
    at_least: int
    left_out: list[int] = Field(
        description="positions of the calls that stay denied whatever this owner's token holds: it is given nothing for"
        " them, and their decisions are those of a token that was"
    )
    decisions: list[SimulatedDecision] = Field(description="of each call, with the suggested token")


class SimulationAnswer(BaseModel):
    catalog: str
    owner: str
    decisions: list[SimulatedDecision] | None = Field(None, description="absent where no token was asked about")
    suggestion: CallSuggestion
    revision: Revision


class ChangeBody(Strict):
    """Exactly one change: a `permission` that goes, a membership (`user`, `node`, `role`), or a `version`."""

    catalog: str = Field(max_length=64, description="a catalog's name")
    permission: str | None = Field(None, max_length=129, description="as if no token held it")
    user: str | None = Field(None, max_length=255)
    node: str | None = Field(None, max_length=1100, description="a group or project")
    role: str | None = Field(None, max_length=100, description="null takes the membership away")
    version: int | None = Field(None, ge=1, le=999_999_999, description="as if all tokens were for this version")
    days: int = Field(DAYS, ge=1, le=90, description="uses of how many days back")
    limit: int = Field(50, ge=1, le=200, description="how many uses at most")
    cursor: str | None = Field(None, min_length=1, max_length=1024)

    def change(self) -> Change:
        """Raises InvalidBodyError unless it is one change, whole."""
        member = self.user is not None or self.node is not None
        kinds = [self.permission is not None, member, self.version is not None]
        if sum(kinds) != 1 or (member and (self.user is None or self.node is None)) or (self.role and not member):
            message = "write `permission`, or `user` and `node` with a `role` or null, or `version`"
            raise InvalidBodyError("the body has a fault", faults=[Fault("", "contradiction", message)])
        values: dict[str, Any] = dict(self)
        return Change(**values)


class BrokenUse(BaseModel):
    """A recent use that would be denied, and why."""

    permission: str
    target: str
    calls: int
    last_at: MomentText
    reason: str


class BrokenToken(BaseModel):
    token_id: str
    name: str
    owner: str
    uses: list[BrokenUse]


class ChangePage(Page):
    """A page may be shorter than asked for, and a token may come on two; without `next_cursor` it is the last."""

    items: list[BrokenToken]
    days: int
    judged: int = Field(description="uses that were decided both ways for this page")
    unjudged: int = Field(description="uses whose place is not known one by one, or that are not allowed now")
