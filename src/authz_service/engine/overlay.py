"""A world with a few facts replaced: what would be decided if a token, a membership or an account were another one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from authz_service.catalog.model import Catalog, ParameterKind
from authz_service.compiler.approvals import NOTHING_YET, Approval
from authz_service.compiler.compile import compile_lookup, permission_mask
from authz_service.compiler.lookup import Lookup
from authz_service.directory.model import Node, NodeId, NodeKind, User
from authz_service.engine.model import World
from authz_service.tokens.model import Token, TokenId
from authz_service.tokens.policy import Policy


@dataclass(frozen=True)
class Overlay:
    """Implements the engine's world over another one; what is not replaced passes through, errors too.

    `roles` maps (user, node) to a role, or to None for a membership taken away. `approved` has what groups approve of
    besides what they did: (permission, node) by (token, group); `unruled` are nodes without their policies. It is for
    places that exist: a replaced membership does not change what a user sees of groups above it (D5), so read no
    `hide` here.
    """

    base: World
    tokens: Mapping[TokenId, Token] = field(default_factory=dict)
    roles: Mapping[tuple[NodeId, NodeId], str | None] = field(default_factory=dict)
    users: Mapping[NodeId, User] = field(default_factory=dict)
    approved: Mapping[tuple[TokenId, NodeId], frozenset[tuple[str, NodeId]]] = field(default_factory=dict)
    unruled: frozenset[NodeId] = frozenset()
    _lookups: dict[tuple[TokenId, str], Lookup] = field(default_factory=dict, repr=False)

    def with_token(self, token: Token) -> Overlay:
        return replace(self, tokens={**self.tokens, token.id: token}, _lookups={})

    def with_role(self, user: NodeId, node: NodeId, role: str | None) -> Overlay:
        return replace(self, roles={**self.roles, (user, node): role}, _lookups={})

    def with_user(self, user: User) -> Overlay:
        return replace(self, users={**self.users, user.id: user}, _lookups={})

    def with_grant(self, token: TokenId, group: NodeId, permissions: Iterable[str], node: NodeId) -> Overlay:
        known = self.approved.get((token, group), frozenset())
        pairs = known | {(permission, node) for permission in permissions}
        return replace(self, approved={**self.approved, (token, group): pairs}, _lookups={})

    def without_policy(self, node: NodeId) -> Overlay:
        return replace(self, unruled=self.unruled | {node}, _lookups={})

    def catalog(self, name: str, version: int) -> Catalog | None:
        return self.base.catalog(name, version)

    def lookup(self, token: Token, catalog: Catalog) -> Lookup:
        if self.tokens.get(token.id) is not token:
            return self.base.lookup(token, catalog)
        key = (token.id, catalog.label)
        if key not in self._lookups:
            self._lookups[key] = compile_lookup(token, catalog)
        return self._lookups[key]

    def token(self, token: TokenId) -> Token | None:
        return self.tokens.get(token) or self.base.token(token)

    def user(self, user: NodeId) -> User | None:
        return self.users.get(user) or self.base.user(user)

    def node(self, node: NodeId) -> Node | None:
        return self.base.node(node)

    def find(self, source: str, kind: NodeKind | None, path: str) -> Node | None:
        return self.base.find(source, kind, path)

    def find_external(self, source: str, kind: ParameterKind, external_id: str) -> Node | None:
        return self.base.find_external(source, kind, external_id)

    def memberships(self, user: NodeId) -> Mapping[NodeId, str]:
        known = self.base.memberships(user)
        changed = {node: role for (who, node), role in self.roles.items() if who == user}
        if not changed:
            return known
        merged: dict[NodeId, str | None] = {**known, **changed}
        return {node: role for node, role in merged.items() if role is not None}

    def is_member_below(self, user: NodeId, group: NodeId) -> bool:
        return self.base.is_member_below(user, group)

    def at_or_below(self, node: NodeId, kind: NodeKind) -> Iterable[Node]:
        return self.base.at_or_below(node, kind)

    def every(self, source: str, kind: NodeKind) -> Iterable[Node]:
        return self.base.every(source, kind)

    def policies(self, catalog: Catalog) -> Mapping[NodeId, Policy]:
        known = self.base.policies(catalog)
        return {node: policy for node, policy in known.items() if node not in self.unruled} if self.unruled else known

    def grants(self, token: Token, catalog: Catalog) -> Mapping[NodeId, Approval]:
        known = self.base.grants(token, catalog)
        added = {group: pairs for (of, group), pairs in self.approved.items() if of == token.id}
        if not added:
            return known
        merged = dict(known)
        for group, pairs in added.items():
            approval = known.get(group, NOTHING_YET)
            active = dict(approval.active)
            for name, node in pairs:
                active[node] = active.get(node, 0) | permission_mask(catalog, (name,))
            merged[group] = replace(approval, active=active)
        return merged
