"""Requests that no creation and no edit opens: asked again by whoever manages a token, or at the first use (P4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.admin.approval_views import describe_requests
from authz_service.admin.approvals import Settling, entry_of, tell
from authz_service.admin.authority import Authority
from authz_service.admin.faults import shown
from authz_service.admin.grants import EDIT_TOKEN
from authz_service.admin.management import Actor, Management
from authz_service.admin.places import find_node
from authz_service.admin.reaches import unknown_target
from authz_service.directory.model import NodeId
from authz_service.errors import ConflictError, Fault, ForbiddenError, InvalidInputError, NotFoundError
from authz_service.pdp.unasked import Unasked
from authz_service.store import audit, changes, grants, policies, tokens
from authz_service.store.audit import AuditEntry
from authz_service.store.changes import ChangeSet, format_revision
from authz_service.store.events import EventKind
from authz_service.store.first_requests import open_first
from authz_service.store.grants import By
from authz_service.store.token_rows import TokenRecord
from authz_service.tokens.asking import covers
from authz_service.tokens.grants import GrantState, Pair
from authz_service.tokens.model import TokenId
from authz_service.tokens.secret import is_token_id

_NOTHING: Final = "the group has granted everything that this token could ask of it"


async def ask_again(
    management: Management, actor: Actor, token_id: str, *, node: str, catalog: str | None, reason: str
) -> Mapping[str, Any]:
    """Ask the group that has a say at a place for all that it has not granted to the token.

    Raises NotFoundError, ForbiddenError, InvalidInputError, and ConflictError where there is nothing to ask.
    """

    async def work(conn: AsyncConnection) -> Mapping[str, Any]:
        authority = await Authority.open(conn, management, actor, hold=True)
        record = (await tokens.find_by_id(conn, TokenId(token_id))).record if is_token_id(token_id) else None
        if record is None or not await authority.may_for("token:read", record.token.owner):
            raise NotFoundError("there is no such token, or this token may not see it")
        if not await authority.may_for(EDIT_TOKEN, record.token.owner):
            raise ForbiddenError(f"this token may not ask for that one: it needs `{EDIT_TOKEN}` for its owner")
        if record.token.revoked_at is not None:
            raise ConflictError("the token is revoked; issue a new one")
        name = _catalog(record, catalog)
        touched = ChangeSet()
        opened, entries = await _ask(conn, management, authority, touched, record, name, node, reason)
        stamp = await changes.append(conn, touched)
        details = {"catalog": name, "requests": [one.request.id for one in opened], "reason": reason}
        group = opened[0].request.group
        for entry in (entry_of("grant.request", record, authority, group, details), *entries):
            await audit.insert(conn, entry, stamp)
        items = await describe_requests(conn, opened, authority.token.owner)
        return {"items": items, "next_cursor": None, "revision": format_revision(stamp)}

    return await management.database.run_in_transaction(work)


def _catalog(record: TokenRecord, wanted: str | None) -> str:
    known = record.token.catalogs
    if wanted is None and len(known) == 1:
        return next(iter(known))
    if wanted is None or wanted not in known:
        listed = ", ".join(f"`{name}`" for name in sorted(known))
        message = f"say for which catalog of the token: {listed}"
        raise InvalidInputError("the request has a fault", faults=[Fault("/catalog", "catalog_unknown", message)])
    return wanted


async def _ask(
    conn: AsyncConnection,
    management: Management,
    authority: Authority,
    touched: ChangeSet,
    record: TokenRecord,
    name: str,
    node: str,
    reason: str,
) -> tuple[list[grants.RequestRecord], Sequence[AuditEntry]]:
    version = record.token.catalogs[name]
    catalog = await management.shelf.find(conn, name, version)
    if catalog is None:
        raise ConflictError(f"this token was made under `{name}@{version}`, which is not here; issue a new one")
    at: NodeId | None = catalog.fold(node)
    if not catalog.upstream:
        place = await find_node(management, authority, node)
        at = None if place is None else place.id
    if at is None:
        raise InvalidInputError(
            "the request has a fault", faults=[Fault("/node", "target_unknown", unknown_target(node))]
        )
    book = {policy.node: policy for policy in (await policies.load_catalog(conn, name))[1]}
    settling = await Settling.open(conn, touched, authority, record, catalog, book)
    await settling.directory.read(conn, [at])
    group = settling.ground.approving(at)
    if group is None:
        raise ConflictError(f"no group has to approve anything at `{shown(node)}`")
    wanted = settling.needs(record.token).get(group, frozenset())
    held: set[Pair] = set()
    for grant in settling.approvals.grants:
        if grant.catalog == name and grant.group == group and grant.state is GrantState.ACTIVE:
            held |= grant.pairs
    missing = frozenset(pair for pair in wanted if not covers(held, pair, settling.ground.way(pair[1])))
    if not missing:
        raise ConflictError(_NOTHING)
    user = authority.user_id
    before = {request.id for request in settling.approvals.requests}
    await settling.ask(group, missing, By(authority.token.id, user), reason)
    after = await grants.load_of_family(conn, record.family)
    found = [await grants.find_request(conn, one.id) for one in after.requests if one.id not in before]
    return [one for one in found if one is not None], settling.entries


async def open_first_request(management: Management, unasked: Unasked) -> bool:
    """Ask for a token that was used where nothing was ever asked for it. Whether a request was opened."""

    async def work(conn: AsyncConnection) -> bool:
        # What was pending stays pending: it takes no revision.
        number = await open_first(conn, ChangeSet(), unasked.token, unasked.catalog, unasked.group)
        if number is None:
            return False
        record = (await tokens.find_by_id(conn, unasked.token)).record
        if record is not None:
            kind = EventKind.GRANT_REQUESTED
            await tell(conn, kind, record.token, unasked.group, request=number, catalog=unasked.catalog)
        return True

    return await management.database.run_in_transaction(work)
