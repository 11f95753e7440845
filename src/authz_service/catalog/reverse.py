"""The two reverse questions: what a call needs, and which calls a permission unlocks (C2, C3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from authz_service.catalog.coverage import unusable_sets
from authz_service.catalog.model import BOUNDARIES, Catalog, Operation, Permission, RequirementSet, bits
from authz_service.catalog.routes import Match, PathFault, Router
from authz_service.directory.model import NodeKind


@dataclass(frozen=True, slots=True)
class Need:
    """The operation that a request calls, and what its path's parameters hold."""

    operation: Operation
    parameters: Mapping[str, str]


def need_of(catalog: Catalog, router: Router, method: str, path: str) -> Need | PathFault:
    """What a request needs, as the client sends it: its path with the base path, query and escapes. Never raises."""
    found = router.resolve(method, path)
    if isinstance(found, Match):
        return Need(catalog.operations[found.operation_id], found.parameters)
    return found


@dataclass(frozen=True, slots=True)
class Unlocked:
    """An operation that a permission helps to unlock.

    `boundaries` are those at which it counts. `alone` says that it suffices by itself for some alternative; else
    `beside` holds what else each alternative needs, fewest first.
    """

    operation: Operation
    boundaries: tuple[NodeKind, ...]
    alone: bool
    beside: tuple[tuple[str, ...], ...] = ()


def unlocked_by(catalog: Catalog, permission: Permission) -> Iterator[Unlocked]:
    """Every operation that the permission, or one that it includes, opens or helps to open; in the catalog's order.

    Operations that are closed, and alternatives that nobody can ever satisfy, are left out.
    """
    given = {
        boundary: {catalog.permissions[number].name for number in bits(catalog.confers[boundary][permission.number])}
        for boundary in BOUNDARIES
    }
    for operation in catalog.operations.values():
        if operation.closed:
            continue
        lost = unusable_sets(catalog, operation)
        helped = [each for each in operation.sets if each not in lost and _helps(each, given)]
        if not helped:
            continue
        counting = {item.boundary for each in helped for item in each.items if item.permission in given[item.boundary]}
        beside = {_rest(each, given): None for each in helped}
        alone = () in beside
        yield Unlocked(
            operation,
            tuple(boundary for boundary in BOUNDARIES if boundary in counting),
            alone,
            () if alone else tuple(sorted(beside, key=len)),
        )


def _helps(one: RequirementSet, given: Mapping[NodeKind, set[str]]) -> bool:
    return any(item.permission in given[item.boundary] for item in one.items)


def _rest(one: RequirementSet, given: Mapping[NodeKind, set[str]]) -> tuple[str, ...]:
    """What a set needs besides: permissions at their boundaries, each once."""
    rest = [
        f"{item.permission}@{item.boundary.value}" for item in one.items if item.permission not in given[item.boundary]
    ]
    return tuple(dict.fromkeys(rest))
