"""Webhooks and what was sent to them: rows that outlive a crash, claimed by one replica at a time."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import ARRAY, BigInteger, Text, and_, cast, delete, exists, func, literal, or_, select, true, update
from sqlalchemy import insert as insert_into
from sqlalchemy.dialects.postgresql import JSONB, JSONPATH
from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.directory.model import INSTANCE_ID
from authz_service.errors import NotFoundError
from authz_service.store.events import EventKind, EventRow, read_event
from authz_service.store.paging import bad_cursor, page_size, read_cursor, write_cursor
from authz_service.store.record_tables import delivery, event, webhook
from authz_service.store.tables import authz_now, node, token
from authz_service.tokens.model import TokenId

_WEBHOOKS: Final = "webhooks"
_DELIVERIES: Final = "deliveries"
_LOG_LENGTH: Final = 10
AT_ONCE: Final = 4
"""Deliveries to one webhook that one claim takes: a slow receiver holds up no other."""


class DeliveryState(StrEnum):
    WAITING = "waiting"
    DELIVERED = "delivered"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Webhook:
    """`node` is where it listens: the instance, or a group with all below it. No `events` are all of them.

    The signing key comes from the pepper `kid` and `salt`. `version` grows with each edit.
    """

    id: str
    node: int
    name: str
    url: str
    events: tuple[str, ...]
    active: bool
    kid: str
    salt: bytes
    version: int = 1
    created_at: datetime | None = None
    created_by_token: TokenId | None = None
    created_by_user: int | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event on its way to one webhook. `log` holds the last attempts, newest first."""

    id: int
    webhook: str
    event: int
    state: DeliveryState
    attempts: int
    log: Sequence[Mapping[str, Any]]
    next_at: datetime | None
    created_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class Due:
    """A delivery claimed by this process, with all that is needed to make it."""

    id: int
    attempts: int
    """This one included."""
    webhook: Webhook
    event: EventRow


async def insert(conn: AsyncConnection, new: Webhook) -> None:
    values = _editable(new) | {"id": new.id, "node_id": new.node, "version": new.version}
    values |= {"created_by_token": new.created_by_token, "created_by_user": new.created_by_user}
    await conn.execute(insert_into(webhook).values(values))


async def replace(conn: AsyncConnection, edited: Webhook) -> None:
    """Write name, URL, events, whether it is active, and its key. Hold the row first, by `get(…, lock=True)`."""
    await conn.execute(
        update(webhook).where(webhook.c.id == edited.id).values(_editable(edited) | {"version": edited.version})
    )


async def remove(conn: AsyncConnection, webhook_id: str) -> None:
    """With all its deliveries, those that wait too."""
    await conn.execute(delete(webhook).where(webhook.c.id == webhook_id))


async def get(conn: AsyncConnection, webhook_id: str, *, lock: bool = False) -> Webhook:
    """Raises NotFoundError. `lock` holds it until the transaction ends."""
    query = select(webhook).where(webhook.c.id == webhook_id)
    row = (await conn.execute(query.with_for_update() if lock else query)).mappings().one_or_none()
    if row is None:
        raise NotFoundError("there is no such webhook")
    return read_webhook(row)


async def list_page(
    conn: AsyncConnection, *, nodes: Sequence[int] | None = None, limit: int = 50, cursor: str | None = None
) -> tuple[tuple[Webhook, ...], str | None]:
    """By id; `nodes` keeps those that listen at one of them. Raises InvalidInputError for a strange cursor."""
    size = page_size(limit)
    query = select(webhook).order_by(webhook.c.id).limit(size + 1)
    if nodes is not None:
        query = query.where(webhook.c.node_id == func.any(literal(list(nodes), ARRAY(BigInteger))))
    if cursor is not None:
        query = query.where(webhook.c.id > read_cursor(cursor, _WEBHOOKS, 1)[0])
    rows = (await conn.execute(query)).mappings().all()
    found = tuple(map(read_webhook, rows[:size]))
    return found, write_cursor(_WEBHOOKS, found[-1].id) if len(rows) > size else None


async def count(conn: AsyncConnection, node_id: int) -> int:
    """How many listen at this very node."""
    return (await conn.execute(select(func.count()).where(webhook.c.node_id == node_id))).scalar_one()


# deliveries


async def hand_out(conn: AsyncConnection, events: Sequence[int]) -> int:
    """A delivery of each event for each webhook that listens for it at or above what it concerns; how many."""
    if not events:
        return 0
    wanted = event.c.id == func.any(literal(list(events), ARRAY(BigInteger)))
    concerned = func.unnest(event.c.nodes).table_valued("node_id", name="concerned").render_derived()
    up = (
        select(event.c.id.label("event_id"), concerned.c.node_id.cast(BigInteger).label("node_id"))
        .select_from(event.join(concerned, true()))
        .where(wanted)
        .cte("up", recursive=True)
    )
    up = up.union(
        select(up.c.event_id, node.c.parent_id)
        .select_from(up.join(node, node.c.id == up.c.node_id))
        .where(node.c.parent_id.is_not(None))
    )
    above = exists().where(up.c.event_id == event.c.id, up.c.node_id == webhook.c.node_id)
    here = exists().where(node.c.id == webhook.c.node_id, node.c.deleted_at.is_(None))
    listens = and_(
        wanted,
        webhook.c.active,
        webhook.c.created_at <= event.c.at,
        or_(func.cardinality(webhook.c.events) == 0, event.c.kind == func.any(webhook.c.events)),
        or_(webhook.c.node_id == INSTANCE_ID, and_(above, here)),
    )
    pairs = select(
        webhook.c.id, event.c.id, literal("waiting", Text), literal(0), literal([], JSONB), authz_now
    ).select_from(webhook.join(event, listens))
    columns = ["webhook_id", "event_id", "state", "attempts", "log", "next_at"]
    return (await conn.execute(insert_into(delivery).from_select(columns, pairs))).rowcount


async def add_delivery(conn: AsyncConnection, webhook_id: str, event_id: int) -> int:
    """Send an event once more, or for the first time; the delivery's id."""
    values = {
        "webhook_id": webhook_id,
        "event_id": event_id,
        "state": DeliveryState.WAITING.value,
        "attempts": 0,
        "log": [],
        "next_at": authz_now,
    }
    row_id: int = (await conn.execute(insert_into(delivery).values(values).returning(delivery.c.id))).scalar_one()
    return row_id


async def claim_due(
    conn: AsyncConnection, *, limit: int, lease: timedelta, busy: Collection[str] = ()
) -> tuple[Due, ...]:
    """Deliveries whose time has come, counted as an attempt and nobody else's until the lease ends.

    Whoever dies with one in hand leaves it to be claimed again: a receiver may hear twice, and never not at all.
    Webhooks in `busy` are passed over.
    """
    turn = func.row_number().over(partition_by=delivery.c.webhook_id, order_by=delivery.c.next_at).label("turn")
    due = (
        select(delivery.c.id, turn)
        .where(
            delivery.c.state == DeliveryState.WAITING.value,
            delivery.c.next_at <= select(authz_now).scalar_subquery(),
            delivery.c.webhook_id != func.all(literal(list(busy), ARRAY(Text))),
        )
        .subquery("due")
    )
    chosen = select(due.c.id).where(due.c.turn <= AT_ONCE).limit(limit * 4)
    held = (
        select(delivery.c.id)
        .where(delivery.c.id.in_(chosen), delivery.c.state == DeliveryState.WAITING.value)
        .where(delivery.c.next_at <= select(authz_now).scalar_subquery())
        .order_by(delivery.c.next_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("held")
    )
    claimed = (
        update(delivery)
        .where(delivery.c.id == held.c.id)
        .values(attempts=delivery.c.attempts + 1, next_at=authz_now + lease)
        .returning(delivery.c.id, delivery.c.attempts, delivery.c.webhook_id, delivery.c.event_id)
    )
    rows = (await conn.execute(claimed)).all()
    if not rows:
        return ()
    hooks = await conn.execute(select(webhook).where(webhook.c.id.in_({row.webhook_id for row in rows})))
    by_id = {row["id"]: read_webhook(row) for row in hooks.mappings()}
    told = await conn.execute(select(event).where(event.c.id.in_({row.event_id for row in rows})))
    events = {row["id"]: read_event(row) for row in told.mappings()}
    return tuple(Due(row.id, row.attempts, by_id[row.webhook_id], events[row.event_id]) for row in rows)


async def end_attempt(
    conn: AsyncConnection,
    delivery_id: int,
    *,
    attempt: Mapping[str, Any],
    state: DeliveryState,
    again: timedelta | None,
) -> None:
    """Note what became of an attempt. `again` says when to try next, of a delivery that goes on waiting."""
    newest_first = func.jsonb_build_array(literal(dict(attempt), JSONB)).op("||")(delivery.c.log)
    log = func.jsonb_path_query_array(newest_first, cast(f"$[0 to {_LOG_LENGTH - 1}]", JSONPATH))
    values: dict[str, Any] = {"state": state.value, "log": log}
    if state is DeliveryState.WAITING:
        values["next_at"] = authz_now + (again or timedelta())
    else:
        values |= {"next_at": None, "ended_at": authz_now}
    await conn.execute(update(delivery).where(delivery.c.id == delivery_id).values(values))


async def list_deliveries(
    conn: AsyncConnection,
    webhook_id: str,
    *,
    state: DeliveryState | None = None,
    limit: int = 50,
    cursor: str | None = None,
) -> tuple[tuple[tuple[Delivery, EventRow], ...], str | None]:
    """Newest first, each with its event. Raises InvalidInputError for a strange cursor."""
    size = page_size(limit)
    columns = [column.label(f"told_{column.name}") for column in event.c]
    query = (
        select(*delivery.c, *columns)
        .select_from(delivery.join(event, event.c.id == delivery.c.event_id))
        .where(delivery.c.webhook_id == webhook_id)
        .order_by(delivery.c.id.desc())
        .limit(size + 1)
    )
    if state is not None:
        query = query.where(delivery.c.state == state.value)
    if cursor is not None:
        (place,) = read_cursor(cursor, _DELIVERIES, 1)
        if not (place.isascii() and place.isdigit() and len(place) < 19):
            raise bad_cursor()
        query = query.where(delivery.c.id < int(place))
    rows = (await conn.execute(query)).mappings().all()
    found = tuple(
        (_read_delivery(row), read_event({column.name: row[f"told_{column.name}"] for column in event.c}))
        for row in rows[:size]
    )
    return found, write_cursor(_DELIVERIES, str(found[-1][0].id)) if len(rows) > size else None


async def get_delivery(conn: AsyncConnection, webhook_id: str, delivery_id: int) -> Delivery:
    """Raises NotFoundError, also for a delivery of another webhook."""
    query = select(delivery).where(delivery.c.id == delivery_id, delivery.c.webhook_id == webhook_id)
    row = (await conn.execute(query)).mappings().one_or_none()
    if row is None:
        raise NotFoundError("there is no such delivery")
    return _read_delivery(row)


async def kind_of(conn: AsyncConnection, event_id: int) -> EventKind:
    """Of an event that is there."""
    return EventKind((await conn.execute(select(event.c.kind).where(event.c.id == event_id))).scalar_one())


async def token_name(conn: AsyncConnection, token_id: TokenId) -> str | None:
    """None for a token that was purged since."""
    return (await conn.execute(select(token.c.name).where(token.c.id == token_id))).scalar()


def read_webhook(row: Mapping[str, Any] | Any) -> Webhook:
    """The webhook of a row that holds the columns of `webhook`."""
    return Webhook(
        id=row["id"],
        node=row["node_id"],
        name=row["name"],
        url=row["url"],
        events=tuple(row["events"]),
        active=row["active"],
        kid=row["kid"],
        salt=row["salt"],
        version=row["version"],
        created_at=row["created_at"],
        created_by_token=row["created_by_token"],
        created_by_user=row["created_by_user"],
    )


def _read_delivery(row: Mapping[str, Any] | Any) -> Delivery:
    return Delivery(
        id=row["id"],
        webhook=row["webhook_id"],
        event=row["event_id"],
        state=DeliveryState(row["state"]),
        attempts=row["attempts"],
        log=row["log"],
        next_at=row["next_at"],
        created_at=row["created_at"],
        ended_at=row["ended_at"],
    )


def _editable(one: Webhook) -> dict[str, Any]:
    return {
        "name": one.name,
        "url": one.url,
        "events": list(one.events),
        "active": one.active,
        "kid": one.kid,
        "salt": one.salt,
    }
