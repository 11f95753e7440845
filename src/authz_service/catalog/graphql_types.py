"""What is known of an API's GraphQL types: what fields give out, and what arguments have that a document omits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any, Final

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
class Declared:
    """An argument, or a field of an input type: its type, without lists and `!`, and its default as plain Python.

    `default` None is no default, or null: neither of them names anything.
    """

    type: str
    default: Any = None


@dataclass(frozen=True, slots=True)
class ApiType:
    """One type. `fields` maps a field to the type it gives out, without lists and `!`.

    `within` are the interfaces of an object or interface; `members` the types of a union. `arguments` are those of an
    object's fields that a default may come from: their own, or one inside their input type.
    """

    kind: TypeKind
    fields: Mapping[str, str]
    within: tuple[str, ...] = ()
    members: tuple[str, ...] = ()
    arguments: Mapping[str, Mapping[str, Declared]] = field(default_factory=dict)


@dataclass(frozen=True)
class ApiSchema:
    """Every name that a field gives out is one of its types. `roots` maps `query`, `mutation`, `subscription` to types.

    `inputs` are the input types, and the fields of each, that a default may come from.
    """

    roots: Mapping[str, str]
    types: Mapping[str, ApiType]
    inputs: Mapping[str, Mapping[str, Declared]] = field(default_factory=dict)
    defaults_known: bool = True
    """False for what was stored before defaults were kept: then none counts."""

    def arguments(self, on: str, name: str) -> Mapping[str, Declared]:
        """Of this field as the type itself declares it, those that a default may come from."""
        return self.types[on].arguments.get(name, {})

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
