"""Rotation: a new secret in the place of an old one, and what happens to who tries it with one that is out (T5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.admin.authority import Authority
from authz_service.admin.drafts import check_lifetime
from authz_service.admin.faults import Faults
from authz_service.admin.management import Actor, Management
from authz_service.admin.policy_checks import require_admitted
from authz_service.admin.stored import read_stored, require_below, require_works
from authz_service.admin.tokens import (
    Idempotency,
    Issued,
    entry_of,
    find_seen,
    require_may_issue,
    show_record,
)
from authz_service.errors import ConflictError, ForbiddenError, InvalidInputError
from authz_service.store import audit, changes, grants, idempotency, token_families, tokens, trust
from authz_service.store.changes import ChangeSet, Stamp, load_clock
from authz_service.store.events import EventKind, append_event, event_of_token
from authz_service.store.token_rows import TokenRecord
from authz_service.tokens.model import TokenId
from authz_service.tokens.secret import is_token_id, new_secret, new_token_id

ROTATE: Final = "token:rotate"
MOST_OVERLAP: Final = timedelta(days=7)
_ROTATED: Final = "rotated"
_REUSED: Final = "a secret that was rotated out was used to rotate once more"


@dataclass(frozen=True, slots=True)
class Rotation:
    """How: for how long the old secret works beside the new one, and an earlier end for the new one."""

    overlap: timedelta = timedelta()
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class _Reused:
    """The member was out already: its family was revoked, which must be committed before anybody is told."""

    revoked: tuple[TokenId, ...]


@dataclass(frozen=True, slots=True)
class _Rotated:
    issued: Issued
    stamp: Stamp | None = None


async def rotate_token(
    management: Management,
    actor: Actor,
    token_id: str,
    rotation: Rotation,
    repeat: Idempotency | None = None,
    *,
    wait: bool = False,
) -> Issued:
    """A new secret for a token, under a new id.

    Raises NotFoundError, ForbiddenError, InvalidInputError; ConflictError for a token that ended, and for one that was
    replaced: then, unless it still overlaps, what is left of its family is revoked. With `wait`, returns when no
    replica can allow by the old secret any more, where it ends at once.
    """

    async def work(conn: AsyncConnection) -> _Rotated | _Reused:
        authority = await Authority.open(conn, management, actor, hold=True)
        known = (await tokens.find_by_id(conn, TokenId(token_id))).record if is_token_id(token_id) else None
        if known is None or not await authority.may_for(ROTATE, known.token.owner):
            await find_seen(conn, authority, token_id)
            raise ForbiddenError(f"this token may not rotate that one: it needs `{ROTATE}` for its owner")
        if known.token.id == authority.token.id and known.token.parent is not None:
            raise ForbiddenError("a child token never rotates itself; issue a new one under its parent")
        return await _rotate(conn, management, authority, known.token.id, rotation, repeat, by_itself=False)

    return await _finish(management, await management.database.run_in_transaction(work), wait=wait)


async def rotate_self(
    management: Management, actor: Actor, rotation: Rotation, repeat: Idempotency | None = None, *, wait: bool = False
) -> Issued:
    """Like `rotate_token`, by the token's own secret alone. Raises ForbiddenError unless it is flagged for it."""

    async def work(conn: AsyncConnection) -> _Rotated | _Reused:
        authority = await Authority.open(conn, management, actor, hold=True)
        record = await tokens.get(conn, authority.token.id, lock=True)
        if record.token.parent is not None:
            raise ForbiddenError("a child token never rotates itself; issue a new one under its parent")
        if not record.may_rotate_self:
            raise ForbiddenError("this token may not rotate itself: whoever manages it can set `may_rotate_self`")
        return await _rotate(conn, management, authority, record.token.id, rotation, repeat, by_itself=True)

    return await _finish(management, await management.database.run_in_transaction(work), wait=wait)


async def note_reuse(management: Management, secret: str) -> bool:
    """Whether this secret, which was to be rotated by itself and was turned away, ended its family now.

    It does where it is a member that is out. Say nothing of it to who asked.
    """
    digest = management.peppers.digest(secret)
    if digest is None:
        return False

    async def work(conn: AsyncConnection) -> bool:
        found = (await tokens.find_by_digest(conn, digest, memberships=False)).record
        if found is None:
            return False
        record = await tokens.get(conn, found.token.id, lock=True)
        now = await load_clock(conn)
        if not _is_out(record, now):
            return False
        return bool(await _revoke_family(conn, record, None))

    return await management.database.run_in_transaction(work)


async def _finish(management: Management, done: _Rotated | _Reused, *, wait: bool) -> Issued:
    if isinstance(done, _Reused):
        also = f", and {len(done.revoked)} tokens that came of it are revoked now" if done.revoked else ""
        raise ConflictError(f"this token is out already{also}; issue a new one")
    if wait and done.stamp is not None:
        await management.settled(done.stamp)
    return done.issued


async def _rotate(
    conn: AsyncConnection,
    management: Management,
    authority: Authority,
    token_id: TokenId,
    rotation: Rotation,
    repeat: Idempotency | None,
    *,
    by_itself: bool,
) -> _Rotated | _Reused:
    """Under the locks of `tokens.get`: of two that rotate the same token the second finds it replaced."""
    claimed = None if repeat is None else {"key": repeat.key, "caller": authority.token.id}
    if repeat is not None and claimed is not None:
        kept = await idempotency.claim(conn, **claimed, body_hash=repeat.body_hash(f"token.rotate {token_id}"))
        if kept is not None:
            return _Rotated(Issued(kept, None))
    record = await tokens.get(conn, token_id, lock=True)
    if _is_out(record, authority.world.now):
        return _Reused(await _revoke_family(conn, record, authority))
    if record.successor is not None:
        raise ConflictError(f"this token was replaced by `{record.successor}`; rotate that one")
    await require_works(authority, record.token)
    if not by_itself:
        await require_below(conn, authority, record.token)
        await require_may_issue(authority, await read_stored(conn, management, authority, record.token), ROTATE)
    issued, stamp = await _replace(conn, management, authority, record, rotation)
    if claimed is not None:
        await idempotency.keep(conn, **claimed, response=issued.token)
    return _Rotated(issued, stamp)


async def _replace(
    conn: AsyncConnection, management: Management, authority: Authority, record: TokenRecord, rotation: Rotation
) -> tuple[Issued, Stamp]:
    token, now = record.token, authority.world.now
    ends_at = _end(management, token.expires_at, rotation, now)
    new = replace(token, id=new_token_id(), created_at=now, expires_at=ends_at)
    secret = new_secret(management.peppers.prefix, management.peppers.current)
    digest = management.peppers.digest(secret.reveal())
    if digest is None:
        raise AssertionError("a new secret has a digest")
    made = TokenRecord(
        token=new,
        kid=management.peppers.current,
        family=record.family,
        reason=record.reason,
        may_rotate_self=record.may_rotate_self,
        created_by_token=authority.token.id,
        created_by_user=authority.user_id,
    )
    await require_admitted(conn, authority, new)
    made = await tokens.insert(conn, made, digest)
    touched = ChangeSet()
    moved = await token_families.supersede(conn, touched, token.id, new.id, overlap=rotation.overlap, reason=_ROTATED)
    await _carry_over(conn, touched, token.id, new.id)
    # Last of the locks: whoever decides about the family's grants has told the secrets that it knows of, and waits for
    # nothing but the log. Unless they wait for each other, the new secret is none of those.
    await grants.hold(conn, record.family)
    stamp = await changes.append(conn, touched)
    details = {"by": new.id, "overlap_seconds": int(rotation.overlap.total_seconds()), "children": list(moved)}
    await audit.insert(conn, entry_of("token.rotate", record, authority, details), stamp)
    await append_event(conn, event_of_token(EventKind.TOKEN_ROTATED, token, by=new.id))
    shown = await show_record(conn, authority, made, stamp)
    return Issued(shown, secret.reveal()), stamp


async def _carry_over(
    conn: AsyncConnection,
    touched: ChangeSet,  # noqa: ARG001 - for what a cache knows by the old id
    old: TokenId,
    new: TokenId,
) -> None:
    """What others keep about a token by its id and not by its family, taken along by the new one."""
    await trust.carry_over(conn, old, new)


def _end(management: Management, old: datetime | None, rotation: Rotation, now: datetime) -> datetime | None:
    """Rule T5: never later. Raises InvalidInputError."""
    faults = Faults()
    wanted = rotation.expires_at
    if wanted is not None and wanted <= now:
        faults.add("/expires_at", "in_past", "the token would have expired already; choose a later date")
    elif wanted is not None and old is not None and wanted > old:
        ends = old.isoformat().replace("+00:00", "Z")
        message = f"rotation never moves the end of a token, {ends}, to a later date; edit the token for that"
        faults.add("/expires_at", "later", message)
    ends_at = old if wanted is None else wanted
    if not faults:
        check_lifetime(ends_at, now, management.limits, faults)
    if not timedelta() <= rotation.overlap <= MOST_OVERLAP:
        raise InvalidInputError(f"the overlap is 0 to {int(MOST_OVERLAP.total_seconds())} seconds")
    faults.raise_any("the rotation")
    return ends_at


def _is_out(record: TokenRecord, now: datetime) -> bool:
    """Revoked, or replaced and past its overlap: nobody who is to have it rotates such a token."""
    token = record.token
    if token.revoked_at is not None:
        return True
    return record.successor is not None and token.expires_at is not None and token.expires_at <= now


async def _revoke_family(
    conn: AsyncConnection, record: TokenRecord, authority: Authority | None
) -> tuple[TokenId, ...]:
    touched = ChangeSet()
    revoked = await tokens.revoke_family(conn, touched, record.family, reason=_REUSED)
    if not revoked:
        return ()
    stamp = await changes.append(conn, touched)
    details: Mapping[str, object] = {"family": record.family, "revoked": list(revoked)}
    entry = (
        audit.AuditEntry("token.reuse", record.token.id, details=details)
        if authority is None
        else entry_of("token.reuse", record, authority, details)
    )
    await audit.insert(conn, entry, stamp)
    await append_event(conn, event_of_token(EventKind.TOKEN_REUSED, record.token, revoked=len(revoked)))
    return revoked
