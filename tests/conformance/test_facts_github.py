"""The catalog `github@1` against the tables that GitHub published, and against what it says of its classic scopes."""

from __future__ import annotations

import csv
import re
from collections import Counter
from pathlib import Path

import pytest

from authz_service.catalog.coverage import coverage_of
from authz_service.catalog.loader import load_catalog
from authz_service.catalog.model import AnyOperation, ParameterKind, Target, TargetKind
from authz_service.catalog.routes import Match, PathFault, RouteFault, make_router
from authz_service.directory.model import NodeKind
from authz_service.store.shipped import shipped_catalogs, shipped_texts

FACTS = Path(__file__).resolve().parents[1] / "facts"
LEVELS = ("read", "write", "admin")
TOUCHES = (("context.touches_workflows", True),)
CALLER, SELF, ANYWHERE = Target(TargetKind.CALLER), Target(TargetKind.SELF), Target(TargetKind.ANYWHERE)


def named(kind, *parameters):
    return Target(TargetKind.PARAMETER, parameters, kind)


REPOSITORY = named(ParameterKind.PROJECT, "owner", "repo")
BY_NUMBER = named(ParameterKind.PROJECT, "repository_id")
ORGANIZATION = named(ParameterKind.GROUP, "org")
BELOW_ORGANIZATION = Target(TargetKind.BELOW, ("org",), ParameterKind.GROUP)
BELOW_ACCOUNT = Target(TargetKind.BELOW, ("username",), ParameterKind.USER)
OWN_REPOSITORIES = Target(TargetKind.BELOW)


def table(name):
    with (FACTS / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def permissions():
    return table("github_permissions.csv")


@pytest.fixture(scope="module")
def rest():
    return table("github_rest.csv")


@pytest.fixture(scope="module")
def open_to_all():
    return {row["operation"] for row in table("github_open.csv")}


@pytest.fixture(scope="module")
def closed():
    return {row["operation"] for row in table("github_closed.csv")}


@pytest.fixture(scope="module")
def classic():
    return {row["operation"]: read_sets(row["scopes"]) for row in table("github_classic.csv")}


@pytest.fixture(scope="module")
def github():
    return next(each for each in shipped_catalogs() if each.label == "github@1")


def read_sets(text):
    return [tuple(part.split(" + ")) for part in text.split(" | ")]


def names_of(sets):
    return [tuple(item.permission for item in each.items) for each in sets]


# The tables


def test_the_published_tables_have_the_sizes_they_are_known_to_have(permissions, rest, open_to_all, closed, classic):
    assert len(permissions) == 88
    assert Counter(row["boundary"] for row in permissions) == {"project": 32, "group": 36, "user": 20}
    assert sum(len(row["levels"].split()) for row in permissions) == 159
    assert (len(rest), len({row["operation"] for row in rest})) == (952, 952)
    assert len({item.partition(":")[0] for row in rest for one in read_sets(row["needs"]) for item in one}) == 73
    assert (len(open_to_all), len(closed), len(classic)) == (81, 144, 515)


def test_no_table_speaks_of_an_operation_of_another(rest, open_to_all, closed):
    listed = {row["operation"] for row in rest}
    assert not listed & open_to_all
    assert not listed & closed
    assert not open_to_all & closed


def test_every_permission_has_its_levels_at_its_boundary_and_there_are_no_others(permissions, github):
    published = {
        (f"{row['resource']}:{level}", row["boundary"]) for row in permissions for level in row["levels"].split()
    }
    assert {(each.name, kind.value) for each in github.permissions for kind in each.boundaries} == published
    assert len(github.permissions) == len(published) == 159


def test_a_level_includes_the_ones_before_it_and_any_repository_permission_the_metadata(permissions, github):
    for row in permissions:
        levels = row["levels"].split()
        boundary = NodeKind(row["boundary"])
        for level in levels:
            number = github.by_name[f"{row['resource']}:{level}"].number
            conferred = {github.permissions[other].name for other in bits_of(github.confers[boundary][number])}
            lower = {f"{row['resource']}:{one}" for one in levels if LEVELS.index(one) <= LEVELS.index(level)}
            assert conferred == lower | ({"metadata:read"} if boundary is NodeKind.PROJECT else set())


def bits_of(mask):
    return [number for number in range(mask.bit_length()) if mask >> number & 1]


def test_every_operation_needs_exactly_the_published_sets(rest, github):
    for row in rest:
        ours = names_of(github.operations[row["operation"]].sets)
        assert sorted(map(sorted, ours)) == sorted(map(sorted, read_sets(row["needs"]))), row["operation"]
        assert all(len(set(each)) == len(each) for each in ours), row["operation"]


def test_the_catalog_has_the_operations_of_the_three_tables_and_no_others(rest, open_to_all, closed, github):
    assert github.operations.keys() == {row["operation"] for row in rest} | open_to_all | closed
    assert {each.id for each in github.operations.values() if each.open} == open_to_all
    assert {each.id for each in github.operations.values() if each.closed} == closed
    assert all(not github.operations[id_].sets for id_ in open_to_all | closed)
    assert not any(each.extension for each in (*github.operations.values(), *github.permissions))


def test_public_reads_are_the_published_ones_and_nobody_has_reviewed_those_that_change_something(rest, github):
    public = {row["operation"] for row in rest if row["public_read"]}
    assert {each.id for each in github.operations.values() if each.public_read} == public
    assert not any(each.reviewed for each in (*github.operations.values(), *github.permissions))
    assert {id_ for id_ in public if github.operations[id_].mutates} == {
        "POST /orgs/{org}/projectsV2/{project_number}/drafts",
        "POST /orgs/{org}/projectsV2/{project_number}/fields",
        "POST /orgs/{org}/projectsV2/{project_number}/items",
        "POST /repos/{owner}/{repo}/issues/{issue_number}/dependencies/blocked_by",
        "DELETE /repos/{owner}/{repo}/issues/{issue_number}/dependencies/blocked_by/{issue_id}",
    }
    assert {each.name for each in github.permissions if each.public_read} == {"metadata:read"}


def test_changing_something_is_told_by_the_method_but_for_four_that_were_looked_at(github):
    reading = {each.id for each in github.operations.values() if not each.mutates and each.method != "GET"}
    assert reading == {
        "POST /markdown",
        "POST /markdown/raw",
        "POST /orgs/{org}/attestations/bulk-list",
        "POST /users/{username}/attestations/bulk-list",
    }
    assert all(not each.mutates for each in github.operations.values() if each.method == "GET")
    assert all(each.mutates is (each.action != "read") for each in github.permissions)


def test_touching_workflows_needs_both_permissions_and_nothing_else_has_a_condition(github):
    conditional = [each for each in github.operations.values() if any(one.when for one in each.sets)]
    assert len(conditional) == 6
    for operation in conditional:
        assert [(names, each.when) for names, each in zip(names_of(operation.sets), operation.sets, strict=True)] == [
            (("contents:write",), ()),
            (("contents:write", "workflows:write"), TOUCHES),
        ]
    assert not any(each.when for each in github.permissions)


# Where


PLACED = {
    "GET /user/repos": ANYWHERE,
    "GET /user/codespaces": ANYWHERE,
    "GET /user/repository_invitations": ANYWHERE,
    "GET /repositories": ANYWHERE,
    "POST /user/repos": OWN_REPOSITORIES,
    "POST /repos/{template_owner}/{template_repo}/generate": named(
        ParameterKind.PROJECT, "template_owner", "template_repo"
    ),
}
"""Repository permissions whose path names neither a repository nor its owner, and a repository by other names."""


def repository_place(path):
    """Where a repository permission must be held: what the path names of it, or what only the caller can say."""
    if "/{owner}/{repo}" in path:
        return REPOSITORY
    if path.endswith("/repositories/{repository_id}"):
        return BY_NUMBER
    if path.startswith("/orgs/{org}/"):
        return BELOW_ORGANIZATION
    return BELOW_ACCOUNT if path.startswith("/users/{username}/") else CALLER


def place_of(operation, item):
    if item.boundary is NodeKind.GROUP:
        return ORGANIZATION if "/{org}" in operation.path else CALLER
    if item.boundary is NodeKind.PROJECT:
        return PLACED.get(operation.id) or repository_place(operation.path)
    other = operation.path.startswith("/users/{username}/")
    return Target(TargetKind.SELF, owner_is="username") if other else SELF


def test_every_permission_is_needed_where_the_path_says(rest, github):
    for row in rest:
        operation = github.operations[row["operation"]]
        for item in [item for each in operation.sets for item in each.items]:
            assert item.target == place_of(operation, item), (operation.id, item.permission)


def test_the_caller_places_what_only_github_can_place(github):
    asked = [
        each for each in github.operations.values() for one in each.sets for item in one.items if item.target == CALLER
    ]
    prefixes = Counter(re.match(r"/[a-z]+(/[a-z_]+)?", each.path)[0] for each in dict.fromkeys(asked))
    assert prefixes == {
        "/teams": 16,
        "/user/codespaces": 10,
        "/user/repository_invitations": 1,
        "/search/labels": 1,
        "/markdown": 1,
    }


def test_open_operations_are_open_at_what_their_path_names(open_to_all, github):
    places = {
        "/repos/": REPOSITORY,
        "/networks/": REPOSITORY,
        "/orgs/": ORGANIZATION,
        "/users/": named(ParameterKind.USER, "username"),
        "/user/{": named(ParameterKind.USER, "account_id"),
    }
    for id_ in open_to_all:
        operation = github.operations[id_]
        expected = [place for prefix, place in places.items() if operation.path.startswith(prefix)]
        assert operation.open_at == (expected[0] if expected else None), id_


def test_coverage_counts_every_operation_once(github):
    counts = coverage_of(github).operations
    assert (counts.total, counts.bare, counts.needs_target) == (1177, 923, 29)
    # Reactions to a release are open at a repository and change something: nobody reviewed that, so they are closed.
    assert (counts.open, counts.closed) == (81 - 2, 144 + 2)
    assert (counts.alternatives, counts.unusable) == (1006, 0)
    assert coverage_of(github).with_min_role == 0


# Routes


@pytest.mark.parametrize(
    ("method", "path", "operation", "parameters"),
    [
        ("GET", "contents/src/app/main.py", "GET /repos/{owner}/{repo}/contents/{path}", {"path": "src/app/main.py"}),
        ("GET", "commits/fix/login/status", "GET /repos/{owner}/{repo}/commits/{ref}/status", {"ref": "fix/login"}),
        ("GET", "branches/fix%2Flogin", "GET /repos/{owner}/{repo}/branches/{branch}", {"branch": "fix/login"}),
        ("GET", "compare/v1...v2", "GET /repos/{owner}/{repo}/compare/{basehead}", {"basehead": "v1...v2"}),
        ("DELETE", "labels/kind%2Fbug", "DELETE /repos/{owner}/{repo}/labels/{name}", {"name": "kind/bug"}),
        ("PATCH", "git/refs/heads/main", "PATCH /repos/{owner}/{repo}/git/refs/{ref}", {"ref": "heads/main"}),
    ],
)
def test_requests_as_clients_send_them_find_their_route(github, method, path, operation, parameters):
    found = make_router(github).resolve(method, f"/repos/acme/web/{path}")
    assert found == Match(operation, {"owner": "acme", "repo": "web", **parameters})


def test_an_owner_does_not_hide_a_slash(github):
    found = make_router(github).resolve("GET", "/repos/acme%2Fweb/notes/issues")
    assert isinstance(found, PathFault)
    assert found.fault is RouteFault.BAD_PATH


def test_every_route_is_found_by_its_own_path(github):
    router = make_router(github)
    for operation in github.operations.values():
        path = re.sub(r"\{[^}]+\}", "v", operation.path)
        found = router.resolve(operation.method, path)
        assert isinstance(found, Match), (operation.id, path, found)
        assert found.operation_id == operation.id


def test_the_text_is_a_catalog_without_faults(github):
    assert load_catalog(dict(shipped_texts())["github@1"]) == github


# Words and roles


def test_the_catalog_speaks_as_github_does_and_wants_one_owner(github):
    assert github.words == {NodeKind.PROJECT: "repository", NodeKind.GROUP: "organization", NodeKind.USER: "account"}
    assert github.single_owner
    assert github.source is None
    assert github.base_path == ""


def test_repository_roles_are_a_ladder_and_membership_alone_stays_at_the_organization(github):
    ladder = ["read", "triage", "write", "maintain", "admin"]
    for position, role in enumerate(ladder):
        assert github.roles_satisfying[role] == set(ladder[position:])
    assert github.top_role == "admin"
    assert github.stationary_roles == {"member", "billing_manager"}


# Classic scopes

WITHIN = {
    "repo": {"repo:status", "repo_deployment", "public_repo", "repo:invite", "security_events"},
    "admin:org": {"write:org", "read:org", "manage_runners:org"},
    "write:org": {"read:org"},
    "user": {"read:user", "user:email", "user:follow"},
    "codespace": {"codespace:secrets"},
    **{
        f"admin:{each}": {f"write:{each}", f"read:{each}"}
        for each in ("repo_hook", "public_key", "gpg_key", "ssh_signing_key")
    },
    **{f"write:{each}": {f"read:{each}"} for each in ("repo_hook", "public_key", "gpg_key", "ssh_signing_key")},
    "write:network_configurations": {"read:network_configurations"},
}
"""Scopes that GitHub shows as parts of others."""

SEES_REPOSITORIES = {
    "GET /repos/{owner}/{repo}/collaborators",
    "GET /repos/{owner}/{repo}/collaborators/{username}",
    "GET /repos/{owner}/{repo}/issue-types",
}
"""They need `metadata:read`, which any permission of repositories brings along (C2)."""

BEYOND = {
    "public_repo": {
        "PUT /repos/{owner}/{repo}/contents/{path}",
        "POST /repos/{owner}/{repo}/code-scanning/codeql/variant-analyses",
        "POST /repos/{owner}/{repo}/dependency-graph/snapshots",
        "POST /repos/{owner}/{repo}/dispatches",
        "POST /repos/{owner}/{repo}/secret-scanning/push-protection-bypasses",
    },
    "read:org": {
        "GET /orgs/{org}/organization-roles/{role_id}/teams",
        "GET /orgs/{org}/organization-roles/{role_id}/users",
    },
}
BEYOND["write:org"] = BEYOND["read:org"]
"""Where the description of an operation names fewer scopes than the description of the scope covers."""


def may_call(github, bundle):
    """The operations that a token of this one scope may call somewhere."""
    mask = sum(1 << github.by_name[name].number for name in bundle.permissions)
    return {
        operation.id
        for operation in github.operations.values()
        if operation.id in bundle.operations
        or any(
            all(mask & github.holders[item.boundary][github.by_name[item.permission].number] for item in each.items)
            for each in operation.sets
        )
    }


def test_no_classic_scope_does_what_github_documents_another_for(github, classic):
    for name, bundle in github.bundles.items():
        scopes = {name} | WITHIN.get(name, set())
        documented = {id_ for id_ in may_call(github, bundle) if id_ in classic}
        beyond = {id_ for id_ in documented if not any(set(each) <= scopes for each in classic[id_])}
        if name.endswith(":packages"):
            assert all(set(each) == {"read:packages", name} for id_ in beyond for each in classic[id_])
        else:
            assert beyond - SEES_REPOSITORIES == BEYOND.get(name, set()), name


def test_what_github_documents_a_classic_scope_for_is_in_it(github, classic, open_to_all):
    left_out = {
        (name, id_)
        for name, bundle in github.bundles.items()
        for id_ in classic.keys() - may_call(github, bundle) - open_to_all
        if any(each == (name,) for each in classic[id_]) and "/enterprises/" not in id_
    }
    assert left_out == {
        ("read:org", "POST /orgs/{org}/copilot-spaces"),
        ("read:org", "PUT /orgs/{org}/copilot-spaces/{space_number}"),
        # A token that may make public repositories could not be told from one that may make private ones.
        ("public_repo", "POST /orgs/{org}/repos"),
        ("public_repo", "POST /user/repos"),
        ("public_repo", "POST /repos/{template_owner}/{template_repo}/generate"),
    }


def test_only_its_own_scopes_delete_a_repository_and_change_workflows(github):
    deleting = {
        name for name, each in github.bundles.items() if "DELETE /repos/{owner}/{repo}" in may_call(github, each)
    }
    assert deleting == {"delete_repo"}
    assert {name for name, each in github.bundles.items() if "workflows:write" in each.permissions} == {"workflow"}


def test_no_classic_scope_reaches_beyond_the_tables_and_one_is_for_public_repositories(github):
    assert {each.any_operation for each in github.bundles.values()} == {AnyOperation.NONE}
    assert [name for name, each in github.bundles.items() if each.public_only] == ["public_repo"]
    wanted = "repo public_repo repo:status workflow read:org write:org admin:org gist user delete_repo write:packages"
    assert github.bundles.keys() >= set(wanted.split())
    assert len(github.bundles) == 44
