"""Policies as answers show them: what a place says itself, and what is in force there with its source (P1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.admin.views import format_moment
from authz_service.directory.model import INSTANCE_ID, NodeId, format_target
from authz_service.store import directory
from authz_service.store.policies import PolicyRecord
from authz_service.tokens.model import TokenKind
from authz_service.tokens.policy import (
    ALWAYS,
    ApprovalRule,
    AutoApproval,
    Bearer,
    KindRule,
    Policy,
    approval_in_force,
    inactivity_in_force,
    kind_in_force,
    lifetime_in_force,
)


def etag_of(record: PolicyRecord | None) -> str:
    """Of what a place says for a catalog; of nothing too. Versions start again where a policy was taken away."""
    if record is None:
        return '"none"'
    return f'"{record.version}-{int(record.changed_at.timestamp() * 1_000_000):x}"'


async def describe_policies(
    conn: AsyncConnection, place: NodeId, way: Sequence[NodeId], found: Sequence[PolicyRecord], catalog: str | None
) -> dict[str, Any]:
    """`found` are the policies of all of `way`, which leads from the instance down to the place."""
    names = await _names(conn, [*way, *(one.changed_by_user for one in found if one.changed_by_user is not None)])
    catalogs = sorted({one.policy.catalog for one in found} | ({catalog} if catalog is not None else set()))
    described: list[dict[str, Any]] = []
    for name in catalogs:
        by_node = {one.policy.node: one for one in found if one.policy.catalog == name}
        own = by_node.get(place)
        described.append(
            {
                "catalog": name,
                "etag": etag_of(own),
                "said": None if own is None else describe_settings(own.policy),
                "changed_at": None if own is None else format_moment(own.changed_at),
                "changed_by": None if own is None else _username(names, own.changed_by_user),
                "in_force": _in_force(way, {node: one.policy for node, one in by_node.items()}, names),
            }
        )
    return {"node": names.get(place, ""), "policies": described}


async def _names(conn: AsyncConnection, nodes: Sequence[NodeId]) -> Mapping[NodeId, str]:
    paths = await directory.load_paths(conn, [node for node in nodes if isinstance(node, int) and node != INSTANCE_ID])
    found: dict[NodeId, str] = {node: format_target(*named) for node, named in paths.items()}
    found[INSTANCE_ID] = "instance"
    return found | {node: node for node in nodes if isinstance(node, str)}


def _username(names: Mapping[NodeId, str], user: int | None) -> str | None:
    return None if user is None else names.get(user, "").partition(":")[2] or None


def describe_settings(policy: Policy) -> dict[str, Any]:
    """In the shape in which they are set."""
    found: dict[str, Any] = {kind.value: _describe_kind(rule) for kind, rule in policy.kinds.items()}
    if policy.approval is not None:
        found["approval"] = _describe_approval(policy.approval)
    if policy.lifetimes:
        found["max_lifetime_days"] = {
            kind.value: {"value": rule.days, "force": rule.force, "exempt_admins": rule.exempt_admins}
            for kind, rule in policy.lifetimes.items()
        }
    if policy.inactivity is not None:
        found["max_inactive_days"] = {"value": policy.inactivity.days, "force": policy.inactivity.force}
    return found


def _describe_kind(rule: KindRule) -> dict[str, Any]:
    found: dict[str, Any] = {"value": "allow" if rule.forbidden_from is None else "forbid", "force": rule.force}
    if rule.forbidden_from is not None and rule.forbidden_from != ALWAYS:
        found = {"forbidden_from": rule.forbidden_from.date().isoformat(), "force": rule.force}
    return found | ({"include_service_accounts": True} if rule.include_service_accounts else {})


def _describe_approval(rule: ApprovalRule) -> dict[str, Any]:
    found: dict[str, Any] = {"value": "required" if rule.required else "off", "force": rule.force}
    if rule.auto_approve is not None:
        found["auto_approve"] = [_describe_rule(one) for one in rule.auto_approve]
    return found


def _describe_rule(rule: AutoApproval) -> dict[str, Any]:
    named = {
        "only_reads": rule.only_reads or None,
        "max_lifetime_days": rule.max_lifetime_days,
        "max_nodes": rule.max_nodes,
    }
    return {name: value for name, value in named.items() if value is not None}


def _in_force(
    way: Sequence[NodeId], by_node: Mapping[NodeId, Policy], names: Mapping[NodeId, str]
) -> dict[str, dict[str, Any]]:
    """For people: service accounts and admins may be exempt, as each policy says."""
    down = [by_node[node] for node in way if node in by_node]
    found: dict[str, dict[str, Any]] = {}
    for kind in TokenKind:
        since, policy = kind_in_force(down, kind, Bearer())
        value = "allow" if since is None else "forbid" if since == ALWAYS else since.date().isoformat()
        found[kind.value] = {"value": value, "by": _source(policy, names)}
        days, limiting = lifetime_in_force(down, kind, Bearer())
        found[f"max_lifetime_days.{kind.value}"] = {"value": days, "by": _source(limiting, names)}
    position, approving = approval_in_force([(node, by_node.get(node)) for node in way])
    required = "off" if position is None else "required"
    found["approval"] = {"value": required, "by": _source(approving, names)}
    found["max_inactive_days"] = {"value": inactivity_in_force(down), "by": None}
    return found


def _source(policy: Policy | None, names: Mapping[NodeId, str]) -> str | None:
    return None if policy is None else names.get(policy.node)
