"""Schemas from SDL and from introspection, and what is wrong with one."""

from __future__ import annotations

import json

import pytest
from graphql import build_schema, introspection_from_schema
from tests.property.documents import SDL

from authz_service.catalog import graphql_schema
from authz_service.catalog.graphql_schema import ApiSchema, TypeKind, format_schema, load_schema, parse_stored
from authz_service.errors import CatalogInvalidError


def known(schema: ApiSchema) -> tuple[object, ...]:
    """All that documents are read by. An introspection lists interfaces as it likes."""
    return (
        dict(schema.roots),
        {name: (each.kind, dict(each.fields)) for name, each in schema.types.items()},
        {name: set(each) for name, each in schema.possible.items()},
    )


def test_sdl_and_introspection_are_one_schema():
    told = introspection_from_schema(build_schema(SDL))
    by_sdl = load_schema(SDL)
    for document in (told, {"data": told}):
        assert known(load_schema(json.dumps(document), file="schema.json")) == known(by_sdl)


def test_a_schema_is_stored_and_read_back():
    schema = load_schema(SDL)
    assert parse_stored(format_schema(schema)) == schema
    assert format_schema(parse_stored(format_schema(schema))) == format_schema(schema)


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
    monkeypatch.setattr(graphql_schema, "MAX_FIELDS", 1)
    with pytest.raises(CatalogInvalidError):
        load_schema("type Query { a: Int b: Int }")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"roots": {}, "types": {"A": ["odd", {}, [], []]}}', '{"types": 1}'])
def test_what_another_version_stored_is_no_schema(text: str):
    with pytest.raises(CatalogInvalidError):
        parse_stored(text)
