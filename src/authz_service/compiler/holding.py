"""Token to holding: what it holds in one catalog, without its places, for comparing versions of that catalog."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from authz_service.catalog.ways import HeldScope, Holding
from authz_service.directory.model import NodeId, NodeKind
from authz_service.tokens.grants import Grant, GrantState
from authz_service.tokens.model import Reach, ReachKind, Token, TokenKind

_PLACES: Final = frozenset({NodeKind.PROJECT, NodeKind.GROUP})
_REACHED: Final[Mapping[ReachKind, frozenset[NodeKind]]] = {
    ReachKind.SELECTED: _PLACES,
    ReachKind.ALL_MEMBERSHIPS: _PLACES,
    ReachKind.PERSONAL_PROJECTS: frozenset({NodeKind.PROJECT}),
    ReachKind.USER: frozenset({NodeKind.USER}),
    ReachKind.INSTANCE: frozenset({NodeKind.INSTANCE}),
}


def holding_of(token: Token, catalog: str, kinds: Mapping[NodeId, NodeKind]) -> Holding:
    """`kinds` says of directory ids what they are; a node that it does not know counts as a group."""
    if catalog not in token.catalogs:
        return Holding(legacy=frozenset() if token.kind is TokenKind.LEGACY else None)
    if token.kind is TokenKind.LEGACY:
        return Holding(legacy=frozenset(token.legacy_scopes))
    return Holding(
        frozenset(
            HeldScope(_reached(scope.reach, kinds), frozenset(scope.permissions))
            for scope in token.scopes
            if scope.catalog == catalog
        )
    )


def granted_of(grants: Iterable[Grant], catalog: str, kinds: Mapping[NodeId, NodeKind]) -> Iterator[Holding]:
    """What each standing grant lets through, as if it were held: by another version it may cover other permissions."""
    for grant in grants:
        if grant.catalog == catalog and grant.state is GrantState.ACTIVE:
            named: dict[NodeId, set[str]] = {}
            for permission, node in grant.pairs:
                named.setdefault(node, set()).add(permission)
            yield Holding(
                frozenset(
                    HeldScope(_reached(Reach(ReachKind.SELECTED, (node,)), kinds), frozenset(names))
                    for node, names in named.items()
                )
            )


def _reached(reach: Reach, kinds: Mapping[NodeId, NodeKind]) -> frozenset[NodeKind]:
    """The kinds of place that a reach can cover (T2): projects alone where it selects no group."""
    if reach.kind is ReachKind.SELECTED and all(_holds_projects_alone(node) for node in _kinds(reach.nodes, kinds)):
        return frozenset({NodeKind.PROJECT})
    return _REACHED[reach.kind]


def _holds_projects_alone(kind: NodeKind | None) -> bool:
    return kind in (NodeKind.PROJECT, NodeKind.USER)


def _kinds(nodes: Iterable[NodeId], kinds: Mapping[NodeId, NodeKind]) -> Iterable[NodeKind | None]:
    for node in nodes:
        if isinstance(node, int):
            yield kinds.get(node)
        else:
            word = node.partition(":")[0]
            yield NodeKind(word) if word in list(NodeKind) else None
