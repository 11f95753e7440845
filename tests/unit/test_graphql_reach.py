"""What documents reach beyond what the cases and the executor show: bounds, older schemas, odd values."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.property.documents import CATALOG, SDL

from authz_service.catalog.graphql_documents import MAX_DEPTH, BadDocumentError, DocumentFault, parse_document
from authz_service.catalog.graphql_places import Named
from authz_service.catalog.graphql_reach import MAX_PARTS, Budget, Reacher
from authz_service.catalog.graphql_schema import format_schema, load_schema, parse_stored
from authz_service.catalog.loader import load_catalog
from authz_service.catalog.model import TargetKind

FORGE = load_catalog(CATALOG)
REACHER = Reacher(FORGE, load_schema(SDL))


def reach(query: str, reacher: Reacher = REACHER, **variables: Any) -> list[tuple[str, Any, bool]]:
    parts = reacher.reach(parse_document(query), variables=variables)
    return [(part.operation, part.spot, part.needs_schema) for part in parts]


def refusal(query: str, **variables: Any) -> DocumentFault:
    with pytest.raises(BadDocumentError) as caught:
        reach(query, **variables)
    return caught.value.faults[0].code


def test_fragments_that_multiply_are_bounded():
    doubling = " ".join(f"fragment F{n} on Query {{ ...F{n + 1} ...F{n + 1} }}" for n in range(25))
    assert refusal(f"{{ ...F0 }} {doubling} fragment F25 on Query {{ version }}") is DocumentFault.TOO_MANY_FIELDS


def test_fragments_are_no_way_around_the_depth():
    chain = " ".join(f"fragment F{n} on Query {{ ...F{n + 1} }}" for n in range(MAX_DEPTH))
    assert refusal(f"{{ ...F0 }} {chain} fragment F{MAX_DEPTH} on Query {{ version }}") is DocumentFault.TOO_DEEP


def test_more_places_than_anybody_asks_about_are_refused():
    paths = [f"acme/p{number}" for number in range(MAX_PARTS + 1)]
    query = "query Q($paths: [ID!]) { projects(fullPaths: $paths) { count } }"
    assert refusal(query, paths=paths) is DocumentFault.TOO_MANY_FIELDS


def test_the_documents_of_one_request_share_a_budget():
    budget = Budget()
    document = parse_document('{ project(fullPath: "acme/web") { name } }')
    REACHER.reach(document, budget=budget)
    spent = budget.steps
    REACHER.reach(document, budget=budget)
    assert spent - budget.steps == Budget().steps - spent > 0


@pytest.mark.parametrize(
    "query",
    [
        '{ project(fullPath: "acme/web") { name brandNew } }',
        '{ project(fullPath: "acme/web") { name ... on BrandNew { id } } }',
        '{ project(fullPath: "acme/web") { name ...F } } fragment F on BrandNew { id }',
        '{ project(fullPath: "acme/web") { name brandNew { id } } }',
    ],
)
def test_what_an_older_schema_does_not_have_is_not_guessed(query: str):
    assert any(needs_schema for _, _, needs_schema in reach(query))


def test_a_root_field_that_an_older_schema_does_not_have_is_as_without_one():
    plain = Reacher(FORGE, None)
    for query in ('mutation { createIssue(input: {projectPath: "a/b"}) { errors } }', "{ brandNew { id } }", "{ new }"):
        without = "\n".join(line for line in SDL.splitlines() if "createIssue" not in line)
        assert reach(query, Reacher(FORGE, load_schema(without))) == reach(query, plain)


@pytest.mark.parametrize("value", ["instance", "project:acme/web", "acme//web", "../x", "", "a/b ", "ü", True, 1.5, {}])
def test_a_value_that_is_no_path_names_nothing(value: object):
    query = "query Q($path: ID) { project(fullPath: $path) { name } }"
    assert reach(query, path=value) == [("Type.Project", Named(None, ""), False)]


def test_a_global_id_has_digits_or_names_nothing():
    query = "query Q($id: ID) { project(id: $id) { name } }"
    for tail, value in (("42", "42"), ("42x", ""), ("", ""), ("4/2", ""), ("٤٢", "")):
        [(_, spot, _)] = reach(query, id=f"gid://forge/Project/{tail}")
        assert isinstance(spot, Named)
        assert spot.value == value


def test_a_null_names_no_place_and_the_caller_is_asked():
    query = "query Q($path: ID) { project(fullPath: $path) { name } }"
    for variables in ({}, {"path": None}):
        assert reach(query, **variables) == [("Type.Project", TargetKind.CALLER, False)]


@pytest.mark.parametrize("value", [None, "true", 1, [], "absent"])
def test_a_condition_that_is_no_flag_is_refused(value: object):
    query = "query Q($more: Boolean) { version @include(if: $more) }"
    variables = {} if value == "absent" else {"more": value}
    assert refusal(query, **variables) is DocumentFault.VARIABLE_INVALID


def test_a_variable_that_nobody_defines_is_refused():
    assert refusal("{ version @skip(if: $no) }") is DocumentFault.VARIABLE_UNKNOWN
    assert refusal("{ project(fullPath: $no) { name } }") is DocumentFault.VARIABLE_UNKNOWN


def test_nothing_selected_is_nothing_asked():
    assert refusal("{ version @skip(if: true) }") is DocumentFault.NOTHING_SELECTED


def test_fields_of_one_name_are_all_looked_at_though_a_server_would_take_one():
    query = '{ p: project(fullPath: "a/b") { name } p: project(fullPath: "c/d") { name } }'
    assert {spot.value for _, spot, _ in reach(query)} == {"a/b", "c/d"}


# what a document leaves out

SHOP = load_catalog(
    """
catalog: shop
version: 1
graphql:
  arguments: {projectPath: project, projectPaths: project, input.projectPath: project, input.into.projectPath: project}
  fields: {Query.drawer: project at.projectPath}
permissions:
  issue:
    read: {project: Type.Issue}
    move: {project: [Mutation.move, Mutation.copy]}
"""
)
SHOP_SDL = """
type Query { board: Board boards(projectPaths: [ID] = "acme/secret"): Board drawer(at: Place = {}): Issue }
interface Listing { issues(projectPath: ID = "acme/other"): [Issue] mail(projectPath: ID = "acme/other"): Issue }
type Board implements Listing { issues(projectPath: ID = "acme/secret"): [Issue] mail(projectPath: ID): Issue }
type Issue { title: String }
input Place { projectPath: ID = "acme/secret" }
input Move { title: String, into: [Place] = [{}, {projectPath: "acme/web"}] }
type Mutation { move(input: Move!): Payload copy(input: Place): Payload }
type Payload { error: String }
"""
SHOP_REACHER = Reacher(SHOP, load_schema(SHOP_SDL))
SECRET = "acme/secret"


def named(query: str, reacher: Reacher = SHOP_REACHER, **variables: Any) -> set[Any]:
    """The places of all that is reached."""
    return {spot.value if isinstance(spot, Named) else spot for _, spot, _ in reach(query, reacher, **variables)}


@pytest.mark.parametrize(
    ("query", "places"),
    [
        ("{ board { issues { title } } }", {TargetKind.CALLER, SECRET}),
        ('{ board { issues(projectPath: "a/b") { title } } }', {TargetKind.CALLER, "a/b"}),
        ("{ board { issues(projectPath: null) { title } } }", {TargetKind.CALLER}),
        ("query Q($p: ID) { board { issues(projectPath: $p) { title } } }", {TargetKind.CALLER, SECRET}),
        ('query Q($p: ID = "a/b") { board { issues(projectPath: $p) { title } } }', {TargetKind.CALLER, "a/b"}),
        ("query Q($p: ID = null) { board { issues(projectPath: $p) { title } } }", {TargetKind.CALLER}),
        ("{ board { ...on Listing { issues { title } } } }", {TargetKind.CALLER, SECRET}),
        ("{ board { ...on Listing { mail { title } } } }", {TargetKind.CALLER}),
        ("{ boards { mail { title } } }", {SECRET}),
        ("query Q($p: ID) { boards(projectPaths: [$p]) { mail { title } } }", {TargetKind.CALLER}),
        ("{ drawer { title } }", {SECRET}),
        ("{ drawer(at: {}) { title } }", {SECRET}),
        ("{ drawer(at: null) { title } }", {TargetKind.CALLER}),
        ("mutation { copy { error } }", {TargetKind.CALLER}),
        ("mutation { copy(input: {}) { error } }", {SECRET}),
        ("query Q($p: ID) { drawer(at: {projectPath: $p}) { title } }", {SECRET}),
        ('mutation { move(input: {title: "x"}) { error } }', {SECRET, "acme/web"}),
        ("mutation { move(input: {into: {}}) { error } }", {SECRET}),
        ("mutation { move(input: {into: [null, {projectPath: null}]}) { error } }", {TargetKind.CALLER}),
        ("mutation M($in: Move! = {}) { move(input: $in) { error } }", {SECRET, "acme/web"}),
        ("mutation M($in: Place = {}) { move(input: {into: [$in]}) { error } }", {SECRET}),
    ],
)
def test_what_a_document_leaves_out_is_where_its_default_says(query: str, places: set[Any]):
    stored = Reacher(SHOP, parse_stored(format_schema(load_schema(SHOP_SDL))))
    assert named(query) == named(query, stored) == places


def test_a_value_of_a_variable_has_the_defaults_of_its_type():
    query = "mutation M($in: Move!) { move(input: $in) { error } }"
    assert named(query, **{"in": {"into": [{}]}}) == {SECRET}
    assert named(query, **{"in": {"into": [{"projectPath": None}]}}) == {TargetKind.CALLER}
    assert named(query, **{"in": {"into": None}}) == {TargetKind.CALLER}


def test_where_no_schema_tells_of_defaults_none_counts():
    query = '{ boards(projectPaths: ["a/b"]) { issues { title } } }'
    told = json.loads(format_schema(load_schema(SHOP_SDL)))
    before = {name: told[name] for name in ("roots", "types")}
    assert named(query) == {"a/b", SECRET}
    assert named(query, Reacher(SHOP, parse_stored(json.dumps(before)))) == {"a/b"}
    assert named('mutation { move(input: {title: "x"}) { error } }', Reacher(SHOP, None)) == {TargetKind.CALLER}
