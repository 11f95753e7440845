"""Schemas from SDL and from introspection, and what is wrong with one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from graphql import build_schema, introspection_from_schema
from tests.property.documents import SDL

from authz_service.catalog import graphql_drafts, graphql_schema
from authz_service.catalog.graphql_schema import format_schema, load_schema, parse_stored
from authz_service.catalog.graphql_types import ApiSchema, Declared, TypeKind
from authz_service.errors import CatalogInvalidError

DEFAULTS = """
type Query {
  board(path: ID = "acme/web", paths: [ID] = ["a", null], null: ID = null, on: Boolean = true, first: Int): Board
  move(input: Outer!, plain: Plain): Int
  plain(plain: Plain = null): Int
}
interface Placed { issues(path: ID = "acme/web"): Int }
type Board implements Placed { issues(path: ID = "acme/api"): Int }
input Outer { inner: [Inner!] again: Outer plain: Plain first: Int }
input Inner { path: ID = "acme/web" sort: Sort = UP title: String = null }
input Plain { path: ID }
input Nowhere { path: ID = "acme/web" }
enum Sort { UP DOWN }
"""


def known(schema: ApiSchema) -> tuple[object, ...]:
    """All that documents are read by. An introspection lists interfaces as it likes."""
    return (
        dict(schema.roots),
        {name: (each.kind, dict(each.fields), each.arguments) for name, each in schema.types.items()},
        schema.inputs,
        {name: set(each) for name, each in schema.possible.items()},
    )


def test_sdl_and_introspection_are_one_schema():
    for sdl in (SDL, DEFAULTS):
        told = introspection_from_schema(build_schema(sdl))
        by_sdl = load_schema(sdl)
        for document in (told, {"data": told}):
            assert known(load_schema(json.dumps(document), file="schema.json")) == known(by_sdl)


def test_a_schema_is_stored_and_read_back():
    for sdl in (SDL, DEFAULTS):
        schema = load_schema(sdl)
        assert parse_stored(format_schema(schema)) == schema
        assert format_schema(parse_stored(format_schema(schema))) == format_schema(schema)


def test_of_arguments_only_what_a_default_may_come_from_is_kept():
    schema = load_schema(DEFAULTS)
    assert schema.types["Query"].arguments == {
        "board": {
            "path": Declared("ID", "acme/web"),
            "paths": Declared("ID", ["a", None]),
            "on": Declared("Boolean", True),
        },
        "move": {"input": Declared("Outer")},
    }
    assert schema.types["Placed"].arguments == {}
    assert schema.types["Board"].arguments == {"issues": {"path": Declared("ID", "acme/api")}}
    assert schema.inputs == {
        "Outer": {"inner": Declared("Inner"), "again": Declared("Outer")},
        "Inner": {"path": Declared("ID", "acme/web"), "sort": Declared("Sort", "UP")},
    }


def test_what_was_stored_before_defaults_were_kept_says_nothing_of_them():
    schema = load_schema(DEFAULTS)
    text = json.loads(format_schema(schema))
    assert schema.defaults_known
    before = json.dumps({name: text[name] for name in ("roots", "types")}, separators=(",", ":"))
    older = parse_stored(before)
    assert not older.defaults_known
    assert not any(each.arguments for each in older.types.values())
    assert {name: each.fields for name, each in older.types.items()} == {
        name: each.fields for name, each in schema.types.items()
    }
    assert format_schema(older) == before


@pytest.mark.parametrize("left_out", ["args", "defaultValue", "inputFields"])
def test_an_introspection_that_leaves_out_defaults_is_refused(left_out: str):
    def without(found: object) -> object:
        if isinstance(found, dict):
            return {name: without(each) for name, each in found.items() if name != left_out}
        return [without(each) for each in found] if isinstance(found, list) else found

    told = introspection_from_schema(build_schema(DEFAULTS))
    with pytest.raises(CatalogInvalidError) as caught:
        load_schema(json.dumps(without(told)))
    assert "`defaultValue`" in caught.value.faults[0].message


@pytest.mark.parametrize("text", ["", "{", "$variable", '"a" "b"', "[" * 50_000, 7])
def test_a_default_that_is_no_value_refuses_the_introspection(text: object):
    told: Any = introspection_from_schema(build_schema('type Query { board(path: ID = "acme/web"): Int }'))
    [query] = [each for each in told["__schema"]["types"] if each["name"] == "Query"]
    query["fields"][0]["args"][0]["defaultValue"] = text
    with pytest.raises(CatalogInvalidError):
        load_schema(json.dumps(told))


def test_extensions_belong_to_their_type():
    schema = load_schema(
        "type Query { a: A } type A { b: Int } extend type A implements I { id: ID } interface I { id: ID }"
        " union U = A  extend union U = B  type B { c: Int } schema { query: Query } extend schema { mutation: B }"
        " enum E { X } scalar S extend type Query { u: U, e: E, s: S }"
    )
    assert schema.types["A"].fields == {"b": "Int", "id": "ID"}
    assert set(schema.possible["U"]) == {"A", "B"}
    assert set(schema.counts_as["A"]) == {"A", "I", "U"}
    assert schema.roots == {"query": "Query", "mutation": "B"}
    assert schema.types["E"].kind is TypeKind.LEAF


def test_a_connection_is_known_by_its_edges_and_page_info():
    schema = load_schema(SDL)
    assert schema.nodes == {"IssueConnection": "Issue", "ProjectConnection": "Project"}
    assert "IssueConnection.nodes" in schema.inside_connections
    assert "IssueEdge.node" in schema.inside_connections
    assert "IssueConnection.count" not in schema.inside_connections


WRONG = {
    "no query": "type A { b: Int }",
    "an unknown type": "type Query { a: Missing }",
    "a union of an interface": "type Query { a: U } union U = I interface I { b: Int }",
    "an interface that is a type": "type Query implements A { b: Int } type A { b: Int }",
    "a type twice": "type Query { a: Int } type Query { b: Int }",
    "a field twice": "type Query { a: Int, a: ID }",
    "an argument twice": "type Query { a(b: Int = 1, b: Int = 2): Int }",
    "an input type twice": "type Query { a: Int } input I { b: Int } input I { c: Int }",
    "an input type called as a type": "type Query { a: Int } input Query { b: Int }",
    "a type called as an input type": "input Query { b: Int } type Query { a: Int }",
    "an argument of an unknown type": "type Query { a(b: Missing): Int }",
    "an argument of a type that comes out": "type Query { a(b: Query): Int }",
    "an input field of an unknown type": "type Query { a: Int } input I { b: Missing }",
    "a default that is a variable": "type Query { a(b: Int = $c): Int }",
    "a type called Type": "type Query { a: Type } type Type { b: Int }",
    "operations": "type Query { a: Int } query Q { a }",
    "no schema": "hello",
    "an unterminated text": 'type Query { "a',
    "deep types": "type Query { a: " + "[" * 50_000 + " }",
    "json that is none": '{"__schema": ',
    "json of something else": '{"__schema": {"types": 7}}',
    "json with odd names": '{"data": {"__schema": {"queryType": {"name": 1}, "types": []}}}',
}


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG)
def test_what_is_no_schema_is_refused_at_its_line(text: str):
    with pytest.raises(CatalogInvalidError) as caught:
        load_schema(text, file="api.graphql")
    assert caught.value.faults
    for fault in caught.value.faults:
        assert fault.where.startswith("api.graphql:")
        assert not fault.message.endswith(".")


def test_all_faults_of_a_schema_are_told_at_once():
    with pytest.raises(CatalogInvalidError) as caught:
        load_schema("type Query {\n a: Missing\n b: Gone\n a: Int\n}")
    assert [fault.where.rpartition(":")[2] for fault in caught.value.faults] == ["2", "3", "4"]


def test_a_schema_beyond_the_limits_is_refused(monkeypatch):
    monkeypatch.setattr(graphql_schema, "MAX_CHARACTERS", 10)
    with pytest.raises(CatalogInvalidError):
        load_schema("type Query { a: Int }")
    monkeypatch.undo()
    monkeypatch.setattr(graphql_drafts, "MAX_FIELDS", 1)
    with pytest.raises(CatalogInvalidError):
        load_schema("type Query { a: Int b: Int }")


ODD = '{"roots": {}, "types": {}, "version": 2, "arguments": {"A": {"b": {"c": [1, 2]}}}, "inputs": {}}'
NEWER = '{"roots": {}, "types": {}, "version": 3, "arguments": {}, "inputs": {}}'


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"roots": {}, "types": {"A": ["odd", {}, [], []]}}', '{"types": 1}', ODD, NEWER]
)
def test_what_another_version_stored_is_no_schema(text: str):
    with pytest.raises(CatalogInvalidError):
        parse_stored(text)
