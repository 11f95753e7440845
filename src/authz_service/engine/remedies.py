"""What could be done about a denial: each single change of token, owner, approval or policy that speaks of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from authz_service.catalog.model import Catalog, Target, TargetKind
from authz_service.compiler.compile import compile_lookup, permission_mask
from authz_service.directory.model import NodeId, NodeKind
from authz_service.engine.case import Case, open_case
from authz_service.engine.items import owner_failure
from authz_service.engine.model import (
    Decision,
    PermissionRequest,
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
from authz_service.engine.steps import Step, StepKind
from authz_service.tokens.model import ReachKind, Token, TokenKind

GIVEN: Final = frozenset({Reason.PERMISSION_MISSING, Reason.OUTSIDE_REACH})
OWNED: Final = frozenset({Reason.OWNER_NOT_MEMBER, Reason.OWNER_ROLE_TOO_LOW})
APPROVED: Final = frozenset({Reason.APPROVAL_PENDING, Reason.APPROVAL_DENIED, Reason.APPROVAL_REVOKED})
RULED: Final = frozenset({Reason.POLICY_FORBIDS_KIND, Reason.LIFETIME_EXCEEDS_POLICY})
FIXABLE: Final = GIVEN | OWNED | APPROVED | RULED
"""What another right, role, approval or policy could change. No other reason has a fix."""
_BARE_ROLE: Final = "member"
"""Where a catalog knows no roles, any name is bare membership (C6)."""
_SOME_PLACES: Final = 6


def catalog_of(token: Token, world: World, request: Request) -> Catalog | None:
    version = token.catalogs.get(request.catalog)
    return None if version is None else world.catalog(request.catalog, version)


def role_weight(catalog: Catalog, role: str | None) -> int:
    """How many roles a role stands for, itself among them."""
    return sum(role in above for above in catalog.roles_satisfying.values())


def remedies(
    shown: Token, world: Overlay, request: Request, decision: Decision, trace: Sequence[TracedToken]
) -> Iterator[Step]:
    """Every single step that could bring this denied question nearer to an allow, each once.

    More than will do: whether one does is for a decision in the world after it. `world` may hold another state of the
    shown token.
    """
    failed = decision.failed_token
    token = world.tokens.get(failed) if failed is not None else None
    if token is None:
        token = shown if failed in (None, shown.id) else world.token(failed)
    catalog = catalog_of(shown, world, request)
    if token is None or catalog is None:
        return
    case = open_case(token, catalog, world, request)
    sets = trace[-1].sets if trace else []
    steps: dict[Step, None] = {}
    if token.kind is TokenKind.LEGACY:
        steps |= dict.fromkeys(_legacy_steps(token, catalog))
    else:
        for one in sets:
            steps |= dict.fromkeys(_token_steps(case, one))
    steps |= dict.fromkeys(_owner_steps(case, sets, decision))
    steps |= dict.fromkeys(_approval_steps(case, sets))
    policy = decision.policy
    place = None if policy is None or decision.reason not in RULED else case.places.parse(policy.place)
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
    lacking = [item for item in one.items if item.reason in GIVEN or _is_elsewhere(item)]
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
    if len(joined) + bool(free) > 1:
        yield from _whole_steps(case, lacking, [spot for spot in named if spot.reach is ReachKind.SELECTED])
    for item in free:
        names = tuple(dict.fromkeys((item.permission, *(other.permission for other in free))))
        yield from _anywhere_steps(case, item, names)


def _is_elsewhere(item: TracedItem) -> bool:
    """Whether one place of several will do, and those that the token holds it on are not fit for it."""
    return item.kind in (TargetKind.BELOW, TargetKind.ANYWHERE) and item.reason in FIXABLE


def _whole_steps(case: Case, lacking: Sequence[TracedItem], spots: Sequence[_Spot]) -> Iterator[Step]:
    """One change of one scope for several places with different permissions: wider, and a single step."""
    token, catalog = case.token, case.catalog
    names = tuple(dict.fromkeys(item.permission for item in lacking))
    nodes = tuple(spot.node for spot in spots if spot.node is not None)
    texts = tuple(spot.text for spot in spots if spot.node is not None)
    for position, scope in enumerate(token.scopes):
        if scope.catalog != catalog.name:
            continue
        reached = tuple(_text_of(case, node) for node in scope.reach.nodes)
        if "" not in reached:
            kind, own = scope.reach.kind, scope.reach.nodes
            yield Step(StepKind.ADD_PERMISSIONS, token.id, catalog.name, position, kind, own, reached, names)
        if scope.reach.kind is ReachKind.SELECTED and nodes:
            held = tuple(dict.fromkeys(scope.permissions))
            yield Step(StepKind.ADD_NODES, token.id, catalog.name, position, scope.reach.kind, nodes, texts, held)


def _spot_of(case: Case, item: TracedItem) -> _Spot | None:
    """Where an item with a place would be covered; a user is the namespace where projects are meant (C3)."""
    if item.boundary is NodeKind.INSTANCE:
        return _Spot(ReachKind.INSTANCE)
    if item.boundary is NodeKind.USER:
        return _Spot(ReachKind.USER)
    place = case.traced_place(item)
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
    roles = sorted(case.catalog.roles, key=lambda role: (role_weight(case.catalog, role), role)) or [_BARE_ROLE]
    own = case.world.memberships(owner.id)
    for place in _places_to_join(case, sets, decision):
        known = own.get(place.id)
        kind = StepKind.ADD_MEMBERSHIP if known is None else StepKind.CHANGE_ROLE
        for role in roles:
            if role != known:
                name = owner.username
                yield Step(kind, nodes=(place.id,), targets=(place.text,), user=owner.id, username=name, role=role)
    instance = any(
        item.boundary is NodeKind.INSTANCE and item.reason in OWNED | GIVEN for one in sets for item in one.items
    )
    if instance and not owner.admin:
        yield Step(StepKind.MAKE_ADMIN, user=owner.id, username=owner.username)


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
        there: dict[NodeId, Place] = {}
        for item in one.items:
            if item.reason in GIVEN | OWNED and item.boundary in PLACE_KINDS:
                there |= {place.id: place for place in _places_of(case, item)}
        found |= there
    # A set that does not count may come to count by a role (C5), so its places matter too.
    found |= {place.id: place for place in asked_places(case) if isinstance(place, Place)}
    # Two roles add up on the way up, where one would replace the other at the place itself.
    known = [place for place in found.values() if place.id in case.world.memberships(case.token.owner)]
    found |= {place.id: place for place in _shared_above(case, [*found.values(), *known])}
    yield from (place for place in found.values() if place.kind in PLACE_KINDS)


def asked_places(case: Case) -> Iterator[Place | Reason]:
    """Every place that the question names, whichever of its sets count, or why there is none."""
    ask = case.request.ask
    if isinstance(ask, PermissionRequest):
        yield case.resolve(Target(TargetKind.CALLER))
        return
    operation = case.catalog.operations.get(ask.operation)
    if operation is not None and operation.open and operation.open_at is not None:
        yield case.resolve(operation.open_at)
    for one in () if operation is None else operation.sets:
        for item in one.items:
            if item.target.kind is not TargetKind.ANYWHERE:
                yield case.resolve(item.target)


def _shared_above(case: Case, places: Sequence[Place]) -> Iterator[Place]:
    """The groups that lie above several of these: to join there is one step."""
    counted = Counter(node for place in places for node in place.chain)
    for node, count in counted.items():
        above = case.places.parse(_text_of(case, node)) if count > 1 else None
        if above is not None:
            yield above


def _places_of(case: Case, item: TracedItem) -> Iterator[Place]:
    top = case.traced_place(item)
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
