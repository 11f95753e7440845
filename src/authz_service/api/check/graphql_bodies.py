"""GraphQL requests as clients send them to an API: read in one way only, or refused with a code."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl

from authz_service.admin.faults import shown
from authz_service.api.wire import parse_json
from authz_service.catalog.graphql_documents import DocumentFault, FoundFault
from authz_service.errors import InvalidBodyError
from authz_service.pdp.documents import NO_DOCUMENT, DocumentText, GraphqlCall

_FIELDS: Final = frozenset({"query", "variables", "operationName", "extensions"})
_PARAMETERS: Final = frozenset({"query", "variables", "operationName"})
_EXTENSIONS: Final = frozenset({"clientLibrary"})
"""What clients add by themselves, and no server takes for a document."""
_JSON: Final = frozenset({"application/json", "application/graphql+json"})
_QUERY: Final = re.compile(r"""(?:%[0-9A-Fa-f]{2}|[!"$&-:<-~])*""")
"""Without what servers read in different ways: `;` ends a parameter for many, and `#` the URL for some."""
_READING: Final = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True)
class HttpBody:
    """What a gateway passed on of a request's body. `whole` False: it cut the body, or may have.

    `kind` and `encoding` are `Content-Type` and `Content-Encoding` as the client sent them.
    """

    content: bytes = b""
    kind: str | None = None
    encoding: str | None = None
    whole: bool = True


class _UnreadableError(Exception):
    def __init__(self, message: str, code: DocumentFault = DocumentFault.UNREADABLE) -> None:
        self.fault = FoundFault(code, message)


def read_graphql_call(method: str, path: str, body: HttpBody | None, target: str | None) -> GraphqlCall:
    """The documents of one request; whatever two readers could take differently is a fault. Never raises.

    With POST the document is in the body alone, with GET in the query alone, and the other of the two is empty. `body`
    None: there was none, or the gateway sends no bodies.
    """
    try:
        return _read_call(method, path, body, target)
    except _UnreadableError as error:
        return GraphqlCall(target=target, faults=(error.fault,))


def _read_call(method: str, path: str, body: HttpBody | None, target: str | None) -> GraphqlCall:
    query = path.partition("?")[2]
    if method in _READING:
        if body is not None:
            raise _UnreadableError(f"a {method} has a body, which may say more than its URL; send it without")
        return GraphqlCall([_read_query(query)], target, reading=True)
    if method != "POST":
        raise _UnreadableError("documents are sent by POST, or by GET to read; use one of the two")
    if query:
        # Servers join the URL's parameters with the body's, however they are spelt: `_json[][query]`, `variables%00`.
        raise _UnreadableError("the URL of a POST has parameters, which may be taken for a document; send none")
    if body is None:
        return GraphqlCall(target=target, faults=(NO_DOCUMENT,))
    found = _read_body(body)
    if isinstance(found, list):
        return GraphqlCall([_document(each) for each in found], target, listed=True)
    return GraphqlCall([_document(found)], target)


def _read_query(query: str) -> DocumentText:
    if not _QUERY.fullmatch(query):
        raise _UnreadableError("the query of the URL cannot be read in one way only; send it encoded")
    pairs = _pairs(query)
    odd = sorted({name for name, _ in pairs} - _PARAMETERS)
    if odd:
        # Servers know other ways to name these: `variables[id]`, ` query`, `documentId`.
        raise _UnreadableError(f"`{shown(odd[0])}` is not read in a URL; send `query`, `variables`, `operationName`")
    given: dict[str, Any] = dict(pairs)
    if len(given) < len(pairs):
        raise _UnreadableError("a parameter stands twice in the URL; send it once")
    return _document(given)


def _pairs(query: str) -> list[tuple[str, str]]:
    if not query:
        return []
    try:
        return parse_qsl(query, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=3)
    except ValueError:
        message = "the query of the URL holds more than `query`, `variables` and `operationName`, or cannot be read"
        raise _UnreadableError(message) from None


def _read_body(body: HttpBody) -> Any:
    if not body.whole:
        raise _UnreadableError("the gateway did not send the whole body; raise its limit, or send less")
    if body.encoding is not None and body.encoding.strip().lower() != "identity":
        raise _UnreadableError("the body is compressed; send it as it is")
    kind, _, parameters = (body.kind or "").partition(";")
    charset = parameters.strip().lower().replace('"', "")
    if kind.strip().lower() not in _JSON or charset not in ("", "charset=utf-8"):
        raise _UnreadableError("only JSON in UTF-8 is read here; send `Content-Type: application/json`")
    try:
        return parse_json(body.content)
    except InvalidBodyError as error:
        raise _UnreadableError(error.message) from None


def _document(found: object) -> DocumentText:
    if not isinstance(found, Mapping):
        raise _UnreadableError("a request is an object with `query`, or a list of such")
    odd = sorted(found.keys() - _FIELDS)
    if odd:
        # Some servers take a stored document by its id, and then never look at the one that is sent.
        raise _UnreadableError(f"`{shown(odd[0])}` is not read here; send `query`, `variables` and `operationName`")
    _refuse_stored(found.get("extensions"))
    query, name = found.get("query"), found.get("operationName")
    if not isinstance(query, str):
        raise _UnreadableError("the request has no `query`; send the document", DocumentFault.MISSING)
    if name is not None and not isinstance(name, str):
        raise _UnreadableError("`operationName` is a text; send one, or leave it out")
    return DocumentText(query, _variables(found.get("variables")), name)


def _refuse_stored(extensions: object) -> None:
    """Servers find stored documents by what they like best: `persistedQuery`, `operationId`, `documentId`."""
    if extensions is None:
        return
    if not isinstance(extensions, Mapping):
        raise _UnreadableError("`extensions` is an object; send one, or leave it out")
    odd = sorted(extensions.keys() - _EXTENSIONS)
    if odd:
        message = f"the extension `{shown(odd[0])}` may name a document that nobody sees here; send the document alone"
        raise _UnreadableError(message)


def _variables(found: object) -> Mapping[str, Any]:
    """An object, or JSON of one in a text, as forms and URLs send it."""
    if isinstance(found, str) and found.strip():
        try:
            found = parse_json(found.encode())
        except (InvalidBodyError, UnicodeEncodeError):
            raise _UnreadableError("`variables` is no JSON; send an object") from None
    if found is None or found == "":
        return {}
    if not isinstance(found, Mapping):
        raise _UnreadableError("`variables` is an object of names and values; send one")
    return found
