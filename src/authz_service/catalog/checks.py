"""Checks on finished operations: impossible targets, alternatives that cannot be told apart (rules C3, C4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Final

from authz_service.catalog.faults import CatalogFault, Faults
from authz_service.catalog.model import Condition, Item, Operation, ParameterKind, Role, Target, TargetKind
from authz_service.catalog.paths import OperationText
from authz_service.catalog.requirements import ReadSet
from authz_service.catalog.roles import check_min_role
from authz_service.catalog.targets import TargetRules, parameters_of
from authz_service.directory.model import NodeKind, Scalar

_ONE_NODE: Final = frozenset({TargetKind.PARAMETER, TargetKind.CALLER, TargetKind.SELF})


def check_sets(
    operation: Operation,
    text: OperationText,
    sets: Sequence[ReadSet],
    rules: TargetRules,
    roles: Mapping[str, Role],
    faults: Faults,
) -> None:
    """Everything that can be wrong with the requirement of one operation."""
    for each in sets:
        for item in each.requirement.items:
            check_target(text, item.target, item.boundary, each.line, rules, faults)
            if item.target.kind is TargetKind.ANYWHERE and operation.mutates:
                message = (
                    f"`{operation.id}` mutates, so `{item.permission}` held just anywhere cannot do; name a target"
                )
                faults.add(each.line, CatalogFault.ANYWHERE_MUTATES, message)
        if each.min_role is not None:
            check_min_role(each.min_role, each.requirement.items[0].boundary, roles, faults, on_set=True)
    _check_kinds(operation, sets, faults)
    for one, other in combinations(sets, 2):
        _check_pair(operation, one, other, faults)


def check_target(
    text: OperationText, target: Target, boundary: NodeKind | None, line: int, rules: TargetRules, faults: Faults
) -> None:
    """A target must be sayable of this operation, and of the item's boundary where there is one."""
    known = text.path.parameters if text.path else ()
    for name in parameters_of(target):
        if name not in known:
            where = f"it has {', '.join(f'`{each}`' for each in known)}" if known else "it has none"
            message = f"`{text.id}` has no parameter `{name}`; {where}"
            faults.add(line, CatalogFault.UNKNOWN_PARAMETER, message)
    wrong = {
        TargetKind.SELF: boundary not in (None, NodeKind.USER),
        TargetKind.INSTANCE: boundary not in (None, NodeKind.INSTANCE),
        TargetKind.BELOW: boundary in (NodeKind.USER, NodeKind.INSTANCE),
    }
    if boundary is not None and wrong.get(target.kind):
        message = f"the target `{target.kind.value}` of `{text.id}` can never be a {boundary.value}"
        faults.add(line, CatalogFault.BAD_TARGET, message)
    users = rules.users_in(text)
    if target.kind is TargetKind.SELF and target.owner_is is None and users:
        message = f"`{users[0]}` in `{text.id}` names a user; write `self {{{users[0]}}}`: it must be the owner"
        faults.add(line, CatalogFault.OWNER_IS_MISSING, message)
    if target.kind is TargetKind.BELOW and not target.parameters and users:
        message = f"`{users[0]}` in `{text.id}` names a user; write `below user {{{users[0]}}}`"
        faults.add(line, CatalogFault.OWNER_IS_MISSING, message)


def _check_kinds(operation: Operation, sets: Sequence[ReadSet], faults: Faults) -> None:
    """One parameter names one kind of thing: ids of two kinds are not to be told apart."""
    kinds: dict[tuple[str, ...], ParameterKind] = {}
    for each in sets:
        for item in each.requirement.items:
            named = _names(item)
            if named is None:
                continue
            parameters, kind = named
            if kinds.setdefault(parameters, kind) is not kind:
                message = (
                    f"`{'/'.join(parameters)}` in `{operation.id}` is a {kinds[parameters].value} in one alternative"
                    f" and a {kind.value} in another; it can be one only"
                )
                faults.add(each.line, CatalogFault.AMBIGUOUS_ALTERNATIVES, message)


def _names(item: Item) -> tuple[tuple[str, ...], ParameterKind] | None:
    if item.target.owner_is is not None:
        return (item.target.owner_is,), ParameterKind.USER
    if item.target.names is not None:
        return item.target.parameters, item.target.names
    return None


def _check_pair(operation: Operation, one: ReadSet, other: ReadSet, faults: Faults) -> None:
    first, second = one.requirement, other.requirement
    if _typed(first.when) != _typed(second.when):
        return
    if frozenset(first.items) == frozenset(second.items):
        message = f"`{operation.id}` has this alternative in line {one.line} already"
        faults.add(other.line, CatalogFault.DUPLICATE_ALTERNATIVE, message)
        return
    if [item.permission for item in first.items] != [item.permission for item in second.items]:
        return
    targets = ({item.target.kind for item in first.items}, {item.target.kind for item in second.items})
    for here, there in (targets, targets[::-1]):
        if here == {TargetKind.INSTANCE} and there & _ONE_NODE:
            message = (
                f"alternatives of `{operation.id}` differ in boundary and in target, so an instance permission would"
                " open what belongs to somebody; give them one target, or use another permission"
            )
            faults.add(other.line, CatalogFault.AMBIGUOUS_ALTERNATIVES, message)


def _typed(when: Condition) -> tuple[tuple[str, type, Scalar], ...]:
    """A `when` that is equal only to one of equal types: Python takes `true` for 1."""
    return tuple((name, type(value), value) for name, value in when)
