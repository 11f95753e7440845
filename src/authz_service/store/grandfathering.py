"""Grants written by themselves: where approval is switched on, or a place moves under another group (rule P4)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.directory.model import INSTANCE_ID, NodeId, NodeKind
from authz_service.store import grants, policies
from authz_service.store.changes import ChangeSet
from authz_service.store.grants import NOBODY
from authz_service.store.token_rows import TokenRecord, read_record
from authz_service.tokens.asking import Book, Ground, carried_over, held_on, stood_at
from authz_service.tokens.grants import NO_APPROVALS, Origin, Pair
from authz_service.tokens.model import ReachKind, TokenId

_BATCH: Final = 500
_TURN: Final = 50
"""Tokens between two moments at which this process does something else: it decides meanwhile."""
_UP: Final = text("""
    with recursive up as (
        select id, parent_id, kind from node where id = any(cast(:ids as bigint[])) and deleted_at is null
        union select n.id, n.parent_id, n.kind from node n join up on n.id = up.parent_id
    ) select id, parent_id, kind from up
""")
_LIVE: Final = """
    t.kind = 'fine_grained' and t.revoked_at is null and (t.expires_at is null or t.expires_at > authz_now())
    and t.catalogs ? :catalog
"""
# Tokens that selected something at, below or above one of the roots, and those of whoever is a member there.
_CONCERNED: Final = text(f"""
    with recursive below as (
        select unnest(cast(:roots as bigint[])) as id
        union select n.id from node n join below on n.parent_id = below.id and n.deleted_at is null
    ), above as (
        select id, parent_id from node where id = any(cast(:roots as bigint[]))
        union select n.id, n.parent_id from node n join above on n.id = above.parent_id
    ), places as (select id from below union select id from above),
    reaching as (
        select x.token_id as id from token_node x where x.node_id in (select id from places)
        union
        select t.id from token t join membership m on m.user_id = t.owner_id
        where m.node_id in (select id from places) and t.scopes @> '[{{"reach": {{"kind": "all_memberships"}}}}]'
    )
    select t.* from token t join reaching r on r.id = t.id where {_LIVE} and t.id > :after order by t.id limit :many
""")  # noqa: S608 - parts of our own
_REQUIRING: Final = text("""
    select distinct catalog from policy
    where node_id is not null and cast(settings -> 'approval' ->> 'required' as boolean)
""")
_ALL: Final = text(
    f"select t.* from token t where {_LIVE} and t.id > :after order by t.id limit :many"  # noqa: S608
)


@dataclass
class Directory:
    """Parents of the nodes that were asked about, and where moved ones lay before."""

    parents: dict[int, int | None] = field(default_factory=dict)
    kinds: dict[int, NodeKind] = field(default_factory=dict)
    moved: Mapping[int, int | None] = field(default_factory=dict)

    async def read(self, conn: AsyncConnection, nodes: Iterable[NodeId]) -> None:
        wanted = {node for node in nodes if isinstance(node, int)} | {
            parent for parent in self.moved.values() if parent is not None
        }
        missing = sorted(node for node in wanted if node not in self.parents)
        if missing:
            for row in (await conn.execute(_UP, {"ids": missing})).all():
                self.parents[row.id] = row.parent_id
                self.kinds[row.id] = NodeKind(row.kind)

    def way(self, node: NodeId, *, before: bool = False) -> Sequence[NodeId]:
        if isinstance(node, str):
            return upstream_way(node)
        found: list[NodeId] = []
        above: int | None = node
        while above is not None and above != INSTANCE_ID and above in self.parents and above not in found:
            found.append(above)
            parent = self.parents[above]
            above = self.moved.get(above, parent) if before else parent
        return found

    def is_group(self, node: NodeId) -> bool:
        if isinstance(node, str):
            return node.startswith(f"{NodeKind.GROUP.value}:")
        return self.kinds.get(node) is NodeKind.GROUP

    def ground(self, book: Book, *, before: bool = False) -> Ground:
        return Ground(book, lambda node: self.way(node, before=before), self.is_group)


def upstream_way(node: str) -> list[NodeId]:
    """`project:a/b` → itself, `group:a` (C9)."""
    kind, _, path = node.partition(":")
    way: list[NodeId] = [node]
    if kind in (NodeKind.PROJECT.value, NodeKind.GROUP.value):
        while "/" in path:
            path = path.rpartition("/")[0]
            way.append(f"{NodeKind.GROUP.value}:{path}")
    return way


async def grandfather_moves(conn: AsyncConnection, changes: ChangeSet, moved: Mapping[int, int | None]) -> int:
    """After places moved (node to its parent of before): answers how many grants were written or widened."""
    if not moved:
        return 0
    count = 0
    for catalog in (await conn.execute(_REQUIRING)).scalars().all():
        _, found = await policies.load_catalog(conn, catalog)
        book = {policy.node: policy for policy in found}
        carried = await grandfather(conn, changes, catalog, book, book, roots=list(moved), moved=moved)
        count += carried.grants
    return count


@dataclass(slots=True)
class CarriedOver:
    """How many grants were written or widened, and for which tokens."""

    grants: int = 0
    tokens: list[TokenId] = field(default_factory=list)


async def grandfather(
    conn: AsyncConnection,
    changes: ChangeSet,
    catalog: str,
    before: Book,
    after: Book,
    *,
    roots: Sequence[NodeId],
    moved: Mapping[int, int | None] | None = None,
    fold: Callable[[str], str] = str,
) -> CarriedOver:
    """Write grants over what every live token had in force at groups that have its say only now."""
    if not any(policy.approval is not None and policy.approval.required for policy in after.values()):
        return CarriedOver()
    directory = Directory(moved=moved or {})
    await directory.read(conn, [*before, *after])
    old, now = directory.ground(before, before=True), directory.ground(after)
    done = CarriedOver()
    await grants.hold_all(conn)
    async for batch in concerned_tokens(conn, catalog, roots):
        memberships = await _memberships(conn, batch, catalog)
        families = list({record.family for record in batch})
        stood = await grants.load_of_families(conn, families)
        held_by = {
            record.token.id: {
                (fold(node) if isinstance(node, str) else node): names
                for node, names in held_on(record.token, catalog, memberships.get(record.token.owner, ())).items()
            }
            for record in batch
        }
        await directory.read(conn, [node for held in held_by.values() for node in held])
        new: dict[tuple[TokenId, NodeId], frozenset[Pair]] = {}
        for position, record in enumerate(batch):
            if position % _TURN == 0:
                await asyncio.sleep(0)
            said = stood_at(stood.get(record.family, NO_APPROVALS), catalog, fold)
            await directory.read(
                conn, [node for one in said.values() for pairs in (one.given, one.withheld) for _, node in pairs]
            )
            carried = carried_over(held_by[record.token.id], old, now, said)
            if carried:
                done.tokens.append(record.token.id)
            for group, pairs in carried.items():
                if group in said and said[group].active:
                    origin = Origin.GRANDFATHERED
                    await grants.give(conn, changes, record.family, catalog, group, pairs, origin=origin, by=NOBODY)
                    done.grants += 1
                else:
                    # Two secrets of one rotation hold the same, or one of them a little less.
                    key = (record.family, group)
                    new[key] = new.get(key, frozenset()) | pairs
        await grants.give_many(conn, changes, catalog, new, origin=Origin.GRANDFATHERED)
        done.grants += len(new)
    return done


async def concerned_tokens(
    conn: AsyncConnection, catalog: str, roots: Sequence[NodeId]
) -> AsyncIterator[list[TokenRecord]]:
    """Live fine-grained tokens that may reach into one of the places, batch by batch."""
    numbers = [root for root in roots if isinstance(root, int)]
    everything = INSTANCE_ID in numbers or len(numbers) < len(roots)
    given: dict[str, Any] = {"catalog": catalog, "after": "", "many": _BATCH}
    if not everything:
        given["roots"] = numbers
    while True:
        rows = (await conn.execute(_ALL if everything else _CONCERNED, given)).mappings().all()
        records = [read_record(row) for row in rows]
        if records:
            yield records
        if len(rows) < _BATCH:
            return
        given["after"] = records[-1].token.id


async def _memberships(
    conn: AsyncConnection, batch: Sequence[TokenRecord], catalog: str
) -> Mapping[NodeId, Sequence[NodeId]]:
    """Of the owners of tokens that reach all memberships."""
    owners = sorted(
        {
            record.token.owner
            for record in batch
            for scope in record.token.scopes
            if isinstance(record.token.owner, int)
            and scope.catalog == catalog
            and scope.reach.kind is ReachKind.ALL_MEMBERSHIPS
        }
    )
    if not owners:
        return {}
    query = text("select user_id, node_id from membership where user_id = any(cast(:owners as bigint[]))")
    found: dict[NodeId, list[NodeId]] = {}
    for row in (await conn.execute(query, {"owners": owners})).all():
        found.setdefault(row.user_id, []).append(row.node_id)
    return found
