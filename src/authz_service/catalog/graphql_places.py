"""Where the fields of a GraphQL document are: by arguments, written or left to their defaults, and the catalog (C3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from graphql.language import ast

from authz_service.catalog.graphql_documents import ABSENT, Variables
from authz_service.catalog.graphql_types import ApiSchema, Declared
from authz_service.catalog.model import ArgumentKind, FieldPlace, GraphqlRules, ParameterKind, TargetKind
from authz_service.directory.model import NodeKind, is_path

VALUE: Final = "$value"
"""The parameter of a `Named` place: no path parameter can be called so."""


@dataclass(frozen=True, slots=True)
class Named:
    """A place that a value names; with `names` None it is whatever lies at a path."""

    names: ParameterKind | None
    value: str


Spot: TypeAlias = Named | TargetKind | None
"""A place, or SELF, INSTANCE or CALLER; None is nowhere known."""
Spots: TypeAlias = tuple[Spot, ...]


@dataclass(frozen=True, slots=True)
class Places:
    """Places by a catalog's rules, for one operation with the values of its variables."""

    rules: GraphqlRules
    schema: ApiSchema | None
    variables: Variables

    def lies(self, on: str, spots: Spots, named: Spots, fields: Sequence[str]) -> Spots:
        """Where objects of this type are that these fields give out."""
        if any(field in self.rules.leaves for field in fields):
            return (None,)
        schema = self.schema
        if schema is not None and any(field in schema.inside_connections for field in fields):
            return spots
        given = on if schema is None else schema.nodes.get(on, on)
        if given not in self.rules.places or any(field in self.rules.stays for field in fields):
            return spots
        return named or (None,)

    def named_by(self, node: ast.FieldNode, on: str | None, *fields: str, root: bool = False) -> Spots:
        """The places that a field's own arguments name, or that the catalog says of it; each once.

        `on` is the object's own type, which says what an omitted argument is; None is a type nobody knows.
        """
        rules = self.rules
        schema = self.schema
        declared = {} if schema is None or on is None else schema.arguments(on, node.name.value)
        given = next((rules.fields[field] for field in fields if field in rules.fields), None)
        if given is None:
            if not node.arguments and not declared:
                return ()
            heads = {argument.name.value for argument in node.arguments or ()} | declared.keys()
            given = tuple(
                FieldPlace(names=kind, argument=path)
                for path, kind in rules.arguments.items()
                if path.partition(".")[0] in heads
            )
        found: dict[Spot, None] = {}
        for place in given:
            if place.word is not None:
                found[place.word] = None
            elif place.names is not None:
                for value in self._values(node, declared, place.argument):
                    spot = self._spot(place.names, value)
                    if spot is not TargetKind.CALLER or root:
                        found[spot] = None
        return tuple(found)

    def _values(self, node: ast.FieldNode, declared: Mapping[str, Declared], path: str) -> Iterator[Any]:
        """Every value at `input.projectPath`; lists on the way are gone into."""
        head, *rest = path.split(".")
        argument = next((one for one in node.arguments or () if one.name.value == head), None)
        value = ABSENT if argument is None else self.variables.read(argument.value)
        yield from self._inside(value, declared.get(head), rest)

    def _inside(self, value: object, declared: Declared | None, path: Sequence[str]) -> Iterator[Any]:
        """What lies at a path within a value, defaults put in where it is absent; nothing where it is null."""
        inputs = {} if self.schema is None else self.schema.inputs
        waiting: list[tuple[object, Declared | None, Sequence[str]]] = [(value, declared, path)]
        while waiting:
            inner, declared, rest = waiting.pop(0)
            if inner is ABSENT and declared is not None:
                inner = declared.default
            if inner is None or inner is ABSENT:
                continue
            if isinstance(inner, list):  # an absent element is null, and takes no default
                waiting[:0] = [(one, declared, rest) for one in inner if one is not ABSENT]
            elif not rest:
                yield inner
            elif isinstance(inner, Mapping):
                fields = {} if declared is None else inputs.get(declared.type, {})
                waiting.insert(0, (inner.get(rest[0], ABSENT), fields.get(rest[0]), rest[1:]))

    def _spot(self, names: ArgumentKind, value: object) -> Spot:
        text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
        for prefix, kind in self.rules.global_ids.items():
            if text.startswith(prefix):
                return Named(kind, _digits(text.removeprefix(prefix)))
        if names is ArgumentKind.ID:
            return TargetKind.CALLER
        if names is ArgumentKind.PLACE:
            return Named(None, text if is_path(text) and text != NodeKind.INSTANCE.value else "")
        return Named(ParameterKind(names.value), text)


def _digits(text: str) -> str:
    """The id of a global id; a text that is none names nothing."""
    return text if text.isascii() and text.isdigit() else ""
