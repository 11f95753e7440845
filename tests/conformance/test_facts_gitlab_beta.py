"""The catalog `gitlab@1` against the table that GitLab published with the beta, normalised in `tests/facts/`."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest

from authz_service.store.shipped import shipped_catalogs

FACTS = Path(__file__).resolve().parents[1] / "facts" / "gitlab_beta.csv"


@pytest.fixture(scope="module")
def facts():
    with FACTS.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def gitlab():
    return next(each for each in shipped_catalogs() if each.label == "gitlab@1")


def rows_of(catalog):
    """Every (operation, permission, boundary) that the catalog itself says."""
    return [
        (operation.id, item.permission, item.boundary.value)
        for operation in catalog.operations.values()
        if not operation.extension
        for each in operation.sets
        for item in each.items
    ]


def test_the_published_table_has_the_size_it_is_known_to_have(facts):
    assert len(facts) == 251
    assert len({(row["permission"], row["boundary"]) for row in facts}) == 165
    assert len({row["permission"] for row in facts}) == 135


def test_every_published_row_is_in_the_catalog_and_nothing_beyond(facts, gitlab):
    published = Counter((row["operation"], row["permission"], row["boundary"]) for row in facts)
    assert Counter(rows_of(gitlab)) == published


def test_every_published_pair_is_a_permission_at_a_boundary_and_only_extensions_are_added(facts, gitlab):
    published = {(row["permission"], row["boundary"]) for row in facts}
    ours = {
        (each.name, boundary.value) for each in gitlab.permissions for boundary in each.boundaries if not each.extension
    }
    assert ours == published


def test_pushing_an_image_is_the_only_permission_that_no_table_has(facts, gitlab):
    extensions = [each for each in gitlab.permissions if each.extension]
    assert [(each.name, [boundary.value for boundary in each.boundaries]) for each in extensions] == [
        ("container_repository:create", ["project"])
    ]
    assert "container_repository:create" not in {row["permission"] for row in facts}
    assert len(gitlab.permissions) == 135 + len(extensions)


def test_mutations_mutate_and_types_do_not(facts, gitlab):
    for row in facts:
        if row["kind"] != "field":
            assert gitlab.operations[row["operation"]].mutates is (row["kind"] == "mutation"), row


def test_alternatives_of_one_operation_differ_in_boundary_and_share_permission_and_target(facts, gitlab):
    several = [each for each in gitlab.operations.values() if len(each.sets) > 1]
    rows = Counter(row["operation"] for row in facts)
    assert {each.id for each in several} == {operation for operation, count in rows.items() if count > 1}
    for operation in several:
        assert len({each.items[0].permission for each in operation.sets}) == 1
        assert len({each.items[0].target for each in operation.sets}) == 1
