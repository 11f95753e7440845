"""Names of places as one user may see them, for many places at once (D5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy import ARRAY, BigInteger, and_, func, literal, select
from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.directory.model import INSTANCE_ID, NodeId, NodeKind, Visibility
from authz_service.store import directory
from authz_service.store.tables import account, membership, node

_PLACES: Final = (NodeKind.PROJECT, NodeKind.GROUP)


async def load_seen_paths(
    conn: AsyncConnection, viewer: NodeId | None, node_ids: Sequence[int]
) -> Mapping[int, tuple[NodeKind, str]]:
    """Like `directory.load_paths`, without the places that the viewer does not see: these look like ones that are gone.

    A viewer who is no user of the directory, and None, see what is public; everybody sees users. Roles that do not
    inherit are known to catalogs alone: any membership counts for what lies below it, as in the `authz` catalog.
    """
    found = await directory.load_paths(conn, node_ids)
    places = [number for number, (kind, _) in found.items() if kind in _PLACES]
    if not places:
        return found
    user = viewer if isinstance(viewer, int) else None
    columns = (account.c.admin, account.c.external)
    known = None if user is None else (await conn.execute(select(*columns).where(account.c.node_id == user))).first()
    if known is not None and known.admin:
        return found
    internal = known is not None and not known.external
    seen = await _load_seen(conn, user, places, least=Visibility.INTERNAL if internal else Visibility.PUBLIC)
    unseen = [number for number in places if number not in seen]
    if user is not None and any(found[number][0] is NodeKind.GROUP for number in unseen):
        _, above = await directory.load_above_memberships(conn, user)
        seen |= {number for number in unseen if found[number][0] is NodeKind.GROUP and number in above}
    return {number: named for number, named in found.items() if named[0] not in _PLACES or number in seen}


async def _load_seen(
    conn: AsyncConnection, user: int | None, places: Sequence[int], *, least: Visibility
) -> frozenset[int]:
    """Those that are as visible as that, or at or below a membership or the own namespace of the user."""
    up = (
        select(node.c.id.label("start"), node.c.id, node.c.parent_id, node.c.visibility)
        .where(node.c.id == func.any(literal(list(places), ARRAY(BigInteger))))
        .cte("up", recursive=True)
    )
    parent = node.alias("parent")
    up = up.union_all(
        select(up.c.start, parent.c.id, parent.c.parent_id, parent.c.visibility).where(
            parent.c.id == up.c.parent_id, parent.c.id != INSTANCE_ID
        )
    )
    member = and_(membership.c.node_id == up.c.id, membership.c.user_id == (0 if user is None else user))
    own = func.bool_or(membership.c.user_id.is_not(None) | (up.c.id == (0 if user is None else user)))
    query = (
        select(up.c.start)
        .outerjoin(membership, member)
        .group_by(up.c.start)
        .having((func.min(up.c.visibility) >= least.value) | own)
    )
    return frozenset((await conn.execute(query)).scalars())
