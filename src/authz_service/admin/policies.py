"""Policies: shown, set, tried out first, each by the authority of the very transaction (P1 to P3, M1)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.admin.authority import Authority
from authz_service.admin.faults import Faults, shown
from authz_service.admin.management import Actor, Management
from authz_service.admin.policy_checks import check_policy
from authz_service.admin.policy_loosening import find_looser
from authz_service.admin.policy_trials import MOST_NAMED, Trial, try_policy
from authz_service.admin.policy_views import describe_policies, etag_of
from authz_service.admin.ruled_places import find_ruled_place
from authz_service.catalog.model import Catalog
from authz_service.directory.model import INSTANCE_ID, NodeId
from authz_service.errors import Fault, InvalidInputError, PreconditionFailedError
from authz_service.store import audit, changes, events, policies
from authz_service.store.changes import ChangeSet, Stamp, format_revision
from authz_service.store.events import Event, EventKind
from authz_service.store.grandfathering import CarriedOver, Directory, grandfather
from authz_service.store.policies import PolicyRecord
from authz_service.tokens.asking import Book
from authz_service.tokens.policy import Policy

READ: Final = "policy:read"
EDIT: Final = "policy:edit"
ANY_VERSION: Final = "*"


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """What to set. `said` is read at `node` for `catalog`; a policy that says nothing is taken away.

    `if_match` are the tags of what was read; None takes whatever is there. `dry_run` changes nothing and tells which
    live tokens would be stopped or let through. Without `grandfather`, approval that is switched on waits for every
    token; without `allow_loosening`, what says anything less strictly than the place says it now is refused.
    """

    node: str
    catalog: str
    said: Policy
    if_match: tuple[str, ...] | None = None
    dry_run: bool = False
    grandfather: bool = True
    allow_loosening: bool = True


async def show_policies(management: Management, actor: Actor, node: str, catalog: str | None) -> Mapping[str, Any]:
    """What a group or the instance says, and what is in force there. Raises ForbiddenError, InvalidInputError."""
    async with management.database.snapshot() as conn:
        authority = await Authority.open(conn, management, actor, hold=False)
        authority.require_holds(READ)
        place = await find_ruled_place(conn, management, authority, node, READ, catalog=catalog)
        return await _describe(conn, place, catalog, await changes.current(conn))


async def _describe(conn: AsyncConnection, place: NodeId, catalog: str | None, stamp: Stamp) -> Mapping[str, Any]:
    directory = Directory()
    await directory.read(conn, [place])
    way = [INSTANCE_ID, *(one for one in reversed(directory.way(place)) if one != INSTANCE_ID)]
    found = await policies.load_at(conn, way, catalog)
    return await describe_policies(conn, place, way, found, catalog) | {"revision": format_revision(stamp)}


class _DryRunError(Exception):
    """Carries the outcome out of a transaction that must not commit."""

    def __init__(self, outcome: Mapping[str, Any]) -> None:
        super().__init__()
        self.outcome = outcome


async def set_policy(
    management: Management, actor: Actor, change: PolicyChange, *, wait: bool = False
) -> Mapping[str, Any]:
    """Set or take away a policy; or, as a dry run, tell what that would stop.

    Raises ForbiddenError, InvalidInputError with every fault (`policy_forced` names the policy that is in the way,
    `policy_loosens` what would be looser and may not),
    PreconditionFailedError when it was changed meanwhile; then nothing is changed.
    """

    async def work(conn: AsyncConnection) -> tuple[Mapping[str, Any], Stamp]:
        authority = await Authority.open(conn, management, actor, hold=True)
        authority.require_holds(EDIT)
        place = await find_ruled_place(conn, management, authority, change.node, EDIT, catalog=change.catalog)
        catalog = await management.shelf.find(conn, change.catalog)
        if catalog is None:
            message = f"there is no catalog `{shown(change.catalog)}`; write a name without a version"
            fault = Fault("/catalog", "catalog_unknown", message)
            raise InvalidInputError("the policy has a fault", faults=[fault])
        return await _set(conn, management, authority, change, replace(change.said, node=place), catalog)

    try:
        described, stamp = await management.database.run_in_transaction(work)
    except _DryRunError as tried:
        return tried.outcome
    if wait:
        await management.settled(stamp)
    return described


async def _set(
    conn: AsyncConnection,
    management: Management,
    authority: Authority,
    change: PolicyChange,
    wanted: Policy,
    catalog: Catalog,
) -> tuple[Mapping[str, Any], Stamp]:
    await policies.hold(conn, catalog.name)
    _, rows = await policies.load_catalog(conn, catalog.name)
    before: Book = {policy.node: policy for policy in rows}
    await _check(conn, before, wanted, faults=Faults())
    stored = await policies.load_at(conn, [wanted.node], catalog.name)
    _require_match(stored, change.if_match)
    looser = await find_looser(conn, before, stored[0].policy if stored else None, wanted)
    if change.dry_run:
        trial = Trial(authority.world, catalog.name, wanted.node, grandfather=change.grandfather, fold=catalog.fold)
        tried = await try_policy(conn, management, trial, before, wanted)
        raise _DryRunError({**tried, "looser": looser})
    if not change.allow_loosening:
        _require_no_looser(looser)
    touched = ChangeSet()
    user = authority.user_id
    await policies.put(conn, touched, wanted, expected=None, by_token=authority.token.id, by_user=user)
    after = {node: policy for node, policy in before.items() if node != wanted.node}
    if not wanted.empty:
        after[wanted.node] = wanted
    carried = CarriedOver()
    if change.grandfather:
        carried = await grandfather(conn, touched, catalog.name, before, after, roots=[wanted.node], fold=catalog.fold)
    stamp = await changes.append(conn, touched)
    nodes = (wanted.node,) if isinstance(wanted.node, int) and wanted.node != INSTANCE_ID else ()
    entry = audit.AuditEntry(
        action="policy.set",
        subject=change.node,
        actor_token=authority.token.id,
        actor_user=user,
        details={
            "catalog": catalog.name,
            "node": wanted.node,
            "before": policies.write_settings(stored[0].policy) if stored else None,
            "after": None if wanted.empty else policies.write_settings(wanted),
            "grants_carried_over": carried.grants,
            "tokens_carried_over": {"count": len(carried.tokens), "ids": carried.tokens[:MOST_NAMED]},
        },
        nodes=nodes,
    )
    await audit.insert(conn, entry, stamp)
    data = {"catalog": catalog.name, "grants_carried_over": carried.grants}
    await events.append_event(conn, Event(EventKind.POLICY_CHANGED, nodes=nodes, data=data))
    described = await _describe(conn, wanted.node, catalog.name, stamp)
    return {**described, "grants_carried_over": carried.grants, "looser": looser}, stamp


def _require_no_looser(looser: Sequence[Mapping[str, Any]]) -> None:
    faults = Faults()
    for one in looser:
        now = "nothing" if one["after"] is None else f"`{json.dumps(one['after'])}`"
        message = f"this is looser: the place says `{json.dumps(one['before'])}` now, and would say {now}"
        faults.add(f"/{one['setting'].replace('.', '/')}", "policy_loosens", message)
    faults.raise_any("the policy")


async def _check(conn: AsyncConnection, before: Book, wanted: Policy, faults: Faults) -> None:
    directory = Directory()
    await directory.read(conn, [wanted.node])
    above = [INSTANCE_ID, *reversed(directory.way(wanted.node)[1:])] if wanted.node != INSTANCE_ID else []
    forcing = [before[node] for node in above if node in before]
    await check_policy(conn, wanted, forcing, faults)
    faults.raise_any("the policy")


def _require_match(stored: tuple[PolicyRecord, ...], tags: tuple[str, ...] | None) -> None:
    if tags is None or ANY_VERSION in tags:
        return
    if etag_of(stored[0] if stored else None) not in tags:
        raise PreconditionFailedError("the policy was changed since you read it; read it again and send its ETag")
