"""Clones: a token like another one, of a family of its own, by the right to create it (M2)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.admin.authority import Authority
from authz_service.admin.drafts import ANY_NAME, TokenDraft, check_lifetime, check_plain
from authz_service.admin.faults import Faults, shown
from authz_service.admin.issuing import CREATE, Issue, works
from authz_service.admin.management import Actor, Management
from authz_service.admin.places import find_user
from authz_service.admin.stored import read_stored, require_below
from authz_service.admin.tokens import (
    Idempotency,
    Issued,
    find_seen,
    may_see_whole,
    new_record,
    once,
    require_may_issue,
    require_room,
    store_new,
)
from authz_service.directory.model import DEFAULT_SOURCE, NodeId, UserState
from authz_service.errors import ForbiddenError
from authz_service.tokens.model import Token
from authz_service.tokens.secret import new_token_id


@dataclass(frozen=True, slots=True)
class CloneDraft:
    """What is to differ; None is as the other token has it. `keep_end` says that `expires_at` was not given."""

    name: str | None = None
    owner: str | None = None
    reason: str | None = None
    expires_at: datetime | None = None
    keep_end: bool = True


async def clone_token(
    management: Management, actor: Actor, token_id: str, draft: CloneDraft, repeat: Idempotency | None = None
) -> Issued:
    """A new token with the scopes, conditions and flags of another, which may have ended.

    Raises NotFoundError, ForbiddenError (the whole of the other token must be the actor's to see), InvalidInputError,
    ConflictError.
    """

    async def work(conn: AsyncConnection) -> Issued:
        authority = await Authority.open(conn, management, actor, hold=True)
        authority.require_holds(CREATE)
        record = await find_seen(conn, authority, token_id)
        if not await may_see_whole(authority, record):
            raise ForbiddenError("this token sees only a part of that one; it takes `token:read` for its owner")

        async def issue() -> Issued:
            found = await _read(conn, management, authority, record.token, draft)
            await require_below(conn, authority, found.token)
            await require_may_issue(authority, found)
            await require_room(conn, management, found.token.owner)
            reason = record.reason if draft.reason is None else draft.reason
            new = new_record(management, authority, found, reason, may_rotate_self=record.may_rotate_self)
            return await store_new(conn, management, authority, new, "token.clone", of=record.token.id)

        return await once(conn, actor, f"token.clone {token_id}", repeat, issue)

    return await management.database.run_in_transaction(work)


async def _read(
    conn: AsyncConnection, management: Management, authority: Authority, token: Token, draft: CloneDraft
) -> Issue:
    faults, now = Faults(), authority.world.now
    stored = await read_stored(conn, management, authority, token)
    ends_at = token.expires_at if draft.keep_end else draft.expires_at
    plain = TokenDraft(ANY_NAME if draft.name is None else draft.name, reason=draft.reason or "", expires_at=ends_at)
    check_plain(plain, management.limits, now, faults)
    check_lifetime(ends_at, now, management.limits, faults)
    owner = await _read_owner(authority, stored, draft.owner, faults)
    above = None if stored.parent is None else await authority.world.ancestors(stored.parent)
    if stored.parent is not None:
        if above is None or not all([await works(authority, one) for one in (stored.parent, *above)]):
            faults.add("/parent", "parent_ended", "the parent does not work any more; issue the token anew")
        elif stored.parent.expires_at is not None and (ends_at is None or ends_at > stored.parent.expires_at):
            ends = stored.parent.expires_at.isoformat().replace("+00:00", "Z")
            faults.add("/expires_at", "after_parent", f"the parent ends at {ends}; choose no later date")
    faults.raise_any("the clone")
    made = replace(
        token,
        id=new_token_id(),
        owner=token.owner if owner is None else owner,
        name=token.name if draft.name is None else draft.name.strip(),
        scopes=tuple(one.scope for one in stored.scopes),
        created_at=None,
        expires_at=ends_at,
        revoked_at=None,
    )
    user = await authority.world.user(made.owner) if isinstance(made.owner, int) else None
    return replace(stored, token=made, owner=user)


async def _read_owner(authority: Authority, stored: Issue, text: str | None, faults: Faults) -> NodeId | None:
    """The new owner; None for the same one, and where there is a fault."""
    if any(catalog.upstream for catalog in stored.catalogs.values()):
        if text is not None and (not text.strip() or text != text.strip() or len(text) > 255 or not text.isprintable()):
            faults.add("/owner", "owner_unknown", "an owner is a name of 1 to 255 printable characters")
        return text
    owner: NodeId | None = stored.token.owner
    if text is not None:
        sources = {catalog.source or DEFAULT_SOURCE for catalog in stored.catalogs.values() if catalog.source}
        node = await find_user(authority, text, next(iter(sources), None))
        owner = None if node is None else node.id
    user = None if owner is None else await authority.world.user(owner)
    if owner is None or user is None or user.state is UserState.DELETED:
        faults.add("/owner", "owner_unknown", f"there is no user `{shown(text or '')}`; write a username")
        return None
    if user.state is not UserState.ACTIVE:
        faults.add("/owner", "owner_inactive", f"`{user.username}` is blocked; their tokens do not work")
    if stored.resource_owner is not None and text is not None and owner != stored.token.owner:
        faults.add("/owner", "not_for_catalog", "a token with a resource owner keeps its owner; issue another")
    return owner
