"""Reads of the directory: chains of nodes, accounts and memberships, each with the revision it was read at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import cache
from typing import Any

from sqlalchemy import (
    ARRAY,
    CTE,
    BigInteger,
    ColumnElement,
    FromClause,
    Integer,
    RowMapping,
    Select,
    Text,
    and_,
    bindparam,
    case,
    func,
    literal,
    or_,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.directory.model import (
    DEFAULT_SOURCE,
    INSTANCE_ID,
    Node,
    NodeKind,
    TargetText,
    User,
    UserState,
    Visibility,
)
from authz_service.store.changes import STAMP_COLUMNS, Stamp, current, load_stamped, read_stamp, read_stamped, stamped
from authz_service.store.tables import account, membership, node, revision


@dataclass(frozen=True, slots=True)
class ChainReading:
    """What a target names at one revision.

    `chain` is the node first, then its parents up to the top; empty when there is no such node, and the instance is in
    it only as the target itself. `prefix` is what there is of a path, from the top down, on a miss too: it is for
    caching. Names compare without case; a catalog that compares by case looks at `Node.name` itself.
    """

    stamp: Stamp
    chain: tuple[Node, ...]
    prefix: tuple[Node, ...] = ()


@dataclass(frozen=True, slots=True)
class EdgeReading:
    """The child of a parent with a name, or None."""

    stamp: Stamp
    node: Node | None


@dataclass(frozen=True, slots=True)
class UserReading:
    """An account with its node. `same_as` is the node id of the user it is linked to in another source (D2)."""

    stamp: Stamp
    user: User | None
    node: Node | None = None
    same_as: int | None = None


@dataclass(frozen=True, slots=True)
class MembershipsReading:
    """Node id to role, of one user."""

    stamp: Stamp
    roles: Mapping[int, str] = field(default_factory=dict)


async def load_edge(conn: AsyncConnection, source: str, parent_id: int | None, name_key: str) -> EdgeReading:
    """One step down a path; `parent_id` None is the top, `name_key` a name in lower case.

    A new node's change names the node, not the edge: who remembers that a name is free must forget it on any change of
    kind `node`.
    """
    stamp, rows = await _load(conn, select(node).where(_is_child(node, source, parent_id, name_key)).subquery())
    return EdgeReading(stamp, read_node(rows[0]) if rows else None)


async def load_chain(conn: AsyncConnection, target: TargetText, *, source: str = DEFAULT_SOURCE) -> ChainReading:
    """The node that a target names and all above it, in one statement. A node of another kind than written is none."""
    if target.kind is NodeKind.INSTANCE:
        return await load_chain_by_id(conn, INSTANCE_ID)
    if target.external_id is not None:
        if target.kind is None:
            return ChainReading(await current(conn), ())
        return await load_node_by_external_id(conn, source, target.kind, target.external_id)
    path = (target.path or "").lower()
    names = path.split("/")
    stamp, rows = await _read(conn, _walk_down(), {"source": source, "first": names[0], "path": path})
    prefix = tuple(read_node(row) for row in rows)
    found = len(prefix) == len(names) and target.kind in {None, prefix[-1].kind}
    return ChainReading(stamp, tuple(reversed(prefix)) if found else (), prefix)


async def load_chain_by_id(conn: AsyncConnection, node_id: int) -> ChainReading:
    """The node with this database id and all above it; none when it is deleted."""
    return await _load_up(conn, _up_from(_Start.ID), {"id": node_id})


async def load_node_by_external_id(
    conn: AsyncConnection, source: str, kind: NodeKind, external_id: str
) -> ChainReading:
    """The node that the source calls so, and all above it."""
    values = {"source": source, "kind": kind.value, "id": external_id}
    return await _load_up(conn, _up_from(_Start.EXTERNAL_ID), values)


async def load_namespace(conn: AsyncConnection, source: str, external_id: str) -> ChainReading:
    """A group by its external id, or a user by the id of their namespace: the two share one id space (C3)."""
    return await _load_up(conn, _up_from(_Start.NAMESPACE_ID), {"source": source, "id": external_id})


async def load_memberships(conn: AsyncConnection, user_id: int) -> MembershipsReading:
    """Every membership row of one user: at most a few ten thousand, shared by all of their tokens."""
    stamp, (row,) = await read_stamped(conn, _memberships(), {"user": user_id})
    return MembershipsReading(stamp, dict(zip(row["nodes"] or (), row["roles"] or (), strict=True)))


@cache
def _memberships() -> Select[Any]:
    held = select(
        func.array_agg(membership.c.node_id, type_=ARRAY(BigInteger)).label("nodes"),
        func.array_agg(membership.c.role, type_=ARRAY(Text)).label("roles"),
    ).where(membership.c.user_id == bindparam("user", type_=BigInteger))
    return stamped(held.subquery())


async def load_user(conn: AsyncConnection, user_id: int) -> UserReading:
    """By node id; a deleted user is found too, and only so."""
    return await _load_user(conn, node.c.id == user_id)


async def find_user(
    conn: AsyncConnection,
    *,
    source: str = DEFAULT_SOURCE,
    username: str | None = None,
    external_id: str | None = None,
) -> UserReading:
    """By username, without case, or by external id; ValueError unless exactly one of them is given."""
    if (username is None) == (external_id is None):
        raise ValueError("a user is found by username or by external id")
    if username is not None:
        which = and_(_is_child(node, source, None, username.lower()), node.c.kind == NodeKind.USER.value)
    else:
        which = and_(
            node.c.source == source,
            node.c.kind == NodeKind.USER.value,
            node.c.external_id == external_id,
            node.c.deleted_at.is_(None),
        )
    return await _load_user(conn, which)


async def load_linked_users(conn: AsyncConnection, user_id: int) -> tuple[Stamp, tuple[int, ...]]:
    """The node ids of the same person in every source, this one first: whatever `same_as` joins, either way."""
    linked = select(literal(user_id, BigInteger).label("id")).cte("linked", recursive=True)
    pair = account.alias("pair")
    other = case((pair.c.node_id == linked.c.id, pair.c.same_as), else_=pair.c.node_id)
    linked = linked.union(
        select(other).where(
            or_(pair.c.node_id == linked.c.id, pair.c.same_as == linked.c.id), pair.c.same_as.is_not(None)
        )
    )
    query = select(*STAMP_COLUMNS, linked.c.id).select_from(revision.join(linked, true()))
    rows = (await conn.execute(query)).mappings().all()
    others = sorted(row["id"] for row in rows if row["id"] != user_id)
    return read_stamp(rows[0]), (user_id, *others)


async def load_above_memberships(conn: AsyncConnection, user_id: int) -> tuple[Stamp, frozenset[int]]:
    """The ids of all nodes with a membership row of the user at them or anywhere below (D5)."""
    # From the memberships up: a user has thousands of them at most, a group may have far more below it.
    above = (
        select(node.c.id, node.c.parent_id)
        .join(membership, membership.c.node_id == node.c.id)
        .where(membership.c.user_id == user_id)
        .cte("above", recursive=True)
    )
    parent = node.alias("parent")
    above = above.union(select(parent.c.id, parent.c.parent_id).where(parent.c.id == above.c.parent_id))
    stamp, rows = await load_stamped(conn, above, above.c.id)
    return stamp, frozenset(row["id"] for row in rows if row["id"] is not None)


async def load_descendants(
    conn: AsyncConnection,
    node_id: int,
    kind: NodeKind | None = None,
    *,
    after: int = 0,
    limit: int | None = None,
) -> tuple[Stamp, tuple[Node, ...]]:
    """What lies below a node, itself not, in the order of ids, from beyond `after`; for the instance, all there is."""
    query = select(node).where(node.c.deleted_at.is_(None), node.c.id > after, node.c.id != node_id)
    if node_id != INSTANCE_ID:
        query = query.where(node.c.id.in_(select(below_ids(node_id).c.id)))
    if kind is not None:
        query = query.where(node.c.kind == kind.value)
    stamp, rows = await _load(conn, query.order_by(node.c.id).limit(limit).subquery(), order="id")
    return stamp, tuple(read_node(row) for row in rows)


def below_ids(node_id: int) -> CTE:
    """The ids of a node and of all that lies below it, as a recursive query for other queries."""
    below = select(literal(node_id, BigInteger).label("id")).cte("below", recursive=True)
    child = node.alias("child")
    return below.union_all(select(child.c.id).where(child.c.parent_id == below.c.id, child.c.deleted_at.is_(None)))


def above_ids(node_id: int) -> CTE:
    """The ids of a node and of all that it lies in, as a recursive query for other queries."""
    above = select(node.c.id, node.c.parent_id).where(node.c.id == node_id).cte("above", recursive=True)
    parent = node.alias("above_parent")
    return above.union_all(select(parent.c.id, parent.c.parent_id).where(parent.c.id == above.c.parent_id))


async def load_paths(conn: AsyncConnection, node_ids: Sequence[int]) -> Mapping[int, tuple[NodeKind, str]]:
    """Kind and full path of each live node among these, as `format_target` takes them."""
    up = (
        select(node.c.id.label("start"), node.c.kind, node.c.parent_id, node.c.name, literal(0).label("height"))
        .where(node.c.id == func.any(literal(list(node_ids), ARRAY(BigInteger))), node.c.deleted_at.is_(None))
        .cte("up", recursive=True)
    )
    parent = node.alias("parent")
    up = up.union_all(
        select(up.c.start, up.c.kind, parent.c.parent_id, parent.c.name, up.c.height + 1).where(
            parent.c.id == up.c.parent_id
        )
    )
    path = func.string_agg(up.c.name, aggregate_order_by(literal("/"), up.c.height.desc()), type_=Text)
    rows = (await conn.execute(select(up.c.start, up.c.kind, path.label("path")).group_by(up.c.start, up.c.kind))).all()
    return {row.start: (NodeKind(row.kind), row.path) for row in rows}


async def hold_still(conn: AsyncConnection) -> None:
    """No import commits until this transaction ends: what is read of the directory after it stays true so long.

    Take it before a check of authority that a write rests on (M2), and before anything else of the transaction.
    """
    await conn.execute(select(node.c.id).where(node.c.id == INSTANCE_ID).with_for_update(read=True))


async def hold_for_import(conn: AsyncConnection) -> None:
    """One import at a time, and none while somebody has the directory `hold_still`."""
    await conn.execute(select(node.c.id).where(node.c.id == INSTANCE_ID).with_for_update(key_share=True))


async def _load(conn: AsyncConnection, found: FromClause, *, order: str = "id") -> tuple[Stamp, Sequence[RowMapping]]:
    return await _read(conn, stamped(found, found.c[order]), {})


async def _read(
    conn: AsyncConnection, query: Select[Any], values: Mapping[str, object]
) -> tuple[Stamp, Sequence[RowMapping]]:
    stamp, rows = await read_stamped(conn, query, values)
    return stamp, [row for row in rows if row["id"] is not None]


async def _load_up(conn: AsyncConnection, query: Select[Any], values: Mapping[str, object]) -> ChainReading:
    stamp, rows = await _read(conn, query, values)
    return ChainReading(stamp, tuple(read_node(row) for row in rows))


class _Start(Enum):
    """What a way up begins with."""

    ID = auto()
    EXTERNAL_ID = auto()
    NAMESPACE_ID = auto()


# Decisions wait for these, and making a statement costs more than asking it: each is made once.


@cache
def _up_from(start: _Start) -> Select[Any]:
    source, text = node.c.source == bindparam("source", type_=Text), bindparam("id", type_=Text)
    which = {
        _Start.ID: node.c.id == bindparam("id", type_=BigInteger),
        _Start.EXTERNAL_ID: and_(source, node.c.kind == bindparam("kind", type_=Text), node.c.external_id == text),
        _Start.NAMESPACE_ID: and_(source, node.c.namespace_id == text),
    }[start]
    first = select(node, literal(0, Integer).label("depth")).where(which, node.c.deleted_at.is_(None))
    up = first.cte("up", recursive=True)
    parent = node.alias("parent")
    up = up.union_all(select(parent, up.c.depth + 1).where(parent.c.id == up.c.parent_id))
    return stamped(up, up.c.depth)


@cache
def _walk_down() -> Select[Any]:
    first = and_(
        node.c.source == bindparam("source", type_=Text),
        node.c.parent_id.is_(None),
        node.c.name_key == bindparam("first", type_=Text),
        node.c.deleted_at.is_(None),
    )
    walk = select(node, literal(1, Integer).label("depth")).where(first).cte("walk", recursive=True)
    child = node.alias("child")
    walk = walk.union_all(
        select(child, walk.c.depth + 1).where(
            child.c.parent_id == walk.c.id,
            child.c.name_key == func.split_part(bindparam("path", type_=Text), "/", walk.c.depth + 1),
            child.c.deleted_at.is_(None),
        )
    )
    return stamped(walk, walk.c.depth)


def _is_child(table: Any, source: str, parent_id: int | None, name_key: str) -> ColumnElement[bool]:
    at = table.c.parent_id.is_(None) if parent_id is None else table.c.parent_id == parent_id
    return and_(table.c.source == source, at, table.c.name_key == name_key, table.c.deleted_at.is_(None))


async def _load_user(conn: AsyncConnection, which: ColumnElement[bool]) -> UserReading:
    found = (
        select(node, *(column for column in account.c if column.name != "node_id"))
        .join(account, account.c.node_id == node.c.id)
        .where(which)
        .subquery()
    )
    stamp, rows = await _load(conn, found)
    if not rows:
        return UserReading(stamp, None)
    row = rows[0]
    return UserReading(stamp, read_user(row), read_node(row), row["same_as"])


def read_user(row: RowMapping | Mapping[str, Any]) -> User:
    """The user of a row that holds the columns of `node` and `account`."""
    return User(
        id=row["id"],
        username=row["name"],
        state=UserState(row["state"]),
        admin=row["admin"],
        external=row["external"],
        service_account=row["service_account"],
        home=row["home_id"],
    )


def read_node(row: RowMapping | Mapping[str, Any]) -> Node:
    """The node of a row that holds the columns of `node`."""
    kind = NodeKind(row["kind"])
    return Node(
        id=row["id"],
        kind=kind,
        name=row["name"],
        parent=row["parent_id"],
        visibility=Visibility(row["visibility"]),
        external_id=row["external_id"],
        namespace_external_id=row["namespace_id"] if kind is NodeKind.USER else None,
        archived=row["archived"],
        attributes=row["attributes"],
        source=row["source"],
    )
