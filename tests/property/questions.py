"""Random requests about one world: mostly about what the token holds and where it may, a few per cent nonsense."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

from tests.property.catalogs import VALUES
from tests.property.worlds import DAY, NOW, UPSTREAM_NODES, UPSTREAM_OWNERS
from tests.reference.places import path_of, place_of
from tests.reference.rows import Rows

from authz_service.catalog.model import Catalog, Operation, ParameterKind, TargetKind
from authz_service.directory.model import DEFAULT_SOURCE, Node, NodeId, NodeKind, Scalar
from authz_service.engine.model import OperationRequest, PermissionRequest, Request
from authz_service.tokens.model import ReachKind, Token, TokenId, TokenKind

NONSENSE = (
    "",
    "12",
    "acme/../acme",
    "acme//web",
    "nowhere/at/all",
    "team:acme",
    "project:",
    "project:acme/",
    "group:-x",
    "user:dana/notes",
    "project:" + "9" * 70,
    "/".join("a" * 22),
    "prøject",
)
REACHED = {
    ReachKind.SELECTED: (NodeKind.PROJECT, NodeKind.GROUP),
    ReachKind.ALL_MEMBERSHIPS: (NodeKind.PROJECT, NodeKind.GROUP),
    ReachKind.PERSONAL_PROJECTS: (NodeKind.PROJECT,),
    ReachKind.USER: (NodeKind.USER,),
    ReachKind.INSTANCE: (NodeKind.INSTANCE,),
}
ADDRESSES = (None, "10.1.2.3", "192.0.2.1", "2001:db8::1", "::ffff:10.0.0.1", "not an address")


class Questioner:
    """Draws requests about one world."""

    def __init__(self, random: Random, rows: Rows) -> None:
        self._random = random
        self._rows = rows
        self._catalogs = {(catalog.name, catalog.version): catalog for catalog in rows.catalogs}
        self._paths = {node.id: path_of(rows, node) for node in rows.nodes}
        self._favourites = {token.id: self._likely_nodes(token) for token in rows.tokens}

    def _chance(self, share: float) -> bool:
        return self._random.random() < share

    def ask(self, count: int, promising: Callable[[TokenId, Request], bool]) -> Iterator[tuple[TokenId, Request]]:
        """Of what is drawn and not `promising`, much is drawn again: left to chance, four of five would be denied."""
        for _ in range(count):
            drawn = self._draw()
            if self._chance(0.6):
                for _ in range(4):
                    if promising(*drawn):
                        break
                    drawn = self._draw()
            yield drawn

    def _draw(self) -> tuple[TokenId, Request]:
        token = self._random.choice(self._rows.tokens)
        unknown = self._chance(0.01)
        return TokenId("tok_unknown") if unknown else token.id, self.request(token)

    def request(self, token: Token) -> Request:
        name = self._random.choice(list(token.catalogs))
        version = token.catalogs[name]
        catalog = self._catalogs[name, version]
        ask = self._permission(token, catalog) if self._chance(0.35) else self._operation(token, catalog)
        now = NOW
        if self._chance(0.05):
            now = self._random.choice((NOW - DAY, NOW + DAY, NOW + 2 * DAY))
        return Request(
            catalog=name if self._chance(0.985) else self._random.choice(("forge", "orders", "unheard")),
            ask=ask,
            now=now,
            version=None if self._chance(0.9) else self._random.choice((version, version, version + 1)),
            attributes=self._attributes(),
            client_address=self._address(token),
        )

    def _address(self, token: Token) -> str | None:
        if token.conditions.networks and self._chance(0.7):
            return "10.1.2.3" if token.conditions.networks[0].startswith("10.") else "2001:db8::1"
        return self._random.choice(ADDRESSES)

    def _attributes(self) -> dict[str, Scalar]:
        return {
            name: self._random.choice(values)
            for name, values in VALUES.items()
            if self._chance(0.1 if name.startswith("subject.") else 0.6)
        }

    # What is asked

    def _permission(self, token: Token, catalog: Catalog) -> PermissionRequest:
        if self._chance(0.03):
            name = self._random.choice(("never:was", "old:name", "lost:name", "gone:away"))
            return PermissionRequest(name, self._target(token, catalog, None))
        known = {permission.name: list(permission.boundaries) for permission in catalog.permissions}
        held = self._held(token, catalog)
        fitting = [(name, kind) for name, kind in held if kind in known.get(name, ())]
        if fitting and self._chance(0.85):
            name, boundary = self._random.choice(fitting)
        else:
            name = self._random.choice(list(known))
            boundary = self._random.choice(known[name] if self._chance(0.9) else list(NodeKind))
        return PermissionRequest(name, None if self._chance(0.02) else self._target(token, catalog, boundary))

    def _operation(self, token: Token, catalog: Catalog) -> OperationRequest:
        mutates = self._chance(0.5)
        target = None if self._chance(0.05) else self._target(token, catalog, None)
        if self._chance(0.04):
            return OperationRequest("GET /not/in/any/table", {}, target, mutates)
        operations = self._random.choices(list(catalog.operations.values()), k=3)
        operation = max(operations, key=lambda operation: self._hope(token, catalog, operation))
        wanted = [
            (item.target, item.boundary)
            for choice in operation.sets
            for item in choice.items
            if item.target.parameters or item.target.owner_is or item.target.kind is TargetKind.CALLER
        ]
        if operation.open_at is not None:
            wanted.append((operation.open_at, NodeKind.PROJECT))
        parameters: dict[str, str] = {}
        for sought, boundary in wanted:
            if sought.kind is TargetKind.CALLER and target is not None and self._chance(0.5):
                target = self._target(token, catalog, boundary)
            elif sought.owner_is is not None:
                parameters.setdefault(sought.owner_is, self._value(token, catalog, ParameterKind.USER))
            elif len(sought.parameters) == 1 and sought.names is not None:
                parameters.setdefault(sought.parameters[0], self._value(token, catalog, sought.names))
            elif sought.parameters:
                owner, _, repo = self._path(token, catalog, [NodeKind.PROJECT]).rpartition("/")
                parameters.update(owner=owner, repo=repo)
        if self._chance(0.3):
            parameters["status"] = self._random.choice(("open", "closed"))
        if self._chance(0.3):
            parameters["soft"] = self._random.choice(("true", "1"))
        if parameters and self._chance(0.03):
            parameters.pop(self._random.choice(list(parameters)))
        return OperationRequest(operation.id, parameters, target, mutates, bad_path=self._chance(0.01))

    def _held(self, token: Token, catalog: Catalog) -> list[tuple[str, NodeKind]]:
        """What the token holds by name, and at which kinds its reaches can be worth anything."""
        if token.kind is TokenKind.LEGACY:
            bundles = [catalog.bundles[name] for name in token.legacy_scopes if name in catalog.bundles]
            return [(name, kind) for bundle in bundles for name in sorted(bundle.permissions) for kind in NodeKind]
        return [
            (name, kind)
            for scope in token.scopes
            if scope.catalog == catalog.name
            for name in scope.permissions
            for kind in REACHED[scope.reach.kind]
        ]

    def _hope(self, token: Token, catalog: Catalog, operation: Operation) -> int:
        """Whether the token holds what some set names, where its reaches go: a guess, implications left out."""
        held = self._held(token, catalog)
        return any(all((item.permission, item.boundary) in held for item in choice.items) for choice in operation.sets)

    # Where

    def _target(self, token: Token, catalog: Catalog, boundary: NodeKind | None) -> str:
        if self._chance(0.04):
            return self._random.choice(NONSENSE)
        if boundary is None:
            kinds = (NodeKind.PROJECT, NodeKind.PROJECT, NodeKind.GROUP, NodeKind.USER, NodeKind.INSTANCE)
            boundary = self._random.choice(kinds)
        if boundary is NodeKind.INSTANCE:
            return "instance"
        node = None if catalog.upstream else self._node(token, catalog, [boundary])
        if node is not None and node.external_id is not None and self._chance(0.3):
            return f"{boundary.value}:{node.external_id}"
        path = self._path(token, catalog, [boundary]) if node is None else self._case(self._paths[node.id])
        bare = self._chance(0.05 if catalog.upstream else 0.4)
        return path if bare else f"{boundary.value}:{path}"

    def _value(self, token: Token, catalog: Catalog, names: ParameterKind) -> str:
        """Of a path parameter."""
        if self._chance(0.04):
            return self._random.choice((*NONSENSE, "instance", "project:acme/web", "424242"))
        kinds = [NodeKind.GROUP, NodeKind.USER]
        if names is not ParameterKind.NAMESPACE:
            kinds = [NodeKind(names.value)]
        if self._chance(0.04):
            kinds = list(NodeKind)[:3]
        if not catalog.upstream and self._chance(0.4):
            node = self._node(token, catalog, kinds)
            if node is not None:
                own = node.external_id
                if names is ParameterKind.NAMESPACE and node.kind is NodeKind.USER:
                    own = node.namespace_external_id
                if own is not None:
                    return own if self._chance(0.95) else f"0{own}"
        return self._path(token, catalog, kinds)

    def _path(self, token: Token, catalog: Catalog, kinds: list[NodeKind]) -> str:
        if catalog.upstream:
            words = [text.partition(":") for text in UPSTREAM_NODES]
            paths = [path for kind, _, path in words if NodeKind(kind) in kinds] or ["acme"]
            if NodeKind.USER in kinds:
                paths = [*paths, *UPSTREAM_OWNERS, str(token.owner), str(token.owner)]
            path = self._random.choice(paths)
            return self._case(f"{path}/more" if NodeKind.PROJECT in kinds and self._chance(0.2) else path)
        node = self._node(token, catalog, kinds)
        return "void/0" if node is None else self._case(self._paths[node.id])

    def _case(self, path: str) -> str:
        return path.swapcase() if self._chance(0.05) else path

    def _node(self, token: Token, catalog: Catalog, kinds: list[NodeKind]) -> Node | None:
        source = catalog.source or DEFAULT_SOURCE
        if self._chance(0.03):
            source = DEFAULT_SOURCE
        fitting = [node for node in self._rows.nodes if node.kind in kinds and node.source == source]
        draw = self._random.random()
        for likely in self._favourites[token.id][0 if draw < 0.75 else 1 :]:
            chosen = [node for node in fitting if node.id in likely]
            if chosen and draw < 0.9:
                return self._random.choice(chosen)
        return self._random.choice(fitting) if fitting else None

    def _likely_nodes(self, token: Token) -> tuple[set[NodeId], set[NodeId]]:
        """Nodes that some scope may cover and whose member the owner is; then those that are one of the two."""
        own = {token.owner, *(node for user, node, _ in self._rows.memberships if user == token.owner)}
        named = {token.owner}
        for scope in token.scopes:
            named |= set(scope.reach.nodes)
            named |= own if scope.reach.kind is ReachKind.ALL_MEMBERSHIPS else set()
        if token.kind is TokenKind.LEGACY:
            named |= own
        ways = {node.id: set(place_of(self._rows, node).chain) for node in self._rows.nodes}
        both = {node for node, way in ways.items() if way & own and way & named}
        return both, {node for node, way in ways.items() if way & own or way & named}
