"""What a newer version of a catalog changes for one holder: what it breaks, and what it widens (C8).

The promise: whoever is not said to be widened is allowed nothing that was denied before, and whoever is not said to be
broken is denied nothing that was allowed. The other way round it errs: what cannot be compared counts as both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeAlias

from authz_service.catalog.model import BOUNDARIES, Catalog, Operation, OperationKind, bits
from authz_service.catalog.paths import READING_METHODS, parse_path
from authz_service.catalog.routes import Match, Router
from authz_service.catalog.versions import Version
from authz_service.catalog.ways import Holding, Requirement, ways_cover
from authz_service.directory.model import NodeKind

_SAMPLE: Final = "x0"
"""In place of every path parameter, to see which operation answers a request in the other version."""


OTHER_READS: Final = "any call in no table that reads"
OTHER_WRITES: Final = "any call in no table that changes something"
"""In place of an operation's id."""


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
        turns = {each.turn for each in self.permissions} | {each.turn for each in self.calls}
        return bool(turns & {Turn.LOST, Turn.NARROWER}) or any(each.narrows for each in self.shifts)

    @property
    def widens(self) -> bool:
        return self.widens_known or any(each.unknown and each.turn is Turn.GAINED for each in self.calls)

    @property
    def widens_known(self) -> bool:
        """As `widens`, without calls that the older version does not know."""
        turns = {each.turn for each in self.permissions} | {each.turn for each in self.calls if not each.unknown}
        return bool(turns & {Turn.GAINED, Turn.WIDER}) or any(each.widens for each in self.shifts)


_Pair: TypeAlias = tuple[Operation | None, Operation | None]
"""What answers a request in the older version, and in the newer one."""


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
        self._names = tuple(dict.fromkeys((*self.old.by_name, *self.new.by_name)))
        self._pairs = tuple(_pairs(self.old, self.new))
        self._moved_names = tuple(
            (name, boundary)
            for name in self._names
            for boundary in BOUNDARIES
            if self._shapes.of_name(self._before, name, boundary) != self._shapes.of_name(self._after, name, boundary)
        )
        moved = [position for position, pair in enumerate(self._pairs) if self._is_moved(*pair)]
        self._free_pairs = tuple(position for position in moved if self._is_free(*self._pairs[position]))
        self._index = tuple(
            _index(version, {position: self._pairs[position][side] for position in moved})
            for side, version in enumerate((self._before, self._after))
        )

    def effect(self, holding: Holding) -> Effect:
        """What changes for whoever holds this."""
        if holding not in self._effects:
            self._effects[holding] = self._work_out(holding)
        return self._effects[holding]

    def _work_out(self, holding: Holding) -> Effect:
        return Effect(
            lacking=tuple(sorted(self._lacking(holding))),
            permissions=tuple(self._permission_turns(self._names_for(holding), holding)),
            calls=(
                *(turn for pair in self._pairs_for(holding) for turn in self._call_turns(*pair, holding)),
                *(turn for mutates in (False, True) for turn in self._unlisted_turns(holding, mutates=mutates)),
            ),
            shifts=tuple(shift for shift in self.shifts if holding.legacy is not None or not shift.legacy_only),
        )

    def _names_for(self, holding: Holding) -> Iterable[tuple[str, NodeKind]]:
        """The names that may turn for this holder: what its own names confer, and what anybody may read."""
        if holding.legacy is not None:
            # The content of a bundle is no part of the shapes, so a coarse token is asked about everything.
            return ((name, boundary) for name in self._names for boundary in BOUNDARIES)
        versions = [(version, version.conferred(holding)) for version in (self._before, self._after)]
        return (
            (name, boundary)
            for name, boundary in self._moved_names
            if any(version.may_hold(name, boundary, conferred) for version, conferred in versions)
        )

    def _pairs_for(self, holding: Holding) -> Iterable[_Pair]:
        if holding.legacy is not None:
            return self._pairs
        found = dict.fromkeys(self._free_pairs)
        for version, index in zip((self._before, self._after), self._index, strict=True):
            for boundary, mask in version.conferred(holding).items():
                for number in bits(mask):
                    found.update(dict.fromkeys(index.get((number, boundary), ())))
        return (self._pairs[position] for position in sorted(found))

    def _lacking(self, holding: Holding) -> Iterator[str]:
        if holding.legacy is not None:
            yield from (name for name in holding.legacy if name not in self.new.bundles)
            return
        held = frozenset[str]().union(*(scope.permissions for scope in holding.scopes))
        yield from (name for name in held if name in self.old.by_name and name not in self.new.by_name)

    def _permission_turns(self, asked: Iterable[tuple[str, NodeKind]], holding: Holding) -> Iterator[PermissionTurn]:
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
        """What a permission was called in the older version, where the newer one has another name for it."""
        now = self.new.by_name.get(name)
        if name in self.old.by_name or now is None:
            return []
        return [former for former in self.old.by_name if self.new.by_name.get(former) is now]

    def _call_turns(self, old: Operation | None, new: Operation | None, holding: Holding) -> Iterator[CallTurn]:
        mutates = _looks_mutating(old or new)
        before = self._before.requirement(old, holding, mutates=mutates)
        after = self._after.requirement(new, holding, mutates=mutates)
        more, fewer = self._after.odd_values(new), self._before.odd_values(old)
        if _gains(new, before, after) or (old is not None and after.possible and more - fewer):
            shown = new or old
            turn = Turn.WIDER if before.possible else Turn.GAINED
            yield CallTurn("" if shown is None else shown.id, turn, unknown=old is None)
        if _gains(old, after, before) or (new is not None and before.possible and fewer - more):
            shown = old or new
            yield CallTurn("" if shown is None else shown.id, Turn.NARROWER if after.possible else Turn.LOST)

    def _unlisted_turns(self, holding: Holding, *, mutates: bool) -> Iterator[CallTurn]:
        """Of calls that stand in no table of either version, which a bundle may cover."""
        name = OTHER_WRITES if mutates else OTHER_READS
        before = self._before.requirement(None, holding, mutates=mutates)
        after = self._after.requirement(None, holding, mutates=mutates)
        if not before.covers(after):
            yield CallTurn(name, Turn.WIDER if before.possible else Turn.GAINED)
        if not after.covers(before):
            yield CallTurn(name, Turn.NARROWER if after.possible else Turn.LOST)

    def _is_free(self, old: Operation | None, new: Operation | None) -> bool:
        """Whether somebody who holds nothing may come through: it is open, or anybody may read what is public."""
        nobody = Holding()
        return (
            self._before.requirement(old, nobody, mutates=True).possible
            or self._after.requirement(new, nobody, mutates=True).possible
        )

    def _is_moved(self, old: Operation | None, new: Operation | None) -> bool:
        if old is None or new is None:
            return True
        before, after = self._shapes.of_operation(self._before, old), self._shapes.of_operation(self._after, new)
        return before != after


def _index(version: Version, pairs: Mapping[int, Operation | None]) -> Mapping[tuple[int, NodeKind], list[int]]:
    """Which pairs have an item of a permission at a boundary."""
    found: dict[tuple[int, NodeKind], list[int]] = {}
    for position, operation in pairs.items():
        for each in operation.sets if operation is not None else ():
            for item in each.items:
                number = version.catalog.by_name[item.permission].number
                found.setdefault((number, item.boundary), []).append(position)
    return found


def _gains(operation: Operation | None, before: Requirement, after: Requirement) -> bool:
    """Whether `after`, which is the operation's, may be satisfied where `before` is not.

    A call in no table is judged by the place that the asker names: that cannot be compared, and counts as no gain.
    """
    return not (operation is None and before.possible) and not before.covers(after)


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
            version.odd_values(operation),
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


def _looks_mutating(operation: Operation | None) -> bool:
    """Of a request in no table: its method alone says so."""
    if operation is None or operation.kind is not OperationKind.REST:
        return operation is None or operation.mutates
    return operation.method not in READING_METHODS


def _pairs(old: Catalog, new: Catalog) -> Iterator[_Pair]:
    """Which operation answers, in each version, what an operation of the other one is a request for.

    An operation whose path another version takes for one of its own (`/shops/all`, where there was only `/shops/:shop`)
    is compared with that one.
    """
    found: dict[tuple[str | None, str | None], _Pair] = {}
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
        # Where only texts are compared, a policy covers more or fewer of them as well, and that is the other way round.
        texts = old.upstream or new.upstream
        yield Shift("case_sensitive", message, widens=old.case_sensitive or texts, narrows=new.case_sensitive or texts)
    if not new.upstream and old.stationary_roles != new.stationary_roles:
        fewer, more_roles = old.stationary_roles - new.stationary_roles, new.stationary_roles - old.stationary_roles
        names = ", ".join(f"`{name}`" for name in sorted(fewer | more_roles))
        message = f"whether memberships count below their place changes for {names}"
        yield Shift("roles_inherit", message, widens=bool(fewer), narrows=bool(more_roles))
    ended, ends = old.forbidding_legacy_ends_public_reads, new.forbidding_legacy_ends_public_reads
    if ended != ends:
        message = "what a policy against coarse tokens ends is not the same"
        yield Shift("public_reads", message, widens=ended, narrows=ends, legacy_only=True)
