"""The reference's own reading of policies and grants: what an organisation says of a token (A5, P1 to P4)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from tests.reference import people, places
from tests.reference.places import Place
from tests.reference.rows import Rows

from authz_service.catalog.model import Catalog, Permission
from authz_service.directory.model import INSTANCE_ID, NodeId, NodeKind
from authz_service.engine.model import Reason
from authz_service.tokens.grants import GrantState, Pair, RequestState
from authz_service.tokens.model import Token, TokenKind
from authz_service.tokens.policy import KindRule, Policy


@dataclass(frozen=True)
class Rulings:
    """One token of the line, in one catalog, at one moment of the database's clock."""

    rows: Rows
    token: Token
    catalog: Catalog
    now: datetime

    def fault(self, place: Place, holders: list[Permission]) -> Reason | None:
        """A5 at a place, for a permission that these confer there."""
        if self.forbidden(place):
            return Reason.POLICY_FORBIDS_KIND
        if self.lives_too_long(place):
            return Reason.LIFETIME_EXCEEDS_POLICY
        group = self.approving_group(place)
        if group is None or self.token.kind is TokenKind.LEGACY or self.is_exempt():
            return None
        return self.ungranted(group, place, {permission.name for permission in holders})

    def fault_of_kind(self, place: Place) -> Reason | None:
        """A5 for what no permission stands for: kind and lifetime."""
        if self.forbidden(place):
            return Reason.POLICY_FORBIDS_KIND
        return Reason.LIFETIME_EXCEEDS_POLICY if self.lives_too_long(place) else None

    def ends_public_reads(self, place: Place) -> bool:
        """A8."""
        wanted = self.catalog.forbidding_legacy_ends_public_reads
        return wanted and self.token.kind is TokenKind.LEGACY and self.forbidden(place)

    def is_exempt(self) -> bool:
        """P3."""
        if self.catalog.name != "authz":
            return False
        if not self.catalog.upstream and people.is_admin(self.rows, self.token.owner):
            return True
        names = [name for scope in self.token.scopes if scope.catalog == "authz" for name in scope.permissions]
        return "decision:evaluate" in names

    def way_down(self, place: Place) -> list[NodeId]:
        """P1: from the instance down."""
        inner = [] if place.kind is NodeKind.INSTANCE else list(reversed(place.chain))
        return [INSTANCE_ID, *inner]

    def policy_at(self, node: NodeId) -> Policy | None:
        if self.is_exempt():
            return None
        for policy in self.rows.policies:
            stored: NodeId = policy.node
            if isinstance(stored, str):
                stored = places.fold(self.catalog, stored)
            if policy.catalog == self.catalog.name and stored == node and type(stored) is type(node):
                return policy
        return None

    def policies_down_to(self, place: Place) -> list[Policy]:
        found = [self.policy_at(node) for node in self.way_down(place)]
        return [policy for policy in found if policy is not None]

    def owner_is(self, what: str) -> bool:
        row = None if self.catalog.upstream else people.user_of(self.rows, self.token.owner)
        return row is not None and bool(getattr(row, what))

    def forbidden(self, place: Place) -> bool:
        counting: list[KindRule] = []
        for policy in self.policies_down_to(place):
            rule = policy.kinds.get(self.token.kind)
            if rule is None:
                continue
            spares = self.token.kind is TokenKind.LEGACY and not rule.include_service_accounts
            if rule.forbidden_from is not None and spares and self.owner_is("service_account"):
                continue
            counting.append(rule)
            if rule.force and rule.forbidden_from is None:
                break
        return any(rule.forbidden_from is not None and rule.forbidden_from <= self.now for rule in counting)

    def lives_too_long(self, place: Place) -> bool:
        for policy in self.policies_down_to(place):
            rule = policy.lifetimes.get(self.token.kind)
            if rule is None or (rule.exempt_admins and self.owner_is("admin")):
                continue
            if self.token.expires_at is None:
                return True
            assert self.token.created_at is not None
            if self.token.created_at + timedelta(hours=24 * rule.days) < self.token.expires_at:
                return True
        return False

    def approving_group(self, place: Place) -> NodeId | None:
        """The topmost group on the way down at which approval is required."""
        if place.kind not in (NodeKind.PROJECT, NodeKind.GROUP):
            return None
        required = ended = False
        for node in self.way_down(place):
            policy = self.policy_at(node)
            if policy is not None and policy.approval is not None and not ended:
                required = required or policy.approval.required
                ended = policy.approval.force
            if required and self.is_group(node):
                return node
        return None

    def is_group(self, node: NodeId) -> bool:
        if isinstance(node, str):
            return node.split(":")[0] == "group"
        row = places.node_of(self.rows, node)
        return row is not None and row.kind is NodeKind.GROUP

    def ungranted(self, group: NodeId, place: Place, holders: set[str]) -> Reason | None:
        """Why nothing that stands at the group covers one of these permissions at the place."""
        grants = [
            grant
            for grant in self.rows.grants
            if grant.token == self.token.id and grant.catalog == self.catalog.name and self.same(grant.group, group)
        ]
        requests = [
            request
            for request in self.rows.requests
            if request.token == self.token.id
            and request.catalog == self.catalog.name
            and self.same(request.group, group)
        ]
        for grant in grants:
            if grant.state is GrantState.ACTIVE and self.covers(grant.pairs, place, holders):
                return None
        for request in requests:
            if request.state is RequestState.PENDING and self.covers(request.asked, place, holders):
                return Reason.APPROVAL_PENDING
        closed: list[tuple[int, Reason]] = []
        for grant in grants:
            if grant.state is GrantState.REVOKED and self.covers(grant.pairs, place, holders):
                assert grant.closed_no is not None
                closed.append((grant.closed_no, Reason.APPROVAL_REVOKED))
        for request in requests:
            refused = frozenset(pair for pair in request.asked if pair not in request.given)
            ended = request.state in (RequestState.DENIED, RequestState.APPROVED)
            if ended and self.covers(refused, place, holders):
                assert request.closed_no is not None
                closed.append((request.closed_no, Reason.APPROVAL_DENIED))
        return max(closed)[1] if closed else Reason.APPROVAL_PENDING

    def same(self, stored: NodeId, node: NodeId) -> bool:
        if isinstance(stored, str):
            stored = places.fold(self.catalog, stored)
        return stored == node

    def covers(self, pairs: frozenset[Pair], place: Place, holders: set[str]) -> bool:
        return any(
            self.today(name) in holders and any(self.same(node, above) for above in place.chain) for name, node in pairs
        )

    def today(self, name: str) -> str:
        """By today's name, where the pair was stored under a former one (C8)."""
        known = {permission.name for permission in self.catalog.permissions}
        return name if name in known else self.catalog.aliases.get(name, name)
