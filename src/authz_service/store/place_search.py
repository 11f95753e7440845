"""Places by a part of their name, as candidates: what lies in a user's memberships first, then what is not private."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import CTE, func, literal, or_, select, union
from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.directory.model import Node, NodeKind, Visibility
from authz_service.store.directory import read_node
from authz_service.store.paging import like
from authz_service.store.tables import membership, node

_KINDS = (NodeKind.GROUP.value, NodeKind.PROJECT.value)


async def load_candidates(
    conn: AsyncConnection, *, source: str, user: int, text: str, everything: bool, limit: int
) -> Sequence[Node]:
    """Live groups and projects of a source with the text in their own name, without case; the empty text is in all.

    Whether the user sees one is not decided here: ask the engine for each. `everything` is for admins.
    """
    inside = _inside_memberships(user)
    own = node.c.id.in_(select(inside.c.id))
    query = select(node, own.label("own")).where(
        node.c.source == source, node.c.kind.in_(_KINDS), node.c.deleted_at.is_(None)
    )
    if text:
        query = query.where(node.c.name_key.like(like(text.lower()), escape="\\"))
    if not everything:
        query = query.where(or_(own, node.c.visibility > int(Visibility.PRIVATE)))
    found = query.subquery()
    # Nearest first: the user's own, then the exact name, then the shorter one.
    ordered = (
        select(found)
        .order_by(found.c.own.desc(), (found.c.name_key == text.lower()).desc(), func.length(found.c.name), found.c.id)
        .limit(limit)
    )
    return [read_node(row) for row in (await conn.execute(ordered)).mappings()]


def _inside_memberships(user: int) -> CTE:
    """The ids of all places at and below a user's memberships, and in their own namespace."""
    top = union(select(membership.c.node_id.label("id")).where(membership.c.user_id == user), select(literal(user)))
    inside = select(top.subquery().c.id).cte("inside", recursive=True)
    child = node.alias("child")
    return inside.union(select(child.c.id).where(child.c.parent_id == inside.c.id, child.c.deleted_at.is_(None)))
