"""Rules A3 to A8 for one item of a requirement: held, in reach, owner fit, or readable by anyone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from authz_service.catalog.model import NO_ROLE_NEEDED, Item, Operation, TargetKind
from authz_service.compiler.lookup import LegacyHoldings
from authz_service.directory.model import NodeKind, Visibility
from authz_service.engine.attributes import Assumption, Reader, matches
from authz_service.engine.case import Case
from authz_service.engine.model import REASON_ORDER, Missing, PolicyNote, Reason
from authz_service.engine.places import PLACE_KINDS, Place
from authz_service.engine.policies import Objection, ends_public_reads, objection_at, ruled_below
from authz_service.engine.reach import held_anywhere, held_at, held_in_namespace

STAGE_QUESTION: Final = 2
STAGE_GIVEN: Final = 3
STAGE_OWNER: Final = 4
STAGE_POLICY: Final = 5
PASSED: Final = 6
"""How far an item or set got: the number of the rule that failed, or beyond the last."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How far one item got. `reason` is `granted` or `granted_public_read` when it passed."""

    stage: int
    reason: Reason
    target: str
    missing: Missing | None = None
    policy: PolicyNote | None = None


@dataclass(frozen=True, slots=True)
class ItemJudge:
    """Judges items of one operation (None for a bare check) under one assumption about absent attributes."""

    case: Case
    operation: Operation | None
    assumption: Assumption

    def reader(self, place: Place | None) -> Reader:
        case = self.case
        return self.assumption.over(lambda name: case.attribute(name, place))

    def judge(self, item: Item, place: Place | None, min_role: str | None) -> Verdict:
        """At its place; for `below` and `anywhere` at the best of the places that count.

        `place` is then the top, or None for `anywhere`. `min_role` is the requirement set's own (C6).
        """
        if item.target.kind in (TargetKind.BELOW, TargetKind.ANYWHERE) or place is None:
            return self._judge_some(item, place, min_role)
        return self._judge_at(item, place, min_role)

    def _judge_some(self, item: Item, top: Place | None, min_role: str | None) -> Verdict:
        text = "anywhere" if top is None else top.text
        if self._mutates and (top is None or not self._covers(item, top)):
            return self._not_given(item, top, text)
        found: list[Verdict] = []
        for candidate in self.case.places.below(top, item.boundary):
            verdict = self._judge_held(item, candidate, min_role)
            if verdict.stage == PASSED:
                return Verdict(PASSED, Reason.GRANTED, text)
            found.append(verdict)
        if not found and self._mutates and top is not None and item.boundary is NodeKind.PROJECT:
            return self._judge_empty(item, top, min_role)
        if not found:
            return self._not_given(item, top, text)
        stage = max(verdict.stage for verdict in found)
        reason = earliest([verdict.reason for verdict in found if verdict.stage == stage])
        missing = Missing(item.permission, item.boundary, text) if stage == STAGE_GIVEN else None
        policy = next(verdict.policy for verdict in found if (verdict.stage, verdict.reason) == (stage, reason))
        return Verdict(stage, reason, text, missing, policy)

    @property
    def _mutates(self) -> bool:
        return self.operation is not None and self.operation.mutates

    def _judge_at(self, item: Item, place: Place, min_role: str | None) -> Verdict:
        verdict = self._judge_held(item, place, min_role)
        if verdict.stage == PASSED or not place.public or place.whole:
            return verdict
        permission = self.case.catalog.by_name[item.permission]
        if (
            permission.reads_public
            and matches(permission.when, self.reader(place))
            and not ends_public_reads(self.case, place)
        ):
            return Verdict(PASSED, Reason.GRANTED_PUBLIC_READ, place.text)
        return verdict

    def _judge_held(self, item: Item, place: Place, min_role: str | None) -> Verdict:
        if not self._holds(item, place):
            return self._not_given(item, place, place.text)
        return self._judge_owner(item, place, min_role)

    def _judge_owner(self, item: Item, place: Place, min_role: str | None) -> Verdict:
        """Rules A4 and A5 for the item at the place."""
        if self.case.legacy and self._visits(item, place):
            return self._judge_policy(item, place)
        needed = [self.case.catalog.by_name[item.permission].boundaries[item.boundary]]
        if min_role is not None:
            needed.append(min_role)
        for role in needed:
            failure = owner_failure(self.case, place, role)
            if failure is not None:
                return Verdict(STAGE_OWNER, failure, place.text)
        return self._judge_policy(item, place)

    def _judge_policy(self, item: Item, place: Place) -> Verdict:
        """Rule A5 for the item at the place."""
        if self.case.policies:
            objection = objection_at(self.case, place, self._conferring(item, place))
            if objection is None and place.whole:
                objection = self._objection_below(item, place)
            if objection is not None:
                return Verdict(STAGE_POLICY, objection.reason, place.text, policy=objection.note)
        return Verdict(PASSED, Reason.GRANTED, place.text)

    def _objection_below(self, item: Item, place: Place) -> Objection | None:
        """Rule A5 at the groups in a group that stands for its projects: the earliest of what they object (C3)."""
        conferring = self._conferring(item, place)
        found = [objection_at(self.case, below, conferring) for below in ruled_below(self.case, place)]
        told = [objection for objection in found if objection is not None]
        return min(told, key=lambda objection: REASON_ORDER[objection.reason]) if told else None

    def _judge_empty(self, item: Item, top: Place, min_role: str | None) -> Verdict:
        """A4 and A5 where a mutating `below` finds nothing yet: at the top, which may be a user's namespace (C3)."""
        case = self.case
        anybody = case.catalog.upstream or (case.owner is not None and case.owner.admin)
        if top.kind is NodeKind.USER and top.id != case.own_id and not anybody:
            return Verdict(STAGE_OWNER, Reason.OWNER_NOT_MEMBER, top.text)
        return self._judge_owner(item, top, min_role)

    def _not_given(self, item: Item, place: Place | None, text: str) -> Verdict:
        conferring = self._conferring(item, place)
        carried = self._is_carried(self.case.lookup.legacy_public)
        held = (carried and bool(conferring)) or held_anywhere(self.case.lookup, conferring)
        reason = Reason.OUTSIDE_REACH if held else Reason.PERMISSION_MISSING
        return Verdict(STAGE_GIVEN, reason, text, Missing(item.permission, item.boundary, text))

    def _conferring(self, item: Item, place: Place | None) -> int:
        """The mask of permissions that confer the item's at its boundary, those with an unmatched `when` left out."""
        catalog = self.case.catalog
        number = catalog.by_name[item.permission].number
        conferring = catalog.holders[item.boundary][number]
        if conferring & catalog.conditional:
            read = self.reader(place)
            for permission in catalog.permissions:
                if permission.when and not matches(permission.when, read):
                    if permission.number == number:
                        return 0
                    conferring &= ~(1 << permission.number)
        return conferring

    def _is_carried(self, legacy: LegacyHoldings | None) -> bool:
        """Whether a legacy token carries the operation as a whole (C7)."""
        return legacy is not None and self.operation is not None and self.operation.id in legacy.operations

    def _covers(self, item: Item, top: Place) -> bool:
        """Rule A3 at the top of a mutating `below`; a user is the namespace there, not the account (C3)."""
        case = self.case
        if top.kind is not NodeKind.USER or item.boundary is not NodeKind.PROJECT or case.legacy:
            return self._holds(item, top)
        held = held_in_namespace(case.lookup, case.token, case.catalog, top)
        return bool(held & self._conferring(item, top))

    def _holds(self, item: Item, place: Place) -> bool:
        """Rule A3 at one place."""
        case = self.case
        conferring = self._conferring(item, place)
        legacy = case.lookup.legacy if place.whole and case.legacy else case.legacy_at(place)
        if legacy is None:
            return bool(held_at(case.lookup, case.token, case.catalog, place, case.world) & conferring)
        # A permission whose own `when` does not match is not held, though a bundle carries the operation (C5).
        held = bool(conferring) if self._is_carried(legacy) else bool(legacy.permissions & conferring)
        return held and self._legacy_reaches(item, place)

    def _legacy_reaches(self, item: Item, place: Place) -> bool:
        """Rule A8: member nodes, every node for admins, the own account; public places for visitors."""
        case = self.case
        if place.id == case.own_id:
            return True
        admin = case.owner is not None and case.owner.admin
        if place.kind not in PLACE_KINDS:
            return admin and place.kind is NodeKind.INSTANCE
        return case.catalog.upstream or admin or case.member(place) or self._visits(item, place)

    def _visits(self, item: Item, place: Place) -> bool:
        """A legacy token where its owner is no member: public, or internal unless the owner is external (A8)."""
        case = self.case
        if place.whole or not case.catalog.by_name[item.permission].visitor or case.member(place):
            return False
        if place.visibility is Visibility.INTERNAL:
            return case.owner is not None and not case.owner.external
        return place.public


def owner_failure(case: Case, place: Place, min_role: str | None) -> Reason | None:
    """Rule A4 at one place for one `min_role`; None when it holds."""
    if case.catalog.upstream:
        return None
    if case.owner is not None and case.owner.admin:
        return None
    if place.kind is NodeKind.INSTANCE:
        return None if min_role == NO_ROLE_NEEDED else Reason.OWNER_ROLE_TOO_LOW
    if place.kind in PLACE_KINDS and not case.member(place):
        return Reason.OWNER_NOT_MEMBER
    if min_role is None:
        return None
    satisfying = case.catalog.roles_satisfying.get(min_role, frozenset())
    return None if satisfying & case.roles(place) else Reason.OWNER_ROLE_TOO_LOW


def earliest(reasons: Sequence[Reason]) -> Reason:
    """The first in the order of the rules (A9)."""
    return min(reasons, key=REASON_ORDER.__getitem__)
