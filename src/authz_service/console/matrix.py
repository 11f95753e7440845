"""The matrix of a catalog: resources by actions, folded by category, with what is chosen and what a search keeps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Final

from authz_service.catalog.model import Catalog, Permission
from authz_service.console.rendering import humanize
from authz_service.directory.model import NodeKind
from authz_service.tokens.model import ReachKind

_ORDER: Final = ("read", "create", "write", "update", "edit", "delete", "admin")
_COLUMNS: Final = 4
_ENOUGH: Final = 0.08
"""An action that this part of all permissions has gets a column of its own."""

BOUNDARIES: Final = {
    ReachKind.SELECTED: frozenset({NodeKind.PROJECT, NodeKind.GROUP}),
    ReachKind.ALL_MEMBERSHIPS: frozenset({NodeKind.PROJECT, NodeKind.GROUP}),
    ReachKind.PERSONAL_PROJECTS: frozenset({NodeKind.PROJECT}),
    ReachKind.USER: frozenset({NodeKind.USER}),
    ReachKind.INSTANCE: frozenset({NodeKind.INSTANCE}),
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One permission; `text` is shown where the column does not say its action."""

    name: str
    text: str
    chosen: bool


@dataclass(slots=True)
class Row:
    """One resource: a cell for each column, None where it has no such action, and the rest."""

    resource: str
    label: str
    cells: list[Cell | None]
    more: list[Cell] = field(default_factory=list)


@dataclass(slots=True)
class Category:
    """A part of the matrix; open while something in it is chosen or searched for."""

    name: str
    label: str
    rows: list[Row]
    chosen: int
    open: bool


@dataclass(frozen=True, slots=True)
class Matrix:
    """`hidden` are permissions that are chosen and not shown: they are carried along."""

    columns: Sequence[str]
    categories: Sequence[Category]
    shown: int
    hidden: Sequence[str]


def boundaries_of(reach: ReachKind, nodes: Collection[str]) -> frozenset[NodeKind]:
    """Boundaries that a scope can cover: nobody needs to look at permissions of a group who chose a project."""
    if reach is not ReachKind.SELECTED or not nodes:
        return BOUNDARIES[reach]
    if any(node.startswith("group:") for node in nodes):
        return BOUNDARIES[reach]
    return frozenset({NodeKind.PROJECT})


def make_matrix(catalog: Catalog, boundaries: frozenset[NodeKind], chosen: Collection[str], search: str = "") -> Matrix:
    """Permissions that exist at one of the boundaries and hold the search's words; deprecated ones where chosen."""
    words = search.lower().replace(":", " ").replace("_", " ").split()
    picked = set(chosen)
    fitting = [
        one
        for one in catalog.permissions
        if not boundaries.isdisjoint(one.boundaries) and (not one.deprecated or one.name in picked)
    ]
    columns = _columns(fitting)
    found = [one for one in fitting if all(word in _haystack(one) for word in words)]
    grouped: dict[str, dict[str, Row]] = {}
    for one in found:
        rows = grouped.setdefault(one.category, {})
        row = rows.setdefault(one.resource, Row(one.resource, humanize(one.resource), [None] * len(columns)))
        cell = Cell(one.name, humanize(one.action), one.name in picked)
        if one.action in columns:
            row.cells[columns.index(one.action)] = cell
        else:
            row.more.append(cell)
    categories = []
    for name, by_resource in sorted(grouped.items()):
        rows_of = sorted(by_resource.values(), key=lambda row: row.label)
        count = sum(cell.chosen for row in rows_of for cell in [*row.more, *(one for one in row.cells if one)])
        categories.append(Category(name, humanize(name) or "Permissions", rows_of, count, bool(count or words)))
    categories.sort(key=lambda category: not category.chosen)  # what was chosen comes first
    if len(categories) == 1:
        categories[0].open = True
    shown = {one.name for one in found}
    return Matrix(columns, categories, len(found), [name for name in chosen if name not in shown])


def _columns(permissions: Sequence[Permission]) -> list[str]:
    counts = Counter(one.action for one in permissions)
    often = [name for name, count in counts.most_common(_COLUMNS) if count >= _ENOUGH * len(permissions)]
    return sorted(often, key=lambda name: (_ORDER.index(name) if name in _ORDER else len(_ORDER), name))


def _haystack(permission: Permission) -> str:
    text = f"{permission.name} {permission.category} {permission.description}"
    return text.lower().replace(":", " ").replace("_", " ")
