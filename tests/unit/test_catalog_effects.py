"""What a newer version means for one holder, change by change."""

from __future__ import annotations

import pytest

from authz_service.catalog.effects import OTHER_READS, OTHER_WRITES, Comparison, Effect, Turn
from authz_service.catalog.loader import load_catalog
from authz_service.catalog.ways import HeldScope, Holding
from authz_service.compiler.holding import holding_of
from authz_service.directory.model import NodeKind
from authz_service.tokens.model import Reach, ReachKind, Scope, Token, TokenId, TokenKind

FORGE = """\
catalog: forge
version: 1
roles: {guest: , member: [guest], owner: [member]}
top_role: owner
targets: {/projects/:id: project, /groups/:id: group, /runners: caller}
encoded_parameters: [file]
permissions:
  issue:
    read: {project: "GET /projects/:id/issues", group: "GET /groups/:id/issues"}
    write: {project: {min_role: member, operations: "POST /projects/:id/issues"}}
  file:
    read: {project: "GET /projects/:id/files/:file"}
  runner:
    read: {project: "GET /runners/:runner", instance: "GET /runners/:runner"}
  key:
    read: {user: "GET /user/keys"}
operations:
  PUT /projects/:id/merge: issue:read + issue:write
  GET /version: {open: true}
bundles:
  api: {permissions: all, operations: all, any_operation: all}
  read_api: {permissions: reads, any_operation: read}
"""
PLACES = frozenset({NodeKind.PROJECT, NodeKind.GROUP})


def holds(*permissions: str, boundaries: frozenset[NodeKind] = PLACES) -> Holding:
    return Holding(frozenset({HeldScope(boundaries, frozenset(permissions))}))


READER, WRITER = holds("issue:read"), holds("issue:read", "issue:write")
KEYS = holds("key:read", boundaries=frozenset({NodeKind.USER}))
PROJECTS = holds("issue:read", boundaries=frozenset({NodeKind.PROJECT}))
NO_GROUP = (', group: "GET /groups/:id/issues"', "")
ENCODED = "encoded_parameters: [file]"


def with_key(resource: str, action: str, key: str) -> tuple[str, str]:
    """One more key of a permission in its long form."""
    before = f"{resource}:\n    {action}: {{" if resource != "issue" or action == "read" else f"    {action}: {{"
    return before, f"{before}{key}, "


def effect(holding: Holding, *changes: tuple[str, str]) -> Effect:
    text = FORGE.replace("version: 1", "version: 2")
    for before, after in changes:
        assert before in text, before
        text = text.replace(before, after)
    return Comparison(load_catalog(FORGE), load_catalog(text)).effect(holding)


def said(found: Effect) -> tuple[bool, bool]:
    return found.breaks, found.widens


SAME, BROKEN, WIDENED, BOTH = (False, False), (True, False), (False, True), (True, True)


@pytest.mark.parametrize(
    ("holding", "change", "expected"),
    [
        # names
        (WRITER, ("issue:\n", "issue:\n    list: project\n"), SAME),
        (READER, ("  key:\n    read: {user: ", "  label:\n    read: {user: "), SAME),
        (KEYS, ("key:\n", "label:\n"), BROKEN),
        (READER, NO_GROUP, BROKEN),
        (PROJECTS, NO_GROUP, SAME),
        # roles
        (WRITER, ("min_role: member", "min_role: owner"), BROKEN),
        (WRITER, ("min_role: member", "min_role: guest"), WIDENED),
        (WRITER, ("min_role: member, ", ""), WIDENED),
        (READER, ("min_role: member", "min_role: owner"), SAME),
        (WRITER, ("member: [guest]", "member: "), SAME),
        (WRITER, ("guest: , member: [guest]", "guest: [member], member: "), WIDENED),
        (WRITER, ("owner: [member]", "owner: "), BROKEN),
        (READER, ("guest: , ", "guest: {inherits: false}, "), BROKEN),
        # implications
        (READER, with_key("issue", "read", "implies: issue:write"), WIDENED),
        (holds("issue:write"), with_key("issue", "write", "implies: issue:read"), WIDENED),
        (WRITER, with_key("issue", "write", "implies: issue:read"), SAME),
        # attributes and public places
        (READER, with_key("issue", "read", "when: {context.x: 1}"), BROKEN),
        (holds(), with_key("file", "read", "public_read: true"), WIDENED),
        (holds(), with_key("issue", "write", "public_read: true"), SAME),
        (holds(), with_key("issue", "write", "public_read: true, reviewed: true"), WIDENED),
        # operations
        (READER, ("issue:read + issue:write", "issue:read"), WIDENED),
        (WRITER, ("issue:read + issue:write", "issue:read"), WIDENED),
        (WRITER, ("issue:read + issue:write", "[issue:read + issue:write, file:read]"), SAME),
        (WRITER, ("issue:read + issue:write", "issue:read + issue:write + file:read"), BROKEN),
        (holds(), ("issue:read + issue:write", "{open: true}"), SAME),
        (holds(), ("issue:read + issue:write", "{open: true, reviewed: true}"), WIDENED),
        (holds(), ("GET /version: {open: true}", "GET /version: {closed: true}"), BROKEN),
        (holds(), ("GET /version: {open: true}", "GET /version: {open: true}\n  GET /news: {open: true}"), WIDENED),
        (READER, ("projects/:id/issues", "projects/:key/issues"), SAME),
        (READER, ("/groups/:id: group", "/groups/:id: caller"), BOTH),
        (READER, ("operations:\n", "operations:\n  GET /projects/:id/boards: issue:read@project\n"), WIDENED),
        # requests
        (holds("file:read"), (ENCODED, ""), BROKEN),
        (holds("file:read"), (ENCODED, f"{ENCODED}\nspanning_parameters: [file]"), WIDENED),
        (READER, (ENCODED, ""), SAME),
        (holds(), ("version: 2", "version: 2\nbase_path: /api"), BOTH),
        (holds(), ("version: 2", "version: 2\ncase_sensitive: true"), BROKEN),
        # what decides nothing
        (WRITER, ("version: 2", "version: 2\ntitle: Forge\nwords: {project: repository}"), SAME),
        (WRITER, with_key("issue", "write", "description: Write, deprecated: true"), SAME),
    ],
)  # fmt: skip
def test_a_change_breaks_widens_or_neither(holding, change, expected):
    assert said(effect(holding, change)) == expected


def test_an_operation_that_takes_a_part_of_anothers_requests_is_compared_with_it():
    change = ("operations:\n", "operations:\n  GET /projects/all/issues: {needs: file:read@project, target: caller}\n")
    assert [(call.operation, call.turn, call.unknown) for call in effect(READER, change).calls] == [
        ("GET /projects/:id/issues", Turn.LOST, False)
    ]
    assert [(call.operation, call.turn, call.unknown) for call in effect(holds("file:read"), change).calls] == [
        ("GET /projects/all/issues", Turn.GAINED, False)
    ]


TWO = """\
catalog: two
version: 1
attribute_parameters: {resource.kind: kind}
permissions:
  thing:
    read: {when: {resource.kind: book}, project: "GET /from/:one/to/:other/:kind -> project :one"}
"""


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("-> project :one", "-> project :other"), BOTH),
        ((":one", ":first"), SAME),
        (("attribute_parameters: {resource.kind: kind}\n", ""), BOTH),
        (("resource.kind: kind", "resource.kind: other"), BOTH),
        (("when: {resource.kind: book}", "when: {resource.kind: film}"), BOTH),
        (("when: {resource.kind: book}", "when: {resource.kind: book, context.x: 1}"), BROKEN),
        (("when: {resource.kind: book}, ", ""), WIDENED),
    ],
)
def test_where_and_when_it_holds_are_part_of_what_a_permission_is(change, expected):
    comparison = Comparison(load_catalog(TWO), load_catalog(TWO.replace("version: 1", "version: 2").replace(*change)))
    assert said(comparison.effect(holds("thing:read"))) == expected


def test_a_new_call_is_told_from_one_that_was_known():
    added = effect(READER, ("operations:\n", "operations:\n  GET /projects/:id/boards: issue:read@project\n"))
    assert [call.unknown for call in added.calls] == [True]
    assert (added.widens, added.widens_known) == (True, False)
    moved = effect(READER, ("issue:read + issue:write", "issue:read"))
    assert (moved.widens, moved.widens_known) == (True, True)


def test_names_that_are_gone_are_lacking_and_those_that_never_were_are_not():
    change = ("  key:\n    read: {user: ", "  label:\n    read: {user: ")
    assert effect(holds("key:read", "fly:away"), change).lacking == ("key:read",)
    assert effect(Holding(legacy=frozenset({"read_api"})), ("  read_api: ", "  see_api: ")).lacking == ("read_api",)


def test_what_is_implied_is_told_from_what_is_named():
    change = with_key("issue", "write", "implies: issue:read")
    [turn] = [each for each in effect(holds("issue:write"), change).permissions if each.boundary is NodeKind.PROJECT]
    assert (turn.permission, turn.turn, turn.implied) == ("issue:read", Turn.GAINED, True)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("read_api: {permissions: reads", "read_api: {permissions: all"), WIDENED),
        (("read_api: {permissions: reads", "read_api: {permissions: issue:read"), BROKEN),
        (("reads, any_operation: read", "reads, any_operation: read, public_only: true"), BROKEN),
        (("reads, any", "reads, operations: [POST /projects/:id/issues], any"), WIDENED),
        (with_key("key", "read", "visitor: true"), SAME),
        (with_key("file", "read", "visitor: true"), WIDENED),
        (("version: 2", "version: 2\nforbidding_legacy_ends_public_reads: true"), BROKEN),
    ],
)  # fmt: skip
def test_coarse_tokens_are_compared_by_what_their_bundles_hold(change, expected):
    assert said(effect(Holding(legacy=frozenset({"read_api"})), change)) == expected
    assert said(effect(READER, change)) == SAME


def test_a_new_name_that_keeps_the_former_one_changes_nothing():
    renamed = (("    write: {project", "    edit: {aliases: issue:write, project"), ("+ issue:write", "+ issue:edit"))
    assert said(effect(WRITER, *renamed)) == SAME
    assert said(effect(WRITER, (renamed[0][0], "    edit: {project"), renamed[1])) == BROKEN


def test_calls_in_no_table_are_compared_as_one():
    found = effect(Holding(legacy=frozenset({"read_api"})), ("reads, any_operation: read", "reads, any_operation: all"))
    assert [(call.operation, call.turn) for call in found.calls] == [(OTHER_WRITES, Turn.GAINED)]
    found = effect(Holding(legacy=frozenset({"read_api"})), ("reads, any_operation: read", "reads"))
    assert [(call.operation, call.turn) for call in found.calls] == [(OTHER_READS, Turn.LOST)]


@pytest.mark.parametrize(
    "change",
    [
        ("roles: {guest: , member: [guest], owner: [member]}\ntop_role: owner", "owner_check: upstream"),
        ("version: 2", "version: 2\nsource: mirror"),
        ("version: 2", "version: 2\nsingle_owner: true"),
    ],
)
def test_tokens_do_not_go_to_a_version_that_knows_owners_or_places_otherwise(change):
    text = FORGE.replace("version: 1", "version: 2").replace(*change)
    if "upstream" in text:
        text = text.replace("{min_role: member, operations: ", "").replace('issues"}}', 'issues"}')
    comparison = Comparison(load_catalog(FORGE), load_catalog(text))
    assert len(comparison.incompatible) == 1
    assert change[1].rpartition("\n")[2].partition(":")[0] in comparison.incompatible[0]


def test_a_holding_knows_the_kinds_of_place_that_a_token_reaches():
    def held(reach: ReachKind, *nodes: int | str) -> frozenset[NodeKind]:
        scope = Scope("forge", Reach(reach, nodes), ("issue:read",))
        token = Token(TokenId("tok_1"), 1, {"forge": 1}, scopes=(scope, Scope("other", Reach(reach), ("x:y",))))
        [found] = holding_of(token, "forge", {1: NodeKind.PROJECT, 2: NodeKind.GROUP, 3: NodeKind.USER}).scopes
        return found.boundaries

    project = frozenset({NodeKind.PROJECT})
    assert (
        held(ReachKind.SELECTED, 1)
        == held(ReachKind.SELECTED, 1, 3)
        == held(ReachKind.SELECTED, "project:a")
        == project
    )
    assert (
        held(ReachKind.SELECTED, 1, 2) == held(ReachKind.SELECTED, 9) == held(ReachKind.SELECTED, "group:a") == PLACES
    )
    assert held(ReachKind.ALL_MEMBERSHIPS) == PLACES
    assert held(ReachKind.PERSONAL_PROJECTS) == project
    assert held(ReachKind.USER) == {NodeKind.USER}
    assert held(ReachKind.INSTANCE) == {NodeKind.INSTANCE}


def test_a_token_that_does_not_name_the_catalog_holds_nothing_in_it():
    for kind in TokenKind:
        token = Token(TokenId("tok_1"), 1, {"other": 1}, kind, legacy_scopes=("api",))
        holding = holding_of(token, "forge", {})
        assert not holding.scopes
        assert not holding.legacy
        assert (holding.legacy is None) is (kind is TokenKind.FINE_GRAINED)
