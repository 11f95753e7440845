"""Policy rows: one for each place and catalog, read all together, changed under their version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any, Final

from sqlalchemy import ColumnElement, RowMapping, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.directory.model import NodeId
from authz_service.errors import ConflictError
from authz_service.store.changes import ChangeKind, ChangeSet, Stamp, load_stamped
from authz_service.store.policy_tables import policy
from authz_service.store.tables import authz_now
from authz_service.tokens.model import TokenId, TokenKind
from authz_service.tokens.policy import (
    ALWAYS,
    ApprovalRule,
    AutoApproval,
    InactivityRule,
    KindRule,
    LifetimeRule,
    Policy,
)

_FORBID: Final = "forbid"
_ALLOW: Final = "allow"


@dataclass(frozen=True, slots=True)
class PolicyRecord:
    """A policy with what only management shows of it. `version` counts its changes: an ETag."""

    policy: Policy
    version: int
    changed_at: datetime
    changed_by_user: int | None = None


async def load_catalog(conn: AsyncConnection, catalog: str) -> tuple[Stamp, tuple[Policy, ...]]:
    """Every policy for one catalog, as of one revision."""
    found = select(policy).where(policy.c.catalog == catalog).subquery()
    stamp, rows = await load_stamped(conn, found, found.c.id)
    return stamp, tuple(_read(row).policy for row in rows if row["id"] is not None)


async def load_all(conn: AsyncConnection) -> tuple[Policy, ...]:
    """Every policy for every catalog."""
    return tuple(_read(row).policy for row in (await conn.execute(select(policy).order_by(policy.c.id))).mappings())


async def load_at(
    conn: AsyncConnection, nodes: Sequence[NodeId], catalog: str | None = None
) -> tuple[PolicyRecord, ...]:
    """The policies of these nodes, by catalog."""
    numbers = [node for node in nodes if isinstance(node, int)]
    names = [node for node in nodes if isinstance(node, str)]
    query = select(policy).where(policy.c.node_id.in_(numbers) | policy.c.node_name.in_(names))
    if catalog is not None:
        query = query.where(policy.c.catalog == catalog)
    return tuple(_read(row) for row in (await conn.execute(query.order_by(policy.c.catalog))).mappings())


async def hold(conn: AsyncConnection, catalog: str) -> None:
    """No other policy of the catalog is written until this transaction ends: what grants are made of stays true."""
    await conn.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"policy/{catalog}", 0))))


async def put(
    conn: AsyncConnection,
    changes: ChangeSet,
    written: Policy,
    *,
    expected: int | None,
    by_token: TokenId | None = None,
    by_user: int | None = None,
) -> int:
    """Write a policy, or take it away where it says nothing; answers the new version, 0 where none is left.

    `expected` is the version that was read, 0 for none; None takes any. Call `hold` before. Raises ConflictError when
    the version is another.
    """
    place = place_columns("node", written.node)
    here = [policy.c.catalog == written.catalog, *_at(written.node)]
    stored = (await conn.execute(select(policy.c.version).where(*here).with_for_update())).scalar()
    if expected is not None and expected != (stored or 0):
        raise ConflictError("the policy has changed meanwhile; read it again")
    changes.touch(ChangeKind.POLICY, written.catalog)
    if written.empty:
        await conn.execute(delete(policy).where(*here))
        return 0
    values = {
        "settings": write_settings(written),
        "changed_at": authz_now,
        "changed_by_token": by_token,
        "changed_by_user": by_user,
    }
    if stored is not None:
        await conn.execute(update(policy).where(*here).values(values | {"version": stored + 1}))
        return int(stored) + 1
    first = values | place | {"catalog": written.catalog, "version": 1}
    await conn.execute(insert(policy).values(first))
    return 1


def place_columns(name: str, node: NodeId) -> dict[str, object]:
    """A node of the directory is a number, one that only an API knows a text (C9)."""
    number = node if isinstance(node, int) else None
    return {f"{name}_id": number, f"{name}_name": None if number is not None else node}


def _at(node: NodeId) -> list[ColumnElement[bool]]:
    return [policy.c.node_id == node if isinstance(node, int) else policy.c.node_name == node]


# settings as they are stored


def write_settings(written: Policy) -> dict[str, object]:
    """JSON of what a policy says; only what it says."""
    found: dict[str, object] = {}
    for kind, rule in written.kinds.items():
        value = _ALLOW if rule.forbidden_from is None else _FORBID
        if rule.forbidden_from is not None and rule.forbidden_from != ALWAYS:
            value = rule.forbidden_from.date().isoformat()
        found[kind.value] = {
            "value": value,
            "force": rule.force,
            "include_service_accounts": rule.include_service_accounts,
        }
    if written.approval is not None:
        rules = written.approval.auto_approve
        found["approval"] = {
            "required": written.approval.required,
            "force": written.approval.force,
            "auto_approve": None
            if rules is None
            else [
                {"only_reads": one.only_reads, "max_lifetime_days": one.max_lifetime_days, "max_nodes": one.max_nodes}
                for one in rules
            ],
        }
    if written.lifetimes:
        found["max_lifetime_days"] = {
            kind.value: {"value": rule.days, "force": rule.force, "exempt_admins": rule.exempt_admins}
            for kind, rule in written.lifetimes.items()
        }
    if written.inactivity is not None:
        found["max_inactive_days"] = {"value": written.inactivity.days, "force": written.inactivity.force}
    return found


def _read(row: RowMapping | Mapping[str, Any]) -> PolicyRecord:
    said = row["settings"]
    lifetimes = said.get("max_lifetime_days", {})
    inactivity = said.get("max_inactive_days")
    read = Policy(
        node=row["node_id"] if row["node_id"] is not None else row["node_name"],
        catalog=row["catalog"],
        kinds={kind: _kind(said[kind.value]) for kind in TokenKind if kind.value in said},
        approval=_approval(said.get("approval")),
        lifetimes={
            kind: LifetimeRule(
                lifetimes[kind.value]["value"], lifetimes[kind.value]["force"], lifetimes[kind.value]["exempt_admins"]
            )
            for kind in TokenKind
            if kind.value in lifetimes
        },
        inactivity=None if inactivity is None else InactivityRule(inactivity["value"], inactivity["force"]),
        since=row["changed_at"],
    )
    return PolicyRecord(read, row["version"], row["changed_at"], row["changed_by_user"])


def _kind(said: Mapping[str, Any]) -> KindRule:
    value = said["value"]
    moment: datetime | None = None if value == _ALLOW else ALWAYS
    if value not in (_ALLOW, _FORBID):
        moment = datetime.combine(date.fromisoformat(value), time(), UTC)
    return KindRule(moment, said["force"], said["include_service_accounts"])


def _approval(said: Mapping[str, Any] | None) -> ApprovalRule | None:
    if said is None:
        return None
    rules = said["auto_approve"]
    read = None if rules is None else tuple(AutoApproval(**rule) for rule in rules)
    return ApprovalRule(said["required"], said["force"], read)
