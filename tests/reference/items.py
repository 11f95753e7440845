"""One item of a requirement: where its target is, and how far it gets there (A2 to A4, A7, C3)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tests.reference import people, places
from tests.reference.attributes import Facts
from tests.reference.holding import COVERED_BY_NODES, Holding
from tests.reference.places import Place
from tests.reference.rows import Rows
from tests.reference.rulings import Rulings

from authz_service.catalog.model import (
    NO_ROLE_NEEDED,
    Catalog,
    Item,
    Operation,
    ParameterKind,
    Permission,
    Target,
    TargetKind,
)
from authz_service.directory.model import NodeKind
from authz_service.engine.model import Missing, OperationRequest, Reason, Request
from authz_service.tokens.model import Token, TokenKind

A2, A3, A4, A5, PASSED = 2, 3, 4, 5, 9
"""How far a set got (A9)."""

ORDER = list(Reason)


@dataclass(frozen=True)
class Outcome:
    """How an item or a set fared. `exceptional`: it passed by a public exception alone (A7)."""

    stage: int
    reason: Reason
    exceptional: bool = False
    missing: tuple[Missing, ...] = ()
    hide: bool = False


@dataclass(frozen=True)
class Items:
    """Items, as one token, one question and one trial of absent attributes find them."""

    rows: Rows
    token: Token
    catalog: Catalog
    request: Request
    facts: Facts

    @property
    def holding(self) -> Holding:
        return Holding(self.rows, self.token, self.catalog, self.facts)

    @property
    def rulings(self) -> Rulings:
        return Rulings(self.rows, self.token, self.catalog, self.request.now)

    def counting_holders(self, permission: Permission, boundary: NodeKind, place: Place) -> list[Permission]:
        """What confers the permission there, with every `when` of the two met (C2, C5)."""
        if not self.facts.matches(permission.when, place):
            return []
        return [
            holder for holder in self.holding.conferring(permission, boundary) if self.facts.matches(holder.when, place)
        ]

    def locate(self, item: Item) -> tuple[Reason | None, Place | None]:
        """A2 for one item: the code where it fails, and the place its target names (P itself for `below P`)."""
        permission = self.permission_of(item)
        reason, place = self.find(item.target)
        if reason is not None:
            return reason, place
        if item.target.kind in (TargetKind.BELOW, TargetKind.ANYWHERE):
            exists = item.boundary in permission.boundaries
            return (None if exists else Reason.BOUNDARY_MISMATCH), place
        assert place is not None
        if place.kind not in permission.boundaries:
            return (None if self.stands_for_projects(item, place) else Reason.BOUNDARY_MISMATCH), place
        if place.kind is not item.boundary:
            return Reason.TARGET_UNKNOWN, place
        return None, place

    def find(self, target: Target) -> tuple[Reason | None, Place | None]:
        """C3: the place a target names. `anywhere` names none and does not fail."""
        place: Place | None = None
        if target.kind is TargetKind.ANYWHERE:
            return None, None
        if target.kind is TargetKind.INSTANCE:
            place = places.instance_place(self.rows, self.catalog)
        elif (target.kind is TargetKind.SELF and target.owner_is is None) or (
            target.kind is TargetKind.BELOW and not target.parameters
        ):
            place = places.owner_place(self.rows, self.catalog, self.token.owner)
        elif target.kind is TargetKind.CALLER:
            assert isinstance(self.request.ask, OperationRequest)
            if self.request.ask.at is not None:
                return self.find(self.request.ask.at)
            if self.request.ask.target is None:
                return Reason.TARGET_REQUIRED, None
            place = places.written_place(self.rows, self.catalog, self.request.ask.target)
        else:
            assert isinstance(self.request.ask, OperationRequest)
            parameters = (
                target.parameters
                if target.owner_is is None or target.kind is not TargetKind.SELF
                else (target.owner_is,)
            )
            names = target.names if target.kind is not TargetKind.SELF else ParameterKind.USER
            assert names is not None
            if any(name not in self.request.ask.parameters for name in parameters):
                return Reason.TARGET_REQUIRED, None
            value = "/".join(self.request.ask.parameters[name] for name in parameters)
            place = places.parameter_place(self.rows, self.catalog, names, value)
        return (Reason.TARGET_UNKNOWN if place is None else None), place

    def stands_for_projects(self, item: Item, place: Place) -> bool:
        """C3: in a document, a group where a permission of projects alone is needed."""
        ask = self.request.ask
        return (
            isinstance(ask, OperationRequest)
            and ask.wide
            and place.kind is NodeKind.GROUP
            and item.boundary is NodeKind.PROJECT
            and NodeKind.GROUP not in self.permission_of(item).boundaries
        )

    def read_at(self, item: Item) -> Place | None:
        """The place that an item's target names, or all that lies in it where it stands for that."""
        place = self.find(item.target)[1]
        if place is not None and item.target.kind is not TargetKind.BELOW and self.stands_for_projects(item, place):
            return replace(place, whole=True)
        return place

    def text_of(self, item: Item) -> str:
        place = self.find(item.target)[1]
        return "anywhere" if place is None else place.text

    def try_item(self, operation: Operation, item: Item, set_role: str | None) -> Outcome:
        permission = self.permission_of(item)
        place = self.find(item.target)[1]
        if item.target.kind not in (TargetKind.BELOW, TargetKind.ANYWHERE):
            assert place is not None
            if self.stands_for_projects(item, place):
                return self.in_all(permission, item, set_role, operation)
            return self.at_place(permission, place, set_role, carried=operation, exceptions=True)
        if operation.mutates:
            if place is None:  # `anywhere` never serves a mutating operation
                return self.nowhere(permission, item.boundary, None, operation)
            reason = self.holding.given_below(permission, item.boundary, place, operation)
            if reason is not None:
                return Outcome(A3, reason)
        outcomes = [
            self.at_place(permission, candidate, set_role, carried=operation)
            for candidate in self.candidates(item, place)
        ]
        if not outcomes and operation.mutates and place is not None and item.boundary is NodeKind.PROJECT:
            return self.in_empty(permission, item.boundary, place, set_role, operation)
        if not outcomes:
            return self.nowhere(permission, item.boundary, place, operation)
        furthest = max(outcome.stage for outcome in outcomes)
        return min(
            (outcome for outcome in outcomes if outcome.stage == furthest),
            key=lambda outcome: ORDER.index(outcome.reason),
        )

    def in_all(self, permission: Permission, item: Item, set_role: str | None, carried: Operation) -> Outcome:
        """C3: a group that stands for the projects in it, which policies of the groups below speak of too (A5)."""
        group = self.read_at(item)
        assert group is not None
        outcome = self.at_place(permission, group, set_role, carried=carried, boundary=item.boundary)
        if outcome.stage != PASSED:
            return outcome
        holders = self.counting_holders(permission, item.boundary, group)
        faults = [self.rulings.fault(below, holders) for below in self.groups_below(group)]
        told = [fault for fault in faults if fault is not None]
        return Outcome(A5, min(told, key=ORDER.index)) if told else outcome

    def groups_below(self, top: Place) -> list[Place]:
        """Upstream those that a policy speaks of: others have none of their own to be judged by."""
        if not self.catalog.upstream:
            return places.places_under(self.rows, top, NodeKind.GROUP)
        named = [policy.node for policy in self.rows.policies if str(policy.node).startswith("group:")]
        found = [places.upstream_place(self.catalog, NodeKind.GROUP, str(node)[len("group:") :]) for node in named]
        return [place for place in found if top.id in place.chain]

    def in_empty(
        self, permission: Permission, boundary: NodeKind, top: Place, set_role: str | None, carried: Operation
    ) -> Outcome:
        """C3: nothing is there yet, so A4 and A5 are judged at the top; a user's namespace is nobody else's."""
        ruling = self.rulings.fault(top, self.counting_holders(permission, boundary, top))
        allowed = Outcome(PASSED, Reason.GRANTED) if ruling is None else Outcome(A5, ruling)
        if self.token.kind is TokenKind.LEGACY and self.holding.given(permission, boundary, top, carried)[1]:
            return allowed
        fault = self.owner_fault(permission, top, set_role, boundary)
        owner = self.token.owner
        foreign = top.kind is NodeKind.USER and not self.holding.is_own_account(top)
        if foreign and not self.catalog.upstream and not people.is_admin(self.rows, owner):
            fault = Reason.OWNER_NOT_MEMBER
        return allowed if fault is None else Outcome(A4, fault)

    def nowhere(
        self, permission: Permission, boundary: NodeKind, place: Place | None, carried: Operation | None
    ) -> Outcome:
        held = self.holding.is_held(permission, boundary, place, carried)
        return Outcome(A3, Reason.OUTSIDE_REACH if held else Reason.PERMISSION_MISSING)

    def candidates(self, item: Item, top: Place | None) -> list[Place]:
        """The places a `below` or `anywhere` item may hold at."""
        if item.target.kind not in (TargetKind.BELOW, TargetKind.ANYWHERE):
            return []
        if item.target.kind is TargetKind.BELOW and top is None:
            return []
        if self.catalog.upstream:
            spoken_of = [
                places.fold(self.catalog, str(node)) for scope in self.holding.scopes() for node in scope.reach.nodes
            ]
            return places.upstream_under(self.catalog, top, item.boundary, spoken_of, self.token.owner)
        if top is None:
            return places.places_anywhere(self.rows, self.catalog, item.boundary)
        return places.places_under(self.rows, top, item.boundary)

    def at_place(
        self,
        permission: Permission,
        place: Place,
        set_role: str | None,
        *,
        carried: Operation | None = None,
        exceptions: bool = False,
        boundary: NodeKind | None = None,
    ) -> Outcome:
        """A3 to A5 at one place, and the exception of an item (A7). A group with a `boundary` is all in it (C3)."""
        kind = boundary or place.kind
        reason, as_visitor = self.holding.given(permission, kind, place, carried, whole=boundary is not None)
        fault = None if reason is not None or as_visitor else self.owner_fault(permission, place, set_role, kind)
        ruling: Reason | None = None
        if reason is None and fault is None:
            ruling = self.rulings.fault(place, self.counting_holders(permission, kind, place))
            if ruling is None:
                return Outcome(PASSED, Reason.GRANTED)
        reads_public = permission.public_read and (permission.reviewed or not permission.mutates)
        if (
            exceptions
            and reads_public
            and people.is_public(self.rows, place)
            and self.facts.matches(permission.when, place)
            and not self.rulings.ends_public_reads(place)
        ):
            return Outcome(PASSED, Reason.GRANTED_PUBLIC_READ, exceptional=True)
        if reason is not None:
            return Outcome(A3, reason)
        if fault is not None:
            return Outcome(A4, fault)
        assert ruling is not None
        return Outcome(A5, ruling)

    # A4: the owner

    def owner_fault(
        self, permission: Permission | None, place: Place, set_role: str | None, boundary: NodeKind | None = None
    ) -> Reason | None:
        """`boundary` is the item's where it is not the place's own kind."""
        if self.catalog.upstream:
            return None
        owner = self.token.owner
        admin = people.is_admin(self.rows, owner)
        own_role = None if permission is None else permission.boundaries[boundary or place.kind]
        member = admin or people.is_member(self.rows, self.catalog, owner, place)
        if place.kind in COVERED_BY_NODES and not member:
            return Reason.OWNER_NOT_MEMBER
        if place.kind is NodeKind.INSTANCE and not admin and own_role != NO_ROLE_NEEDED:
            return Reason.OWNER_ROLE_TOO_LOW
        for role in (own_role, set_role):
            if not people.role_suffices(self.rows, self.catalog, owner, place, role):
                return Reason.OWNER_ROLE_TOO_LOW
        return None

    # Small words

    def permission_of(self, item: Item) -> Permission:
        permission = self.holding.permission(item.permission)
        assert permission is not None
        return permission

    def unseen(self, place: Place) -> bool:
        if self.catalog.upstream:
            return False
        return not people.sees(self.rows, self.catalog, self.token.owner, place)
