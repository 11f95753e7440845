"""A policy tried out: which live tokens it would stop or let through, and where, before it is set."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.admin.management import Management
from authz_service.admin.views import load_names
from authz_service.catalog.model import Catalog
from authz_service.directory.model import INSTANCE_ID, NodeId, NodeKind, format_target
from authz_service.engine.case import Case, open_case
from authz_service.engine.model import PermissionRequest, Reason, Request, World
from authz_service.engine.places import PLACE_KINDS, Place
from authz_service.engine.policies import bearing_objection, objection_at
from authz_service.pdp.authority_facts import TransactionWorld
from authz_service.store import directory, policies
from authz_service.store.changes import ChangeSet
from authz_service.store.grandfathering import grandfather
from authz_service.store.token_rows import TokenRecord, read_record
from authz_service.tokens.asking import Book
from authz_service.tokens.model import ReachKind, Token, TokenKind
from authz_service.tokens.policy import Policy

Objections: TypeAlias = Mapping[tuple[str, str], Reason | None]
"""Why a token is refused, by place and permission; None where it is not. A legacy token names no permission."""
MOST_NAMED: Final = 1000
_BATCH: Final = 500
_REACHING: Final = text("""
    with recursive below as (
        select cast(:root as bigint) as id
        union select n.id from node n join below on n.parent_id = below.id and n.deleted_at is null
    ), above as (
        select id, parent_id from node where id = :root
        union select n.id, n.parent_id from node n join above on n.id = above.parent_id
    ), places as (select id from below union select id from above),
    reaching as (
        select x.token_id as id from token_node x where x.node_id in (select id from places)
        union
        select t.id from token t join membership m on m.user_id = t.owner_id where m.node_id in (select id from places)
    )
    select t.* from token t join reaching r on r.id = t.id
    where t.revoked_at is null and (t.expires_at is null or t.expires_at > authz_now()) and t.catalogs ? :catalog
      and t.id > :after order by t.id limit :many
""")
_ALL: Final = text("""
    select t.* from token t
    where t.revoked_at is null and (t.expires_at is null or t.expires_at > authz_now()) and t.catalogs ? :catalog
      and t.id > :after order by t.id limit :many
""")


@dataclass(frozen=True, slots=True)
class Trial:
    """What is tried: at which node, for which catalog."""

    world: TransactionWorld
    catalog: str
    node: NodeId
    grandfather: bool
    fold: Callable[[str], str]
    """As the catalog compares places that no directory knows (C9)."""


@dataclass(frozen=True, slots=True)
class Turned:
    """A live token, and the first place where it would be refused and is not now, or the other way round; and why."""

    record: TokenRecord
    reason: Reason
    place: str


async def try_policy(
    conn: AsyncConnection, management: Management, trial: Trial, before: Book, wanted: Policy
) -> Mapping[str, Any]:
    """The answer of a dry run. What it writes on the way the caller must roll back."""
    now = await TransactionWorld.open(conn, management.shipped)
    after = {node: policy for node, policy in before.items() if node != wanted.node}
    if not wanted.empty:
        after[wanted.node] = wanted
    tokens = [record async for record in _reaching(conn, trial)]
    earlier = [await _objections(conn, now, record, trial) for record in tokens]
    touched = ChangeSet()
    await policies.put(conn, touched, wanted, expected=None)
    carried = 0
    if trial.grandfather:
        done = await grandfather(conn, touched, trial.catalog, before, after, roots=[trial.node], fold=trial.fold)
        carried = done.grants
    later = await TransactionWorld.open(conn, management.shipped)
    stopped: list[Turned] = []
    started: list[Turned] = []
    for record, known in zip(tokens, earlier, strict=True):
        then = await _objections(conn, later, record, trial)
        stopped += _first_turned(record, known, then)
        started += _first_turned(record, then, known)
    return {
        "would_stop": await _describe(conn, stopped),
        "would_stop_count": len(stopped),
        "would_start": await _describe(conn, started),
        "would_start_count": len(started),
        "grants_carried_over": carried,
    }


def _first_turned(record: TokenRecord, one: Objections, other: Objections) -> list[Turned]:
    """Where the other objects and the one does not; at most one."""
    for key, reason in other.items():
        if reason is not None and one.get(key) is None:
            return [Turned(record, reason, key[0])]
    return []


async def _describe(conn: AsyncConnection, turned: Sequence[Turned]) -> list[dict[str, Any]]:
    named = turned[:MOST_NAMED]
    names = await load_names(conn, [one.record for one in named], None)
    return [
        {
            "id": one.record.token.id,
            "name": one.record.token.name,
            "owner": names.owner(one.record.token.owner),
            "kind": one.record.token.kind.value,
            "reason": one.reason.value,
            "node": one.place,
        }
        for one in named
    ]


async def _reaching(conn: AsyncConnection, trial: Trial) -> AsyncIterator[TokenRecord]:
    everything = trial.node == INSTANCE_ID or isinstance(trial.node, str)
    given: dict[str, Any] = {"catalog": trial.catalog, "after": "", "many": _BATCH}
    if not everything:
        given["root"] = trial.node
    while True:
        rows = (await conn.execute(_ALL if everything else _REACHING, given)).mappings().all()
        for row in rows:
            yield read_record(row)
        if len(rows) < _BATCH:
            return
        given["after"] = rows[-1]["id"]


async def _objections(conn: AsyncConnection, world: TransactionWorld, record: TokenRecord, trial: Trial) -> Objections:
    """What A5 says of the token at each place it is made for."""
    token = record.token
    catalog = await world.answer(lambda facts: facts.catalog(trial.catalog, token.catalogs[trial.catalog]))
    if catalog is None:
        return {}
    anchors = await _anchors(conn, world, token, trial)
    return await world.answer(lambda facts: _judge(facts, world, token, catalog, anchors))


async def _anchors(conn: AsyncConnection, world: TransactionWorld, token: Token, trial: Trial) -> dict[str, set[str]]:
    """Places that the token is made for at or below the policy's, with the permissions there."""
    held: dict[NodeId, set[str]] = {}
    for scope in token.scopes:
        if scope.catalog == trial.catalog:
            nodes = scope.reach.nodes
            if scope.reach.kind is ReachKind.ALL_MEMBERSHIPS and isinstance(token.owner, int):
                nodes = tuple(await world.answer(lambda facts: facts.memberships(token.owner)))
            for node in nodes:
                held.setdefault(node, set()).update(scope.permissions)
    if token.kind is TokenKind.LEGACY and isinstance(token.owner, int):
        for node in await world.answer(lambda facts: facts.memberships(token.owner)):
            held.setdefault(node, set())
    numbers = [node for node in held if isinstance(node, int)]
    paths = await directory.load_paths(conn, [*numbers, *([trial.node] if isinstance(trial.node, int) else [])])
    texts: dict[NodeId, str] = {node: format_target(*named) for node, named in paths.items()}
    texts |= {node: node for node in (*held, trial.node) if isinstance(node, str)}
    own = "" if trial.node == INSTANCE_ID else texts.get(trial.node, "")
    found: dict[str, set[str]] = {}
    for node, names in held.items():
        named = texts.get(node)
        if named is None:
            continue
        if _lies_in(_path(named), _path(own)):
            found.setdefault(named, set()).update(names)
        elif _lies_in(_path(own), _path(named)):
            found.setdefault(own, set()).update(names)
    if trial.node == INSTANCE_ID and not found:
        found["instance"] = set()
    return found


def _path(text: str) -> str:
    return text.partition(":")[2]


def _lies_in(path: str, above: str) -> bool:
    return not above or path == above or path.startswith(f"{above}/")


def _judge(
    facts: World, world: TransactionWorld, token: Token, catalog: Catalog, anchors: Mapping[str, set[str]]
) -> Objections:
    case = open_case(token, catalog, facts, Request(catalog.name, PermissionRequest(""), world.now))
    found: dict[tuple[str, str], Reason | None] = {}
    for written, names in sorted(anchors.items()):
        place = case.places.parse(written)
        if place is None:
            continue
        bearing = bearing_objection(case, place)
        for name in sorted(names) or [""]:
            found[written, name] = None if bearing is None else bearing.reason
            if bearing is None and place.kind in PLACE_KINDS:
                found[written, name] = _ungranted(case, catalog, place, name)
    return found


def _ungranted(case: Case, catalog: Catalog, place: Place, name: str) -> Reason | None:
    permission = catalog.by_name.get(name)
    for kind in (NodeKind.PROJECT, NodeKind.GROUP):
        if permission is not None and kind in permission.boundaries:
            objection = objection_at(case, place, catalog.holders[kind][permission.number])
            if objection is not None:
                return objection.reason
    return None
