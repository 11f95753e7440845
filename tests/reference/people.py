"""The reference's own reading of users: who is a member where, with which roles, and who sees what (C6, D1 to D5)."""

from __future__ import annotations

from tests.reference.places import Place, node_of, place_of, way_up
from tests.reference.rows import Rows

from authz_service.catalog.model import NO_ROLE_NEEDED, Catalog
from authz_service.directory.model import NodeId, NodeKind, User, Visibility


def user_of(rows: Rows, user: NodeId) -> User | None:
    for row in rows.users:
        if row.id == user and type(row.id) is type(user):
            return row
    return None


def is_admin(rows: Rows, user: NodeId) -> bool:
    row = user_of(rows, user)
    return row is not None and row.admin


def counting_rows(rows: Rows, catalog: Catalog, user: NodeId, place: Place) -> list[str]:
    """The roles of the user's membership rows at or above the place, but for those that do not come down (C6)."""
    roles = []
    for member, node, role in rows.memberships:
        if member != user or node not in place.chain:
            continue
        stays = role in catalog.roles and not catalog.roles[role].inherits
        if (node == place.id and not place.whole) or not stays:
            roles.append(role)
    return roles


def is_member(rows: Rows, catalog: Catalog, user: NodeId, place: Place) -> bool:
    """A membership row there or above, or the place is the user's own (D3)."""
    return user in place.chain or bool(counting_rows(rows, catalog, user, place))


def effective_roles(rows: Rows, catalog: Catalog, user: NodeId, place: Place) -> set[str]:
    """By name, as held; a role the catalog does not know is no role (C6)."""
    if place.kind is NodeKind.INSTANCE:
        return {"admin"} if is_admin(rows, user) else set()
    roles = {role for role in counting_rows(rows, catalog, user, place) if role in catalog.roles}
    if user in place.chain and catalog.top_role is not None:
        roles.add(catalog.top_role)
    return roles


def role_suffices(rows: Rows, catalog: Catalog, user: NodeId, place: Place, min_role: str | None) -> bool:
    """Whether a `min_role` is met at the place (A4); at the instance its only role is `admin`."""
    if min_role is None or is_admin(rows, user):
        return True
    if place.kind is NodeKind.INSTANCE:
        return min_role == NO_ROLE_NEEDED
    return any(min_role in included_roles(catalog, role) for role in effective_roles(rows, catalog, user, place))


def included_roles(catalog: Catalog, role: str) -> set[str]:
    found = {role}
    while True:
        more = {
            inner
            for name in found
            if name in catalog.roles
            for inner in catalog.roles[name].includes
            if inner not in found
        }
        if not more:
            return found
        found |= more


def visibility_of(rows: Rows, place: Place) -> Visibility | None:
    """The least on the way up (D1); users and the instance have none to speak of."""
    if place.node is None or place.kind not in (NodeKind.PROJECT, NodeKind.GROUP):
        return None
    return min(node.visibility for node in way_up(rows, place.node) if node.kind in (NodeKind.PROJECT, NodeKind.GROUP))


def is_public(rows: Rows, place: Place) -> bool:
    return visibility_of(rows, place) is Visibility.PUBLIC


def is_open_to(rows: Rows, user: NodeId, place: Place) -> bool:
    """Public, or internal and the user is not external."""
    row = user_of(rows, user)
    internal = visibility_of(rows, place) is Visibility.INTERNAL
    return is_public(rows, place) or (internal and row is not None and not row.external)


def sees(rows: Rows, catalog: Catalog, user: NodeId, place: Place) -> bool:
    """D5."""
    if place.kind in (NodeKind.USER, NodeKind.INSTANCE) or is_admin(rows, user):
        return True
    if is_open_to(rows, user, place) or is_member(rows, catalog, user, place):
        return True
    if place.kind is not NodeKind.GROUP:
        return False
    for member, node, _ in rows.memberships:
        row = node_of(rows, node)
        if member != user or row is None or node == place.id:
            continue
        if place.id in place_of(rows, row).chain:
            return True
    return False
