"""What a place would say less strictly than it says now, setting by setting (P1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.admin.policy_views import describe_settings
from authz_service.directory.model import INSTANCE_ID, NodeId
from authz_service.store.grandfathering import Directory
from authz_service.tokens.asking import Book
from authz_service.tokens.model import TokenKind
from authz_service.tokens.policy import (
    ApprovalRule,
    AutoApproval,
    InactivityRule,
    KindRule,
    LifetimeRule,
    Policy,
)


async def find_looser(conn: AsyncConnection, book: Book, before: Policy | None, after: Policy) -> list[dict[str, Any]]:
    """`setting`, and what the place says of it `before` and `after` in the shape in which it is set; None is nothing.

    Of what the place itself says, whatever the policies above and below say; but rules that approve are no looser
    where nothing on the way up or below requires approval yet. What is not clearly as strict counts as looser. `book`
    are all policies of the catalog, by node, as they are before.
    """
    before = Policy(INSTANCE_ID, after.catalog) if before is None else before
    looser: list[str] = []
    for kind in TokenKind:
        if _looser_kind(before.kinds.get(kind), after.kinds.get(kind)):
            looser.append(kind.value)
        if _looser_lifetime(before.lifetimes.get(kind), after.lifetimes.get(kind)):
            looser.append(f"max_lifetime_days.{kind.value}")
    if _looser_approval(before.approval, after.approval) or (
        _looser_rules(before.approval, after.approval) and await _is_required(conn, book, after.node)
    ):
        looser.append("approval")
    if _looser_inactivity(before.inactivity, after.inactivity):
        looser.append("max_inactive_days")
    said, would = describe_settings(before), describe_settings(after)
    return [{"setting": one, "before": _at(said, one), "after": _at(would, one)} for one in sorted(looser)]


def _at(settings: Mapping[str, Any], setting: str) -> Any:
    found: Any = settings
    for name in setting.split("."):
        found = None if found is None else found.get(name)
    return found


def _looser_kind(before: KindRule | None, after: KindRule | None) -> bool:
    if after is not None and after.final and not (before is not None and before.final):
        return True  # what is forbidden below counts no more
    if before is None or before.forbidden_from is None:
        return False
    if after is None or after.forbidden_from is None or after.forbidden_from > before.forbidden_from:
        return True
    return before.include_service_accounts and not after.include_service_accounts


def _looser_approval(before: ApprovalRule | None, after: ApprovalRule | None) -> bool:
    required = before is not None and before.required
    if required and (after is None or not after.required):
        return True
    forced_off = after is not None and after.force and not after.required
    # Then what is required below counts no more.
    return forced_off and not (before is not None and before.force and not before.required)


def _looser_rules(before: ApprovalRule | None, after: ApprovalRule | None) -> bool:
    """A list gives where there was none, unless it is empty; and where one goes, those of others are narrowed less."""
    known = None if before is None else before.auto_approve
    rules = None if after is None else after.auto_approve
    if rules is None:
        return known is not None
    if known is None:
        return bool(rules)
    return not all(any(_as_strict(one, other) for other in known) for one in rules)


async def _is_required(conn: AsyncConnection, book: Book, place: NodeId) -> bool:
    """Whether a policy at the place, above it or below it requires approval."""
    requiring = [node for node, policy in book.items() if policy.approval is not None and policy.approval.required]
    directory = Directory()
    await directory.read(conn, [place, *requiring])
    above = {INSTANCE_ID, *directory.way(place)}
    return any(node in above or place == INSTANCE_ID or place in directory.way(node) for node in requiring)


def _as_strict(rule: AutoApproval, known: AutoApproval) -> bool:
    return (
        (rule.only_reads or not known.only_reads)
        and _at_most(rule.max_lifetime_days, known.max_lifetime_days)
        and _at_most(rule.max_nodes, known.max_nodes)
    )


def _at_most(number: int | None, limit: int | None) -> bool:
    return limit is None or (number is not None and number <= limit)


def _looser_lifetime(before: LifetimeRule | None, after: LifetimeRule | None) -> bool:
    if before is None:
        return False
    return after is None or after.days > before.days or (after.exempt_admins and not before.exempt_admins)


def _looser_inactivity(before: InactivityRule | None, after: InactivityRule | None) -> bool:
    return before is not None and (after is None or after.days > before.days)
