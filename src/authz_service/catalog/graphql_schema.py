"""An API's GraphQL schema, as much of it as says which types a document reaches: from SDL or from introspection.

It never runs a document, and knows neither arguments nor input types.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any, Final

from graphql import GraphQLError, parse
from graphql.language import ast

from authz_service.catalog.faults import CatalogFault, Faults
from authz_service.errors import CatalogInvalidError

MAX_CHARACTERS: Final = 24 * 1024 * 1024
MAX_TYPES: Final = 50_000
MAX_FIELDS: Final = 500_000
ROOTS: Final = {"query": "Query", "mutation": "Mutation", "subscription": "Subscription"}
"""Kinds of operation, and what a catalog calls the type that each begins at."""
ROOT_PREFIXES: Final = tuple(f"{root}." for root in ROOTS.values())
"""How operations begin that no schema is needed for."""
RESERVED: Final = "Type"
"""No type of an API may have this name: `Type.Issue` would mean two things."""
SCALARS: Final = ("Boolean", "Float", "ID", "Int", "String")


class TypeKind(StrEnum):
    """What a type that fields give out is. A LEAF is a scalar or an enum."""

    OBJECT = "object"
    INTERFACE = "interface"
    UNION = "union"
    LEAF = "leaf"


@dataclass(frozen=True, slots=True)
class ApiType:
    """One type. `fields` maps a field to the type it gives out, without lists and `!`.

    `within` are the interfaces of an object or interface; `members` the types of a union.
    """

    kind: TypeKind
    fields: Mapping[str, str]
    within: tuple[str, ...] = ()
    members: tuple[str, ...] = ()


@dataclass(frozen=True)
class ApiSchema:
    """Every name in it is one of its types. `roots` maps `query`, `mutation` and `subscription` to types."""

    roots: Mapping[str, str]
    types: Mapping[str, ApiType]

    @cached_property
    def possible(self) -> Mapping[str, tuple[str, ...]]:
        """The object types that may stand behind each type that fields select from, in the order of the schema."""
        found: dict[str, list[str]] = {
            name: list(each.members) for name, each in self.types.items() if each.kind is not TypeKind.LEAF
        }
        for name, each in self.types.items():
            if each.kind is TypeKind.OBJECT:
                found[name].append(name)
                for above in each.within:
                    found[above].append(name)
        return {name: tuple(dict.fromkeys(each)) for name, each in found.items()}

    @cached_property
    def counts_as(self) -> Mapping[str, tuple[str, ...]]:
        """For each object type: itself, and every interface and union it belongs to."""
        found: dict[str, list[str]] = {
            name: [name] for name, each in self.types.items() if each.kind is TypeKind.OBJECT
        }
        for name, objects in self.possible.items():
            for each in objects:
                if each != name:
                    found[each].append(name)
        return {name: tuple(each) for name, each in found.items()}

    @cached_property
    def nodes(self) -> Mapping[str, str]:
        """For each connection: the type of its nodes."""
        found = {}
        for name, each in self.types.items():
            edge = self.types.get(each.fields.get("edges", ""))
            if each.kind is TypeKind.OBJECT and "pageInfo" in each.fields and edge is not None:
                node = edge.fields.get("node")
                if node is not None and self.types[node].kind is not TypeKind.LEAF:
                    found[name] = node
        return found

    @cached_property
    def inside_connections(self) -> frozenset[str]:
        """Fields that lead from a connection to its nodes, where these are of one type: `IssueConnection.nodes`."""
        found: set[str] = set()
        for name, node in self.nodes.items():
            if self.types[node].kind is TypeKind.OBJECT:
                edge = self.types[name].fields["edges"]
                found.update(f"{name}.{field}" for field, gives in self.types[name].fields.items() if gives == node)
                found.update((f"{name}.edges", f"{edge}.node"))
        return frozenset(found)


def load_schema(text: str, *, file: str = "schema.graphql") -> ApiSchema:
    """The schema that SDL, or the JSON answer of an introspection query, describes.

    Raises CatalogInvalidError with every fault found; takes seconds for a schema of megabytes.
    """
    faults = Faults(file)
    if len(text) > MAX_CHARACTERS:
        faults.add(1, CatalogFault.TOO_LARGE, f"a schema has at most {MAX_CHARACTERS // 1024 // 1024} MiB of text")
        faults.raise_if_any()
    draft = _Draft(faults)
    if text.lstrip().startswith("{") and '"__schema"' in text:
        _read_introspection(text, draft)
    else:
        _read_sdl(text, draft)
    if faults.has(CatalogFault.BAD_SYNTAX):
        faults.raise_if_any()
    schema = draft.finish()
    faults.raise_if_any()
    return schema


def format_schema(schema: ApiSchema) -> str:
    """As text that `parse_stored` reads: equal schemas give equal texts."""
    types = {
        name: [each.kind, dict(sorted(each.fields.items())), list(each.within), list(each.members)]
        for name, each in sorted(schema.types.items())
    }
    return json.dumps({"roots": dict(sorted(schema.roots.items())), "types": types}, separators=(",", ":"))


def parse_stored(text: str) -> ApiSchema:
    """What `format_schema` wrote. Raises CatalogInvalidError for anything else."""
    try:
        found = json.loads(text)
        types = {
            name: ApiType(TypeKind(kind), fields, tuple(within), tuple(members))
            for name, (kind, fields, within, members) in found["types"].items()
        }
        return ApiSchema(found["roots"], types)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CatalogInvalidError("the stored schema was written by another version; install it again") from None


class _Draft:
    """Types while they are put together; a definition and its extensions end in one."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.roots: dict[str, str] = {}
        self._kinds: dict[str, tuple[TypeKind, int]] = {}
        self._fields: dict[str, dict[str, tuple[str, int]]] = {}
        self._within: dict[str, dict[str, int]] = {}
        self._members: dict[str, dict[str, int]] = {}

    def add_type(self, name: str, kind: TypeKind, line: int, *, extends: bool = False) -> None:
        if name.startswith("__"):
            return
        if name in self._kinds and not extends and name not in SCALARS:
            self.faults.add(line, CatalogFault.DUPLICATE_KEY, f"the type `{name}` is defined twice; keep one")
        if name == RESERVED:
            self.faults.add(line, CatalogFault.BAD_NAME, f"no type may be called `{RESERVED}` here; rename it")
        if not extends or name not in self._kinds:
            self._kinds[name] = (kind, line)

    def add_field(self, owner: str, name: str, gives: str, line: int) -> None:
        fields = self._fields.setdefault(owner, {})
        if fields.setdefault(name, (gives, line)) != (gives, line):
            self.faults.add(line, CatalogFault.DUPLICATE_KEY, f"`{owner}.{name}` is defined twice; keep one")

    def add_interface(self, owner: str, name: str, line: int) -> None:
        self._within.setdefault(owner, {})[name] = line

    def add_member(self, union: str, name: str, line: int) -> None:
        self._members.setdefault(union, {})[name] = line

    def finish(self) -> ApiSchema:
        for scalar in SCALARS:
            self._kinds.setdefault(scalar, (TypeKind.LEAF, 1))
        roots = self.roots or {word: name for word, name in ROOTS.items() if name in self._kinds}
        if "query" not in roots:
            message = "the schema has no query type; give the whole schema, as SDL or as an introspection's answer"
            self.faults.add(1, CatalogFault.MISSING_KEY, message)
        if len(self._kinds) > MAX_TYPES or sum(map(len, self._fields.values())) > MAX_FIELDS:
            message = f"a schema has at most {MAX_TYPES} types and {MAX_FIELDS} fields"
            self.faults.add(1, CatalogFault.TOO_LARGE, message)
        for word, name in roots.items():
            self._check(name, 1, {TypeKind.OBJECT}, f"the {word} type")
        return ApiSchema(roots, {name: self._type(name, kind) for name, (kind, _) in self._kinds.items()})

    def _type(self, name: str, kind: TypeKind) -> ApiType:
        composite = kind in (TypeKind.OBJECT, TypeKind.INTERFACE)
        fields = self._fields.get(name, {}) if composite else {}
        for field, (gives, line) in fields.items():
            self._check(gives, line, set(TypeKind), f"what `{name}.{field}` gives out")
        within = self._within.get(name, {}) if composite else {}
        for above, line in within.items():
            self._check(above, line, {TypeKind.INTERFACE}, f"what `{name}` implements")
        members = self._members.get(name, {}) if kind is TypeKind.UNION else {}
        for member, line in members.items():
            self._check(member, line, {TypeKind.OBJECT}, f"a member of `{name}`")
        return ApiType(kind, {field: gives for field, (gives, _) in fields.items()}, tuple(within), tuple(members))

    def _check(self, name: str, line: int, kinds: set[TypeKind], what: str) -> None:
        found = self._kinds.get(name)
        if found is None:
            message = f"{what}, `{name}`, is no type of this schema; define it"
            self.faults.add(line, CatalogFault.UNKNOWN_TYPE, message)
        elif found[0] not in kinds:
            self.faults.add(line, CatalogFault.UNKNOWN_TYPE, f"{what}, `{name}`, cannot be of kind {found[0]}")


# SDL


def _read_sdl(text: str, draft: _Draft) -> None:
    try:
        document = parse(text)
    except GraphQLError as error:
        line = error.locations[0].line if error.locations else 1
        draft.faults.add(line, CatalogFault.BAD_SYNTAX, f"this is no GraphQL schema: {_plain(error.message)}")
        return
    except RecursionError:
        draft.faults.add(1, CatalogFault.BAD_SYNTAX, "this is no GraphQL schema: it is nested too deeply")
        return
    for node in document.definitions:
        _read_definition(node, draft)


def _plain(message: str) -> str:
    text = message.removeprefix("Syntax Error: ").rstrip(".")
    return text[:1].lower() + text[1:]


def _read_definition(node: ast.Node, draft: _Draft) -> None:
    line = _line(node)
    match node:
        case ast.SchemaDefinitionNode() | ast.SchemaExtensionNode():
            for operation in node.operation_types or ():
                draft.roots[operation.operation.value] = operation.type.name.value
        case ast.ObjectTypeDefinitionNode() | ast.ObjectTypeExtensionNode():
            _read_fields(node, TypeKind.OBJECT, draft)
        case ast.InterfaceTypeDefinitionNode() | ast.InterfaceTypeExtensionNode():
            _read_fields(node, TypeKind.INTERFACE, draft)
        case ast.UnionTypeDefinitionNode() | ast.UnionTypeExtensionNode():
            extends = isinstance(node, ast.UnionTypeExtensionNode)
            draft.add_type(node.name.value, TypeKind.UNION, line, extends=extends)
            for member in node.types or ():
                draft.add_member(node.name.value, member.name.value, _line(member))
        case ast.ScalarTypeDefinitionNode() | ast.EnumTypeDefinitionNode():
            draft.add_type(node.name.value, TypeKind.LEAF, line)
        case ast.ExecutableDefinitionNode():
            message = "this is a document with operations, not a schema; give the API's schema"
            draft.faults.add(line, CatalogFault.BAD_SYNTAX, message)


def _read_fields(
    node: ast.ObjectTypeDefinitionNode
    | ast.ObjectTypeExtensionNode
    | ast.InterfaceTypeDefinitionNode
    | ast.InterfaceTypeExtensionNode,
    kind: TypeKind,
    draft: _Draft,
) -> None:
    extends = isinstance(node, ast.ObjectTypeExtensionNode | ast.InterfaceTypeExtensionNode)
    name = node.name.value
    draft.add_type(name, kind, _line(node), extends=extends)
    for above in node.interfaces or ():
        draft.add_interface(name, above.name.value, _line(above))
    for field in node.fields or ():
        draft.add_field(name, field.name.value, _named(field.type), _line(field))


def _named(node: ast.TypeNode) -> str:
    while isinstance(node, ast.ListTypeNode | ast.NonNullTypeNode):
        node = node.type
    return node.name.value if isinstance(node, ast.NamedTypeNode) else ""


def _line(node: ast.Node) -> int:
    return node.loc.start_token.line if node.loc is not None else 1


# Introspection

_KINDS: Final = {
    "OBJECT": TypeKind.OBJECT,
    "INTERFACE": TypeKind.INTERFACE,
    "UNION": TypeKind.UNION,
    "SCALAR": TypeKind.LEAF,
    "ENUM": TypeKind.LEAF,
}


def _read_introspection(text: str, draft: _Draft) -> None:
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        draft.faults.add(error.lineno, CatalogFault.BAD_SYNTAX, "this is no JSON; give the answer of an introspection")
        return
    except (ValueError, RecursionError):
        draft.faults.add(1, CatalogFault.BAD_SYNTAX, "this is no JSON that can be read safely")
        return
    try:
        schema = found.get("data", found)["__schema"]
        for word in ROOTS:
            root = schema.get(f"{word}Type")
            if root is not None:
                draft.roots[word] = _text(root["name"])
        for each in schema["types"]:
            _read_introspected(each, draft)
    except (KeyError, TypeError, AttributeError):
        message = "this is no answer of an introspection: it needs names, kinds, fields, interfaces and possible types"
        draft.faults.add(1, CatalogFault.BAD_SYNTAX, message)


def _read_introspected(found: Mapping[str, Any], draft: _Draft) -> None:
    name, kind = _text(found["name"]), _KINDS.get(found["kind"])
    if kind is None or name.startswith("__"):
        return
    draft.add_type(name, kind, 1)
    for field in found.get("fields") or ():
        draft.add_field(name, _text(field["name"]), _innermost(field["type"]), 1)
    for above in found.get("interfaces") or ():
        draft.add_interface(name, _text(above["name"]), 1)
    if kind is TypeKind.UNION:
        for member in found["possibleTypes"]:
            draft.add_member(name, _text(member["name"]), 1)


def _innermost(found: Mapping[str, Any]) -> str:
    *_, last = _nested(found)
    return _text(last["name"])


def _nested(found: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield found
    while found.get("ofType") is not None:
        found = found["ofType"]
        yield found


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a name is a text")
    return value
