"""What a `when` may say, and how many cases it may make (rule C5)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from graphlib import TopologicalSorter
from math import prod
from typing import Final, TypeAlias

from authz_service.catalog.document import Entry, Leaf, Listing, Section, Value
from authz_service.catalog.faults import CatalogFault, Faults
from authz_service.catalog.model import BOUNDARIES, Condition, Operation, Permission
from authz_service.directory.model import NodeKind, Scalar, UserState, Visibility

MAX_COMBINATIONS: Final = 64
"""Of the values of absent attributes that one decision may have to try."""

_ROLE: Final = "subject.role"
_FACT_VALUES: Final[Mapping[str, tuple[Scalar, ...]]] = {
    "subject.admin": (True, False),
    "subject.external": (True, False),
    "subject.service_account": (True, False),
    "subject.state": tuple(state.value for state in UserState),
    "resource.archived": (True, False),
    "resource.visibility": tuple(visibility.name.lower() for visibility in Visibility),
}
DIRECTORY_FACTS: Final = frozenset({_ROLE, *_FACT_VALUES})
"""Attributes that the directory alone gives: nobody sends them, and they are never absent."""


def check_conditions(top: Section, roles: Collection[str], faults: Faults) -> None:
    """A `when` on a fact of the directory names a value that the fact can have; another would silently never match."""
    for entry in _facts_named(top):
        value = entry.value.value if isinstance(entry.value, Leaf) else None
        if entry.key == _ROLE:
            if value not in roles:
                message = f"`{_ROLE}` is compared with `{value}`, which is none of the roles"
                faults.add(entry.line, CatalogFault.UNKNOWN_ROLE, message)
            continue
        allowed = _FACT_VALUES[entry.key]
        if not any(type(value) is type(each) and value == each for each in allowed):
            words = ", ".join(f"`{str(each).lower()}`" for each in allowed)
            faults.add(entry.line, CatalogFault.BAD_CONDITION, f"`{entry.key}` is one of {words}")


def _facts_named(value: Value) -> Iterator[Entry]:
    """Every attribute of every `when` in the file that is a fact of the directory."""
    if isinstance(value, Listing):
        for item in value.items:
            yield from _facts_named(item)
    elif isinstance(value, Section):
        for entry in value.entries:
            if entry.key == "when" and isinstance(entry.value, Section):
                yield from (each for each in entry.value.entries if each.key in DIRECTORY_FACTS)
            else:
                yield from _facts_named(entry.value)


_Named: TypeAlias = frozenset[tuple[str, type, Scalar]]
"""Attributes and the values that some `when` names for them; types apart, because `true` is not 1."""


def check_combinations(
    permissions: Sequence[Permission],
    operations: Iterable[Operation],
    lines: Mapping[str, int],
    faults: Faults,
) -> None:
    """No decision may have to try more than MAX_COMBINATIONS values of absent attributes.

    In play are the `when`s of an operation's sets, of their permissions, and of all that confer these there.
    """
    if faults.has(CatalogFault.IMPLICATION_CYCLE):
        return
    named = _named_at(permissions)
    for permission in permissions:
        for boundary in permission.boundaries:
            count = _count(named.get((permission.name, boundary), frozenset()))
            if count > MAX_COMBINATIONS:
                _note(f"{permission.name}@{boundary.value}", count, lines.get(permission.name, 1), faults)
    for operation in operations:
        values = _values(each.when for each in operation.sets).union(
            *(named.get((item.permission, item.boundary), ()) for each in operation.sets for item in each.items)
        )
        count = _count(values)
        if count > MAX_COMBINATIONS:
            _note(operation.id, count, lines.get(operation.id, 1), faults)


def _note(what: str, count: int, line: int, faults: Faults) -> None:
    message = f"`{what}` has {count} combinations of `when` values, {MAX_COMBINATIONS} are the most; split it"
    faults.add(line, CatalogFault.TOO_MANY_COMBINATIONS, message)


def _named_at(permissions: Sequence[Permission]) -> Mapping[tuple[str, NodeKind], _Named]:
    """For each (permission, boundary): the values of every `when` among the permissions that confer it there.

    Values beyond the limit are not gathered: they are too many already.
    """
    if not any(permission.when for permission in permissions):
        return {}
    by_name = {permission.name: permission for permission in permissions}
    found: dict[tuple[str, NodeKind], _Named] = {}
    order = TopologicalSorter({permission.name: permission.implies for permission in permissions}).static_order()
    for name in reversed(list(order)):
        permission = by_name[name]
        own = _values([permission.when])
        for boundary in BOUNDARIES:
            above = found.get((name, boundary), frozenset())
            reached = above | own if boundary in permission.boundaries else above
            if not reached:
                continue
            found[(name, boundary)] = reached
            for implied in permission.implies:
                before = found.get((implied, boundary), frozenset())
                if len(before) <= MAX_COMBINATIONS:
                    found[(implied, boundary)] = before | reached
    return found


def _values(whens: Iterable[Condition]) -> _Named:
    pairs = (pair for when in whens for pair in when)
    return frozenset((name, type(value), value) for name, value in pairs if name not in DIRECTORY_FACTS)


def _count(named: _Named) -> int:
    """Each named value of each attribute, and one more for "another"."""
    values = Counter(attribute for attribute, _, _ in named)
    return prod(count + 1 for count in values.values())
