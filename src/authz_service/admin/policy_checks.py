"""What is wrong with a policy before it is set, and what a token may not be before it is stored (P1, P2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.admin.authority import INSTANCE, Authority
from authz_service.admin.faults import Faults
from authz_service.compiler.approvals import compile_policies
from authz_service.directory.model import INSTANCE_ID, NodeId, format_target
from authz_service.store import directory, policies
from authz_service.store.grandfathering import Directory
from authz_service.tokens.model import ReachKind, Token, TokenKind
from authz_service.tokens.policy import (
    Bearer,
    Policy,
    kind_in_force,
    lifetime_in_force,
    outlives,
    set_aside,
)

MOST_DAYS: Final = 36_500
MOST_RULES: Final = 20
MOST_NODES: Final = 1000


async def check_policy(conn: AsyncConnection, wanted: Policy, above: Sequence[Policy], faults: Faults) -> None:
    """Faults of what is said; `above` are the policies on the way down to its place, the instance's first."""
    _check_numbers(wanted, faults)
    for kind, rule in wanted.kinds.items():
        if rule.include_service_accounts and (kind is not TokenKind.LEGACY or rule.forbidden_from is None):
            message = "service accounts are included in what is forbidden to legacy tokens; leave this out"
            faults.add(f"/{kind.value}/include_service_accounts", "not_for_setting", message)
        for policy in above:
            forced = policy.kinds.get(kind)
            if forced is None or not forced.force:
                continue
            looser = forced.forbidden_from is not None and (
                rule.forbidden_from is None
                or rule.forbidden_from > forced.forbidden_from
                or (forced.include_service_accounts and not rule.include_service_accounts)
            )
            if looser or (forced.final and rule.forbidden_from is not None):
                await _add_forced(conn, faults, f"/{kind.value}", policy)
    await _check_approval(conn, wanted, above, faults)
    for kind, limit in wanted.lifetimes.items():
        for policy in above:
            forced_limit = policy.lifetimes.get(kind)
            if forced_limit is not None and forced_limit.force:
                exempts = limit.exempt_admins and not forced_limit.exempt_admins
                if limit.days > forced_limit.days or exempts:
                    await _add_forced(conn, faults, f"/max_lifetime_days/{kind.value}", policy)
    for policy in above:
        idle = policy.inactivity
        if wanted.inactivity is not None and idle is not None and idle.force and wanted.inactivity.days > idle.days:
            await _add_forced(conn, faults, "/max_inactive_days", policy)


async def _check_approval(conn: AsyncConnection, wanted: Policy, above: Sequence[Policy], faults: Faults) -> None:
    if wanted.approval is None:
        return
    for policy in above:
        forced = policy.approval
        if forced is not None and forced.force and forced.required is not wanted.approval.required:
            await _add_forced(conn, faults, "/approval", policy)
    for position, rule in enumerate(wanted.approval.auto_approve or ()):
        if not rule.conditions:
            message = "this rule would approve everything; name a condition, or leave the rule out"
            faults.add(f"/approval/auto_approve/{position}", "matches_everything", message)


async def _add_forced(conn: AsyncConnection, faults: Faults, where: str, policy: Policy) -> None:
    name = await _name_of(conn, policy.node)
    message = f"the policy of `{name}` forces this; ask its owners, or say what is stricter"
    faults.add(where, "policy_forced", message)


async def _name_of(conn: AsyncConnection, node: NodeId) -> str:
    if node == INSTANCE_ID:
        return INSTANCE
    if isinstance(node, str):
        return node
    found = (await directory.load_paths(conn, [node])).get(node)
    return "group" if found is None else format_target(*found)


def _check_numbers(wanted: Policy, faults: Faults) -> None:
    days = [(f"/max_lifetime_days/{kind.value}/value", rule.days) for kind, rule in wanted.lifetimes.items()]
    if wanted.inactivity is not None:
        days.append(("/max_inactive_days/value", wanted.inactivity.days))
    rules = () if wanted.approval is None else wanted.approval.auto_approve or ()
    for position, rule in enumerate(rules):
        where = f"/approval/auto_approve/{position}"
        if rule.max_lifetime_days is not None:
            days.append((f"{where}/max_lifetime_days", rule.max_lifetime_days))
        if rule.max_nodes is not None and not 1 <= rule.max_nodes <= MOST_NODES:
            faults.add(f"{where}/max_nodes", "out_of_range", f"write 1 to {MOST_NODES} places")
    for where, number in days:
        if not 1 <= number <= MOST_DAYS:
            faults.add(where, "out_of_range", f"write 1 to {MOST_DAYS} days")
    if len(rules) > MOST_RULES:
        faults.add("/approval/auto_approve", "too_many", f"{MOST_RULES} rules at most")


async def find_unadmitted(conn: AsyncConnection, authority: Authority, token: Token) -> Faults:
    """What of A5 a token that is about to be stored fails by its kind or its life, at any place it is made for (P2).

    `created_at` None is now.
    """
    faults = Faults()
    owner = await authority.world.user(token.owner) if isinstance(token.owner, int) else None
    bearer = Bearer() if owner is None else Bearer(owner.service_account, owner.admin)
    now = authority.world.now
    for name, version in sorted(token.catalogs.items()):
        if set_aside(token, name, admin=bearer.admin):
            continue
        _, rows = await policies.load_catalog(conn, name)
        catalog = await authority.world.answer(lambda world: world.catalog(name, version))  # noqa: B023
        if not rows or catalog is None:
            continue
        book = compile_policies(rows, catalog)
        places = Directory()
        selected = {
            catalog.fold(node) if isinstance(node, str) else node
            for scope in token.scopes
            if scope.catalog == name and scope.reach.kind is ReachKind.SELECTED
            for node in scope.reach.nodes
        }
        await places.read(conn, selected)
        for way in [(), *(tuple(places.way(node)) for node in sorted(selected, key=str))]:
            down = [book[node] for node in (INSTANCE_ID, *reversed(way)) if node in book]
            forbidden, by = kind_in_force(down, token.kind, bearer)
            if forbidden is not None and by is not None and forbidden <= now:
                where = await _name_of(conn, by.node)
                _add_once(
                    faults, "/kind", "policy_forbids_kind", f"the policy of `{where}` forbids tokens of this kind"
                )
            days, limiting = lifetime_in_force(down, token.kind, bearer)
            made = token if token.created_at is not None else _made(token, authority)
            if days is not None and limiting is not None and outlives(made, days):
                where = await _name_of(conn, limiting.node)
                message = f"the policy of `{where}` allows lives of {days} days at most; choose an earlier end"
                _add_once(faults, "/expires_at", "lifetime_exceeds_policy", message)
    return faults


async def require_admitted(conn: AsyncConnection, authority: Authority, token: Token) -> None:
    """Raises InvalidInputError with what `find_unadmitted` finds."""
    (await find_unadmitted(conn, authority, token)).raise_any("the token")


def _add_once(faults: Faults, where: str, code: str, message: str) -> None:
    if not any((fault.where, fault.code) == (where, code) for fault in faults.named):
        faults.add(where, code, message)


def _made(token: Token, authority: Authority) -> Token:
    return replace(token, created_at=authority.world.now)
