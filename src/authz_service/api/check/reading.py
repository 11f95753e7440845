"""The bodies of `/check` and `/check/batch`, read to questions or refused with every fault they have."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final

from authz_service.admin.faults import Faults, shown
from authz_service.api.wire import escape, parse_json
from authz_service.directory.model import Attributes, Scalar
from authz_service.engine.attributes import RESERVED
from authz_service.engine.model import PermissionRequest
from authz_service.errors import InvalidBodyError
from authz_service.pdp.documents import MAX_DOCUMENTS, DocumentText, GraphqlCall
from authz_service.pdp.question import Ask, Freshly, HttpCall

MOST_ITEMS: Final = 10_000
MOST_ATTRIBUTES: Final = 64
_LONGEST_NAME: Final = 64
_LONGEST_TEXT: Final = 1024
_ATTRIBUTE: Final = re.compile(r"(subject|resource|action|context)\.[a-z][a-z0-9_]{0,63}")
CATALOG: Final = re.compile(r"[a-z][a-z0-9_]{0,63}(@[1-9][0-9]{0,8})?")

ITEM_FIELDS: Final = frozenset({"resource", "action", "target", "attributes"})
COMMON_FIELDS: Final = frozenset({"token", "catalog", "client_address", "at_least", "fully_consistent"})
ONE_FIELDS: Final = ITEM_FIELDS | COMMON_FIELDS | {"explain"}
HTTP_FIELDS: Final = COMMON_FIELDS | {"explain", "method", "path", "target", "attributes"}
MANY_FIELDS: Final = COMMON_FIELDS | {"items"}
DOCUMENT_FIELDS: Final = frozenset({"query", "variables", "operation_name"})
GRAPHQL_FIELDS: Final = COMMON_FIELDS | DOCUMENT_FIELDS | {"explain", "target", "attributes", "batch"}


@dataclass(frozen=True, slots=True)
class Asked:
    """What a body asks. `catalog` None was left out: the caller's single one is meant."""

    secret: str
    items: list[Ask]
    catalog: str | None
    client_address: str | None
    freshly: Freshly
    explain: bool


def read_check(body: bytes) -> Asked:
    """One question. Raises InvalidBodyError with every fault at its JSON pointer."""
    value = _object(body)
    faults = Faults()
    _refuse_unknown(value, ONE_FIELDS, "", faults)
    item = _read_item(value, "", faults)
    return _asked(value, [] if item is None else [item], faults)


def read_http(body: bytes) -> Asked:
    """One request of an API. A path that no catalog could know is a decision's to deny, not a fault of the body."""
    value = _object(body)
    faults = Faults()
    _refuse_unknown(value, HTTP_FIELDS, "", faults)
    method, path = value.get("method"), value.get("path")
    if not isinstance(method, str):
        _need(value, "method", "write the request's method, as `GET`", "", faults)
    if not isinstance(path, str):
        _need(value, "path", "write the path as the client sent it", "", faults)
    target = _text(value, "target", faults)
    given = value.get("attributes")
    attributes = {} if given is None else _read_attributes(given, "/attributes", faults)
    call = HttpCall(str(method), str(path), target)
    return _asked(value, [Ask(call, attributes)], faults)


def read_graphql(body: bytes) -> Asked:
    """One GraphQL request. What is wrong with a document is a decision's to deny, not a fault of the body."""
    value = _object(body)
    faults = Faults()
    _refuse_unknown(value, GRAPHQL_FIELDS, "", faults)
    listed = "batch" in value
    documents: list[DocumentText] = []
    if not listed:
        documents.append(_read_document(value, "", faults))
    elif value.keys() & DOCUMENT_FIELDS:
        faults.add("/batch", "not_together", "write `query`, or a `batch` of them")
    elif not isinstance(value["batch"], list) or not 1 <= len(value["batch"]) <= MAX_DOCUMENTS:
        faults.add("/batch", "out_of_range", f"write a list of 1 to {MAX_DOCUMENTS} objects with `query`")
    else:
        for position, inner in enumerate(value["batch"]):
            where = f"/batch/{position}"
            if not isinstance(inner, dict):
                faults.add(where, "wrong_type", "write an object")
                continue
            _refuse_unknown(inner, DOCUMENT_FIELDS, where, faults)
            documents.append(_read_document(inner, where, faults))
    target = _text(value, "target", faults)
    given = value.get("attributes")
    attributes = {} if given is None else _read_attributes(given, "/attributes", faults)
    return _asked(value, [Ask(GraphqlCall(documents, target, listed=listed), attributes)], faults)


def _read_document(value: Mapping[str, Any], where: str, faults: Faults) -> DocumentText:
    query, variables, name = value.get("query"), value.get("variables"), value.get("operation_name")
    if not isinstance(query, str):
        _need(value, "query", "write the document as the client sent it", where, faults)
    if variables is not None and not isinstance(variables, dict):
        faults.add(f"{where}/variables", "wrong_type", "write an object of names and values")
        variables = None
    if name is not None and not isinstance(name, str):
        faults.add(f"{where}/operation_name", "wrong_type", "write a text")
        name = None
    return DocumentText(str(query), variables or {}, name)


def read_batch(body: bytes) -> Asked:
    """Many questions about one token. One malformed item refuses them all (rule A12)."""
    value = _object(body)
    faults = Faults()
    _refuse_unknown(value, MANY_FIELDS, "", faults)
    items: list[Ask] = []
    given = value.get("items")
    if not isinstance(given, list):
        _need(value, "items", "write a list of questions", "", faults)
    elif not 1 <= len(given) <= MOST_ITEMS:
        faults.add("/items", "out_of_range", f"a batch has 1 to {MOST_ITEMS} items, and this one {len(given)}")
    else:
        for position, inner in enumerate(given):
            where = f"/items/{position}"
            if not isinstance(inner, dict):
                faults.add(where, "wrong_type", "write an object")
                continue
            if not inner.keys() <= ITEM_FIELDS:
                _refuse_unknown(inner, ITEM_FIELDS, where, faults)
            item = _read_item(inner, where, faults)
            if item is not None:
                items.append(item)
    return _asked(value, items, faults)


def _object(body: bytes) -> dict[str, Any]:
    value = parse_json(body)
    if not isinstance(value, dict):
        raise InvalidBodyError("the body is no JSON object; send one")
    return value


def _asked(value: Mapping[str, Any], items: list[Ask], faults: Faults) -> Asked:
    secret = value.get("token")
    if not isinstance(secret, str):
        _need(value, "token", "write the secret that the end client showed", "", faults)
    catalog = _text(value, "catalog", faults)
    if catalog is not None and not CATALOG.fullmatch(catalog):
        faults.add("/catalog", "invalid_value", f"`{shown(catalog)}` names no catalog; write `name` or `name@1`")
    address = _text(value, "client_address", faults)
    if address is not None and not _is_address(address):
        faults.add("/client_address", "invalid_value", f"`{shown(address)}` is no IP address")
    at_least = _text(value, "at_least", faults)
    consistent = value.get("fully_consistent", False)
    if not isinstance(consistent, bool):
        faults.add("/fully_consistent", "wrong_type", "write true or false")
    explain = value.get("explain", False)
    if not isinstance(explain, bool):
        faults.add("/explain", "wrong_type", "write true or false")
    if faults or not isinstance(secret, str):
        raise InvalidBodyError(faults.summary("the body").partition(";")[0], faults=faults.named)
    return Asked(secret, items, catalog, address, Freshly(at_least, consistent), explain is True)


def _read_item(value: Mapping[str, Any], where: str, faults: Faults) -> Ask | None:
    """None when the item has a fault, which is noted then."""
    before = faults.count
    resource, action = value.get("resource"), value.get("action")
    for name, half in (("resource", resource), ("action", action)):
        if not isinstance(half, str):
            _need(value, name, f"write half a permission, as the `{_EXAMPLE[name]}` of `issue:read`", where, faults)
        elif not 1 <= len(half) <= _LONGEST_NAME:
            faults.add(f"{where}/{name}", "out_of_range", f"a name has 1 to {_LONGEST_NAME} characters")
    target = value.get("target")
    if target is not None and not isinstance(target, str):
        faults.add(f"{where}/target", "wrong_type", "write a text, as `acme/web` or `project:42`")
    given = value.get("attributes")
    attributes = {} if given is None else _read_attributes(given, f"{where}/attributes", faults)
    if faults.count != before:
        return None
    return Ask(PermissionRequest(f"{resource}:{action}", target), attributes)


_EXAMPLE: Final = {"resource": "issue", "action": "read"}


def _read_attributes(given: object, where: str, faults: Faults) -> Attributes:
    if not isinstance(given, dict):
        faults.add(where, "wrong_type", "write an object of names and values")
        return {}
    if len(given) > MOST_ATTRIBUTES:
        faults.add(where, "too_long", f"that is too much: {MOST_ATTRIBUTES} attributes at most")
        return {}
    found: dict[str, Scalar] = {}
    for name, value in given.items():
        at = f"{where}/{escape(name)}"
        if name in RESERVED:
            message = "the directory alone knows this; leave it out"
            faults.add(at, "reserved_attribute", message)
        elif not _ATTRIBUTE.fullmatch(name):
            message = "name it `resource.…`, `action.…`, `subject.…` or `context.…`, in small letters, digits and `_`"
            faults.add(at, "invalid_attribute", message)
        if not isinstance(value, str | int | bool):
            faults.add(at, "wrong_type", "write a text, a whole number, true or false")
        elif isinstance(value, str) and len(value) > _LONGEST_TEXT:
            faults.add(at, "too_long", f"that is too much: {_LONGEST_TEXT} characters at most")
        else:
            found[name] = value
    return found


def _refuse_unknown(value: Mapping[str, Any], known: frozenset[str], where: str, faults: Faults) -> None:
    for name in value:
        if name not in known:
            faults.add(f"{where}/{escape(name)}", "unknown_field", "there is no such field here; leave it out")


def _need(value: Mapping[str, Any], name: str, how: str, where: str, faults: Faults) -> None:
    if name in value:
        faults.add(f"{where}/{name}", "wrong_type", how)
    else:
        faults.add(f"{where}/{name}", "missing_field", f"the field is missing; {how}")


def _text(value: Mapping[str, Any], name: str, faults: Faults) -> str | None:
    found = value.get(name)
    if found is None or isinstance(found, str):
        return found
    faults.add(f"/{name}", "wrong_type", "write a text")
    return None


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
