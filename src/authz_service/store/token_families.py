"""Families of tokens: a rotation puts a new member in the place of an old one, which may go on for a while (T5)."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import and_, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.errors import ConflictError
from authz_service.store.changes import ChangeKind, ChangeSet
from authz_service.store.tables import authz_now, token
from authz_service.store.token_rows import TokenRecord, read_record
from authz_service.store.tokens import revoke
from authz_service.tokens.model import TokenId

_RECORD = tuple(column for column in token.c if column.name != "digest")


async def supersede(
    conn: AsyncConnection, changes: ChangeSet, old: TokenId, new: TokenId, *, overlap: timedelta, reason: str
) -> tuple[TokenId, ...]:
    """Have `new` stand in the place of `old`, whose children hang under it from here on; answers which they are.

    The old one ends after the overlap, or when it would have ended anyway; without an overlap it is revoked now. Hold
    it first (`tokens.get`, with its lock). Raises ConflictError when it was replaced or revoked before.
    """
    values: dict[str, object] = {"successor_id": new}
    if overlap:
        values["expires_at"] = func.least(token.c.expires_at, authz_now + overlap)
    done = await conn.execute(
        update(token)
        .where(token.c.id == old, token.c.revoked_at.is_(None), token.c.successor_id.is_(None))
        .values(values)
        .returning(token.c.id)
    )
    if done.scalar() is None:
        raise ConflictError("the token was replaced or revoked before")
    changes.touch(ChangeKind.TOKEN, old)
    if not overlap:
        await revoke(conn, changes, old, reason=reason)
    moved = await conn.execute(
        update(token).where(token.c.parent_id == old).values(parent_id=new).returning(token.c.id)
    )
    children = tuple(TokenId(found) for found in moved.scalars())
    for child in children:
        changes.touch(ChangeKind.TOKEN, child)
    return children


async def load_predecessors(conn: AsyncConnection, of: TokenRecord) -> tuple[TokenRecord, ...]:
    """The members that were replaced and still work beside this one, locked; none for one that was replaced itself."""
    if of.successor is not None:
        return ()
    ended = or_(token.c.revoked_at.is_not(None), and_(token.c.expires_at.is_not(None), token.c.expires_at <= authz_now))
    query = (
        select(*_RECORD)
        .where(token.c.family_id == of.family, token.c.id != of.token.id, token.c.successor_id.is_not(None), ~ended)
        .order_by(token.c.created_at, token.c.id)
        .with_for_update()
    )
    return tuple(read_record(row) for row in (await conn.execute(query)).mappings())


async def find_current(conn: AsyncConnection, record: TokenRecord) -> TokenRecord:
    """The member that stands in the place of this one now; itself where it was never replaced."""
    seen = {record.token.id}
    while record.successor is not None and record.successor not in seen:
        seen.add(record.successor)
        row = (await conn.execute(select(*_RECORD).where(token.c.id == record.successor))).mappings().one()
        record = read_record(row)
    return record
