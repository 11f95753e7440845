"""Policies: what an organisation lets tokens be, and how the policies on the way down to a place add up (P1 to P3)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from authz_service.directory.model import NodeId
from authz_service.tokens.model import Token, TokenKind

MANAGEMENT: Final = "authz"
EVALUATE: Final = "decision:evaluate"

ALWAYS: Final = datetime.min.replace(tzinfo=UTC)
"""As `forbidden_from`: a plain `forbid`, stricter than any date."""


@dataclass(frozen=True, slots=True)
class KindRule:
    """Whether tokens of one kind work. `forbidden_from` None allows them, ALWAYS forbids, a date forbids from then on.

    Without `include_service_accounts` a forbidding rule on legacy tokens says nothing of those that service accounts
    own; fine-grained rules speak of everybody.
    """

    forbidden_from: datetime | None
    force: bool = False
    include_service_accounts: bool = False

    @property
    def final(self) -> bool:
        return self.force and self.forbidden_from is None


@dataclass(frozen=True, slots=True)
class AutoApproval:
    """One rule that approves by itself: every condition that it names must hold (P2)."""

    only_reads: bool = False
    max_lifetime_days: int | None = None
    max_nodes: int | None = None

    @property
    def conditions(self) -> int:
        """How many it names; a rule without any would approve everything."""
        return self.only_reads + (self.max_lifetime_days is not None) + (self.max_nodes is not None)


@dataclass(frozen=True, slots=True)
class ApprovalRule:
    """Whether fine-grained tokens need a group's approval. `auto_approve` None leaves it to the other policies."""

    required: bool
    force: bool = False
    auto_approve: tuple[AutoApproval, ...] | None = None


@dataclass(frozen=True, slots=True)
class LifetimeRule:
    """How long a secret may live, in whole days of 24 hours."""

    days: int
    force: bool = False
    exempt_admins: bool = False


@dataclass(frozen=True, slots=True)
class InactivityRule:
    """After how many days without a use a sweep revokes. Never judged at use."""

    days: int
    force: bool = False


@dataclass(frozen=True, slots=True)
class Policy:
    """What one place says of one catalog; None leaves a setting to the others. `since` is when it was last changed."""

    node: NodeId
    catalog: str
    kinds: Mapping[TokenKind, KindRule] = field(default_factory=dict)
    approval: ApprovalRule | None = None
    lifetimes: Mapping[TokenKind, LifetimeRule] = field(default_factory=dict)
    inactivity: InactivityRule | None = None
    since: datetime | None = None

    @property
    def empty(self) -> bool:
        """It says nothing at all."""
        return not self.kinds and self.approval is None and not self.lifetimes and self.inactivity is None


@dataclass(frozen=True, slots=True)
class Bearer:
    """What the rules ask of a token's owner. Owners without a directory are neither (C9)."""

    service_account: bool = False
    admin: bool = False


def kind_in_force(way: Iterable[Policy], kind: TokenKind, bearer: Bearer) -> tuple[datetime | None, Policy | None]:
    """From when on a kind of token is forbidden, and by which policy; `way` leads from the instance down.

    (None, None) where it is allowed.
    """
    strictest: datetime | None = None
    source: Policy | None = None
    for policy in way:
        rule = policy.kinds.get(kind)
        if rule is None or (
            kind is TokenKind.LEGACY
            and rule.forbidden_from is not None
            and bearer.service_account
            and not rule.include_service_accounts
        ):
            continue
        if rule.forbidden_from is not None and (strictest is None or rule.forbidden_from < strictest):
            strictest, source = rule.forbidden_from, policy
        if rule.final:
            break
    return strictest, source


def lifetime_in_force(way: Iterable[Policy], kind: TokenKind, bearer: Bearer) -> tuple[int | None, Policy | None]:
    """The most days that a secret may live, and by which policy; (None, None) without a limit."""
    fewest: int | None = None
    source: Policy | None = None
    for policy in way:
        rule = policy.lifetimes.get(kind)
        if rule is None or (rule.exempt_admins and bearer.admin):
            continue
        if fewest is None or rule.days < fewest:
            fewest, source = rule.days, policy
    return fewest, source


def inactivity_in_force(way: Iterable[Policy]) -> int | None:
    """The fewest days of `max_inactive_days`; None without a limit."""
    return min((policy.inactivity.days for policy in way if policy.inactivity is not None), default=None)


def approval_in_force(way: Sequence[tuple[NodeId, Policy | None]]) -> tuple[int | None, Policy | None]:
    """The position on the way down from which on approval is required, and the policy that first says so.

    `way` names every node from the instance down, with its policy or None. (None, None) where it is off.
    """
    for position, (_, policy) in enumerate(way):
        rule = None if policy is None else policy.approval
        if rule is not None and rule.required:
            return position, policy
        if rule is not None and rule.force:
            break
    return None, None


def outlives(token: Token, days: int) -> bool:
    """Whether this secret lives longer than so many days from its own creation; one that never ends does (P2)."""
    if token.expires_at is None or token.created_at is None:
        return True
    return token.expires_at - token.created_at > timedelta(days=days)


def set_aside(token: Token, catalog: str, *, admin: bool) -> bool:
    """Rule P3: nobody locks themselves out of management."""
    if catalog != MANAGEMENT:
        return False
    return admin or any(scope.catalog == MANAGEMENT and EVALUATE in scope.permissions for scope in token.scopes)
