"""Policies, requests and grants as cases write them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from typing import Any

from tests.support.cases import only_keys

from authz_service.directory.model import NodeId
from authz_service.tokens.grants import Grant, GrantRequest, GrantState, Pair, RequestState
from authz_service.tokens.model import TokenId, TokenKind
from authz_service.tokens.policy import ALWAYS, ApprovalRule, KindRule, LifetimeRule, Policy

_CLOSED = {
    "denied": RequestState.DENIED,
    "approved": RequestState.APPROVED,
    "cancelled": RequestState.CANCELLED,
    "pending": RequestState.PENDING,
}


def policy_of(written: Mapping[str, Any], catalog: str, node: NodeId) -> Policy:
    only_keys("policy", written, "at", "catalog", "fine_grained", "legacy", "approval", "max_lifetime_days")
    kinds = {kind: _kind(written[kind.value]) for kind in TokenKind if kind.value in written}
    limits = written.get("max_lifetime_days") or {}
    lifetimes = {
        kind: LifetimeRule(
            limits[kind.value]["value"],
            limits[kind.value].get("force", False),
            limits[kind.value].get("exempt_admins", False),
        )
        for kind in TokenKind
        if kind.value in limits
    }
    approval = written.get("approval")
    rule = None if approval is None else ApprovalRule(approval["value"] == "required", approval.get("force", False))
    return Policy(node, catalog, kinds, rule, lifetimes)


def _kind(written: Mapping[str, Any]) -> KindRule:
    only_keys("rule", written, "value", "force", "include_service_accounts")
    value = written["value"]
    moment = {"allow": None, "forbid": ALWAYS}.get(value, value) if isinstance(value, str) else value
    if isinstance(moment, str):
        moment = date.fromisoformat(moment)
    if isinstance(moment, date) and not isinstance(moment, datetime):
        moment = datetime.combine(moment, time(), UTC)
    return KindRule(moment, written.get("force", False), written.get("include_service_accounts", False))


@dataclass
class CaseApprovals:
    """What happened to tokens, in the order in which the cases tell it."""

    requests: list[GrantRequest] = field(default_factory=list)
    grants: list[Grant] = field(default_factory=list)
    number: int = 0

    def add(self, token: TokenId, catalog: str, written: Mapping[str, Any], find: Callable[[str], NodeId]) -> None:
        """`{at: acme, active: [issue:read on acme/web]}`: one of active, revoked, pending, denied, cancelled, approved.

        A pair that names no place is on the group. `approved` says what was given `of` what was asked.
        """
        only_keys("approval", written, "at", "catalog", "active", "revoked", *_CLOSED, "of")
        self.number += 1
        group = find(written["at"])

        def pairs(texts: Sequence[str]) -> frozenset[Pair]:
            split = [text.partition(" on ") for text in texts]
            return frozenset((name, find(place) if place else group) for name, _, place in split)

        for how, state in (("active", GrantState.ACTIVE), ("revoked", GrantState.REVOKED)):
            if how in written:
                closed = None if state is GrantState.ACTIVE else self.number
                self.grants.append(Grant(self.number, token, catalog, group, state, pairs(written[how]), closed))
        for how, ended in _CLOSED.items():
            if how in written:
                named = pairs(written[how])
                closed = None if ended is RequestState.PENDING else self.number
                asked, given = named, frozenset[Pair]()
                if ended is RequestState.APPROVED:
                    asked, given = pairs(written["of"]), named
                self.requests.append(GrantRequest(self.number, token, catalog, group, ended, asked, given, closed))
