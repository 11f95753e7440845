"""From an OpenAPI document to a draft that a person finishes: what is taken over, left open, left out and refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from authz_service.catalog.drafting import draft_catalog
from authz_service.catalog.loader import load_catalog
from authz_service.catalog.model import Catalog, OwnerCheck, TargetKind
from authz_service.catalog.openapi import read_openapi, singular, slug
from authz_service.errors import InvalidInputError

PATHS: dict[str, Any] = {
    "/shops/{shop}/orders": {"get": {"summary": "List orders"}, "post": {}},
    "/shops/{shop}/orders/{order}": {"get": {}, "delete": {}, "patch": {}},
    "/reports/{month}": {"get": {"tags": ["Monthly Reports"]}},
}


def document(paths: Any = ..., **more: Any) -> str:
    given = {"openapi": "3.0.3", "info": {"title": "Corner shops"}, "paths": PATHS if paths is ... else paths}
    return json.dumps({name: value for name, value in (given | more).items() if value is not ...})


def drafted(text: str, **more: Any) -> str:
    return draft_catalog(read_openapi(text, file="openapi.json"), **more)


def loaded(text: str) -> Catalog:
    return load_catalog(drafted(text))


def faults_of(text: str) -> list[tuple[str, str]]:
    with pytest.raises(InvalidInputError) as caught:
        read_openapi(text, file="openapi.json")
    return [(fault.where.removeprefix("openapi.json"), str(fault.code)) for fault in caught.value.faults]


def test_calls_become_operations_under_permissions_named_by_path_tag_and_method():
    catalog = loaded(document())
    assert [permission.name for permission in catalog.permissions] == [
        "order:read",
        "order:create",
        "order:update",
        "order:delete",
        "monthly_report:read",
    ]
    assert set(catalog.operations) == {
        "GET /shops/{shop}/orders",
        "POST /shops/{shop}/orders",
        "GET /shops/{shop}/orders/{order}",
        "DELETE /shops/{shop}/orders/{order}",
        "PATCH /shops/{shop}/orders/{order}",
        "GET /reports/{month}",
    }
    assert (catalog.name, catalog.title, catalog.owner_check) == ("corner_shops", "Corner shops", OwnerCheck.UPSTREAM)


def test_two_spellings_are_two_places_until_somebody_says_otherwise():
    text = drafted(document())
    assert load_catalog(text).case_sensitive
    assert "case_sensitive: true              # " in text


def test_no_target_is_guessed_but_in_comments():
    text = drafted(document())
    for operation in load_catalog(text).operations.values():
        assert {item.target.kind for one in operation.sets for item in one.items} == {TargetKind.CALLER}
    assert "  # /shops/{shop}: project" in text
    assert "# a guess, for 5 calls" in text


def test_a_guess_that_somebody_takes_over_is_a_catalog_too():
    text = drafted(document()).replace("  # /shops/{shop}: project  ", "  /shops/{shop}: project  ")
    [one] = load_catalog(text).operations["POST /shops/{shop}/orders"].sets
    assert (one.items[0].target.kind, one.items[0].target.parameters) == (TargetKind.PARAMETER, ("shop",))


@pytest.mark.parametrize(
    ("path", "guess"),
    [
        ("/groups/{id}/members", "/groups/{id}: group"),
        ("/api/v2/orgs/{org}", "/api/v2/orgs/{org}: group"),
        ("/users/{name}/keys", "/users/{name}: user"),
        ("/me/keys", "/me: self"),
        ("/stats", "/stats: instance"),
        ("/things/{id}", "/things/{id}: project"),
    ],
)
def test_guesses_follow_what_a_path_looks_like(path, guess):
    assert f"  # {guess} " in drafted(document({path: {"get": {}}}))


@pytest.mark.parametrize(
    ("servers", "base"),
    [
        (..., ""),
        ([], ""),
        ([{"url": "https://shops.example/api/v4/"}], "/api/v4"),
        ([{"url": "/api"}, {"url": "/other"}], "/api"),
        ([{"url": "https://{region}.example/api"}], ""),
        ([{"url": "https://shops.example/a b"}], ""),
        ([{"url": "http://[broken"}], ""),
        ("https://shops.example", ""),
        ([{"url": 7}], ""),
    ],
)
def test_the_first_servers_path_is_the_base_path_where_it_can_be(servers, base):
    assert loaded(document(servers=servers)).base_path == base


def test_what_a_catalog_cannot_hold_is_told_at_the_end_and_the_rest_is_drafted():
    paths = {
        "/users:batch": {"post": {}},
        "/a/": {"get": {}},
        "/a?x=1": {"get": {}},
        "/b": {"trace": {}, "get": {}},
        "/c/{x}": {"get": {}},
        "/c/{y}": {"get": {}},
        "/é": {"get": {}},
        "/d/{a}{b}": {"get": {}},
        "/evil\n  /: instance\n#": {"get": {}},
    }
    text = drafted(document(paths))
    assert set(load_catalog(text).operations) == {"GET /b", "GET /c/{x}"}
    left_out = [line for line in text.splitlines() if line.startswith("# left out: ")]
    assert [line.split()[3:5] for line in left_out] == [
        ["POST", "/users:batch:"],
        ["GET", "/a/:"],
        ["GET", "/a?x=1:"],
        ["TRACE", "/b:"],
        ["GET", "/é:"],
        ["GET", "/d/{a}{b}:"],
        ["GET", "/evil"],
        ["GET", "/c/{y}:"],
    ]


def test_odd_parameter_names_become_names_that_a_catalog_can_have():
    paths = {"/a/{user id}/{user.id}/{2}/x(y)": {"get": {}}}
    assert list(loaded(document(paths)).operations) == ["GET /a/{user_id}/{user_id_2}/{_2}/x\\(y\\)"]


def test_names_that_yaml_takes_for_something_else_stay_names():
    catalog = loaded(document({"/null": {"get": {}}, "/true/{x}": {"get": {}}}, info={"title": "False"}))
    assert (catalog.name, [permission.name for permission in catalog.permissions]) == (
        "false",
        ["null:read", "true:read"],
    )


def test_texts_of_the_document_stay_remarks():
    paths = {"/a": {"get": {"summary": "one\ntwo: {x} # 'three'\t\u2028*", "deprecated": True}}}
    text = drafted(document(paths, info={"title": 'A "quoted" title: # \\ \u0007'}))
    assert load_catalog(text).title == 'A "quoted" title: # \\'
    assert "# one two: {x} # 'three' *; deprecated" in text


def test_a_head_beside_a_get_and_what_is_no_operation_are_passed_over():
    paths = {"/a": {"get": {}, "head": {}, "parameters": [], "x-more": 1}, "/b": {"head": {}}, "x-internal": {}}
    assert set(loaded(document(paths)).operations) == {"GET /a", "HEAD /b"}


def test_calls_that_ask_for_no_credentials_are_marked_and_stay_closed():
    paths = {"/a": {"get": {"security": []}}, "/b": {"get": {}}}
    text = drafted(document(paths, security=[{"key": []}]))
    [marked] = [line for line in text.splitlines() if "perhaps `open`" in line]
    assert "GET /a" in marked
    assert not any(operation.open for operation in load_catalog(text).operations.values())


def test_paths_behind_a_reference_are_followed_within_the_document():
    shared = {"pathItems": {"orders": {"get": {}}}}
    paths = {"/a": {"$ref": "#/components/pathItems/orders"}}
    assert list(loaded(document(paths, components=shared)).operations) == ["GET /a"]


def test_yaml_says_the_same_as_json():
    text = "openapi: 3.1.0\ninfo: {title: Corner shops}\npaths:\n  /a:\n    get: &get {summary: One}\n    post: *get\n"
    assert set(loaded(text).operations) == {"GET /a", "POST /a"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [(":1", "bad_type")]),
        ("[]", [(":1", "bad_type")]),
        ("{", [(":1", "bad_syntax")]),
        ('{"a": 1,\n "b" 2}', [(":2", "bad_syntax")]),
        ("a: 1\nb: [1\n", [(":3", "bad_syntax")]),
        ("a: 1\na: 2\n", [(":2", "bad_syntax")]),
        ("a: !!python/object:os.system x\n", [(":1", "bad_syntax")]),
        ("[" * 5000, [("", "bad_syntax")]),
        ('{"swagger": "2.0"}', [("#/swagger", "bad_version")]),
        ('{"openapi": "2.0"}', [("#/openapi", "bad_version")]),
        ("{}", [("#/openapi", "bad_version")]),
        (document(...), None),
        (document(None), [("#/paths", "no_paths")]),
        (document({}), [("#/paths", "no_paths")]),
        (document({"/a": {}}), [("#/paths", "no_paths")]),
        (
            document({"a": {}, "/b": [], "/c": {"get": 1, "post": {"tags": "x"}}, "/d": {"$ref": "other.yaml"}}),
            [
                ("#/paths/a", "bad_path"),
                ("#/paths/~1b", "bad_type"),
                ("#/paths/~1c/get", "bad_type"),
                ("#/paths/~1c/post/tags", "bad_type"),
                ("#/paths/~1d/$ref", "bad_reference"),
            ],
        ),
        (document({"/a": {"$ref": "#/paths/~1a"}}), [("#/paths/~1a/$ref", "bad_reference")]),
        (document({"/a": {"$ref": "#/nowhere"}}), [("#/paths/~1a", "bad_type")]),
        ("openapi: 3.1.0\npaths: {7: {get: {}}}\n", [("#/paths", "bad_path")]),
    ],
)
def test_a_document_that_is_none_gets_all_its_faults_at_their_places(text, expected):
    if expected is None:
        read_openapi(text, file="openapi.json")
    else:
        assert faults_of(text) == expected


def test_a_name_that_no_catalog_has_and_a_document_without_a_usable_call_are_refused():
    with pytest.raises(InvalidInputError, match="no name of a catalog"):
        drafted(document(), name="Bad\nname: x")
    with pytest.raises(InvalidInputError, match="no call"):
        drafted(document({"/a:b": {"get": {}}}))
    assert load_catalog(drafted(document(), name="mine")).name == "mine"


def test_names_come_from_what_people_write():
    assert [slug(text) for text in ("Pull Requests", "orderItems", "order-items", "Заказы", "2fa", "")] == [
        "pull_requests", "order_items", "order_items", "", "", "",
    ]  # fmt: skip
    pairs = {"orders": "order", "entries": "entry", "boxes": "box", "status": "status", "address": "address", "s": "s"}
    assert {text: singular(text) for text in pairs} == pairs
