"""A lookup: what one token holds in one catalog version, as masks by node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from authz_service.directory.model import NodeId


@dataclass(frozen=True, slots=True)
class LegacyHoldings:
    """What a coarse token's bundles hold (C7); the flags say whether calls in no table count."""

    permissions: int = 0
    operations: frozenset[str] = frozenset()
    any_read: bool = False
    any_write: bool = False


@dataclass(frozen=True, slots=True)
class Lookup:
    """Masks of permission numbers *as given*, before implications; the engine tests them with `Catalog.holders`.

    `selected` maps a node to what is held on it and below; the other masks are for the other reaches (T2). Of a coarse
    token, `legacy` holds wherever its owner goes, and `legacy_public` is that and what holds in public alone (C7).
    """

    selected: Mapping[NodeId, int] = field(default_factory=dict)
    all_memberships: int = 0
    personal_projects: int = 0
    user: int = 0
    instance: int = 0
    legacy: LegacyHoldings | None = None
    legacy_public: LegacyHoldings | None = None
    signed_in: int = 0
    """Of a user as such, who has no scopes: held at every project and group, the own account and the instance (A13)."""

    @property
    def anywhere(self) -> int:
        """What is held in any reach at all: it tells `permission_missing` from `outside_reach` (A3)."""
        mask = self.all_memberships | self.personal_projects | self.user | self.instance | self.signed_in
        for held in self.selected.values():
            mask |= held
        return mask if self.legacy_public is None else mask | self.legacy_public.permissions
