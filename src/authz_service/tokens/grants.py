"""Grant requests and grants: what was asked of a group for a token, and what stands (rule P4)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from authz_service.directory.model import NodeId
from authz_service.tokens.model import TokenId

Pair: TypeAlias = tuple[str, NodeId]
"""A permission by name, and the node on which and below which it is asked or granted."""


class RequestState(StrEnum):
    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    CANCELLED = "cancelled"


class GrantState(StrEnum):
    ACTIVE = "active"
    REVOKED = "revoked"


class Origin(StrEnum):
    """How a grant came about; it stays what it was first, whatever is added."""

    REVIEW = "review"
    OWNER = "owner"
    RULE = "rule"
    GRANDFATHERED = "grandfathered"


@dataclass(frozen=True, slots=True)
class GrantRequest:
    """`given` is what an approval gave of `asked`. `closed_no` orders what was closed; None while it is pending."""

    id: int
    token: TokenId
    catalog: str
    group: NodeId
    state: RequestState
    asked: frozenset[Pair]
    given: frozenset[Pair] = frozenset()
    closed_no: int | None = None


@dataclass(frozen=True, slots=True)
class Grant:
    """`closed_no` is set when it is revoked, in one order with that of requests."""

    id: int
    token: TokenId
    catalog: str
    group: NodeId
    state: GrantState
    pairs: frozenset[Pair]
    closed_no: int | None = None


@dataclass(frozen=True, slots=True)
class Approvals:
    """Everything that was asked and given for one token, in whatever order."""

    requests: tuple[GrantRequest, ...] = ()
    grants: tuple[Grant, ...] = ()


NO_APPROVALS = Approvals()
