"""Targets in words, what a call needs, and which calls a permission unlocks."""

from __future__ import annotations

import pytest

from authz_service.catalog.loader import load_catalog
from authz_service.catalog.model import Item, ParameterKind, Target, TargetKind
from authz_service.catalog.reverse import Need, need_of, unlocked_by
from authz_service.catalog.routes import PathFault, make_router
from authz_service.catalog.targets import parse_target_rule
from authz_service.catalog.words import format_set, format_target_rule, format_value, say_target
from authz_service.directory.model import NodeKind

HUB = load_catalog("""\
catalog: hub
version: 1
base_path: /api
words: {project: repository, group: organization}
targets: {"/repos/{owner}/{repo}": project, "/orgs/{org}": group, /secrets: caller}
levels: [read, write]
permissions:
  contents:
    read: {project: "GET /repos/{owner}/{repo}/contents", group: "GET /orgs/{org}/contents"}
    write: {project: "PUT /repos/{owner}/{repo}/contents", group: }
  workflow:
    write: project
  secret:
    read: {project: "GET /secrets/{id}", group: "GET /secrets/{id}"}
  star:
    write: user
operations:
  PUT /repos/{owner}/{repo}/workflows: contents:write + workflow:write
  PUT /repos/{owner}/{repo}/wiki: [contents:write + workflow:write, workflow:write]
  PUT /user/starred/{owner}/{repo}:
    needs: [{all_of: [star:write@user, {permission: contents:read, target: "project {owner}/{repo}"}]}]
  DELETE /repos/{owner}/{repo}: {needs: contents:write, closed: true}
  GET /version: {open: true}
""")
ROUTER = make_router(HUB)
TARGETS = [
    "project {id}", "group {a}/{b}", "user {name}", "namespace {id}", "below group {id}", "below namespace {id}",
    "below user {name}", "below self", "self", "self {name}", "instance", "anywhere", "caller",
]  # fmt: skip


@pytest.mark.parametrize("text", TARGETS)
def test_a_target_is_written_as_it_is_read(text):
    target = parse_target_rule(text)
    assert target is not None
    assert format_target_rule(target) == text


@pytest.mark.parametrize(
    ("boundary", "text", "parameters", "expected"),
    [
        (NodeKind.PROJECT, "project {owner}/{repo}", None, "the repository that {owner}/{repo} names"),
        (NodeKind.PROJECT, "project {owner}/{repo}", {"owner": "acme", "repo": "web"}, "the repository acme/web"),
        (NodeKind.PROJECT, "project {owner}/{repo}", {"owner": "acme"}, "the repository that {owner}/{repo} names"),
        (NodeKind.USER, "namespace {id}", {"id": "7"}, "the namespace 7"),
        (NodeKind.PROJECT, "below group {org}", {"org": "acme"}, "some repository at or under the organization acme"),
        (NodeKind.PROJECT, "below self", None, "some repository in the namespace of the token's owner"),
        (NodeKind.USER, "self", None, "the token's owner"),
        (NodeKind.USER, "self {name}", {"name": "dana"}, "the token's owner, who must be the user dana"),
        (NodeKind.INSTANCE, "instance", None, "the instance"),
        (NodeKind.PROJECT, "anywhere", None, "some repository, wherever it lies"),
        (NodeKind.GROUP, "caller", None, "the organization that the asker names as the target"),
    ],
)
def test_a_target_is_said_in_the_apis_own_words(boundary, text, parameters, expected):
    target = parse_target_rule(text)
    assert target is not None
    assert say_target(HUB, Item("contents:read", boundary, target), parameters) == expected


def test_a_set_is_one_line_with_its_conditions():
    text = "PUT /repos/{owner}/{repo}/workflows"
    assert [format_set(each) for each in HUB.operations[text].sets] == [
        "contents:write@project -> project {owner}/{repo} + workflow:write@project -> project {owner}/{repo}"
    ]
    assert [format_value(value) for value in ("a", "1", 1, True, "true", "")] == [
        "a",
        '"1"',
        "1",
        "true",
        '"true"',
        '""',
    ]


def test_a_call_needs_what_its_operation_needs():
    found = need_of(HUB, ROUTER, "PUT", "/api/repos/acme/web/contents?ref=1")
    assert isinstance(found, Need)
    assert found.operation.id == "PUT /repos/{owner}/{repo}/contents"
    assert found.parameters == {"owner": "acme", "repo": "web"}


@pytest.mark.parametrize(
    ("method", "path", "fault"),
    [
        ("GET", "/repos/acme/web/contents", "operation_unknown"),
        ("POST", "/api/repos/acme/web/contents", "operation_unknown"),
        ("GET", "/api/repos/acme/../web/contents", "bad_path"),
        ("GET", "", "bad_path"),
        ("", "/api/version", "operation_unknown"),
    ],
)
def test_a_call_that_is_no_operation_says_why(method, path, fault):
    found = need_of(HUB, ROUTER, method, path)
    assert isinstance(found, PathFault)
    assert found.fault == fault


def unlocked(name: str) -> list[tuple[str, bool, tuple[tuple[str, ...], ...]]]:
    return [(each.operation.id, each.alone, each.beside) for each in unlocked_by(HUB, HUB.by_name[name])]


def test_a_permission_unlocks_calls_by_itself_or_beside_others_and_by_what_it_includes():
    assert unlocked("contents:write") == [
        ("GET /repos/{owner}/{repo}/contents", True, ()),
        ("GET /orgs/{org}/contents", True, ()),
        ("PUT /repos/{owner}/{repo}/contents", True, ()),
        ("PUT /repos/{owner}/{repo}/workflows", False, (("workflow:write@project",),)),
        ("PUT /repos/{owner}/{repo}/wiki", False, (("workflow:write@project",),)),
        ("PUT /user/starred/{owner}/{repo}", False, (("star:write@user",),)),
    ]
    assert [id_ for id_, _, _ in unlocked("contents:read")] == [
        "GET /repos/{owner}/{repo}/contents",
        "GET /orgs/{org}/contents",
        "PUT /user/starred/{owner}/{repo}",
    ]
    assert unlocked("workflow:write") == [
        ("PUT /repos/{owner}/{repo}/workflows", False, (("contents:write@project",),)),
        ("PUT /repos/{owner}/{repo}/wiki", True, ()),
    ]


def test_an_unlocked_call_says_at_which_boundaries_the_permission_counts():
    found = {each.operation.id: each.boundaries for each in unlocked_by(HUB, HUB.by_name["secret:read"])}
    assert found == {"GET /secrets/{id}": (NodeKind.PROJECT, NodeKind.GROUP)}


def test_what_nobody_can_use_is_not_unlocked():
    text = HUB_WITH_A_MISFIT
    catalog = load_catalog(text)
    assert not list(unlocked_by(catalog, catalog.by_name["a:read"]))


HUB_WITH_A_MISFIT = """\
catalog: misfit
version: 1
targets: {/projects/:id: project}
permissions:
  a:
    read: {group: "GET /projects/:id/a"}
"""


def test_a_target_without_parameters_is_below_oneself():
    assert format_target_rule(Target(TargetKind.BELOW)) == "below self"
    assert format_target_rule(Target(TargetKind.PARAMETER, ("id",), ParameterKind.USER)) == "user {id}"
