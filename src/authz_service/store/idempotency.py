"""Answers kept by `Idempotency-Key`, so that a repeated creation creates once."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from datetime import timedelta

from sqlalchemy import delete, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.errors import IdempotencyConflictError
from authz_service.store.tables import authz_now, idempotency


async def claim(conn: AsyncConnection, *, key: str, caller: str, body_hash: bytes) -> Mapping[str, object] | None:
    """Before the work, in its transaction. None: do the work, then `keep` its answer. Else that answer: do nothing.

    Of two claims at once the second waits for the first's transaction, and gets the key if that one rolls back. Raises
    IdempotencyConflictError when the key came with another body, or its answer was not kept.
    """
    claimed = await conn.execute(
        insert(idempotency)
        .values(key=key, caller=caller, body_hash=body_hash)
        .on_conflict_do_nothing()
        .returning(idempotency.c.key)
    )
    if claimed.scalar() is not None:
        return None
    named = (idempotency.c.caller == caller, idempotency.c.key == key)
    row = (await conn.execute(select(idempotency.c.body_hash, idempotency.c.response).where(*named))).one_or_none()
    if row is not None and not hmac.compare_digest(row.body_hash, body_hash):
        raise IdempotencyConflictError("this idempotency key came with another body before; use a new key")
    if row is None or row.response is None:
        raise IdempotencyConflictError("the answer to this idempotency key was not kept; use a new key")
    response: Mapping[str, object] = row.response
    return response


async def keep(conn: AsyncConnection, *, key: str, caller: str, response: Mapping[str, object]) -> None:
    """Keep the answer with the work it tells of. It must hold no secret: it is stored in clear."""
    named = (idempotency.c.caller == caller, idempotency.c.key == key)
    await conn.execute(update(idempotency).where(*named).values(response=dict(response)))


async def prune(conn: AsyncConnection, *, older_than: timedelta = timedelta(hours=24)) -> int:
    """Forget what is older; answers how many."""
    done = await conn.execute(delete(idempotency).where(idempotency.c.created_at < authz_now - older_than))
    return done.rowcount
