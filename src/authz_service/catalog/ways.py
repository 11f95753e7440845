"""By which ways one version of a catalog lets a holder do something, so that two versions can be compared way by way.

A way is what has to be true at the request: a scope that reaches the place, attributes, roles. One way covers another
when it is open wherever the other is. Where two ways cannot be compared, neither covers the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeAlias

from authz_service.catalog.coverage import unusable_sets
from authz_service.catalog.model import (
    ADMIN_ROLE,
    NO_ROLE_NEEDED,
    AnyOperation,
    Catalog,
    Condition,
    Item,
    Operation,
    Permission,
    RequirementSet,
    Target,
    TargetKind,
    bits,
)
from authz_service.catalog.paths import PieceKind, parse_path
from authz_service.directory.model import NodeKind, Scalar

PLACES: Final = frozenset({NodeKind.PROJECT, NodeKind.GROUP})
_OWN_NAMESPACE: Final = ""
"""Among roles: whatever the owner of a namespace is in it. No role has an empty name."""
_ROLE: Final = "subject.role"
_CALLER: Final = Target(TargetKind.CALLER)

Fact: TypeAlias = tuple[str, object, str, Scalar]
"""An attribute, what else decides its value in this version, the type of a value, the value."""
Roles: TypeAlias = frozenset[frozenset[str]]
"""Of each of these sets, the owner must have one role there."""


@dataclass(frozen=True, slots=True)
class HeldScope:
    """What one scope holds, and the kinds of place that it can reach."""

    boundaries: frozenset[NodeKind]
    permissions: frozenset[str]


@dataclass(frozen=True, slots=True)
class Holding:
    """What a token holds in one catalog, without its places: equal holdings fare alike under any version.

    `legacy` holds the names of a coarse token's bundles; None is a fine-grained token.
    """

    scopes: frozenset[HeldScope] = frozenset()
    legacy: frozenset[str] | None = None


class Means(StrEnum):
    """How a way is open: by a scope or a bundle, to anyone at a public place, to visitors, to members, by the place."""

    HELD = "held"
    PUBLIC = "public"
    VISITOR = "visitor"
    MEMBER = "member"
    UNLISTED = "unlisted"


@dataclass(frozen=True, slots=True)
class Way:
    """`scope` is None for what comes from no scope of a fine-grained token."""

    means: Means
    scope: HeldScope | None = None
    facts: frozenset[Fact] = frozenset()
    roles: Roles = frozenset()

    def covers(self, other: Way) -> bool:
        """Whether this way is open wherever the other is."""
        return (
            self.means is other.means
            and self.scope == other.scope
            and self.facts <= other.facts
            and all(any(fewer <= roles for fewer in other.roles) for roles in self.roles)
        )


Ways: TypeAlias = frozenset[Way]
NO_WAY: Final[Ways] = frozenset()


def ways_cover(these: Ways, others: Ways) -> bool:
    """Whether each of the others is covered by one of these."""
    return all(any(way.covers(other) for way in these) for other in others)


@dataclass(frozen=True, slots=True)
class Atom:
    """One thing that must hold at one place. `boundary` is None where it is enough to be a member there."""

    place: object
    boundary: NodeKind | None
    ways: Ways

    def covers(self, other: Atom) -> bool:
        if self.place != other.place:
            return False
        if self.boundary is None and other.boundary in PLACES:
            # Whoever holds something at a project or group is a member there; what is public is open, but not unlisted.
            within = {Means.HELD} if Way(Means.UNLISTED) in self.ways else {Means.HELD, Means.PUBLIC}
            return all(way.means in within for way in other.ways)
        return self.boundary is other.boundary and ways_cover(self.ways, other.ways)


Alternative: TypeAlias = tuple[Atom, ...]
"""All of these must hold; none at all is open to every valid token."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """What an operation takes of one holder. `free` counts always; `sets` are shadowed by a `when` that matches (C5).

    `frame` says which of the sets count when; alternatives that the holder can never satisfy are left out.
    """

    free: tuple[Alternative, ...] = ()
    sets: tuple[tuple[Alternative, ...], ...] = ()
    frame: tuple[object, ...] = ()
    shadowed: bool = False

    @property
    def possible(self) -> bool:
        """Whether the holder could satisfy it anywhere."""
        return bool(self.free) or any(self.sets)

    def covers(self, other: Requirement) -> bool:
        """Whether this one is satisfied wherever the other is."""
        if not (self.shadowed or other.shadowed):
            own = [*self.free, *(one for each in self.sets for one in each)]
            others = [*other.free, *(one for each in other.sets for one in each)]
            return all(_covered(one, own) for one in others)
        # Which sets count is another question with every `when`, so each is compared with its own counterpart alone.
        counterparts = self.sets if self.frame == other.frame else ((),) * len(other.sets)
        return all(_covered(one, self.free) for one in other.free) and all(
            _covered(one, (*self.free, *counterpart))
            for counterpart, each in zip(counterparts, other.sets, strict=True)
            for one in each
        )


def _covered(one: Alternative, by: Iterable[Alternative]) -> bool:
    return any(all(any(atom.covers(part) for part in one) for atom in other) for other in by)


@dataclass(frozen=True)
class Version:
    """One version of a catalog, as it is compared. Remembers what it worked out; use it for one comparison."""

    catalog: Catalog
    _masks: dict[tuple[HeldScope | frozenset[str], NodeKind], int] = field(default_factory=dict)
    _places: dict[tuple[str, Target], object] = field(default_factory=dict)
    _lost: dict[str, tuple[RequirementSet, ...]] = field(default_factory=dict)

    def ways(self, name: str, boundary: NodeKind, holding: Holding) -> Ways:
        """Of a bare question for this permission at a place of this kind."""
        permission = self.catalog.by_name.get(name)
        if permission is None or boundary not in permission.boundaries:
            return NO_WAY
        return self._of_permission(permission, boundary, holding, carried=False) | self._public(permission, boundary)

    def requirement(self, operation: Operation | None, holding: Holding, *, mutates: bool) -> Requirement:
        """Of an operation; None is one that this version does not have, which `mutates` says of."""
        carries = self._carries(operation, holding)
        unlisted: Requirement = Requirement(free=((Atom(_CALLER, None, frozenset({Way(Means.UNLISTED)})),),))
        if operation is None:
            return unlisted if self._covers_unlisted(holding, mutates=mutates) else Requirement()
        if operation.closed and holding.legacy is None:
            return Requirement()
        free = tuple(self._open(operation))
        if not operation.sets:
            return Requirement(free=(*free, *unlisted.free)) if carries else Requirement(free=free)
        return Requirement(
            free=free,
            sets=tuple(tuple(self._alternatives(operation, each, holding)) for each in operation.sets),
            frame=self.frame(operation),
            shadowed=any(each.when for each in operation.sets),
        )

    # what versions are told apart by, whoever holds what

    def frame(self, operation: Operation) -> tuple[object, ...]:
        return tuple((self.facts(each.when), self.place(operation, each.items[0].target)) for each in operation.sets)

    def facts(self, condition: Condition) -> frozenset[Fact]:
        """A `when` with all that decides what its attributes are."""
        return frozenset((name, self._decides(name), type(value).__name__, value) for name, value in condition)

    def _decides(self, attribute: str) -> object:
        if attribute == _ROLE:
            return (self.catalog.top_role, self.catalog.stationary_roles)
        return self.catalog.attribute_parameters.get(attribute)

    def roles(self, min_role: str | None, boundary: NodeKind) -> Roles:
        """What a `min_role` asks of the owner there; nothing checks it where owners are upstream (C9)."""
        if self.catalog.upstream:
            return frozenset()
        if boundary is NodeKind.INSTANCE:
            return frozenset() if min_role == NO_ROLE_NEEDED else frozenset({frozenset({ADMIN_ROLE})})
        if min_role is None:
            return frozenset()
        satisfying = self.catalog.roles_satisfying.get(min_role, frozenset())
        own = {_OWN_NAMESPACE} if self.catalog.top_role in satisfying else set()
        return frozenset({satisfying | own})

    def place(self, operation: Operation, target: Target) -> object:
        """A target by the places of its parameters in the path: their names mean nothing."""
        key = (operation.id, target)
        if key not in self._places:
            where = _positions(operation)
            parameters = tuple(where.get(name, name) for name in target.parameters)
            owner_is = None if target.owner_is is None else where.get(target.owner_is, target.owner_is)
            # A call that changes something needs a scope over the top itself (C3).
            spread = operation.mutates and target.kind in (TargetKind.BELOW, TargetKind.ANYWHERE)
            plain = target == _CALLER
            self._places[key] = _CALLER if plain else (target.kind, target.names, parameters, owner_is, spread)
        return self._places[key]

    # the holder's part

    def _alternatives(self, operation: Operation, one: RequirementSet, holding: Holding) -> Iterator[Alternative]:
        if operation.id not in self._lost:
            self._lost[operation.id] = unusable_sets(self.catalog, operation)
        if one in self._lost[operation.id]:
            return
        carried = self._carries(operation, holding)
        held = []
        for position, item in enumerate(one.items):
            extra = self.roles(one.min_role, item.boundary) if position == 0 and one.min_role else frozenset()
            held.append(self._atom(operation, item, holding, extra, carried=carried))
        if all(atom.ways for atom in held):
            yield tuple(held)
        if self.reads_public(operation) and all(_names_one(item) and item.boundary in PLACES for item in one.items):
            yield tuple(
                Atom(
                    self.place(operation, item.target),
                    item.boundary,
                    frozenset({Way(Means.PUBLIC, facts=self.facts(self.catalog.by_name[item.permission].when))}),
                )
                for item in one.items
            )

    def _atom(self, operation: Operation, item: Item, holding: Holding, extra: Roles, *, carried: bool) -> Atom:
        permission = self.catalog.by_name[item.permission]
        ways = self._of_permission(permission, item.boundary, holding, extra, carried=carried)
        if _names_one(item):
            ways |= self._public(permission, item.boundary)
        return Atom(self.place(operation, item.target), item.boundary, ways)

    def _of_permission(
        self, permission: Permission, boundary: NodeKind, holding: Holding, extra: Roles = frozenset(), *, carried: bool
    ) -> Ways:
        roles = self.roles(permission.boundaries[boundary], boundary) | extra
        own = self.facts(permission.when)
        if holding.legacy is None:
            return frozenset(
                Way(Means.HELD, scope, own | facts, roles)
                for scope in holding.scopes
                if boundary in scope.boundaries
                for facts in self._given(permission, boundary, self._mask(scope, scope.permissions, boundary))
            )
        if carried:
            found = [frozenset[Fact]()]
        else:
            names = frozenset[str]().union(*(self.catalog.bundles[name].permissions for name in self._bundles(holding)))
            found = list(self._given(permission, boundary, self._mask(holding.legacy, names, boundary)))
        ways = {Way(Means.HELD, None, own | facts, roles) for facts in found}
        if permission.visitor and boundary in PLACES:
            ways |= {Way(Means.VISITOR, None, own | facts) for facts in found}
        return frozenset(ways)

    def _given(self, permission: Permission, boundary: NodeKind, held: int) -> Iterator[frozenset[Fact]]:
        """What must be true besides for the held permissions to confer this one."""
        conferring = held & self.catalog.holders[boundary][permission.number]
        itself = 1 << permission.number
        if conferring & (~self.catalog.conditional | itself):
            yield frozenset()
            return
        for number in bits(conferring):
            yield self.facts(self.catalog.permissions[number].when)

    def _mask(self, key: HeldScope | frozenset[str], names: frozenset[str], boundary: NodeKind) -> int:
        if (key, boundary) not in self._masks:
            known = (self.catalog.by_name.get(name) for name in names)
            self._masks[key, boundary] = sum(
                1 << number for number in {each.number for each in known if each and boundary in each.boundaries}
            )
        return self._masks[key, boundary]

    def _public(self, permission: Permission, boundary: NodeKind) -> Ways:
        if self.catalog.upstream or not permission.reads_public or boundary not in PLACES:
            return NO_WAY
        return frozenset({Way(Means.PUBLIC, facts=self.facts(permission.when))})

    def reads_public(self, operation: Operation) -> bool:
        """Whether the operation's own flag has an effect (C4, C9)."""
        return operation.public_read and not self.catalog.upstream and (operation.reviewed or not operation.mutates)

    def _open(self, operation: Operation) -> Iterator[Alternative]:
        if not operation.open:
            return
        if operation.open_at is None:
            yield ()
        elif operation.reviewed or not operation.mutates:
            yield (Atom(self.place(operation, operation.open_at), None, frozenset({Way(Means.MEMBER)})),)

    def _bundles(self, holding: Holding) -> list[str]:
        return [name for name in holding.legacy or () if name in self.catalog.bundles]

    def _carries(self, operation: Operation | None, holding: Holding) -> bool:
        bundles = self._bundles(holding)
        return operation is not None and any(operation.id in self.catalog.bundles[name].operations for name in bundles)

    def _covers_unlisted(self, holding: Holding, *, mutates: bool) -> bool:
        covered = {self.catalog.bundles[name].any_operation for name in self._bundles(holding)}
        return AnyOperation.ALL in covered or (AnyOperation.READ in covered and not mutates)


def _names_one(item: Item) -> bool:
    """Whether the target is one node that anybody may read when it is public (A7)."""
    return item.target.kind not in (TargetKind.BELOW, TargetKind.ANYWHERE)


def _positions(operation: Operation) -> Mapping[str, tuple[int, int]]:
    """Path parameters by their place: segment and piece."""
    if operation.path is None:
        return {}
    segments = parse_path(operation.path).variants[0]
    return {
        piece.text: (number, position)
        for number, segment in enumerate(segments)
        for position, piece in enumerate(segment.pieces)
        if piece.kind is not PieceKind.TEXT
    }
