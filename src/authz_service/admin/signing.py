"""Ways in: a password, a one-time link, a token, a provider's word; each ends in a session or says no more than no."""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.admin.faults import shown
from authz_service.admin.id_tokens import Account
from authz_service.admin.management import Management
from authz_service.admin.passwords import Attempts, Passwords
from authz_service.admin.sessions import (
    Timeouts,
    Visitor,
    end_all_of,
    open_for_token,
    open_session,
    require_person,
)
from authz_service.directory.model import DEFAULT_SOURCE, User, UserState
from authz_service.errors import (
    ConflictError,
    Fault,
    ForbiddenError,
    InvalidInputError,
    NotFoundError,
    UnauthenticatedError,
)
from authz_service.pdp.check import DecisionPoint
from authz_service.store import audit, directory, identities, sessions
from authz_service.store.sessions import OpenedBy
from authz_service.tokens.policy import MANAGEMENT

_WRONG_PASSWORD: Final = "the username or the password is not right"
_WRONG_TOKEN: Final = "this token does not work here; check that it was copied whole, or sign in another way"
_REPEATED: Final = "this sign-in was finished already; begin once more"
_USE_KEPT: Final = timedelta(hours=1)
"""Longer than a sign-in may take, so that none comes back after it was forgotten."""
_WRONG_LINK: Final = "this link was used already or is too old; ask for another one"


async def sign_in_by_password(
    management: Management,
    passwords: Passwords,
    attempts: Attempts,
    name: str,
    text: str,
    timeouts: Timeouts,
    visitor: Visitor,
) -> str:
    """What the cookie of a new session holds. Raises UnauthenticatedError in the same words whatever is wrong.

    It takes as long for a name that nobody has. Raises RateLimitedError after too many failures.
    """
    attempts.require_left(name, visitor.address)
    async with management.database.read() as conn:
        user = await _find(conn, name) if name else None
        hashed = None if user is None else await sessions.find_password(conn, int(user.id))
    right = await passwords.verify(text, hashed)
    if not right or user is None or user.state is not UserState.ACTIVE or user.service_account:
        attempts.note_failure(name, visitor.address)
        raise UnauthenticatedError(_WRONG_PASSWORD)

    async def work(conn: AsyncConnection) -> str:
        # Once more, in the transaction: who was blocked meanwhile gets no session, nor does a password that was
        # replaced. Whoever replaces it from here on waits, and ends this session too.
        await directory.hold_still(conn)
        again = await _find(conn, name)
        if again is None or again.id != user.id or again.state is not UserState.ACTIVE:
            raise UnauthenticatedError(_WRONG_PASSWORD)
        if await sessions.find_password(conn, int(user.id), hold=True) != hashed:
            raise UnauthenticatedError(_WRONG_PASSWORD)
        return await open_session(conn, management, again, OpenedBy.PASSWORD, timeouts, visitor)

    return await management.database.run_in_transaction(work)


async def sign_in_by_token(
    management: Management,
    point: DecisionPoint,
    attempts: Attempts,
    secret: str,
    timeouts: Timeouts,
    visitor: Visitor,
) -> str:
    """A session that may what this token may, and ends with it at the latest.

    Raises UnauthenticatedError for whatever is no valid token, ForbiddenError for one that manages nothing.
    """
    attempts.require_left("", visitor.address)
    try:
        token = await point.authenticate(secret, client_address=visitor.address)
    except UnauthenticatedError:
        attempts.note_failure("", visitor.address)
        raise UnauthenticatedError(_WRONG_TOKEN) from None
    if MANAGEMENT not in token.catalogs or not isinstance(token.owner, int):
        raise ForbiddenError(
            f"this token is not for managing: it holds nothing of the catalog `{MANAGEMENT}`; show one that does"
        )

    async def work(conn: AsyncConnection) -> str:
        user = (await directory.load_user(conn, int(token.owner))).user
        if user is None:
            raise UnauthenticatedError(_WRONG_TOKEN)
        return await open_for_token(conn, token, user, timeouts, visitor)

    return await management.database.run_in_transaction(work)


async def sign_in_by_link(
    management: Management, attempts: Attempts, code: str, timeouts: Timeouts, visitor: Visitor
) -> str:
    """A session of the user that the link was made for; the link works no second time. Raises UnauthenticatedError."""
    attempts.require_left("", visitor.address)

    async def work(conn: AsyncConnection) -> str | None:
        node = await sessions.use_link(conn, _digest(code))
        user = None if node is None else (await directory.load_user(conn, node)).user
        if user is None or user.state is not UserState.ACTIVE:
            return None
        return await open_session(conn, management, user, OpenedBy.LINK, timeouts, visitor)

    cookie = await management.database.run_in_transaction(work)
    if cookie is None:
        attempts.note_failure("", visitor.address)
        raise UnauthenticatedError(_WRONG_LINK)
    return cookie


async def sign_in_by_account(
    management: Management, account: Account, timeouts: Timeouts, visitor: Visitor, *, source: str = DEFAULT_SOURCE
) -> str:
    """A session of the user that this proven account is: the one linked to it, else the one with its external id.

    Raises UnauthenticatedError in the same words for an account that nobody here has and for a user who may not sign
    in; for the same sign-in a second time, too. No name and no e-mail address ever leads to a user.
    """

    async def work(conn: AsyncConnection) -> str:
        await directory.hold_still(conn)
        # Whoever unlinks it from here on waits, and ends this session too.
        node = await identities.hold_user(conn, account.issuer, account.subject)
        user: User | None = None
        if node is not None:
            user = (await directory.load_user(conn, node)).user
        elif account.named is not None:
            user = (await directory.find_user(conn, source=source, external_id=account.named)).user
        if user is None or user.state is not UserState.ACTIVE or user.service_account:
            raise UnauthenticatedError(
                f"nobody here has the account `{shown(account.subject)}`; ask whoever runs the service to add you, and"
                " name it to them"
            )
        if not await identities.use(conn, account.digest, _USE_KEPT):
            raise UnauthenticatedError(_REPEATED)
        return await open_session(conn, management, user, OpenedBy.OPENID, timeouts, visitor)

    return await management.database.run_in_transaction(work)


async def link_account(
    management: Management, name: str, issuer: str, subject: str, *, source: str = DEFAULT_SOURCE
) -> str:
    """Say that an account at a provider is this user's. From the database's side, like a password.

    Raises NotFoundError, InvalidInputError, and ConflictError for a service account or an account that is linked.
    """
    if not 0 < len(subject) <= 255 or not subject.isprintable() or subject != subject.strip():
        fault = Fault("/subject", "invalid_value", "write the subject as the provider does, 255 characters at most")
        raise InvalidInputError("the account cannot be linked", faults=[fault])

    async def work(conn: AsyncConnection) -> str:
        user = await _person(conn, name, source)
        if not await identities.link(conn, issuer, subject, int(user.id)):
            raise ConflictError(f"`{shown(subject)}` is somebody's account already; unlink that user first")
        details = {"issuer": issuer, "subject": subject}
        await audit.insert(conn, audit.AuditEntry("identity.link", f"user:{user.username}", details=details))
        return user.username

    return await management.database.run_in_transaction(work)


async def unlink_accounts(management: Management, name: str, issuer: str, *, source: str = DEFAULT_SOURCE) -> int:
    """Forget which accounts at a provider are this user's; all their sessions end. How many there were."""

    async def work(conn: AsyncConnection) -> int:
        await directory.hold_still(conn)
        user = await _person(conn, name, source)
        gone = await identities.unlink(conn, issuer, int(user.id))
        stamp = await end_all_of(conn, int(user.id), reason="an account was unlinked")
        details = {"issuer": issuer, "subjects": list(gone)}
        await audit.insert(conn, audit.AuditEntry("identity.unlink", f"user:{user.username}", details=details), stamp)
        return len(gone)

    return await management.database.run_in_transaction(work)


async def make_link(management: Management, name: str, lifetime: timedelta, *, source: str = DEFAULT_SOURCE) -> str:
    """The code of a link that signs a user in once. From the database's side: who has that may make one for anybody.

    Raises NotFoundError, and ConflictError for a service account.
    """
    code = secrets.token_urlsafe(32)

    async def work(conn: AsyncConnection) -> None:
        user = await _person(conn, name, source)
        await sessions.insert_link(conn, _digest(code), int(user.id), lifetime)
        entry = audit.AuditEntry("session.link", f"user:{user.username}", details={"seconds": lifetime.total_seconds()})
        await audit.insert(conn, entry)

    await management.database.run_in_transaction(work)
    return code


async def set_password(
    management: Management, passwords: Passwords, name: str, text: str, *, source: str = DEFAULT_SOURCE
) -> str:
    """Give a user a password, from the database's side; all their sessions end. Answers the username as it is written.

    Raises InvalidInputError for a password that will not do, NotFoundError, and ConflictError for a service account.
    """
    async with management.database.read() as conn:
        await _person(conn, name, source)  # said before a second is spent on the hash
    hashed = await passwords.hash(text)

    async def work(conn: AsyncConnection) -> str:
        await directory.hold_still(conn)
        user = await _person(conn, name, source)
        await sessions.set_password(conn, int(user.id), hashed)
        stamp = await end_all_of(conn, int(user.id), reason="the password was set anew")
        await audit.insert(conn, audit.AuditEntry("password.set", f"user:{user.username}"), stamp)
        return user.username

    return await management.database.run_in_transaction(work)


async def _find(conn: AsyncConnection, name: str, source: str = DEFAULT_SOURCE) -> User | None:
    return (await directory.find_user(conn, source=source, username=name)).user


async def _person(conn: AsyncConnection, name: str, source: str) -> User:
    user = await _find(conn, name, source)
    if user is None or user.state is UserState.DELETED:
        raise NotFoundError(f"there is no user `{shown(name)}`; import them into the directory first")
    require_person(user)
    return user


def _digest(code: str) -> bytes:
    return hashlib.sha256(b"authz link\n" + code.encode("utf-8", "replace")).digest()
