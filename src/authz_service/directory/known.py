"""The part of a directory that an import touches: rows as they are stored, and what of them is asked for next. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TypeAlias

from authz_service.directory.model import Attributes, NodeKind, UserState, Visibility

NameKey: TypeAlias = tuple[str, int, str]
"""(source, parent's id or 0 for the top, name in lower case)."""
ExternalKey: TypeAlias = tuple[str, NodeKind, str]
NamespaceKey: TypeAlias = tuple[str, str]


@dataclass(slots=True)
class Row:
    """A node, and a user's account, as one row that a plan may change. A negative id is not stored yet.

    `name` None means that the node has lost its name to another. The account's fields mean nothing on other kinds.
    """

    id: int
    source: str
    kind: NodeKind
    parent: int | None
    name: str | None
    external_id: str | None = None
    namespace_id: str | None = None
    visibility: Visibility = Visibility.PRIVATE
    archived: bool = False
    attributes: Attributes = field(default_factory=dict)
    deleted: bool = False
    state: UserState = UserState.ACTIVE
    admin: bool = False
    external: bool = False
    service_account: bool = False
    home: int | None = None
    same_as: int | None = None

    def copy(self) -> Row:
        return replace(self)

    @property
    def name_key(self) -> NameKey:
        return (self.source, self.parent or 0, (self.name or "").lower())

    def same_node(self, other: Row) -> bool:
        """Whether all but the account is the same."""
        return (
            self.parent == other.parent
            and self.name == other.name
            and self.external_id == other.external_id
            and self.namespace_id == other.namespace_id
            and self.visibility == other.visibility
            and self.archived == other.archived
            and self.deleted == other.deleted
            and self.attributes == other.attributes
        )

    def same_account(self, other: Row) -> bool:
        """Whether the account is the same."""
        return (
            self.state == other.state
            and self.admin == other.admin
            and self.external == other.external
            and self.service_account == other.service_account
            and self.home == other.home
            and self.same_as == other.same_as
        )


@dataclass(slots=True)
class Needs:
    """What a plan asked for and nobody had loaded."""

    names: set[NameKey] = field(default_factory=set)
    externals: set[ExternalKey] = field(default_factory=set)
    namespaces: set[NamespaceKey] = field(default_factory=set)
    rows: set[int] = field(default_factory=set)
    groups_below: set[int] = field(default_factory=set)
    all_below: set[int] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.names or self.externals or self.namespaces or self.rows or self.groups_below or self.all_below)


@dataclass(slots=True)
class Known:
    """What is loaded. In the three maps None means: looked for, and not there; a missing key, not looked for.

    `externals` and `namespaces` hold deleted nodes too, for their ids are never given again (D2); `names` do not.
    """

    rows: dict[int, Row] = field(default_factory=dict)
    names: dict[NameKey, int | None] = field(default_factory=dict)
    externals: dict[ExternalKey, int | None] = field(default_factory=dict)
    namespaces: dict[NamespaceKey, int | None] = field(default_factory=dict)
    children: dict[int, set[int]] = field(default_factory=dict)
    """All loaded children; complete for the nodes in `with_groups` (groups alone) and `with_all`."""
    with_groups: set[int] = field(default_factory=set)
    with_all: set[int] = field(default_factory=set)
    complete: bool = False
    """Whether all there is has been loaded: then a missing key is not there either."""

    def add(self, row: Row) -> None:
        """Take a stored row in, under its name and its ids."""
        self.rows[row.id] = row
        if row.external_id is not None:
            self.externals[row.source, row.kind, row.external_id] = row.id
        if row.namespace_id is not None:
            self.namespaces[row.source, row.namespace_id] = row.id
        if not row.deleted:
            self.names[row.name_key] = row.id
            if row.parent is not None:
                self.children.setdefault(row.parent, set()).add(row.id)

    def note_absent(self, needs: Needs) -> None:
        """After a load of `needs`: what did not come is not there."""
        for name in needs.names:
            self.names.setdefault(name, None)
        for external in needs.externals:
            self.externals.setdefault(external, None)
        for namespace in needs.namespaces:
            self.namespaces.setdefault(namespace, None)
        self.with_groups |= needs.groups_below | needs.all_below
        self.with_all |= needs.all_below
