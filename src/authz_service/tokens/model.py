"""A token as it is stored: owner, catalogs, scopes, dates, conditions (rules T1 to T6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NewType

from authz_service.directory.model import NodeId

TokenId = NewType("TokenId", str)
"""`tok_` and 22 base62 characters: public, never secret."""


class TokenKind(StrEnum):
    FINE_GRAINED = "fine_grained"
    LEGACY = "legacy"


class ReachKind(StrEnum):
    """Where a scope applies (T2)."""

    SELECTED = "selected"
    ALL_MEMBERSHIPS = "all_memberships"
    PERSONAL_PROJECTS = "personal_projects"
    USER = "user"
    INSTANCE = "instance"


@dataclass(frozen=True, slots=True)
class Reach:
    """`nodes` is set for SELECTED alone: directory ids, or `kind:path` under `owner_check: upstream`."""

    kind: ReachKind
    nodes: tuple[NodeId, ...] = ()


@dataclass(frozen=True, slots=True)
class Scope:
    """(catalog, reach, permissions). Permissions are names as issued: they never change meaning (C8)."""

    catalog: str
    reach: Reach
    permissions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Conditions:
    """What must hold at each use (T1). An address that is unknown, or no address, fails a network condition.

    `networks` are CIDR texts of either IP version, as `ipaddress.ip_network` prints them.
    """

    networks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Token:
    """One issued secret and what it may do, without the secret.

    `catalogs` maps each catalog name to the version the token was made under; it is never empty. `owner` is a user's
    node id, or a free text under `owner_check: upstream`. `evaluates` lists the catalogs a `decision:evaluate` scope
    of the `authz` catalog may ask about (M1). All datetimes are aware, in UTC; `expires_at` None is no expiry.
    """

    id: TokenId
    owner: NodeId
    catalogs: dict[str, int]
    kind: TokenKind = TokenKind.FINE_GRAINED
    scopes: Sequence[Scope] = ()
    legacy_scopes: tuple[str, ...] = ()
    name: str = ""
    created_at: datetime | None = None
    not_before: datetime | None = None
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    conditions: Conditions = field(default_factory=Conditions)
    parent: TokenId | None = None
    resource_owner: NodeId | None = None
    evaluates: tuple[str, ...] = ()
