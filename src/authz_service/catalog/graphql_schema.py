"""An API's GraphQL schema as a text, as much of it as documents are read by: from SDL, from introspection, stored."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from graphql import GraphQLError, parse, parse_const_value
from graphql.language import ast

from authz_service.catalog.faults import CatalogFault, Faults
from authz_service.catalog.graphql_documents import Variables
from authz_service.catalog.graphql_drafts import SchemaDraft, Source
from authz_service.catalog.graphql_types import ROOTS, ApiSchema, ApiType, Declared, TypeKind
from authz_service.errors import CatalogInvalidError

MAX_CHARACTERS: Final = 24 * 1024 * 1024
_VERSION: Final = 2
"""Of stored texts. The first said nothing of arguments, and no number."""
_PLAIN: Final = Variables({})


def load_schema(text: str, *, file: str = "schema.graphql") -> ApiSchema:
    """The schema that SDL, or the JSON answer of an introspection query, describes.

    Raises CatalogInvalidError with every fault found; takes seconds for a schema of megabytes.
    """
    faults = Faults(file)
    if len(text) > MAX_CHARACTERS:
        faults.add(1, CatalogFault.TOO_LARGE, f"a schema has at most {MAX_CHARACTERS // 1024 // 1024} MiB of text")
        faults.raise_if_any()
    draft = SchemaDraft(faults)
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
    found: dict[str, Any] = {"roots": dict(sorted(schema.roots.items())), "types": types}
    if schema.defaults_known:  # beside the types, and not in them: replicas of the version before read these still
        arguments = {
            name: {field: _plain(declared) for field, declared in sorted(each.arguments.items())}
            for name, each in sorted(schema.types.items())
            if each.arguments
        }
        inputs = {name: _plain(declared) for name, declared in sorted(schema.inputs.items())}
        found |= {"version": _VERSION, "arguments": arguments, "inputs": inputs}
    return json.dumps(found, separators=(",", ":"))


def _plain(declared: Mapping[str, Declared]) -> dict[str, list[Any]]:
    return {name: [each.type, each.default] for name, each in sorted(declared.items())}


def parse_stored(text: str) -> ApiSchema:
    """What `format_schema` wrote; of what was stored before defaults were kept, they are not known.

    Raises CatalogInvalidError for anything else.
    """
    try:
        found = json.loads(text)
        known = _says_defaults(found.get("version"))
        arguments = {
            name: {field: _declared(each) for field, each in fields.items()}
            for name, fields in (found["arguments"] if known else {}).items()
        }
        types = {
            name: ApiType(TypeKind(kind), dict(fields), tuple(within), tuple(members), arguments.get(name, {}))
            for name, (kind, fields, within, members) in found["types"].items()
        }
        inputs = {name: _declared(each) for name, each in found["inputs"].items()} if known else {}
        return ApiSchema(dict(found["roots"]), types, inputs, known)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CatalogInvalidError("the stored schema was written by another version; install it again") from None


def _says_defaults(version: object) -> bool:
    if version not in (None, _VERSION):
        raise ValueError(version)
    return version is not None


def _declared(found: Mapping[str, tuple[str, Any]]) -> dict[str, Declared]:
    return {name: Declared(_text(kind), default) for name, (kind, default) in found.items()}


# SDL


def _read_sdl(text: str, draft: SchemaDraft) -> None:
    try:
        document = parse(text)
    except GraphQLError as error:
        line = error.locations[0].line if error.locations else 1
        draft.faults.add(line, CatalogFault.BAD_SYNTAX, f"this is no GraphQL schema: {_worded(error.message)}")
        return
    except RecursionError:
        draft.faults.add(1, CatalogFault.BAD_SYNTAX, "this is no GraphQL schema: it is nested too deeply")
        return
    for node in document.definitions:
        _read_definition(node, draft)


def _worded(message: str) -> str:
    text = message.removeprefix("Syntax Error: ").rstrip(".")
    return text[:1].lower() + text[1:]


def _read_definition(node: ast.Node, draft: SchemaDraft) -> None:
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
        case ast.InputObjectTypeDefinitionNode() | ast.InputObjectTypeExtensionNode():
            name = node.name.value
            draft.add_input(name, line, extends=isinstance(node, ast.InputObjectTypeExtensionNode))
            for source, declared in _values_of(name, node.fields):
                draft.add_input_field(source, declared)
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
    draft: SchemaDraft,
) -> None:
    extends = isinstance(node, ast.ObjectTypeExtensionNode | ast.InterfaceTypeExtensionNode)
    name = node.name.value
    draft.add_type(name, kind, _line(node), extends=extends)
    for above in node.interfaces or ():
        draft.add_interface(name, above.name.value, _line(above))
    for field in node.fields or ():
        draft.add_field(name, field.name.value, _named(field.type), _line(field))
        for source, declared in _values_of(f"{name}.{field.name.value}", field.arguments):
            draft.add_argument(source, declared)


def _values_of(owner: str, nodes: Iterable[ast.InputValueDefinitionNode] | None) -> Iterator[tuple[Source, Declared]]:
    for node in nodes or ():
        default = None if node.default_value is None else _PLAIN.read(node.default_value)
        yield Source(owner, node.name.value, _line(node)), Declared(_named(node.type), default)


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


def _read_introspection(text: str, draft: SchemaDraft) -> None:
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
        message = (
            "this is no answer of an introspection: it needs names, kinds, fields with `args`, `inputFields`, "
            "interfaces and possible types, and of each argument and input field its `defaultValue`"
        )
        draft.faults.add(1, CatalogFault.BAD_SYNTAX, message)


def _read_introspected(found: Mapping[str, Any], draft: SchemaDraft) -> None:
    name, kind = _text(found["name"]), _KINDS.get(found["kind"])
    if found["kind"] == "INPUT_OBJECT":
        draft.add_input(name, 1)
        for source, declared in _introspected_values(name, found["inputFields"], draft):
            draft.add_input_field(source, declared)
    if kind is None or name.startswith("__"):
        return
    draft.add_type(name, kind, 1)
    for field in found.get("fields") or ():
        field_name = _text(field["name"])
        draft.add_field(name, field_name, _innermost(field["type"]), 1)
        for source, declared in _introspected_values(f"{name}.{field_name}", field["args"], draft):
            draft.add_argument(source, declared)
    for above in found.get("interfaces") or ():
        draft.add_interface(name, _text(above["name"]), 1)
    if kind is TypeKind.UNION:
        for member in found["possibleTypes"]:
            draft.add_member(name, _text(member["name"]), 1)


def _introspected_values(
    owner: str, found: Iterable[Mapping[str, Any]], draft: SchemaDraft
) -> Iterator[tuple[Source, Declared]]:
    """Whatever leaves out the defaults is refused (KeyError): one that nobody knows of may name a place."""
    for each in found:
        name, text = _text(each["name"]), each["defaultValue"]
        default = None
        if text is not None:
            try:
                default = _PLAIN.read(parse_const_value(_text(text), no_location=True))
            except (GraphQLError, RecursionError):
                message = f"the default of `{name}` of `{owner}` is no GraphQL value; mend it where the API is"
                draft.faults.add(1, CatalogFault.BAD_SYNTAX, message)
        yield Source(owner, name), Declared(_innermost(each["type"]), default)


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
