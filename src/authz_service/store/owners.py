"""Who owns a group, and places by what a review writes for them."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.directory.model import NodeId, parse_target
from authz_service.store import directory


async def load_human_owners(conn: AsyncConnection, group: int, role: str) -> tuple[int, ...]:
    """The active people with a membership of the role at the group or above; no service accounts."""
    query = text("""
        with recursive up as (
            select id, parent_id from node where id = :group
            union select n.id, n.parent_id from node n join up on n.id = up.parent_id
        )
        select distinct m.user_id from membership m join up on up.id = m.node_id join account a on a.node_id = m.user_id
        where m.role = :role and a.state = 'active' and not a.service_account order by 1
    """)
    return tuple((await conn.execute(query, {"group": group, "role": role})).scalars())


async def find_node(conn: AsyncConnection, written: str, *, directory_of: Sequence[NodeId]) -> NodeId | None:
    """The node of a target in the source that these nodes lie in; where they are texts, the text itself (C9)."""
    if any(isinstance(node, str) for node in directory_of):
        return written
    target = parse_target(written)
    numbers = [node for node in directory_of if isinstance(node, int)]
    if target is None or not numbers:
        return None
    known = (await directory.load_chain_by_id(conn, numbers[0])).chain
    if not known:
        return None
    chain = (await directory.load_chain(conn, target, source=known[0].source)).chain
    return chain[0].id if chain else None
