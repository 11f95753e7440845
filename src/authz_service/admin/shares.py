"""What an actor who manages groups sees of somebody's token: what lies in these groups, and no more (rule M3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.admin.authority import Authority
from authz_service.directory.model import NodeId
from authz_service.store import grants, token_lists
from authz_service.store.token_rows import TokenRecord
from authz_service.tokens.model import ReachKind, Scope
from authz_service.tokens.policy import MANAGEMENT


@dataclass(frozen=True, slots=True)
class Share:
    """The record with what lies inside alone, and the nodes that may be named with it."""

    record: TokenRecord
    nodes: frozenset[NodeId]


async def find_share(conn: AsyncConnection, authority: Authority, record: TokenRecord, permission: str) -> Share | None:
    """What lies in groups at which the actor holds the permission; None when the token reaches into none of them.

    It reaches where lists of a group find it: by what it selected there or above, and, where it covers all memberships
    or is a coarse one, by what its owner is. Of a place above such a group, the group is shown.
    """
    managed = [
        group
        for group in await token_lists.find_reached(conn, record.token.id, await _candidates(authority))
        if await authority.may_at(permission, group)
    ]
    if not managed:
        return None
    ways = {group: [above.id for above in await authority.world.chain(group)] for group in managed}
    scopes: list[Scope] = []
    for scope in record.token.scopes:
        if scope.reach.kind is ReachKind.ALL_MEMBERSHIPS:
            scopes.append(scope)
        elif scope.reach.kind is ReachKind.SELECTED:
            inside: dict[NodeId, None] = {}
            for node in scope.reach.nodes:
                if await _lies_in(authority, node, managed):
                    inside[node] = None
                inside |= dict.fromkeys(group for group, way in ways.items() if node in way)
            if inside:
                scopes.append(replace(scope, reach=replace(scope.reach, nodes=tuple(inside))))
    nodes: set[NodeId] = {node for scope in scopes for node in scope.reach.nodes}
    stood = await grants.load_of_families(conn, [record.family])
    for found in stood.values():
        asked = {one.group for one in found.requests} | {one.group for one in found.grants}
        for group in asked:
            if await _lies_in(authority, group, managed):
                nodes.add(group)
    return Share(replace(record, token=replace(record.token, scopes=tuple(scopes))), frozenset(nodes))


async def _candidates(authority: Authority) -> Sequence[int]:
    """Where the actor's authority could begin: whatever they manage lies at or below one of these."""
    own = authority.token
    found: dict[NodeId, None] = {}
    for scope in own.scopes:
        if scope.catalog == MANAGEMENT:
            found |= dict.fromkeys(scope.reach.nodes)
    if isinstance(own.owner, int):  # who is known upstream alone (C9) is a member of nothing here
        found |= dict.fromkeys(await authority.world.answer(lambda world: world.memberships(own.owner)))
    return [node for node in found if isinstance(node, int)]


async def _lies_in(authority: Authority, node: NodeId, groups: Sequence[NodeId]) -> bool:
    return any(above.id in groups for above in await authority.world.chain(node))
