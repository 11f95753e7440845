"""Policies in requests and answers, as OpenAPI shows them."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from authz_service.api.admin.shapes import MomentText, PlainText, Query, Revision, Strict
from authz_service.api.wire import OURS
from authz_service.directory.model import INSTANCE_ID
from authz_service.tokens.model import TokenKind
from authz_service.tokens.policy import (
    ALWAYS,
    ApprovalRule,
    AutoApproval,
    InactivityRule,
    KindRule,
    LifetimeRule,
    Policy,
)

_FORCE = "`true`: no policy below may say otherwise, or on a date or a limit anything looser"


def _day(value: Any) -> date:
    if isinstance(value, str):
        try:
            return date.fromisoformat(value)
        except ValueError:
            pass
    raise PydanticCustomError(f"{OURS}invalid_date", "write a day, as `2027-01-31`")


Day = Annotated[date, PlainValidator(_day), WithJsonSchema({"type": "string", "format": "date"}, mode="validation")]


class FineGrainedBody(Strict):
    """Whether fine-grained tokens work."""

    value: Literal["allow", "forbid"]
    force: bool = Field(default=False, description=_FORCE)

    def rule(self) -> KindRule:
        return KindRule(None if self.value == "allow" else ALWAYS, self.force)


class LegacyBody(Strict):
    """Whether legacy tokens work. Say `value` or `forbidden_from`."""

    value: Literal["allow", "forbid"] | None = None
    forbidden_from: Day | None = Field(None, description="from 00:00 UTC of this day on they do not work")
    force: bool = Field(default=False, description=_FORCE)
    include_service_accounts: bool = Field(
        default=False, description="without it, legacy tokens of service accounts keep working"
    )

    def rule(self) -> KindRule:
        moment: datetime | None = None if self.value == "allow" else ALWAYS
        if self.forbidden_from is not None:
            moment = datetime.combine(self.forbidden_from, time(), UTC)
        return KindRule(moment, self.force, self.include_service_accounts)


class AutoApproveBody(Strict):
    """A rule that approves by itself what a person asks for. All that it names must hold; it names something."""

    only_reads: bool = Field(default=False, description="no permission that changes anything")
    max_lifetime_days: int | None = Field(None, description="the token lives no longer")
    max_nodes: int | None = Field(None, description="so many places at most, and not the whole group")


class ApprovalBody(Strict):
    """Whether fine-grained tokens need the approval of the topmost group that requires it."""

    value: Literal["required", "off"]
    force: bool = Field(default=False, description=_FORCE)
    auto_approve: list[AutoApproveBody] | None = Field(
        None,
        description="one rule has to match, here and in every other policy on the way up that has a list; without a "
        "list at the group that approves, or above it, nothing is approved by rule",
    )


class LifetimeBody(Strict):
    """How long a secret may live, from its own creation to its expiry; one without an expiry lives too long."""

    value: int = Field(description="days of 24 hours")
    force: bool = Field(default=False, description=_FORCE)
    exempt_admins: bool = Field(default=False, description="tokens that admins own may live longer")


class LifetimesBody(Strict):
    """By kind of token."""

    fine_grained: LifetimeBody | None = None
    legacy: LifetimeBody | None = None


class InactivityBody(Strict):
    """After how many days without a use tokens are revoked."""

    value: int = Field(description="days")
    force: bool = Field(default=False, description=_FORCE)


class PolicyBody(Strict):
    """What a place says of one catalog. What is left out is left to the other policies; nothing at all removes it."""

    catalog: str = Field(description="a catalog's name, without a version")
    fine_grained: FineGrainedBody | None = None
    legacy: LegacyBody | None = None
    approval: ApprovalBody | None = None
    max_lifetime_days: LifetimesBody | None = None
    max_inactive_days: InactivityBody | None = None

    def policy(self) -> Policy:
        kinds: dict[TokenKind, KindRule] = {}
        if self.fine_grained is not None:
            kinds[TokenKind.FINE_GRAINED] = self.fine_grained.rule()
        if self.legacy is not None:
            kinds[TokenKind.LEGACY] = self.legacy.rule()
        approval = None
        if self.approval is not None:
            rules = self.approval.auto_approve
            read = None if rules is None else tuple(AutoApproval(**dict(one)) for one in rules)
            approval = ApprovalRule(self.approval.value == "required", self.approval.force, read)
        given = self.max_lifetime_days or LifetimesBody()
        lifetimes = {
            kind: LifetimeRule(limit.value, limit.force, limit.exempt_admins)
            for kind, limit in ((TokenKind.FINE_GRAINED, given.fine_grained), (TokenKind.LEGACY, given.legacy))
            if limit is not None
        }
        idle = self.max_inactive_days
        inactivity = None if idle is None else InactivityRule(idle.value, idle.force)
        return Policy(INSTANCE_ID, self.catalog, kinds, approval, lifetimes, inactivity)


class PolicyQuery(Query):
    """Where, and of which catalog."""

    node: Annotated[PlainText, Field(min_length=1, max_length=1100, description="`group:acme`, or `instance`")]
    catalog: Annotated[
        PlainText | None, Field(max_length=64, description="a catalog's name; without it all that have a policy there")
    ] = None


class PolicySetQuery(Query):
    """Where, and how."""

    node: Annotated[PlainText, Field(min_length=1, max_length=1100, description="`group:acme`, or `instance`")]
    dry_run: bool = Field(
        default=False, description="change nothing; tell which live tokens would be stopped or let through"
    )
    grandfather: bool = Field(
        default=True,
        description="where approval is switched on: live tokens keep what they hold there, as grants of their own",
    )
    allow_loosening: bool = Field(
        default=True,
        description="`false`: refuse a policy that says anything less strictly than the place says it now "
        "(`policy_loosens`), as one that leaves a setting out",
    )
    wait: bool = Field(default=False, description="answer when every replica decides by it; takes seconds at most")


class InForce(BaseModel):
    """One setting as it counts at the place; `by` is the place whose policy says so."""

    value: str | int | None
    by: str | None


class PolicyView(BaseModel):
    """Of one catalog."""

    catalog: str
    etag: str = Field(description="send it as `If-Match` to change what you read and nothing else")
    said: dict[str, Any] | None = Field(description="what the place says itself, in the shape in which it is set")
    changed_at: MomentText | None
    changed_by: str | None
    in_force: dict[str, InForce] = Field(
        description="`fine_grained`, `legacy`, `approval`, `max_lifetime_days.…`, `max_inactive_days`; for people who "
        "are no admins"
    )


class PolicyAnswer(BaseModel):
    """The policies of a place."""

    node: str
    policies: list[PolicyView]
    revision: Revision


class TurnedToken(BaseModel):
    """A live token that a policy would stop at some place, or let through; and why it is refused, then or now."""

    id: str
    name: str
    owner: str
    kind: TokenKind
    reason: str
    node: str


class LooserSetting(BaseModel):
    """What a place would say less strictly; null where it says nothing."""

    setting: str = Field(description="as in `in_force`")
    before: Any
    after: Any


class PolicySetAnswer(BaseModel):
    """What a policy is now; of a dry run, what it would do."""

    node: str | None = None
    policies: list[PolicyView] | None = None
    revision: Revision | None = None
    grants_carried_over: int = Field(description="grants that live tokens got, or would get, over what they hold there")
    looser: list[LooserSetting] = Field(description="what the place said more strictly before, or does still")
    would_stop: list[TurnedToken] | None = Field(None, description="of a dry run alone; the first 1,000")
    would_stop_count: int | None = None
    would_start: list[TurnedToken] | None = Field(
        None, description="of a dry run alone: refused now and not then; the first 1,000"
    )
    would_start_count: int | None = None
