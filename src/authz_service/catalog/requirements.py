"""Reads requirement sets and gives each item its boundary and target (rules C3, C5, A6)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final

from authz_service.catalog.document import Listing, Section, Value
from authz_service.catalog.faults import CatalogFault, Faults
from authz_service.catalog.format import BOUNDARY, PERMISSION
from authz_service.catalog.model import (
    BOUNDARIES,
    Condition,
    Item,
    ParameterKind,
    Permission,
    RequirementSet,
    Target,
    TargetKind,
)
from authz_service.catalog.paths import OperationText
from authz_service.catalog.permissions import Permissions
from authz_service.catalog.reading import Word, condition_in, text_in, word_of
from authz_service.catalog.targets import TargetRules, parse_target_rule
from authz_service.directory.model import NodeKind

_INSTANCE: Final = frozenset({NodeKind.INSTANCE})
_USER: Final = frozenset({NodeKind.USER})
_PLACES: Final = (NodeKind.PROJECT, NodeKind.GROUP)


@dataclass(frozen=True, slots=True)
class WrittenItem:
    """An item as written: boundary and target may be left to the rules."""

    permission: Permission
    line: int
    boundary: NodeKind | None = None
    target: Target | None = None


@dataclass(frozen=True, slots=True)
class WrittenSet:
    """A requirement set as written. `min_role` is checked once the first item's boundary is known."""

    items: tuple[WrittenItem, ...]
    line: int
    when: Condition = ()
    min_role: Word | None = None


@dataclass(frozen=True, slots=True)
class ReadSet:
    """A set with all its items known, and the line to blame it on."""

    requirement: RequirementSet
    line: int
    min_role: Word | None = None


def read_target(word: Word, faults: Faults) -> Target | None:
    """A target's text; an unreadable one is a fault."""
    target = parse_target_rule(word.text)
    if target is None:
        message = (
            f"`{word.text}` is no target; write `project {{id}}`, `below group {{id}}`, `self`, `self {{username}}`,"
            " `instance`, `anywhere` or `caller`"
        )
        faults.add(word.line, CatalogFault.BAD_TARGET, message)
    return target


def read_sets(needs: Value | None, permissions: Permissions, faults: Faults) -> tuple[WrittenSet, ...]:
    """The alternatives of a `needs`. One with an unreadable item is left out: its fault is noted."""
    found = [_read_set(each, permissions, faults) for each in (needs.items if isinstance(needs, Listing) else ())]
    return tuple(each for each in found if each is not None)


def _read_set(value: Value, permissions: Permissions, faults: Faults) -> WrittenSet | None:
    if isinstance(value, Section):
        written = value.find("all_of")
        parts = written.items if isinstance(written, Listing) else ()
        role = value.find("min_role")
        items = [_read_item(part, permissions, faults) for part in parts]
        whole = tuple(item for item in items if item is not None)
        if not whole or len(whole) < len(items):
            if not items and written is not None and not faults.has(CatalogFault.BAD_TYPE, CatalogFault.MISSING_KEY):
                faults.add(value.line, CatalogFault.NO_REQUIREMENT, "`all_of` is empty; name at least one permission")
            return None
        return WrittenSet(whole, value.line, condition_in(value, "when"), None if role is None else word_of(role))
    word = word_of(value)
    items = [_read_short(Word(part.strip(), word.line), permissions, faults) for part in word.text.split(" + ")]
    whole = tuple(item for item in items if item is not None)
    return WrittenSet(whole, word.line) if len(whole) == len(items) else None


def _read_item(value: Value, permissions: Permissions, faults: Faults) -> WrittenItem | None:
    if not isinstance(value, Section):
        return _read_short(word_of(value), permissions, faults)
    name = value.find("permission")
    permission = None if name is None else permissions.find(word_of(name), faults)
    boundary = text_in(value, "boundary")
    written = value.find("target")
    target = None if written is None else read_target(word_of(written), faults)
    if permission is None or (written is not None and target is None):
        return None
    return WrittenItem(permission, value.line, None if boundary is None else NodeKind(boundary), target)


def _read_short(word: Word, permissions: Permissions, faults: Faults) -> WrittenItem | None:
    """`permission` or `permission@boundary`."""
    name, at, boundary = word.text.partition("@")
    if PERMISSION.pattern is None or not PERMISSION.pattern.fullmatch(name):
        message = f"`{word.text}` is no item; write `resource:action` or `resource:action@project`"
        faults.add(word.line, CatalogFault.BAD_NAME, message)
        return None
    if at and boundary not in BOUNDARY.words:
        faults.add(word.line, CatalogFault.UNKNOWN_BOUNDARY, f"`{boundary}` is no boundary; it is {BOUNDARY.what}")
        return None
    permission = permissions.find(Word(name, word.line), faults)
    return None if permission is None else WrittenItem(permission, word.line, NodeKind(boundary) if at else None)


class Resolver:
    """Completes the sets of one operation. What the file leaves open is filled in where there is one answer only."""

    def __init__(self, operation: OperationText, rules: TargetRules, override: Target | None, faults: Faults) -> None:
        self._operation = operation
        self._rules = rules
        self._override = override
        self._matched = override or rules.find(operation)
        self._faults = faults

    def resolve(self, written: Sequence[WrittenSet]) -> tuple[ReadSet, ...]:
        """The sets with every boundary and target; what stays unclear is a fault, and left out."""
        spread = [part for each in written for part in self._spread(each)]
        found = []
        for each in spread:
            items = [self._item(item, _alternatives(spread, item, each)) for item in each.items]
            whole = tuple(item for item in items if item is not None)
            if len(whole) == len(items):
                role = None if each.min_role is None else each.min_role.text
                found.append(ReadSet(RequirementSet(whole, each.when, role), each.line, each.min_role))
        return tuple(found)

    def shared(self, written: Sequence[WrittenSet]) -> tuple[ReadSet, ...]:
        """The same for operations listed under permissions: all items of one line share one target."""
        boundaries = frozenset(each.items[0].boundary for each in written)
        found = []
        for each in written:
            first = self._item(each.items[0], boundaries)
            if first is None:
                continue
            rest = [self._item(item, boundaries, first.target) for item in each.items[1:]]
            whole = tuple(item for item in rest if item is not None)
            if len(whole) == len(rest):
                found.append(ReadSet(RequirementSet((first, *whole)), each.line))
        return tuple(found)

    def _spread(self, written: WrittenSet) -> tuple[WrittenSet, ...]:
        """A set with every boundary known. An item alone whose target may be of several kinds becomes alternatives."""
        only = written.items[0] if len(written.items) == 1 else None
        if only is not None and only.boundary is None and len(only.permission.boundaries) > 1:
            kinds = self._possible(only.target)
            several = [kind for kind in BOUNDARIES if kind in only.permission.boundaries and kind in kinds]
            if several:
                return tuple(replace(written, items=(self._at(only, boundary),)) for boundary in several)
        items = [self._with_boundary(item) for item in written.items]
        whole = tuple(item for item in items if item is not None)
        if len(whole) < len(items):
            return ()
        return (replace(written, items=whole),)

    def _possible(self, own: Target | None) -> Collection[NodeKind]:
        """The kinds a target may turn out to be when only the request can tell."""
        target = own or self._matched
        if target is not None and target.kind is TargetKind.CALLER:
            return BOUNDARIES
        if target is not None and target.kind is TargetKind.PARAMETER and target.names is ParameterKind.NAMESPACE:
            return (NodeKind.GROUP, NodeKind.USER)
        return ()

    def _with_boundary(self, item: WrittenItem) -> WrittenItem | None:
        if item.boundary is not None:
            return item
        there = tuple(item.permission.boundaries)
        target = item.target or self._matched
        named = _kind_named(target)
        if len(there) > 1 and named in there:
            return self._at(item, named)
        if len(there) != 1:
            if there:
                places = ", ".join(boundary.value for boundary in there)
                message = (
                    f"`{item.permission.name}` exists at {places}; write as `{item.permission.name}@{there[0].value}`"
                )
                self._faults.add(item.line, CatalogFault.BOUNDARY_UNCLEAR, message)
            return None
        if named in _PLACES and there[0] in _PLACES and named is not there[0]:
            name = item.permission.name
            message = f"`{name}` exists at {there[0].value}, but `{self._operation.id}` names a {named.value}"
            self._faults.add(item.line, CatalogFault.NOT_AT_BOUNDARY, message)
            return None
        return self._at(item, there[0])

    @staticmethod
    def _at(item: WrittenItem, boundary: NodeKind) -> WrittenItem:
        return replace(item, boundary=boundary)

    def _item(
        self, item: WrittenItem, alternatives: Collection[NodeKind | None], shared: Target | None = None
    ) -> Item | None:
        boundary = item.boundary
        if boundary is None:
            return None
        if boundary not in item.permission.boundaries:
            message = f"`{item.permission.name}` does not exist at {boundary.value}; add `{boundary.value}` to it"
            self._faults.add(item.line, CatalogFault.NOT_AT_BOUNDARY, message)
            return None
        target = item.target or shared or self._override or self._default(boundary, alternatives)
        if target is None:
            message = (
                f"`{self._operation.id}` does not say which {boundary.value} it touches; name it under `targets`,"
                " or write a target after ` -> `, as `-> caller`"
            )
            self._faults.add(item.line, CatalogFault.TARGET_UNCLEAR, message)
            return None
        return Item(item.permission.name, boundary, target)

    def _default(self, boundary: NodeKind, alternatives: Collection[NodeKind | None]) -> Target | None:
        """Alternatives that differ only in boundary share one target; the instance or oneself alone needs no saying."""
        if self._operation.path is None:
            return Target(TargetKind.CALLER)
        if frozenset(alternatives) == _INSTANCE and boundary is NodeKind.INSTANCE:
            return Target(TargetKind.INSTANCE)
        if frozenset(alternatives) == _USER:
            matched = self._matched
            if matched is not None and matched.names is ParameterKind.NAMESPACE:
                return matched
            users = self._rules.users_in(self._operation)
            return Target(TargetKind.SELF, owner_is=users[0] if len(users) == 1 else None)
        return self._matched


def _alternatives(sets: Sequence[WrittenSet], item: WrittenItem, own: WrittenSet) -> frozenset[NodeKind | None]:
    """The boundaries of all sets that differ from this one in boundary alone; beside other items there are none."""
    if len(own.items) > 1:
        return frozenset({item.boundary})
    same = [each for each in sets if [part.permission for part in each.items] == [item.permission]]
    return frozenset(each.items[0].boundary for each in same)


def _kind_named(target: Target | None) -> NodeKind | None:
    """The one kind that a target is of, where the catalog alone can tell."""
    if target is None:
        return None
    if target.kind is TargetKind.SELF:
        return NodeKind.USER
    if target.kind is TargetKind.INSTANCE:
        return NodeKind.INSTANCE
    if target.kind is TargetKind.PARAMETER and target.names is not ParameterKind.NAMESPACE and target.names is not None:
        return NodeKind(target.names.value)
    return None
