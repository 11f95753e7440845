"""A GraphQL schema while it is put together from its definitions: what is wrong with it, and what of it is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from authz_service.catalog.faults import CatalogFault, Faults
from authz_service.catalog.graphql_types import RESERVED, ROOTS, SCALARS, ApiSchema, ApiType, Declared, TypeKind

MAX_TYPES: Final = 50_000
MAX_FIELDS: Final = 500_000
"""Fields of all types, those of input types and arguments included."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where an argument, or a field of an input type, stands: `owner` is `Query.project`, or the input type."""

    owner: str
    name: str
    line: int = 1


class SchemaDraft:
    """Types while they are put together; a definition and its extensions end in one."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.roots: dict[str, str] = {}
        self._kinds: dict[str, tuple[TypeKind, int]] = {}
        self._fields: dict[str, dict[str, tuple[str, int]]] = {}
        self._within: dict[str, dict[str, int]] = {}
        self._members: dict[str, dict[str, int]] = {}
        self._arguments: dict[str, dict[str, tuple[Declared, int]]] = {}
        """By the field, as `Query.project`."""
        self._inputs: dict[str, dict[str, tuple[Declared, int]]] = {}

    def add_type(self, name: str, kind: TypeKind, line: int, *, extends: bool = False) -> None:
        if name.startswith("__"):
            return
        if (name in self._kinds and not extends and name not in SCALARS) or name in self._inputs:
            self.faults.add(line, CatalogFault.DUPLICATE_KEY, f"the type `{name}` is defined twice; keep one")
        if name == RESERVED:
            self.faults.add(line, CatalogFault.BAD_NAME, f"no type may be called `{RESERVED}` here; rename it")
        if not extends or name not in self._kinds:
            self._kinds[name] = (kind, line)

    def add_input(self, name: str, line: int, *, extends: bool = False) -> None:
        if name in self._kinds or (name in self._inputs and not extends):
            self.faults.add(line, CatalogFault.DUPLICATE_KEY, f"the type `{name}` is defined twice; keep one")
        self._inputs.setdefault(name, {})

    def add_field(self, owner: str, name: str, gives: str, line: int) -> None:
        fields = self._fields.setdefault(owner, {})
        if fields.setdefault(name, (gives, line)) != (gives, line):
            self.faults.add(line, CatalogFault.DUPLICATE_KEY, f"`{owner}.{name}` is defined twice; keep one")

    def add_argument(self, source: Source, declared: Declared) -> None:
        self._declare(self._arguments.setdefault(source.owner, {}), source, declared)

    def add_input_field(self, source: Source, declared: Declared) -> None:
        self._declare(self._inputs[source.owner], source, declared)

    def _declare(self, among: dict[str, tuple[Declared, int]], source: Source, declared: Declared) -> None:
        if among.setdefault(source.name, (declared, source.line)) != (declared, source.line):
            message = f"`{source.name}` of `{source.owner}` is defined twice; keep one"
            self.faults.add(source.line, CatalogFault.DUPLICATE_KEY, message)

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
        fields = sum(sum(map(len, each.values())) for each in (self._fields, self._arguments, self._inputs))
        if len(self._kinds) + len(self._inputs) > MAX_TYPES or fields > MAX_FIELDS:
            message = f"a schema has at most {MAX_TYPES} types and {MAX_FIELDS} fields and arguments"
            self.faults.add(1, CatalogFault.TOO_LARGE, message)
        for word, name in roots.items():
            self._check(name, 1, {TypeKind.OBJECT}, f"the {word} type")
        for among in (self._arguments, self._inputs):
            for owner, each in among.items():
                self._check_declared(owner, each)
        bearing = self._bearing()
        types = {name: self._type(name, kind, bearing) for name, (kind, _) in self._kinds.items()}
        return ApiSchema(roots, types, self._kept_inputs(types, bearing))

    def _type(self, name: str, kind: TypeKind, bearing: frozenset[str]) -> ApiType:
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
        gives_out = {field: gives for field, (gives, _) in fields.items()}
        arguments = {}
        if kind is TypeKind.OBJECT:  # an object's own declaration counts, whatever its interfaces say
            found = {field: _kept(self._arguments.get(f"{name}.{field}", {}), bearing) for field in fields}
            arguments = {field: each for field, each in found.items() if each}
        return ApiType(kind, gives_out, tuple(within), tuple(members), arguments)

    def _check(self, name: str, line: int, kinds: set[TypeKind], what: str) -> None:
        found = self._kinds.get(name)
        if found is None:
            message = f"{what}, `{name}`, is no type of this schema; define it"
            self.faults.add(line, CatalogFault.UNKNOWN_TYPE, message)
        elif found[0] not in kinds:
            self.faults.add(line, CatalogFault.UNKNOWN_TYPE, f"{what}, `{name}`, cannot be of kind {found[0]}")

    def _check_declared(self, owner: str, declared: Mapping[str, tuple[Declared, int]]) -> None:
        for name, (each, line) in declared.items():
            if each.type not in self._inputs:
                self._check(each.type, line, {TypeKind.LEAF}, f"what `{name}` of `{owner}` takes")

    # what is kept

    def _bearing(self) -> frozenset[str]:
        """Input types with a default in them, at whatever depth."""
        holders: dict[str, list[str]] = {}
        for name, fields in self._inputs.items():
            for each, _ in fields.values():
                holders.setdefault(each.type, []).append(name)
        waiting = [
            name
            for name, fields in self._inputs.items()
            if any(each.default is not None for each, _ in fields.values())
        ]
        found = set(waiting)
        while waiting:
            for name in holders.get(waiting.pop(), ()):
                if name not in found:
                    found.add(name)
                    waiting.append(name)
        return frozenset(found)

    def _kept_inputs(
        self, types: Mapping[str, ApiType], bearing: frozenset[str]
    ) -> Mapping[str, Mapping[str, Declared]]:
        """Those that an argument leads to and that a default may come from."""
        fields = (each for one in types.values() for each in one.arguments.values())
        waiting = [declared.type for each in fields for declared in each.values()]
        found: dict[str, Mapping[str, Declared]] = {}
        while waiting:
            name = waiting.pop()
            if name in bearing and name not in found:
                found[name] = _kept(self._inputs[name], bearing)
                waiting += [declared.type for declared in found[name].values()]
        return found


def _kept(declared: Mapping[str, tuple[Declared, int]], bearing: frozenset[str]) -> Mapping[str, Declared]:
    return {name: each for name, (each, _) in declared.items() if each.default is not None or each.type in bearing}
