"""How much of an API a catalog covers, as plain counts: what can be decided, from what, and what never can (C3, C4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from authz_service.catalog.graphql_types import ROOT_PREFIXES
from authz_service.catalog.model import (
    Catalog,
    Item,
    Operation,
    OperationKind,
    ParameterKind,
    RequirementSet,
    TargetKind,
)
from authz_service.directory.model import NodeKind

_NAMED: Final[Mapping[ParameterKind, frozenset[NodeKind]]] = {
    ParameterKind.PROJECT: frozenset({NodeKind.PROJECT}),
    ParameterKind.GROUP: frozenset({NodeKind.GROUP}),
    ParameterKind.USER: frozenset({NodeKind.USER}),
    ParameterKind.NAMESPACE: frozenset({NodeKind.GROUP, NodeKind.USER}),
}
_BELOW: Final[Mapping[ParameterKind, frozenset[NodeKind]]] = {
    ParameterKind.PROJECT: frozenset({NodeKind.PROJECT}),
    ParameterKind.GROUP: frozenset({NodeKind.PROJECT, NodeKind.GROUP}),
    ParameterKind.USER: frozenset({NodeKind.PROJECT}),
    ParameterKind.NAMESPACE: frozenset({NodeKind.PROJECT, NodeKind.GROUP}),
}
_PLACES: Final = frozenset({NodeKind.PROJECT, NodeKind.GROUP})


@dataclass(frozen=True, slots=True)
class OperationCounts:
    """Published operations. Each is one of `bare`, `needs_target`, `open` and `closed`, which add up to `total`.

    `bare` ones say themselves where their permissions must be held; of the others the asker must name the target.
    `needs_schema` of them are reached by documents only where the API's schema is known (C3).
    `closed` are those that no fine-grained token can ever call. The flags `public_read` are counted over all of them;
    an idle one has no effect (C4). `unusable` of the `alternatives` name a place that their target can never be (C3).
    """

    total: int = 0
    bare: int = 0
    needs_target: int = 0
    open: int = 0
    closed: int = 0
    public_read: int = 0
    idle_public_read: int = 0
    alternatives: int = 0
    unusable: int = 0
    needs_schema: int = 0


@dataclass(frozen=True, slots=True)
class Coverage:
    """Published permissions and operations; extensions, which no published table has, are counted apart.

    `pairs` are permissions at a boundary, and `with_min_role` the permissions that name a role at some boundary (C6).
    """

    permissions: int
    pairs: int
    with_min_role: int
    operations: OperationCounts
    by_kind: Mapping[OperationKind, OperationCounts]
    extension_permissions: int
    extension_operations: int


def coverage_of(catalog: Catalog) -> Coverage:
    """The counts of one catalog version; kinds without published operations are left out."""
    published = [operation for operation in catalog.operations.values() if not operation.extension]
    permissions = [permission for permission in catalog.permissions if not permission.extension]
    by_kind = {kind: [operation for operation in published if operation.kind is kind] for kind in OperationKind}
    return Coverage(
        permissions=len(permissions),
        pairs=sum(len(permission.boundaries) for permission in permissions),
        with_min_role=sum(any(permission.boundaries.values()) for permission in permissions),
        operations=_count(catalog, published),
        by_kind={kind: _count(catalog, operations) for kind, operations in by_kind.items() if operations},
        extension_permissions=len(catalog.permissions) - len(permissions),
        extension_operations=len(catalog.operations) - len(published),
    )


def unusable_sets(catalog: Catalog, operation: Operation) -> tuple[RequirementSet, ...]:
    """The alternatives of an operation that no token can ever satisfy, because some target is never of their kind."""
    return tuple(each for each in operation.sets if not all(_fits(catalog, operation, item) for item in each.items))


def _fits(catalog: Catalog, operation: Operation, item: Item) -> bool:
    target = item.target
    match target.kind:
        case TargetKind.CALLER:
            return True
        case TargetKind.ANYWHERE:
            return not operation.mutates
        case TargetKind.INSTANCE:
            return item.boundary is NodeKind.INSTANCE
        case TargetKind.SELF:
            return item.boundary is NodeKind.USER
    if target.kind is TargetKind.BELOW:
        return item.boundary in _BELOW[target.names or ParameterKind.USER]
    if target.names is None:
        return False
    if catalog.upstream and target.names is ParameterKind.NAMESPACE:
        return item.boundary is NodeKind.GROUP
    return item.boundary in _NAMED[target.names]


def _count(catalog: Catalog, operations: Iterable[Operation]) -> OperationCounts:
    total = bare = needs_target = is_open = closed = public = idle = alternatives = unusable = types = 0
    for operation in operations:
        lost = unusable_sets(catalog, operation)
        usable = [each for each in operation.sets if each not in lost]
        total += 1
        types += operation.kind is OperationKind.GRAPHQL and not operation.id.startswith(ROOT_PREFIXES)
        alternatives += len(operation.sets)
        unusable += len(lost)
        if operation.public_read:
            effective = _reads_public(catalog, operation, usable)
            public += effective
            idle += not effective
        if operation.closed:
            closed += 1
        elif _is_open(operation):
            is_open += 1
        elif not usable:
            closed += 1
        elif any(item.target.kind is TargetKind.CALLER for each in usable for item in each.items):
            needs_target += 1
        else:
            bare += 1
    return OperationCounts(total, bare, needs_target, is_open, closed, public, idle, alternatives, unusable, types)


def _is_open(operation: Operation) -> bool:
    return operation.open and (operation.open_at is None or not operation.mutates or operation.reviewed)


def _reads_public(catalog: Catalog, operation: Operation, usable: Iterable[RequirementSet]) -> bool:
    """Whether the flag can ever help: it is for targets that name one project or group, where any is public (A7)."""
    if catalog.upstream or (operation.mutates and not operation.reviewed):
        return False
    return any(
        all(
            item.boundary in _PLACES and item.target.kind in (TargetKind.PARAMETER, TargetKind.CALLER)
            for item in each.items
        )
        for each in usable
    )
