"""All of one source's directory at once, for whoever compares it with where it came from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection

# `~` begins the name of what has lost its own to another (D2): no path reaches it, nor what lies below it.
_NODES: Final = text("""
    with recursive tree as (
        select id, name as path, 1 as depth, left(name, 1) = '~' as nameless from node
        where source = :source and parent_id is null and kind <> 'instance' and deleted_at is null
        union all
        select n.id, tree.path || '/' || n.name, tree.depth + 1, tree.nameless or left(n.name, 1) = '~'
        from tree join node n on n.parent_id = tree.id
        where n.deleted_at is null
    )
    select n.id, n.kind, n.external_id, n.namespace_id, n.visibility, n.archived, n.attributes,
           case when tree.nameless then null else tree.path end as path,
           a.state, a.admin, a.external, a.service_account, a.home_id,
           linked.source as linked_source, linked.name as linked_name, linked.external_id as linked_id
    from tree
    join node n on n.id = tree.id
    left join account a on a.node_id = n.id
    left join node linked on linked.id = a.same_as
    order by case n.kind when 'user' then 0 when 'group' then 1 else 2 end, tree.depth, tree.path
""")
_MEMBERSHIPS: Final = text("""
    select m.user_id, m.node_id, m.role
    from membership m join node u on u.id = m.user_id
    where u.source = :source and u.deleted_at is null
    order by m.node_id, m.user_id
""")
_DELETED: Final = text("""
    select kind, external_id from node
    where source = :source and deleted_at is not null and external_id is not null
    order by kind, id
""")


async def load_nodes(conn: AsyncConnection, source: str) -> Sequence[RowMapping]:
    """What lives: users, groups from the top down, projects. `path` is None for what no path reaches."""
    return (await conn.execute(_NODES, {"source": source})).mappings().all()


async def load_memberships(conn: AsyncConnection, source: str) -> Sequence[RowMapping]:
    """The memberships of the source's users, by database ids."""
    return (await conn.execute(_MEMBERSHIPS, {"source": source})).mappings().all()


async def load_deleted(conn: AsyncConnection, source: str) -> Sequence[RowMapping]:
    """External ids that are never given again (D2)."""
    return (await conn.execute(_DELETED, {"source": source})).mappings().all()
