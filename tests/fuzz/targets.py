"""The promises: whatever the bytes are, a reader refuses them in its own way, and two readers never differ."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final
from urllib.parse import unquote

import httpx
import msgspec
import pydantic_core

from authz_service.admin.addresses import parse_receiver
from authz_service.api.admin.leaks import LeakReport, _read_matches
from authz_service.api.check import hot
from authz_service.api.check.authzen_reading import read_evaluation, read_evaluations
from authz_service.api.check.gateway_headers import CONSTANT_HEADERS, GatewayHeaders
from authz_service.api.check.graphql_bodies import HttpBody, read_graphql_call
from authz_service.api.check.reading import CATALOG, Asked, read_batch, read_check, read_graphql, read_http
from authz_service.api.wire import holds_secret, looks_like_secret, parse_json, read_model
from authz_service.catalog.graphql_documents import BadDocumentError, parse_document
from authz_service.catalog.graphql_reach import Reacher
from authz_service.catalog.graphql_schema import format_schema, load_schema, parse_stored
from authz_service.catalog.loader import load_catalog
from authz_service.catalog.routes import Match, make_router
from authz_service.directory.changes import parse_import
from authz_service.errors import AuthzError, CatalogInvalidError, InvalidBodyError, InvalidInputError
from authz_service.redaction import redact
from authz_service.store.paging import LONGEST_CURSOR, read_cursor, write_cursor
from authz_service.store.shipped import shipped_catalogs
from authz_service.tokens.secret import parse_secret
from tests.fuzz.wire import same_on_the_wire

LONGEST: Final = 8192
"""Bytes that a target looks at."""
GITLAB: Final = next(one for one in shipped_catalogs() if one.label == "gitlab@2")
ROUTER: Final = make_router(GITLAB)
NAMES: Final = frozenset({"x-forwarded-uri", "x-forwarded-method", "authorization", *CONSTANT_HEADERS.values()})


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def secret(data: bytes) -> None:
    """What is read as a secret is one to every guard; nothing else breaks a reader."""
    text = _text(data)
    found = parse_secret(text)
    if found is not None:
        assert found.secret.reveal() == text
        assert text not in f"{found!r} {found.secret}"
        assert looks_like_secret(text)
        assert looks_like_secret(f"a{text}b")
        assert holds_secret(text)
        assert text not in redact(f"of {text}.")
    looks_like_secret(text)
    holds_secret(text)


def odd_json(data: bytes) -> None:
    """What the strict reader takes, every other reader takes for the same."""
    try:
        value = parse_json(data)
    except InvalidBodyError:
        return
    assert json.loads(data) == value
    for other in (msgspec.json.decode, pydantic_core.from_json):
        assert _same(other(data), value), other
    for read in (read_evaluation, read_evaluations):
        with suppress(AuthzError):
            read(data)


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, dict) and isinstance(second, dict):
        return list(first) == list(second) and all(_same(first[name], second[name]) for name in first)
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(_same, first, second))
    return type(first) is type(second) and first == second


def check(data: bytes) -> None:
    """A body that the short way reads is the same question to the documented one."""
    _compare(data, hot._QUOTES_OF_CHECK, hot._read_check, read_check)


def http(data: bytes) -> None:
    _compare(data, hot._QUOTES_OF_HTTP, hot._read_http, read_http)


def batch(data: bytes) -> None:
    _compare(data, None, hot._read_batch, read_batch)


def _compare(data: bytes, quotes: int | None, quick: Callable[[bytes], Any], strict: Callable[[bytes], Asked]) -> None:
    try:
        slow: Asked | None = strict(data)
    except InvalidBodyError:
        slow = None
    if b"\\" in data:
        return
    try:
        fast = quick(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return
    items = getattr(fast, "items", None)
    if items is not None and not 1 <= len(items) <= 10_000:
        return
    wanted = quotes if items is None else hot._QUOTES_OF_BATCH + hot._QUOTES_OF_ITEM * len(items)
    if data.count(b'"') != wanted:
        return
    if slow is None:  # then a value is one that no answer was ever given for: memory does not know it
        halves = [
            half for one in (items or [fast]) for half in (getattr(one, "resource", "x"), getattr(one, "action", "x"))
        ]
        assert not CATALOG.fullmatch(fast.catalog) or not all(1 <= len(half) <= 64 for half in halves), fast
        return
    assert (slow.secret, slow.catalog, slow.explain) == (fast.token, fast.catalog, False)
    assert slow.client_address is None
    assert not slow.freshly.fully_consistent
    assert slow.freshly.at_least is None
    if hasattr(fast, "method"):
        [ask] = slow.items
        assert (ask.about.method, ask.about.path, ask.about.target) == (fast.method, fast.path, None)
        return
    asked = [(one.resource + ":" + one.action, one.target) for one in (items or [fast])]
    assert [(ask.about.permission, ask.about.target) for ask in slow.items] == asked
    assert not any(ask.attributes for ask in slow.items)


def graphql(data: bytes) -> None:
    """A document, and the request that carries one, are read within limits or refused with their code."""
    with suppress(InvalidBodyError):
        read_graphql(data)
    with suppress(BadDocumentError):
        parse_document(_text(data))
    first, _, rest = data.partition(b"\n")
    path = first.decode("latin-1")
    for method in ("GET", "POST"):
        body = HttpBody(rest, "application/json", None) if method == "POST" else None
        call = read_graphql_call(method, path, body, None)
        assert call is not None


DOCUMENTS: Final = (
    "query Q($path: ID) { project(fullPath: $path) { id issues { nodes { id } } } group { id projects { id } } }",
    "mutation { createIssue(input: {}) { errors } updateIssue { issue { id } } }",
)


def schema(data: bytes) -> None:
    """A schema is refused in its own way or is, stored and read back, the same; any document is read by it."""
    text = _text(data)
    with suppress(CatalogInvalidError):
        parse_stored(text)
    try:
        found = load_schema(text)
    except CatalogInvalidError:
        return
    assert parse_stored(format_schema(found)) == found
    for document in DOCUMENTS:
        with suppress(BadDocumentError):
            Reacher(GITLAB, found).reach(parse_document(document))


def path(data: bytes) -> None:
    """What resolves has one reading: decoded once it has nothing left to resolve, and written anew it is itself."""
    text = data.decode("latin-1")
    found = ROUTER.resolve("GET", text)
    if not isinstance(found, Match):
        return
    plain = unquote(text.partition("?")[0], errors="strict")
    assert not {"", ".", ".."} & set(plain[1:].split("/"))
    assert not any(letter < " " or letter == "\x7f" for letter in plain)
    again = ROUTER.resolve("GET", ROUTER.format_target(found.operation_id, found.parameters))
    assert again == found


def catalog(data: bytes) -> None:
    with suppress(CatalogInvalidError):
        load_catalog(_text(data))


def ndjson(data: bytes) -> None:
    with suppress(InvalidInputError):
        parse_import(data)


def leaks(data: bytes) -> None:
    with suppress(InvalidBodyError):
        _read_matches(data)
    with suppress(InvalidBodyError):
        read_model(LeakReport, data, takes_secrets=True)


def url(data: bytes) -> None:
    """What is looked at and what is called are the same place."""
    text = _text(data)
    try:
        found = parse_receiver(text)
    except InvalidInputError:
        return
    called = httpx.URL(text)
    assert called.scheme == "https"
    assert called.raw_host.decode().strip("[]").lower() == found.host
    assert (called.port or 443) == found.port
    assert not called.userinfo
    sent = httpx.URL(f"https://{found.authority}{found.path}")
    assert (sent.raw_host, sent.port or 443) == (called.raw_host.lower(), called.port or 443)
    assert sent.raw_path == called.raw_path.rstrip(b"?") or b"?" in sent.raw_path


def headers(data: bytes) -> None:
    """A header that counts came once, under its own name, without controls; or the request is refused."""
    pairs = [(name, value) for name, _, value in (line.partition(b":") for line in data.split(b"\n"))]
    try:
        found = GatewayHeaders(pairs, NAMES)
        values = {name: found.find(name) for name in NAMES}
        found.find_secret()
        found.find_address("x-forwarded-uri")
    except InvalidInputError:
        return
    for name, value in values.items():
        given = [one for key, one in pairs if key.decode("latin-1").lower().replace("_", "-") == name]
        assert len(given) <= 1
        assert value is None or value == given[0].decode("latin-1").strip(" \t")


def wire(data: bytes) -> None:
    same_on_the_wire(data)


def cursor(data: bytes) -> None:
    """What is read of a cursor can be asked of a table, and is what is read of the cursor written anew."""
    text = _text(data)
    for order in ("tokens", "newest", ""):
        for parts in range(4):
            with suppress(InvalidInputError):
                found = read_cursor(text, order, parts)
                assert len(found) == parts
                assert b"\0" not in "".join(found).encode()
                again = write_cursor(order, *found)
                assert len(again) > LONGEST_CURSOR or read_cursor(again, order, parts) == found


TARGETS: Final[Mapping[str, Callable[[bytes], None]]] = {
    "batch": batch,
    "catalog": catalog,
    "check": check,
    "cursor": cursor,
    "graphql": graphql,
    "headers": headers,
    "http": http,
    "json": odd_json,
    "leaks": leaks,
    "ndjson": ndjson,
    "path": path,
    "schema": schema,
    "secret": secret,
    "url": url,
    "wire": wire,
}
