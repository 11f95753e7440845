"""From what a token was used for to the smallest scopes that hold it: never more than it holds already."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from authz_service.catalog.model import Catalog, bits
from authz_service.compiler.compile import permission_mask
from authz_service.directory.model import NodeId, NodeKind
from authz_service.engine.case import Case, open_case
from authz_service.engine.model import PermissionRequest, Request, World
from authz_service.engine.overlay import Overlay
from authz_service.engine.places import Place, node_text
from authz_service.engine.reach import held_at, held_in_namespace
from authz_service.engine.suggest import Atom, Suggestion, Want, Way, Where, place_of, suggest
from authz_service.tokens.model import Reach, ReachKind, Scope, Token, TokenKind


@dataclass(frozen=True, slots=True)
class Used:
    """A permission at a place. `place` None is some place or other, or more places than are known."""

    permission: str
    place: NodeId | None


@dataclass(frozen=True, slots=True)
class Shrunk:
    """The scopes for what was used; `targets` names the places of those that are new."""

    scopes: tuple[Scope, ...]
    suggestion: Suggestion


def shrink(token: Token, catalog: Catalog, world: World, request: Request, used: Iterable[Used]) -> Shrunk:
    """The smallest scopes of this catalog. A coarse token gets the fine-grained ones that would do instead.

    `request` says when it is; what it asks is not looked at. What the token does not hold any more, and places that
    are gone, are left out. Where a place is not known, or a scope on it would give more than the token holds there,
    the scopes that hold the permission keep it. What it holds only by another permission, and only while an attribute
    lets that confer it, stays held by that other one.
    """
    there = Overlay(world).with_token(token)
    case = open_case(token, catalog, there, replace(request, ask=PermissionRequest("")))
    parts = _Parts()
    somewhere: list[str] = []
    for one in used:
        permission = catalog.by_name.get(one.permission)
        if permission is None:
            continue
        if one.place is None:
            somewhere.append(permission.name)
        else:
            _add_at(case, permission.name, one.place, parts)
    for name in dict.fromkeys(somewhere):
        if not _is_placed(catalog, name, parts):
            _keep(case, name, parts)
    needs = [(_wants(catalog, atom),) for atom in parts.atoms]
    found = suggest(catalog, token, needs)
    whole: dict[Reach, list[str]] = {}
    for position, name in parts.kept:
        whole.setdefault(token.scopes[position].reach, []).append(name)
    scopes = [*found.scopes]
    scopes += (Scope(catalog.name, reach, tuple(dict.fromkeys(names))) for reach, names in whole.items())
    return Shrunk(_joined(scopes), found)


def _wants(catalog: Catalog, atom: Atom) -> Way:
    """The whole of an atom: at every boundary that its place covers."""
    exists = catalog.by_name[atom.permission].boundaries
    return frozenset(Want(atom, boundary) for boundary in atom.where.boundaries if boundary in exists)


@dataclass(slots=True)
class _Parts:
    """What is to be given at single places, and which permission of which scope stays with that scope's whole reach."""

    atoms: dict[Atom, None] = field(default_factory=dict)
    kept: dict[tuple[int, str], None] = field(default_factory=dict)

    def add(self, names: Iterable[str], where: Where) -> None:
        self.atoms |= dict.fromkeys(Atom(name, where) for name in names)


def _is_placed(catalog: Catalog, name: str, parts: _Parts) -> bool:
    """Whether places of every kind at which the permission exists are given anyway: one of them will do.

    Not where a call asks for a role of its own, or an attribute has a say: another place may be the one that fits.
    """
    permission = catalog.by_name[name]
    kinds = {atom.where.kind for atom in parts.atoms if atom.permission == name}
    asks_more = any(
        choice.min_role is not None and choice.items[0].permission == name
        for operation in catalog.operations.values()
        for choice in operation.sets
    )
    return set(permission.boundaries) <= kinds and not permission.when and not asks_more


def _joined(scopes: list[Scope]) -> tuple[Scope, ...]:
    """Scopes of one reach are one."""
    held: dict[tuple[str, Reach], dict[str, None]] = {}
    for scope in scopes:
        held.setdefault((scope.catalog, scope.reach), {}).update(dict.fromkeys(scope.permissions))
    return tuple(Scope(catalog, reach, tuple(names)) for (catalog, reach), names in held.items())


def _add_at(case: Case, name: str, node: NodeId, parts: _Parts) -> None:
    place = _place(case, node)
    if place is None:
        return
    if case.token.kind is TokenKind.LEGACY:
        account = place.kind is NodeKind.USER and place.id == case.own_id
        parts.atoms[Atom(name, Where(ReachKind.USER) if account else _where(place))] = None
        return
    if place.kind is NodeKind.USER:
        # The account, or the namespace that projects lie in: whichever the token holds it on.
        parts.add(_given_by(case, name, case.lookup.user, NodeKind.USER), Where(ReachKind.USER))
        held = held_in_namespace(case.lookup, case.token, case.catalog, place)
        given = _given_by(case, name, held, NodeKind.PROJECT)
        if not given:
            _add_below(case, name, place, parts)
        elif case.catalog.upstream:
            _keep(case, name, parts)
        else:
            parts.add(given, _where(place))
        return
    if place.kind is NodeKind.GROUP:
        kinds = [kind for kind in (NodeKind.GROUP, NodeKind.PROJECT) if kind in case.catalog.by_name[name].boundaries]
        given = _given_by(case, name, _selected_on(case, place), *kinds)
    else:
        held = held_at(case.lookup, case.token, case.catalog, place, case.world)
        given = _given_by(case, name, held, place.kind)
    parts.add(given, _where(place))
    if given != [name]:
        _add_below(case, name, place, parts)


def _given_by(case: Case, name: str, held: int, *kinds: NodeKind) -> list[str]:
    """What of these permissions to give, so that it is held at places of all these kinds and nothing more is.

    The permission itself, unless what confers it somewhere does so only while an attribute matches; nothing where it is
    not held at all of them.
    """
    catalog = case.catalog
    own = catalog.by_name[name].number
    giving = [[catalog.permissions[one] for one in bits(held & _conferring(case, name, kind))] for kind in kinds]
    if not giving or not all(giving):
        return []
    if all(any(one.number == own or not one.when for one in some) for some in giving):
        return [name]
    return list(dict.fromkeys(one.name for some in giving for one in some))


def _selected_on(case: Case, place: Place) -> int:
    """What is selected on a group or above it: a scope on the group gives it to all below, too."""
    selected = 0
    for node in place.chain:
        selected |= case.lookup.selected.get(node, 0)
    return selected


def _add_below(case: Case, name: str, place: Place, parts: _Parts) -> None:
    """A call about a place, or about all that lies below it, that rested on a scope of another shape."""
    for position, scope in enumerate(case.token.scopes):
        held = _held_names(case, scope, name)
        if scope.reach.kind is not ReachKind.SELECTED:
            parts.kept |= dict.fromkeys((position, one) for one in held)
            continue
        for inner in scope.reach.nodes if held else ():
            below = _place(case, inner)
            if below is not None and (place.id in below.chain or below.id in place.chain):
                parts.atoms |= dict.fromkeys(Atom(one, _where(below)) for one in held)


def _keep(case: Case, name: str, parts: _Parts) -> None:
    for position, scope in enumerate(case.token.scopes):
        parts.kept |= dict.fromkeys((position, one) for one in _held_names(case, scope, name))


def _held_names(case: Case, scope: Scope, name: str) -> list[str]:
    """The scope's own permissions that this one rests on: itself, or at each kind of place what confers it there."""
    if scope.catalog != case.catalog.name:
        return []
    catalog = case.catalog
    number = catalog.by_name[name].number
    held = permission_mask(catalog, scope.permissions)
    if held >> number & 1:
        return [name]
    found: dict[str, None] = {}
    for row in catalog.holders.values():
        conferring = [catalog.permissions[one] for one in bits(held & row[number])]
        # One that confers it only when an attribute matches may not be enough.
        free = next((position for position, one in enumerate(conferring) if not one.when), len(conferring))
        found |= dict.fromkeys(one.name for one in conferring[: free + 1])
    return list(found)


def _conferring(case: Case, name: str, kind: NodeKind) -> int:
    return case.catalog.holders[kind][case.catalog.by_name[name].number]


def _where(place: Place) -> Where:
    return Where(ReachKind.INSTANCE) if place.kind is NodeKind.INSTANCE else place_of(place)


def _place(case: Case, node: NodeId) -> Place | None:
    if isinstance(node, str):
        own = case.places.own()  # whose name need not be one that a path could have
        return own if own is not None and own.text == case.catalog.fold(node) else case.places.parse(node)
    found = case.world.node(node)
    return None if found is None else case.places.parse(node_text(case.world, found))
