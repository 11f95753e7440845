"""What a newer version of a catalog changes for one holder: what it breaks, and what it widens (C8).

The promise: whoever is not said to be widened is allowed nothing that was denied before, and whoever is not said to be
broken is denied nothing that was allowed. The other way round it errs: what cannot be compared counts as both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from authz_service.catalog.model import BOUNDARIES, Catalog, Operation, OperationKind
from authz_service.catalog.paths import READING_METHODS, parse_path
from authz_service.catalog.routes import Match, Router
from authz_service.catalog.ways import Holding, Requirement, Version, ways_cover
from authz_service.directory.model import NodeKind

_SAMPLE: Final = "x0"
"""In place of every path parameter, to see which operation answers a request in the other version."""


class Turn(StrEnum):
    """What becomes of one question of a holder."""

    LOST = "lost"
    NARROWER = "narrower"
    GAINED = "gained"
    WIDER = "wider"


@dataclass(frozen=True, slots=True)
class PermissionTurn:
    """A permission at a boundary. `implied`: the holder does not name it, but something that includes it."""

    permission: str
    boundary: NodeKind
    turn: Turn
    implied: bool


@dataclass(frozen=True, slots=True)
class CallTurn:
    """An operation by its id; `unknown` is one that the older version does not know."""

    operation: str
    turn: Turn
    unknown: bool = False


@dataclass(frozen=True, slots=True)
class Shift:
    """A change of the whole catalog that touches every holder, whatever it holds."""

    code: str
    message: str
    widens: bool
    narrows: bool
    legacy_only: bool = False


@dataclass(frozen=True, slots=True)
class Effect:
    """All that changes for one holder. `lacking` are names it holds that the newer version does not have."""

    lacking: tuple[str, ...] = ()
    permissions: tuple[PermissionTurn, ...] = ()
    calls: tuple[CallTurn, ...] = ()
    shifts: tuple[Shift, ...] = ()

    @property
    def breaks(self) -> bool:
        turns = {each.turn for each in (*self.permissions, *self.calls)}
        return bool(turns & {Turn.LOST, Turn.NARROWER}) or any(each.narrows for each in self.shifts)

    @property
    def widens(self) -> bool:
        return self.widens_known or any(each.unknown and each.turn is Turn.GAINED for each in self.calls)

    @property
    def widens_known(self) -> bool:
        """As `widens`, without calls that the older version does not know."""
        turns = {each.turn for each in self.permissions} | {each.turn for each in self.calls if not each.unknown}
        return bool(turns & {Turn.GAINED, Turn.WIDER}) or any(each.widens for each in self.shifts)


@dataclass
class Comparison:
    """Two versions of one catalog. Made once, asked for many holdings; equal holdings are worked out once."""

    old: Catalog
    new: Catalog
    incompatible: tuple[str, ...] = ()
    """Why no token of the older version can be taken over; empty when they can."""
    shifts: tuple[Shift, ...] = ()
    _effects: dict[Holding, Effect] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.incompatible = tuple(_incompatible(self.old, self.new))
        self.shifts = tuple(_shifts(self.old, self.new))
        self._before, self._after = Version(self.old), Version(self.new)
        self._shapes = _Shapes(self._before, self._after)
        self._names = tuple(dict.fromkeys(each.name for each in (*self.old.permissions, *self.new.permissions)))
        self._pairs = tuple(_pairs(self.old, self.new))
        self._moved_names = tuple(
            (name, boundary)
            for name in self._names
            for boundary in BOUNDARIES
            if self._shapes.of_name(self._before, name, boundary) != self._shapes.of_name(self._after, name, boundary)
        )
        self._moved_pairs = tuple(pair for pair in self._pairs if self._is_moved(*pair))

    def effect(self, holding: Holding) -> Effect:
        """What changes for whoever holds this."""
        if holding not in self._effects:
            self._effects[holding] = self._work_out(holding)
        return self._effects[holding]

    def _work_out(self, holding: Holding) -> Effect:
        # The content of a bundle is no part of the shapes, so a coarse token is asked about everything.
        coarse = holding.legacy is not None
        every = ((name, boundary) for name in self._names for boundary in BOUNDARIES)
        return Effect(
            lacking=tuple(sorted(self._lacking(holding))),
            permissions=tuple(self._permission_turns(every if coarse else iter(self._moved_names), holding)),
            calls=tuple(
                turn
                for pair in (self._pairs if coarse else self._moved_pairs)
                for turn in self._call_turns(*pair, holding)
            ),
            shifts=tuple(shift for shift in self.shifts if coarse or not shift.legacy_only),
        )

    def _lacking(self, holding: Holding) -> Iterator[str]:
        if holding.legacy is not None:
            yield from (name for name in holding.legacy if name not in self.new.bundles)
            return
        held = frozenset[str]().union(*(scope.permissions for scope in holding.scopes))
        yield from (name for name in held if name in self.old.by_name and name not in self.new.by_name)

    def _permission_turns(self, asked: Iterator[tuple[str, NodeKind]], holding: Holding) -> Iterator[PermissionTurn]:
        held = frozenset[str]().union(*(scope.permissions for scope in holding.scopes))
        for name, boundary in asked:
            before = self._before.ways(name, boundary, holding)
            after = self._after.ways(name, boundary, holding)
            for former in self._former_names(name):
                before |= self._before.ways(former, boundary, holding)
            implied = name not in held
            if not ways_cover(before, after):
                yield PermissionTurn(name, boundary, Turn.WIDER if before else Turn.GAINED, implied)
            if not ways_cover(after, before):
                yield PermissionTurn(name, boundary, Turn.NARROWER if after else Turn.LOST, implied)

    def _former_names(self, name: str) -> list[str]:
        """Names of the older version by which the newer one knows a permission that it calls otherwise."""
        if name in self.old.by_name or name not in self.new.by_name:
            return []
        now = self.new.by_name[name].name
        return [former for former, today in self.new.aliases.items() if today == now and former in self.old.by_name]

    def _call_turns(self, old: Operation | None, new: Operation | None, holding: Holding) -> Iterator[CallTurn]:
        mutates = _looks_mutating(old or new)
        before = self._before.requirement(old, holding, mutates=mutates)
        after = self._after.requirement(new, holding, mutates=mutates)
        gained = self._gains(old, new, before, after)
        lost = self._gains(new, old, after, before)
        if gained:
            shown = new or old
            turn = Turn.WIDER if before.possible else Turn.GAINED
            yield CallTurn("" if shown is None else shown.id, turn, unknown=old is None)
        if lost:
            shown = old or new
            yield CallTurn("" if shown is None else shown.id, Turn.NARROWER if after.possible else Turn.LOST)

    def _gains(self, one: Operation | None, other: Operation | None, first: Requirement, second: Requirement) -> bool:
        """Whether the second may be satisfied where the first is not."""
        if other is None and first.possible:
            # A call in no table is judged by the place that the asker names: it cannot be compared, and is no gain.
            return False
        if not first.covers(second):
            return True
        more = self._takes(other) - self._takes(one)
        return one is not None and second.possible and bool(more)

    def _takes(self, operation: Operation | None) -> frozenset[object]:
        """Which odd values its path's parameters take."""
        if operation is None:
            return frozenset()
        version = self._after if self.new.operations.get(operation.id) is operation else self._before
        return _odd_values(version.catalog, operation)

    def _is_moved(self, old: Operation | None, new: Operation | None) -> bool:
        if old is None or new is None:
            return True
        before, after = self._shapes.of_operation(self._before, old), self._shapes.of_operation(self._after, new)
        return before != after


class _Shapes:
    """What a permission or an operation is, but for its name: equal shapes are the same to every holder.

    Shapes of permissions are numbered, so that those of operations stay small.
    """

    def __init__(self, *versions: Version) -> None:
        self._numbers: dict[object, int] = {}
        self._names: dict[tuple[int, str, NodeKind], int] = {}
        self._texts = {id(version): _texts(version.catalog) for version in versions}

    def of_name(self, version: Version, name: str, boundary: NodeKind) -> int:
        key = (id(version), name, boundary)
        if key not in self._names:
            shape = self._permission(version, name, boundary)
            self._names[key] = self._numbers.setdefault(shape, len(self._numbers))
        return self._names[key]

    def _permission(self, version: Version, name: str, boundary: NodeKind) -> object:
        catalog = version.catalog
        permission = catalog.by_name.get(name)
        if permission is None or boundary not in permission.boundaries:
            return None
        conferring = catalog.holders[boundary][permission.number]
        texts = self._texts[id(version)]
        return (
            frozenset(
                (text, version.facts(each.when))
                for each in catalog.permissions
                if conferring >> each.number & 1
                for text in texts[each.name]
            ),
            version.facts(permission.when),
            version.roles(permission.boundaries[boundary], boundary),
            permission.reads_public and not catalog.upstream,
            permission.visitor,
        )

    def of_operation(self, version: Version, operation: Operation) -> object:
        return (
            operation.mutates,
            operation.closed,
            operation.open,
            None if operation.open_at is None else version.place(operation, operation.open_at),
            operation.reviewed,
            version.reads_public(operation),
            _odd_values(version.catalog, operation),
            version.frame(operation),
            tuple(
                (
                    version.roles(each.min_role, each.items[0].boundary) if each.min_role else None,
                    tuple(
                        (
                            self.of_name(version, item.permission, item.boundary),
                            item.boundary,
                            version.place(operation, item.target),
                        )
                        for item in each.items
                    ),
                )
                for each in operation.sets
            ),
        )


def _texts(catalog: Catalog) -> Mapping[str, tuple[str, ...]]:
    """Each permission by name, with all names that tokens may hold it by."""
    found: dict[str, list[str]] = {each.name: [] for each in catalog.permissions}
    for text, permission in catalog.by_name.items():
        found[permission.name].append(text)
    return {name: tuple(texts) for name, texts in found.items()}


def _odd_values(catalog: Catalog, operation: Operation) -> frozenset[object]:
    """Parameters, by their place, that take encoded separators or raw slashes only because the catalog names them."""
    if operation.path is None or not (catalog.encoded_parameters or catalog.spanning_parameters):
        return frozenset()
    names = enumerate(parse_path(operation.path).parameters)
    return frozenset(
        (place, kind)
        for place, name in names
        for kind, listed in (("encoded", catalog.encoded_parameters), ("spanning", catalog.spanning_parameters))
        if name in listed
    )


def _looks_mutating(operation: Operation | None) -> bool:
    """Of a request in no table: its method alone says so."""
    if operation is None or operation.kind is not OperationKind.REST:
        return operation is None or operation.mutates
    return operation.method not in READING_METHODS


def _pairs(old: Catalog, new: Catalog) -> Iterator[tuple[Operation | None, Operation | None]]:
    """Which operation answers, in each version, what an operation of the other one is a request for.

    An operation whose path another version takes for one of its own (`/shops/all`, where there was only `/shops/:shop`)
    is compared with that one.
    """
    found: dict[tuple[str | None, str | None], tuple[Operation | None, Operation | None]] = {}
    before, after = _router(old), _router(new)
    for id_, operation in old.operations.items():
        other = new.operations.get(id_) or _answering(new, before, after, operation)
        found[id_, other.id if other else None] = (operation, other)
    for id_, operation in new.operations.items():
        other = old.operations.get(id_) or _answering(old, after, before, operation)
        found[other.id if other else None, id_] = (other, operation)
    yield from found.values()


def _router(catalog: Catalog) -> Router:
    return Router(catalog.operations.values(), encoded=catalog.encoded_parameters, spanning=catalog.spanning_parameters)


def _answering(catalog: Catalog, own: Router, other: Router, operation: Operation) -> Operation | None:
    """The operation of the other version that answers a sample request of this one."""
    if operation.method is None or operation.path is None:
        return None
    try:
        sample = own.format_target(operation.id, dict.fromkeys(parse_path(operation.path).parameters, _SAMPLE))
    except ValueError:
        return None
    found = other.resolve(operation.method, sample)
    return catalog.operations[found.operation_id] if isinstance(found, Match) else None


def _incompatible(old: Catalog, new: Catalog) -> Iterator[str]:
    if old.owner_check is not new.owner_check:
        yield f"owners and places are known otherwise: `owner_check` is {new.owner_check.value} in the newer version"
    if old.source != new.source:
        yield "the newer version reads another `source` of the directory, where the places of these tokens do not lie"
    if old.single_owner != new.single_owner:
        yield "`single_owner` differs, and these tokens were issued by the older rule"


def _shifts(old: Catalog, new: Catalog) -> Iterator[Shift]:
    if old.base_path != new.base_path:
        message = f"requests come under `{new.base_path}` in place of `{old.base_path}`"
        yield Shift("base_path", message, widens=True, narrows=True)
    if old.case_sensitive != new.case_sensitive:
        more = "not any more" if old.case_sensitive else "now"
        message = f"paths compare by case {more}"
        yield Shift("case_sensitive", message, widens=old.case_sensitive, narrows=new.case_sensitive)
    if not new.upstream and old.stationary_roles != new.stationary_roles:
        fewer, more_roles = old.stationary_roles - new.stationary_roles, new.stationary_roles - old.stationary_roles
        names = ", ".join(f"`{name}`" for name in sorted(fewer | more_roles))
        message = f"whether memberships count below their place changes for {names}"
        yield Shift("roles_inherit", message, widens=bool(fewer), narrows=bool(more_roles))
    ended, ends = old.forbidding_legacy_ends_public_reads, new.forbidding_legacy_ends_public_reads
    if ended != ends:
        message = "what a policy against coarse tokens ends is not the same"
        yield Shift("public_reads", message, widens=ended, narrows=ends, legacy_only=True)
