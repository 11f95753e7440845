"""Which operations of a catalog a GraphQL document reaches, and at which places (rule C3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from graphql.language import ast

from authz_service.catalog.graphql_documents import (
    MAX_DEPTH,
    Document,
    DocumentFault,
    Variables,
    bad_document,
    read_variables,
)
from authz_service.catalog.graphql_places import VALUE, Named, Places, Spot, Spots
from authz_service.catalog.graphql_types import RESERVED, ROOT_PREFIXES, ROOTS, ApiSchema, TypeKind
from authz_service.catalog.model import Catalog, GraphqlRules, OperationKind, ParameterKind, Target, TargetKind
from authz_service.directory.model import NodeKind

MAX_STEPS: Final = 10_000
"""Fields looked at, each once for every type it may stand on."""
MAX_PARTS: Final = 500
"""Operations reached, each counted at each of its places."""


@dataclass(frozen=True, slots=True)
class Part:
    """One operation at one place. `at` is where in the document it is first reached, as `project.issues.nodes`.

    With `needs_schema`, no schema tells what lies below this field. `mutates` is that of the whole document.
    """

    operation: str
    spot: Spot
    at: str
    needs_schema: bool = False
    mutates: bool = False

    @property
    def target(self) -> Target | None:
        """In place of the caller's, for items whose target is the caller's; None where it is not a rule's to find."""
        match self.spot:
            case Named(names=ParameterKind() as names):
                return Target(TargetKind.PARAMETER, (VALUE,), names)
            case TargetKind.SELF | TargetKind.INSTANCE:
                return Target(self.spot)
        return None


@dataclass(slots=True)
class Budget:
    """What all documents of one request may take together."""

    steps: int = MAX_STEPS
    parts: int = MAX_PARTS


class Reacher:
    """What documents reach of one catalog version, by one schema of its API or by none. Make it once: it looks around.

    Nothing in it changes, so that any number of documents may be read at the same time.
    """

    def __init__(self, catalog: Catalog, schema: ApiSchema | None) -> None:
        listed = [each for each in catalog.operations.values() if each.kind is OperationKind.GRAPHQL]
        self.schema = schema
        self.rules = catalog.graphql or _NO_RULES
        self.kinds = {each.id: frozenset(item.boundary for one in each.sets for item in one.items) for each in listed}
        """Of each operation of documents: the boundaries of its items."""
        below = [each.id for each in listed if not each.id.startswith(ROOT_PREFIXES)]
        self.fields = frozenset(id_.partition(".")[2] for id_ in below if not id_.startswith(_TYPE_PREFIX))
        self.needs_schema = bool(below)

    def reach(
        self,
        document: Document,
        *,
        operation_name: str | None = None,
        variables: Mapping[str, Any] | None = None,
        target: str | None = None,
        budget: Budget | None = None,
    ) -> tuple[Part, ...]:
        """What the operation that is meant reaches, in the order of the document, each part once; never nothing.

        `target` is the caller's, and only its kind is looked at here. Raises BadDocumentError; the time is bounded by
        the budget, of which it takes its part, whatever fragments spread.
        """
        operation = document.operation(operation_name)
        walk = _Walk(self, document, read_variables(operation, variables or {}), operation, target, budget or Budget())
        walk.run()
        return tuple(walk.parts.values())


_TYPE_PREFIX: Final = f"{RESERVED}."
_INTROSPECTION: Final = frozenset({"__schema", "__type"})
_TYPENAME: Final = "__typename"
_INSTANCE: Final = frozenset({NodeKind.INSTANCE})
_USER: Final = frozenset({NodeKind.USER})
_USER_PREFIX: Final = f"{NodeKind.USER.value}:"
_NO_RULES: Final = GraphqlRules()


@dataclass(frozen=True, slots=True)
class _Way:
    """How a selection was come to: where that is, whether something of the catalog was reached, and the root field."""

    spots: Spots
    covered: bool
    root: str
    path: str
    depth: int


class _Walk:
    """One operation of one document, walked once."""

    def __init__(
        self,
        reacher: Reacher,
        document: Document,
        variables: Variables,
        operation: ast.OperationDefinitionNode,
        target: str | None,
        budget: Budget,
    ) -> None:
        self.parts: dict[tuple[str, Spot, bool], Part] = {}
        self._known = reacher
        self._places = Places(reacher.rules, reacher.schema, variables)
        self._schema = reacher.schema
        self._fragments = document.fragments
        self._variables = variables
        self._operation = operation
        self._word = operation.operation.value
        self._about_user = target is not None and target.startswith(_USER_PREFIX)
        self._budget = budget
        self._reached = False
        """Whether anything was, below the root field that is looked at."""

    def run(self) -> None:
        root = None if self._schema is None else self._schema.roots.get(self._word)
        nothing = True
        for node in self._fields(self._operation.selection_set.selections, root, 1):
            nothing = False
            self._root_field(node, root)
        if nothing:
            message = "the document selects nothing with these variables; send one that does"
            raise bad_document(DocumentFault.NOTHING_SELECTED, message)

    # selections

    def _step(self) -> None:
        self._budget.steps -= 1
        if self._budget.steps < 0:
            message = f"the document selects more than {MAX_STEPS} fields over all types; send it in parts"
            raise bad_document(DocumentFault.TOO_MANY_FIELDS, message)

    def _fields(
        self, selections: Sequence[ast.SelectionNode], on: str | None, depth: int, way: _Way | None = None
    ) -> Iterator[ast.FieldNode]:
        """The fields that count on an object of this type, fragments opened; `on` None is a type nobody knows."""
        if depth > MAX_DEPTH:
            message = f"selections are at most {MAX_DEPTH} within each other; send it in parts"
            raise bad_document(DocumentFault.TOO_DEEP, message)
        for one in selections:
            self._step()
            if not self._variables.includes(one):
                continue
            match one:
                case ast.FieldNode():
                    yield one
                case ast.InlineFragmentNode():
                    condition = None if one.type_condition is None else one.type_condition.name.value
                    if self._applies(condition, on, way):
                        yield from self._fields(one.selection_set.selections, on, depth + 1, way)
                case ast.FragmentSpreadNode():
                    fragment = self._fragments[one.name.value]
                    if self._applies(fragment.type_condition.name.value, on, way):
                        yield from self._fields(fragment.selection_set.selections, on, depth + 1, way)

    def _applies(self, condition: str | None, on: str | None, way: _Way | None) -> bool:
        """Whether a fragment's fields count on this type; where only a schema could tell, they may."""
        if condition is None or on is None or condition == on or self._schema is None:
            return True
        possible = self._schema.possible.get(condition)
        if possible is not None:
            return on in possible
        if way is not None:
            self._add(way.root, way.spots, way.path, needs_schema=True)
        return way is None

    # fields

    def _root_field(self, node: ast.FieldNode, root: str | None) -> None:
        name = node.name.value
        operation = f"{ROOTS[self._word]}.{name}"
        path = _key_of(node)
        listed = operation in self._known.kinds
        if name in _INTROSPECTION or name == _TYPENAME:
            self._add(operation, (TargetKind.CALLER,), path)
            return
        spots = self._places.named_by(node, root, operation, root=True) or (TargetKind.CALLER,)
        way = _Way(spots, listed, operation, path, 1)
        self._reached = False
        if listed:
            self._add(operation, spots, path)
        gives = None
        if self._schema is not None and root is not None:
            gives = self._schema.types[root].fields.get(name)
        if gives is None:
            self._unknown_root(node, way)
        else:
            self._given(node, gives, way, operation, named=spots)
        if not self._reached:
            self._add(operation, spots, path)

    def _unknown_root(self, node: ast.FieldNode, way: _Way) -> None:
        """A root field whose type nobody knows."""
        inside = node.selection_set
        if inside is None or not self._known.needs_schema:
            if not way.covered:
                self._add(way.root, way.spots, way.path)
            return
        payload = way.covered and self._operation.operation is ast.OperationType.MUTATION
        for field in self._fields(inside.selections, None, way.depth + 1, way):
            if not payload or field.selection_set is not None or field.name.value in self._known.fields:
                self._add(way.root, way.spots, f"{way.path}.{_key_of(field)}", needs_schema=True)
                return

    def _field(self, node: ast.FieldNode, on: str, way: _Way) -> None:
        schema = self._schema
        name = node.name.value
        if schema is None or name == _TYPENAME:
            self._leaf(way)
            return
        path = f"{way.path}.{_key_of(node)}"
        gives = schema.types[on].fields.get(name)
        if gives is None:
            self._add(way.root, way.spots, path, needs_schema=True)
            return
        owners = [owner for owner in schema.counts_as[on] if name in schema.types[owner].fields]
        named = self._places.named_by(node, on, *(f"{owner}.{name}" for owner in owners))
        spots = (*way.spots, *(spot for spot in named if spot not in way.spots))
        listed = [id_ for owner in owners if (id_ := f"{owner}.{name}") in self._known.kinds]
        for id_ in listed:
            self._add(id_, spots, path)
        inner = replace(way, spots=spots, covered=way.covered or bool(listed), path=path)
        self._given(node, gives, inner, *(f"{owner}.{name}" for owner in owners), named=named)

    def _given(self, node: ast.FieldNode, gives: str, way: _Way, *fields: str, named: Spots) -> None:
        """What a field gives out: a leaf, or objects of all types that it may."""
        schema = self._schema
        if schema is None or schema.types[gives].kind is TypeKind.LEAF or node.selection_set is None:
            self._leaf(way)
            return
        selections = node.selection_set.selections
        depth = way.depth + 1
        known = schema.types[gives].kind is TypeKind.OBJECT
        for on in schema.possible[gives]:
            inside = list(self._fields(selections, on, depth, way))
            if not inside and not known:
                continue
            inner = replace(way, spots=self._places.lies(on, way.spots, named, fields), depth=depth)
            listed = [id_ for name in self._names_of(on) if (id_ := f"Type.{name}") in self._known.kinds]
            for id_ in listed:
                self._add(id_, inner.spots, way.path)
            if listed and not inner.covered:
                inner = replace(inner, covered=True)
            for field in inside:
                self._field(field, on, inner)

    def _names_of(self, on: str) -> tuple[str, ...]:
        """What an object of this type counts as; of a connection, its nodes too."""
        if self._schema is None:
            return ()
        own = self._schema.counts_as[on]
        node = self._schema.nodes.get(on)
        return own if node is None else (*own, *self._schema.counts_as.get(node, (node,)))

    def _leaf(self, way: _Way) -> None:
        if not way.covered:
            self._add(way.root, way.spots, way.path)

    # what is reached

    def _add(self, operation: str, spots: Spots, path: str, *, needs_schema: bool = False) -> None:
        self._reached = True
        for spot in self._settled(operation, spots):
            key = (operation, spot, needs_schema)
            if key in self.parts:
                continue
            self._budget.parts -= 1
            if self._budget.parts < 0:
                message = f"the document reaches more than {MAX_PARTS} operations and places; send it in parts"
                raise bad_document(DocumentFault.TOO_MANY_FIELDS, message)
            mutation = self._operation.operation is ast.OperationType.MUTATION
            self.parts[key] = Part(operation, spot, path, needs_schema, mutation)

    def _settled(self, operation: str, spots: Spots) -> Spots:
        """What exists at the instance alone is there; what exists at users alone is at a named one or the owner."""
        kinds = self._known.kinds.get(operation)
        if kinds == _INSTANCE:
            return (TargetKind.INSTANCE,)
        if kinds == _USER:
            users = tuple(
                spot
                for spot in spots
                if (isinstance(spot, Named) and spot.names is ParameterKind.USER)
                or (spot is TargetKind.CALLER and self._about_user)
            )
            return users or (TargetKind.SELF,)
        return spots


def _key_of(node: ast.FieldNode) -> str:
    return (node.name if node.alias is None else node.alias).value
