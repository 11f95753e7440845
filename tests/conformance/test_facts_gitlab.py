"""The catalog `gitlab@2` against the tables that GitLab published with the general release, and beside `gitlab@1`."""

from __future__ import annotations

import csv
import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from authz_service.catalog.coverage import coverage_of, unusable_sets
from authz_service.catalog.model import AnyOperation, OperationKind, ParameterKind, Target, TargetKind
from authz_service.catalog.routes import Match, make_router
from authz_service.directory.model import NodeKind
from authz_service.store.shipped import shipped_catalogs

FACTS = Path(__file__).resolve().parents[1] / "facts"
CALLER, SELF, INSTANCE = Target(TargetKind.CALLER), Target(TargetKind.SELF), Target(TargetKind.INSTANCE)


def table(name):
    with (FACTS / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def rest():
    return table("gitlab_rest.csv")


@pytest.fixture(scope="module")
def graphql():
    return table("gitlab_graphql.csv")


@pytest.fixture(scope="module")
def public():
    rows = table("gitlab_public.csv")
    return {flag: {row["operation"] for row in rows if row["flag"] == flag} for flag in ("always", "public_read")}


@pytest.fixture(scope="module")
def gitlab():
    return shipped("gitlab@2")


@pytest.fixture(scope="module")
def beta():
    return shipped("gitlab@1")


def shipped(label):
    return next(each for each in shipped_catalogs() if each.label == label)


def published(catalog, kind):
    return [each for each in catalog.operations.values() if each.kind is kind and not each.extension]


def pairs_of(rows):
    found = {(row["permission"], row["boundary"]) for row in rows}
    return found | {(row["also_requires"], row["boundary"]) for row in rows if row.get("also_requires")}


# The tables


def test_the_published_tables_have_the_sizes_they_are_known_to_have(rest, graphql, public):
    assert (len(rest), len({row["operation"] for row in rest})) == (2095, 1876)
    assert len(graphql) == 889
    assert {flag: len(operations) for flag, operations in public.items()} == {"always": 27, "public_read": 246}
    assert len(pairs_of(rest) | pairs_of(graphql)) == 1059
    assert len({permission for permission, _ in pairs_of(rest) | pairs_of(graphql)}) == 782


def test_every_published_route_is_in_the_catalog_with_its_permissions_and_nothing_beyond(rest, gitlab):
    rows = Counter()
    for operation in published(gitlab, OperationKind.REST):
        for each in operation.sets:
            first, *rest_of = each.items
            also = "".join(item.permission for item in rest_of)
            rows[operation.id, first.permission, first.boundary.value, also] += 1
    assert rows == Counter((row["operation"], row["permission"], row["boundary"], row["also_requires"]) for row in rest)


def test_a_second_permission_is_needed_at_the_same_boundary_and_place(rest, gitlab):
    rows = [row for row in rest if row["also_requires"]]
    assert len(rows) == 4
    for row in rows:
        (needed,) = gitlab.operations[row["operation"]].sets
        assert len({(item.boundary, item.target) for item in needed.items}) == 1


def test_every_published_part_of_graphql_is_in_the_catalog_and_nothing_beyond(graphql, gitlab):
    rows = [
        (operation.id, item.permission, item.boundary.value)
        for operation in published(gitlab, OperationKind.GRAPHQL)
        for each in operation.sets
        for item in each.items
    ]
    assert Counter(rows) == Counter((row["operation"], row["permission"], row["boundary"]) for row in graphql)


def test_mutations_mutate_and_types_do_not(graphql, gitlab):
    for row in graphql:
        if row["kind"] != "field":
            assert gitlab.operations[row["operation"]].mutates is (row["kind"] == "mutation"), row
    written = {row["operation"] for row in graphql if row["kind"] == "field" and row["permission"].endswith(":create")}
    assert len(written) == 3
    assert {id_ for id_ in written if gitlab.operations[id_].mutates} == written


def test_every_published_pair_is_a_permission_at_a_boundary_and_only_extensions_are_added(rest, graphql, gitlab):
    ours = {
        (each.name, boundary.value) for each in gitlab.permissions for boundary in each.boundaries if not each.extension
    }
    assert ours == pairs_of(rest) | pairs_of(graphql)
    extensions = [(each.name, list(each.boundaries)) for each in gitlab.permissions if each.extension]
    assert extensions == [("container_repository:create", [NodeKind.PROJECT])]


def test_routes_that_are_always_open_need_nothing_and_no_others_are_open(public, gitlab):
    assert {each.id for each in gitlab.operations.values() if each.open} - INTROSPECTION.keys() == public["always"]
    assert not any(gitlab.operations[id_].sets for id_ in public["always"])


def test_every_public_route_needs_a_permission_where_nothing_is_public_and_no_others_are_public(public, gitlab):
    assert {each.id for each in gitlab.operations.values() if each.public_read} == public["public_read"]
    for id_ in public["public_read"]:
        places = {item.boundary for each in gitlab.operations[id_].sets for item in each.items}
        assert places & {NodeKind.PROJECT, NodeKind.GROUP}, id_


def test_the_public_route_that_mutates_was_not_reviewed_so_its_flag_does_nothing(gitlab):
    assert [each.id for each in gitlab.operations.values() if each.public_read and each.mutates] == [
        "POST /projects/:id/repository/blobs/batch"
    ]
    assert not any(each.reviewed for each in (*gitlab.operations.values(), *gitlab.permissions))


# Where permissions must be held, by rule C3

NAMING = (
    (r"/(?:security/)?projects/:(\w+)", ParameterKind.PROJECT),
    (r"/(?:security/)?groups?/:(\w+)", ParameterKind.GROUP),
    (r"/namespaces/:(\w+)(?!/-/work_items)", ParameterKind.NAMESPACE),
)
USER_IN_PATH = re.compile(r"/users/:(\w+)|/projects/user/:(\w+)")


def expected_target(path, boundaries):
    """What the path and the boundaries of its rows say, with none of the catalog's words."""
    if boundaries == {"instance"}:
        return INSTANCE
    named = [(found[1], kind) for pattern, kind in NAMING if (found := re.match(rf"{pattern}(?=/|$)", path))]
    place = Target(TargetKind.PARAMETER, (named[0][0],), named[0][1]) if named else None
    if boundaries == {"user"}:
        user = USER_IN_PATH.match(path)
        if user:
            return Target(TargetKind.SELF, owner_is=user[1] or user[2])
        free = path.endswith("/exists")  # a name to try, that need not be anybody's
        return place if place and place.names is ParameterKind.NAMESPACE and not free else SELF
    return place or CALLER


def test_every_route_takes_its_target_from_its_path_or_from_the_caller_and_never_from_a_guess(rest, gitlab):
    boundaries = defaultdict(set)
    for row in rest:
        boundaries[row["operation"]].add(row["boundary"])
    for id_, kinds in boundaries.items():
        targets = {item.target for each in gitlab.operations[id_].sets for item in each.items}
        assert targets == {expected_target(id_.partition(" ")[2], kinds)}, id_


def test_graphql_and_services_take_their_target_from_the_caller(gitlab):
    for operation in gitlab.operations.values():
        if operation.kind is not OperationKind.REST and operation.id not in INTROSPECTION:
            assert {item.target for each in operation.sets for item in each.items} == {CALLER}, operation.id


def test_coverage_counts_what_can_be_decided_and_which_alternatives_never_can(rest, gitlab):
    counts = coverage_of(gitlab)
    routes = counts.by_kind[OperationKind.REST]
    assert (routes.total, routes.bare, routes.needs_target, routes.open, routes.closed) == (1903, 1738, 138, 27, 0)
    assert (routes.public_read, routes.idle_public_read) == (245, 1)
    assert (routes.alternatives, routes.unusable) == (2095, 164)
    fields = counts.by_kind[OperationKind.GRAPHQL]
    assert (fields.total, fields.needs_target, fields.alternatives, fields.unusable) == (784, 784, 889, 0)
    assert (counts.permissions, counts.pairs, counts.with_min_role) == (782, 1059, 0)
    assert (counts.extension_permissions, counts.extension_operations) == (1, 14)
    lost = Counter()
    for operation in gitlab.operations.values():
        for each in unusable_sets(gitlab, operation):
            lost[operation.sets[0].items[0].target.names, each.items[0].boundary] += 1
    assert lost == {
        (ParameterKind.PROJECT, NodeKind.GROUP): 108,
        (ParameterKind.GROUP, NodeKind.PROJECT): 54,
        (ParameterKind.PROJECT, NodeKind.USER): 1,  # withdrawing one's own request for access
        (ParameterKind.GROUP, NodeKind.USER): 1,
    }
    across = {("projects", "group"), ("groups", "project")}
    rows = [(row["operation"].split("/")[1:3], row["boundary"]) for row in rest if row["operation"].count("/") > 1]
    assert sum((first, boundary) in across and second == ":id" for (first, second), boundary in rows) == 108 + 54


@pytest.mark.parametrize(
    ("method", "path", "operation", "parameters"),
    [
        ("GET", "/projects/acme%2Fweb", "GET /projects/:id", {"id": "acme/web"}),
        ("GET", "/projects/7/repository/files/src%2Fa.py/raw", "GET /projects/:id/repository/files/:file_path/raw",
         {"id": "7", "file_path": "src/a.py"}),
        ("HEAD", "/projects/7/repository/branches/fix%2F1", "HEAD /projects/:id/repository/branches/:branch",
         {"id": "7", "branch": "fix/1"}),
        ("GET", "/groups/acme%2Fteam/-/search", "GET /groups/:id/(-/)search", {"id": "acme/team"}),
        ("GET", "/projects/7/packages/npm/@a%2Fb", "GET /projects/:id/packages/npm/*package_name",
         {"id": "7", "package_name": "@a/b"}),
        ("GET", "/namespaces/acme%2Fweb/-/work_items/3", "GET /namespaces/:id/-/work_items/:work_item_iid",
         {"id": "acme/web", "work_item_iid": "3"}),
    ],
)  # fmt: skip
def test_requests_as_clients_send_them_find_their_route(gitlab, method, path, operation, parameters):
    assert make_router(gitlab).resolve(method, f"/api/v4{path}") == Match(operation, parameters)


def test_every_route_is_found_by_its_own_path(gitlab):
    router = make_router(gitlab)
    for operation in gitlab.operations.values():
        if operation.kind is OperationKind.REST:
            path = re.sub(r"[:*]\w+", "v", re.sub(r"(?<!\\)\(.*?(?<!\\)\)", "", operation.path)).replace("\\", "")
            found = router.resolve(operation.method, f"{gitlab.base_path}{path}")
            assert isinstance(found, Match), (operation.id, path, found)
            assert found.operation_id == operation.id


# What is in no table

SERVICES = {
    "git.clone": (False, {"project": "code:read"}),
    "git.push": (True, {"project": "code:push"}),
    "git.lfs_download": (False, {"project": "code:read"}),
    "git.lfs_upload": (True, {"project": "code:push"}),
    "git.wiki_clone": (False, {"project": "wiki:read", "group": "wiki:read"}),
    "git.wiki_push": (True, dict.fromkeys(("project", "group"), "wiki:create + wiki:update + wiki:delete")),
    "git.snippet_clone": (False, {"project": "snippet:read", "user": "snippet:read"}),
    "git.snippet_push": (True, {"project": "snippet:update", "user": "snippet:update"}),
    "registry.pull": (False, {"project": "container_repository:read"}),
    "registry.push": (True, {"project": "container_repository:create"}),
    "registry.delete": (True, {"project": "container_repository:delete"}),
}


INTROSPECTION = {f"Query.{name}": (False, {}) for name in ("__schema", "__type", "__typename")}
"""Open: what the interface is, and nothing of what is in it."""


def test_services_and_introspection_are_the_only_operations_beyond_the_tables(gitlab):
    found = {
        each.id: (
            each.mutates,
            {
                needed.items[0].boundary.value: " + ".join(item.permission for item in needed.items)
                for needed in each.sets
            },
        )
        for each in gitlab.operations.values()
        if each.extension
    }
    assert found == SERVICES | INTROSPECTION
    assert all(gitlab.operations[id_].summary and not gitlab.operations[id_].public_read for id_ in found)


def test_reading_permissions_under_which_something_changes_count_as_mutating(gitlab):
    assert {each.name for each in gitlab.permissions if each.mutates and each.action == "read"} == {
        "ai_catalog_item:read",
        "compliance_dashboard:read",
        "duo_workflow:read",
        "geo_node:read",
        "namespace:read",
        "orbit:read",
    }
    assert {each.name for each in gitlab.permissions if not each.mutates and each.action != "read"} == {
        "export:download",
        "global_search:use",
    }


def test_visitors_of_public_projects_have_the_permissions_of_the_public_routes(rest, public, gitlab):
    wanted = {row["permission"] for row in rest if row["operation"] in public["public_read"]}
    assert {each.name for each in gitlab.permissions if each.visitor} == wanted
    assert not any(gitlab.by_name[name].mutates for name in wanted)


def test_legacy_scopes_hold_what_their_names_say(gitlab):
    bundles = gitlab.bundles
    assert set(bundles) == {
        "api", "read_api", "read_user", "read_repository", "write_repository", "read_registry", "write_registry",
        "create_runner", "manage_runner", "k8s_proxy", "self_rotate", "sudo", "admin_mode",
    }  # fmt: skip
    assert len(bundles["api"].permissions) == 783
    assert len(bundles["api"].operations) == len(gitlab.operations)
    assert [name for name, each in bundles.items() if each.any_operation is not AnyOperation.NONE] == [
        "api",
        "read_api",
    ]
    for name in ("read_api", "read_user", "read_repository", "read_registry"):
        assert not any(gitlab.operations[id_].mutates for id_ in bundles[name].operations), name
        assert not any(gitlab.by_name[permission].mutates for permission in bundles[name].permissions), name
    assert all(id_.startswith("git.") for id_ in bundles["write_repository"].operations)
    assert bundles["write_registry"].operations == {"registry.push"}
    for name in ("k8s_proxy", "sudo", "admin_mode"):
        assert not bundles[name].permissions | bundles[name].operations
        assert bundles[name].description
    assert not any(each.permissions for name, each in bundles.items() if name not in ("api", "read_api"))


# Beside gitlab@1

LOST = {
    ("cd_application:create", "group"),
    ("cd_application:read", "group"),
    ("cd_environment:create", "group"),
    ("cd_environment:read", "group"),
    ("terraform_state:update", "project"),
}
"""What the beta had and the newer tables have not: nine pairs by the letter, where `Cd …` is not `CD …`, else five."""
MOVED = {
    "Mutation.organizationUserUpdate": "organization_user:update",
    "Mutation.updateTerraformStateProtectionRule": "terraform_state_protection_rule:update",
}


def test_five_pairs_of_the_beta_are_gone(rest, graphql, beta, gitlab):
    old = pairs_of(table("gitlab_beta.csv"))
    assert old - pairs_of(rest) - pairs_of(graphql) == LOST
    assert gitlab.by_name["terraform_state:update"] is gitlab.by_name["terraform_state_protection_rule:update"]
    assert {each.name for each in beta.permissions} - set(gitlab.by_name) == set()


def test_names_of_both_versions_mean_the_same_in_both(beta, gitlab):
    for before in beta.permissions:
        after = gitlab.by_name[before.name]
        lost = {NodeKind(boundary) for name, boundary in LOST if name == before.name and after.name == name}
        assert before.boundaries.keys() - lost <= after.boundaries.keys(), before.name
        assert (before.mutates, before.when, before.implies) == (after.mutates, after.when, after.implies), before.name
        if after.name == before.name:
            assert (before.category, before.extension) == (after.category, after.extension), before.name
    assert gitlab.roles == beta.roles
    assert gitlab.top_role == beta.top_role


def test_operations_of_both_versions_need_the_same_but_where_the_tables_differ(beta, gitlab):
    gone = set(beta.operations) - set(gitlab.operations)
    assert {id_.partition(".")[0] for id_ in gone} == {"Group", "Project", "Query"}
    assert len(gone) == 9
    for id_ in beta.operations.keys() - gone:
        before, after = (
            {(item.permission, item.boundary.value) for each in catalog.operations[id_].sets for item in each.items}
            for catalog in (beta, gitlab)
        )
        expected = {(MOVED[id_], boundary) for _, boundary in before} if id_ in MOVED else before - LOST
        assert after == expected, id_
        assert beta.operations[id_].mutates is gitlab.operations[id_].mutates
