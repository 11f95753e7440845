"""Which requirement set answers, and with what reason: rules C5, A6, A7's `public_read` and A9."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from authz_service.catalog.model import (
    BOUNDARIES,
    Condition,
    Item,
    Operation,
    Permission,
    RequirementSet,
    TargetKind,
)
from authz_service.directory.model import NodeKind, Scalar
from authz_service.engine.attributes import Assumption, Reader, applicable, matches, trials
from authz_service.engine.case import Case
from authz_service.engine.items import PASSED, STAGE_QUESTION, ItemJudge, earliest
from authz_service.engine.model import Decision, Missing, PolicyNote, Reason, TracedItem, TracedSet, allow, deny
from authz_service.engine.places import Place
from authz_service.engine.policies import ends_public_reads


def decide_sets(case: Case, sets: Sequence[RequirementSet], operation: Operation | None) -> Decision:
    """Any of the sets allows; otherwise the denial of the set that got furthest (A9).

    Absent attributes are tried with every value a `when` names and one that none names (C5).
    """
    absent = _absent(case, sets)
    decisions = [_decide_under(case, sets, operation, assumption) for assumption in trials(absent)]
    denials = [decision for decision in decisions if not decision.allowed]
    if not denials and len(decisions) > 1:
        return replace(decisions[0], used=tuple(dict.fromkeys(use for decision in decisions for use in decision.used)))
    if not denials or len(denials) == len(decisions):
        return decisions[0]
    return replace(denials[0], reason=Reason.ATTRIBUTE_MISSING, missing=(), absent=tuple(sorted(absent)))


@dataclass(frozen=True, slots=True)
class _Outcome:
    """How far one set got, with `items`."""

    stage: int
    reason: Reason
    items: tuple[Item, ...]
    target: str | None
    missing: tuple[Missing, ...] = ()
    policy: PolicyNote | None = None
    used: tuple[tuple[str, str], ...] = ()

    @property
    def rank(self) -> tuple[int, int]:
        return (-self.stage, BOUNDARIES.index(self.items[0].boundary))


def _decide_under(
    case: Case, sets: Sequence[RequirementSet], operation: Operation | None, assumption: Assumption
) -> Decision:
    judge = ItemJudge(case, operation, assumption)
    counting = applicable(sets, lambda candidate: _set_reader(judge, candidate))
    outcomes = [_try_set(judge, candidate) for candidate in counting]
    passed = [outcome for outcome in outcomes if outcome.stage == PASSED]
    if passed:
        chosen = next((outcome for outcome in passed if outcome.reason is Reason.GRANTED), passed[0])
        return allow(chosen.reason, target=chosen.target, used=chosen.used)
    if operation is not None and _public_read(judge, operation, counting):
        return allow(Reason.GRANTED_PUBLIC_READ)
    if not outcomes:
        # Every target counts: else the answer would tell a place that a `when` reads from one that does not exist.
        return deny(Reason.PERMISSION_MISSING, hide=_hides(case, [item for choice in sets for item in choice.items]))
    best = min(outcomes, key=lambda outcome: outcome.rank)
    return deny(best.reason, best.missing, hide=_hides(case, best.items), target=best.target, policy=best.policy)


def _hides(case: Case, items: Sequence[Item]) -> bool:
    """Rule A10: some resolved target is unknown to the directory, or unseen by the owner."""
    if case.catalog.upstream:
        return False
    targets = [case.resolve(item.target) for item in items if item.target.kind is not TargetKind.ANYWHERE]
    return any(
        not case.places.seen(found) if isinstance(found, Place) else found is not Reason.TARGET_REQUIRED
        for found in targets
    )


def _try_set(judge: ItemJudge, candidate: RequirementSet) -> _Outcome:
    case = judge.case
    anywhere = [item.target.kind is TargetKind.ANYWHERE for item in candidate.items]
    resolved = [None if free else case.place_of(item) for item, free in zip(candidate.items, anywhere, strict=True)]
    faults = [found for found in resolved if isinstance(found, Reason)]
    if faults:
        _note(judge, candidate, earliest(faults), [found if isinstance(found, Reason) else None for found in resolved])
        return _Outcome(STAGE_QUESTION, earliest(faults), candidate.items, case.request.ask.target)
    verdicts = [
        judge.judge(item, found if isinstance(found, Place) else None, candidate.min_role if position == 0 else None)
        for position, (item, found) in enumerate(zip(candidate.items, resolved, strict=True))
    ]
    stage = min(verdict.stage for verdict in verdicts)
    stopped = [verdict for verdict in verdicts if verdict.stage == stage]
    if stage == PASSED:
        public = any(verdict.reason is Reason.GRANTED_PUBLIC_READ for verdict in verdicts)
        reason = Reason.GRANTED_PUBLIC_READ if public else Reason.GRANTED
    else:
        reason = earliest([verdict.reason for verdict in stopped])
    _note(judge, candidate, reason, [verdict.reason for verdict in verdicts])
    target = next(verdict.target for verdict in stopped if stage == PASSED or verdict.reason is reason)
    missing = tuple(verdict.missing for verdict in verdicts if verdict.missing is not None)
    policy = next((verdict.policy for verdict in stopped if stage != PASSED and verdict.reason is reason), None)
    held = [(item, verdict) for item, verdict in zip(candidate.items, verdicts, strict=True) if stage == PASSED]
    used = tuple((item.permission, verdict.target) for item, verdict in held if verdict.reason is Reason.GRANTED)
    return _Outcome(stage, reason, candidate.items, target, missing, policy, used)


def _note(judge: ItemJudge, candidate: RequirementSet, reason: Reason, items: Sequence[Reason | None]) -> None:
    """Write down how a set fared. None is an item that was not looked at, because another had no target."""
    trace = judge.case.trace
    if trace is None:
        return
    traced = []
    for item, found in zip(candidate.items, items, strict=True):
        place = None if item.target.kind is TargetKind.ANYWHERE else judge.case.resolve(item.target)
        text, node = (place.text, place.id) if isinstance(place, Place) else (None, None)
        traced.append(TracedItem(item.permission, item.boundary, text, found, item.target.kind, node))
    assumed = tuple((name, str(value)) for name, value in sorted(judge.assumption.values.items()))
    trace.sets.append(TracedSet(reason, tuple(traced), candidate.when, candidate.min_role, assumed))


def _public_read(judge: ItemJudge, operation: Operation, sets: Sequence[RequirementSet]) -> bool:
    """Rule A7: every target of one set is a public project or group; it does nothing for the other kinds of target."""
    case = judge.case
    if not operation.public_read or (operation.mutates and not operation.reviewed):
        return False
    for candidate in sets:
        if all(item.target.kind in (TargetKind.PARAMETER, TargetKind.CALLER) for item in candidate.items):
            found = [(item, case.catalog.by_name[item.permission], case.place_of(item)) for item in candidate.items]
            if all(
                isinstance(place, Place)
                and place.public
                and not place.whole
                and matches(permission.when, judge.reader(place))
                and not ends_public_reads(case, place)
                for item, permission, place in found
            ):
                return True
    return False


def _set_reader(judge: ItemJudge, candidate: RequirementSet) -> Reader:
    """A set's `when` reads the resource of its first item."""
    first = candidate.items[0]
    found = None if first.target.kind is TargetKind.ANYWHERE else judge.case.read_at(first)
    return judge.reader(found if isinstance(found, Place) else None)


def _absent(case: Case, sets: Sequence[RequirementSet]) -> Mapping[str, Collection[Scalar]]:
    """Attributes that some `when` in play reads and nobody gave, with the values named for each.

    Values are told apart by their types too: in a set, 1 and `true` would be one.
    """
    named: dict[str, dict[tuple[type, Scalar], Scalar]] = {}
    given: dict[str, bool] = {}
    plain = ItemJudge(case, None, Assumption())
    for candidate in sets:
        readers = [(candidate.when, _set_reader(plain, candidate))]
        for item in candidate.items:
            conditions = list(_conditions(case, case.catalog.by_name[item.permission], item.boundary))
            places = _places_of(case, item) if conditions else []
            readers += [(when, plain.reader(place)) for place in places for when in conditions]
        for when, read in readers:
            for name, value in when:
                named.setdefault(name, {})[type(value), value] = value
                given[name] = given.get(name, True) and read(name) is not None
    return {name: values.values() for name, values in named.items() if not given[name]}


def _places_of(case: Case, item: Item) -> list[Place | None]:
    """Where the item's permission is read: at its target, and for `below` and `anywhere` wherever that may be."""
    found = None if item.target.kind is TargetKind.ANYWHERE else case.read_at(item)
    top = found if isinstance(found, Place) else None
    if item.target.kind is TargetKind.ANYWHERE or (item.target.kind is TargetKind.BELOW and top is not None):
        return [top, *case.places.below(top, item.boundary)]
    return [top]


def _conditions(case: Case, permission: Permission, boundary: NodeKind) -> Iterator[Condition]:
    """The `when`s of the permission and of all that confer it there."""
    catalog = case.catalog
    conferring = catalog.holders[boundary][permission.number] & catalog.conditional
    for other in catalog.permissions:
        if conferring >> other.number & 1:
            yield other.when
