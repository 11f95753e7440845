"""Requests and grants of a token to masks by group and node; policies to a book by node (P1, P4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from authz_service.catalog.model import Catalog
from authz_service.directory.model import NodeId
from authz_service.tokens.grants import Approvals, GrantState, Pair, RequestState
from authz_service.tokens.policy import Policy

Masks = Mapping[NodeId, int]
"""Node to the mask of permission numbers, as named, before implications."""


class Closed(StrEnum):
    """How something that was asked or given ended."""

    DENIED = "denied"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Approval:
    """What stands, what is asked and what was closed for one token at one group; `closed` has the last one first."""

    active: Masks = field(default_factory=dict)
    pending: Masks = field(default_factory=dict)
    closed: tuple[tuple[Closed, Masks], ...] = ()


NOTHING_YET: Final = Approval()


def compile_approvals(found: Approvals, catalog: Catalog) -> Mapping[NodeId, Approval]:
    """By group. What the catalog no longer has grants nothing and denies nothing (C8)."""
    active: dict[NodeId, Masks] = {}
    pending: dict[NodeId, Masks] = {}
    closed: dict[NodeId, list[tuple[int, Closed, Masks]]] = {}
    for grant in found.grants:
        if grant.catalog != catalog.name:
            continue
        group, masks = _fold(catalog, grant.group), _masks(catalog, grant.pairs)
        if grant.state is GrantState.ACTIVE:
            active[group] = masks
        else:
            closed.setdefault(group, []).append((grant.closed_no or 0, Closed.REVOKED, masks))
    for request in found.requests:
        if request.catalog != catalog.name:
            continue
        group = _fold(catalog, request.group)
        if request.state is RequestState.PENDING:
            pending[group] = _masks(catalog, request.asked)
        elif request.state is not RequestState.CANCELLED:
            refused = _masks(catalog, request.asked - request.given)
            closed.setdefault(group, []).append((request.closed_no or 0, Closed.DENIED, refused))
    return {
        group: Approval(
            active.get(group, {}),
            pending.get(group, {}),
            tuple((how, masks) for _, how, masks in sorted(closed.get(group, ()), key=lambda one: -one[0])),
        )
        for group in {*active, *pending, *closed}
    }


def compile_policies(found: Iterable[Policy], catalog: Catalog) -> Mapping[NodeId, Policy]:
    """By node, as the catalog compares the texts of nodes that no directory knows (C9)."""
    return {
        (node := _fold(catalog, policy.node)): replace(policy, node=node)
        for policy in found
        if policy.catalog == catalog.name
    }


def _fold(catalog: Catalog, node: NodeId) -> NodeId:
    return catalog.fold(node) if isinstance(node, str) else node


def _masks(catalog: Catalog, pairs: Iterable[Pair]) -> Masks:
    masks: dict[NodeId, int] = {}
    for name, written in pairs:
        permission = catalog.by_name.get(name)
        if permission is not None:
            node = _fold(catalog, written)
            masks[node] = masks.get(node, 0) | 1 << permission.number
    return masks
