"""A GraphQL schema of our own with every type, mutation and field of a published table, and roots that lead there."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FACTS: Final = Path(__file__).parents[1] / "facts"
TABLES: Final = {1: "gitlab_beta.csv", 2: "gitlab_graphql.csv"}
"""By the version of the shipped catalog that was made from it."""


@dataclass(frozen=True)
class Row:
    """A part of the API needs the permission at the boundary."""

    operation: str
    kind: str
    permission: str
    boundary: str

    @property
    def owner(self) -> str:
        return self.operation.partition(".")[0]

    @property
    def name(self) -> str:
        return self.operation.partition(".")[2]


def read_table(version: int) -> list[Row]:
    with (FACTS / TABLES[version]).open() as lines:
        return [Row(**row) for row in csv.DictReader(lines)]


def schema_for(rows: Iterable[Row]) -> str:
    """Each type is given out by a root field `give_Type(fullPath)`; a mutation takes a project's or group's path."""
    rows = list(rows)
    fields: dict[str, set[str]] = {}
    for row in rows:
        if row.kind == "type":
            fields.setdefault(row.name, set())
        elif row.kind == "field" and row.owner != "Query":
            fields.setdefault(row.owner, set()).add(row.name)
    types = [
        f"type {name} {{ id: ID! {' '.join(f'{field}: String' for field in sorted(inside))} }}"
        for name, inside in sorted(fields.items())
    ]
    roots = [f"give_{name}(fullPath: ID): {name}" for name in sorted(fields)]
    roots += [f"{row.name}(fullPath: ID): Boolean" for row in rows if row.owner == "Query"]
    mutations = sorted({row.name for row in rows if row.kind == "mutation"})
    taken = [f"{name}(input: PlaceInput!): MutationPayload" for name in mutations]
    return "\n".join(
        [
            f"type Query {{ {' '.join(sorted(set(roots)))} }}",
            f"type Mutation {{ {' '.join(taken)} }}",
            "input PlaceInput { projectPath: ID groupPath: ID }",
            "type MutationPayload { errors: [String!]! }",
            *types,
        ]
    )


def document_of(row: Row) -> str:
    """A document that reaches the row's part, at the place that `$project` or `$group` names."""
    if row.kind == "mutation":
        inside = f"{row.name}(input: {{projectPath: $project, groupPath: $group}}) {{ errors }}"
        return f"mutation Ask($project: ID, $group: ID, $path: ID) {{ {inside} }}"
    if row.owner == "Query":
        inside = f"{row.name}(fullPath: $path)"
    else:
        name, field = (row.name, "id") if row.kind == "type" else (row.owner, row.name)
        inside = f"give_{name}(fullPath: $path) {{ {field} }}"
    return f"query Ask($project: ID, $group: ID, $path: ID) {{ {inside} }}"


def variables_of(row: Row) -> dict[str, str]:
    match row.boundary:
        case "project":
            return {"project": "acme/web", "path": "acme/web"}
        case "group":
            return {"group": "acme", "path": "acme"}
    return {}
