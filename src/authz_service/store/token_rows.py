"""Tokens as rows, and rows as tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from sys import intern
from typing import Any

from sqlalchemy import RowMapping

from authz_service.directory.model import NodeId
from authz_service.tokens.model import Conditions, Reach, ReachKind, Scope, Token, TokenId, TokenKind


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """A token and what only management shows of it. `family` is the id of the first token of its rotations.

    `created_by_user` is a user's node id; both `created_by_…` tell history and may name what is gone. `successor` is
    the token that a rotation put in its place (T5); `foreign_prefix` is set where another system made its secret.
    """

    token: Token
    kid: str
    family: TokenId
    reason: str = ""
    may_rotate_self: bool = False
    created_by_token: TokenId | None = None
    created_by_user: int | None = None
    revoked_reason: str | None = None
    last_used_at: datetime | None = None
    successor: TokenId | None = None
    foreign_prefix: str | None = None


def either_column(name: str, given: NodeId | None) -> dict[str, object]:
    """An owner is a node of the directory, or a text of the API's own (C9): two columns, never mixed up."""
    return {
        f"{name}_id": given if isinstance(given, int) else None,
        f"{name}_name": given if isinstance(given, str) else None,
    }


def row_of(record: TokenRecord) -> dict[str, object]:
    """The columns that an edit may write."""
    written = record.token
    return {
        "name": written.name,
        "catalogs": dict(written.catalogs),
        "scopes": [_scope_json(scope) for scope in written.scopes],
        "legacy_scopes": list(written.legacy_scopes),
        "not_before": written.not_before,
        "expires_at": written.expires_at,
        "conditions": {"networks": list(written.conditions.networks)} if written.conditions.networks else {},
        "reason": record.reason,
        "may_rotate_self": record.may_rotate_self,
        **either_column("resource_owner", written.resource_owner),
    }


def _scope_json(scope: Scope) -> dict[str, object]:
    reach: dict[str, object] = {"kind": scope.reach.kind.value}
    if scope.reach.nodes:
        reach["nodes"] = list(scope.reach.nodes)
    return {"catalog": scope.catalog, "reach": reach, "permissions": list(scope.permissions)}


# Names, versions and conditions are few and tokens many: each is kept once for all of them.


@lru_cache(4096)
def _catalogs(found: tuple[tuple[str, int], ...]) -> dict[str, int]:
    return {intern(name): version for name, version in found}


@lru_cache(4096)
def _conditions(networks: tuple[str, ...]) -> Conditions:
    return Conditions(networks)


def _scope(found: Mapping[str, Any]) -> Scope:
    reach = found["reach"]
    return Scope(
        catalog=intern(found["catalog"]),
        reach=Reach(ReachKind(reach["kind"]), tuple(reach.get("nodes", ()))),
        permissions=tuple(map(intern, found["permissions"])),
    )


def read_record(row: RowMapping | Mapping[str, Any]) -> TokenRecord:
    """The record of a row that holds the columns of `token` but for the digest."""
    resource_owner: NodeId | None = row["resource_owner_id"]
    if resource_owner is None:
        resource_owner = row["resource_owner_name"]
    read = Token(
        id=TokenId(row["id"]),
        owner=row["owner_id"] if row["owner_id"] is not None else row["owner_name"],
        catalogs=_catalogs(tuple(row["catalogs"].items())),
        kind=TokenKind(row["kind"]),
        scopes=tuple(_scope(scope) for scope in row["scopes"]),
        legacy_scopes=tuple(row["legacy_scopes"]),
        name=row["name"],
        created_at=row["created_at"],
        not_before=row["not_before"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        conditions=_conditions(tuple(row["conditions"].get("networks", ()))),
        parent=row["parent_id"],
        resource_owner=resource_owner,
        evaluates=tuple(row["evaluates"]),
    )
    return TokenRecord(
        token=read,
        kid=row["kid"],
        family=row["family_id"],
        reason=row["reason"],
        may_rotate_self=row["may_rotate_self"],
        created_by_token=row["created_by_token"],
        created_by_user=row["created_by_user"],
        revoked_reason=row["revoked_reason"],
        last_used_at=row["last_used_at"],
        successor=row["successor_id"],
        foreign_prefix=row["foreign_prefix"],
    )
