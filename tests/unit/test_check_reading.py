from __future__ import annotations

import json

import pytest

from authz_service.api.check.bodies import BatchRequest, CheckRequest, Item
from authz_service.api.check.reading import ITEM_FIELDS, MANY_FIELDS, ONE_FIELDS, read_batch, read_check
from authz_service.engine.attributes import RESERVED
from authz_service.engine.model import PermissionRequest
from authz_service.errors import InvalidBodyError
from authz_service.pdp.question import Ask, Freshly

QUESTION = {"token": "azt_x", "resource": "job", "action": "read"}


def encode(**given: object) -> bytes:
    return json.dumps(QUESTION | given).encode()


def test_what_the_document_shows_is_what_is_read():
    assert set(CheckRequest.model_fields) == ONE_FIELDS
    assert set(BatchRequest.model_fields) == MANY_FIELDS
    assert set(Item.model_fields) == ITEM_FIELDS


def test_a_question_of_three_fields_is_whole():
    asked = read_check(encode())
    assert asked.secret == "azt_x"
    assert asked.items == [Ask(PermissionRequest("job:read", None))]
    assert (asked.catalog, asked.client_address, asked.freshly) == (None, None, Freshly())


def test_null_is_as_if_left_out():
    assert read_check(encode(target=None, catalog=None, attributes=None, at_least=None)) == read_check(encode())


def test_every_field_arrives():
    asked = read_check(
        encode(
            target="acme/web",
            catalog="gitlab@1",
            client_address="2001:db8::1",
            at_least="r1.0.0",
            fully_consistent=True,
            attributes={"context.branch": "main", "action.soft": True, "resource.size": -3},
        )
    )
    [ask] = asked.items
    assert ask.about == PermissionRequest("job:read", "acme/web")
    assert ask.attributes == {"context.branch": "main", "action.soft": True, "resource.size": -3}
    assert (asked.catalog, asked.client_address) == ("gitlab@1", "2001:db8::1")
    assert asked.freshly == Freshly("r1.0.0", fully_consistent=True)


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_a_reserved_attribute_is_refused_whatever_its_value(name):
    for value in ("owner", True, None, {}):
        with pytest.raises(InvalidBodyError) as caught:
            read_check(encode(attributes={name: value}))
        assert "reserved_attribute" in {fault.code for fault in caught.value.faults}


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ({"attributes": {"context.Branch": 1}}, "/attributes/context.Branch"),
        ({"attributes": {"branch": 1}}, "/attributes/branch"),
        ({"attributes": {"context.a": 1.5}}, "/attributes/context.a"),
        ({"attributes": {"context.a": []}}, "/attributes/context.a"),
        ({"attributes": {"context.a": "x" * 1025}}, "/attributes/context.a"),
        ({"attributes": {f"context.a{n}": 1 for n in range(65)}}, "/attributes"),
        ({"attributes": []}, "/attributes"),
        ({"resource": "x" * 65}, "/resource"),
        ({"action": 7}, "/action"),
        ({"target": 42}, "/target"),
        ({"catalog": "gitlab@"}, "/catalog"),
        ({"catalog": "gitlab@01"}, "/catalog"),
        ({"client_address": "10.0.0.0/8"}, "/client_address"),
        ({"fully_consistent": 1}, "/fully_consistent"),
        ({"items": []}, "/items"),
        ({"a/b~c": 1}, "/a~1b~0c"),
    ],
)
def test_one_fault_is_named_where_it_is(given, where):
    with pytest.raises(InvalidBodyError) as caught:
        read_check(encode(**given))
    assert [fault.where for fault in caught.value.faults] == [where]


def test_a_batch_names_the_faults_of_all_its_items():
    body = {"token": "t", "items": [{"resource": "a", "action": "b"}, {"action": 1, "more": 2}, None]}
    with pytest.raises(InvalidBodyError) as caught:
        read_batch(json.dumps(body).encode())
    assert sorted(fault.where for fault in caught.value.faults) == [
        "/items/1/action",
        "/items/1/more",
        "/items/1/resource",
        "/items/2",
    ]


@pytest.mark.parametrize("items", [None, {}, [], "x"])
def test_a_batch_needs_a_list_of_questions(items):
    with pytest.raises(InvalidBodyError) as caught:
        read_batch(json.dumps({"token": "t", "items": items}).encode())
    assert [fault.where for fault in caught.value.faults] == ["/items"]
