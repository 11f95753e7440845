"""What a catalog file means."""

from __future__ import annotations

from dataclasses import fields

import pytest

from authz_service.catalog import format as catalog_format
from authz_service.catalog.loader import load_catalog
from authz_service.catalog.model import (
    AnyOperation,
    Bundle,
    Catalog,
    Item,
    OperationKind,
    OwnerCheck,
    ParameterKind,
    Permission,
    RequirementSet,
    Role,
    Target,
    TargetKind,
)
from authz_service.catalog.shapes import Either, Fields, Keyed, Many
from authz_service.directory.model import NodeKind
from authz_service.errors import CatalogInvalidError

PROJECT, GROUP, USER, INSTANCE = NodeKind.PROJECT, NodeKind.GROUP, NodeKind.USER, NodeKind.INSTANCE
CALLER = Target(TargetKind.CALLER)

HEAD = """\
catalog: shop
version: 1
targets:
  /projects/:id: project
  /groups/:id: group
  /namespaces/:id: namespace
  /users/:id: user
  /runners: caller
  /repos/{owner}/{repo}: project
  "{team}": group
  "{username}": user
permissions:
  issue:
    read: [project, group]
    write: [project, user, instance]
"""


def load(text=""):
    return load_catalog(HEAD + text, file="shop.yaml")


def parameter(kind, *names):
    return Target(TargetKind.PARAMETER, names, ParameterKind(kind))


def sets_of(operation, needs):
    """The alternatives of one operation, each as its items without permission names."""
    catalog = load(f"operations:\n  {operation}:\n    needs: {needs}\n")
    (only,) = catalog.operations.values()
    return [[(item.boundary, item.target) for item in each.items] for each in only.sets]


def test_a_minimal_catalog_has_a_name_a_version_and_a_permission():
    assert load_catalog("catalog: a\nversion: 3\npermissions: {x: {read: project}}\n") == Catalog(
        "a", 3, (Permission("x:read", 0, {PROJECT: None}),)
    )


def test_every_setting_of_a_catalog_arrives():
    catalog = load("""\
title: Shop
source: shop_directory
owner_check: upstream
single_owner: true
case_sensitive: true
base_path: /api/v4
forbidding_legacy_ends_public_reads: true
words: {project: repository, instance: site}
roles:
  visitor: {inherits: false}
  member: [visitor]
  boss: {includes: [member]}
top_role: boss
operations:
  GET /projects/:id/issues/{status}: issue:read
attribute_parameters: {resource.status: status}
""")
    assert (catalog.title, catalog.source, catalog.owner_check) == ("Shop", "shop_directory", OwnerCheck.UPSTREAM)
    assert catalog.single_owner
    assert catalog.case_sensitive
    assert catalog.forbidding_legacy_ends_public_reads
    assert (catalog.base_path, catalog.top_role) == ("/api/v4", "boss")
    assert catalog.words == {PROJECT: "repository", INSTANCE: "site"}
    assert catalog.roles == {
        "visitor": Role("visitor", (), inherits=False),
        "member": Role("member", ("visitor",)),
        "boss": Role("boss", ("member",)),
    }
    assert catalog.attribute_parameters == {"resource.status": "status"}


def test_every_setting_of_a_permission_arrives():
    catalog = load("""\
  star:
    set:
      project: {min_role: member}
      instance: {min_role: none}
      description: Star a project
      implies: [issue:write]
      mutates: true
      public_read: true
      reviewed: true
      visitor: true
      when: {resource.kind: big, context.count: 3, action.soft: true}
      deprecated: true
      extension: true
      aliases: [star:put, star:give]
roles: {member: }
top_role: member
""")
    assert catalog.by_name["star:set"] == Permission(
        "star:set",
        2,
        {PROJECT: "member", INSTANCE: "none"},
        implies=("issue:write",),
        mutates=True,
        public_read=True,
        reviewed=True,
        visitor=True,
        when=(("action.soft", True), ("context.count", 3), ("resource.kind", "big")),
        category="",
        description="Star a project",
        deprecated=True,
        extension=True,
    )
    assert catalog.aliases == {"star:put": "star:set", "star:give": "star:set"}
    assert catalog.by_name["star:give"].number == 2


def test_categories_and_permissions_are_numbered_together_in_the_order_of_the_file():
    trees = "categories: {planning: {x: {read: project, edit: group}}}\npermissions: {y: {read: user}}\n"
    catalog = load_catalog("catalog: a\nversion: 1\n" + trees)
    assert [(each.name, each.number, each.category) for each in catalog.permissions] == [
        ("x:read", 0, "planning"),
        ("x:edit", 1, "planning"),
        ("y:read", 2, ""),
    ]


def test_a_permission_mutates_unless_its_action_reads_or_it_says_so():
    text = (
        "catalog: a\nversion: 1\npermissions: {x: {read: project, list: project, lint: {project: , mutates: false}}}\n"
    )
    plain = {each.name: each.mutates for each in load_catalog(text).permissions}
    assert plain == {"x:read": False, "x:list": True, "x:lint": False}
    declared = {each.name: each.mutates for each in load_catalog(text + "reading_actions: [list]\n").permissions}
    assert declared == {"x:read": True, "x:list": False, "x:lint": False}


def test_levels_imply_the_next_lower_one_of_the_same_resource():
    catalog = load_catalog("""\
catalog: a
version: 1
levels: [read, write, admin]
permissions:
  code: {admin: project, read: project, write: project}
  team: {admin: group, read: group}
  odd: {write: project, read: group}
""")
    implied = {each.name: each.implies for each in catalog.permissions if each.implies}
    assert implied == {"code:admin": ("code:write",), "code:write": ("code:read",), "team:admin": ("team:read",)}


def test_what_every_permission_of_a_boundary_includes_includes_not_itself():
    catalog = load_catalog("""\
catalog: a
version: 1
implies: {project: [metadata:read, name:read]}
permissions:
  metadata: {read: project}
  name: {read: project}
  code: {read: project}
  team: {read: group}
""")
    implied = {each.name: each.implies for each in catalog.permissions if each.implies}
    assert implied == {"code:read": ("metadata:read", "name:read")}


def test_operations_listed_under_a_permission_take_its_boundary_and_the_target_of_their_path():
    catalog = load("""\
  label:
    read:
      project: |
        GET /projects/:id/labels     # all of them

        GET /projects/:id/labels/:label
      group: ["GET /groups/{group}/labels"]
""")
    assert {each.id: each.sets for each in catalog.operations.values()} == {
        "GET /projects/:id/labels": (RequirementSet((Item("label:read", PROJECT, parameter("project", "id")),)),),
        "GET /projects/:id/labels/:label": (
            RequirementSet((Item("label:read", PROJECT, parameter("project", "id")),)),
        ),
        "GET /groups/{group}/labels": (RequirementSet((Item("label:read", GROUP, parameter("group", "group")),)),),
    }


def test_an_operation_keeps_its_method_path_and_kind():
    catalog = load("""\
operations:
  GET /projects/:id: {needs: issue:read, summary: Show one, extension: true}
  Mutation.writeIssue: issue:write@project
  Query.issues: issue:read@project
  git.push: issue:write@project
""")
    found = catalog.operations
    rest = found["GET /projects/:id"]
    assert (rest.method, rest.path, rest.summary, rest.extension) == ("GET", "/projects/:id", "Show one", True)
    assert [(each.kind, each.mutates) for each in found.values()] == [
        (OperationKind.REST, False),
        (OperationKind.GRAPHQL, True),
        (OperationKind.GRAPHQL, False),
        (OperationKind.GIT, True),
    ]


def test_rows_of_one_operation_with_different_boundaries_are_alternatives_that_share_one_target():
    catalog = load("""\
  runner:
    read:
      project: GET /runners/:id
      group: GET /runners/:id
      instance: GET /runners/:id
""")
    assert [each.items for each in catalog.operations["GET /runners/:id"].sets] == [
        (Item("runner:read", boundary, CALLER),) for boundary in (PROJECT, GROUP, INSTANCE)
    ]


def test_a_target_on_one_line_holds_for_all_alternatives_of_the_operation():
    catalog = load("""\
  thing:
    read:
      project: GET /things/:id -> caller
      instance: GET /things/:id
""")
    assert [each.items[0].target for each in catalog.operations["GET /things/:id"].sets] == [CALLER, CALLER]


def test_a_permission_joined_to_a_line_must_hold_at_the_same_boundary_and_target():
    catalog = load("  job: {read: {project: }}\n  log: {read: {project: GET /projects/:id/log + job:read}}\n")
    (only,) = catalog.operations["GET /projects/:id/log"].sets
    target = parameter("project", "id")
    assert only.items == (Item("log:read", PROJECT, target), Item("job:read", PROJECT, target))


@pytest.mark.parametrize(
    ("operation", "needs", "expected"),
    [
        ("GET /projects/:x/a", "issue:read", [[(PROJECT, parameter("project", "x"))]]),
        ("GET /groups/:id/a", "issue:read", [[(GROUP, parameter("group", "id"))]]),
        ("GET /repos/{o}/{r}/a/{b}", "issue:read", [[(PROJECT, parameter("project", "o", "r"))]]),
        ("GET /x/{team}/a", "issue:read", [[(GROUP, parameter("group", "team"))]]),
        ("GET /x/{team}/{username}", "issue:read", [[(GROUP, parameter("group", "team"))]]),
        ("GET /me", "issue:write@user", [[(USER, Target(TargetKind.SELF))]]),
        ("GET /users/:id/a", "issue:write@user", [[(USER, Target(TargetKind.SELF, owner_is="id"))]]),
        ("GET /x/{username}", "issue:write@user", [[(USER, Target(TargetKind.SELF, owner_is="username"))]]),
        ("GET /stats", "issue:write@instance", [[(INSTANCE, Target(TargetKind.INSTANCE))]]),
        ("GET /users/:id/stats", "issue:write@instance", [[(INSTANCE, Target(TargetKind.INSTANCE))]]),
        ("GET /runners/all", "issue:write@instance", [[(INSTANCE, Target(TargetKind.INSTANCE))]]),
        ("GET /runners/:id", "issue:read", [[(PROJECT, CALLER)], [(GROUP, CALLER)]]),
        ("GET /namespaces/:id", "issue:write", [[(USER, parameter("namespace", "id"))]]),
        (
            "GET /namespaces/:id",
            "[issue:read@group, issue:write@user]",
            [[(GROUP, parameter("namespace", "id"))], [(USER, parameter("namespace", "id"))]],
        ),
        ("GET /namespaces/:id", "issue:write@user", [[(USER, parameter("namespace", "id"))]]),
        (
            "GET /projects/:id/a",
            "[issue:read@project, issue:read@group]",
            [[(PROJECT, parameter("project", "id"))], [(GROUP, parameter("project", "id"))]],
        ),
        (
            "PUT /user/starred/{owner}/{repo}",
            "[{all_of: [issue:write@user, {permission: issue:read, target: 'project {owner}/{repo}'}]}]",
            [[(USER, Target(TargetKind.SELF)), (PROJECT, parameter("project", "owner", "repo"))]],
        ),
        ("Query.issues", "issue:read", [[(PROJECT, CALLER)], [(GROUP, CALLER)]]),
        ("git.push", "issue:read@project + issue:write@project", [[(PROJECT, CALLER), (PROJECT, CALLER)]]),
    ],
)
def test_what_the_file_leaves_open_is_filled_in_where_there_is_one_answer(operation, needs, expected):
    assert sets_of(operation, needs) == expected


@pytest.mark.parametrize(
    ("written", "target"),
    [
        ("self", Target(TargetKind.SELF)),
        ("self {name}", Target(TargetKind.SELF, owner_is="name")),
        ("caller", CALLER),
        ("anywhere", Target(TargetKind.ANYWHERE)),
        ("project :id", parameter("project", "id")),
        ("namespace {id}", parameter("namespace", "id")),
        ("group {name}/{id}", parameter("group", "name", "id")),
        ("below group {id}", Target(TargetKind.BELOW, ("id",), ParameterKind.GROUP)),
        ("below user {name}", Target(TargetKind.BELOW, ("name",), ParameterKind.USER)),
        ("below namespace {id}", Target(TargetKind.BELOW, ("id",), ParameterKind.NAMESPACE)),
        ("below self", Target(TargetKind.BELOW)),
    ],
)
def test_a_target_can_be_written_for_a_whole_operation(written, target):
    boundary = "user" if written.startswith("self") else "project"
    text = f"operations:\n  GET /x/:id/{{name}}:\n    needs: issue:write@{boundary}\n    target: '{written}'\n"
    (only,) = load(text).operations.values()
    assert only.sets[0].items == (Item("issue:write", NodeKind(boundary), target),)


@pytest.mark.parametrize(("written", "boundary"), [("self", USER), ("instance", INSTANCE), ("project :id", PROJECT)])
def test_the_kind_of_a_target_settles_the_boundary(written, boundary):
    (only,) = load(f"operations:\n  GET /x/:id:\n    needs: issue:write\n    target: '{written}'\n").operations.values()
    assert [item.boundary for item in only.sets[0].items] == [boundary]


def test_alternatives_of_different_permissions_may_have_different_targets():
    catalog = load("""\
operations:
  GET /x/:id:
    needs:
      - all_of: [{permission: issue:read, boundary: project, target: "project :id"}]
      - issue:write@instance
""")
    targets = [each.items[0].target for each in catalog.operations["GET /x/:id"].sets]
    assert targets == [parameter("project", "id"), Target(TargetKind.INSTANCE)]


def test_a_set_may_have_a_condition_and_a_least_role_of_its_own():
    catalog = load("""\
roles: {member: }
top_role: member
operations:
  PUT /projects/:id/files:
    needs:
      - issue:write
      - all_of: [issue:write, issue:read]
        when: {context.touches_workflows: true}
        min_role: member
""")
    first, second = catalog.operations["PUT /projects/:id/files"].sets
    assert (first.when, first.min_role) == ((), None)
    assert (second.when, second.min_role) == ((("context.touches_workflows", True),), "member")
    assert [item.permission for item in second.items] == ["issue:write", "issue:read"]


def test_flags_mark_operations_wherever_these_are_listed():
    catalog = load("""\
operations:
  GET /projects/:id: issue:read
  POST /projects/:id/star: {needs: issue:write@project, public_read: true, reviewed: true}
  POST /search: {open: true}
flags:
  reads: POST /search
  public_read: |
    GET /projects/:id
    HEAD /status
  mutates: GET /projects/:id
  reviewed: GET /projects/:id
  open: [HEAD /status]
  closed: [POST /login]
""")
    marks = {
        each.id: (each.open, each.public_read, each.closed, each.reviewed, each.mutates)
        for each in catalog.operations.values()
    }
    assert marks == {
        "GET /projects/:id": (False, True, False, True, True),
        "POST /projects/:id/star": (False, True, False, True, True),
        "POST /search": (True, False, False, False, False),
        "HEAD /status": (True, True, False, False, False),
        "POST /login": (False, False, True, False, True),
    }


@pytest.mark.parametrize(
    ("line", "node"),
    [
        ("GET /status", None),
        ("GET /projects/:id/ping", parameter("project", "id")),
        ("GET /runners/ping", None),
        ("GET /things/:id -> group :id", parameter("group", "id")),
        ("GET /things -> caller", CALLER),
    ],
)
def test_an_open_operation_is_open_at_the_node_that_its_path_names(line, node):
    (only,) = load(f"flags:\n  open: {line}\n").operations.values()
    assert (only.open, only.open_at) == (True, node)


def test_an_operation_of_its_own_entry_may_name_the_node_at_which_it_is_open():
    catalog = load("""\
operations:
  GET /things/:id: {open: "group :id"}
  GET /projects/:id: {open: false, needs: issue:read}
  GET /projects/:id/ping: {open: true}
""")
    assert [(each.open, each.open_at) for each in catalog.operations.values()] == [
        (True, parameter("group", "id")),
        (False, None),
        (True, parameter("project", "id")),
    ]


def test_bundles_hold_names_or_everything_of_a_kind():
    catalog = load("""\
operations:
  GET /projects/:id: issue:read
  PUT /projects/:id: issue:write@project
bundles:
  api: {permissions: all, operations: all, any_operation: all, description: Everything}
  read_api: {permissions: reads, operations: reads, any_operation: read}
  some: {permissions: [issue:write], operations: [reads, PUT /projects/:id]}
  none: {}
""")
    both = frozenset({"GET /projects/:id", "PUT /projects/:id"})
    assert catalog.bundles == {
        "api": Bundle("api", frozenset({"issue:read", "issue:write"}), both, AnyOperation.ALL, "Everything"),
        "read_api": Bundle("read_api", frozenset({"issue:read"}), frozenset({"GET /projects/:id"}), AnyOperation.READ),
        "some": Bundle("some", frozenset({"issue:write"}), both),
        "none": Bundle("none"),
    }


def test_a_bundle_may_have_a_name_of_two_parts_and_be_for_public_places_alone():
    catalog = load("bundles:\n  read:org: {permissions: [issue:read], public_only: true}\n")
    assert catalog.bundles == {"read:org": Bundle("read:org", frozenset({"issue:read"}), public_only=True)}


def test_a_mark_without_effect_is_accepted():
    catalog = load("operations:\n  POST /projects/:id: {needs: issue:write@project, public_read: true}\n")
    assert catalog.operations["POST /projects/:id"].public_read


def test_deprecated_permissions_keep_their_number():
    text = "catalog: a\nversion: 1\npermissions: {x: {read: {project: , deprecated: true}, edit: project}}\n"
    assert [each.number for each in load_catalog(text).permissions] == [0, 1]


def test_directory_facts_are_never_absent_and_make_no_combinations():
    text = "".join(
        f"  r{n}: {{read: {{project: , when: {{subject.role: r{n}, resource.a: {n}}}}}}}\n" for n in range(70)
    )
    roles = "roles: {" + ", ".join(f"r{n}: " for n in range(70)) + "}\ntop_role: r0\n"
    assert len(load(text + roles).permissions) == 72


def test_as_many_combinations_as_allowed_are_allowed():
    conditions = "\n".join(f"      - {{all_of: issue:read, when: {{context.a: {n}}}}}" for n in range(63))
    operation = "operations:\n  GET /projects/:id:\n    needs:\n"
    (only,) = load(operation + conditions + "\n").operations.values()
    assert len(only.sets) == 63
    with pytest.raises(CatalogInvalidError) as caught:
        load(operation + conditions + "\n      - {all_of: issue:read, when: {context.a: true}}\n")
    assert [fault.code for fault in caught.value.faults] == ["too_many_combinations"]


def test_conditions_that_differ_in_type_alone_are_two_alternatives():
    needs = "[{all_of: issue:read, when: {context.a: 1}}, {all_of: issue:read, when: {context.a: true}}]"
    (only,) = load(f"operations:\n  GET /projects/:id:\n    needs: {needs}\n").operations.values()
    assert [type(each.when[0][1]) for each in only.sets] == [int, bool]


def test_conditions_of_permissions_that_confer_another_count_at_its_operations():
    holders = "".join(
        f"  h{n}: {{hold: {{project: , implies: issue:read, when: {{context.a{n}: 1}}}}}}\n" for n in range(7)
    )
    with pytest.raises(CatalogInvalidError) as caught:
        load(holders)
    assert {fault.code for fault in caught.value.faults} == {"too_many_combinations"}
    assert "`issue:read@project`" in caught.value.faults[0].message


def test_every_field_of_a_catalog_can_be_said_in_a_file():
    said_elsewhere = {"name": "catalog", "aliases": "permissions"}
    keys = {key.name for key in catalog_format.CATALOG.keys}
    for field in fields(Catalog):
        assert said_elsewhere.get(field.name, field.name) in keys


def test_every_key_of_the_format_has_a_note():
    def walk(shape):
        if isinstance(shape, Fields):
            for key in shape.keys:
                yield key
                yield from walk(key.shape)
        elif isinstance(shape, Keyed):
            yield from walk(shape.value)
        elif isinstance(shape, Many):
            yield from walk(shape.item)
        elif isinstance(shape, Either):
            for each in shape.shapes:
                yield from walk(each)

    keys = list(walk(catalog_format.CATALOG))
    assert len(keys) > 60
    assert [key.name for key in keys if not key.note or key.note.endswith(".")] == []
