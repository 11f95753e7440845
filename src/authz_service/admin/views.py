"""Tokens as answers show them: permissions by name, places by their path of today, never a secret."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.admin.management import labels
from authz_service.directory.model import NodeId, NodeKind, format_target
from authz_service.store import directory
from authz_service.store.seen import load_seen_paths
from authz_service.store.token_lists import TokenState
from authz_service.store.token_rows import TokenRecord
from authz_service.tokens.model import ReachKind, Scope, Token, TokenKind

ON_REQUEST: Final = "revoked on request"
"""Why a token ended that somebody revoked; where they said why, `: ` and their words follow."""


@dataclass(frozen=True, slots=True)
class Names:
    """Directory ids to what people call them: `project:acme/web`, and of owners the username alone."""

    targets: Mapping[int, str]
    usernames: Mapping[int, str]

    def target(self, node: NodeId) -> str | None:
        """None when the node is gone, or the viewer may not see it."""
        return self.targets.get(node) if isinstance(node, int) else node

    def owner(self, owner: NodeId) -> str:
        return self.usernames.get(owner, "") if isinstance(owner, int) else owner


async def load_names(conn: AsyncConnection, records: Sequence[TokenRecord], viewer: NodeId | None) -> Names:
    """The names of all that these tokens speak of and the viewer sees (D5), in a few statements for all of them.

    It is one more for each deleted owner. None sees what everybody sees: for the owners' names alone.
    """
    owners = {record.token.owner for record in records} | {record.created_by_user for record in records}
    nodes = {node for record in records for node in _nodes_of(record.token)}
    wanted = sorted(node for node in owners | nodes if isinstance(node, int))
    found = await load_seen_paths(conn, viewer, wanted)
    usernames = {node: path for node, (kind, path) in found.items() if kind is NodeKind.USER}
    for owner in owners:
        if isinstance(owner, int) and owner not in usernames:
            user = (await directory.load_user(conn, owner)).user
            usernames[owner] = "" if user is None else user.username
    return Names({node: format_target(kind, path) for node, (kind, path) in found.items()}, usernames)


def _nodes_of(token: Token) -> set[NodeId]:
    nodes = {node for scope in token.scopes for node in scope.reach.nodes}
    return nodes if token.resource_owner is None else nodes | {token.resource_owner}


def state_of(token: Token, now: datetime) -> TokenState:
    """By the dates alone: an active token's owner may be blocked, and its parent may have ended."""
    if token.revoked_at is not None:
        return TokenState.REVOKED
    if token.expires_at is not None and token.expires_at <= now:
        return TokenState.EXPIRED
    if token.not_before is not None and token.not_before > now:
        return TokenState.EARLY
    return TokenState.ACTIVE


def describe_token(
    record: TokenRecord,
    names: Names,
    now: datetime,
    *,
    only: Collection[NodeId] | None = None,
    clipped: bool = False,
) -> dict[str, Any]:
    """JSON of a token. With `only`, what a group's owner may see: selected nodes among these, and their scopes (M3).

    `clipped` says that the record was cut to that before, and all scopes that are left are to be shown.
    """
    token = record.token
    whole = only is None
    parts = whole or clipped
    scopes = [scope for scope in token.scopes if parts or not set(only or ()).isdisjoint(scope.reach.nodes)]
    catalogs = token.catalogs
    if not whole and token.kind is not TokenKind.LEGACY:
        catalogs = {name: version for name, version in catalogs.items() if name in {one.catalog for one in scopes}}
    spoken = {node for scope in scopes for node in _shown_nodes(scope, only)}
    if whole and token.resource_owner is not None:
        spoken.add(token.resource_owner)
    return {
        "id": token.id,
        "name": token.name,
        "owner": names.owner(token.owner),
        "kind": token.kind.value,
        "state": state_of(token, now).value,
        "catalogs": labels(catalogs),
        "scopes": [_describe_scope(scope, names, only) for scope in scopes],
        "legacy_scopes": list(token.legacy_scopes) if parts else [],
        "evaluates": list(token.evaluates) if whole else [],
        "resource_owner": names.target(token.resource_owner) if whole and token.resource_owner is not None else None,
        "conditions": {"networks": list(token.conditions.networks) if whole else []},
        "created_at": format_moment(token.created_at),
        "not_before": format_moment(token.not_before),
        "expires_at": format_moment(token.expires_at),
        "revoked_at": format_moment(token.revoked_at),
        "revoked_reason": revoked_reason(record, whole=whole),
        "last_used_at": format_moment(record.last_used_at),
        "reason": record.reason if whole else "",
        "parent": token.parent if whole else None,
        "may_rotate_self": record.may_rotate_self,
        "created_by": {
            "token": record.created_by_token if whole else None,
            "user": names.owner(record.created_by_user) if whole and record.created_by_user is not None else None,
        },
        "replaced_by": record.successor if whole else None,
        "imported_as": record.foreign_prefix if whole else None,
        "etag": etag_of(record) if whole else None,
        "partial": not whole,
        "unseen_nodes": sum(names.target(node) is None for node in spoken),
        "grants": [],
        "approvals": [],
    }


def revoked_reason(record: TokenRecord, *, whole: bool) -> str | None:
    """Without the words of whoever revoked it for those who see the token in part: these may name other places (M3)."""
    reason = record.revoked_reason
    return ON_REQUEST if not whole and reason is not None and reason.startswith(ON_REQUEST) else reason


def etag_of(record: TokenRecord) -> str:
    """Changes with all that an edit may change, and with the token's end; as HTTP writes it, in quotes."""
    token = record.token
    said = (
        token.id,
        token.name,
        record.reason,
        record.may_rotate_self,
        token.scopes,
        token.legacy_scopes,
        token.evaluates,
        token.conditions,
        format_moment(token.not_before),
        format_moment(token.expires_at),
        format_moment(token.revoked_at),
        record.successor,
    )
    return f'"{hashlib.sha256(repr(said).encode()).hexdigest()[:32]}"'


def _shown_nodes(scope: Scope, only: Collection[NodeId] | None) -> list[NodeId]:
    return [node for node in scope.reach.nodes if only is None or node in only]


def _describe_scope(scope: Scope, names: Names, only: Collection[NodeId] | None) -> dict[str, Any]:
    """Nodes without a name, which are gone or not to be seen, are left out."""
    nodes = _shown_nodes(scope, only)
    reach: dict[str, Any] = {"kind": scope.reach.kind.value}
    if scope.reach.kind is ReachKind.SELECTED:
        targets = [names.target(node) for node in nodes]
        reach["nodes"] = sorted(target for target in targets if target is not None)
    return {"catalog": scope.catalog, "reach": reach, "permissions": sorted(scope.permissions)}


def format_moment(moment: datetime | None) -> str | None:
    """`2027-01-31T00:00:00Z`."""
    return None if moment is None else moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
