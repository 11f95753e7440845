"""Tokens: issued, shown, revoked, each by the authority of the very transaction (M2, M3, T4)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.admin.approvals import groups_of, load_standing, settle_token
from authz_service.admin.authority import Authority
from authz_service.admin.drafts import TokenDraft
from authz_service.admin.issuing import CREATE, CREATE_ANY, Issue, IssueReader
from authz_service.admin.management import Actor, Management, labels
from authz_service.admin.policy_checks import require_admitted
from authz_service.admin.shares import find_share
from authz_service.admin.views import ON_REQUEST, describe_token, load_names
from authz_service.admin.within import find_beyond
from authz_service.directory.model import NodeId
from authz_service.errors import ConflictError, Fault, ForbiddenError, NotFoundError
from authz_service.store import audit, changes, idempotency, token_families, tokens
from authz_service.store.changes import ChangeKind, ChangeSet, Stamp, format_revision
from authz_service.store.events import EventKind, append_event, event_of_token
from authz_service.store.token_rows import TokenRecord
from authz_service.tokens.model import TokenId
from authz_service.tokens.policy import EVALUATE, MANAGEMENT
from authz_service.tokens.secret import is_token_id, new_secret, new_token_id

READ: Final = "token:read"
REVOKE: Final = "token:revoke"
_WITH_PARENT: Final = "its parent was revoked"
_REPLACED: Final = "what replaced it was revoked"


@dataclass(frozen=True, slots=True)
class Idempotency:
    """A client's key for one creation, and what it was sent with."""

    key: str
    body: Mapping[str, Any]

    def body_hash(self, action: str) -> bytes:
        """Equal for equal JSON, however it was written."""
        return hashlib.sha256(f"{action}\n{json.dumps(self.body, sort_keys=True)}".encode()).digest()


@dataclass(frozen=True, slots=True)
class Issued:
    """A new token as JSON. `secret` is None when the answer is given again: it was shown once, and is nowhere kept."""

    token: Mapping[str, Any]
    secret: str | None

    @property
    def repeated(self) -> bool:
        return self.secret is None


async def create_token(
    management: Management, actor: Actor, draft: TokenDraft, repeat: Idempotency | None = None
) -> Issued:
    """Issue a token. Raises InvalidInputError with all faults; ForbiddenError with all that lies beyond the actor."""

    async def work(conn: AsyncConnection) -> Issued:
        authority = await Authority.open(conn, management, actor, hold=True)
        authority.require_holds(CREATE)

        async def issue() -> Issued:
            found = await IssueReader(conn, management, authority, draft).read(new_token_id())
            await require_may_issue(authority, found)
            await require_room(conn, management, found.token.owner)
            record = new_record(management, authority, found, draft.reason, may_rotate_self=draft.may_rotate_self)
            return await store_new(conn, management, authority, record, "token.create")

        return await once(conn, actor, "token.create", repeat, issue)

    return await management.database.run_in_transaction(work)


async def once(
    conn: AsyncConnection,
    actor: Actor,
    action: str,
    repeat: Idempotency | None,
    issue: Callable[[], Awaitable[Issued]],
) -> Issued:
    """Issue, or answer what this key was answered before: then without the secret."""
    if repeat is None:
        return await issue()
    claimed = {"key": repeat.key, "caller": actor.token.id}
    kept = await idempotency.claim(conn, **claimed, body_hash=repeat.body_hash(action))
    if kept is not None:
        return Issued(kept, None)
    issued = await issue()
    await idempotency.keep(conn, **claimed, response=issued.token)
    return issued


async def store_new(
    conn: AsyncConnection,
    management: Management,
    authority: Authority,
    record: TokenRecord,
    action: str,
    **details: object,
) -> Issued:
    """Store a token under a new secret, with its audit row and its event."""
    secret = new_secret(management.peppers.prefix, management.peppers.current)
    digest = management.peppers.digest(secret.reveal())
    if digest is None:
        raise AssertionError("a new secret has a digest")
    await require_admitted(conn, authority, record.token)
    record = await tokens.insert(conn, record, digest)
    # Nobody has asked about the token yet: what is granted at once needs no revision.
    granted = await settle_token(conn, ChangeSet(), authority, record, None)
    for entry in (entry_of(action, record, authority, details_of(record) | details), *granted):
        await audit.insert(conn, entry)
    await append_event(conn, event_of_token(EventKind.TOKEN_CREATED, record.token))
    return Issued(await show_record(conn, authority, record, await changes.current(conn)), secret.reveal())


async def require_room(conn: AsyncConnection, management: Management, owner: NodeId, more: int = 1) -> None:
    """Raises ConflictError when the owner would have more living tokens than the settings allow."""
    most = management.limits.tokens_per_owner
    if await tokens.hold_and_count(conn, owner) + more > most:
        raise ConflictError(
            f"this owner would have more than {most} living tokens, which is the limit; revoke those that nobody needs",
            faults=[Fault("/owner", "too_many_tokens", f"{most} tokens at most, those that ended not counted")],
        )


async def require_may_issue(authority: Authority, issue: Issue, permission: str = CREATE) -> None:
    """Rules M1, M2 and T4, for a token that is otherwise good. Raises ForbiddenError, InvalidInputError."""
    if not await authority.may_for(permission, issue.token.owner):
        raise ForbiddenError(
            f"this token may not do that for this owner: it needs `{permission}` as the owner, at the home group of a "
            "service account, or as an admin"
        )
    if any(EVALUATE in read.scope.permissions for read in issue.scopes) and not authority.admin:
        raise ForbiddenError(f"only an admin issues tokens with `{EVALUATE}`")
    if not await authority.may(CREATE_ANY):
        # A person who signed in is as free as their roles are, but for management itself (M2).
        own = authority.signed_in and issue.token.owner == authority.token.owner
        only = MANAGEMENT if own else None
        beyond = await find_beyond(authority.world, authority.token, issue, "beyond_issuer", only=only)
        if beyond:
            raise ForbiddenError("a token issues at most what it holds itself; ask for less", faults=beyond.named)
    if issue.parent is not None:
        wider = await find_beyond(authority.world, issue.parent, issue, "beyond_parent")
        wider.raise_any("the token")


def new_record(
    management: Management, authority: Authority, issue: Issue, reason: str, *, may_rotate_self: bool
) -> TokenRecord:
    """The first of a family, made by this actor."""
    return TokenRecord(
        token=issue.token,
        kid=management.peppers.current,
        family=issue.token.id,
        reason=reason,
        may_rotate_self=may_rotate_self,
        created_by_token=authority.token.id,
        created_by_user=authority.user_id,
    )


async def show_token(management: Management, actor: Actor, token_id: str) -> Mapping[str, Any]:
    """One token, whole or the part that lies in groups the actor manages. Raises NotFoundError for what is unseen."""
    async with management.database.snapshot() as conn:
        authority = await Authority.open(conn, management, actor, hold=False)
        record = await find_seen(conn, authority, token_id)
        stamp = await changes.current(conn)
        if await may_see_whole(authority, record):
            return await show_record(conn, authority, record, stamp)
        share = await find_share(conn, authority, record, READ)
        if share is None:
            raise AssertionError("whoever sees a token sees it whole or in part")
        return await show_record(conn, authority, share.record, stamp, share.nodes)


async def find_seen(conn: AsyncConnection, authority: Authority, token_id: str) -> TokenRecord:
    """The record, when the actor may see something of it. Raises NotFoundError alike for unknown and unseen tokens."""
    record = (await tokens.find_by_id(conn, TokenId(token_id))).record if is_token_id(token_id) else None
    if record is not None and (
        await may_see_whole(authority, record) or await find_share(conn, authority, record, READ) is not None
    ):
        return record
    raise NotFoundError("there is no such token, or this token may not see it")


async def may_see_whole(authority: Authority, record: TokenRecord) -> bool:
    """Itself (M4), or by `token:read` for its owner."""
    return record.token.id == authority.token.id or await authority.may_for(READ, record.token.owner)


async def visible_nodes(authority: Authority, record: TokenRecord) -> frozenset[NodeId]:
    """The selected nodes inside groups at which the actor holds `token:read` (M3)."""
    found: set[NodeId] = set()
    for node in {node for scope in record.token.scopes for node in scope.reach.nodes}:
        if isinstance(node, int) and await authority.may_at_group_of(READ, node):
            found.add(node)
    return frozenset(found)


async def revoke_token(
    management: Management, actor: Actor, token_id: str, reason: str = "", *, wait: bool = False
) -> Mapping[str, Any]:
    """Revoke this very token and all that hangs under it; once more changes nothing, the reason included.

    With `wait`, returns when no replica can allow by it any more. Raises NotFoundError, ForbiddenError.
    """

    async def work(conn: AsyncConnection) -> tuple[Mapping[str, Any], Stamp]:
        authority = await Authority.open(conn, management, actor, hold=True)
        record = (await tokens.find_by_id(conn, TokenId(token_id))).record if is_token_id(token_id) else None
        if record is None or not await authority.may_for(REVOKE, record.token.owner):
            await find_seen(conn, authority, token_id)
            raise ForbiddenError(f"this token may not revoke that one: it needs `{REVOKE}` for its owner")
        return await _revoke(conn, authority, record.token.id, reason, wait=wait)

    return await _settle(management, await management.database.run_in_transaction(work), wait=wait)


async def revoke_self(
    management: Management, actor: Actor, reason: str = "", *, wait: bool = False
) -> Mapping[str, Any]:
    """Revoke the token that asks for it; it needs no permission for that."""

    async def work(conn: AsyncConnection) -> tuple[Mapping[str, Any], Stamp]:
        authority = await Authority.open(conn, management, actor, hold=True)
        return await _revoke(conn, authority, authority.token.id, reason, wait=wait)

    return await _settle(management, await management.database.run_in_transaction(work), wait=wait)


async def _settle(management: Management, done: tuple[Mapping[str, Any], Stamp], *, wait: bool) -> Mapping[str, Any]:
    shown, stamp = done
    if wait:
        await management.settled(stamp)
    return shown


async def _revoke(
    conn: AsyncConnection, authority: Authority, token_id: TokenId, reason: str, *, wait: bool
) -> tuple[Mapping[str, Any], Stamp]:
    touched = ChangeSet()
    if wait:
        touched.touch(ChangeKind.BARRIER, token_id)
    revoked = await revoke_line(conn, touched, token_id, reason=f"{ON_REQUEST}: {reason}" if reason else ON_REQUEST)
    stamp = await changes.append(conn, touched)
    record = await tokens.get(conn, token_id)
    if revoked:
        details = {"also": [one for one in revoked if one != token_id], "reason": reason}
        await audit.insert(conn, entry_of("token.revoke", record, authority, details), stamp)
        await append_event(conn, event_of_token(EventKind.TOKEN_REVOKED, record.token, reason=ON_REQUEST))
    return await show_record(conn, authority, record, stamp), stamp


async def revoke_line(conn: AsyncConnection, touched: ChangeSet, token_id: TokenId, *, reason: str) -> list[TokenId]:
    """Revoke a token, those that it replaced and that still work, and all that hangs under it; answers which."""
    record = await tokens.get(conn, token_id, lock=True)
    revoked = [token_id] if await tokens.revoke(conn, touched, token_id, reason=reason) else []
    former = await token_families.load_predecessors(conn, record)
    revoked += [one.token.id for one in former if await tokens.revoke(conn, touched, one.token.id, reason=_REPLACED)]
    # They would be denied anyway (T4); revoked themselves, lists tell the truth about them.
    above = [token_id, *(one.token.id for one in former)]
    while above:
        children = [child for parent in above for child in await tokens.load_children(conn, parent)]
        above = [child.token.id for child in children]
        revoked += [child for child in above if await tokens.revoke(conn, touched, child, reason=_WITH_PARENT)]
    return revoked


async def show_self(management: Management, actor: Actor) -> Mapping[str, Any]:
    """The actor's own token (M4)."""
    async with management.database.snapshot() as conn:
        authority = await Authority.open(conn, management, actor, hold=False)
        record = await tokens.get(conn, authority.token.id)
        return await show_record(conn, authority, record, await changes.current(conn))


async def show_record(
    conn: AsyncConnection,
    authority: Authority,
    record: TokenRecord,
    stamp: Stamp,
    only: frozenset[NodeId] | None = None,
) -> dict[str, Any]:
    """JSON of a token at a revision; with `only`, of a record that was cut to what lies inside (M3)."""
    names = await load_names(conn, [record], authority.token.owner)
    described = describe_token(record, names, authority.world.now, only=only, clipped=only is not None)
    standing = (await load_standing(conn, [record], authority.token.owner, only)).get(record.family, [])
    return described | {"grants": groups_of(standing), "approvals": standing, "revision": format_revision(stamp)}


def entry_of(action: str, record: TokenRecord, authority: Authority, details: Mapping[str, object]) -> audit.AuditEntry:
    """What the audit says of something done to a token."""
    return audit.AuditEntry(
        action=action,
        subject=record.token.id,
        actor_token=authority.token.id,
        actor_user=authority.user_id,
        details=details,
    )


def details_of(record: TokenRecord) -> dict[str, object]:
    """What a token was given, by ids: for the audit."""
    token = record.token
    return {
        "owner": token.owner,
        "kind": token.kind.value,
        "catalogs": labels(token.catalogs),
        "parent": token.parent,
        "scopes": [
            {
                "catalog": scope.catalog,
                "reach": scope.reach.kind.value,
                "nodes": list(scope.reach.nodes),
                "permissions": list(scope.permissions),
            }
            for scope in token.scopes
        ],
        "legacy_scopes": list(token.legacy_scopes),
    }
