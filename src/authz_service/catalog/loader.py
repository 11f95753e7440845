"""Catalog text to a catalog, or to all that is wrong with it. Pure: whoever calls it has read the file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from authz_service.catalog.bundles import read_bundles
from authz_service.catalog.conditions import DIRECTORY_FACTS, check_combinations, check_conditions
from authz_service.catalog.document import Section, parse_document
from authz_service.catalog.faults import CatalogFault, Faults
from authz_service.catalog.format import CATALOG
from authz_service.catalog.graphql_rules import read_graphql
from authz_service.catalog.model import Catalog, Operation, OwnerCheck
from authz_service.catalog.operations import OperationReader
from authz_service.catalog.paths import METHODS, OperationTextError, parse_operation
from authz_service.catalog.permissions import read_permissions
from authz_service.catalog.reading import entries_in, flag_in, section_in, text_in, word_of, words_of
from authz_service.catalog.roles import read_roles
from authz_service.catalog.routes import Match, RouteClashError, Router, make_router
from authz_service.catalog.targets import read_target_rules
from authz_service.directory.model import NodeKind
from authz_service.errors import CatalogInvalidError

_SPOILING: Final = (
    CatalogFault.BAD_TYPE,
    CatalogFault.DUPLICATE_KEY,
    CatalogFault.KEY_NOT_TEXT,
    CatalogFault.TOO_LARGE,
    CatalogFault.UNKNOWN_KEY,
)
"""Faults that may have taken the permissions away, so that their absence is no fault of its own."""


def load_catalog(text: str, *, file: str = "catalog.yaml") -> Catalog:
    """The catalog that this text describes; equal text gives equal catalogs, and permissions are numbered in its order.

    Raises CatalogInvalidError with every fault found, each at `file:line`; `file` serves the messages alone.
    """
    faults = Faults(file)
    document = parse_document(text, faults)
    top = None if document is None else CATALOG.check(document, faults, "the catalog")
    catalog = _read(top, faults) if isinstance(top, Section) else None
    faults.raise_if_any()
    if catalog is None:
        raise CatalogInvalidError(f"`{file}` cannot be read as a catalog")
    return catalog


def _read(top: Section, faults: Faults) -> Catalog:
    roles, top_role = read_roles(top, faults)
    check_conditions(top, roles, faults)
    permissions = read_permissions(top, roles, faults)
    rules = read_target_rules(section_in(top, "targets"), faults)
    reader = OperationReader(top, permissions, roles, rules, faults)
    operations = reader.read()
    check_combinations(permissions.all, operations.values(), {**permissions.lines, **reader.lines}, faults)
    if not permissions.all and not faults.has(*_SPOILING):
        message = "a catalog has permissions; list them under `permissions` or `categories`"
        faults.add(top.line, CatalogFault.MISSING_KEY, message)
    catalog = Catalog(
        name=text_in(top, "catalog") or "",
        version=int(text_in(top, "version") or 0),
        permissions=permissions.all,
        operations=operations,
        roles=roles,
        top_role=top_role,
        bundles=read_bundles(top, permissions, operations, faults),
        aliases=permissions.aliases,
        owner_check=OwnerCheck(text_in(top, "owner_check") or OwnerCheck.DIRECTORY),
        source=text_in(top, "source"),
        case_sensitive=flag_in(top, "case_sensitive") is True,
        single_owner=flag_in(top, "single_owner") is True,
        forbidding_legacy_ends_public_reads=flag_in(top, "forbidding_legacy_ends_public_reads") is True,
        base_path=text_in(top, "base_path") or "",
        attribute_parameters=_read_attribute_parameters(top, operations, faults),
        encoded_parameters=_read_parameters(top, "encoded_parameters", operations, faults),
        spanning_parameters=_read_parameters(top, "spanning_parameters", operations, faults),
        words={NodeKind(entry.key): word_of(entry.value).text for entry in entries_in(top, "words")},
        title=text_in(top, "title") or "",
        graphql=read_graphql(top, faults),
    )
    if not faults.count:
        _check_routes(catalog, reader.lines, faults)
    return catalog


def _check_routes(catalog: Catalog, lines: Mapping[str, int], faults: Faults) -> None:
    """A request must be one operation. Routes are made only of operations that have no fault of their own."""
    try:
        router = make_router(catalog)
        if catalog.graphql is not None and catalog.graphql.path:
            _check_document_path(catalog.graphql.path, router, lines, faults)
    except RouteClashError as error:
        for clash in error.clashes:
            line = max((lines[id_] for id_ in clash.operation_ids if id_ in lines), default=1)
            faults.add(line, CatalogFault.ROUTE_CLASH, clash.message)


def _check_document_path(path: str, router: Router, lines: Mapping[str, int], faults: Faults) -> None:
    """One request cannot be a document and another operation too."""
    for method in METHODS:
        found = router.resolve(method, path)
        if isinstance(found, Match):
            message = f"`{found.operation_id}` matches the path of documents, `{path}`; keep one of the two"
            faults.add(lines.get(found.operation_id, 1), CatalogFault.ROUTE_CLASH, message)


def _read_parameters(top: Section, key: str, operations: Mapping[str, Operation], faults: Faults) -> frozenset[str]:
    words = words_of(top.find(key))
    known = _path_parameters(operations) if words else frozenset[str]()
    for word in words:
        if word.text not in known:
            message = f"no operation has the path parameter `{word.text}`"
            faults.add(word.line, CatalogFault.UNKNOWN_PARAMETER, message)
    return frozenset(word.text for word in words)


def _read_attribute_parameters(top: Section, operations: Mapping[str, Operation], faults: Faults) -> Mapping[str, str]:
    """Attribute to parameter. One that no path has would never be given, and a `when` on it never match."""
    entries = tuple(entries_in(top, "attribute_parameters"))
    known = _path_parameters(operations) if entries else frozenset[str]()
    found = {}
    for entry in entries:
        word = word_of(entry.value)
        if entry.key.startswith("subject.") or entry.key in DIRECTORY_FACTS:
            message = f"`{entry.key}` is a fact of the directory; a path parameter may not give it"
            faults.add(entry.line, CatalogFault.RESERVED_ATTRIBUTE, message)
        elif word.text not in known:
            message = f"no operation has the path parameter `{word.text}`"
            faults.add(word.line, CatalogFault.UNKNOWN_PARAMETER, message)
        else:
            found[entry.key] = word.text
    return found


def _path_parameters(operations: Mapping[str, Operation]) -> frozenset[str]:
    names: set[str] = set()
    for id_ in operations:
        try:
            text = parse_operation(id_)
        except OperationTextError:  # pragma: no cover - only parsed operations get here
            continue
        names.update(text.path.parameters if text.path else ())
    return frozenset(names)
