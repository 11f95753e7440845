"""What an import changes: its lines applied in order to the rows they touch (rules D1 to D4). Pure.

A plan asks for the rows it lacks by what they are called; whoever runs it loads them and plans again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from msgspec import UNSET, UnsetType

from authz_service.directory.known import Known, Needs, Row
from authz_service.directory.lines import (
    DeleteLine,
    DeleteMembershipLine,
    Faults,
    Line,
    MembershipLine,
    MoveLine,
    PlaceLine,
    UserLine,
)
from authz_service.directory.model import MAX_GROUP_DEPTH, NodeKind, TargetText, UserState, Visibility
from authz_service.directory.overlay import FaultError, LackingError, Overlay


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be written. `rows` are (as stored, or None when new; as wanted) and differ; memberships may not.

    A new row may be deleted already: its id is never given again.

    `memberships` maps (user, node) to the role, or None for none; ids in it and in the rows may be negative.
    `names_lost` counts the nodes whose name went to another.
    """

    rows: Sequence[tuple[Row | None, Row]]
    memberships: Mapping[tuple[int, int], str | None]
    names_lost: int


def make_plan(lines: Sequence[Line], known: Known, *, source: str) -> Plan | Needs:
    """The plan, or what must be loaded into `known` before it can be made; `source` is that of lines without one.

    Raises InvalidInputError with the faults of all lines, once nothing is lacking.
    """
    planner = _Planner(known=known, source=source)
    for line in lines:
        try:
            planner.apply(line)
        except LackingError:
            continue
        except FaultError as fault:
            planner.faults.add(line.number, fault.code, fault.message)
    if planner.needs:
        return planner.needs
    planner.faults.raise_any()
    return planner.finish()


@dataclass(slots=True, kw_only=True)
class _Planner(Overlay):
    source: str
    faults: Faults = field(default_factory=Faults)
    memberships: dict[tuple[int, int], str | None] = field(default_factory=dict)
    names_lost: set[int] = field(default_factory=set)
    new_ids: int = 0

    def apply(self, line: Line) -> None:
        source = line.source or self.source
        match line:
            case UserLine():
                self._apply_user(line, source)
            case PlaceLine():
                self._apply_place(line, source)
            case MembershipLine():
                user, node = self.find(line.user, source), self.find(line.node, source)
                self.memberships[user, node] = line.role
            case DeleteMembershipLine():
                user, node = self.find(line.user, source), self.find(line.node, source)
                self.memberships[user, node] = None
            case DeleteLine():
                self._apply_delete(line, source)
            case MoveLine():
                self._apply_move(line, source)

    def finish(self) -> Plan:
        changed: list[tuple[Row | None, Row]] = []
        for row in self.rows.values():
            stored = self.known.rows.get(row.id)
            if stored is None:
                changed.append((None, row))
            elif not (row.same_node(stored) and row.same_account(stored)):
                changed.append((stored, row))
        alive = {
            pair: role
            for pair, role in self.memberships.items()
            if not any(one in self.rows and self.rows[one].deleted for one in pair)
        }
        lost = sum(1 for one in self.names_lost if one in self.rows and self.rows[one].name is None)
        return Plan(changed, alive, lost)

    # Users, groups and projects

    def _apply_user(self, line: UserLine, source: str) -> None:
        gone = line.state is UserState.DELETED
        row_id = self._match(source, NodeKind.USER, line.external_id, 0, line.username, may_be_gone=gone)
        if gone:
            if row_id is not None and not self.row(row_id).deleted:
                self._delete(row_id)
            return
        home = self.find(line.home, source) if isinstance(line.home, TargetText) else line.home
        linked = self._linked(line, row_id)
        row = self._new(source, NodeKind.USER, line.external_id) if row_id is None else self.edit(row_id)
        if row_id is None:
            row.visibility = Visibility.PUBLIC  # D1: a user counts as visible
        self._put(row, None, line.username)
        self._take_external_id(row, line.external_id)
        if line.namespace_id is not UNSET:
            self._take_namespace(row, line.namespace_id)
        if line.state is not UNSET:
            row.state = line.state
        for name in ("admin", "external", "service_account", "attributes"):
            said = getattr(line, name)
            if said is not UNSET:
                setattr(row, name, said)
        if home is not UNSET:
            row.home = home
        if row.home is not None and not row.service_account:
            if home is not UNSET:
                raise FaultError("invalid_home", f"`{line.username}` is no service account, and only those have a home")
            row.home = None
        if linked is not UNSET:
            row.same_as = linked

    def _linked(self, line: UserLine, row_id: int | None) -> int | UnsetType | None:
        if line.same_as is UNSET or line.same_as is None:
            return line.same_as
        linked = self.find(line.same_as.user, line.same_as.source)
        if linked == row_id:
            raise FaultError("invalid_link", f"`{line.username}` cannot be linked to itself")
        return linked

    def _apply_place(self, line: PlaceLine, source: str) -> None:
        *above, name = line.path.split("/")
        parent = self.walk(source, above)
        if above and parent is None:
            raise FaultError(
                "unknown_parent", f"there is no `{'/'.join(above)}` for `{line.path}` to lie in; put its line first"
            )
        row_id = self._match(source, line.kind, line.external_id, parent or 0, name)
        row = self._new(source, line.kind, line.external_id) if row_id is None else self.edit(row_id)
        self._put(row, parent, name)
        self._take_external_id(row, line.external_id)
        for field_name in ("visibility", "archived", "attributes"):
            said = getattr(line, field_name)
            if said is not UNSET:
                setattr(row, field_name, said)

    def _match(
        self, source: str, kind: NodeKind, external_id: str | None, parent: int, name: str, *, may_be_gone: bool = False
    ) -> int | None:
        """The stored node that a line means: by its external id; by name where either side has no external id (D2)."""
        if external_id is not None:
            found = self.by_external(source, kind, external_id)
            if found is not None:
                if self.row(found).deleted and not may_be_gone:
                    raise FaultError(
                        "deleted",
                        f"the {kind.value} with external id `{external_id}` was deleted, and that is for ever",
                    )
                return found
        holder_id = self.child(source, parent, name.lower())
        if holder_id is None:
            return None
        holder = self.row(holder_id)
        if holder.kind is not kind:
            return None
        # A node without an external id is its name: the first line that gives one tells which thing that was.
        return holder_id if external_id is None or holder.external_id is None else None

    def _new(self, source: str, kind: NodeKind, external_id: str | None) -> Row:
        self.new_ids += 1
        row = Row(-self.new_ids, source, kind, None, None, external_id=external_id)
        self.rows[row.id] = row
        return row

    def _take_external_id(self, row: Row, external_id: str | None) -> None:
        if external_id is None:
            return
        row.external_id = external_id
        self.externals[row.source, row.kind, external_id] = row.id
        if row.kind is NodeKind.GROUP:
            self._take_namespace(row, external_id)

    def _take_namespace(self, row: Row, namespace_id: str | None) -> None:
        if namespace_id == row.namespace_id:
            return
        if namespace_id is not None and self.by_namespace(row.source, namespace_id) not in {None, row.id}:
            raise FaultError(
                "namespace_id_taken",
                f"the namespace id `{namespace_id}` belongs to another; groups and users' namespaces share their ids",
            )
        if row.namespace_id is not None:
            self.namespaces[row.source, row.namespace_id] = None
        row.namespace_id = namespace_id
        if namespace_id is not None:
            self.namespaces[row.source, namespace_id] = row.id

    # Places and names

    def _put(self, row: Row, parent_id: int | None, name: str) -> None:
        """Give a row its parent and its name; another that holds the name loses it."""
        if row.name == name and row.parent == parent_id:
            return
        moves = row.parent != parent_id or row.name is None
        if moves and parent_id is not None:
            self._check_parent(row, parent_id)
        holder_id = self.child(row.source, parent_id or 0, name.lower())
        if holder_id is not None and holder_id != row.id:
            self._take_name(row, holder_id, name)
        if row.name is not None and self.names.get(row.name_key, row.id) == row.id:
            self.names[row.name_key] = None
        row.parent, row.name = parent_id, name
        self.names[row.name_key] = row.id
        if parent_id is not None:
            self.moved_in.setdefault(parent_id, set()).add(row.id)

    def _check_parent(self, row: Row, parent_id: int) -> None:
        parent = self.row(parent_id)
        allowed = {NodeKind.GROUP, NodeKind.USER} if row.kind is NodeKind.PROJECT else {NodeKind.GROUP}
        if parent.kind not in allowed:
            raise FaultError(
                "wrong_parent", f"a {row.kind.value} cannot lie in the {parent.kind.value} `{parent.name}`"
            )
        if row.kind is not NodeKind.GROUP:
            return
        depth, above = 1, parent
        while True:
            if above.id == row.id:
                raise FaultError("cycle", f"`{row.name}` cannot lie in itself")
            depth += 1
            if above.parent is None:
                break
            above = self.row(above.parent)
        if depth + (self._height(row) if row.id in self.known.rows or row.name else 0) > MAX_GROUP_DEPTH:
            raise FaultError("too_deep", f"groups nest at most {MAX_GROUP_DEPTH} deep")

    def _height(self, row: Row) -> int:
        """How many levels of groups lie below a group."""
        height, level = -1, [row.id]
        while level:
            height += 1
            level = [child for one in level for child in self.children(self.row(one), groups_only=True)]
        return height

    def _take_name(self, row: Row, holder_id: int, name: str) -> None:
        """Nobody inherits a name's tokens: the old holder keeps its id, and with it all that was given to it (D2)."""
        holder = self.edit(holder_id)
        if row.external_id is None:
            raise FaultError(
                "name_taken",
                f"`{name}` is another {holder.kind.value}; say the external id of the {row.kind.value} to take it",
            )
        holder.name = None
        self.names_lost.add(holder_id)

    def _apply_move(self, line: MoveLine, source: str) -> None:
        row_id = self.find(line.node, source)
        parent_id = None if line.to is None else self.find(line.to, source)
        row = self.row(row_id)
        if row.kind is NodeKind.USER:
            raise FaultError("wrong_parent", f"`{row.name}` is a user; only groups and projects can move")
        if parent_id is None and row.kind is NodeKind.PROJECT:
            raise FaultError("wrong_parent", "a project lies in a group or in a user's namespace, never at the top")
        if row.name is None or row.name.startswith("~"):
            raise FaultError("nameless", "what is to be moved has lost its name; send its own line with its new path")
        self._put(self.edit(row_id), parent_id, row.name)

    # Deletion

    def _apply_delete(self, line: DeleteLine, source: str) -> None:
        found = self.look(line.what, source)
        if line.what.external_id is not None and (found is None or self.row(found).deleted):
            return  # an id that is gone already, or never came: said twice, it is still true
        self._delete(self.find(line.what, source))

    def _delete(self, row_id: int) -> None:
        """A node and all below it, for ever (D2)."""
        waiting = [row_id]
        while waiting:
            row = self.row(waiting.pop())
            if row.kind is not NodeKind.PROJECT:
                waiting += self.children(row, groups_only=False)
            row = self.edit(row.id)
            row.deleted = True
            if row.kind is NodeKind.USER:
                row.state = UserState.DELETED
            if self.names.get(row.name_key, row.id) == row.id:
                self.names[row.name_key] = None
