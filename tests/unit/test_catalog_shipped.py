"""The catalogs that come with the service, and the example of an API of one's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from authz_service.catalog.faults import CatalogFault
from authz_service.catalog.format import CATALOG
from authz_service.catalog.loader import load_catalog
from authz_service.catalog.model import NO_ROLE_NEEDED, AnyOperation, OperationKind, ParameterKind, Target, TargetKind
from authz_service.directory.model import NodeKind
from authz_service.store.shipped import shipped_catalogs, shipped_texts

PROJECT, GROUP, USER, INSTANCE = NodeKind.PROJECT, NodeKind.GROUP, NodeKind.USER, NodeKind.INSTANCE
ROOT = Path(__file__).resolve().parents[2]


def shipped(label):
    return next(each for each in shipped_catalogs() if each.label == label)


def test_every_shipped_catalog_is_in_the_file_of_its_label():
    assert [each.label for each in shipped_catalogs()] == [label for label, _ in shipped_texts()]
    assert {"authz@1", "gitlab@1"} <= {each.label for each in shipped_catalogs()}


def test_every_shipped_permission_is_described_in_one_line_of_our_own():
    for catalog in shipped_catalogs():
        for permission in catalog.permissions:
            assert permission.description, permission.name
            assert not permission.description.endswith("."), permission.name
            assert permission.category, permission.name


def test_gitlab_roles_are_a_graph_in_which_a_planner_is_no_part_of_a_reporter():
    catalog = shipped("gitlab@1")
    at_least = catalog.roles_satisfying
    assert at_least["planner"] == {"planner", "maintainer", "owner"}
    assert at_least["reporter"] == {"reporter", "developer", "maintainer", "owner"}
    assert at_least["guest"] == {"guest", "planner", "reporter", "developer", "maintainer", "owner"}
    assert at_least["owner"] == {"owner"}
    assert catalog.top_role == "owner"
    assert catalog.stationary_roles == {"minimal_access"}


def test_gitlab_operations_are_graphql_and_take_their_target_from_the_caller():
    for operation in shipped("gitlab@1").operations.values():
        assert operation.kind is OperationKind.GRAPHQL
        assert operation.sets or (operation.open and operation.extension)
        for each in operation.sets:
            assert [item.target for item in each.items] == [Target(TargetKind.CALLER)]


def test_gitlab_mutations_mutate_and_types_do_not():
    catalog = shipped("gitlab@1")
    for operation in catalog.operations.values():
        if operation.open:
            assert not operation.mutates
            continue
        reads = all(item.permission.endswith(":read") for each in operation.sets for item in each.items)
        assert operation.mutates is not reads, operation.id
    for permission in catalog.permissions:
        assert permission.mutates is (permission.action != "read"), permission.name


def test_gitlab_reading_bundle_holds_no_permission_and_no_operation_that_mutates():
    catalog = shipped("gitlab@1")
    full, reading = catalog.bundles["api"], catalog.bundles["read_api"]
    assert len(full.permissions) == len(catalog.permissions)
    assert len(full.operations) == len(catalog.operations)
    assert (full.any_operation, reading.any_operation) == (AnyOperation.ALL, AnyOperation.READ)
    assert not any(catalog.by_name[name].mutates for name in reading.permissions)
    assert not any(catalog.operations[name].mutates for name in reading.operations)
    assert "Issue.createNoteEmail" in full.operations - reading.operations
    assert catalog.forbidding_legacy_ends_public_reads


AUTHZ = {
    "token:create": {INSTANCE, GROUP, USER},
    "token:read": {INSTANCE, GROUP, USER},
    "token:edit": {INSTANCE, GROUP, USER},
    "token:rotate": {INSTANCE, GROUP, USER},
    "token:revoke": {INSTANCE, GROUP, USER},
    "token:create_any": {INSTANCE},
    "token:import": {INSTANCE},
    "grant:read": {INSTANCE, GROUP},
    "grant:decide": {INSTANCE, GROUP},
    "grant:revoke": {INSTANCE, GROUP},
    "policy:read": {INSTANCE, GROUP},
    "policy:edit": {INSTANCE, GROUP},
    "directory:read": {INSTANCE, GROUP},
    "directory:import": {INSTANCE},
    "directory:move": {GROUP},
    "catalog:read": {INSTANCE},
    "catalog:install": {INSTANCE},
    "decision:evaluate": {INSTANCE, GROUP},
    "audit:read": {INSTANCE, GROUP},
    "webhook:read": {INSTANCE, GROUP},
    "webhook:edit": {INSTANCE, GROUP},
    "leak:report": {INSTANCE},
}


def test_the_names_of_management_are_public_for_ever():
    assert {each.name: set(each.boundaries) for each in shipped("authz@1").permissions} == AUTHZ


def test_managing_a_group_needs_its_owner_and_managing_the_instance_an_admin():
    for permission in shipped("authz@1").permissions:
        evaluates = permission.name == "decision:evaluate"
        everybody = permission.name in ("decision:evaluate", "catalog:read")
        for boundary, role in permission.boundaries.items():
            expected = {
                GROUP: None if evaluates else "owner",
                INSTANCE: NO_ROLE_NEEDED if everybody else None,
                USER: None,
            }
            assert role == expected[boundary], (permission.name, boundary)


def test_asking_for_decisions_changes_nothing():
    reads = {each.name for each in shipped("authz@1").permissions if not each.mutates}
    assert reads == {name for name in AUTHZ if name.endswith(":read")} | {"decision:evaluate"}


def test_the_example_of_an_own_api_loads_and_fits_on_a_screen():
    text = (ROOT / "examples" / "orders" / "catalog.yaml").read_text(encoding="utf-8")
    catalog = load_catalog(text, file="examples/orders/catalog.yaml")
    assert catalog.upstream
    assert len(text.splitlines()) <= 25
    refund = catalog.operations["POST /shops/:shop/orders/:order/refunds"]
    shop = Target(TargetKind.PARAMETER, ("shop",), ParameterKind.PROJECT)
    assert [(item.permission, item.boundary, item.target) for item in refund.sets[0].items] == [
        ("order:read", PROJECT, shop),
        ("refund:create", PROJECT, shop),
    ]


def test_the_page_of_the_format_explains_every_key_and_every_fault():
    page = (ROOT / "docs" / "catalog-format.md").read_text(encoding="utf-8")
    assert [key for key in keys_of(CATALOG) if f"`{key}`" not in page] == []
    assert [code for code in CatalogFault if f"`{code}`" not in page] == []


def keys_of(shape):
    inner = getattr(shape, "shapes", ()) or [getattr(shape, name) for name in ("item", "value") if hasattr(shape, name)]
    for key in getattr(shape, "keys", ()):
        yield key.name
        yield from keys_of(key.shape)
    for each in inner:
        yield from keys_of(each)


@pytest.mark.parametrize("page", ["docs/catalog-format.md", "docs/your-own-api.md"])
def test_every_catalog_shown_in_the_docs_loads(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    shown = [block.partition("```")[0] for block in text.split("```yaml\n")[1:]]
    whole = [block for block in shown if f"\n{block}".count("\ncatalog:")]
    assert whole
    for block in whole:
        load_catalog(block, file=page)
