import json

import pytest
from fastapi import Request
from pydantic import BaseModel, ConfigDict

from authz_service.api import wire
from authz_service.errors import BodyTooLargeError, InvalidBodyError, UnauthenticatedError
from authz_service.tokens.secret import new_secret


class Inner(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    path: str


class Outer(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    name: str
    count: int = 0
    flag: bool = False
    items: list[Inner] = []


def request_with(*headers: tuple[str, str], chunks: tuple[bytes, ...] = ()) -> Request:
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/",
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers],
        "client": ("10.0.0.1", 5000),
    }
    waiting = list(chunks)

    async def receive():
        chunk = waiting.pop(0) if waiting else b""
        return {"type": "http.request", "body": chunk, "more_body": bool(waiting)}

    return Request(scope, receive)


def faults_of(body: bytes) -> list[tuple[str, str]]:
    with pytest.raises(InvalidBodyError) as caught:
        wire.read_model(Outer, body)
    return [(fault.where, fault.code) for fault in caught.value.faults]


def test_a_good_body_becomes_the_model():
    assert wire.read_model(Outer, b'{"name": "a", "items": [{"path": "x"}]}').items[0].path == "x"


def test_all_faults_of_a_body_are_named_at_once():
    body = b'{"nme": 1, "count": "3", "flag": 1, "items": [{"path": 2, "x": 1}, 3, {}]}'
    assert faults_of(body) == [
        ("/name", "missing_field"),
        ("/count", "wrong_type"),
        ("/flag", "wrong_type"),
        ("/items/0/path", "wrong_type"),
        ("/items/0/x", "unknown_field"),
        ("/items/1", "wrong_type"),
        ("/items/2/path", "missing_field"),
        ("/nme", "unknown_field"),
    ]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"name": "a", "name": "b"}', "duplicate_field"),
        (b'{"name": "a", "count": NaN}', "invalid_number"),
        (b'{"name": "a", "count": -Infinity}', "invalid_number"),
        (b'{"name": "a", "count": 1e999}', "invalid_number"),
        (b'{"name": "a", "count": 9223372036854775808}', "invalid_number"),
        (b'{"name": "a\\u0000"}', "invalid_text"),
        (b'{"name": "\\ud800"}', "invalid_text"),
        (b'{"na\\u0000me": 1}', "invalid_text"),
        (b'{"name": ' + b"[" * 40 + b"]" * 40 + b"}", "too_deep"),
    ],
)
def test_what_parsers_disagree_on_is_refused(body, code):
    assert code in [found for _, found in faults_of(body)]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"name": "a"} x',
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b"[" * 60_000,
        b'{"a":' * 12_000,
        b'{"name": ' + b"9" * 5000 + b"}",
        b"'a'",
        b"[]",
        b"null",
        b"3",
    ],
)
def test_what_is_no_json_object_is_refused_without_a_crash(body):
    with pytest.raises(InvalidBodyError):
        wire.read_model(Outer, body)


def test_a_fault_lies_at_the_json_pointer_of_its_field():
    assert faults_of(b'{"name": "a", "x/y~z": 1}') == [("/x~1y~0z", "unknown_field")]


def test_the_smallest_and_largest_numbers_of_64_bits_are_taken():
    assert wire.parse_json(b"[9223372036854775807, -9223372036854775808]") == [2**63 - 1, -(2**63)]


def test_many_faults_are_counted_and_the_first_of_them_named():
    body = json.dumps({"name": "a", "items": [{}] * 500}).encode()
    with pytest.raises(InvalidBodyError, match="500 faults, the first 200") as caught:
        wire.read_model(Outer, body)
    assert len(caught.value.faults) == 200


async def test_a_body_is_counted_as_it_streams_in():
    request = request_with(chunks=(b"12345", b"67890", b"1"))
    with pytest.raises(BodyTooLargeError):
        await wire.read_body(request, 10)
    assert await wire.read_body(request_with(chunks=(b"12345", b"67890")), 10) == b"1234567890"


async def test_a_body_that_says_it_is_too_large_is_not_read():
    request = request_with(("Content-Length", "11"), chunks=(b"1",))
    with pytest.raises(BodyTooLargeError):
        await wire.read_body(request, 10)


async def test_an_encoded_body_is_refused():
    with pytest.raises(InvalidBodyError):
        await wire.read_body(request_with(("Content-Encoding", "gzip"), chunks=(b"1",)))


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_a_secret_is_read_from_the_authorization_header(scheme):
    assert wire.bearer_secret(request_with(("Authorization", f"{scheme} abc"))) == "abc"


def test_without_the_header_there_is_no_secret():
    assert wire.bearer_secret(request_with()) is None


@pytest.mark.parametrize(
    "headers",
    [
        [("Authorization", "Bearer a"), ("Authorization", "Bearer b")],
        [("Authorization", "Basic a")],
        [("Authorization", "Bearer ")],
        [("Authorization", "Bearer")],
    ],
)
def test_odd_authorization_is_refused(headers):
    with pytest.raises(UnauthenticatedError):
        wire.bearer_secret(request_with(*headers))


def test_a_sane_request_id_is_echoed():
    assert wire.request_id_of("abc-1.2:3") == "abc-1.2:3"


@pytest.mark.parametrize("given", [None, "", "a b", "x" * 129, "é", "a\r\nSet-Cookie: b"])
def test_an_odd_request_id_is_replaced(given):
    made = wire.request_id_of(given)
    assert made != given
    assert len(made) == 32


def test_a_secret_is_never_echoed_as_request_id():
    secret = new_secret("azt", "k1").reveal()
    assert wire.request_id_of(secret) != secret


def test_what_looks_like_a_secret_is_found_inside_other_text():
    secret = new_secret("azt", "k1").reveal()
    assert wire.looks_like_secret(secret)
    assert wire.looks_like_secret(f"token={secret[:-1]}x;")
    assert not wire.looks_like_secret("tok_2tht6ARC7VMjmYG1wgfLTn")
    assert not wire.looks_like_secret("acme/web")


def test_the_clients_address_is_an_ip_address_or_nothing():
    request = request_with()
    assert wire.client_address(request) == "10.0.0.1"
    request.scope["client"] = ("testclient", 1)
    assert wire.client_address(request) is None
    request.scope["client"] = None
    assert wire.client_address(request) is None
