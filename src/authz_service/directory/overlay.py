"""An import's own changes over what is known: later lines see what earlier ones did. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from authz_service.directory.known import ExternalKey, Known, NameKey, NamespaceKey, Needs, Row
from authz_service.directory.model import NodeKind, TargetText


class LackingError(Exception):
    """A row that a line needs is not loaded; it is in the needs now."""


class FaultError(Exception):
    """A line cannot be applied."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(slots=True)
class Overlay:
    """Looks up in what this import changed, then in what is known; raises LackingError where neither says.

    What is known stays as it is, for the next try.
    """

    known: Known
    needs: Needs = field(default_factory=Needs)
    rows: dict[int, Row] = field(default_factory=dict)
    names: dict[NameKey, int | None] = field(default_factory=dict)
    externals: dict[ExternalKey, int] = field(default_factory=dict)
    namespaces: dict[NamespaceKey, int | None] = field(default_factory=dict)
    moved_in: dict[int, set[int]] = field(default_factory=dict)

    def row(self, row_id: int) -> Row:
        row = self.rows.get(row_id) or self.known.rows.get(row_id)
        if row is None:
            self.needs.rows.add(row_id)
            raise LackingError
        return row

    def edit(self, row_id: int) -> Row:
        row = self.rows.get(row_id)
        if row is None:
            row = self.rows[row_id] = self.row(row_id).copy()
        return row

    def child(self, source: str, parent: int, key: str) -> int | None:
        name: NameKey = (source, parent, key)
        if name in self.names:
            return self.names[name]
        if parent < 0:  # a new node has no children but those of this import
            return None
        if name not in self.known.names and not self.known.complete:
            self.needs.names.add(name)
            raise LackingError
        return self.known.names.get(name)

    def by_external(self, source: str, kind: NodeKind, external_id: str) -> int | None:
        key: ExternalKey = (source, kind, external_id)
        if key in self.externals:
            return self.externals[key]
        if key not in self.known.externals and not self.known.complete:
            self.needs.externals.add(key)
            raise LackingError
        return self.known.externals.get(key)

    def by_namespace(self, source: str, namespace_id: str) -> int | None:
        key: NamespaceKey = (source, namespace_id)
        if key in self.namespaces:
            return self.namespaces[key]
        if key not in self.known.namespaces and not self.known.complete:
            self.needs.namespaces.add(key)
            raise LackingError
        return self.known.namespaces.get(key)

    def walk(self, source: str, names: Iterable[str]) -> int | None:
        found: int | None = None
        for name in names:
            found = self.child(source, found or 0, name.lower())
            if found is None:
                return None
        return found

    def look(self, target: TargetText, source: str) -> int | None:
        """The live or deleted node that a text names."""
        if target.external_id is not None and target.kind is not None:
            return self.by_external(source, target.kind, target.external_id)
        found = self.walk(source, (target.path or "").split("/"))
        if found is not None and target.kind not in {None, self.row(found).kind}:
            return None
        return found

    def find(self, target: TargetText, source: str) -> int:
        """Like `_look`, and a fault when there is none alive."""
        found = self.look(target, source)
        if found is None or self.row(found).deleted:
            shown, what = target.path or target.external_id, target.kind.value if target.kind else "place"
            raise FaultError(
                "unknown_" + what, f"there is no {what} `{shown}`; put its line before this one, or correct it"
            )
        return found

    def children(self, row: Row, *, groups_only: bool) -> list[int]:
        complete = self.known.with_groups if groups_only else self.known.with_all
        if row.id > 0 and row.id not in complete and not self.known.complete:
            (self.needs.groups_below if groups_only else self.needs.all_below).add(row.id)
            raise LackingError
        near = self.known.children.get(row.id, set()) | self.moved_in.get(row.id, set())
        found = []
        for child_id in sorted(near):
            child = self.row(child_id)
            if child.parent == row.id and not child.deleted and not (groups_only and child.kind is not NodeKind.GROUP):
                found.append(child_id)
        return found
