"""Rows of who a user is elsewhere: an issuer's subject is one user, and a finished sign-in is finished once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert as upsert_into
from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.store.identity_tables import identity, identity_use
from authz_service.store.tables import authz_now


async def hold_user(conn: AsyncConnection, issuer: str, subject: str) -> int | None:
    """The node of the user that this subject is linked to until the transaction ends; None where it is to none."""
    query = select(identity.c.user_id).where(identity.c.issuer == issuer, identity.c.subject == subject)
    found: int | None = (await conn.execute(query.with_for_update(read=True))).scalar()
    return found


async def link(conn: AsyncConnection, issuer: str, subject: str, user: int) -> bool:
    """False, and nothing done, when the subject is linked to somebody already."""
    statement = upsert_into(identity).values(issuer=issuer, subject=subject, user_id=user)
    return bool((await conn.execute(statement.on_conflict_do_nothing().returning(identity.c.user_id))).first())


async def unlink(conn: AsyncConnection, issuer: str, user: int) -> Sequence[str]:
    """Forget every link of a user at this issuer; the subjects that they had."""
    statement = (
        delete(identity).where(identity.c.issuer == issuer, identity.c.user_id == user).returning(identity.c.subject)
    )
    return sorted((await conn.execute(statement)).scalars())


async def use(conn: AsyncConnection, digest: bytes, lifetime: timedelta) -> bool:
    """Note that a sign-in was finished; False when it was before. Those that nobody could repeat any more go."""
    await conn.execute(delete(identity_use).where(identity_use.c.expires_at <= authz_now))
    statement = upsert_into(identity_use).values(digest=digest, expires_at=authz_now + lifetime)
    return bool((await conn.execute(statement.on_conflict_do_nothing().returning(identity_use.c.digest))).first())
