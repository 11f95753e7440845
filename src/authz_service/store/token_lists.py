"""Lists of tokens: filtered, sorted, in complete pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    DateTime,
    Text,
    and_,
    cast,
    exists,
    func,
    literal,
    or_,
    select,
    text,
    true,
    tuple_,
    union,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.directory.model import INSTANCE_ID, NodeId
from authz_service.store.changes import Stamp, load_stamped
from authz_service.store.directory import above_ids, below_ids
from authz_service.store.paging import bad_cursor, like, page_size, read_cursor, write_cursor
from authz_service.store.tables import account, authz_now, membership, node, token, token_node
from authz_service.store.token_rows import TokenRecord, read_record
from authz_service.tokens.model import ReachKind, TokenId, TokenKind


class TokenState(StrEnum):
    """By the dates alone, at the database's clock: an active token's owner may still be blocked."""

    ACTIVE = "active"
    EARLY = "early"
    EXPIRED = "expired"
    REVOKED = "revoked"


class TokenSort(StrEnum):
    """NEWEST and OLDEST by creation; EXPIRES soonest first, those that never do last; LAST_USED latest first."""

    NEWEST = "newest"
    OLDEST = "oldest"
    EXPIRES = "expires"
    LAST_USED = "last_used"


@dataclass(frozen=True, slots=True)
class TokenFilter:
    """What a list keeps; an empty filter keeps all.

    `nodes` keeps tokens that selected one of these ids; `permission` those with a scope of that name as issued;
    `search` looks into name, id and owner's name, without case; without `sessions`, tokens of people who
    signed in are left out. The dates are half-open: from, and before.
    """

    owner: NodeId | None = None
    kind: TokenKind | None = None
    state: TokenState | None = None
    catalog: str | None = None
    permission: str | None = None
    nodes: Sequence[int] | None = None
    inside: int | None = None
    """A place: tokens that reach into it, by what they selected or by what their owner is."""
    search: str | None = None
    sessions: bool = True
    family: TokenId | None = None
    parent: TokenId | None = None
    created_from: datetime | None = None
    created_before: datetime | None = None
    expires_before: datetime | None = None
    unused_since: datetime | None = None


@dataclass(frozen=True, slots=True)
class TokenPage:
    """`next_cursor` is None on the last page."""

    stamp: Stamp
    items: tuple[TokenRecord, ...]
    next_cursor: str | None


ALL_TOKENS: Final = TokenFilter()
SESSION_NAME: Final = "console session"
"""What the tokens that stand for sessions are called."""
_FOREVER: Final = cast(literal("infinity"), DateTime(timezone=True))
_NEVER: Final = cast(literal("-infinity"), DateTime(timezone=True))
_KEYS: Final[dict[TokenSort, tuple[ColumnElement[Any], bool]]] = {
    TokenSort.NEWEST: (token.c.created_at, True),
    TokenSort.OLDEST: (token.c.created_at, False),
    TokenSort.EXPIRES: (func.coalesce(token.c.expires_at, _FOREVER), False),
    TokenSort.LAST_USED: (func.coalesce(token.c.last_used_at, _NEVER), True),
}


async def list_page(
    conn: AsyncConnection,
    wanted: TokenFilter = ALL_TOKENS,
    *,
    sort: TokenSort = TokenSort.NEWEST,
    limit: int = 50,
    cursor: str | None = None,
) -> TokenPage:
    """One page; `cursor` is a former page's `next_cursor`. Raises InvalidInputError for one of another order.

    Pages never skip what was there from the first to the last of them; what changes its place meanwhile may come twice.
    """
    key, descending = _KEYS[sort]
    size = page_size(limit)
    query = select(*(column for column in token.c if column.name != "digest"), cast(key, Text).label("sort_key")).where(
        *_conditions(wanted)
    )
    if cursor is not None:
        place = tuple_(_read_key(cursor, sort), literal(read_cursor(cursor, sort.value, 2)[1]))
        here = tuple_(key, token.c.id)
        query = query.where(here < place if descending else here > place)
    order = [key.desc(), token.c.id.desc()] if descending else [key.asc(), token.c.id.asc()]
    number = func.row_number().over(order_by=order).label("number")
    page = query.add_columns(number).order_by(*order).limit(size + 1).subquery("page")
    stamp, rows = await load_stamped(conn, page, page.c.number)
    found = [row for row in rows if row["id"] is not None]
    more = len(found) > size
    found = found[:size]
    next_cursor = write_cursor(sort.value, found[-1]["sort_key"], found[-1]["id"]) if more else None
    return TokenPage(stamp, tuple(read_record(row) for row in found), next_cursor)


def _read_key(cursor: str, sort: TokenSort) -> ColumnElement[Any]:
    text = read_cursor(cursor, sort.value, 2)[0]
    if text == "infinity":
        return _FOREVER
    if text == "-infinity":
        return _NEVER
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise bad_cursor()
        moment = moment.astimezone(UTC)
    except (ValueError, OverflowError):  # the latter where it would lie before the year 1, or after 9999
        raise bad_cursor() from None
    return literal(moment, DateTime(timezone=True))


def _conditions(wanted: TokenFilter) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if isinstance(wanted.owner, int):
        found.append(token.c.owner_id == wanted.owner)
    elif wanted.owner is not None:
        found.append(token.c.owner_name == wanted.owner)
    if wanted.kind is not None:
        found.append(token.c.kind == wanted.kind.value)
    if wanted.state is not None:
        found.append(_in_state(wanted.state))
    if wanted.catalog is not None:
        found.append(token.c.catalogs.has_key(wanted.catalog))
    if wanted.permission is not None:
        found.append(token.c.scopes.contains([{"permissions": [wanted.permission]}]))
    if wanted.nodes is not None:
        chosen = token_node.c.node_id == func.any(literal(list(wanted.nodes), ARRAY(BigInteger)))
        found.append(exists().where(token_node.c.token_id == token.c.id, chosen))
    if wanted.inside is not None:
        found.append(_reaches_into(wanted.inside))
    if wanted.search:
        found.append(_mentions(wanted.search))
    if not wanted.sessions:
        # Nobody else's token comes to be without an actor under this name.
        made = token.c.created_by_token.is_(None) & token.c.created_by_user.is_(None)
        found.append(~(made & (token.c.name == SESSION_NAME)))
    if wanted.family is not None:
        found.append(token.c.family_id == wanted.family)
    if wanted.parent is not None:
        found.append(token.c.parent_id == wanted.parent)
    return found + _dated(wanted)


async def find_reached(conn: AsyncConnection, token_id: TokenId, groups: Sequence[int]) -> Sequence[int]:
    """Of these nodes the groups that the token reaches into, as a list of what is `inside` them would say."""
    if not groups:
        return ()
    return tuple((await conn.execute(_REACHED, {"token": token_id, "groups": list(groups)})).scalars())


_REACHED: Final = text("""
    with recursive it as (
        select t.owner_id, t.kind = 'legacy' as coarse,
               t.kind = 'legacy' or t.scopes @> '[{"reach": {"kind": "all_memberships"}}]' as everywhere
        from token t where t.id = :token
    ), mark as (
        select x.node_id as id from token_node x where x.token_id = :token
        union
        select m.node_id from membership m join it on it.owner_id = m.user_id and it.everywhere
    ), over as (
        select n.id, n.parent_id from node n join mark on mark.id = n.id
        union select n.id, n.parent_id from node n join over on n.id = over.parent_id
    ), way as (
        select n.id as origin, n.id, n.parent_id from node n
        where n.id = any(cast(:groups as bigint[])) and n.kind = 'group' and n.deleted_at is null
        union select way.origin, n.id, n.parent_id from node n join way on n.id = way.parent_id
    )
    select distinct way.origin from way
    where way.origin in (select id from over) or way.id in (select id from mark)
       or exists (select from it join account a on a.node_id = it.owner_id where it.coarse and a.admin)
    order by way.origin
""")


def _reaches_into(place: int) -> ColumnElement[bool]:
    """Selected something in it or above it; or a coarse token, or all memberships, of a member there or above.

    The owner of a namespace is a member of all in it, and the instance lies above all (D1, D3).
    """
    if place == INSTANCE_ID:
        return true()
    above = above_ids(place)
    places = union(select(below_ids(place).c.id), select(above.c.id)).subquery("places")
    here = select(places.c.id)
    selected = exists().where(token_node.c.token_id == token.c.id, token_node.c.node_id.in_(here))
    member = exists().where(membership.c.user_id == token.c.owner_id, membership.c.node_id.in_(here))
    admin = exists().where(account.c.node_id == token.c.owner_id, account.c.admin)
    legacy = token.c.kind == TokenKind.LEGACY.value
    everywhere = token.c.scopes.contains([{"reach": {"kind": ReachKind.ALL_MEMBERSHIPS.value}}])
    personal = token.c.scopes.contains([{"reach": {"kind": ReachKind.PERSONAL_PROJECTS.value}}])
    own = and_(token.c.owner_id.in_(select(above.c.id)), or_(legacy, everywhere, personal))
    return or_(selected, and_(or_(legacy, everywhere), member), own, and_(legacy, admin))


def _dated(wanted: TokenFilter) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if wanted.created_from is not None:
        found.append(token.c.created_at >= wanted.created_from)
    if wanted.created_before is not None:
        found.append(token.c.created_at < wanted.created_before)
    if wanted.expires_before is not None:
        found.append(token.c.expires_at < wanted.expires_before)
    if wanted.unused_since is not None:
        found.append(func.coalesce(token.c.last_used_at, token.c.created_at) < wanted.unused_since)
    return found


def _in_state(state: TokenState) -> ColumnElement[bool]:
    now = select(authz_now).scalar_subquery()  # asked once a statement, not once a row
    expired = and_(token.c.expires_at.is_not(None), token.c.expires_at <= now)
    early = and_(token.c.not_before.is_not(None), token.c.not_before > now)
    alive = token.c.revoked_at.is_(None)
    match state:
        case TokenState.REVOKED:
            return token.c.revoked_at.is_not(None)
        case TokenState.EXPIRED:
            return and_(alive, expired)
        case TokenState.EARLY:
            return and_(alive, ~expired, early)
        case TokenState.ACTIVE:
            return and_(alive, ~expired, ~early)


def _mentions(search: str) -> ColumnElement[bool]:
    pattern = like(search)
    owned = exists().where(node.c.id == token.c.owner_id, node.c.name.ilike(pattern, escape="\\"))
    texts = (token.c.name, token.c.id, token.c.owner_name)
    return or_(owned, *(column.ilike(pattern, escape="\\") for column in texts))
