"""Random worlds: catalogs, a directory and tokens, drawn so that most questions come close to being allowed."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random

from tests.property.catalogs import ROLE_NAMES, STATIONARY_ROLE, STRANGE_ROLE, CatalogMaker
from tests.property.rulings import RulingMaker
from tests.reference.rows import Rows

from authz_service.catalog.model import Catalog
from authz_service.directory.model import (
    DEFAULT_SOURCE,
    INSTANCE_ID,
    Attributes,
    Node,
    NodeId,
    NodeKind,
    User,
    UserState,
    Visibility,
)
from authz_service.tokens.model import Conditions, Reach, ReachKind, Scope, Token, TokenId, TokenKind
from authz_service.tokens.policy import EVALUATE

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
MIRROR = "mirror"
UPSTREAM_OWNERS = ("dana", "Eve", "frank@example.org", "svc:Bot")
UPSTREAM_NODES = (
    "group:acme",
    "group:acme/tools",
    "project:acme/web",
    "project:acme/tools/cli",
    "group:dana",
    "project:dana/notes",
    "project:Acme/Web",
    "group:eve",
    "user:dana",
)
NETWORKS = ("10.0.0.0/8", "2001:db8::/32")


class WorldMaker:
    """Draws one state of the world; two made from equal `random` states are equal."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._nodes: list[Node] = [Node(INSTANCE_ID, NodeKind.INSTANCE, "instance", visibility=Visibility.PUBLIC)]
        self._ids = itertools.count(INSTANCE_ID + 1)
        self._users: list[User] = []
        self._memberships: list[tuple[NodeId, NodeId, str]] = []
        self._catalogs: list[Catalog] = []
        self._tokens: list[Token] = []

    def make(self) -> Rows:
        self._catalogs = self._draw_catalogs()
        self._draw_directory()
        for number in range(self._random.randint(6, 9)):
            self._tokens.append(self._token(number))
        self._break_lines()
        rulings = RulingMaker(Random(f"rulings {self._random.random()}"), NOW, self._nodes, self._catalogs)
        policies = rulings.policies()
        requests, grants = rulings.approvals(self._tokens, policies)
        return Rows(
            self._nodes, self._users, self._memberships, self._tokens, self._catalogs, policies, requests, grants
        )

    def _chance(self, share: float) -> bool:
        return self._random.random() < share

    # Catalogs

    def _draw_catalogs(self) -> list[Catalog]:
        found = [CatalogMaker(self._random).make("forge")]
        if self._chance(0.3):
            found.append(CatalogMaker(self._random).make("forge", version=2))
        if self._chance(0.3):
            found.append(CatalogMaker(self._random).make("mirrored", source=MIRROR))
        if self._chance(0.4):
            found.append(CatalogMaker(self._random).make("orders", upstream=True))
        if self._chance(0.1):
            found.append(CatalogMaker(self._random).make("authz"))
        return found

    # Directory

    def _draw_directory(self) -> None:
        self._draw_users(DEFAULT_SOURCE)
        self._draw_places(DEFAULT_SOURCE)
        if any(catalog.source == MIRROR for catalog in self._catalogs):
            self._draw_users(MIRROR)
            self._draw_places(MIRROR)
        self._draw_memberships()

    def _draw_users(self, source: str) -> None:
        for name in ("dana", "Eve", "frank", "bot")[: self._random.randint(2, 4)]:
            state = UserState.ACTIVE
            if self._chance(0.12):
                state = self._random.choice((UserState.BLOCKED, UserState.DELETED))
            number = next(self._ids)
            self._users.append(
                User(
                    number,
                    name,
                    state,
                    admin=self._chance(0.15),
                    external=self._chance(0.2),
                    service_account=name == "bot",
                )
            )
            self._nodes.append(
                Node(
                    number,
                    NodeKind.USER,
                    name,
                    visibility=Visibility.PUBLIC,
                    external_id=self._external_id(number),
                    namespace_external_id=str(5000 + number) if self._chance(0.7) else None,
                    attributes=self._attributes("team", ("red", "blue")),
                    source=source,
                )
            )
        # A deleted user keeps a row and has no node, and nothing lies in what was the namespace.
        gone = {user.id for user in self._users if user.state is UserState.DELETED}
        self._nodes = [node for node in self._nodes if node.id not in gone]

    def _draw_places(self, source: str) -> None:
        groups: list[Node] = []
        for name in ("acme", "Tools", "web", "infra", "x-1")[: self._random.randint(2, 5)]:
            parent = self._random.choice(groups) if groups and self._chance(0.6) else None
            groups.append(self._place(NodeKind.GROUP, name, parent, source))
        homes = [node for node in self._nodes if node.kind is NodeKind.USER and node.source == source]
        for number in range(self._random.randint(3, 6)):
            parent = self._random.choice(homes) if homes and self._chance(0.3) else self._random.choice(groups)
            self._place(NodeKind.PROJECT, f"p{number}", parent, source)

    def _place(self, kind: NodeKind, name: str, parent: Node | None, source: str) -> Node:
        number = next(self._ids)
        node = Node(
            number,
            kind,
            name,
            None if parent is None else parent.id,
            self._random.choice((Visibility.PRIVATE, Visibility.INTERNAL, Visibility.PUBLIC, Visibility.PUBLIC)),
            self._external_id(number),
            archived=self._chance(0.15),
            attributes=self._attributes("status", ("open", "closed", 1, True)),
            source=source,
        )
        self._nodes.append(node)
        return node

    def _external_id(self, number: int) -> str | None:
        """Digits, sometimes with a zero before them; ids of different kinds and sources coincide on purpose."""
        if self._chance(0.1):
            return None
        return f"0{number}" if self._chance(0.15) else str(number)

    def _attributes(self, name: str, values: tuple[str | int | bool, ...]) -> Attributes:
        return {name: self._random.choice(values)} if self._chance(0.5) else {}

    def _draw_memberships(self) -> None:
        places = [node for node in self._nodes if node.kind in (NodeKind.PROJECT, NodeKind.GROUP)]
        roles = (*ROLE_NAMES, "owner", "developer", STATIONARY_ROLE, STRANGE_ROLE)
        for user in self._users:
            if user.state is UserState.DELETED:
                continue
            for node in self._random.sample(places, min(len(places), self._random.choice((0, 1, 2, 2, 3, 4)))):
                self._memberships.append((user.id, node.id, self._random.choice(roles)))

    # Tokens

    def _token(self, number: int) -> Token:
        upstream = [catalog for catalog in self._catalogs if catalog.upstream]
        directory = [catalog for catalog in self._catalogs if not catalog.upstream]
        strange_owner = self._chance(0.02)
        if upstream and self._chance(0.3):
            catalogs = [self._random.choice(upstream)]
            owner: NodeId = self._random.choice(UPSTREAM_OWNERS)
            if strange_owner or self._chance(0.1):
                owner = self._random.choice(self._users).id
        else:
            catalogs = [self._random.choice(directory)]
            if self._chance(0.2):
                catalogs.append(self._random.choice(self._catalogs))
            source = catalogs[0].source or DEFAULT_SOURCE
            known = {node.id: node.source for node in self._nodes}
            owners = [user.id for user in self._users if known.get(user.id, source) == source]
            active = [user.id for user in self._users if user.id in owners and user.state is UserState.ACTIVE]
            every = [user.id for user in self._users]
            owner = self._random.choice((active if active and self._chance(0.95) else owners) or every)
            if strange_owner:
                owner = self._random.choice(("dana", 999))
        token = Token(
            TokenId(f"tok_{number}"),
            owner,
            {catalog.name: catalog.version for catalog in catalogs},
            conditions=Conditions((self._random.choice(NETWORKS),)) if self._chance(0.06) else Conditions(),
            created_at=NOW - 30 * DAY,
            not_before=NOW + self._random.choice((-DAY, -DAY, DAY)) if self._chance(0.06) else None,
            expires_at=NOW + self._random.choice((-DAY, DAY, DAY, DAY)) if self._chance(0.08) else None,
            revoked_at=NOW - DAY if self._chance(0.01) else None,
        )
        if self._chance(0.3):
            names = [name for catalog in catalogs for name in catalog.bundles]
            chosen = tuple(self._random.sample(names, self._random.randint(0, len(names))))
            token = replace(token, kind=TokenKind.LEGACY, legacy_scopes=(*chosen, "sudo"))
        else:
            scopes = [
                self._scope(self._random.choice(catalogs), owner) for _ in range(self._random.choice((0, 2, 3, 4, 5)))
            ]
            token = replace(token, scopes=tuple(scopes))
        token = replace(token, resource_owner=self._resource_owner(token, catalogs))
        if self._tokens and self._chance(0.15):
            token = self._child(token, self._random.choice(self._tokens))
        return token

    def _child(self, token: Token, parent: Token) -> Token:
        """Mostly narrower than the parent, as they are issued; sometimes not, as they become by later edits."""
        if parent.kind is token.kind and self._chance(0.7):
            catalogs = {
                **token.catalogs,
                **{name: parent.catalogs[name] for name in parent.catalogs if name in token.catalogs},
            }
            inherited = tuple(scope for scope in parent.scopes if scope.catalog in catalogs)
            token = replace(
                token, owner=parent.owner, catalogs=catalogs, scopes=inherited or token.scopes,
                resource_owner=parent.resource_owner,
            )  # fmt: skip
        return replace(token, parent=parent.id)

    def _resource_owner(self, token: Token, catalogs: list[Catalog]) -> NodeId | None:
        if not any(catalog.single_owner for catalog in catalogs) or self._chance(0.1):
            return None
        if isinstance(token.owner, str):
            return self._random.choice(("group:acme", "group:Acme", "group:dana", f"user:{token.owner}"))
        tops = [node.id for node in self._nodes if node.parent is None and node.kind is NodeKind.GROUP]
        return self._random.choice([*tops, token.owner])

    def _scope(self, catalog: Catalog, owner: NodeId) -> Scope:
        kind = self._random.choice((*ReachKind, ReachKind.SELECTED, ReachKind.SELECTED, ReachKind.ALL_MEMBERSHIPS))
        nodes: tuple[NodeId, ...] = ()
        if kind is ReachKind.SELECTED:
            nodes = self._selected(catalog, owner)
        share = self._random.choice((0.4, 0.8, 1.0))
        names = [permission.name for permission in catalog.permissions if self._chance(share)]
        names += ["old:name"] if self._chance(0.2) else []
        names += [EVALUATE] if catalog.name == "authz" and self._chance(0.1) else []
        return Scope(catalog.name, Reach(kind, nodes), (*names, "gone:away", "lost:name"))

    def _selected(self, catalog: Catalog, owner: NodeId) -> tuple[NodeId, ...]:
        if catalog.upstream:
            return tuple(self._random.sample(UPSTREAM_NODES, self._random.randint(1, 3)))
        source = catalog.source or DEFAULT_SOURCE
        likely = [node for user, node, _ in self._memberships if user == owner]
        every = [node.id for node in self._nodes if node.source == source]
        if not likely or self._chance(0.2):
            return tuple(self._random.sample(every, self._random.randint(1, 3)))
        chosen = self._random.sample(likely, self._random.randint(1, len(likely)))
        return (*chosen, self._random.choice(every)) if self._chance(0.3) else tuple(chosen)

    def _break_lines(self) -> None:
        """Now and then a parent that is gone, or a circle."""
        for position, token in enumerate(self._tokens):
            if token.parent is not None and self._chance(0.05):
                parent = self._random.choice((TokenId("tok_gone"), token.id, self._tokens[-1].id))
                self._tokens[position] = replace(token, parent=parent)
