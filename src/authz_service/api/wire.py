"""What comes in and how it is read: bodies with caps, strict JSON with every fault, bearer secrets, request ids."""

from __future__ import annotations

import json
import math
import re
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, Final, TypeVar

from fastapi import Request, Response
from pydantic import BaseModel, ValidationError

from authz_service.admin.faults import Faults, shown
from authz_service.errors import BodyTooLargeError, InvalidBodyError, UnauthenticatedError
from authz_service.redaction import holds_foreign
from authz_service.tokens.secret import parse_secret

M = TypeVar("M", bound=BaseModel)

DEFAULT_LIMIT: Final = 64 * 1024
BATCH_LIMIT: Final = 4 * 1024 * 1024
"""Bytes of a body: the cap of most routes, and that of batches."""
MAX_DEPTH: Final = 32

REQUEST_ID: Final = "X-Request-ID"
_SANE_ID: Final = re.compile(r"[A-Za-z0-9._~:/+=@-]{1,128}")
_LOOKS_LIKE_SECRET: Final = re.compile(r"[A-Za-z0-9]{1,16}_[a-z0-9]{1,8}_[A-Za-z0-9]{49}")
_INT64: Final = range(-(2**63), 2**63)


# request ids and secrets


def request_id_of(given: str | None) -> str:
    """The caller's own id when it is sane (ASCII without spaces, 128 characters at most), else a new one."""
    if given is not None and _SANE_ID.fullmatch(given) and not looks_like_secret(given):
        return given
    return secrets.token_hex(16)


def looks_like_secret(text: str) -> bool:
    """Whether a secret of this or another installation stands in the text, checksum or not: it may be a slip."""
    if parse_secret(text) is not None or _LOOKS_LIKE_SECRET.search(text) is not None:
        return True
    return holds_foreign(text)


def holds_secret(text: str) -> bool:
    """Whether a secret stands in the text for certain: its checksum holds, or it begins like a registered one.

    What only looks like one may be a public key, and is for `looks_like_secret` to be careful about.
    """
    for found in _LOOKS_LIKE_SECRET.finditer(text):
        if any(parse_secret(found[0][start:]) for start in range(found[0].index("_"))):
            return True
    return holds_foreign(text)


def bearer_secret(request: Request) -> str | None:
    """The secret of `Authorization: Bearer`; None when there is none. Raises UnauthenticatedError for anything odd.

    Two headers are refused, never chosen from: what stands in front might have read the other.
    """
    given = request.headers.getlist("authorization")
    if not given:
        return None
    secret = shown_secret(given[0])
    if len(given) > 1 or given[0].partition(" ")[0].lower() != "bearer" or not secret:
        raise UnauthenticatedError("send exactly one `Authorization: Bearer` header with a token")
    return secret


def shown_secret(authorization: str) -> str:
    """What a header holds after its scheme: the same for each way of writing it that `bearer_secret` reads alike."""
    return authorization.partition(" ")[2].strip()


def client_address(request: Request) -> str | None:
    """The address of the client as the server saw it; None when it is no IP address."""
    return None if request.client is None else plain_address(request.client.host)


@lru_cache(maxsize=4096)
def plain_address(text: str) -> str | None:
    """An IP address as it is usually written; None for anything else."""
    try:
        return str(ip_address(text))
    except ValueError:
        return None


def no_store(response: Response) -> None:
    """For answers that hold a secret, or what only their reader may know: no cache keeps them."""
    response.headers["Cache-Control"] = "no-store"


# bodies


async def read_body(request: Request, limit: int = DEFAULT_LIMIT) -> bytes:
    """The whole body, counted as it streams in. Raises BodyTooLargeError before it holds more than `limit` bytes."""
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise InvalidBodyError("send the body as it is: no content encoding is taken here")
    length = request.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and len(length) < 20 and int(length) > limit:
        raise _too_large(limit)
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        chunks.append(chunk)
    return b"".join(chunks)


def _too_large(limit: int) -> BodyTooLargeError:
    return BodyTooLargeError(f"the body is larger than {limit} bytes; send less at once")


def parse_json(body: bytes) -> Any:
    """Strict JSON: what parsers disagree on is refused. Raises InvalidBodyError with every fault at its JSON pointer.

    Refused are fields given twice, NaN and infinities, numbers beyond 64 bits, texts with NUL or half a surrogate
    pair, nesting beyond 32 levels, anything after the document, and what is not UTF-8.
    """
    if not body.strip():
        raise InvalidBodyError("the body is empty; send a JSON document")
    faults = Faults()
    try:
        value = json.loads(body.decode(), object_pairs_hook=_object, parse_constant=_constant)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise InvalidBodyError(f"the body is no JSON: it stops making sense at {where}") from None
    except (ValueError, RecursionError):
        raise InvalidBodyError("the body is no JSON in UTF-8 that can be read safely; send a plain document") from None
    _find_odd(value, faults)
    _raise_invalid(faults)
    return value


class _Object(dict[str, Any]):
    """An object that remembers which of its fields came twice."""

    twice: tuple[str, ...] = ()


def _object(pairs: list[tuple[str, Any]]) -> _Object:
    found = _Object(pairs)
    if len(found) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        found.twice = tuple(name for name, count in counts.items() if count > 1)
    return found


def _constant(text: str) -> float:
    return math.nan if text == "NaN" else math.inf


def _find_odd(value: Any, faults: Faults) -> None:
    waiting: list[tuple[str, Any, int]] = [("", value, 1)]
    while waiting:
        where, found, depth = waiting.pop()
        if isinstance(found, str):
            if "\x00" in found or not _is_unicode(found):
                faults.add(where, "invalid_text", "the text holds a character that cannot be stored")
        elif isinstance(found, float):
            if not math.isfinite(found):
                faults.add(where, "invalid_number", "NaN and infinities are no JSON")
        elif isinstance(found, int) and not isinstance(found, bool):
            if found not in _INT64:
                faults.add(where, "invalid_number", "the number does not fit into 64 bits")
        elif isinstance(found, list | dict):
            if depth > MAX_DEPTH:
                faults.add(where, "too_deep", f"the document is nested deeper than {MAX_DEPTH} levels")
                return
            if isinstance(found, _Object):
                for name in found.twice:
                    faults.add(f"{where}/{escape(name)}", "duplicate_field", "the field is given twice; keep one")
            waiting.extend((f"{where}/{key}", inner, depth + 1) for key, inner in reversed(list(_inside(found))))


def _find_secrets(value: Any, faults: Faults) -> None:
    waiting: list[tuple[str, Any]] = [("", value)]
    while waiting:
        where, found = waiting.pop()
        if isinstance(found, str):
            if holds_secret(found):
                faults.add(where, "secret_in_text", "a token stands in this text: rotate it, and leave it out here")
        elif isinstance(found, list | dict):
            if isinstance(found, dict) and any(holds_secret(name) for name in found):
                faults.add(where, "secret_in_text", "a token stands in a field's name: rotate it, and leave it out")
            waiting.extend((f"{where}/{key}", inner) for key, inner in reversed(list(_inside(found))))


def _inside(found: list[Any] | dict[str, Any]) -> Iterator[tuple[str, Any]]:
    if isinstance(found, list):
        yield from ((str(position), inner) for position, inner in enumerate(found))
        return
    for name, inner in found.items():
        if "\x00" in name or not _is_unicode(name):
            yield escape(shown(name)), "\x00"
        yield escape(name), inner


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text) if not text.isascii() else True


def escape(name: str) -> str:
    """One step of a JSON pointer."""
    return shown(name).replace("~", "~0").replace("/", "~1")


def read_model(model: type[M], body: bytes, *, takes_secrets: bool = False) -> M:
    """The body as a model. Raises InvalidBodyError with every fault: unknown and missing fields, wrong types.

    What is managed is stored, listed and told to others: a text with a token of this installation in it is a fault,
    but where tokens are what the body is about.
    """
    value = parse_json(body)
    if not isinstance(value, dict):
        raise InvalidBodyError("the body is no JSON object; send one")
    if not takes_secrets:
        slips = Faults()
        _find_secrets(value, slips)
        _raise_invalid(slips)
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        faults = Faults()
        for one in error.errors(include_url=False, include_input=True):
            where = "".join(f"/{escape(str(step))}" for step in one["loc"])
            faults.add(where, *_in_our_words(one["type"], one.get("ctx", {}), one["msg"], one["input"]))
        _raise_invalid(faults)
        raise AssertionError("what is not valid has a fault") from None


def _raise_invalid(faults: Faults) -> None:
    if faults:
        raise InvalidBodyError(faults.summary("the body"), faults=faults.named)


_WRONG_TYPE: Final = {
    "string_type": "write a text",
    "bool_type": "write true or false",
    "int_type": "write a whole number",
    "int_from_float": "write a whole number",
    "float_type": "write a number",
    "list_type": "write a list",
    "tuple_type": "write a list",
    "dict_type": "write an object",
    "model_type": "write an object",
    "model_attributes_type": "write an object",
    "union_tag_not_found": "write an object",
}
OURS: Final = "our:"
"""How the types of errors begin that our own validators raise: their message is for the client as it is."""


def _in_our_words(kind: str, context: Mapping[str, Any], message: str, given: Any) -> tuple[str, str]:
    """Code and message of one fault that pydantic found, without its own names."""
    if kind.startswith(OURS):
        return kind.removeprefix(OURS), message
    if kind in _WRONG_TYPE:
        return "wrong_type", _WRONG_TYPE[kind]
    match kind:
        case "missing":
            return "missing_field", "the field is missing; add it"
        case "extra_forbidden":
            return "unknown_field", "there is no such field here; leave it out"
        case "enum" | "literal_error":
            known = str(context.get("expected", "")).replace("'", "`")
            return "unknown_value", f"`{shown(str(given))}` is not known here; write {known}"
        case "string_too_long" | "too_long":
            return "too_long", f"that is too much: {context.get('max_length')} at most"
        case "string_too_short" | "too_short":
            return "too_short", f"that is too little: {context.get('min_length')} at least"
        case "greater_than_equal" | "less_than_equal" | "greater_than" | "less_than":
            return "out_of_range", "the number is out of range"
    return "invalid_value", "the value is not one that this field takes"


def json_body(model: type[M], limit: int = DEFAULT_LIMIT) -> Callable[[Request], Awaitable[M]]:
    """A dependency that reads the route's body; document it by `openapi_extra=body_of(model)`."""

    async def read(request: Request) -> M:
        return read_model(model, await read_body(request, limit))

    return read
