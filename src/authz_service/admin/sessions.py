"""Sessions of people: each a short-lived token of its user, decided again on every request (M3)."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.admin.authority import SESSION, Authority
from authz_service.admin.management import Actor, Management
from authz_service.catalog.model import Catalog
from authz_service.directory.model import NodeKind, User, UserState
from authz_service.errors import ConflictError, StartError, UnauthenticatedError
from authz_service.store import audit, changes, directory, sessions, tokens
from authz_service.store.changes import ChangeSet, Stamp, load_clock
from authz_service.store.sessions import NewSession, OpenedBy, SessionRow
from authz_service.store.token_rows import TokenRecord
from authz_service.tokens.model import Reach, ReachKind, Scope, Token, TokenId
from authz_service.tokens.policy import EVALUATE, MANAGEMENT
from authz_service.tokens.secret import new_secret, new_token_id

_LONGEST_AGENT: Final = 200


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long a session may be left alone, and how long it lasts at all."""

    idle: timedelta = timedelta(minutes=30)
    absolute: timedelta = timedelta(hours=12)


@dataclass(frozen=True, slots=True)
class Visitor:
    """From where a request came; `agent` is what the browser says of itself, told to its user and nothing more."""

    address: str | None = None
    agent: str = ""


@dataclass(frozen=True, slots=True)
class Session:
    """An open session and whose it is. `actor` is who acts: a token, judged again by each thing that it does."""

    digest: bytes
    actor: Actor
    username: str
    admin: bool
    opened_by: OpenedBy
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class SessionView:
    """One of a user's open sessions, as that user sees it. `key` names it in a form, and opens nothing."""

    key: str
    opened_by: OpenedBy
    created_at: datetime
    seen_at: datetime
    expires_at: datetime
    address: str | None
    agent: str
    current: bool


def digest_of(cookie: str) -> bytes:
    """What is kept of a cookie. It has 256 random bits, so that a plain hash is enough."""
    return hashlib.sha256(b"authz session\n" + cookie.encode("utf-8", "replace")).digest()


async def open_session(
    conn: AsyncConnection, management: Management, user: User, by: OpenedBy, timeouts: Timeouts, visitor: Visitor
) -> str:
    """A new session of a user, with a token that exists for it alone; answers what the cookie holds.

    The token's secret is shown to nobody: it works through the session, and ends with it.
    """
    await directory.hold_still(conn)
    now = await load_clock(conn)
    secret = new_secret(management.peppers.prefix, management.peppers.current)
    token_digest = management.peppers.digest(secret.reveal())
    if token_digest is None:
        raise AssertionError("a new secret has a digest")
    catalog = own_catalog(management)
    token = Token(
        id=new_token_id(),
        owner=user.id,
        catalogs={catalog.name: catalog.version},
        scopes=session_scopes(catalog),
        name=SESSION,
        expires_at=now + timeouts.absolute,
    )
    record = TokenRecord(token, management.peppers.current, token.id, reason=f"signed in by {by.value}")
    await tokens.insert(conn, record, token_digest)
    return await _insert(conn, token.id, user, by, now + timeouts.absolute, visitor)


async def open_for_token(conn: AsyncConnection, token: Token, user: User, timeouts: Timeouts, visitor: Visitor) -> str:
    """A session that stands for a token which somebody holds already, and may what that may. The token outlives it."""
    now = await load_clock(conn)
    end = now + timeouts.absolute
    return await _insert(conn, token.id, user, OpenedBy.TOKEN, min(end, token.expires_at or end), visitor)


async def _insert(
    conn: AsyncConnection, token: TokenId, user: User, by: OpenedBy, end: datetime, visitor: Visitor
) -> str:
    cookie = secrets.token_urlsafe(32)
    agent = "".join(letter for letter in visitor.agent if letter.isprintable())[:_LONGEST_AGENT]
    await sessions.insert(conn, NewSession(digest_of(cookie), token, int(user.id), by, end, visitor.address, agent))
    details = {"by": by.value, "address": visitor.address}
    entry = audit.AuditEntry("session.open", token, actor_token=token, actor_user=int(user.id), details=details)
    await audit.insert(conn, entry)
    return cookie


async def find_session(management: Management, cookie: str, timeouts: Timeouts, visitor: Visitor) -> Session | None:
    """The open session of a cookie; None when there is none any more. Each use of it is told to `touch` by this."""
    if not 0 < len(cookie) <= 100:
        return None
    digest = digest_of(cookie)
    async with management.database.read() as conn:
        row = await sessions.find(conn, digest, timeouts.idle)
        if row is None:
            return None
        reading = await tokens.find_by_id(conn, row.token, memberships=False)
    if reading.record is None or reading.owner is None or reading.owner.state is not UserState.ACTIVE:
        return None
    if row.unnoted:
        async with management.database.transaction() as conn:
            await sessions.touch(conn, digest)
    actor = Actor(reading.record.token, visitor.address)
    owner = reading.owner
    return Session(digest, actor, owner.username, owner.admin, row.opened_by, row.expires_at)


async def end_session(management: Management, session: Session) -> None:
    """Sign out: the session ends, and its own token is revoked; a pasted token lives on."""

    async def work(conn: AsyncConnection) -> None:
        rows = [row for row in await _rows_of(conn, session) if row.digest == session.digest]
        await _end(conn, session, rows)

    await management.database.run_in_transaction(work)


async def end_all_sessions(management: Management, session: Session) -> None:
    """Sign out everywhere: every session of the user ends, or of the token that was pasted, which is no more than that.

    Raises UnauthenticatedError when this one has ended.
    """

    async def work(conn: AsyncConnection) -> None:
        await Authority.open(conn, management, session.actor, hold=True)
        if session.opened_by is OpenedBy.TOKEN:
            await _end(conn, session, await _rows_of(conn, session))
        else:
            await end_all_of(conn, _user_of(session), reason="signed out everywhere", actor=session.actor.token.id)

    await management.database.run_in_transaction(work)


async def end_one_session(management: Management, session: Session, key: str) -> None:
    """End one of the user's own sessions by the key that `list_sessions` gave; nothing happens for any other key."""

    async def work(conn: AsyncConnection) -> None:
        await Authority.open(conn, management, session.actor, hold=True)
        rows = [row for row in await _rows_of(conn, session) if _key(row) == key]
        await _end(conn, session, rows)

    await management.database.run_in_transaction(work)


async def list_sessions(management: Management, session: Session, timeouts: Timeouts) -> Sequence[SessionView]:
    """The open sessions of the very user who asks, or of the token that was pasted."""
    async with management.database.snapshot() as conn:
        await Authority.open(conn, management, session.actor, hold=False)
        rows = await _rows_of(conn, session, timeouts.idle)
    return [
        SessionView(
            _key(row),
            row.opened_by,
            row.created_at,
            row.seen_at,
            row.expires_at,
            row.address,
            row.agent,
            row.digest == session.digest,
        )
        for row in rows
    ]


async def end_all_of(conn: AsyncConnection, user: int, *, reason: str, actor: TokenId | None = None) -> Stamp:
    """End every session of a user in this transaction; answers the revision from which on none of them may act."""
    rows = await sessions.end_of_user(conn, user)
    stamp = await _revoke(conn, rows, reason)
    if rows:
        details = {"sessions": len(rows), "reason": reason}
        entry = audit.AuditEntry("session.end_all", f"user:{user}", actor, user if actor else None, details)
        await audit.insert(conn, entry, stamp)
    return stamp


async def _rows_of(
    conn: AsyncConnection, session: Session, idle: timedelta = timedelta(days=3650)
) -> Sequence[SessionRow]:
    """The user's; for a session by a pasted token, those by that very token: nothing is known of what else it may."""
    rows = await sessions.load_of_user(conn, _user_of(session), idle)
    if session.opened_by is not OpenedBy.TOKEN:
        return rows
    return [row for row in rows if row.opened_by is OpenedBy.TOKEN and row.token == session.actor.token.id]


async def _end(conn: AsyncConnection, session: Session, rows: Sequence[SessionRow]) -> None:
    if not rows:
        return
    await sessions.end(conn, [row.digest for row in rows])
    stamp = await _revoke(conn, rows, "signed out")
    user = _user_of(session)
    for row in rows:
        entry = audit.AuditEntry("session.end", row.token, actor_token=session.actor.token.id, actor_user=user)
        await audit.insert(conn, entry, stamp)


async def _revoke(conn: AsyncConnection, rows: Sequence[SessionRow], reason: str) -> Stamp:
    touched = ChangeSet()
    for row in rows:
        if row.opened_by is not OpenedBy.TOKEN:
            await tokens.revoke(conn, touched, row.token, reason=reason)
    return await changes.append(conn, touched)


def _key(row: SessionRow) -> str:
    return hashlib.sha256(b"key\n" + row.digest).hexdigest()[:24]


def _user_of(session: Session) -> int:
    owner = session.actor.token.owner
    if not isinstance(owner, int):
        raise UnauthenticatedError("sign in again")
    return owner


def own_catalog(management: Management) -> Catalog:
    """The newest catalog of management itself. Raises StartError where the installation lacks it."""
    known = [catalog for catalog in management.shipped if catalog.name == MANAGEMENT]
    if not known:
        raise StartError("this installation lacks its own catalog; install the package again")
    return known[-1]


def session_scopes(catalog: Catalog) -> tuple[Scope, ...]:
    """All of management wherever the user's own role allows it; asking for decisions is a gateway's work."""
    reaches = {
        NodeKind.INSTANCE: ReachKind.INSTANCE,
        NodeKind.GROUP: ReachKind.ALL_MEMBERSHIPS,
        NodeKind.USER: ReachKind.USER,
    }
    return tuple(
        Scope(
            catalog.name,
            Reach(reach),
            tuple(one.name for one in catalog.permissions if boundary in one.boundaries and one.name != EVALUATE),
        )
        for boundary, reach in reaches.items()
    )


def require_person(user: User) -> None:
    """Raises ConflictError for a service account: it has tokens, and nobody who would sign in."""
    if user.service_account:
        raise ConflictError(f"`{user.username}` is a service account, which does not sign in; issue it a token")
