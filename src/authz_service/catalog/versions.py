"""One version of a catalog, asked by which ways a holder may come through (C2 to C8, A3 to A8)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from authz_service.catalog.coverage import unusable_sets
from authz_service.catalog.model import (
    ADMIN_ROLE,
    BOUNDARIES,
    NO_ROLE_NEEDED,
    AnyOperation,
    Bundle,
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
from authz_service.catalog.ways import (
    NO_WAY,
    PLACES,
    Alternative,
    Atom,
    Fact,
    HeldScope,
    Holding,
    Means,
    Requirement,
    Roles,
    Way,
    Ways,
)
from authz_service.directory.model import NodeKind

_OWN_NAMESPACE: Final = ""
"""Among roles: whatever the owner of a namespace is in it. No role has an empty name."""
_ROLE: Final = "subject.role"
_CALLER: Final = Target(TargetKind.CALLER)


@dataclass(frozen=True)
class Version:
    """One version of a catalog, as it is compared. Remembers what it worked out; use it for one comparison."""

    catalog: Catalog
    _masks: dict[tuple[HeldScope | frozenset[str], NodeKind], int] = field(default_factory=dict)
    _places: dict[tuple[str, Target], object] = field(default_factory=dict)
    _lost: dict[str, tuple[RequirementSet, ...]] = field(default_factory=dict)
    _odd: dict[str, frozenset[object]] = field(default_factory=dict)

    def ways(self, name: str, boundary: NodeKind, holding: Holding) -> Ways:
        """Of a bare question for this permission at a place of this kind."""
        permission = self.catalog.by_name.get(name)
        if permission is None or boundary not in permission.boundaries:
            return NO_WAY
        return self._of_permission(permission, boundary, holding) | self._public(permission, boundary)

    def conferred(self, holding: Holding) -> Mapping[NodeKind, int]:
        """The mask of permissions that the scopes confer at each boundary, whatever the attributes."""
        found = dict.fromkeys(BOUNDARIES, 0)
        for scope in holding.scopes:
            for boundary in scope.boundaries:
                for number in bits(self._mask(scope, scope.permissions, boundary)):
                    found[boundary] |= self.catalog.confers[boundary][number]
        return found

    def may_hold(self, name: str, boundary: NodeKind, conferred: Mapping[NodeKind, int]) -> bool:
        """Whether the permission is among the conferred ones, or one that anybody has in public."""
        permission = self.catalog.by_name.get(name)
        return permission is not None and (
            bool(conferred[boundary] >> permission.number & 1) or bool(self._public(permission, boundary))
        )

    def requirement(self, operation: Operation | None, holding: Holding, *, mutates: bool) -> Requirement:
        """Of an operation; None is one that this version does not have, which `mutates` says of."""
        if operation is None:
            return _by_target(self._bundles(holding, lambda bundle: _covers_unlisted(bundle, mutates=mutates)))
        if operation.closed and holding.legacy is None:
            return Requirement()
        free = tuple(self._open(operation))
        if not operation.sets:
            carried = _by_target(self._bundles(holding, lambda bundle: operation.id in bundle.operations))
            return Requirement(free=(*free, *carried.free))
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

    def odd_values(self, operation: Operation | None) -> frozenset[object]:
        """Parameters, by their place, that take encoded separators or raw slashes because the catalog names them."""
        named = (("encoded", self.catalog.encoded_parameters), ("spanning", self.catalog.spanning_parameters))
        if operation is None or operation.path is None or not any(listed for _, listed in named):
            return frozenset()
        if operation.id not in self._odd:
            places = _positions(operation).items()
            self._odd[operation.id] = frozenset(
                (place, kind) for name, place in places for kind, listed in named if name in listed
            )
        return self._odd[operation.id]

    # the holder's part

    def _alternatives(self, operation: Operation, one: RequirementSet, holding: Holding) -> Iterator[Alternative]:
        if operation.id not in self._lost:
            self._lost[operation.id] = unusable_sets(self.catalog, operation)
        if one in self._lost[operation.id]:
            return
        held = []
        for position, item in enumerate(one.items):
            extra = self.roles(one.min_role, item.boundary) if position == 0 and one.min_role else frozenset()
            held.append(self._atom(operation, item, holding, extra))
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

    def _atom(self, operation: Operation, item: Item, holding: Holding, extra: Roles) -> Atom:
        permission = self.catalog.by_name[item.permission]
        ways = self._of_permission(permission, item.boundary, holding, extra, operation)
        if _names_one(item):
            ways |= self._public(permission, item.boundary)
        return Atom(self.place(operation, item.target), item.boundary, ways)

    def _of_permission(
        self,
        permission: Permission,
        boundary: NodeKind,
        holding: Holding,
        extra: Roles = frozenset(),
        operation: Operation | None = None,
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
        return frozenset(self._of_bundles(permission, boundary, holding, roles, operation))

    def _of_bundles(
        self, permission: Permission, boundary: NodeKind, holding: Holding, roles: Roles, operation: Operation | None
    ) -> Iterator[Way]:
        """An operation that a bundle carries counts as holding all that it needs (C7)."""
        own = self.facts(permission.when)
        for bundle in self._bundles(holding):
            in_public = bundle.public_only and boundary in PLACES
            carries = operation is not None and operation.id in bundle.operations
            held = self._mask(frozenset({bundle.name}), bundle.permissions, boundary)
            for facts in [frozenset[Fact]()] if carries else self._given(permission, boundary, held):
                yield Way(Means.HELD, None, own | facts, roles, in_public)
                if permission.visitor and boundary in PLACES:
                    yield Way(Means.VISITOR, None, own | facts, in_public=in_public)

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

    def _bundles(self, holding: Holding, keep: Callable[[Bundle], bool] = lambda _: True) -> list[Bundle]:
        found = [self.catalog.bundles[name] for name in holding.legacy or () if name in self.catalog.bundles]
        return [bundle for bundle in found if keep(bundle)]


def _by_target(bundles: Iterable[Bundle]) -> Requirement:
    """Of a call that no set speaks of: being a member at the place that the asker names (C7)."""
    ways = frozenset(Way(Means.UNLISTED, in_public=bundle.public_only) for bundle in bundles)
    return Requirement(free=((Atom(_CALLER, None, ways),),) if ways else ())


def _covers_unlisted(bundle: Bundle, *, mutates: bool) -> bool:
    return bundle.any_operation is AnyOperation.ALL or (bundle.any_operation is AnyOperation.READ and not mutates)


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
