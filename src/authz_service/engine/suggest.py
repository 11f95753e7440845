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
from authz_service.engine.model import Decision, Reason, Request, TracedItem, TracedSet, World
from authz_service.engine.overlay import Overlay
from authz_service.engine.places import Place
from authz_service.engine.remedies import OWNED
from authz_service.tokens.model import Reach, ReachKind, Scope, Token

_MOST_WAYS: Final = 64
"""Alternatives of one call that are looked at."""
_SOME_PLACES: Final = 12


@dataclass(frozen=True, slots=True)
class Where:
    """Where a scope would apply. `chain` leads from a selected node up."""

    reach: ReachKind
    node: NodeId | None = None
    kind: NodeKind | None = None
    text: str = ""
    chain: tuple[NodeId, ...] = field(default=(), compare=False)
    joined: bool = field(default=False, compare=False)
    """Whether the owner is a member of it and of all below it."""

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


@dataclass(frozen=True, slots=True)
class Want:
    """What an item asks for: an atom, of which it is the one boundary that counts."""

    atom: Atom
    boundary: NodeKind


Way: TypeAlias = frozenset[Want]
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


def needs_of(
    bare: Token, world: World, request: Request, known: Sequence[Where] = (), *, in_vain: bool = False
) -> tuple[Need, ...]:
    """What a call needs beyond a token that holds nothing: all of these, of each any way. None at all for a free call.

    `bare` is a token of the right owner and catalog without scopes. `known` are places that other calls name: where
    some place will do, one of them does. Several needs come of attributes that nobody gave (C5).

    A way that the owner's memberships deny (A6) is none: a token is given nothing for it. With `in_vain` it counts.
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
    first: Need = ()
    # Places that nobody named come in only where nothing else works.
    for further in (False, True):
        needs: dict[Need, None] = {}
        for sets in by_trial.values():
            if not any(one.reason in _PASSED for one in sets):
                ways = dict.fromkeys(way for one in sets for way in _ways_of(case, one, known, further=further))
                needs[tuple(islice(ways, _MOST_WAYS))] = None
        # What is allowed whatever the attributes are takes one way of each trial, or none where anyone may.
        choices = [(*need, frozenset[Want]()) for need in needs] if len(needs) > 1 else list(needs)
        joined = (frozenset[Want]().union(*ways) for ways in islice(product(*choices), _MOST_WAYS))
        together = tuple(dict.fromkeys(joined))
        answers = {way: _answer(bare, catalog, world, request, way) for way in together}
        working = tuple(way for way, answer in answers.items() if answer.allowed)
        if working:
            return (working,)
        first = first or tuple(way for way, answer in answers.items() if in_vain or answer.reason not in OWNED)
    return (first,)


_PASSED: Final = frozenset({Reason.GRANTED, Reason.GRANTED_PUBLIC_READ})


def _answer(bare: Token, catalog: Catalog, world: World, request: Request, way: Way) -> Decision:
    """What a token is answered that is given this way and nothing else."""
    atoms = {want.atom for want in way}
    scopes, _ = _write(catalog, atoms)
    owner = _resource_owner(catalog, bare, atoms)
    token = replace(bare, scopes=scopes, resource_owner=owner)
    return decide(token, Overlay(world).with_token(token), request)


def _ways_of(case: Case, one: TracedSet, known: Sequence[Where], *, further: bool) -> Iterator[Way]:
    """The ways to give a set what it lacks."""
    if any(item.reason is None for item in one.items):
        return
    lacking = [item for item in one.items if item.reason in (Reason.PERMISSION_MISSING, Reason.OUTSIDE_REACH)]
    if len(lacking) + sum(item.reason in _PASSED for item in one.items) < len(one.items):
        return
    choices = [
        [Want(Atom(item.permission, where), item.boundary) for where in _places_for(case, item, known, further=further)]
        for item in lacking
    ]
    for wants in islice(product(*choices), _MOST_WAYS):
        yield frozenset(wants)


def _places_for(case: Case, item: TracedItem, known: Sequence[Where], *, further: bool) -> Sequence[Where]:
    if item.boundary is NodeKind.INSTANCE:
        return (Where(ReachKind.INSTANCE),)
    if item.boundary is NodeKind.USER:
        # Nobody is given another user's account, whatever they hold on their own (T2).
        return (Where(ReachKind.USER),) if item.kind is TargetKind.ANYWHERE or item.node == case.own_id else ()
    fitting = [where for where in known if where.reach is ReachKind.SELECTED and item.boundary in where.boundaries]
    if item.kind is not TargetKind.ANYWHERE:
        top = case.traced_place(item)
        if top is not None and top.kind is NodeKind.USER and case.catalog.upstream:
            top = case.places.parse(f"{NodeKind.GROUP.value}:{top.text.partition(':')[2]}")
        if top is None:
            return ()
        # One place below will do, where one is named; a call that changes something needs the place itself (C3).
        inside = [where for where in fitting if item.kind is TargetKind.BELOW and top.id in where.chain]
        return tuple(one for one in dict.fromkeys((_at(case, top), *inside)) if item.boundary in one.boundaries)
    places = list(fitting)
    if not (case.catalog.upstream or case.catalog.single_owner):
        places.append(Where(ReachKind.ALL_MEMBERSHIPS))
    if case.catalog.upstream:
        own = case.places.parse(f"{NodeKind.GROUP.value}:{case.token.owner}")
        return (*places, *([] if own is None else [_at(case, own)]))
    if further or not places:
        role = case.catalog.by_name[item.permission].boundaries[item.boundary]
        below = case.places.below(None, item.boundary)
        fit = (one for one in below if case.places.seen(one) and owner_failure(case, one, role) is None)
        places += (_at(case, one) for one in islice(fit, _SOME_PLACES))
    return places


def _at(case: Case, place: Place) -> Where:
    if case.catalog.upstream:
        return place_of(place)
    held = case.world.memberships(case.token.owner)
    staying = case.catalog.stationary_roles
    joined = any(node == case.token.owner or held.get(node) not in (None, *staying) for node in place.chain)
    return replace(place_of(place), joined=joined)


def suggest(catalog: Catalog, bare: Token, needs: Sequence[Need]) -> Suggestion:
    """The smallest scopes that meet every need that can be met, for a token like `bare` in this version."""
    met = [need for need in needs if need]
    elements = _Elements(catalog, {want.atom for need in met for way in need for want in way})
    ways = [elements.widened(need) for need in met]
    offers = [[elements.mask(way) for way in need] for need in ways]
    choice: Choice = choose(offers, elements.weights)
    atoms: set[Atom] = set()
    for need, taken in zip(ways, choice.taken, strict=True):
        atoms |= need[taken]
    kept = elements.without_spare(atoms, met)
    size = elements.mask(kept).bit_count()
    whole = [masks for need, masks in zip(ways, offers, strict=True) if len(need) < _MOST_WAYS]
    exact = choice.exact and len(whole) == len(ways)
    # What had more alternatives than were looked at says nothing of how small the smallest is.
    bound = choice if len(whole) == len(ways) else choose(whole, elements.weights)
    scopes, targets = _write(catalog, kept)
    return Suggestion(
        scopes,
        targets,
        _resource_owner(catalog, bare, kept),
        tuple(position for position, need in enumerate(needs) if not need),
        exact,
        size,
        size if exact else _count(bound.at_least),
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

    def widened(self, need: Need) -> list[frozenset[Atom]]:
        """The need's ways, with every atom that would do for one that is wanted."""
        found: dict[frozenset[Atom], None] = {}
        for way in need:
            choices = [[want.atom, *self._instead(want)] for want in sorted(way, key=lambda one: _order(one.atom))]
            found |= dict.fromkeys(frozenset(atoms) for atoms in islice(product(*choices), _MOST_WAYS))
        return list(found)

    def _instead(self, want: Want) -> list[Atom]:
        wanted = self._wanted(want)
        return [atom for atom, mask in self._masks.items() if atom != want.atom and not wanted & ~mask]

    def _wanted(self, want: Want) -> Mask:
        number = self._catalog.by_name[want.atom.permission].number
        return 1 << self._numbers[number, want.boundary, want.atom.where]

    def without_spare(self, atoms: Iterable[Atom], needs: Sequence[Need]) -> frozenset[Atom]:
        """Without those that no need would miss, the most giving first."""
        kept = sorted(atoms, key=lambda atom: (-self.weights.of(self._masks[atom]), _order(atom)))
        for atom in list(kept):
            others = [other for other in kept if other != atom]
            given = self.mask(others)
            if all(any(all(not self._wanted(want) & ~given for want in way) for way in need) for need in needs):
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
        return narrow.joined
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


def places_in(needs: Iterable[Need]) -> tuple[Where, ...]:
    """Every place that some way names: what other calls may make do with."""
    return tuple(dict.fromkeys(want.atom.where for need in needs for way in need for want in way))
