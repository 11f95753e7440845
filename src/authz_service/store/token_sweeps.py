"""What time alone does to tokens, batch by batch: who is to be told, who is not used, who is to be forgotten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import (
    ARRAY,
    DateTime,
    Integer,
    Text,
    and_,
    bindparam,
    case,
    cast,
    delete,
    exists,
    func,
    literal,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.store.changes import ChangeKind, ChangeSet
from authz_service.store.record_tables import event
from authz_service.store.tables import authz_now, token, token_node
from authz_service.store.token_rows import TokenRecord, read_record
from authz_service.tokens.model import TokenId

NOTICE_DAYS: Final = (30, 14, 7, 1)
_RECORD: Final = tuple(column for column in token.c if column.name != "digest")
_TELL_EXPIRED: Final = timedelta(days=30)
"""What expired longer ago is no news."""


@dataclass(frozen=True, slots=True)
class Notice:
    """A token that ends within `days` days; 0 has ended. `once` names this notice among all there ever are."""

    record: TokenRecord
    days: int
    once: str


async def find_notices(conn: AsyncConnection, *, limit: int) -> tuple[Notice, ...]:
    """Tokens whose owners are to be told and were not yet, the soonest end first.

    Of the days that have come at once only the fewest count; a token that was younger than that many days before its
    end is not told of them: whoever made it so short knows. One that was replaced is told nothing.
    """
    now = select(authz_now).scalar_subquery()
    left = token.c.expires_at - now
    days = case(
        (left <= timedelta(), 0),
        *((left <= timedelta(days=known), known) for known in sorted(NOTICE_DAYS)),
        else_=max(NOTICE_DAYS),
    )
    found = (
        select(
            *_RECORD,
            days.label("days"),
            func.concat(
                "expiry/", token.c.id, "/", cast(func.extract("epoch", token.c.expires_at), Text), "/", days
            ).label("once"),
        )
        .where(
            token.c.revoked_at.is_(None),
            token.c.successor_id.is_(None),
            token.c.expires_at > now - _TELL_EXPIRED,
            token.c.expires_at <= now + timedelta(days=max(NOTICE_DAYS)),
            token.c.created_at <= token.c.expires_at - func.make_interval(0, 0, 0, days),
        )
        .subquery()
    )
    query = (
        select(found)
        .where(~exists().where(event.c.once == found.c.once))
        .order_by(found.c.expires_at, found.c.id)
        .limit(limit)
    )
    rows = (await conn.execute(query)).mappings()
    return tuple(Notice(read_record(row), int(row["days"]), row["once"]) for row in rows)


@dataclass(frozen=True, slots=True)
class Unused:
    """A living token, and when anything that it counts as its use happened last."""

    record: TokenRecord
    since: datetime


async def find_unused(
    conn: AsyncConnection, *, days: int, limit: int, after: TokenId | None = None
) -> tuple[tuple[Unused, ...], TokenId | None]:
    """Living tokens that were not used for so many days, by id, and the id to go on from; None at the end.

    The latest of creation, `not_before`, its own last use and those of all that hang under it counts (P2).
    """
    cutoff = select(authz_now - timedelta(days=days)).scalar_subquery()
    own = func.greatest(token.c.created_at, token.c.not_before, token.c.last_used_at)
    alive = or_(token.c.expires_at.is_(None), token.c.expires_at > authz_now)
    query = (
        select(*_RECORD, own.label("since"))
        .where(token.c.revoked_at.is_(None), token.c.successor_id.is_(None), alive, own < cutoff)
        .order_by(token.c.id)
        .limit(limit)
    )
    if after is not None:
        query = query.where(token.c.id > after)
    rows = (await conn.execute(query)).mappings().all()
    below = await _last_use_below(conn, [row["id"] for row in rows])
    found = []
    for row in rows:
        since = max(row["since"], below.get(row["id"], row["since"]))
        found.append(Unused(read_record(row), since))
    return tuple(found), rows[-1]["id"] if len(rows) == limit else None


async def _last_use_below(conn: AsyncConnection, roots: Sequence[str]) -> Mapping[str, datetime]:
    if not roots:
        return {}
    statement = text(
        """
        with recursive below (root, id, used) as (
            select t.parent_id, t.id, greatest(t.created_at, t.last_used_at) from token t
            where t.parent_id = any (:roots) and t.revoked_at is null
            union
            select b.root, t.id, greatest(t.created_at, t.last_used_at) from below b join token t on t.parent_id = b.id
            where t.revoked_at is null
        )
        select root, max(used) from below group by root
        """
    ).bindparams(bindparam("roots", type_=ARRAY(Text)))
    return {row[0]: row[1] for row in await conn.execute(statement, {"roots": list(roots)})}


async def purge_families(
    conn: AsyncConnection, changes: ChangeSet, *, keep: timedelta, limit: int, after: TokenId | None = None
) -> tuple[tuple[TokenId, ...], TokenId | None]:
    """Forget families that ended whole so long ago, and that nothing hangs under; what went, and where to go on.

    A family is its members, and stays as long as one of them is kept: by it a secret that is out is known.
    """
    before = select(authz_now - keep).scalar_subquery()
    ended = func.least(token.c.revoked_at, token.c.expires_at)
    some = select(token.c.family_id).where(ended < before)
    if after is not None:
        some = some.where(token.c.family_id > after)
    candidates = (await conn.execute(some.distinct().order_by(token.c.family_id).limit(limit))).scalars().all()
    if not candidates:
        return (), None
    chosen = literal(list(candidates), ARRAY(Text))
    member, child = token.alias("member"), token.alias("child")
    member_ended = func.least(member.c.revoked_at, member.c.expires_at)
    lives = exists().where(member.c.family_id == token.c.family_id, or_(member_ended.is_(None), member_ended >= before))
    hangs = exists().where(
        and_(
            member.c.family_id == token.c.family_id,
            child.c.parent_id == member.c.id,
            child.c.family_id != token.c.family_id,
        )
    )
    query = select(token.c.id).where(token.c.family_id == func.any(chosen), ~lives, ~hangs).with_for_update()
    ids = [TokenId(found) for found in (await conn.execute(query)).scalars()]
    gone = await _purge(conn, changes, ids, keep)
    return gone, TokenId(candidates[-1]) if len(candidates) == limit else None


async def purge_members(
    conn: AsyncConnection, changes: ChangeSet, *, keep: timedelta, limit: int
) -> tuple[tuple[TokenId, ...], TokenId | None]:
    """Forget members that were replaced and ended so long ago, of families that live on; but never the first one."""
    before = select(authz_now - keep).scalar_subquery()
    child = token.alias("child")
    query = (
        select(token.c.id, token.c.successor_id)
        .where(
            func.least(token.c.revoked_at, token.c.expires_at) < before,
            token.c.successor_id.is_not(None),
            token.c.id != token.c.family_id,
            ~exists().where(child.c.parent_id == token.c.id),
        )
        .order_by(token.c.created_at, token.c.id)
        .limit(limit)
        .with_for_update()
    )
    rows = (await conn.execute(query)).all()
    for row in rows:
        # Whoever it had replaced was replaced by the next one, as far as anybody can tell from now on.
        await conn.execute(update(token).where(token.c.successor_id == row.id).values(successor_id=row.successor_id))
    gone = await _purge(conn, changes, [TokenId(row.id) for row in rows], keep)
    return gone, TokenId(rows[-1].id) if len(rows) == limit and gone else None


async def _purge(
    conn: AsyncConnection, changes: ChangeSet, ids: Sequence[TokenId], keep: timedelta
) -> tuple[TokenId, ...]:
    if not ids:
        return ()
    chosen = literal(list(ids), ARRAY(Text))
    await conn.execute(delete(token_node).where(token_node.c.token_id == func.any(chosen)))
    # Not a delete: the service's role may have only what ended forgotten, by the owner of the tables.
    before = select(authz_now - keep).scalar_subquery()
    purged = select(func.purge_tokens(chosen, cast(before, DateTime(timezone=True))).column_valued("id"))
    gone = tuple(TokenId(found) for found in (await conn.execute(purged)).scalars())
    for one in gone:
        changes.touch(ChangeKind.TOKEN, one)
    return gone


async def count_by_kid(conn: AsyncConnection) -> Sequence[Mapping[str, Any]]:
    """`kid`, `prefix` (of other systems' secrets, else None), `living` and `ended`, of all tokens."""
    now = select(authz_now).scalar_subquery()
    lives = and_(token.c.revoked_at.is_(None), or_(token.c.expires_at.is_(None), token.c.expires_at > now))
    count = func.count()
    query = (
        select(
            token.c.kid,
            token.c.foreign_prefix.label("prefix"),
            cast(count.filter(lives), Integer).label("living"),
            cast(count.filter(~lives), Integer).label("ended"),
        )
        .group_by(token.c.kid, token.c.foreign_prefix)
        .order_by(token.c.kid, token.c.foreign_prefix.nulls_first())
    )
    return [dict(row) for row in (await conn.execute(query)).mappings()]
