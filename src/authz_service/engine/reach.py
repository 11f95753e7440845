"""What a token's scopes hold at a place (rules T2, T3, T6)."""

from __future__ import annotations

from authz_service.catalog.model import Catalog
from authz_service.compiler.lookup import Lookup
from authz_service.directory.model import NodeId, NodeKind, format_target
from authz_service.engine.model import World
from authz_service.engine.places import PLACE_KINDS, Place, is_member
from authz_service.tokens.model import Token


def held_at(lookup: Lookup, token: Token, catalog: Catalog, place: Place, world: World) -> int:
    """The mask of permissions, as given, whose reach includes the place."""
    if place.kind is NodeKind.INSTANCE:
        return lookup.instance | lookup.signed_in
    own = owns(token, catalog, place)
    if lookup.signed_in:
        return lookup.signed_in if own or place.kind in PLACE_KINDS else 0
    if catalog.single_owner and not _within_resource_owner(token, catalog, place, own=own):
        return 0
    if place.kind is NodeKind.USER:
        return lookup.user if own else 0
    held = 0
    for node in place.chain:
        held |= lookup.selected.get(node, 0)
    if lookup.personal_projects and place.kind is NodeKind.PROJECT and _is_personal(token, catalog, place):
        held |= lookup.personal_projects
    refused = catalog.upstream or catalog.single_owner
    everywhere = 0 if refused else lookup.all_memberships
    if everywhere and is_member(place, token.owner, world.memberships(token.owner), catalog):
        held |= everywhere
    return held


def held_in_namespace(lookup: Lookup, token: Token, catalog: Catalog, user: Place) -> int:
    """The mask of permissions, as given, held on all projects of a user's namespace, present and future (C3)."""
    if lookup.signed_in:
        return lookup.signed_in
    namespace = user.id
    if catalog.upstream:
        namespace = format_target(NodeKind.GROUP, user.text.partition(":")[2])
    if catalog.single_owner and _resource_owner(token, catalog) != namespace:
        return 0
    held = lookup.selected.get(namespace, 0)
    if owns(token, catalog, user):
        held |= lookup.personal_projects
        held |= 0 if catalog.upstream or catalog.single_owner else lookup.all_memberships
    return held


def held_anywhere(lookup: Lookup, conferring: int) -> bool:
    """Whether a conferring permission is held in any reach: it tells `outside_reach` from `permission_missing` (A3)."""
    return bool(lookup.anywhere & conferring)


def owns(token: Token, catalog: Catalog, place: Place) -> bool:
    """Whether the place is the owner's own account."""
    return place.kind is NodeKind.USER and place.chain[0] == _owner_node(token, catalog)


def _owner_node(token: Token, catalog: Catalog) -> NodeId | None:
    """The owner's node id; under `owner_check: upstream` the text `user:…`, folded as the catalog compares (C9).

    None there for somebody of our own directory: its ids say nothing upstream.
    """
    if not catalog.upstream:
        return token.owner
    return catalog.fold(format_target(NodeKind.USER, token.owner)) if isinstance(token.owner, str) else None


def _is_personal(token: Token, catalog: Catalog, place: Place) -> bool:
    """Whether the project lies in the owner's own namespace; upstream that is the path of the owner's name (C9)."""
    owner = _owner_node(token, catalog)
    if isinstance(owner, str):
        owner = format_target(NodeKind.GROUP, owner.partition(":")[2])
    return place.chain[1:] == (owner,)


def _within_resource_owner(token: Token, catalog: Catalog, place: Place, *, own: bool) -> bool:
    """Rule T6: projects and groups lie under the token's resource owner now; the account is the owner's own."""
    return _resource_owner(token, catalog) in place.chain and (own or place.kind in PLACE_KINDS)


def _resource_owner(token: Token, catalog: Catalog) -> NodeId | None:
    return catalog.fold(token.resource_owner) if isinstance(token.resource_owner, str) else token.resource_owner
