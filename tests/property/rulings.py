"""Random policies, requests and grants about drawn tokens, so that a part of what they may do is stopped by A5."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from random import Random

from authz_service.catalog.model import Catalog
from authz_service.directory.model import DEFAULT_SOURCE, INSTANCE_ID, Node, NodeId, NodeKind
from authz_service.tokens.grants import Grant, GrantRequest, GrantState, Pair, RequestState
from authz_service.tokens.model import ReachKind, Token, TokenKind
from authz_service.tokens.policy import ALWAYS, ApprovalRule, KindRule, LifetimeRule, Policy

UPSTREAM_GROUPS = ("group:acme", "group:Acme/Tools", "group:dana", "group:eve")


class RulingMaker:
    """Draws what organisations say about one world's tokens."""

    def __init__(self, random: Random, now: datetime, nodes: Sequence[Node], catalogs: Sequence[Catalog]) -> None:
        self._random = random
        self._now = now
        self._nodes = nodes
        self._catalogs = catalogs
        self._numbers = itertools.count(1)

    def _chance(self, share: float) -> bool:
        return self._random.random() < share

    # Policies

    def policies(self) -> list[Policy]:
        found: list[Policy] = []
        for catalog in {catalog.name: catalog for catalog in self._catalogs}.values():
            if self._chance(0.7):
                found += [self._policy(catalog, node) for node in self._places(catalog) if self._chance(0.5)]
        return [policy for policy in found if not policy.empty]

    def _places(self, catalog: Catalog) -> list[NodeId]:
        return [INSTANCE_ID, *self._groups(catalog)]

    def _groups(self, catalog: Catalog) -> list[NodeId]:
        if catalog.upstream:
            # Two texts that fold to one place are one place: then one of them.
            chosen: dict[str, NodeId] = {catalog.fold(node): node for node in UPSTREAM_GROUPS}
            return list(chosen.values())
        source = catalog.source or DEFAULT_SOURCE
        return [node.id for node in self._nodes if node.kind is NodeKind.GROUP and node.source == source]

    def _policy(self, catalog: Catalog, node: NodeId) -> Policy:
        kinds = {}
        if self._chance(0.15):
            kinds[TokenKind.FINE_GRAINED] = self._kind_rule(dated=False)
        if self._chance(0.4):
            kinds[TokenKind.LEGACY] = self._kind_rule(dated=True)
        lifetimes = {}
        for kind in TokenKind:
            if self._chance(0.08):
                days = self._random.choice((28, 29, 30, 31, 400))
                lifetimes[kind] = LifetimeRule(days, force=self._chance(0.2), exempt_admins=self._chance(0.3))
        approval = None
        if self._chance(0.6):
            approval = ApprovalRule(self._chance(0.7), force=self._chance(0.25))
        return Policy(node, catalog.name, kinds, approval, lifetimes, since=self._now - timedelta(days=5))

    def _kind_rule(self, *, dated: bool) -> KindRule:
        values: list[datetime | None] = [None, None, ALWAYS]
        if dated:
            values += [self._now + timedelta(days=days) for days in (-1, 0, 1, 2)]
        chosen = self._random.choice(values)
        return KindRule(chosen, force=self._chance(0.3), include_service_accounts=dated and self._chance(0.4))

    # Requests and grants

    def approvals(self, tokens: Sequence[Token], policies: Sequence[Policy]) -> tuple[list[GrantRequest], list[Grant]]:
        requests: list[GrantRequest] = []
        grants: list[Grant] = []
        for token in tokens:
            if token.kind is TokenKind.LEGACY:
                continue
            for catalog in self._catalogs:
                if token.catalogs.get(catalog.name) != catalog.version:
                    continue
                named = {policy.node for policy in policies if policy.catalog == catalog.name}
                everywhere = INSTANCE_ID in named
                for group in self._groups(catalog):
                    if (everywhere or group in named) and self._chance(0.85):
                        for made in self._of(token, catalog, group):
                            requests += [made] if isinstance(made, GrantRequest) else []
                            grants += [made] if isinstance(made, Grant) else []
        return requests, grants

    def _of(self, token: Token, catalog: Catalog, group: NodeId) -> Iterator[GrantRequest | Grant]:
        """A history: some things closed, then perhaps a grant, perhaps a request."""
        for _ in range(self._random.choice((0, 1, 2))):
            asked = self._pairs(token, catalog, group)
            number = next(self._numbers)
            closing = (RequestState.DENIED, RequestState.DENIED, RequestState.APPROVED, RequestState.CANCELLED)
            state = self._random.choice(closing)
            given = frozenset(pair for pair in asked if self._chance(0.5)) if state is RequestState.APPROVED else ()
            yield GrantRequest(
                number, token.id, catalog.name, group, state, asked, frozenset(given), self._random.randrange(10**6)
            )
            if self._chance(0.4):
                pairs = self._pairs(token, catalog, group)
                closed = self._random.randrange(10**6)
                yield Grant(number, token.id, catalog.name, group, GrantState.REVOKED, pairs, closed)
        if self._chance(0.5):
            pairs = self._pairs(token, catalog, group)
            yield Grant(next(self._numbers), token.id, catalog.name, group, GrantState.ACTIVE, pairs)
        if self._chance(0.25):
            asked = self._pairs(token, catalog, group)
            yield GrantRequest(next(self._numbers), token.id, catalog.name, group, RequestState.PENDING, asked)

    def _pairs(self, token: Token, catalog: Catalog, group: NodeId) -> frozenset[Pair]:
        """What the token holds, mostly on the whole group; now and then on a place of its scopes, or by an old name."""
        scopes = [scope for scope in token.scopes if scope.catalog == catalog.name]
        share = self._random.choice((0.5, 1.0, 1.0))
        found: set[Pair] = set()
        for scope in scopes:
            places: Sequence[NodeId] = (group,)
            if scope.reach.kind is ReachKind.SELECTED and scope.reach.nodes and self._chance(0.4):
                places = scope.reach.nodes
            found |= {(name, node) for name in scope.permissions for node in places if self._chance(share)}
        if self._chance(0.05):
            found.add(("old:name", group))
        return frozenset(found)
