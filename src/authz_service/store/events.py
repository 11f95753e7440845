"""The outbox: what others may be told of, written in the transaction of the change itself and handed out later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.dialects.postgresql import insert as insert_into
from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.store.record_tables import event
from authz_service.store.tables import authz_now
from authz_service.tokens.model import Token, TokenId


class EventKind(StrEnum):
    """What happened. Public for ever: webhooks filter by it."""

    TOKEN_CREATED = "token.created"
    TOKEN_EDITED = "token.edited"
    TOKEN_ROTATED = "token.rotated"
    TOKEN_REVOKED = "token.revoked"
    TOKEN_EXPIRING = "token.expiring"
    """In 30, 14, 7 or 1 days: `data` says `days`."""
    TOKEN_EXPIRED = "token.expired"
    TOKEN_INACTIVE = "token.inactive"
    TOKEN_REUSED = "token.reused"
    """A secret that was rotated out was shown to be rotated once more: the family is revoked."""
    TOKEN_LEAKED = "token.leaked"
    GRANT_REQUESTED = "grant.requested"
    GRANT_APPROVED = "grant.approved"
    GRANT_DENIED = "grant.denied"
    GRANT_CANCELLED = "grant.cancelled"
    GRANT_REVOKED = "grant.revoked"
    POLICY_CHANGED = "policy.changed"
    WEBHOOK_TESTED = "webhook.tested"


@dataclass(frozen=True, slots=True)
class Event:
    """`nodes` are ids of the groups and projects it concerns: whoever listens at or above one of them hears of it.

    With none, only those who listen at the instance do. `data` is JSON that all of them may read: no secret, and no
    name of a place. `once` is a text that makes a second event of the same text nothing: `expiry/tok_…/7`.
    """

    kind: EventKind
    token: TokenId | None = None
    owner: int | None = None
    nodes: tuple[int, ...] = ()
    data: Mapping[str, object] = field(default_factory=dict)
    once: str | None = None


@dataclass(frozen=True, slots=True)
class EventRow:
    """An event as stored."""

    id: int
    at: datetime
    event: Event


def event_of_token(kind: EventKind, token: Token, *, once: str | None = None, **data: object) -> Event:
    """An event about a token: it concerns the nodes that the token selected, and its owner."""
    nodes = {node for scope in token.scopes for node in scope.reach.nodes if isinstance(node, int)}
    owner = token.owner if isinstance(token.owner, int) else None
    return Event(kind, token.id, owner, tuple(sorted(nodes)), data, once)


async def append_event(conn: AsyncConnection, new: Event, *, handed_out: bool = False) -> int | None:
    """Write an event in the transaction of its change; its id, or None when `once` was written before.

    `handed_out`: whoever writes it sees to its deliveries, and nobody else hears of it.
    """
    values = {
        "kind": new.kind.value,
        "token_id": new.token,
        "owner_id": new.owner,
        "nodes": list(new.nodes),
        "data": dict(new.data),
        "once": new.once,
        "handed_out_at": authz_now if handed_out else None,
    }
    written = await conn.execute(
        insert_into(event)
        .values(values)
        .on_conflict_do_nothing(index_elements=[event.c.once], index_where=event.c.once.is_not(None))
        .returning(event.c.id)
    )
    found: int | None = written.scalar()
    return found


async def take_waiting(conn: AsyncConnection, *, limit: int = 100) -> tuple[EventRow, ...]:
    """Events not handed out yet, oldest first, marked as handed out: what is made of them belongs in this transaction.

    Of two callers at once each gets other events.
    """
    waiting = (
        select(event.c.id)
        .where(event.c.handed_out_at.is_(None))
        .order_by(event.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("waiting")
    )
    taken = await conn.execute(
        update(event).where(event.c.id == waiting.c.id).values(handed_out_at=authz_now).returning(*event.c)
    )
    return tuple(sorted((read_event(row) for row in taken.mappings()), key=lambda row: row.id))


async def load_of_token(conn: AsyncConnection, token: TokenId, *, limit: int = 100) -> tuple[EventRow, ...]:
    """What happened to a token, newest first."""
    query = select(event).where(event.c.token_id == token).order_by(event.c.id.desc()).limit(limit)
    return tuple(read_event(row) for row in (await conn.execute(query)).mappings())


async def prune(conn: AsyncConnection, *, older_than: timedelta, limit: int = 10_000) -> int:
    """Forget events that were handed out long ago, with their deliveries; answers how many.

    What was to be told once is kept for two years: a notice must not come twice.
    """
    old = (
        select(event.c.id)
        .where(
            event.c.handed_out_at.is_not(None),
            event.c.at < authz_now - older_than,
            event.c.once.is_(None) | (event.c.at < authz_now - timedelta(days=730)),
        )
        .limit(limit)
    )
    return (await conn.execute(delete(event).where(event.c.id.in_(old)))).rowcount


def read_event(row: Mapping[str, Any] | Any) -> EventRow:
    """The event of a row that holds the columns of `event`."""
    told = Event(
        kind=EventKind(row["kind"]),
        token=row["token_id"],
        owner=row["owner_id"],
        nodes=tuple(row["nodes"]),
        data=row["data"],
        once=row["once"],
    )
    return EventRow(row["id"], row["at"], told)
