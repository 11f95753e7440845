"""Token and catalog to lookup. What the catalog no longer has grants nothing (C8)."""

from __future__ import annotations

from collections.abc import Sequence

from authz_service.catalog.model import AnyOperation, Bundle, Catalog
from authz_service.compiler.lookup import LegacyHoldings, Lookup
from authz_service.directory.model import NodeId
from authz_service.tokens.model import ReachKind, Token, TokenKind


def compile_lookup(token: Token, catalog: Catalog) -> Lookup:
    """What this token holds in this catalog, from its own scopes only; live facts (roles, policies) are the engine's.

    Unknown permission names, bundles and scopes of other catalogs contribute nothing, and a token that does not name
    the catalog holds nothing there: it may be asked about as the parent of one that does (T4).
    """
    if catalog.name not in token.catalogs:
        nothing = LegacyHoldings() if token.kind is TokenKind.LEGACY else None
        return Lookup(legacy=nothing, legacy_public=nothing)
    if token.kind is TokenKind.LEGACY:
        bundles = [catalog.bundles[name] for name in token.legacy_scopes if name in catalog.bundles]
        everywhere = [bundle for bundle in bundles if not bundle.public_only]
        return Lookup(legacy=_compile_bundles(everywhere, catalog), legacy_public=_compile_bundles(bundles, catalog))
    selected: dict[NodeId, int] = {}
    masks = dict.fromkeys(ReachKind, 0)
    for scope in token.scopes:
        if scope.catalog != catalog.name:
            continue
        held = permission_mask(catalog, scope.permissions)
        masks[scope.reach.kind] |= held
        if scope.reach.kind is ReachKind.SELECTED and held:
            for written in scope.reach.nodes:
                node = written if isinstance(written, int) else catalog.fold(written)
                selected[node] = selected.get(node, 0) | held
    return Lookup(
        selected=selected,
        all_memberships=masks[ReachKind.ALL_MEMBERSHIPS],
        personal_projects=masks[ReachKind.PERSONAL_PROJECTS],
        user=masks[ReachKind.USER],
        instance=masks[ReachKind.INSTANCE],
    )


def compile_user(catalog: Catalog) -> Lookup:
    """What a user as such holds: every permission, so that their memberships and roles alone decide (A13)."""
    held = 0
    for mask in catalog.existing.values():
        held |= mask
    return Lookup(signed_in=held)


def permission_mask(catalog: Catalog, names: tuple[str, ...] | frozenset[str]) -> int:
    """The mask of the names this catalog has; aliases count as what they stand for."""
    mask = 0
    for name in names:
        permission = catalog.by_name.get(name)
        if permission is not None:
            mask |= 1 << permission.number
    return mask


def _compile_bundles(bundles: Sequence[Bundle], catalog: Catalog) -> LegacyHoldings:
    return LegacyHoldings(
        permissions=permission_mask(catalog, frozenset[str]().union(*(bundle.permissions for bundle in bundles))),
        operations=frozenset[str]().union(*(bundle.operations for bundle in bundles)),
        any_read=any(bundle.any_operation is not AnyOperation.NONE for bundle in bundles),
        any_write=any(bundle.any_operation is AnyOperation.ALL for bundle in bundles),
    )
