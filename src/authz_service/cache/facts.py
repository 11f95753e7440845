"""Facts at the applied revision, as the engine's world: what is not at hand is named, so that it can be loaded."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from authz_service.cache.bounded import Bounded
from authz_service.cache.clock import elapsed
from authz_service.cache.keys import (
    AboveKey,
    CatalogKey,
    ExternalKey,
    FactKey,
    GrantsKey,
    MembershipsKey,
    NewestKey,
    NodeKey,
    PathKey,
    PoliciesKey,
    SchemaKey,
    TokenIdKey,
    TokenKey,
    UnderKey,
    UserKey,
)
from authz_service.cache.spots import Spots
from authz_service.catalog.graphql_types import ApiSchema
from authz_service.catalog.model import Catalog, ParameterKind
from authz_service.compiler.approvals import Approval, compile_approvals, compile_policies
from authz_service.compiler.compile import compile_lookup
from authz_service.compiler.lookup import Lookup
from authz_service.directory.model import INSTANCE_ID, Node, NodeId, NodeKind, User
from authz_service.tokens.grants import Approvals
from authz_service.tokens.model import Token, TokenId
from authz_service.tokens.policy import Policy


class NotAtHandError(Exception):
    """A fact has to be loaded before the question can be answered. Never leaves the decision point.

    `since` is the `elapsed()` from which on a look-up has to begin to answer it; 0 is whenever.
    """

    def __init__(self, key: FactKey, since: float = 0.0) -> None:
        super().__init__(key)
        self.key = key
        self.since = since


_serials = itertools.count(1)


@dataclass(slots=True)
class TokenEntry:
    """A known token. A token's row is immutable here: a change drops the entry.

    `serial` is this entry's alone: what is remembered under it is never found by the entry that follows it.
    """

    token: Token
    serial: int = field(default_factory=lambda: next(_serials))


@dataclass(slots=True)
class GrantsEntry:
    """What was asked and given for a token, and by catalog label what the compiler makes of it."""

    approvals: Approvals
    compiled: dict[str, Mapping[NodeId, Approval]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many facts of each kind a process keeps."""

    tokens: int = 200_000
    lookups: int = 20_000
    """What tokens hold in a catalog, compiled; it is made anew where there is no room."""
    unknown_tokens: int = 50_000
    users: int = 200_000
    nodes: int = 500_000
    questions: int = 20_000
    """Answers about what lies below a node, and names and ids that nothing has."""
    spots: int = 1_000_000
    """What one token may do at one place, all permissions together."""


_LEAST_UNDER: Final = 64
"""One operation asks below several places. With room for fewer than these it would push out its own facts for ever."""
_NEVER: Final = (0.0, 0.0)
TOP: Final = 0
"""The parent of a top-level node in edge keys."""


class Facts:
    """Implements the engine's world. All methods raise NotAtHandError for what has to be loaded first.

    Holds facts of one revision only: the follower drops what a change touched before it moves on, and the loader adds
    nothing older or newer (freshness).
    """

    def __init__(self, shipped: Iterable[Catalog] = (), bounds: Bounds | None = None) -> None:
        bounds = bounds or Bounds()
        self.digests: Bounded[bytes, TokenId] = Bounded(bounds.tokens)
        self.tokens: Bounded[TokenId, TokenEntry | None] = Bounded(bounds.tokens)
        self.lookups: Bounded[tuple[int, str], Lookup] = Bounded(bounds.lookups)
        """By entry serial and catalog label."""
        self.unknown_digests: Bounded[bytes, tuple[float, float]] = Bounded(bounds.unknown_tokens)
        """Digests of nobody's tokens, with the `elapsed()` at which the look-up began, and until which it counts."""
        self.users: Bounded[int, User | None] = Bounded(bounds.users)
        self.members: Bounded[int, Mapping[NodeId, str]] = Bounded(bounds.users)
        self.nodes: Bounded[int, Node | None] = Bounded(bounds.nodes)
        self.edges: Bounded[tuple[str, int, str], int] = Bounded(bounds.nodes)
        self.free_names: Bounded[tuple[str, int, str], None] = Bounded(bounds.questions)
        self.externals: Bounded[ExternalKey, int] = Bounded(bounds.nodes)
        self.free_externals: Bounded[ExternalKey, None] = Bounded(bounds.questions)
        self.above: Bounded[int, frozenset[int]] = Bounded(bounds.users)
        self.under: Bounded[UnderKey, tuple[int, ...]] = Bounded(max(_LEAST_UNDER, bounds.questions // 100))
        self.spots = Spots(bounds.spots)
        """Rests on the facts above: gone when any of them is."""
        self.policy_rows: dict[str, tuple[Policy, ...]] = {}
        self.policy_books: dict[str, Mapping[NodeId, Policy]] = {}
        self.approvals: Bounded[TokenId, GrantsEntry] = Bounded(bounds.tokens)
        self.generation = 0
        """Counts the times that spots were dropped: what was read from one before is no longer known after."""
        self.shipped = {CatalogKey(catalog.name, catalog.version): catalog for catalog in shipped}
        self.catalogs: dict[CatalogKey, Catalog] = dict(self.shipped)
        self.absent_catalogs: Bounded[CatalogKey, None] = Bounded(bounds.questions)
        """Versions that nobody has: whoever asks may name any number."""
        self.schemas: dict[SchemaKey, ApiSchema | None] = {}
        self.newest_installed: Bounded[str, int] = Bounded(bounds.questions)
        """By catalog name; 0 where none is installed."""

    # the engine's world

    def catalog(self, name: str, version: int) -> Catalog | None:
        key = CatalogKey(name, version)
        found = self.catalogs.get(key)
        if found is None and key not in self.absent_catalogs:
            raise NotAtHandError(key)
        return found

    def newest_catalog(self, name: str) -> Catalog | None:
        """The newest version there is, shipped or installed; None for a catalog that nobody has."""
        if name not in self.newest_installed:
            raise NotAtHandError(NewestKey(name))
        shipped = [key.version for key in self.shipped if key.name == name]
        newest = max(self.newest_installed[name], *shipped, 0)
        return self.catalog(name, newest) if newest else None

    def schema(self, name: str, version: int) -> ApiSchema | None:
        """The GraphQL schema of a catalog version's API; None where none was installed."""
        key = SchemaKey(name, version)
        if key not in self.schemas:
            raise NotAtHandError(key)
        return self.schemas[key]

    def lookup(self, token: Token, catalog: Catalog) -> Lookup:
        entry = self.tokens.get(token.id)
        if entry is None or entry.token is not token:
            return compile_lookup(token, catalog)
        key = (entry.serial, catalog.label)
        found = self.lookups.get(key)
        if found is None:
            found = self.lookups[key] = compile_lookup(token, catalog)
        return found

    def token(self, token: TokenId) -> Token | None:
        if token not in self.tokens:
            raise NotAtHandError(TokenIdKey(token))
        entry = self.tokens[token]
        return None if entry is None else entry.token

    def user(self, user: NodeId) -> User | None:
        number = _number(user)
        if number not in self.users:
            raise NotAtHandError(UserKey(number))
        return self.users[number]

    def node(self, node: NodeId) -> Node | None:
        number = _number(node)
        if number not in self.nodes:
            raise NotAtHandError(NodeKey(number))
        return self.nodes[number]

    def find(self, source: str, kind: NodeKind | None, path: str) -> Node | None:
        """Walks from the top. An edge is a hint: the child's own row says whether it still lies there."""
        parent = TOP
        node: Node | None = None
        for name in path.lower().split("/"):
            edge = (source, parent, name)
            child = self.edges.get(edge)
            if child is None:
                if edge in self.free_names:
                    return None
                raise NotAtHandError(PathKey(source, path.lower()))
            node = self.node(child)
            if node is None or edge_of(node) != edge:
                del self.edges[edge]
                raise NotAtHandError(PathKey(source, path.lower()))
            parent = child
        return node if node is not None and kind in (None, node.kind) else None

    def find_external(self, source: str, kind: ParameterKind, external_id: str) -> Node | None:
        """By id; what is remembered is a hint too, proven by the node's own row."""
        key = ExternalKey(source, kind, external_id)
        number = self.externals.get(key)
        if number is None:
            if key in self.free_externals:
                return None
            raise NotAtHandError(key)
        node = self.node(number)
        if node is None or not names_node(key, node):
            del self.externals[key]
            raise NotAtHandError(key)
        return node

    def memberships(self, user: NodeId) -> Mapping[NodeId, str]:
        number = _number(user)
        found = self.members.get(number)
        if found is None:
            raise NotAtHandError(MembershipsKey(number))
        return found

    def is_member_below(self, user: NodeId, group: NodeId) -> bool:
        # For all groups at once: what it takes to find a group unseen must not tell it from one that is not there.
        number = _number(user)
        found = self.above.get(number)
        if found is None:
            raise NotAtHandError(AboveKey(number))
        return _number(group) in found

    def at_or_below(self, node: NodeId, kind: NodeKind) -> Iterable[Node]:
        top = self.node(node)
        return self._all(UnderKey("" if top is None else top.source, _number(node), kind))

    def every(self, source: str, kind: NodeKind) -> Iterable[Node]:
        return self._all(UnderKey(source, TOP, kind))

    def _all(self, key: UnderKey) -> Iterable[Node]:
        if key not in self.under:
            raise NotAtHandError(key)
        found = (self.node(number) for number in self.under[key])
        return [node for node in found if node is not None]

    def policies(self, catalog: Catalog) -> Mapping[NodeId, Policy]:
        found = self.policy_books.get(catalog.label)
        if found is None:
            rows = self.policy_rows.get(catalog.name)
            if rows is None:
                raise NotAtHandError(PoliciesKey(catalog.name))
            found = self.policy_books[catalog.label] = compile_policies(rows, catalog)
        return found

    def grants(self, token: Token, catalog: Catalog) -> Mapping[NodeId, Approval]:
        entry = self.approvals.get(token.id)
        if entry is None:
            raise NotAtHandError(GrantsKey(token.id))
        found = entry.compiled.get(catalog.label)
        if found is None:
            found = entry.compiled[catalog.label] = compile_approvals(entry.approvals, catalog)
        return found

    # filling

    def find_token(self, digest: bytes, since: float = 0.0) -> Token | None:
        """The token of a secret, by way of its id, so that to drop the id is to drop the secret.

        That there is none is believed of look-ups that began at `since` (`elapsed()`) or later.
        """
        token_id = self.digests.get(digest)
        entry = None if token_id is None else self.tokens.get(token_id)
        if entry is not None:
            return entry.token
        began, until = self.unknown_digests.get(digest, _NEVER)
        if began >= since and until > elapsed():
            return None
        raise NotAtHandError(TokenKey(digest), since)

    def put_token(self, token: Token) -> None:
        self.tokens[token.id] = TokenEntry(token)

    def put_catalog(self, key: CatalogKey, catalog: Catalog | None) -> None:
        if catalog is None:
            self.absent_catalogs[key] = None
        else:
            self.catalogs[key] = catalog

    def put_node(self, node: Node) -> None:
        number = _number(node.id)
        self.nodes[number] = node
        if node.kind is not NodeKind.INSTANCE:
            self.edges[edge_of(node)] = number

    # dropping

    def drop_token(self, token: TokenId) -> None:
        self.tokens.pop(token, None)

    def _drop_spots(self) -> None:
        self.spots.clear()
        self.generation += 1

    def drop_user(self, user: int) -> None:
        self._drop_spots()
        self.users.pop(user, None)

    def drop_memberships(self, user: int) -> None:
        self._drop_spots()
        self.members.pop(user, None)
        self.above.pop(user, None)

    def drop_node(self, number: int) -> None:
        """The node, and every answer of the form "there is none"; what lies below it keeps its own entries."""
        self.nodes.pop(number, None)
        self.drop_node_questions()

    def drop_node_questions(self) -> None:
        self._drop_spots()
        self.free_names.clear()
        self.free_externals.clear()
        self.above.clear()
        self.under.clear()

    def drop_nodes(self) -> None:
        self.nodes.clear()
        self.edges.clear()
        self.externals.clear()
        self.drop_node_questions()

    def drop_catalog(self, name: str) -> None:
        """Versions are immutable: only what is said of their absence can change, and a removed version."""
        self._drop_spots()
        for key in [key for key in self.catalogs if key.name == name and key not in self.shipped]:
            del self.catalogs[key]
        for absent in [key for key in self.absent_catalogs if key.name == name]:
            del self.absent_catalogs[absent]
        for schema in [schema for schema in self.schemas if schema.name == name]:
            del self.schemas[schema]
        self.newest_installed.pop(name, None)
        self._forget_compiled()

    def _forget_compiled(self) -> None:
        """What was compiled by catalog versions that may be others now."""
        self.lookups.clear()
        self.policy_books.clear()
        self.approvals.clear()

    def drop_policies(self, catalog: str | None) -> None:
        """Of one catalog, or of all."""
        self._drop_spots()
        if catalog is None:
            self.policy_rows.clear()
        else:
            self.policy_rows.pop(catalog, None)
        self.policy_books.clear()

    def drop_grants(self, token: TokenId | None) -> None:
        """Of one token, or of all. A token's entry goes too, and with its serial its spots: they rest on its grants."""
        if token is None:
            self._drop_spots()
            self.approvals.clear()
        else:
            self.approvals.pop(token, None)
            self.tokens.pop(token, None)

    def drop_tokens(self) -> None:
        self.tokens.clear()
        self.lookups.clear()
        self.digests.clear()

    def drop_users(self) -> None:
        self._drop_spots()
        self.users.clear()

    def drop_all_memberships(self) -> None:
        self._drop_spots()
        self.members.clear()
        self.above.clear()

    def drop_catalogs(self) -> None:
        self._drop_spots()
        self.catalogs = dict(self.shipped)
        self.absent_catalogs.clear()
        self.schemas.clear()
        self.newest_installed.clear()
        self._forget_compiled()

    def drop_all(self) -> None:
        """Everything but catalogs that are shipped with this version comes back by loading."""
        self.drop_tokens()
        self.drop_users()
        self.drop_all_memberships()
        self.unknown_digests.clear()
        self.drop_nodes()
        self.drop_catalogs()
        self.drop_policies(None)
        self.drop_grants(None)


def edge_of(node: Node) -> tuple[str, int, str]:
    """Where a path finds this node: source, parent, name without case."""
    parent = TOP if node.parent is None or node.parent == INSTANCE_ID else _number(node.parent)
    return (node.source, parent, node.name.lower())


def names_node(key: ExternalKey, node: Node) -> bool:
    """Whether an external id names this node: a namespace is a group's id or the id of a user's namespace (C3)."""
    if key.source != node.source:
        return False
    if key.kind is ParameterKind.NAMESPACE:
        own = node.external_id if node.kind is NodeKind.GROUP else node.namespace_external_id
        return node.kind in (NodeKind.GROUP, NodeKind.USER) and own == key.external_id
    return node.kind.value == key.kind.value and node.external_id == key.external_id


def _number(node: NodeId) -> int:
    """Directory ids are numbers; a text id belongs to a catalog without a directory and never comes here."""
    if not isinstance(node, int):
        raise TypeError("a node without a directory has no facts")
    return node
