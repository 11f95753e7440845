"""The reference's own reading of tokens: what one token holds, and where (A3, A8, T2, T6, C2)."""

from __future__ import annotations

from dataclasses import dataclass

from tests.reference import people, places
from tests.reference.attributes import Facts
from tests.reference.places import Place
from tests.reference.rows import Rows

from authz_service.catalog.model import Bundle, Catalog, Operation, Permission
from authz_service.directory.model import NodeKind
from authz_service.engine.model import Reason
from authz_service.tokens.model import ReachKind, Scope, Token, TokenKind

COVERED_BY_NODES = (NodeKind.PROJECT, NodeKind.GROUP)


@dataclass(frozen=True)
class Holding:
    """One token of the line, in one catalog."""

    rows: Rows
    token: Token
    catalog: Catalog
    facts: Facts

    def given(
        self,
        permission: Permission,
        boundary: NodeKind,
        place: Place,
        carried: Operation | None,
        *,
        whole: bool = False,
    ) -> tuple[Reason | None, bool]:
        """(why A3 fails at the place or None, whether it holds by the visitor's way of A8).

        `carried` is the operation that is asked for, which a bundle may carry as a whole (C7). A `whole` group is all
        that lies in it: what holds in public alone says nothing of it (C3).
        """
        if not self.is_held(permission, boundary, place, carried):
            return Reason.PERMISSION_MISSING, False
        if self.token.kind is TokenKind.LEGACY:
            counting = self.bundles_counting_at(place, whole=whole)
            if not self.is_held(permission, boundary, place, carried, counting=counting):
                return Reason.OUTSIDE_REACH, False
            if self.legacy_covers(place):
                return None, False
            visits = not whole and permission.visitor and people.is_open_to(self.rows, self.token.owner, place)
            return (None, True) if visits else (Reason.OUTSIDE_REACH, False)
        for scope in self.scopes():
            if self.holds(list(scope.permissions), permission, boundary, place) and self.covers(scope, place):
                return None, False
        return Reason.OUTSIDE_REACH, False

    def is_held(
        self,
        permission: Permission,
        boundary: NodeKind,
        place: Place | None,
        carried: Operation | None,
        counting: list[Bundle] | None = None,
    ) -> bool:
        """Whether the token holds the permission in any reach at all, or by the bundles of these that count."""
        if self.token.kind is TokenKind.LEGACY:
            bundles = self.bundles() if counting is None else counting
            if (
                carried is not None
                and any(carried.id in bundle.operations for bundle in bundles)
                and self.facts.matches(permission.when, place)
            ):
                return True
            names = [name for bundle in bundles for name in bundle.permissions]
            return self.holds(names, permission, boundary, place)
        return any(self.holds(list(scope.permissions), permission, boundary, place) for scope in self.scopes())

    def holds(self, names: list[str], permission: Permission, boundary: NodeKind, place: Place | None) -> bool:
        """C2 and C5: one of the names confers the permission at this boundary, and both meet their `when`."""
        if not self.facts.matches(permission.when, place):
            return False
        own = [self.permission(name) for name in names]
        return any(
            holder in own and self.facts.matches(holder.when, place) for holder in self.conferring(permission, boundary)
        )

    def conferring(self, permission: Permission, boundary: NodeKind) -> list[Permission]:
        """All permissions that confer this one at the boundary, itself among them (C2)."""
        if boundary not in permission.boundaries:
            return []
        return [
            holder
            for holder in self.catalog.permissions
            if boundary in holder.boundaries and permission.name in self.implied_by(holder)
        ]

    def implied_by(self, holder: Permission) -> set[str]:
        found = {holder.name}
        while True:
            more = set()
            for name in found:
                inner = self.permission(name)
                for implied in () if inner is None else inner.implies:
                    reached = self.permission(implied)
                    if reached is not None and reached.name not in found:
                        more.add(reached.name)
            if not more:
                return found
            found |= more

    def given_below(
        self, permission: Permission, boundary: NodeKind, top: Place, carried: Operation | None
    ) -> Reason | None:
        """A3 at the top of a mutating `below`, where a user is the namespace that projects lie in (C3)."""
        fine_grained = self.token.kind is TokenKind.FINE_GRAINED
        if not (fine_grained and top.kind is NodeKind.USER and boundary is NodeKind.PROJECT):
            return self.given(permission, boundary, top, carried)[0]
        if not self.is_held(permission, boundary, top, None):
            return Reason.PERMISSION_MISSING
        for scope in self.scopes():
            holds = self.holds(list(scope.permissions), permission, boundary, top)
            if holds and self.covers_namespace(scope, top):
                return None
        return Reason.OUTSIDE_REACH

    def covers_namespace(self, scope: Scope, user: Place) -> bool:
        """T2 and T6 for all projects in a user's namespace."""
        namespace: object = user.id
        if self.catalog.upstream:
            namespace = str(user.id).replace("user:", "group:", 1)
        reach = scope.reach
        if self.catalog.single_owner:
            holder = self.token.resource_owner
            if isinstance(holder, str):
                holder = places.fold(self.catalog, holder)
            if holder != namespace or reach.kind is ReachKind.ALL_MEMBERSHIPS:
                return False
        if reach.kind is ReachKind.SELECTED:
            nodes = [places.fold(self.catalog, node) if isinstance(node, str) else node for node in reach.nodes]
            return namespace in nodes
        if reach.kind is ReachKind.ALL_MEMBERSHIPS and self.catalog.upstream:
            return False
        own = reach.kind in (ReachKind.ALL_MEMBERSHIPS, ReachKind.PERSONAL_PROJECTS)
        return own and self.is_own_account(user)

    def covers(self, scope: Scope, place: Place) -> bool:
        """T2 and T6."""
        if self.catalog.single_owner and not self.resource_owner_allows(scope, place):
            return False
        reach = scope.reach
        on_nodes = place.kind in COVERED_BY_NODES
        if reach.kind is ReachKind.SELECTED:
            nodes = [places.fold(self.catalog, node) if isinstance(node, str) else node for node in reach.nodes]
            return on_nodes and any(node in place.chain for node in nodes)
        if reach.kind is ReachKind.ALL_MEMBERSHIPS:
            if self.catalog.upstream or not on_nodes:
                return False
            return people.is_member(self.rows, self.catalog, self.token.owner, place)
        if reach.kind is ReachKind.PERSONAL_PROJECTS:
            return place.kind is NodeKind.PROJECT and place.chain[1:2] == (self.own_namespace(),)
        if reach.kind is ReachKind.USER:
            return self.is_own_account(place)
        return place.kind is NodeKind.INSTANCE

    def resource_owner_allows(self, scope: Scope, place: Place) -> bool:
        if place.kind is NodeKind.INSTANCE:
            return True
        if scope.reach.kind is ReachKind.ALL_MEMBERSHIPS:
            return False
        holder = self.token.resource_owner
        if isinstance(holder, str):
            holder = places.fold(self.catalog, holder)
        return holder is not None and holder in place.chain

    def own_namespace(self) -> object:
        if not self.catalog.upstream:
            return self.token.owner
        if isinstance(self.token.owner, int):
            return None
        return places.fold(self.catalog, f"group:{self.token.owner}")

    def is_own_account(self, place: Place) -> bool:
        own = places.owner_place(self.rows, self.catalog, self.token.owner)
        return own is not None and place.kind is NodeKind.USER and place.id == own.id

    def legacy_covers(self, place: Place) -> bool:
        """A8, but for visitors."""
        if place.kind is NodeKind.USER:
            return self.is_own_account(place)
        if not self.catalog.upstream and people.is_admin(self.rows, self.token.owner):
            return True
        if place.kind is NodeKind.INSTANCE:
            return False
        if self.catalog.upstream:
            return True
        return people.is_member(self.rows, self.catalog, self.token.owner, place)

    def scopes(self) -> list[Scope]:
        """What a fine-grained token holds in this catalog; nothing where it does not name the catalog (T4)."""
        if self.token.kind is not TokenKind.FINE_GRAINED or self.catalog.name not in self.token.catalogs:
            return []
        return [scope for scope in self.token.scopes if scope.catalog == self.catalog.name]

    def bundles(self) -> list[Bundle]:
        if self.token.kind is not TokenKind.LEGACY or self.catalog.name not in self.token.catalogs:
            return []
        return [self.catalog.bundles[name] for name in self.token.legacy_scopes if name in self.catalog.bundles]

    def bundles_counting_at(self, place: Place, *, whole: bool = False) -> list[Bundle]:
        """C7: `public_only` ones say nothing of a project or group that is not public."""
        hidden = whole or (place.kind in COVERED_BY_NODES and not people.is_public(self.rows, place))
        return [bundle for bundle in self.bundles() if not (bundle.public_only and hidden)]

    def permission(self, name: str) -> Permission | None:
        """By today's name, or by a former one (C8)."""
        for wanted in (name, self.catalog.aliases.get(name)):
            for permission in self.catalog.permissions:
                if permission.name == wanted:
                    return permission
        return None
