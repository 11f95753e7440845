"""Candidates for searches: tokens, users and places that might be allowed something, with all that deciding takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Text,
    and_,
    exists,
    false,
    func,
    literal,
    or_,
    select,
    true,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.directory.model import INSTANCE_ID, Node, NodeId, NodeKind, User, Visibility
from authz_service.store.directory import read_node, read_user
from authz_service.store.tables import account, authz_now, membership, node, token, token_node
from authz_service.store.token_rows import TokenRecord, read_record
from authz_service.tokens.model import ReachKind, TokenId, TokenKind

_RECORD: Final = tuple(column for column in token.c if column.name != "digest")
_PLACES: Final = (NodeKind.GROUP.value, NodeKind.PROJECT.value)


@dataclass(frozen=True, slots=True)
class PlaceFilter:
    """Which nodes might be allowed. `roots` with all below them and `own`; public ones too; `everywhere` is all.

    Of what lies below the roots, only what lies below one of `members` too, where these are given (A4).
    """

    source: str
    kinds: tuple[NodeKind, ...]
    roots: tuple[int, ...] = ()
    own: tuple[int, ...] = ()
    public: bool = False
    everywhere: bool = False
    members: tuple[int, ...] | None = None


async def load_places(conn: AsyncConnection, wanted: PlaceFilter, *, after: int, limit: int) -> tuple[Node, ...]:
    """Live nodes by id from beyond `after`, the instance among them where its kind is wanted."""
    query = select(node).where(node.c.deleted_at.is_(None), node.c.id > after)
    query = query.where(node.c.kind.in_([kind.value for kind in wanted.kinds]))
    query = query.where(or_(node.c.source == wanted.source, node.c.id == INSTANCE_ID))
    # Nobody is allowed anything at another user's account (A8, T2).
    query = query.where(or_(node.c.kind != NodeKind.USER.value, node.c.id.in_(wanted.own)))
    if not wanted.everywhere:
        query = query.where(or_(node.c.id == INSTANCE_ID, *_reached(wanted)))
    rows = (await conn.execute(query.order_by(node.c.id).limit(limit))).mappings()
    return tuple(read_node(row) for row in rows)


def _reached(wanted: PlaceFilter) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = [node.c.id.in_(wanted.own)] if wanted.own else []
    if wanted.roots:
        reached: ColumnElement[bool] = node.c.id.in_(select(_below(wanted.roots, "below").c.id))
        if wanted.members is not None:
            reached = and_(reached, node.c.id.in_(select(_below(wanted.members, "joined").c.id)))
        found.append(reached)
    if wanted.public:
        # Effectively public is what is public itself, and all above it: the engine looks at those.
        found.append(and_(node.c.kind.in_(_PLACES), node.c.visibility == Visibility.PUBLIC.value))
    return found


def _below(roots: Sequence[int], name: str) -> Any:
    """The ids of these nodes and of all that lies below them, each once."""
    below = select(func.unnest(literal(list(roots), ARRAY(BigInteger))).label("id")).cte(name, recursive=True)
    child = node.alias("child")
    return below.union(select(child.c.id).where(child.c.parent_id == below.c.id, child.c.deleted_at.is_(None)))


async def load_above(conn: AsyncConnection, ids: Sequence[int]) -> tuple[Node, ...]:
    """Everything above these nodes, themselves not; the instance neither."""
    start = select(node.c.parent_id.label("id")).where(node.c.id == func.any(literal(list(ids), ARRAY(BigInteger))))
    up = start.cte("up", recursive=True)
    parent = node.alias("parent")
    up = up.union(select(parent.c.parent_id).where(parent.c.id == up.c.id))
    rows = (await conn.execute(select(node).where(node.c.id.in_(select(up.c.id))))).mappings()
    return tuple(read_node(row) for row in rows)


@dataclass(frozen=True, slots=True)
class TokenFilter:
    """Which live tokens of a catalog might be allowed something at the end of `chain`, a node and all above it.

    `names` are the permissions that could confer it and `bundles` the legacy scopes that could carry it; with `anyone`
    every token might, because the place is public. An empty chain belongs to a catalog without a directory.
    """

    catalog: str
    names: tuple[str, ...]
    bundles: tuple[str, ...]
    chain: tuple[int, ...]
    anyone: bool = False
    visitors: bool = False


async def load_tokens(
    conn: AsyncConnection, wanted: TokenFilter, *, after: TokenId | None, limit: int
) -> tuple[TokenRecord, ...]:
    """By id, from beyond `after`: more than are allowed, never fewer."""
    now = select(authz_now).scalar_subquery()
    query = select(*_RECORD).where(
        token.c.catalogs.has_key(wanted.catalog),
        token.c.revoked_at.is_(None),
        or_(token.c.expires_at.is_(None), token.c.expires_at > now),
        or_(token.c.not_before.is_(None), token.c.not_before <= now),
    )
    if after is not None:
        query = query.where(token.c.id > after)
    if not wanted.anyone:
        query = query.where(or_(_fine_grained(wanted), _legacy(wanted)))
    rows = (await conn.execute(query.order_by(token.c.id).limit(limit))).mappings()
    return tuple(read_record(row) for row in rows)


def _fine_grained(wanted: TokenFilter) -> ColumnElement[bool]:
    held = or_(
        false(),
        *(token.c.scopes.contains([{"catalog": wanted.catalog, "permissions": [name]}]) for name in wanted.names),
    )
    if not wanted.chain:
        return and_(token.c.kind == TokenKind.FINE_GRAINED.value, held)
    chain = func.any(literal(list(wanted.chain), ARRAY(BigInteger)))
    owned = token.c.owner_id == chain
    selected = exists().where(token_node.c.token_id == token.c.id, token_node.c.node_id == chain)
    everywhere = and_(_has_reach(ReachKind.ALL_MEMBERSHIPS), or_(owned, _is_member(wanted.chain)))
    own = and_(or_(_has_reach(ReachKind.PERSONAL_PROJECTS), _has_reach(ReachKind.USER)), owned)
    instance = _has_reach(ReachKind.INSTANCE) if wanted.chain == (INSTANCE_ID,) else false()
    return and_(token.c.kind == TokenKind.FINE_GRAINED.value, held, or_(selected, everywhere, own, instance))


def _legacy(wanted: TokenFilter) -> ColumnElement[bool]:
    if not wanted.bundles:
        return false()
    carries = token.c.legacy_scopes.overlap(list(wanted.bundles))
    if wanted.visitors or not wanted.chain:
        return and_(token.c.kind == TokenKind.LEGACY.value, carries)
    admin = exists().where(account.c.node_id == token.c.owner_id, account.c.admin.is_(True))
    owned = token.c.owner_id == func.any(literal(list(wanted.chain), ARRAY(BigInteger)))
    return and_(token.c.kind == TokenKind.LEGACY.value, carries, or_(admin, owned, _is_member(wanted.chain)))


def _has_reach(kind: ReachKind) -> ColumnElement[bool]:
    return token.c.scopes.contains([{"reach": {"kind": kind.value}}])


def _is_member(chain: Sequence[int]) -> ColumnElement[bool]:
    return exists().where(
        membership.c.user_id == token.c.owner_id,
        membership.c.node_id == func.any(literal(list(chain), ARRAY(BigInteger))),
    )


async def load_lines(conn: AsyncConnection, parents: Sequence[TokenId]) -> tuple[TokenRecord, ...]:
    """These tokens and all above them, each once; those that are gone are not among them."""
    first = select(token.c.id, token.c.parent_id).where(token.c.id == func.any(literal(list(parents), ARRAY(Text))))
    line = first.cte("line", recursive=True)
    above = token.alias("above")
    line = line.union(select(above.c.id, above.c.parent_id).where(above.c.id == line.c.parent_id))
    rows = (await conn.execute(select(*_RECORD).where(token.c.id.in_(select(line.c.id))))).mappings()
    return tuple(read_record(row) for row in rows)


@dataclass(frozen=True, slots=True)
class Person:
    """An account, its node (None once it is deleted) and those of its memberships that were asked for."""

    user: User
    node: Node | None
    roles: Mapping[NodeId, str]


async def load_people(conn: AsyncConnection, ids: Sequence[int], chain: Sequence[int]) -> tuple[Person, ...]:
    """Accounts with their memberships at the nodes of `chain` alone."""
    held = (
        select(
            func.array_agg(membership.c.node_id, type_=ARRAY(BigInteger)).label("member_nodes"),
            func.array_agg(membership.c.role, type_=ARRAY(Text)).label("member_roles"),
        )
        .where(
            membership.c.user_id == account.c.node_id,
            membership.c.node_id == func.any(literal(list(chain), ARRAY(BigInteger))),
        )
        .lateral("held")
    )
    query = (
        select(node, *_ACCOUNT, held.c.member_nodes, held.c.member_roles)
        .select_from(account.join(node, node.c.id == account.c.node_id).outerjoin(held, true()))
        .where(account.c.node_id == func.any(literal(list(ids), ARRAY(BigInteger))))
    )
    return tuple(_person(row) for row in (await conn.execute(query)).mappings())


_ACCOUNT: Final = tuple(column for column in account.c if column.name not in ("node_id", "same_as"))


async def load_users(
    conn: AsyncConnection, source: str, chain: Sequence[int], *, anyone: bool, after: int, limit: int
) -> tuple[Person, ...]:
    """Live accounts of a source by id: members at the chain, admins and who lies on it; with `anyone` all of them."""
    query = (
        select(node.c.id)
        .join(account, account.c.node_id == node.c.id)
        .where(node.c.deleted_at.is_(None), node.c.source == source, node.c.id > after)
    )
    if not anyone:
        at = func.any(literal(list(chain), ARRAY(BigInteger)))
        member = exists().where(membership.c.user_id == node.c.id, membership.c.node_id == at)
        query = query.where(or_(account.c.admin.is_(True), node.c.id == at, member))
    ids = (await conn.execute(query.order_by(node.c.id).limit(limit))).scalars().all()
    found = {person.user.id: person for person in await load_people(conn, ids, chain)}
    return tuple(found[id_] for id_ in ids)


def _person(row: Any) -> Person:
    user = read_user(row)
    roles: dict[NodeId, str] = dict(zip(row["member_nodes"] or (), row["member_roles"] or (), strict=True))
    return Person(user, None if row["deleted_at"] is not None else read_node(row), roles)
