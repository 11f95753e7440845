"""Writes to the directory: an import is whole or nothing, and one revision."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.directory.known import Row
from authz_service.directory.lines import Line
from authz_service.directory.model import DEFAULT_SOURCE, NodeKind
from authz_service.directory.plan import Plan, make_plan
from authz_service.store.changes import ChangeKind, ChangeSet, Stamp, append, current
from authz_service.store.directory import hold_for_import
from authz_service.store.directory_rows import BATCH, load_everything, load_first, load_needs
from authz_service.store.grandfathering import grandfather_moves
from authz_service.store.tokens import revoke_of_users
from authz_service.tokens.model import TokenId

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Moved:
    """A group or project that changed its parent (None: the top)."""

    node: int
    parent_before: int | None
    parent: int | None


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What an import did. `revoked` are the tokens of the users that it deleted.

    `counts` has only what is not zero: `users_created`, `groups_changed`, `projects_deleted`, `memberships_created`, …,
    `names_lost`, `tokens_revoked`.
    """

    counts: Mapping[str, int]
    stamp: Stamp
    moved: tuple[Moved, ...] = ()
    revoked: tuple[TokenId, ...] = ()


_PATIENCE: Final = 8
"""How often a plan may ask for more before everything is loaded: each level of renamed groups takes one."""


async def apply_import(
    conn: AsyncConnection,
    lines: Sequence[Line],
    *,
    source: str = DEFAULT_SOURCE,
    changes: ChangeSet | None = None,
    grandfather: bool = True,
) -> ImportResult:
    """Apply the lines in their order, in the caller's transaction; `source` is that of lines without one.

    Raises InvalidInputError that names every fault by its line; then nothing is written. The caller commits. Without
    `changes` the import takes its revision itself, and must be the last of the transaction but for the audit row; with
    it the caller appends, and `stamp` is the revision before. An import that changes nothing takes none. Places that
    move under another group that requires approval keep what was in force there (P4), unless `grandfather` is off.
    """
    await hold_for_import(conn)
    known = await load_first(conn, lines, source)
    plan = await asyncio.to_thread(make_plan, lines, known, source=source)  # seconds for a large import
    tries = 0
    while not isinstance(plan, Plan):
        tries += 1
        if tries > _PATIENCE:
            known = await load_everything(conn)
        else:
            await load_needs(conn, known, plan)
        plan = await asyncio.to_thread(make_plan, lines, known, source=source)
    touched = ChangeSet() if changes is None else changes
    writer = _Writer(conn, plan, touched)
    await writer.write()
    if grandfather:
        writer.counts["grants_carried_over"] += await grandfather_moves(
            conn, touched, {one.node: one.parent_before for one in writer.moved}
        )
    stamp = await (append(conn, touched) if changes is None else current(conn))
    return ImportResult(
        counts={name: many for name, many in sorted(writer.counts.items()) if many},
        stamp=stamp,
        moved=tuple(writer.moved),
        revoked=writer.revoked,
    )


_NEW_IDS: Final = text(
    "select nextval(pg_get_serial_sequence('node', 'id')) from generate_series(1, cast(:many as integer))"
)
_DELETE: Final = text("update node set deleted_at = authz_now() where id = any(cast(:ids as bigint[]))")
# No index may see two holders of a name between two rows of one statement: whoever changes theirs lets go of it first.
_LET_GO: Final = text(
    "update node set name = '~' || id, name_key = '~' || id, "
    "namespace_id = case when kind = 'group' then namespace_id end where id = any(cast(:ids as bigint[]))"
)
_NODES: Final = """
    unnest(cast(:id as bigint[]), cast(:parent_id as bigint[]), cast(:name as text[]), cast(:external_id as text[]),
           cast(:namespace_id as text[]), cast(:visibility as smallint[]), cast(:archived as boolean[]),
           cast(:attributes as text[]), cast(:source as text[]), cast(:kind as text[]), cast(:deleted as boolean[]))
    as w(id, parent_id, name, external_id, namespace_id, visibility, archived, attributes, source, kind, deleted)
"""
_PAIRS: Final = "unnest(cast(:users as bigint[]), cast(:nodes as bigint[])"


def _statement(written: str) -> TextClause:
    return text(written.replace("<nodes>", _NODES).replace("<pairs>", _PAIRS))


_INSERT_NODES: Final = _statement("""
    insert into node (id, source, kind, parent_id, name, name_key, external_id, namespace_id, visibility, archived,
                      attributes, deleted_at)
    select id, source, kind, parent_id, name, lower(name), external_id, namespace_id, visibility, archived,
           cast(attributes as jsonb), case when deleted then authz_now() end
    from <nodes>
""")
_UPDATE_NODES: Final = _statement("""
    update node set parent_id = w.parent_id, name = w.name, name_key = lower(w.name), external_id = w.external_id,
                    namespace_id = w.namespace_id, visibility = w.visibility, archived = w.archived,
                    attributes = cast(w.attributes as jsonb)
    from <nodes> where node.id = w.id
""")
_WRITE_ACCOUNTS: Final = text("""
    insert into account (node_id, state, admin, external, service_account, home_id, same_as)
    select * from unnest(cast(:id as bigint[]), cast(:state as text[]), cast(:admin as boolean[]),
                         cast(:external as boolean[]), cast(:service_account as boolean[]),
                         cast(:home as bigint[]), cast(:same_as as bigint[]))
    on conflict (node_id) do update set
        state = excluded.state, admin = excluded.admin, external = excluded.external,
        service_account = excluded.service_account, home_id = excluded.home_id, same_as = excluded.same_as
""")
# Only what differs is written and comes back; `xmax` is 0 in a row that was not there before.
_WRITE_MEMBERSHIPS: Final = _statement("""
    insert into membership (user_id, node_id, role) select * from <pairs>, cast(:roles as text[]))
    on conflict (user_id, node_id) do update set role = excluded.role where membership.role <> excluded.role
    returning user_id, xmax = 0 as created
""")
_DELETE_MEMBERSHIPS: Final = _statement("""
    delete from membership m using <pairs>) as w(user_id, node_id)
    where m.user_id = w.user_id and m.node_id = w.node_id returning m.user_id
""")
_DELETE_MEMBERSHIPS_OF: Final = (
    text("delete from membership where user_id = any(cast(:ids as bigint[])) returning user_id"),
    text("delete from membership where node_id = any(cast(:ids as bigint[])) returning user_id"),
)


class _Writer:
    """Writes a plan in statements of many rows, and notes what each of them touched."""

    def __init__(self, conn: AsyncConnection, plan: Plan, changes: ChangeSet) -> None:
        self._conn = conn
        self._plan = plan
        self._changes = changes
        self._ids: dict[int, int] = {}
        self.counts: Counter[str] = Counter(names_lost=plan.names_lost)
        self.moved: list[Moved] = []
        self.revoked: tuple[TokenId, ...] = ()

    async def write(self) -> None:
        """The order keeps every constraint true after each statement."""
        await self._give_ids()
        new = [row for stored, row in self._plan.rows if stored is None]
        edited = [(stored, row) for stored, row in self._plan.rows if stored is not None and _edits(stored, row)]
        gone = [row.id for stored, row in self._plan.rows if stored is not None and row.deleted]
        await self._run(_DELETE, gone)
        await self._run(_LET_GO, [row.id for stored, row in edited if _lets_go(stored, row)])
        for batch in _batches(new):
            await self._conn.execute(_INSERT_NODES, self._node_arrays(batch))
        for batch in _batches([row for _, row in edited]):
            await self._conn.execute(_UPDATE_NODES, self._node_arrays(batch))
        users = [row for stored, row in self._plan.rows if _account_differs(stored, row)]
        for batch in _batches(users):
            await self._conn.execute(_WRITE_ACCOUNTS, self._account_arrays(batch))
        self._note_rows()
        await self._write_memberships(gone)
        deleted_users = [row.id for row in users if row.deleted and row.id > 0]
        if deleted_users:
            self.revoked = await revoke_of_users(self._conn, self._changes, deleted_users, reason="owner deleted")
            self.counts["tokens_revoked"] += len(self.revoked)

    async def _give_ids(self) -> None:
        new = [row.id for stored, row in self._plan.rows if stored is None]
        if new:
            given = (await self._conn.execute(_NEW_IDS, {"many": len(new)})).scalars().all()
            self._ids = dict(zip(new, given, strict=True))

    def _id(self, planned: int | None) -> int | None:
        return planned if planned is None or planned > 0 else self._ids[planned]

    async def _run(self, statement: TextClause, ids: list[int]) -> None:
        for batch in _batches(ids):
            await self._conn.execute(statement, {"ids": batch})

    def _node_arrays(self, rows: Sequence[Row]) -> dict[str, list[Any]]:
        ids = [self._id(row.id) for row in rows]
        return {
            "id": ids,
            "parent_id": [self._id(row.parent) for row in rows],
            # A name that no path can be: `~` begins none.
            "name": [row.name if row.name is not None else f"~{own}" for own, row in zip(ids, rows, strict=True)],
            "external_id": [row.external_id for row in rows],
            "namespace_id": [row.namespace_id for row in rows],
            "visibility": [row.visibility.value for row in rows],
            "archived": [row.archived for row in rows],
            "attributes": [json.dumps(row.attributes) for row in rows],
            "source": [row.source for row in rows],
            "kind": [row.kind.value for row in rows],
            "deleted": [row.deleted for row in rows],
        }

    def _account_arrays(self, rows: Sequence[Row]) -> dict[str, list[Any]]:
        return {
            "id": [self._id(row.id) for row in rows],
            "state": [row.state.value for row in rows],
            "admin": [row.admin for row in rows],
            "external": [row.external for row in rows],
            "service_account": [row.service_account for row in rows],
            "home": [self._id(row.home) for row in rows],
            "same_as": [self._id(row.same_as) for row in rows],
        }

    def _note_rows(self) -> None:
        for stored, row in self._plan.rows:
            own = self._ids.get(row.id, row.id)
            if stored is None or not row.same_node(stored):
                self._changes.touch(ChangeKind.NODE, own)
            if _account_differs(stored, row) or _user_renamed(stored, row):
                self._changes.touch(ChangeKind.USER, own)
            done = "deleted" if row.deleted else "created" if stored is None else "changed"
            self.counts[f"{row.kind.value}s_{done}"] += 1
            if stored is not None and not row.deleted and stored.parent != row.parent:
                self.moved.append(Moved(own, stored.parent, self._id(row.parent)))

    async def _write_memberships(self, gone: list[int]) -> None:
        held = [(pair, role) for pair, role in self._plan.memberships.items() if role is not None]
        for batch in _batches(held):
            given = self._pairs([pair for pair, _ in batch]) | {"roles": [role for _, role in batch]}
            for row in (await self._conn.execute(_WRITE_MEMBERSHIPS, given)).all():
                self._changes.touch(ChangeKind.MEMBERSHIP, row.user_id)
                self.counts["memberships_created" if row.created else "memberships_changed"] += 1
        ended = [pair for pair, role in self._plan.memberships.items() if role is None and min(pair) > 0]
        for pairs in _batches(ended):
            self._note_ended((await self._conn.execute(_DELETE_MEMBERSHIPS, self._pairs(pairs))).scalars().all())
        for statement in _DELETE_MEMBERSHIPS_OF:
            for ids in _batches(gone):
                self._note_ended((await self._conn.execute(statement, {"ids": ids})).scalars().all())

    def _pairs(self, pairs: Sequence[tuple[int, int]]) -> dict[str, list[Any]]:
        return {"users": [self._id(user) for user, _ in pairs], "nodes": [self._id(node) for _, node in pairs]}

    def _note_ended(self, users: Sequence[int]) -> None:
        for user in users:
            self._changes.touch(ChangeKind.MEMBERSHIP, user)
        self.counts["memberships_deleted"] += len(users)


def _edits(stored: Row, row: Row) -> bool:
    """Whether more of the node differs than that it is deleted now."""
    before = stored.copy()
    before.deleted = row.deleted
    return not row.same_node(before)


def _lets_go(stored: Row, row: Row) -> bool:
    same_place = stored.parent == row.parent and stored.name == row.name
    return not same_place or stored.namespace_id != row.namespace_id


def _account_differs(stored: Row | None, row: Row) -> bool:
    return row.kind is NodeKind.USER and (stored is None or not row.same_account(stored))


def _user_renamed(stored: Row | None, row: Row) -> bool:
    """Whoever knows an account knows it with its name, which the node has."""
    return row.kind is NodeKind.USER and stored is not None and row.name != stored.name


def _batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]
