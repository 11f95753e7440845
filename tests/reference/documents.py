"""The reference's own reading of GraphQL documents: it runs them, and writes down what the executor resolves (C3, A6).

Every field gives out a list with one object of each type that may stand there, so that one run sees all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from graphql import (
    DirectiveNode,
    ExecutionResult,
    FieldNode,
    GraphQLError,
    GraphQLInterfaceType,
    GraphQLList,
    GraphQLObjectType,
    GraphQLSchema,
    GraphQLUnionType,
    Lexer,
    OperationDefinitionNode,
    SelectionSetNode,
    Source,
    TokenKind,
    build_schema,
    execute_sync,
    get_named_type,
    get_operation_ast,
    parse,
    validate,
)
from graphql.language import ast
from tests.reference import naive
from tests.reference.rows import Rows

from authz_service.catalog.model import (
    ArgumentKind,
    Catalog,
    GraphqlRules,
    OperationKind,
    ParameterKind,
    Target,
    TargetKind,
)
from authz_service.directory.model import NodeKind, is_path
from authz_service.engine.model import Decision, OperationRequest, Reason, Request
from authz_service.tokens.model import TokenId

ROOTS = {"query": "Query", "mutation": "Mutation", "subscription": "Subscription"}

Spot = tuple[str, str]
"""(what, value): a kind of parameter or `place`, and a text; or `self`, `instance`, `caller`, `nowhere` and nothing."""
CALLER: Spot = ("caller", "")
NOWHERE: Spot = ("nowhere", "")
NOTHING = "nothing is selected"


class UnreadableError(Exception):
    """No single reading, or no document at all."""


@dataclass(frozen=True)
class Found:
    """One operation at one place; `unknown_type` says that only a schema could tell what follows."""

    operation: str
    spot: Spot
    unknown_type: bool = False


@dataclass(frozen=True)
class Thing:
    """An object as a field gave it out: where it is, and by which root field."""

    type_name: str
    spots: tuple[Spot, ...]
    covered: bool
    root: str


@dataclass
class Reading:
    """What one document reaches, in the order in which it is resolved."""

    catalog: Catalog
    mutation: bool = False
    found: list[Found] = field(default_factory=list)
    roots: dict[str, list[Found]] = field(default_factory=dict)
    target: str | None = None

    @property
    def rules(self) -> GraphqlRules:
        return self.catalog.graphql or GraphqlRules()

    def listed(self, operation: str) -> bool:
        known = self.catalog.operations.get(operation)
        return known is not None and known.kind is OperationKind.GRAPHQL

    def add(self, operation: str, spots: Sequence[Spot], root: str, *, unknown_type: bool = False) -> None:
        operation_kinds = set()
        known = self.catalog.operations.get(operation)
        for one in () if known is None else known.sets:
            operation_kinds |= {item.boundary for item in one.items}
        if operation_kinds == {NodeKind.INSTANCE}:
            spots = [("instance", "")]
        elif operation_kinds == {NodeKind.USER}:
            users = [
                spot
                for spot in spots
                if spot[0] == "user" or (spot == CALLER and (self.target or "").startswith("user:"))
            ]
            spots = users or [("self", "")]
        for spot in spots:
            one = Found(operation, spot, unknown_type)
            self.roots.setdefault(root, []).append(one)
            if one not in self.found:
                self.found.append(one)

    # Where a field is

    def named(self, names: Sequence[str], arguments: Mapping[str, Any], *, root: bool) -> list[Spot]:
        own = [self.rules.fields[name] for name in names if name in self.rules.fields]
        spots: list[Spot] = []
        if own:
            for place in own[0]:
                if place.word is not None:
                    spots.append((place.word.value, ""))
                elif place.names is not None:
                    spots += self.at(place.names, place.argument, arguments, root=root)
        else:
            for path, kind in self.rules.arguments.items():
                spots += self.at(kind, path, arguments, root=root)
        return list(dict.fromkeys(spots))

    def at(self, kind: ArgumentKind, path: str, arguments: Mapping[str, Any], *, root: bool) -> list[Spot]:
        spots = []
        for value in flat(arguments, path.split(".")):
            text = str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
            named = [prefix for prefix in self.rules.global_ids if text.startswith(prefix)]
            if named:
                rest = text[len(named[0]) :]
                number = rest if rest.isascii() and rest.isdigit() else ""
                spots.append((self.rules.global_ids[named[0]].value, number))
            elif kind is ArgumentKind.ID:
                spots += [CALLER] if root else []
            elif kind is ArgumentKind.PLACE:
                spots.append(("place", text if is_path(text) and text != "instance" else ""))
            else:
                spots.append((kind.value, text))
        return spots


def flat(value: Any, path: Sequence[str]) -> list[Any]:
    if value is None:
        return []
    if isinstance(value, list):
        return [found for one in value for found in flat(one, path)]
    if not path:
        return [value]
    return flat(value.get(path[0]), path[1:]) if isinstance(value, Mapping) else []


def read(
    catalog: Catalog,
    sdl: str | None,
    query: str,
    variables: Mapping[str, Any] | None = None,
    operation_name: str | None = None,
    target: str | None = None,
) -> list[Found]:
    """What the document reaches. Raises UnreadableError."""
    try:
        look_at_letters(query)
        document = parse(query)
    except GraphQLError as error:
        raise UnreadableError(str(error)) from None
    operation = get_operation_ast(document, operation_name)
    if operation is None:
        raise UnreadableError("no such operation")
    reading = Reading(catalog, operation.operation.value == "mutation", target=target)
    if sdl is None:
        read_without_schema(reading, operation, variables or {})
    else:
        run(reading, exploded(sdl), document, operation, variables, operation_name)
    return reading.found


def look_at_letters(query: str) -> None:
    """Where readers disagree on the ends of comments and strings (A2), token by token. Raises UnreadableError."""
    if "\r" in query.replace("\r\n", ""):
        raise UnreadableError("a carriage return alone")
    strings = (TokenKind.STRING, TokenKind.BLOCK_STRING)
    lexer = Lexer(Source(query))
    one = lexer.token
    while lexer.advance().kind is not TokenKind.EOF:
        pass
    while one.next is not None:
        text, after = query[one.start : one.end], one.next
        if one.kind is TokenKind.COMMENT and ('"' in text or after.kind is TokenKind.COLON):
            raise UnreadableError("a comment that is none for all")
        if one.kind is TokenKind.BLOCK_STRING and '"' in text[3:-3]:
            raise UnreadableError("a quotation mark in a block string")
        if one.kind is TokenKind.STRING and text.endswith('\\\\"'):
            raise UnreadableError("a backslash at the end of a string")
        if one.kind in strings and after.kind in strings and after.start == one.end:
            raise UnreadableError("strings side by side")
        one = after


@dataclass
class Run:
    """One document, run once: what its fields give out, by the response's path."""

    reading: Reading
    schema: GraphQLSchema
    word: str
    things: dict[tuple[Any, ...], Thing] = field(default_factory=dict)
    root_spots: dict[str, tuple[Spot, ...]] = field(default_factory=dict)

    def resolve(self, source: Thing | None, info: Any, **arguments: Any) -> Any:
        name = info.field_name
        if source is None:
            names = [f"{ROOTS[self.word]}.{name}"]
            own = self.reading.named(names, arguments, root=True)
            spots = tuple(own) or (CALLER,)
            root = f"{names[0]}/{info.path.key}"
            self.reading.roots.setdefault(root, [])
            self.root_spots[root] = spots
        else:
            self.touch(source)
            owners = counted_as(self.schema, source.type_name)
            names = [f"{owner}.{name}" for owner in owners if has(self.schema, owner, name)]
            own = self.reading.named(names, arguments, root=False)
            spots = tuple(dict.fromkeys([*source.spots, *own]))
            root = source.root
        listed = [one for one in names if self.reading.listed(one)]
        for one in listed:
            self.reading.add(one, spots, root)
        covered = bool(listed) or (source is not None and source.covered)
        gives = get_named_type(info.return_type)
        if not isinstance(gives, GraphQLObjectType | GraphQLInterfaceType | GraphQLUnionType):
            if not covered:
                self.reading.add(root.partition("/")[0], spots, root)
            return None
        named = tuple(own) or (spots if source is None else ())
        given = [self.thing(each.name, names, spots, named, root, covered) for each in possible(self.schema, gives)]
        for position, thing in enumerate(given):
            self.things[(*info.path.as_list(), position)] = thing
            if isinstance(gives, GraphQLObjectType):
                self.touch(thing)
        return given

    def thing(
        self,
        name: str,
        fields: Sequence[str],
        spots: tuple[Spot, ...],
        named: tuple[Spot, ...],
        root: str,
        covered: bool,
    ) -> Thing:
        lies = where(self.reading, self.schema, name, fields, spots, named)
        own = any(self.reading.listed(one) for one in type_ids(self.schema, name))
        return Thing(name, lies, covered or own, root)

    def touch(self, thing: Thing) -> None:
        """An object of this type is given out."""
        for one in type_ids(self.schema, thing.type_name):
            if self.reading.listed(one):
                self.reading.add(one, thing.spots, thing.root)


def run(
    reading: Reading,
    schema: GraphQLSchema,
    document: ast.DocumentNode,
    operation: OperationDefinitionNode,
    variables: Mapping[str, Any] | None,
    operation_name: str | None,
) -> None:
    if validate(schema, document):
        raise UnreadableError("not valid by the schema")
    running = Run(reading, schema, operation.operation.value)
    result = execute_sync(
        schema,
        document,
        variable_values=dict(variables or {}),
        operation_name=operation_name,
        field_resolver=running.resolve,
        type_resolver=lambda value, _info, _type: value.type_name,
    )
    if result.errors:
        raise UnreadableError(str(result.errors))
    if not result.data:
        raise UnreadableError(NOTHING)
    look_at_names(reading, result, running.things, running.touch)
    for name, value in result.data.items():
        if value == schema_root(schema, running.word):
            reading.add(f"{ROOTS[running.word]}.__typename", [CALLER], name)
    for root, found in list(reading.roots.items()):
        if not found:
            reading.add(root.partition("/")[0], running.root_spots[root], root)


def look_at_names(reading: Reading, result: ExecutionResult, things: Mapping[Any, Thing], touch: Any) -> None:
    """`__typename` is resolved by the executor itself: it is seen in the answer alone."""
    for path, thing in things.items():
        inner: Any = result.data
        for step in path:
            inner = inner[step]
        if any(value == thing.type_name for value in inner.values()):
            touch(thing)
            if not thing.covered:
                reading.add(thing.root.partition("/")[0], thing.spots, thing.root)


def schema_root(schema: GraphQLSchema, word: str) -> str:
    root = {"query": schema.query_type, "mutation": schema.mutation_type, "subscription": schema.subscription_type}[
        word
    ]
    return "" if root is None else root.name


@cache
def exploded(sdl: str) -> GraphQLSchema:
    """Each field of objects gives out a list of them, so that all types can stand in it."""
    schema = build_schema(sdl)
    for each in schema.type_map.values():
        if isinstance(each, GraphQLObjectType | GraphQLInterfaceType) and not each.name.startswith("__"):
            for one in each.fields.values():
                named = get_named_type(one.type)
                objects = isinstance(named, GraphQLObjectType | GraphQLInterfaceType | GraphQLUnionType)
                one.type = GraphQLList(named) if objects else named
    return schema


def possible(schema: GraphQLSchema, gives: Any) -> Sequence[GraphQLObjectType]:
    return [gives] if isinstance(gives, GraphQLObjectType) else list(schema.get_possible_types(gives))


def counted_as(schema: GraphQLSchema, name: str) -> list[str]:
    """The type itself, and whatever may stand for it."""
    own = schema.type_map[name]
    above = [each for each in schema.type_map.values() if isinstance(each, GraphQLInterfaceType | GraphQLUnionType)]
    return [name, *(each.name for each in above if own in schema.get_possible_types(each))]


def has(schema: GraphQLSchema, owner: str, name: str) -> bool:
    fields = getattr(schema.type_map[owner], "fields", None)
    return fields is not None and name in fields


def node_type(schema: GraphQLSchema, name: str) -> Any:
    """Of a connection, the type of its nodes; None for any other type."""
    fields = getattr(schema.type_map[name], "fields", {})
    if "pageInfo" not in fields or "edges" not in fields:
        return None
    edge = getattr(get_named_type(fields["edges"].type), "fields", {})
    node = get_named_type(edge["node"].type) if "node" in edge else None
    return node if isinstance(node, GraphQLObjectType | GraphQLInterfaceType | GraphQLUnionType) else None


def type_ids(schema: GraphQLSchema, name: str) -> list[str]:
    found = counted_as(schema, name)
    node = node_type(schema, name)
    if isinstance(node, GraphQLObjectType):
        found += counted_as(schema, node.name)
    elif node is not None:
        found.append(node.name)
    return [f"Type.{one}" for one in found]


def where(
    reading: Reading,
    schema: GraphQLSchema,
    name: str,
    fields: Sequence[str],
    spots: tuple[Spot, ...],
    named: tuple[Spot, ...],
) -> tuple[Spot, ...]:
    """C3: where an object of this type is that these fields give out."""
    rules = reading.rules
    if any(one in rules.leaves for one in fields):
        return (NOWHERE,)
    if any(within_connection(schema, one) for one in fields):
        return spots
    node = node_type(schema, name)
    given = name if node is None else node.name
    if given not in rules.places or any(one in rules.stays for one in fields):
        return spots
    return named or (NOWHERE,)


def within_connection(schema: GraphQLSchema, field_name: str) -> bool:
    owner, _, name = field_name.partition(".")
    if owner not in schema.type_map:
        return False
    node = node_type(schema, owner)
    if isinstance(node, GraphQLObjectType):
        fields = schema.type_map[owner].fields  # type: ignore[union-attr]
        return name == "edges" or get_named_type(fields[name].type) is node
    for each in list(schema.type_map):
        inner = node_type(schema, each)
        if isinstance(inner, GraphQLObjectType) and name == "node":
            edges = schema.type_map[each].fields["edges"]  # type: ignore[union-attr]
            if get_named_type(edges.type).name == owner:
                return True
    return False


# Without a schema


def read_without_schema(reading: Reading, operation: OperationDefinitionNode, variables: Mapping[str, Any]) -> None:
    """Plain fields only: what fragments and directives mean is the executor's to show, which needs a schema."""
    word = operation.operation.value
    defaults = {
        one.variable.name.value: getattr(one.default_value, "value", None)
        for one in operation.variable_definitions or ()
    }
    values = defaults | dict(variables)
    below = [
        one.id
        for one in reading.catalog.operations.values()
        if one.kind is OperationKind.GRAPHQL and one.id.partition(".")[0] not in ROOTS.values()
    ]
    fields = {one.partition(".")[2] for one in below if not one.startswith("Type.")}
    for node in plain_fields(operation.selection_set):
        name = f"{ROOTS[word]}.{node.name.value}"
        arguments = {one.name.value: plain(one.value, values) for one in node.arguments or ()}
        introspects = node.name.value.startswith("__")
        spots = [CALLER] if introspects else reading.named([name], arguments, root=True) or [CALLER]
        if introspects or reading.listed(name):
            reading.add(name, spots, name)
        inside = [] if node.selection_set is None else plain_fields(node.selection_set)
        if introspects:
            continue
        if not inside or not below:
            if not reading.listed(name):
                reading.add(name, spots, name)
            continue
        payload = reading.mutation and reading.listed(name)
        if not payload or any(one.selection_set is not None or one.name.value in fields for one in inside):
            reading.add(name, spots, name, unknown_type=True)


def plain_fields(selections: SelectionSetNode) -> list[FieldNode]:
    found = []
    for one in selections.selections:
        conditions: Sequence[DirectiveNode] = one.directives or ()
        if not isinstance(one, FieldNode) or conditions:
            raise NotImplementedError("a case without a schema has plain fields only")
        found.append(one)
    return found


def plain(value: ast.ValueNode, variables: Mapping[str, Any]) -> Any:
    if isinstance(value, ast.VariableNode):
        return variables.get(value.name.value)
    if isinstance(value, ast.ObjectValueNode):
        return {one.name.value: plain(one.value, variables) for one in value.fields}
    if isinstance(value, ast.ListValueNode):
        return [plain(one, variables) for one in value.values]
    return getattr(value, "value", None)


# A6


def decide(
    rows: Rows, token: TokenId, request: Request, found: Sequence[Found], target: str | None, *, mutation: bool
) -> Decision:
    """All of it must be allowed."""
    answers = [naive.decide(rows, token, replace(request, ask=question(one, target, mutation))) for one in found]
    denials = [one for one in answers if not one.allowed]
    if not denials:
        told = [one.reason for one in answers]
        for reason in (Reason.GRANTED_PUBLIC_READ, Reason.GRANTED):
            if reason in told:
                return Decision(True, reason)
        return Decision(True, Reason.GRANTED_OPEN)
    order = list(Reason)
    first = min(denials, key=lambda one: order.index(one.reason))
    missing = []
    for one in denials:
        missing += [item for item in one.missing if item not in missing]
    return replace(first, missing=tuple(missing), hide=any(one.hide for one in denials))


def refuse(rows: Rows, token: TokenId, request: Request) -> Decision:
    """A document that cannot be read."""
    return naive.decide(rows, token, replace(request, ask=OperationRequest("", bad_document=True)))


def question(found: Found, target: str | None, mutation: bool) -> OperationRequest:
    what, value = found.spot
    at: Target | None = None
    given: str | None = None
    if what in ("self", "instance"):
        at = Target(TargetKind(what))
    elif what == "place":
        given = value
    elif what == "caller":
        given = target
    elif what != "nowhere":
        at = Target(TargetKind.PARAMETER, ("named",), ParameterKind(what))
    unlisted = Reason.SCHEMA_REQUIRED if found.unknown_type else Reason.OPERATION_UNKNOWN
    return OperationRequest(
        "" if found.unknown_type else found.operation,
        {"named": value},
        given,
        mutates=mutation,
        at=at,
        unlisted=unlisted,
        wide=True,
    )


def is_mutation(query: str, operation_name: str | None) -> bool:
    operation = get_operation_ast(parse(query), operation_name)
    return operation is not None and operation.operation.value == "mutation"
