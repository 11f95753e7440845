"""Webhooks: who listens where for what, kept by whoever holds `webhook:edit` there (M1)."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.admin.authority import INSTANCE, Authority
from authz_service.admin.faults import Faults, shown
from authz_service.admin.management import Actor, Management
from authz_service.admin.ruled_places import find_own_group
from authz_service.admin.views import format_moment
from authz_service.directory.model import INSTANCE_ID, NodeKind, format_target
from authz_service.errors import (
    ConflictError,
    ForbiddenError,
    InvalidInputError,
    NotFoundError,
    PreconditionFailedError,
)
from authz_service.pdp.secrets import Peppers
from authz_service.store import audit, changes, directory, webhooks
from authz_service.store.changes import format_revision
from authz_service.store.events import Event, EventKind, EventRow, append_event
from authz_service.store.webhooks import Delivery, DeliveryState, Webhook
from authz_service.tokens.secret import new_token_id

__all__ = [
    "DeliveryState",
    "EventKind",
    "WebhookChange",
    "WebhookDraft",
    "create_webhook",
    "delete_webhook",
    "describe_event",
    "edit_webhook",
    "list_deliveries",
    "list_webhooks",
    "redeliver",
    "renew_secret",
    "send_test",
    "show_webhook",
    "signing_secret",
]

READ: Final = "webhook:read"
EDIT: Final = "webhook:edit"
KINDS: Final = tuple(kind.value for kind in EventKind)
MOST_AT_ONE_PLACE: Final = 20
_LONGEST_NAME: Final = 100


@dataclass(frozen=True, slots=True)
class WebhookDraft:
    """What a webhook is to be. `node` is `instance` or a group; no `events` are all kinds."""

    url: str
    node: str = INSTANCE
    name: str = ""
    events: tuple[str, ...] = ()
    active: bool = True


@dataclass(frozen=True, slots=True)
class WebhookChange:
    """What an edit sets; None leaves it as it is."""

    url: str | None = None
    name: str | None = None
    events: tuple[str, ...] | None = None
    active: bool | None = None


async def create_webhook(management: Management, actor: Actor, draft: WebhookDraft) -> Mapping[str, Any]:
    """Answers the webhook with its signing secret. Raises InvalidInputError with all faults, ForbiddenError."""
    async with management.database.snapshot() as conn:
        # Before anything is looked up on somebody's behalf; asked again where it is written.
        await _place_of(management, await Authority.open(conn, management, actor, hold=False), draft.node, EDIT)
    await _check(management, draft.name, draft.events, draft.url)

    async def work(conn: AsyncConnection) -> Mapping[str, Any]:
        authority = await Authority.open(conn, management, actor, hold=True)
        node = await _place_of(management, authority, draft.node, EDIT)
        if await webhooks.count(conn, node) >= MOST_AT_ONE_PLACE:
            raise ConflictError(f"there are {MOST_AT_ONE_PLACE} webhooks here already; remove one first")
        new = Webhook(
            id=f"whk_{new_token_id().removeprefix('tok_')}",
            node=node,
            name=draft.name.strip(),
            url=draft.url,
            events=tuple(dict.fromkeys(draft.events)),
            active=draft.active,
            kid=management.peppers.current,
            salt=secrets.token_bytes(16),
            created_by_token=authority.token.id,
            created_by_user=authority.user_id,
        )
        await webhooks.insert(conn, new)
        await _note(conn, authority, "webhook.create", new)
        return await _show(conn, new.id) | {"secret": signing_secret(management.peppers, new)}

    return await management.database.run_in_transaction(work)


async def edit_webhook(
    management: Management, actor: Actor, webhook_id: str, change: WebhookChange, if_match: Sequence[str]
) -> Mapping[str, Any]:
    """Change a webhook that is what the actor saw. What waits goes to the new URL.

    Raises what `create_webhook` does, NotFoundError for one that is not there or not the actor's, and
    PreconditionFailedError.
    """
    async with management.database.snapshot() as conn:
        found = await _get_own(conn, await Authority.open(conn, management, actor, hold=False), webhook_id, EDIT)
    await _check(management, change.name or "", change.events or (), change.url)

    async def work(conn: AsyncConnection) -> Mapping[str, Any]:
        authority = await Authority.open(conn, management, actor, hold=True)
        known = await _get_own(conn, authority, found.id, EDIT, lock=True)
        if "*" not in if_match and etag_of(known) not in if_match:
            raise PreconditionFailedError("the webhook was changed since you read it; read it again and send its ETag")
        edited = replace(
            known,
            url=known.url if change.url is None else change.url,
            name=known.name if change.name is None else change.name.strip(),
            events=known.events if change.events is None else tuple(dict.fromkeys(change.events)),
            active=known.active if change.active is None else change.active,
            version=known.version + 1,
        )
        await webhooks.replace(conn, edited)
        await _note(conn, authority, "webhook.edit", edited)
        return await _show(conn, edited.id)

    return await management.database.run_in_transaction(work)


async def renew_secret(management: Management, actor: Actor, webhook_id: str) -> Mapping[str, Any]:
    """A new signing secret, shown this once; the old one signs nothing any more."""

    async def work(conn: AsyncConnection) -> Mapping[str, Any]:
        authority = await Authority.open(conn, management, actor, hold=True)
        known = await _get_own(conn, authority, webhook_id, EDIT, lock=True)
        salt, kid = secrets.token_bytes(16), management.peppers.current
        edited = replace(known, salt=salt, kid=kid, version=known.version + 1)
        await webhooks.replace(conn, edited)
        await _note(conn, authority, "webhook.renew_secret", edited)
        return await _show(conn, edited.id) | {"secret": signing_secret(management.peppers, edited)}

    return await management.database.run_in_transaction(work)


async def delete_webhook(management: Management, actor: Actor, webhook_id: str) -> None:
    """With what waits to be delivered. Raises NotFoundError."""

    async def work(conn: AsyncConnection) -> None:
        authority = await Authority.open(conn, management, actor, hold=True)
        known = await _get_own(conn, authority, webhook_id, EDIT, lock=True)
        await webhooks.remove(conn, known.id)
        await _note(conn, authority, "webhook.delete", known)

    await management.database.run_in_transaction(work)


async def show_webhook(management: Management, actor: Actor, webhook_id: str) -> Mapping[str, Any]:
    """Raises NotFoundError alike for what is not there and what is not the actor's."""
    async with management.database.snapshot() as conn:
        authority = await Authority.open(conn, management, actor, hold=False)
        return await _show(conn, (await _get_own(conn, authority, webhook_id, READ)).id)


async def list_webhooks(
    management: Management, actor: Actor, node: str | None, *, limit: int, cursor: str | None
) -> Mapping[str, Any]:
    """Those that listen at the node and below it; without one all, which needs `webhook:read` at the instance."""
    async with management.database.snapshot() as conn:
        authority = await Authority.open(conn, management, actor, hold=False)
        place = await _place_of(management, authority, node or INSTANCE, READ)
        within = None
        if place != INSTANCE_ID:
            _, below = await directory.load_descendants(conn, place, NodeKind.GROUP)
            within = [place, *(int(one.id) for one in below)]
        found, next_cursor = await webhooks.list_page(conn, nodes=within, limit=limit, cursor=cursor)
        names = await _names(conn, [one.node for one in found])
        return {
            "items": [_describe(one, names) for one in found],
            "next_cursor": next_cursor,
            "revision": format_revision(await changes.current(conn)),
        }


async def send_test(management: Management, actor: Actor, webhook_id: str) -> Mapping[str, Any]:
    """Send it an event of kind `webhook.tested`, whatever it listens for, and nobody else."""

    async def work(conn: AsyncConnection) -> Mapping[str, Any]:
        authority = await Authority.open(conn, management, actor, hold=True)
        known = await _get_own(conn, authority, webhook_id, EDIT)
        # Told once, to this one alone: it is handed out before anybody looks for events that wait.
        event_id = await append_event(conn, Event(EventKind.WEBHOOK_TESTED, nodes=_nodes(known)), handed_out=True)
        if event_id is None:
            raise AssertionError("an event without `once` is always written")
        delivery_id = await webhooks.add_delivery(conn, known.id, event_id)
        return _describe_delivery(await webhooks.get_delivery(conn, known.id, delivery_id), EventKind.WEBHOOK_TESTED)

    return await management.database.run_in_transaction(work)


async def list_deliveries(
    management: Management,
    actor: Actor,
    webhook_id: str,
    *,
    state: DeliveryState | None,
    limit: int,
    cursor: str | None,
) -> Mapping[str, Any]:
    """What was sent, newest first, with the last attempts of each."""
    async with management.database.snapshot() as conn:
        authority = await Authority.open(conn, management, actor, hold=False)
        known = await _get_own(conn, authority, webhook_id, READ)
        found, next_cursor = await webhooks.list_deliveries(conn, known.id, state=state, limit=limit, cursor=cursor)
        return {
            "items": [_describe_delivery(one, told.event.kind) for one, told in found],
            "next_cursor": next_cursor,
            "revision": format_revision(await changes.current(conn)),
        }


async def redeliver(management: Management, actor: Actor, webhook_id: str, delivery_id: str) -> Mapping[str, Any]:
    """Send the event of a former delivery once more, as a delivery of its own. Raises NotFoundError."""

    async def work(conn: AsyncConnection) -> Mapping[str, Any]:
        authority = await Authority.open(conn, management, actor, hold=True)
        known = await _get_own(conn, authority, webhook_id, EDIT)
        number = delivery_id.removeprefix("dlv_")
        good = number.isascii() and number.isdigit() and len(number) < 19 and delivery_id.startswith("dlv_")
        if not good:
            raise NotFoundError("there is no such delivery")
        former = await webhooks.get_delivery(conn, known.id, int(number))
        new = await webhooks.add_delivery(conn, known.id, former.event)
        kind = await webhooks.kind_of(conn, former.event)
        return _describe_delivery(await webhooks.get_delivery(conn, known.id, new), kind)

    return await management.database.run_in_transaction(work)


# signing


def signing_secret(peppers: Peppers, webhook: Webhook) -> str | None:
    """`whsec_` and 64 hex digits: made, not stored. None when the pepper it was made from is gone."""
    key = peppers.derive(f"webhook/{webhook.id}/{webhook.salt.hex()}", webhook.kid)
    return None if key is None else f"whsec_{key.hex()}"


# the rest


def etag_of(webhook: Webhook) -> str:
    return f'"{webhook.version}"'


async def _check(management: Management, name: str, events: Sequence[str], url: str | None) -> None:
    faults = Faults()
    if len(name) > _LONGEST_NAME or not name.isprintable():
        faults.add("/name", "invalid_value", f"a name has {_LONGEST_NAME} printable characters at most")
    for position, kind in enumerate(events[: len(KINDS)]):
        if kind not in KINDS:
            known = ", ".join(f"`{one}`" for one in KINDS)
            faults.add(f"/events/{position}", "unknown_value", f"there is no event `{shown(kind)}`; take of {known}")
    if len(events) > len(KINDS):
        faults.add("/events", "too_long", f"there are {len(KINDS)} kinds of events; name each once")
    if url is not None:
        try:
            await management.outbound.check(url)
        except InvalidInputError as error:
            for fault in error.faults:
                faults.add(fault.where, fault.code, fault.message)
    faults.raise_any("the webhook")


async def _place_of(management: Management, authority: Authority, text: str, permission: str) -> int:
    """The instance or a group, where the actor holds the permission. Raises InvalidInputError, ForbiddenError."""
    if text != INSTANCE:
        only = "a webhook listens at a group or at `instance`"
        return await find_own_group(management, authority, text, permission, only=only)
    authority.require_holds(permission)
    if not await authority.may(permission):
        raise ForbiddenError(f"this token may not do that: it needs `{permission}` as an admin, or name a group")
    return INSTANCE_ID


async def _get_own(
    conn: AsyncConnection, authority: Authority, webhook_id: str, permission: str, *, lock: bool = False
) -> Webhook:
    authority.require_holds(permission)
    try:
        found = await webhooks.get(conn, webhook_id[:64], lock=lock)
    except NotFoundError:
        found = None
    if found is not None and (
        await authority.may(permission)
        or (found.node != INSTANCE_ID and await authority.may_at(permission, found.node))
    ):
        return found
    raise NotFoundError("there is no such webhook, or this token may not see it")


async def _show(conn: AsyncConnection, webhook_id: str) -> dict[str, Any]:
    found = await webhooks.get(conn, webhook_id)
    described = _describe(found, await _names(conn, [found.node]))
    return described | {"revision": format_revision(await changes.current(conn))}


async def _names(conn: AsyncConnection, nodes: Sequence[int]) -> Mapping[int, str]:
    paths = await directory.load_paths(conn, [node for node in nodes if node != INSTANCE_ID])
    return {INSTANCE_ID: INSTANCE} | {node: format_target(kind, path) for node, (kind, path) in paths.items()}


def _describe(one: Webhook, names: Mapping[int, str]) -> dict[str, Any]:
    return {
        "id": one.id,
        "node": names.get(one.node),
        "name": one.name,
        "url": one.url,
        "events": list(one.events),
        "active": one.active,
        "created_at": format_moment(one.created_at),
        "etag": etag_of(one),
    }


def _describe_delivery(one: Delivery, kind: EventKind) -> dict[str, Any]:
    return {
        "id": f"dlv_{one.id}",
        "event": f"evt_{one.event}",
        "kind": kind.value,
        "state": one.state.value,
        "attempts": one.attempts,
        "log": list(one.log),
        "next_at": format_moment(one.next_at),
        "created_at": format_moment(one.created_at),
        "ended_at": format_moment(one.ended_at),
    }


def _nodes(one: Webhook) -> tuple[int, ...]:
    return () if one.node == INSTANCE_ID else (one.node,)


async def _note(conn: AsyncConnection, authority: Authority, action: str, one: Webhook) -> None:
    details = {"node": one.node, "url": one.url, "events": list(one.events), "active": one.active}
    entry = audit.AuditEntry(action, one.id, authority.token.id, authority.user_id, details, _nodes(one))
    await audit.insert(conn, entry)


async def describe_event(conn: AsyncConnection, told: EventRow, webhook: Webhook) -> dict[str, Any]:
    """What a receiver is told: of places only what lies where the webhook listens (M3), by the names of today."""
    event = told.event
    people = [event.owner] if event.owner is not None else []
    here = [webhook.node] if webhook.node != INSTANCE_ID else []
    paths = await directory.load_paths(conn, sorted({*event.nodes, *people, *here}))
    top = paths[webhook.node][1] if webhook.node in paths else None
    inside = [
        format_target(kind, path)
        for node, (kind, path) in paths.items()
        if node in event.nodes and (not here or (top is not None and (path == top or path.startswith(f"{top}/"))))
    ]
    token = None
    if event.token is not None:
        token = {"id": event.token, "name": await webhooks.token_name(conn, event.token)}
    return {
        "id": f"evt_{told.id}",
        "kind": event.kind.value,
        "at": format_moment(told.at),
        "webhook": webhook.id,
        "token": token,
        "owner": None if event.owner is None or event.owner not in paths else paths[event.owner][1],
        "nodes": sorted(inside),
        "data": dict(event.data),
    }
