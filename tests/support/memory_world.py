"""A world of plain dictionaries, for running the engine without a database."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tests.reference.rows import Rows

from authz_service.catalog.model import Catalog, ParameterKind
from authz_service.compiler.approvals import Approval, compile_approvals, compile_policies
from authz_service.compiler.compile import compile_lookup
from authz_service.compiler.lookup import Lookup
from authz_service.directory.model import Node, NodeId, NodeKind, User
from authz_service.engine.decide import decide
from authz_service.engine.model import Decision, Reason, Request, World
from authz_service.tokens.grants import Approvals
from authz_service.tokens.model import Token, TokenId
from authz_service.tokens.policy import Policy


class MemoryWorld:
    """The engine's `World` over rows. It indexes them once: make a new one after a change."""

    def __init__(self, rows: Rows) -> None:
        self._nodes = {node.id: node for node in rows.nodes}
        self._users = {user.id: user for user in rows.users}
        self._tokens = {token.id: token for token in rows.tokens}
        self._catalogs = {(catalog.name, catalog.version): catalog for catalog in rows.catalogs}
        self._memberships: dict[NodeId, dict[NodeId, str]] = {}
        for user_id, node_id, role in rows.memberships:
            self._memberships.setdefault(user_id, {})[node_id] = role
        self._by_path: dict[tuple[str, str], Node] = {}
        self._by_external_id: dict[tuple[str, ParameterKind, str], Node] = {}
        for node in self._nodes.values():
            self._index(node)
        self._lookups: dict[tuple[TokenId, str], Lookup] = {}
        self._policies, self._requests, self._grants = rows.policies, rows.requests, rows.grants
        self._books: dict[str, Mapping[NodeId, Policy]] = {}
        self._approvals: dict[tuple[TokenId, str], Mapping[NodeId, Approval]] = {}

    def _index(self, node: Node) -> None:
        if node.kind is NodeKind.INSTANCE:
            return
        self._by_path[node.source, self._path(node).lower()] = node
        if node.external_id is not None:
            self._by_external_id[node.source, ParameterKind(node.kind.value), node.external_id] = node
        namespace = node.namespace_external_id if node.kind is NodeKind.USER else node.external_id
        if namespace is not None and node.kind in (NodeKind.GROUP, NodeKind.USER):
            self._by_external_id[node.source, ParameterKind.NAMESPACE, namespace] = node

    def _way_up(self, node: Node) -> list[Node]:
        way = [node]
        while (parent := way[-1].parent) is not None and parent in self._nodes:
            way.append(self._nodes[parent])
        return way

    def _path(self, node: Node) -> str:
        return "/".join(row.name for row in reversed(self._way_up(node)))

    def catalog(self, name: str, version: int) -> Catalog | None:
        return self._catalogs.get((name, version))

    def lookup(self, token: Token, catalog: Catalog) -> Lookup:
        key = (token.id, catalog.label)
        if key not in self._lookups:
            self._lookups[key] = compile_lookup(token, catalog)
        return self._lookups[key]

    def token(self, token: TokenId) -> Token | None:
        return self._tokens.get(token)

    def user(self, user: NodeId) -> User | None:
        return self._users.get(user)

    def node(self, node: NodeId) -> Node | None:
        return self._nodes.get(node)

    def find(self, source: str, kind: NodeKind | None, path: str) -> Node | None:
        node = self._by_path.get((source, path.lower()))
        return node if node is not None and kind in (None, node.kind) else None

    def find_external(self, source: str, kind: ParameterKind, external_id: str) -> Node | None:
        return self._by_external_id.get((source, kind, external_id))

    def memberships(self, user: NodeId) -> Mapping[NodeId, str]:
        return self._memberships.get(user, {})

    def is_member_below(self, user: NodeId, group: NodeId) -> bool:
        rows = [self._nodes[node] for node in self.memberships(user) if node != group and node in self._nodes]
        return any(above.id == group for row in rows for above in self._way_up(row))

    def at_or_below(self, node: NodeId, kind: NodeKind) -> Iterable[Node]:
        found = [candidate for candidate in self._nodes.values() if candidate.kind is kind]
        return [candidate for candidate in found if any(above.id == node for above in self._way_up(candidate))]

    def every(self, source: str, kind: NodeKind) -> Iterable[Node]:
        return [node for node in self._nodes.values() if node.source == source and node.kind is kind]

    def policies(self, catalog: Catalog) -> Mapping[NodeId, Policy]:
        if catalog.label not in self._books:
            self._books[catalog.label] = compile_policies(self._policies, catalog)
        return self._books[catalog.label]

    def grants(self, token: Token, catalog: Catalog) -> Mapping[NodeId, Approval]:
        key = (token.id, catalog.label)
        if key not in self._approvals:
            requests = tuple(request for request in self._requests if request.token == token.id)
            grants = tuple(grant for grant in self._grants if grant.token == token.id)
            self._approvals[key] = compile_approvals(Approvals(requests, grants), catalog)
        return self._approvals[key]


def decide_in(world: World, token_id: TokenId, request: Request) -> Decision:
    """The engine's decision for a token by its id; what is no token of ours never reaches the engine."""
    token = world.token(token_id)
    if token is None:
        return Decision(allowed=False, reason=Reason.UNKNOWN_TOKEN)
    return decide(token, world, request)
