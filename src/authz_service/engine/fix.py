"""The smallest fix of a denial: which change of the token, or of its owner's memberships, would allow it.

Nothing is guessed: each change is made in a world of its own and decided there by the engine. What would be a fix is
named only where the token's owner may see every place in it (A10).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

from authz_service.catalog.model import Catalog, TargetKind
from authz_service.compiler.compile import compile_lookup, permission_mask
from authz_service.directory.model import NodeId, NodeKind
from authz_service.engine.case import Case, open_case
from authz_service.engine.decide import explain
from authz_service.engine.items import owner_failure
from authz_service.engine.model import (
    REASON_ORDER,
    Decision,
    Reason,
    Request,
    TracedItem,
    TracedSet,
    TracedToken,
    World,
)
from authz_service.engine.overlay import Overlay
from authz_service.engine.places import PLACE_KINDS, Place, node_text
from authz_service.engine.policies import approving_group
from authz_service.engine.reach import held_at
from authz_service.engine.steps import Fix, Step, StepKind, take
from authz_service.tokens.model import ReachKind, Token, TokenId, TokenKind

GIVEN: Final = frozenset({Reason.PERMISSION_MISSING, Reason.OUTSIDE_REACH})
OWNED: Final = frozenset({Reason.OWNER_NOT_MEMBER, Reason.OWNER_ROLE_TOO_LOW})
APPROVED: Final = frozenset({Reason.APPROVAL_PENDING, Reason.APPROVAL_DENIED, Reason.APPROVAL_REVOKED})
RULED: Final = frozenset({Reason.POLICY_FORBIDS_KIND, Reason.LIFETIME_EXCEEDS_POLICY})
FIXABLE: Final = GIVEN | OWNED | APPROVED | RULED
"""What another right, role, approval or policy could change. No other reason has a fix."""
_BARE_ROLE: Final = "member"
"""Where a catalog knows no roles, any name is bare membership (C6)."""
_MOST_STEPS: Final = 3
_MOST_DECISIONS: Final = 400
"""One explanation may take as many decisions: about twenty milliseconds."""
_FRONTIER: Final = 12
_SOME_PLACES: Final = 6


@dataclass(frozen=True, slots=True)
class _State:
    """Where the search stands: the steps taken, and what is decided after them."""

    steps: tuple[Step, ...]
    world: Overlay
    decision: Decision
    trace: list[TracedToken]

    @property
    def left(self) -> tuple[int, int]:
        """Smaller is nearer to an allow."""
        return (-REASON_ORDER[self.decision.reason], len(self.decision.missing))


def find_fixes(token: Token, world: World, request: Request, decision: Decision, *, most: int = 3) -> tuple[Fix, ...]:
    """Fixes with as few steps as any, the narrowest first; none for what no change of rights would allow.

    A single step is found where there is one, whatever it takes besides; longer ones are looked for within a bound.
    Never names a place that the token's owner may not see. What the world raises passes through.
    """
    if decision.allowed or decision.hide or decision.reason not in FIXABLE:
        return ()
    start = Overlay(world)
    decided, trace = explain(token, start, request)
    states = [_State((), start, decided, trace)]
    budget = _MOST_DECISIONS
    for _ in range(_MOST_STEPS):
        found: list[tuple[Step, ...]] = []
        waiting: list[_State] = []
        for state in states:
            for step in _candidates(state, token, request):
                if budget == 0:
                    break
                budget -= 1
                after = _after(state, step, token, request)
                if after.decision.allowed:
                    found.append(_merged(after.steps, token, start))
                elif after.decision.reason in FIXABLE:
                    waiting.append(after)
        visible = _narrowest([steps for steps in found if _seen(steps, token, start, request)], token, request, start)
        if visible:
            trimmed = dict.fromkeys(_trimmed(steps, token, start, request) for steps in visible[:most])
            return tuple(Fix(steps) for steps in trimmed)
        if found or budget == 0:
            return ()
        states = sorted(waiting, key=lambda state: state.left)[:_FRONTIER]
    return ()


def _after(state: _State, step: Step, token: Token, request: Request) -> _State:
    world = take(step, state.world, token)
    decision, trace = explain(world.tokens.get(token.id, token), world, request)
    return _State((*state.steps, step), world, decision, trace)


def _trimmed(steps: tuple[Step, ...], token: Token, start: Overlay, request: Request) -> tuple[Step, ...]:
    """Without each permission and place that it does not take: what is left allows, and no part of it does."""
    position = 0
    while position < len(steps):
        step = steps[position]
        for smaller in _smaller(step):
            fewer = (*steps[:position], *smaller, *steps[position + 1 :])
            world = start
            for one in fewer:
                world = take(one, world, token)
            if fewer and explain(world.tokens.get(token.id, token), world, request)[0].allowed:
                steps = fewer
                break
        else:
            position += 1
    return steps


def _smaller(step: Step) -> Iterator[tuple[Step, ...]]:
    """The step with one permission or one place less, or, where it has no more of them, no step at all."""
    if step.kind in (StepKind.ADD_PERMISSIONS, StepKind.ADD_SCOPE) and len(step.permissions) > 1:
        for name in step.permissions:
            yield (replace(step, permissions=tuple(other for other in step.permissions if other != name)),)
    if step.kind in (StepKind.ADD_NODES, StepKind.ADD_SCOPE) and len(step.nodes) > 1:
        for number in range(len(step.nodes)):
            nodes, targets = step.nodes, step.targets
            yield (
                replace(
                    step, nodes=nodes[:number] + nodes[number + 1 :], targets=targets[:number] + targets[number + 1 :]
                ),
            )
    yield ()


def _merged(steps: tuple[Step, ...], token: Token, start: Overlay) -> tuple[Step, ...]:
    """A step about a scope that a former step makes is a part of making it: nobody can number a scope that is not."""
    merged: list[Step] = []
    made: dict[tuple[TokenId | None, int], int] = {}
    counts: dict[TokenId, int] = {}
    for step in steps:
        if step.token is not None and step.token not in counts:
            known = token if step.token == token.id else start.token(step.token)
            counts[step.token] = 0 if known is None else len(known.scopes)
        position = None if step.scope is None else made.get((step.token, step.scope))
        if position is not None:
            former = merged[position]
            merged[position] = replace(
                former,
                nodes=tuple(dict.fromkeys((*former.nodes, *step.nodes))),
                targets=tuple(dict.fromkeys((*former.targets, *step.targets))),
                permissions=tuple(dict.fromkeys((*former.permissions, *step.permissions))),
            )
            continue
        if step.kind is StepKind.ADD_SCOPE and step.token is not None:
            made[step.token, counts[step.token]] = len(merged)
            counts[step.token] += 1
        merged.append(step)
    return tuple(merged)


def _seen(steps: Iterable[Step], token: Token, world: Overlay, request: Request) -> bool:
    """Whether the token's owner may know of every place that the steps name, as the world is now."""
    catalog = _catalog_of(token, world, request)
    if catalog is None:
        return False
    case = open_case(token, catalog, world, request)
    places = [case.places.parse(text) for step in steps for text in step.targets]
    return all(place is not None and case.places.seen(place) for place in places)


def _catalog_of(token: Token, world: World, request: Request) -> Catalog | None:
    version = token.catalogs.get(request.catalog)
    return None if version is None else world.catalog(request.catalog, version)


def _narrowest(found: list[tuple[Step, ...]], token: Token, request: Request, world: Overlay) -> list[tuple[Step, ...]]:
    """Of each kind of change the smallest alone: the lowest role, the fewest permissions, the lowest place."""
    catalog = _catalog_of(token, world, request)
    if catalog is None:
        return []
    ranked = sorted(found, key=lambda steps: [_size(step, catalog) for step in steps])
    kept: dict[object, tuple[Step, ...]] = {}
    for steps in ranked:
        kept.setdefault(tuple((step.kind, step.user, step.nodes[:1] if step.role else ()) for step in steps), steps)
    return list(kept.values())


def _size(step: Step, catalog: Catalog) -> tuple[object, ...]:
    kinds = list(StepKind)
    wide = step.reach is ReachKind.ALL_MEMBERSHIPS
    # A token's scopes are its owner's to change; memberships and roles are somebody's, and count for every token.
    return (
        kinds.index(step.kind) > kinds.index(StepKind.ADD_LEGACY_SCOPE),
        wide,
        len(step.permissions) * max(1, len(step.nodes)),
        kinds.index(step.kind),
        _weight(catalog, step.role),
        _bundle_weight(catalog, step.legacy_scope),
        step.targets,
        step.permissions,
        step.scope or 0,
        step.role or "",
        step.legacy_scope or "",
    )


def _weight(catalog: Catalog, role: str | None) -> int:
    """How many roles a role stands for, itself among them."""
    return sum(role in above for above in catalog.roles_satisfying.values())


def _bundle_weight(catalog: Catalog, name: str | None) -> int:
    bundle = None if name is None else catalog.bundles.get(name)
    return 0 if bundle is None else len(bundle.permissions) + len(bundle.operations)


def _candidates(state: _State, shown: Token, request: Request) -> Iterator[Step]:
    """Every single step that could bring this question nearer to an allow, each once."""
    failed = state.decision.failed_token
    token = state.world.tokens.get(failed) if failed is not None else None
    if token is None:
        token = shown if failed in (None, shown.id) else state.world.token(failed)
    catalog = _catalog_of(shown, state.world, request)
    if token is None or catalog is None:
        return
    case = open_case(token, catalog, state.world, request)
    sets = state.trace[-1].sets if state.trace else []
    steps: dict[Step, None] = {}
    if token.kind is TokenKind.LEGACY:
        steps |= dict.fromkeys(_legacy_steps(token, catalog))
    else:
        for one in sets:
            steps |= dict.fromkeys(_token_steps(case, one))
    steps |= dict.fromkeys(_owner_steps(case, sets, state.decision))
    steps |= dict.fromkeys(_approval_steps(case, sets))
    policy = state.decision.policy
    place = None if policy is None or state.decision.reason not in RULED else case.places.parse(policy.place)
    if place is not None:
        steps[Step(StepKind.RELAX_POLICY, nodes=(place.id,), targets=(place.text,))] = None
    yield from steps


def _legacy_steps(token: Token, catalog: Catalog) -> Iterator[Step]:
    for name in catalog.bundles:
        if name not in token.legacy_scopes:
            yield Step(StepKind.ADD_LEGACY_SCOPE, token=token.id, catalog=catalog.name, legacy_scope=name)


# What the token holds


@dataclass(frozen=True, slots=True)
class _Spot:
    """Where a scope would have to apply."""

    reach: ReachKind
    node: NodeId | None = None
    text: str = ""


def _token_steps(case: Case, one: TracedSet) -> Iterator[Step]:
    """For each choice of places: the permissions that are missing there, in as few scopes as that takes."""
    lacking = [item for item in one.items if item.reason in GIVEN]
    asked = [item for item in one.items if item.reason is None or item.reason is Reason.TARGET_UNKNOWN]
    if not lacking or asked:
        return
    free = [item for item in lacking if item.kind is TargetKind.ANYWHERE and item.boundary in PLACE_KINDS]
    named: dict[_Spot, dict[str, None]] = {}
    for item in lacking:
        spot = None if item in free else _spot_of(case, item)
        if spot is not None:
            named.setdefault(spot, {})[item.permission] = None
    joined: dict[tuple[str, ...], list[_Spot]] = {}
    for spot, there in named.items():
        joined.setdefault(tuple(there), []).append(spot)
    for wanted, spots in joined.items():
        selected = tuple(spot for spot in spots if spot.reach is ReachKind.SELECTED)
        if selected:
            yield _scope_step(case, wanted, selected)
        for spot in spots:
            if spot.reach is not ReachKind.SELECTED:
                yield _scope_step(case, wanted, (spot,))
    for item in free:
        names = tuple(dict.fromkeys((item.permission, *(other.permission for other in free))))
        yield from _anywhere_steps(case, item, names)


def _spot_of(case: Case, item: TracedItem) -> _Spot | None:
    """Where an item with a place would be covered; a user is the namespace where projects are meant (C3)."""
    if item.boundary is NodeKind.INSTANCE:
        return _Spot(ReachKind.INSTANCE)
    if item.boundary is NodeKind.USER:
        return _Spot(ReachKind.USER)
    place = None if item.target is None else case.places.parse(item.target)
    if place is None:
        return None
    if place.kind is NodeKind.USER and case.catalog.upstream:
        path = place.text.partition(":")[2]
        place = case.places.parse(f"{NodeKind.GROUP.value}:{path}")
    return None if place is None else _Spot(ReachKind.SELECTED, place.id, place.text)


def _scope_step(case: Case, names: tuple[str, ...], spots: tuple[_Spot, ...]) -> Step:
    """One change that gives exactly these permissions at exactly these places, in a scope that is there if it fits."""
    token, catalog = case.token, case.catalog
    reach = spots[0].reach
    nodes = tuple(spot.node for spot in spots if spot.node is not None)
    texts = tuple(spot.text for spot in spots if spot.node is not None)
    wanted = permission_mask(catalog, names)
    for position, scope in enumerate(token.scopes):
        if scope.catalog != catalog.name or scope.reach.kind is not reach:
            continue
        there = {catalog.fold(node) if isinstance(node, str) else node for node in scope.reach.nodes}
        if there == set(nodes):
            return Step(StepKind.ADD_PERMISSIONS, token.id, catalog.name, position, reach, nodes, texts, names)
        if reach is ReachKind.SELECTED and permission_mask(catalog, scope.permissions) == wanted:
            return Step(StepKind.ADD_NODES, token.id, catalog.name, position, reach, nodes, texts, names)
    return Step(StepKind.ADD_SCOPE, token.id, catalog.name, None, reach, nodes, texts, names)


def _anywhere_steps(case: Case, item: TracedItem, names: tuple[str, ...]) -> Iterator[Step]:
    """Some place will do: the reaches that are there already, and the first place for which the owner is fit."""
    token, catalog = case.token, case.catalog
    for position, scope in enumerate(token.scopes):
        if scope.catalog == catalog.name and scope.reach.kind not in (ReachKind.USER, ReachKind.INSTANCE):
            texts = tuple(_text_of(case, node) for node in scope.reach.nodes)
            if "" not in texts:
                yield Step(
                    StepKind.ADD_PERMISSIONS, token.id, catalog.name, position, scope.reach.kind, scope.reach.nodes,
                    texts, names,
                )  # fmt: skip
    role = catalog.by_name[item.permission].boundaries[item.boundary]
    fit = (place for place in case.places.below(None, item.boundary) if owner_failure(case, place, role) is None)
    spots = [_Spot(ReachKind.SELECTED, place.id, place.text) for place in islice(fit, _SOME_PLACES)]
    if catalog.upstream and isinstance(token.owner, str):
        own = case.places.parse(f"{NodeKind.GROUP.value}:{token.owner}")
        spots = [] if own is None else [_Spot(ReachKind.SELECTED, own.id, own.text)]
    for spot in spots:
        yield _scope_step(case, names, (spot,))


def _text_of(case: Case, node: NodeId) -> str:
    """The canonical text of a node; empty where it is gone."""
    if isinstance(node, str):
        return case.catalog.fold(node)
    found = case.world.node(node)
    return "" if found is None else node_text(case.world, found)


# What its owner is


def _owner_steps(case: Case, sets: list[TracedSet], decision: Decision) -> Iterator[Step]:
    """Memberships and roles; the role of an admin only where the instance is the target."""
    owner = case.owner
    if owner is None or case.catalog.upstream:
        return
    roles = sorted(case.catalog.roles, key=lambda role: (_weight(case.catalog, role), role)) or [_BARE_ROLE]
    own = case.world.memberships(owner.id)
    for place in _places_to_join(case, sets, decision):
        known = own.get(place.id)
        kind = StepKind.ADD_MEMBERSHIP if known is None else StepKind.CHANGE_ROLE
        for role in roles:
            if role != known:
                yield Step(kind, nodes=(place.id,), targets=(place.text,), user=owner.id, role=role)
    instance = any(
        item.boundary is NodeKind.INSTANCE and item.reason in OWNED | GIVEN for one in sets for item in one.items
    )
    if instance and not owner.admin:
        yield Step(StepKind.MAKE_ADMIN, user=owner.id)


def _approval_steps(case: Case, sets: list[TracedSet]) -> Iterator[Step]:
    """What the group could approve that requires it: the very permission at the very place."""
    for one in sets:
        for item in one.items:
            if item.reason not in APPROVED:
                continue
            for place in _places_of(case, item):
                group, _ = approving_group(case, place)
                text = "" if group is None else _text_of(case, group)
                if group is not None and text:
                    nodes, texts = (group, place.id), (text, place.text)
                    yield Step(
                        StepKind.APPROVE, case.token.id, nodes=nodes, targets=texts, permissions=(item.permission,)
                    )


def _places_to_join(case: Case, sets: list[TracedSet], decision: Decision) -> Iterator[Place]:
    """Projects and groups at which another role of the owner could matter, each once."""
    found: dict[NodeId, Place] = {}
    if not sets and decision.target is not None:
        place = case.places.parse(decision.target)
        if place is not None:
            found[place.id] = place
    for one in sets:
        for item in one.items:
            if item.reason in GIVEN | OWNED and item.boundary in PLACE_KINDS:
                found |= {place.id: place for place in _places_of(case, item)}
    yield from (place for place in found.values() if place.kind in PLACE_KINDS)


def _places_of(case: Case, item: TracedItem) -> Iterator[Place]:
    top = None if item.target is None else case.places.parse(item.target)
    if top is not None:
        yield top
    if item.kind not in (TargetKind.BELOW, TargetKind.ANYWHERE) or (top is None and item.kind is TargetKind.BELOW):
        return
    below = case.places.below(top, item.boundary)
    if case.token.kind is TokenKind.FINE_GRAINED:
        number = case.catalog.by_name[item.permission].number
        conferring = case.catalog.holders[item.boundary][number]
        lookup = compile_lookup(case.token, case.catalog)
        everywhere = lookup.all_memberships & conferring
        below = (
            place
            for place in below
            if everywhere or held_at(lookup, case.token, case.catalog, place, case.world) & conferring
        )
    lowest = (_lowest_seen(case, place) for place in below)
    yield from islice((place for place in lowest if place is not None), _SOME_PLACES)


def _lowest_seen(case: Case, place: Place) -> Place | None:
    """The place, or what is nearest above it, that the owner may know of."""
    if case.places.seen(place):
        return place
    for node in place.chain[1:]:
        above = case.places.parse(_text_of(case, node))
        if above is not None and case.places.seen(above):
            return above
    return None
