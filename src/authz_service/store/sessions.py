"""Rows of people who sign in: password hashes, one-time links, open sessions and the token that each stands for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy import insert as insert_into
from sqlalchemy.dialects.postgresql import insert as upsert_into
from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.store.session_tables import password, session, sign_in_link
from authz_service.store.tables import authz_now, token
from authz_service.tokens.model import TokenId

_SEEN_AGAIN: Final = timedelta(minutes=1)
"""A session in use writes its row this often at most."""
_KEPT: Final = timedelta(days=1)


class OpenedBy(StrEnum):
    """How somebody signed in. By TOKEN the session stands for that very token; else for one made for it alone."""

    PASSWORD = "password"
    LINK = "link"
    TOKEN = "token"
    OPENID = "openid"


@dataclass(frozen=True, slots=True)
class NewSession:
    """`digest` is that of what the cookie holds; `address` and `agent` are told to the user and decide nothing."""

    digest: bytes
    token: TokenId
    user: int
    opened_by: OpenedBy
    expires_at: datetime
    address: str | None = None
    agent: str = ""


@dataclass(frozen=True, slots=True)
class SessionRow:
    """An open session. `unnoted` says that its last use is a while ago: call `touch`."""

    digest: bytes
    token: TokenId
    user: int
    opened_by: OpenedBy
    created_at: datetime
    seen_at: datetime
    expires_at: datetime
    address: str | None
    agent: str
    unnoted: bool = False


# passwords


async def find_password(conn: AsyncConnection, user: int, *, hold: bool = False) -> str | None:
    """The hash of a user's password; None where none was set. `hold` keeps it so until the transaction ends."""
    query = select(password.c.hash).where(password.c.user_id == user)
    found: str | None = (await conn.execute(query.with_for_update(read=True) if hold else query)).scalar()
    return found


async def set_password(conn: AsyncConnection, user: int, hashed: str) -> None:
    statement = upsert_into(password).values(user_id=user, hash=hashed)
    await conn.execute(
        statement.on_conflict_do_update(
            index_elements=[password.c.user_id], set_={"hash": hashed, "changed_at": authz_now}
        )
    )


# one-time links


async def insert_link(conn: AsyncConnection, digest: bytes, user: int, lifetime: timedelta) -> None:
    """Those that have expired go at the same time."""
    await conn.execute(delete(sign_in_link).where(sign_in_link.c.expires_at <= authz_now))
    await conn.execute(insert_into(sign_in_link).values(digest=digest, user_id=user, expires_at=authz_now + lifetime))


async def use_link(conn: AsyncConnection, digest: bytes) -> int | None:
    """The user of a link that was not used yet and has not expired; it works for nobody after."""
    statement = (
        delete(sign_in_link)
        .where(sign_in_link.c.digest == digest)
        .returning(sign_in_link.c.user_id, (sign_in_link.c.expires_at > authz_now).label("fresh"))
    )
    row = (await conn.execute(statement)).one_or_none()
    return int(row.user_id) if row is not None and row.fresh else None


# sessions


async def insert(conn: AsyncConnection, new: NewSession) -> None:
    """Sessions that ended a day ago are forgotten at the same time."""
    await conn.execute(delete(session).where(session.c.expires_at < authz_now - _KEPT))
    await conn.execute(
        insert_into(session).values(
            digest=new.digest,
            token_id=new.token,
            user_id=new.user,
            opened_by=new.opened_by.value,
            expires_at=new.expires_at,
            address=new.address,
            agent=new.agent,
        )
    )


async def find(conn: AsyncConnection, digest: bytes, idle: timedelta) -> SessionRow | None:
    """The session, while it is open: neither too old, nor left alone for longer than `idle`, nor its token revoked."""
    found = await _load(conn, session.c.digest == digest, idle)
    return found[0] if found else None


async def load_of_user(conn: AsyncConnection, user: int, idle: timedelta) -> Sequence[SessionRow]:
    """A user's open sessions, the newest first."""
    return await _load(conn, session.c.user_id == user, idle)


async def _load(conn: AsyncConnection, which: ColumnElement[bool], idle: timedelta) -> list[SessionRow]:
    now = select(authz_now).scalar_subquery()
    query = (
        select(session, (session.c.seen_at < now - _SEEN_AGAIN).label("unnoted"))
        .join(token, token.c.id == session.c.token_id)
        .where(which, session.c.expires_at > now, session.c.seen_at > now - idle, token.c.revoked_at.is_(None))
        .order_by(session.c.created_at.desc(), session.c.digest)
    )
    return [_read(row) for row in (await conn.execute(query)).mappings()]


def _read(row: Any) -> SessionRow:
    return SessionRow(
        digest=bytes(row["digest"]),
        token=TokenId(row["token_id"]),
        user=row["user_id"],
        opened_by=OpenedBy(row["opened_by"]),
        created_at=row["created_at"],
        seen_at=row["seen_at"],
        expires_at=row["expires_at"],
        address=row["address"],
        agent=row["agent"],
        unnoted=row.get("unnoted", False),
    )


async def touch(conn: AsyncConnection, digest: bytes) -> None:
    """Note that the session is in use; at most one write a minute for each."""
    await conn.execute(
        update(session)
        .where(session.c.digest == digest, session.c.seen_at < authz_now - _SEEN_AGAIN)
        .values(seen_at=authz_now)
    )


async def end(conn: AsyncConnection, digests: Sequence[bytes]) -> None:
    """Forget sessions; their tokens are revoked by the caller, in the same transaction."""
    await conn.execute(delete(session).where(session.c.digest.in_(digests)))


async def end_of_user(conn: AsyncConnection, user: int) -> Sequence[SessionRow]:
    """Forget all of a user's sessions, those that timed out too; answers what they were."""
    rows = (await conn.execute(delete(session).where(session.c.user_id == user).returning(session))).mappings().all()
    return [_read(row) for row in rows]


async def end_everybody(conn: AsyncConnection) -> Sequence[SessionRow]:
    """Forget all sessions and all links to sign in by; answers what the sessions were."""
    await conn.execute(delete(sign_in_link))
    rows = (await conn.execute(delete(session).returning(session))).mappings().all()
    return [_read(row) for row in rows]


async def is_own_token(conn: AsyncConnection, token_id: TokenId) -> bool:
    """Whether a token was made for a session, and is no token that somebody pasted."""
    query = select(func.count()).where(session.c.token_id == token_id, session.c.opened_by != OpenedBy.TOKEN.value)
    return bool((await conn.execute(query)).scalar_one())
