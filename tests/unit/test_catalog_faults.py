"""Every fault of a catalog file: its code and its line, alone and among others."""

from __future__ import annotations

import pytest

from authz_service.catalog.faults import MOST_FAULTS, CatalogFault
from authz_service.catalog.format import MAX_PERMISSIONS, MAX_SETS
from authz_service.catalog.loader import load_catalog
from authz_service.errors import CatalogInvalidError

HEAD = """\
catalog: shop
version: 1
roles: {member: , owner: [member]}
top_role: owner
targets:
  /projects/:id: project
  /groups/:id: group
  /users/:id: user
permissions:
  issue:
    read: {project: , group: }
    write: {project: , user: , instance: }
    list: {project: }
"""
NEXT = HEAD.count("\n") + 1
"""The line of the first thing a case adds after HEAD; permissions may go on there, indented by two."""


MINI = "catalog: a\nversion: 1\npermissions: {i: {read: project}}\n"
"""A whole catalog of three lines, for what HEAD has already."""


def faults_of(text):
    with pytest.raises(CatalogInvalidError) as caught:
        load_catalog(text, file="shop.yaml")
    found = []
    for fault in caught.value.faults:
        file, _, line = fault.where.partition(":")
        assert file == "shop.yaml"
        found.append((int(line), fault.code))
    return found


def with_label(body):
    """One more permission, `label:read`, in the line NEXT."""
    return f"{HEAD}  label: {{read: {{{body}}}}}\n"


def with_entry(entry):
    return f"{HEAD}operations:\n  {entry}\n"


ALONE = [
    # The text
    (CatalogFault.BAD_SYNTAX, 2, "catalog: a\nversion: @\n"),
    (CatalogFault.BAD_CHARACTER, 2, "catalog: a\nversion:\t1\n"),
    (CatalogFault.YAML_REFUSED, 2, "catalog: a\nversion: &v 1\n"),
    (CatalogFault.TOO_LARGE, 1, "catalog: " + "[" * 20),
    (CatalogFault.KEY_NOT_TEXT, NEXT, HEAD + "  7: {read: project}\n"),
    (CatalogFault.DUPLICATE_KEY, NEXT, HEAD + "catalog: shop\n"),
    (
        CatalogFault.TOO_LARGE,
        3,
        "catalog: a\nversion: 1\npermissions: {"
        + ", ".join(f"r{n}: {{read: user}}" for n in range(MAX_PERMISSIONS + 1))
        + "}\n",
    ),
    (
        CatalogFault.TOO_LARGE,
        NEXT + 3,
        HEAD + "  label:\n    read:\n      project: |\n" + "        GET /projects/:id\n" * (MAX_SETS + 1),
    ),
    (CatalogFault.TOO_LARGE, NEXT + 1, with_entry(f"GET /projects/:id: [{'issue:list, ' * (MAX_SETS + 1)}]")),
    # Shapes
    (CatalogFault.UNKNOWN_KEY, NEXT, HEAD + "colour: red\n"),
    (CatalogFault.UNKNOWN_KEY, NEXT, with_label("project: , colour: red")),
    (CatalogFault.UNKNOWN_KEY, NEXT + 1, with_entry("GET /projects/:id: {needs: issue:read, colour: red}")),
    (CatalogFault.MISSING_KEY, 1, "version: 1\npermissions: {issue: {read: project}}\n"),
    (CatalogFault.MISSING_KEY, 1, "catalog: a\npermissions: {issue: {read: project}}\n"),
    (CatalogFault.MISSING_KEY, 1, "catalog: a\nversion: 1\n"),
    (CatalogFault.MISSING_KEY, 3, "catalog: a\nversion: 1\nroles: {m: }\npermissions: {issue: {read: project}}\n"),
    (CatalogFault.MISSING_KEY, NEXT + 1, with_entry("GET /projects/:id: {needs: [{when: {context.a: 1}}]}")),
    (CatalogFault.BAD_TYPE, 2, "catalog: a\nversion: one\npermissions: {issue: {read: project}}\n"),
    (CatalogFault.BAD_TYPE, 2, "catalog: a\nversion: true\npermissions: {issue: {read: project}}\n"),
    (CatalogFault.BAD_TYPE, NEXT, HEAD + "case_sensitive: yes\n"),
    (CatalogFault.BAD_TYPE, NEXT, HEAD + "title: {en: Shop}\n"),
    (CatalogFault.BAD_TYPE, NEXT, HEAD + "bundles: [api]\n"),
    (CatalogFault.BAD_TYPE, NEXT, with_label("project: , implies: {a: b}")),
    (CatalogFault.BAD_VALUE, 2, "catalog: a\nversion: 0\npermissions: {issue: {read: project}}\n"),
    (CatalogFault.BAD_VALUE, NEXT, HEAD + "owner_check: nobody\n"),
    (CatalogFault.BAD_VALUE, NEXT, HEAD + "base_path: /api/\n"),
    (CatalogFault.BAD_VALUE, NEXT, HEAD + f"title: {'x' * 600}\n"),
    (CatalogFault.BAD_NAME, 1, "catalog: Shop\nversion: 1\npermissions: {issue: {read: project}}\n"),
    (CatalogFault.BAD_NAME, NEXT, HEAD + "  is-sue: {read: project}\n"),
    (CatalogFault.BAD_NAME, NEXT, HEAD + "  іssue: {read: project}\n"),  # noqa: RUF001 - a Cyrillic letter, on purpose
    (CatalogFault.BAD_NAME, NEXT, HEAD + f"  {'x' * 65}: {{read: project}}\n"),
    (CatalogFault.BAD_NAME, NEXT, HEAD + "  label: {Read: project}\n"),
    (CatalogFault.BAD_NAME, NEXT, with_label("project: , implies: issue")),
    (CatalogFault.BAD_NAME, NEXT, HEAD + "bundles: {'a:b:c': {}}\n"),
    (CatalogFault.BAD_NAME, NEXT + 1, with_entry("GET /projects/:id: issue")),
    (CatalogFault.BAD_NAME, NEXT, with_label("project: GET /projects/:id + issue")),
    (CatalogFault.BAD_OPERATION, NEXT + 2, HEAD + "  label:\n    read:\n      project: get /projects/:id\n"),
    (CatalogFault.BAD_OPERATION, NEXT + 1, with_entry("GET projects: issue:read")),
    (CatalogFault.BAD_OPERATION, NEXT, HEAD + "flags: {open: [GET /a + issue:read]}\n"),
    (CatalogFault.BAD_TARGET, NEXT, with_label("project: GET /labels -> somewhere")),
    (CatalogFault.BAD_TARGET, NEXT, with_label("group: 'GET /labels/:id -> below project :id'")),
    (CatalogFault.BAD_TARGET, NEXT, with_label("project: GET /labels -> self")),
    (CatalogFault.BAD_TARGET, NEXT, with_label("project: GET /labels -> instance")),
    (CatalogFault.BAD_TARGET, NEXT, with_label("user: GET /groups/:id/labels -> below group :id")),
    (CatalogFault.BAD_TARGET, NEXT, HEAD + "flags: {open: [GET /groups/:id -> anywhere]}\n"),
    (CatalogFault.BAD_TARGET, 5, MINI + "targets:\n  /x: project\n"),
    (CatalogFault.BAD_TARGET, 5, MINI + "targets:\n  /x//:y: project\n"),
    (
        CatalogFault.BAD_TARGET,
        NEXT + 1,
        with_entry("GET /a/:b: {needs: [{all_of: [{permission: issue:list, target: b}]}]}"),
    ),
    (CatalogFault.BAD_TARGET, 5, MINI + "targets:\n  x: project\n"),
    (CatalogFault.BAD_TARGET, 5, MINI + "targets:\n  /x/:y: tree\n"),
    (CatalogFault.BAD_TARGET, 5, MINI + "targets:\n  /x(/:y): group\n"),
    (CatalogFault.BAD_TARGET, 5, MINI + "targets:\n  /x/:y: group :z\n"),
    (CatalogFault.BAD_TARGET, NEXT, HEAD + "flags: {closed: [GET /a -> caller]}\n"),
    (CatalogFault.BAD_TARGET, 6, MINI + "targets:\n  /x/:y: group\n  /x/:z: project\n"),
    (CatalogFault.BAD_CONDITION, NEXT, with_label("project: , when: {colour: red}")),
    (CatalogFault.BAD_CONDITION, NEXT, with_label("project: , when: {resource.size: 1.5}")),
    (CatalogFault.BAD_CONDITION, NEXT, with_label("project: , when: {resource.size: [1]}")),
    (CatalogFault.BAD_CONDITION, NEXT, with_label("project: , when: {resource.size: }")),
    (CatalogFault.BAD_CONDITION, NEXT, with_label("project: , when: {subject.admin: 'true'}")),
    (CatalogFault.BAD_CONDITION, NEXT, with_label("project: , when: {resource.visibility: open}")),
    # References
    (CatalogFault.UNKNOWN_PERMISSION, NEXT + 1, with_entry("GET /projects/:id: issue:reed")),
    (CatalogFault.UNKNOWN_PERMISSION, NEXT, with_label("project: , implies: [issue:reed]")),
    (CatalogFault.UNKNOWN_PERMISSION, NEXT, with_label("project: GET /projects/:id + issue:reed")),
    (CatalogFault.UNKNOWN_PERMISSION, NEXT, HEAD + "bundles: {api: {permissions: [issue:reed]}}\n"),
    (CatalogFault.UNKNOWN_PERMISSION, NEXT, HEAD + "implies: {project: issue:reed}\n"),
    (CatalogFault.UNKNOWN_PERMISSION, NEXT, HEAD + "levels: [read, wirte]\n"),
    (CatalogFault.UNKNOWN_PERMISSION, NEXT, HEAD + "reading_actions: [reed]\n"),
    (
        CatalogFault.UNKNOWN_PERMISSION,
        NEXT + 2,
        HEAD + "  label:\n    read: {project: , aliases: tag:read}\n    make: {project: , implies: tag:read}\n",
    ),
    (CatalogFault.UNKNOWN_BOUNDARY, NEXT, HEAD + "  label: {read: projet}\n"),
    (CatalogFault.UNKNOWN_BOUNDARY, NEXT + 1, with_entry("GET /projects/:id: issue:read@projet")),
    (CatalogFault.UNKNOWN_ROLE, NEXT, with_label("project: {min_role: boss}")),
    (
        CatalogFault.UNKNOWN_ROLE,
        NEXT + 1,
        with_entry("GET /projects/:id: {needs: [{all_of: issue:read, min_role: boss}]}"),
    ),
    (CatalogFault.UNKNOWN_ROLE, NEXT, with_label("project: , when: {subject.role: boss}")),
    (CatalogFault.UNKNOWN_ROLE, 4, MINI + "roles: {m: [n]}\ntop_role: m\n"),
    (CatalogFault.UNKNOWN_ROLE, 5, MINI + "roles: {m: }\ntop_role: n\n"),
    (CatalogFault.UNKNOWN_PARAMETER, NEXT, with_label("project: GET /labels/:id -> project :name")),
    (CatalogFault.UNKNOWN_PARAMETER, NEXT, with_label("user: GET /labels/:id -> self :name")),
    (CatalogFault.UNKNOWN_PARAMETER, NEXT, with_label("project: Query.label -> project :id")),
    (CatalogFault.UNKNOWN_PARAMETER, NEXT, HEAD + "attribute_parameters: {resource.status: status}\n"),
    (CatalogFault.UNKNOWN_OPERATION, NEXT, HEAD + "flags: {public_read: [GET /projects/:id]}\n"),
    (CatalogFault.UNKNOWN_OPERATION, NEXT, HEAD + "bundles: {api: {operations: [GET /projects/:id]}}\n"),
    # Consistency
    (CatalogFault.DUPLICATE_PERMISSION, NEXT, HEAD + "categories: {planning: {issue: {read: project}}}\n"),
    (CatalogFault.DUPLICATE_PERMISSION, NEXT, with_label("project: , aliases: issue:read")),
    (
        CatalogFault.DUPLICATE_OPERATION,
        NEXT + 2,
        with_entry("GET /groups/:id: issue:read\n  GET  /groups/:id: issue:read"),
    ),
    (
        CatalogFault.DUPLICATE_OPERATION,
        NEXT + 2,
        with_entry("GET /groups/:id: issue:read\n  GET /groups/{x}: issue:read"),
    ),
    (
        CatalogFault.DUPLICATE_OPERATION,
        NEXT + 2,
        with_label("project: GET /projects/:id") + "operations:\n  GET /projects/:id: issue:read\n",
    ),
    (CatalogFault.DUPLICATE_ALTERNATIVE, NEXT + 1, with_entry("GET /projects/:id: [issue:list, issue:list@project]")),
    (
        CatalogFault.DUPLICATE_ALTERNATIVE,
        NEXT + 5,
        HEAD + "  label:\n    read:\n      project: |\n        GET /projects/:id\n\n        GET /projects/:id\n",
    ),
    (
        CatalogFault.AMBIGUOUS_ALTERNATIVES,
        NEXT + 5,
        HEAD + "  label:\n    read:\n      project: |\n"
        "        GET /things/:id -> project :id\n      group: |\n        GET /things/:id -> group :id\n",
    ),
    (
        CatalogFault.AMBIGUOUS_ALTERNATIVES,
        NEXT + 4,
        HEAD + "  label:\n    read:\n      project:\n"
        "        - GET /things/:id -> caller\n      instance: GET /things/:id -> instance\n",
    ),
    (
        CatalogFault.ROUTE_CLASH,
        NEXT + 4,
        HEAD + "  label:\n    read:\n      project: |\n"
        "        GET /projects/:id/{a}.{b}\n        GET /projects/:id/{a}-{b}\n",
    ),
    (CatalogFault.NO_BOUNDARY, NEXT + 1, HEAD + "  label:\n    read:\n"),
    (CatalogFault.NO_BOUNDARY, NEXT, with_label("description: See labels")),
    (CatalogFault.NOT_AT_BOUNDARY, NEXT + 1, with_entry("GET /projects/:id: issue:list@group")),
    (CatalogFault.NOT_AT_BOUNDARY, NEXT + 1, with_entry("GET /groups/:id: issue:list")),
    (CatalogFault.NOT_AT_BOUNDARY, NEXT, with_label("user: , implies: issue:read")),
    (CatalogFault.NOT_AT_BOUNDARY, NEXT, HEAD + "implies: {user: issue:read}\n"),
    (CatalogFault.NOT_AT_BOUNDARY, NEXT, with_label("group: GET /groups/:id + issue:list")),
    (CatalogFault.BOUNDARY_UNCLEAR, NEXT + 1, with_entry("GET /things: issue:read")),
    (CatalogFault.BOUNDARY_UNCLEAR, NEXT + 1, with_entry("Query.things: issue:read + issue:list@project")),
    (CatalogFault.TARGET_UNCLEAR, NEXT + 1, with_entry("GET /things/:id: issue:list")),
    (CatalogFault.TARGET_UNCLEAR, NEXT, with_label("group: GET /labels")),
    (CatalogFault.ANYWHERE_MUTATES, NEXT, HEAD + "  label: {edit: {project: POST /labels -> anywhere}}\n"),
    (CatalogFault.OWNER_IS_MISSING, NEXT, with_label("user: GET /users/:id/labels -> self")),
    (CatalogFault.OWNER_IS_MISSING, NEXT, with_label("project: GET /users/:id/labels -> below self")),
    (CatalogFault.NO_REQUIREMENT, NEXT + 1, with_entry("GET /projects/:id: {summary: Nothing is needed}")),
    (CatalogFault.NO_REQUIREMENT, NEXT + 1, with_entry("GET /projects/:id: {public_read: true}")),
    (CatalogFault.NO_REQUIREMENT, NEXT + 1, with_entry("GET /projects/:id: {needs: [{all_of: []}]}")),
    (CatalogFault.FLAGS_CONFLICT, NEXT, HEAD + "flags: {open: [GET /a], closed: [GET /a]}\n"),
    (CatalogFault.FLAGS_CONFLICT, NEXT, HEAD + "flags: {open: [GET /a], mutates: [GET /a], reads: [GET /a]}\n"),
    (
        CatalogFault.FLAGS_CONFLICT,
        NEXT + 1,
        with_entry("GET /a: {open: true, mutates: false}\nflags: {mutates: [GET /a]}"),
    ),
    (CatalogFault.BAD_MIN_ROLE, NEXT, with_label("project: {min_role: none}")),
    (CatalogFault.BAD_MIN_ROLE, NEXT, with_label("project: {min_role: admin}")),
    (CatalogFault.BAD_MIN_ROLE, NEXT, with_label("instance: {min_role: owner}")),
    (
        CatalogFault.BAD_MIN_ROLE,
        NEXT + 1,
        with_entry("GET /a: {needs: [{all_of: issue:write@instance, min_role: none}]}"),
    ),
    (CatalogFault.RESERVED_NAME, 4, MINI + "roles: {none: }\ntop_role: none\n"),
    (CatalogFault.RESERVED_ATTRIBUTE, NEXT, HEAD + "attribute_parameters: {subject.team: id}\n"),
    (CatalogFault.RESERVED_ATTRIBUTE, NEXT, HEAD + "attribute_parameters: {resource.visibility: id}\n"),
    (
        CatalogFault.TOO_MANY_COMBINATIONS,
        NEXT,
        with_label("project: , when: {" + ", ".join(f"resource.a{n}: 1" for n in range(7)) + "}"),
    ),
]


@pytest.mark.parametrize(("code", "line", "text"), ALONE)
def test_a_fault_is_reported_with_its_code_and_line_and_brings_no_others_along(code, line, text):
    assert faults_of(text) == [(line, code)]


def test_cycles_are_reported_at_every_name_on_them():
    permissions = "  a: {read: {project: , implies: b:read}}\n  b: {read: {project: , implies: c:read}}\n"
    text = HEAD + permissions + "  c: {read: {project: , implies: a:read}}\n  d: {read: {project: , implies: a:read}}\n"
    assert faults_of(text) == [(NEXT + step, CatalogFault.IMPLICATION_CYCLE) for step in range(3)]
    roles = MINI + "top_role: x\nroles:\n  x: [y]\n  y: [x]\n  z: [x]\n"
    assert faults_of(roles) == [(6, CatalogFault.ROLE_CYCLE), (7, CatalogFault.ROLE_CYCLE)]


def test_a_permission_that_implies_itself_is_a_cycle():
    assert faults_of(HEAD + "  a: {read: {project: , implies: a:read}}\n") == [(NEXT, CatalogFault.IMPLICATION_CYCLE)]


def test_every_code_is_shown_by_a_case():
    shown = {code for code, _, _ in ALONE} | {CatalogFault.IMPLICATION_CYCLE, CatalogFault.ROLE_CYCLE}
    of_schemas = {CatalogFault.UNKNOWN_TYPE}  # test_graphql_schema.py
    assert shown | of_schemas == set(CatalogFault)


def test_codes_are_public_and_fixed():
    assert {code.value for code in CatalogFault} == {code.name.lower() for code in CatalogFault}


def test_one_reading_reports_all_faults_in_the_order_of_the_file():
    text = """\
catalog: Shop
version: 1
colour: red
permissions:
  issue:
    read: {project: , implies: [issue:nothing]}
    write: projet
    close: {project: GET issues}
  issue:
    open: project
operations:
  GET /projects/:id: issue:reed
  POST /things: {needs: issue:read, open: true, closed: true}
flags: {closed: [FETCH /x]}
"""
    assert faults_of(text) == [
        (1, CatalogFault.BAD_NAME),
        (3, CatalogFault.UNKNOWN_KEY),
        (6, CatalogFault.UNKNOWN_PERMISSION),
        (7, CatalogFault.UNKNOWN_BOUNDARY),
        (8, CatalogFault.BAD_OPERATION),
        (9, CatalogFault.DUPLICATE_KEY),
        (12, CatalogFault.UNKNOWN_PERMISSION),
        (13, CatalogFault.TARGET_UNCLEAR),
        (13, CatalogFault.FLAGS_CONFLICT),
        (14, CatalogFault.BAD_OPERATION),
    ]


def test_a_line_of_a_text_block_is_named_even_after_blank_lines_and_comments():
    block = "\n        # the list\n        GET /projects/:id\n        GET nowhere\n"
    text = HEAD + "  label:\n    read:\n      project: |\n" + block
    assert faults_of(text) == [(NEXT + 6, CatalogFault.BAD_OPERATION)]


def test_a_hopeless_file_is_cut_short_and_says_so():
    text = HEAD + "operations:\n" + "".join(f"  GET /{n}: issue:nothing\n" for n in range(MOST_FAULTS + 5))
    with pytest.raises(CatalogInvalidError) as caught:
        load_catalog(text)
    assert len(caught.value.faults) == MOST_FAULTS
    assert str(MOST_FAULTS + 5) in caught.value.message


def test_a_message_names_what_was_probably_meant():
    with pytest.raises(CatalogInvalidError) as caught:
        load_catalog(with_label("project: , implise: issue:reed, implies: issue:reed"))
    assert [fault.message.rpartition("; ")[2] for fault in caught.value.faults] == [
        "did you mean `implies`?",
        "did you mean `issue:read`?",
    ]


def test_messages_follow_the_style():
    for _, _, text in ALONE:
        with pytest.raises(CatalogInvalidError) as caught:
            load_catalog(text)
        for fault in caught.value.faults:
            assert not fault.message.endswith(".")
            assert fault.message[0] == "`" or fault.message[0].islower()
            assert "\n" not in fault.message
