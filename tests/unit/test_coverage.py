"""How operations are counted."""

from __future__ import annotations

import pytest
from tests.builders import catalog, operation, permission

from authz_service.catalog.coverage import OperationCounts, coverage_of, unusable_sets
from authz_service.catalog.model import (
    BOUNDARIES,
    Item,
    OperationKind,
    OwnerCheck,
    ParameterKind,
    RequirementSet,
    Target,
    TargetKind,
)
from authz_service.directory.model import NodeKind

PROJECT, GROUP, USER, INSTANCE = BOUNDARIES
CALLER, SELF = Target(TargetKind.CALLER), Target(TargetKind.SELF)
ID = {kind: Target(TargetKind.PARAMETER, ("id",), kind) for kind in ParameterKind}
BELOW = {kind: Target(TargetKind.BELOW, ("id",), kind) for kind in ParameterKind}


def needs(*alternatives):
    """One (boundary, target) for each alternative, or a list of such for a set of several items."""
    whole = [each if isinstance(each, list) else [each] for each in alternatives]
    return tuple(RequirementSet(tuple(Item("issue:read", *item) for item in items)) for items in whole)


def counted(*operations, **changes):
    numbered = [operation(f"GET /{number}", **each) for number, each in enumerate(operations)]
    return coverage_of(catalog(operations=tuple(numbered), **changes)).operations


def test_an_operation_that_names_its_place_is_bare():
    assert counted({}) == OperationCounts(total=1, bare=1, alternatives=1)


def test_an_operation_needs_a_target_where_some_item_has_the_callers():
    both = needs([(PROJECT, ID[ParameterKind.PROJECT]), (GROUP, CALLER)])
    assert counted({"sets": both}) == OperationCounts(total=1, needs_target=1, alternatives=1)
    either = needs((PROJECT, ID[ParameterKind.PROJECT]), (GROUP, CALLER))
    assert counted({"sets": either}) == OperationCounts(total=1, needs_target=1, alternatives=2)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"open": True, "sets": ()}, OperationCounts(total=1, open=1)),
        ({"open": True, "mutates": True, "sets": ()}, OperationCounts(total=1, open=1)),
        ({"open": True, "mutates": True, "open_at": CALLER, "sets": ()}, OperationCounts(total=1, closed=1)),
        ({"open": True, "mutates": True, "open_at": CALLER}, OperationCounts(total=1, bare=1, alternatives=1)),
        (
            {"open": True, "mutates": True, "open_at": CALLER, "reviewed": True, "sets": ()},
            OperationCounts(total=1, open=1),
        ),
        ({"closed": True}, OperationCounts(total=1, closed=1, alternatives=1)),
        ({"closed": True, "sets": ()}, OperationCounts(total=1, closed=1)),
    ],
)
def test_open_and_closed_operations_are_counted_as_they_are_decided(changes, expected):
    assert counted(changes) == expected


@pytest.mark.parametrize(
    ("changes", "effective"),
    [
        ({}, True),
        ({"mutates": True}, False),
        ({"mutates": True, "reviewed": True}, True),
        ({"sets": needs((GROUP, CALLER))}, True),
        ({"sets": needs((USER, SELF))}, False),
        ({"sets": needs((USER, CALLER))}, False),
        ({"sets": needs((PROJECT, BELOW[ParameterKind.GROUP]))}, False),
        ({"sets": needs([(PROJECT, CALLER), (USER, SELF)])}, False),
        ({"sets": needs((USER, SELF), (PROJECT, CALLER))}, True),
        ({"sets": needs((GROUP, ID[ParameterKind.PROJECT]))}, False),
    ],
)
def test_a_public_read_flag_without_effect_is_counted_as_idle(changes, effective):
    counts = counted({"public_read": True, **changes})
    assert (counts.public_read, counts.idle_public_read) == (int(effective), int(not effective))


def test_nothing_is_public_where_targets_are_known_upstream_only():
    counts = counted({"public_read": True}, owner_check=OwnerCheck.UPSTREAM)
    assert (counts.public_read, counts.idle_public_read) == (0, 1)


FITTING = {
    ID[ParameterKind.PROJECT]: {PROJECT},
    ID[ParameterKind.GROUP]: {GROUP},
    ID[ParameterKind.USER]: {USER},
    ID[ParameterKind.NAMESPACE]: {GROUP, USER},
    BELOW[ParameterKind.PROJECT]: {PROJECT},
    BELOW[ParameterKind.GROUP]: {PROJECT, GROUP},
    BELOW[ParameterKind.USER]: {PROJECT},
    BELOW[ParameterKind.NAMESPACE]: {PROJECT, GROUP},
    CALLER: set(BOUNDARIES),
    SELF: {USER},
    Target(TargetKind.INSTANCE): {INSTANCE},
    Target(TargetKind.ANYWHERE): set(BOUNDARIES),
}


@pytest.mark.parametrize("target", FITTING, ids=lambda target: f"{target.kind}-{target.names}")
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_an_alternative_is_unusable_where_its_target_is_never_of_its_kind(target, boundary):
    one = operation(sets=needs((boundary, target)))
    assert bool(unusable_sets(catalog(), one)) is (boundary not in FITTING[target])


def test_one_impossible_item_makes_its_whole_alternative_unusable_and_the_others_stay():
    good, bad = (PROJECT, ID[ParameterKind.PROJECT]), (GROUP, ID[ParameterKind.PROJECT])
    assert counted({"sets": needs(good, [good, bad])}) == OperationCounts(total=1, bare=1, alternatives=2, unusable=1)
    assert counted({"sets": needs(bad)}) == OperationCounts(total=1, closed=1, alternatives=1, unusable=1)


def test_what_only_an_unusable_alternative_asks_of_the_caller_is_not_needed():
    lost = [(GROUP, ID[ParameterKind.PROJECT]), (PROJECT, CALLER)]
    counts = counted({"sets": needs((PROJECT, ID[ParameterKind.PROJECT]), lost)})
    assert (counts.bare, counts.needs_target, counts.unusable) == (1, 0, 1)


def test_anywhere_never_serves_what_mutates():
    one = operation(mutates=True, sets=needs((PROJECT, Target(TargetKind.ANYWHERE))))
    assert unusable_sets(catalog(), one)


def test_a_namespace_is_a_group_where_targets_are_known_upstream_only():
    one = operation(sets=needs((GROUP, ID[ParameterKind.NAMESPACE]), (USER, ID[ParameterKind.NAMESPACE])))
    assert [each.items[0].boundary for each in unusable_sets(catalog(owner_check=OwnerCheck.UPSTREAM), one)] == [USER]


def test_extensions_are_counted_apart_from_what_is_published():
    permissions = (permission(), permission("image:push", 1, extension=True, boundaries={PROJECT: "owner"}))
    one, other = operation(), operation("git.push", kind=OperationKind.GIT, extension=True)
    counts = coverage_of(catalog(*permissions, operations=(one, other)))
    assert (counts.permissions, counts.pairs, counts.with_min_role) == (1, 4, 0)
    assert (counts.extension_permissions, counts.extension_operations) == (1, 1)
    assert counts.operations == OperationCounts(total=1, bare=1, alternatives=1)
    assert list(counts.by_kind) == [OperationKind.REST]


def test_a_permission_with_a_role_at_any_boundary_is_counted_once():
    roles = {PROJECT: "owner", GROUP: "owner", NodeKind.INSTANCE: None}
    counts = coverage_of(catalog(permission(), permission("issue:write", 1, boundaries=roles)))
    assert (counts.with_min_role, counts.pairs) == (1, 7)


def test_kinds_add_up_to_all():
    operations = (operation(), operation("Query.issue", kind=OperationKind.GRAPHQL, sets=needs((PROJECT, CALLER))))
    counts = coverage_of(catalog(operations=operations))
    assert {kind: (each.bare, each.needs_target) for kind, each in counts.by_kind.items()} == {
        OperationKind.REST: (1, 0),
        OperationKind.GRAPHQL: (0, 1),
    }
    assert counts.operations == OperationCounts(total=2, bare=1, needs_target=1, alternatives=2)
