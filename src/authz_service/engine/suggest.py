"""From calls to the smallest token that makes them: what each needs, by the engine's own trace, and how to write it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, product
from typing import Final, TypeAlias

from authz_service.catalog.model import Catalog, TargetKind, bits
from authz_service.directory.model import NodeId, NodeKind
from authz_service.engine.case import Case, open_case
from authz_service.engine.decide import decide, explain
from authz_service.engine.items import owner_failure
from authz_service.engine.minimal import Choice, Mask, Weights, choose
from authz_service.engine.model import Reason, Request, TracedItem, TracedSet, World
from authz_service.engine.overlay import Overlay
from authz_service.engine.places import Place
from authz_service.tokens.model import Reach, ReachKind, Scope, Token

_MOST_WAYS: Final = 64
"""Alternatives of one call that are looked at."""


@dataclass(frozen=True, slots=True)
class Where:
    """Where a scope would apply. `chain` leads from a selected node up."""

    reach: ReachKind
    node: NodeId | None = None
    kind: NodeKind | None = None
    text: str = ""
    chain: tuple[NodeId, ...] = field(default=(), compare=False)

    @property
    def boundaries(self) -> tuple[NodeKind, ...]:
        """The kinds of place that it covers (T2)."""
        if self.reach is ReachKind.SELECTED:
            return (NodeKind.PROJECT, NodeKind.GROUP) if self.kind is NodeKind.GROUP else (NodeKind.PROJECT,)
        return _COVERED[self.reach]


_COVERED: Final[Mapping[ReachKind, tuple[NodeKind, ...]]] = {
    ReachKind.ALL_MEMBERSHIPS: (NodeKind.PROJECT, NodeKind.GROUP),
    ReachKind.PERSONAL_PROJECTS: (NodeKind.PROJECT,),
    ReachKind.USER: (NodeKind.USER,),
    ReachKind.INSTANCE: (NodeKind.INSTANCE,),
}


@dataclass(frozen=True, slots=True)
class Atom:
    """One permission at one place: the least that a token can be given."""

    permission: str
    where: Where


Way: TypeAlias = frozenset[Atom]
"""Everything that one alternative takes."""
Need: TypeAlias = tuple[Way, ...]
"""Any of these; no alternative at all is nothing that a token could be given for it."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Scopes, as narrow as what they are for. `unmet` are positions of needs that no scope could meet."""

    scopes: tuple[Scope, ...]
    targets: Mapping[NodeId, str]
    resource_owner: NodeId | None
    unmet: tuple[int, ...]
    exact: bool
    size: int
    """How many permissions at how many places it gives, implied ones counted, of those spoken of."""
    at_least: int
    """No token for these calls gives fewer; the size itself where `exact`."""


def place_of(place: Place) -> Where:
    return Where(ReachKind.SELECTED, place.id, place.kind, place.text, place.chain)


def needs_of(bare: Token, world: World, request: Request, known: Sequence[Where] = ()) -> tuple[Need, ...]:
    """What a call needs beyond a token that holds nothing: all of these, of each any way. None at all for a free call.

    `bare` is a token of the right owner and catalog without scopes. `known` are places that other calls name: where
    some place will do, one of them does. Several needs come of attributes that nobody gave (C5).
    """
    world = Overlay(world).with_token(bare)  # whatever the world has made of another token of this id
    decision, trace = explain(bare, world, request)
    version = bare.catalogs.get(request.catalog)
    catalog = None if version is None else world.catalog(request.catalog, version)
    if decision.allowed:
        return ()
    if catalog is None or not trace or not trace[0].sets:
        return ((),)
    case = open_case(bare, catalog, world, request)
    by_trial: dict[tuple[tuple[str, str], ...], list[TracedSet]] = {}
    for one in trace[0].sets:
        by_trial.setdefault(one.assumed, []).append(one)
    needs: list[Need] = []
    for sets in by_trial.values():
        if any(one.reason in (Reason.GRANTED, Reason.GRANTED_PUBLIC_READ) for one in sets):
            continue
        ways = dict.fromkeys(way for one in sets for way in _ways_of(case, one, known))
        needs.append(tuple(islice(ways, _MOST_WAYS)))
    if len(needs) == 1:
        # Where the owner is fit for some alternatives alone, the others are none.
        working = tuple(way for way in needs[0] if _works(bare, catalog, world, request, way))
        needs = [working or needs[0]]
    return tuple(dict.fromkeys(needs))


def _works(bare: Token, catalog: Catalog, world: World, request: Request, way: Way) -> bool:
    scopes, _ = _write(catalog, way)
    owner = _resource_owner(catalog, bare, way)
    token = replace(bare, scopes=scopes, resource_owner=owner)
    return decide(token, Overlay(world).with_token(token), request).allowed


def _ways_of(case: Case, one: TracedSet, known: Sequence[Where]) -> Iterator[Way]:
    """The ways to give a set what it lacks."""
    if any(item.reason is None for item in one.items):
        return
    lacking = [item for item in one.items if item.reason in (Reason.PERMISSION_MISSING, Reason.OUTSIDE_REACH)]
    passed = (Reason.GRANTED, Reason.GRANTED_PUBLIC_READ)
    if len(lacking) + sum(item.reason in passed for item in one.items) < len(one.items):
        return
    choices = [[Atom(item.permission, where) for where in _places_for(case, item, known)] for item in lacking]
    for atoms in islice(product(*choices), _MOST_WAYS):
        yield frozenset(atoms)


def _places_for(case: Case, item: TracedItem, known: Sequence[Where]) -> Sequence[Where]:
    if item.boundary is NodeKind.INSTANCE:
        return (Where(ReachKind.INSTANCE),)
    if item.boundary is NodeKind.USER:
        return (Where(ReachKind.USER),)
    if item.kind is not TargetKind.ANYWHERE:
        place = None if item.target is None else case.places.parse(item.target)
        if place is not None and place.kind is NodeKind.USER and case.catalog.upstream:
            place = case.places.parse(f"{NodeKind.GROUP.value}:{place.text.partition(':')[2]}")
        return () if place is None else (place_of(place),)
    fitting = [where for where in known if where.reach is ReachKind.SELECTED and item.boundary in where.boundaries]
    if not (case.catalog.upstream or case.catalog.single_owner):
        return (*fitting, Where(ReachKind.ALL_MEMBERSHIPS))
    if fitting:
        return fitting
    if case.catalog.upstream:
        own = case.places.parse(f"{NodeKind.GROUP.value}:{case.token.owner}")
        return () if own is None else (place_of(own),)
    role = case.catalog.by_name[item.permission].boundaries[item.boundary]
    below = case.places.below(None, item.boundary)
    return [place_of(place) for place in islice((one for one in below if not owner_failure(case, one, role)), 3)]


def suggest(catalog: Catalog, bare: Token, needs: Sequence[Need]) -> Suggestion:
    """The smallest scopes that meet every need that can be met, for a token like `bare` in this version."""
    met = [(position, need) for position, need in enumerate(needs) if need]
    elements = _Elements(catalog, {atom for _, need in met for way in need for atom in way})
    choice: Choice = choose([[elements.mask(way) for way in need] for _, need in met], elements.weights)
    atoms: set[Atom] = set()
    for (_, need), taken in zip(met, choice.taken, strict=True):
        atoms |= need[taken]
    kept = elements.without_implied(atoms)
    scopes, targets = _write(catalog, kept)
    return Suggestion(
        scopes,
        targets,
        _resource_owner(catalog, bare, kept),
        tuple(position for position, need in enumerate(needs) if not need),
        choice.exact,
        choice.given.bit_count(),
        choice.given.bit_count() if choice.exact else _count(choice.at_least),
    )


def _count(cost: int) -> int:
    """Of a cost, the part that counts elements."""
    return cost & ((1 << 30) - 1)


class _Elements:
    """What each atom gives, as bits: every permission that it confers, at every place spoken of that it covers."""

    def __init__(self, catalog: Catalog, atoms: Iterable[Atom]) -> None:
        self._catalog = catalog
        ordered = sorted(atoms, key=_order)
        self._places = list(dict.fromkeys(atom.where for atom in ordered))
        self._numbers: dict[tuple[int, NodeKind, Where], int] = {}
        self._masks = {atom: self._give(atom) for atom in ordered}
        wide = changing = 0
        for (number, _, where), bit in self._numbers.items():
            wide |= (where.reach is ReachKind.ALL_MEMBERSHIPS) << bit
            changing |= catalog.permissions[number].mutates << bit
        self.weights = Weights(wide, changing)

    def _give(self, atom: Atom) -> Mask:
        mask = 0
        permission = self._catalog.by_name[atom.permission]
        # What implies others only when an attribute matches is not to be relied on for them (C5).
        alone = 1 << permission.number if permission.when else None
        for place in self._places:
            if not _covers(atom.where, place):
                continue
            for boundary in place.boundaries:
                given = self._catalog.confers[boundary][permission.number]
                for number in bits(given if alone is None else given & alone):
                    mask |= 1 << self._numbers.setdefault((number, boundary, place), len(self._numbers))
        return mask

    def mask(self, way: Iterable[Atom]) -> Mask:
        found = 0
        for atom in way:
            found |= self._masks[atom]
        return found

    def without_implied(self, atoms: Iterable[Atom]) -> frozenset[Atom]:
        """Without those that the others give already."""
        kept = sorted(atoms, key=lambda atom: (self._masks[atom].bit_count(), _order(atom)))
        for atom in list(kept):
            others = [other for other in kept if other != atom]
            if not self._masks[atom] & ~self.mask(others):
                kept = others
        return frozenset(kept)


def _order(atom: Atom) -> tuple[str, str, str]:
    return (atom.where.reach.value, atom.where.text, atom.permission)


def _covers(wide: Where, narrow: Where) -> bool:
    if wide == narrow:
        return True
    if narrow.reach is not ReachKind.SELECTED:
        return False
    if wide.reach is ReachKind.ALL_MEMBERSHIPS:
        return True
    return wide.reach is ReachKind.SELECTED and wide.node in narrow.chain


def _write(catalog: Catalog, atoms: Iterable[Atom]) -> tuple[tuple[Scope, ...], Mapping[NodeId, str]]:
    """As scopes: places that are given the same share one. Permissions in the catalog's order, places by their text."""
    held: dict[Where, set[int]] = {}
    for atom in atoms:
        held.setdefault(atom.where, set()).add(catalog.by_name[atom.permission].number)
    shared: dict[tuple[ReachKind, tuple[int, ...]], list[Where]] = {}
    for where in sorted(held, key=lambda one: (one.reach.value, one.text)):
        shared.setdefault((where.reach, tuple(sorted(held[where]))), []).append(where)
    scopes = []
    targets: dict[NodeId, str] = {}
    for (reach, numbers), places in shared.items():
        nodes = tuple(place.node for place in places if place.node is not None)
        targets |= {place.node: place.text for place in places if place.node is not None}
        names = tuple(catalog.permissions[number].name for number in numbers)
        scopes.append(Scope(catalog.name, Reach(reach, nodes), names))
    return tuple(scopes), targets


def _resource_owner(catalog: Catalog, bare: Token, atoms: Iterable[Atom]) -> NodeId | None:
    """Where a catalog demands one (T6): the group or account at the top of all places; None where they have several."""
    if not catalog.single_owner:
        return None
    tops = {atom.where.chain[-1] for atom in atoms if atom.where.chain}
    if any(atom.where.reach is ReachKind.USER for atom in atoms):
        account = f"{NodeKind.USER.value}:{bare.owner}"
        tops.add(catalog.fold(account) if catalog.upstream else bare.owner)
    return next(iter(tops)) if len(tops) == 1 else None
