"""GraphQL documents, each parsed anew, read by a schema and decided, from facts in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from authz_service.cache.facts import Facts
from authz_service.catalog.graphql_documents import parse_document
from authz_service.catalog.graphql_reach import Reacher
from authz_service.catalog.graphql_schema import load_schema
from authz_service.catalog.model import Catalog, OperationKind
from authz_service.directory.model import NodeKind
from authz_service.engine.model import PermissionRequest, Request
from authz_service.pdp.documents import CallJudge
from authz_service.tokens.model import Token
from benchmarks.oracle import Ask

_READ = """\
query Read($path: ID!, $more: Boolean!) {{
  found: give{name}(fullPath: $path) {{ ...Plain history(first: 20) @include(if: $more) }}
}}
fragment Plain on {name} {{ id title state __typename }}"""
_WRITE = """\
mutation Write($path: ID!, $title: String) {{
  done: {name}(input: {{projectPath: $path, title: $title, labels: ["one", "two"]}}) {{ errors clientMutationId }}
}}"""


def operations_by_permission(catalog: Catalog) -> Mapping[str, str]:
    """For a permission at projects: a mutation or a type that needs it and nothing else."""
    found: dict[str, str] = {}
    for operation in catalog.operations.values():
        if operation.kind is not OperationKind.GRAPHQL or len(operation.sets) != 1:
            continue
        items = operation.sets[0].items
        if operation.id.startswith(("Mutation.", "Type.")) and [item.boundary for item in items] == [NodeKind.PROJECT]:
            found.setdefault(items[0].permission, operation.id)
    return found


def schema_of(operations: Sequence[str]) -> str:
    """Types and mutations of our own making around these operations."""
    types = [id_.partition(".")[2] for id_ in operations if id_.startswith("Type.")]
    mutations = [id_.partition(".")[2] for id_ in operations if id_.startswith("Mutation.")]
    fields = "id: ID title: String state: String history(first: Int): String"
    return "\n".join(
        [
            "type Query { version: String " + " ".join(f"give{name}(fullPath: ID): {name}" for name in types) + " }",
            "type Mutation { none: String " + " ".join(f"{name}(input: Place): Payload" for name in mutations) + " }",
            "input Place { projectPath: ID title: String labels: [String] }",
            "type Payload { errors: [String] clientMutationId: String }",
            *(f"type {name} {{ {fields} }}" for name in types),
        ]
    )


def make_documents(
    facts: Facts, tokens: Sequence[Token], asks: Sequence[Ask], now: datetime
) -> tuple[Callable[[int, str, Mapping[str, Any]], Any], Mapping[int, tuple[int, str, Mapping[str, Any]]]]:
    """A function, and by the number of a question what it is called with; questions without a document are left out."""
    [(name, version)] = tokens[0].catalogs.items()
    catalog = facts.catalog(name, version)
    if catalog is None:
        raise RuntimeError("the catalog of the workload is not there")
    operations = operations_by_permission(catalog)
    reacher = Reacher(catalog, load_schema(schema_of(sorted(set(operations.values())))))

    def decide(token: int, query: str, variables: Mapping[str, Any]) -> Any:
        parts = reacher.reach(parse_document(query), variables=variables)
        request = Request(name, PermissionRequest(""), now)
        return CallJudge(tokens[token], facts, request, catalog).judge([(0, part) for part in parts], None, {})

    calls = {}
    for number, ask in enumerate(asks):
        operation = operations.get(ask.permission)
        if operation is not None:
            kind, _, short = operation.partition(".")
            text = (_READ if kind == "Type" else _WRITE).format(name=short)
            calls[number] = (ask.token, text, {"path": ask.target, "more": False, "title": "a title"})
    return decide, calls
