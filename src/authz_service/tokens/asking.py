"""Which groups have a say in a token, and what is asked of each (rule P4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from authz_service.directory.model import INSTANCE_ID, NodeId
from authz_service.tokens.grants import Approvals, GrantState, Pair, RequestState
from authz_service.tokens.model import ReachKind, Token
from authz_service.tokens.policy import Policy, approval_in_force

Book: TypeAlias = Mapping[NodeId, Policy]
"""Every policy for one catalog, by node."""
Way: TypeAlias = Sequence[NodeId]
"""A node and what lies above it, without the instance; empty for a node that is gone."""


@dataclass(frozen=True, slots=True)
class Ground:
    """One catalog's policies over one state of the directory. `is_group` is asked of the top of a way alone."""

    book: Book
    way: Callable[[NodeId], Way]
    is_group: Callable[[NodeId], bool]

    def approving(self, node: NodeId) -> NodeId | None:
        """The topmost group at or above the node that requires approval."""
        way = self.way(node)
        down = [INSTANCE_ID, *reversed(way)]
        position, _ = approval_in_force([(one, self.book.get(one)) for one in down])
        if position is None or not way:
            return None
        if position:
            return down[position]
        return way[-1] if self.is_group(way[-1]) else None

    def approving_below(self, node: NodeId) -> list[NodeId]:
        """The topmost groups below the node that require approval, where none at or above it does."""
        named = [one for one, policy in self.book.items() if policy.approval is not None and policy.approval.required]
        return [one for one in named if one != INSTANCE_ID and node in self.way(one) and self.approving(one) == one]

    def askings(self, node: NodeId) -> list[tuple[NodeId, NodeId]]:
        """(group, node of the pair) for what a token holds on the node and below."""
        group = self.approving(node)
        if group is not None:
            return [(group, node)]
        return [(one, one) for one in self.approving_below(node)]


def held_on(token: Token, catalog: str, memberships: Iterable[NodeId]) -> dict[NodeId, set[str]]:
    """Permissions by node: of selected nodes, and of all memberships on what the owner is a member of.

    The other reaches lie in no group.
    """
    held: dict[NodeId, set[str]] = {}
    for scope in token.scopes:
        if scope.catalog != catalog:
            continue
        nodes: Iterable[NodeId] = ()
        if scope.reach.kind is ReachKind.SELECTED:
            nodes = scope.reach.nodes
        elif scope.reach.kind is ReachKind.ALL_MEMBERSHIPS:
            nodes = memberships
        for node in nodes:
            held.setdefault(node, set()).update(scope.permissions)
    return held


def needed(token: Token, catalog: str, memberships: Iterable[NodeId], ground: Ground) -> dict[NodeId, frozenset[Pair]]:
    """What the token needs of each group: (permission, node) pairs. All memberships are asked on the whole group."""
    found: dict[NodeId, set[Pair]] = {}
    reaching = {scope.reach.kind for scope in token.scopes if scope.catalog == catalog}
    selected = {node for scope in token.scopes if scope.catalog == catalog for node in scope.reach.nodes}
    own = list(memberships) if ReachKind.ALL_MEMBERSHIPS in reaching else []
    everywhere = {
        name
        for scope in token.scopes
        if scope.catalog == catalog and scope.reach.kind is ReachKind.ALL_MEMBERSHIPS
        for name in scope.permissions
    }
    for node in selected:
        for group, at in ground.askings(node):
            for scope in token.scopes:
                if scope.catalog == catalog and node in scope.reach.nodes:
                    found.setdefault(group, set()).update((name, at) for name in scope.permissions)
    for node in own:
        for group, _ in ground.askings(node):
            found.setdefault(group, set()).update((name, group) for name in everywhere)
    return {group: frozenset(pairs) for group, pairs in found.items()}


def covers(pairs: Iterable[Pair], pair: Pair, way: Way) -> bool:
    """Whether the pairs hold this very permission at the pair's node or above it."""
    return any(name == pair[0] and node in way for name, node in pairs)


@dataclass(frozen=True, slots=True)
class Stood:
    """What one group had said of a token: `given` by its active grant, and all that it refused or has not answered."""

    active: bool = False
    given: frozenset[Pair] = frozenset()
    withheld: frozenset[Pair] = frozenset()

    def keeps_back(self, pair: Pair, way: Callable[[NodeId], Way]) -> bool:
        """Whether the pair is refused or waits there, wholly or in a part of its place. What is granted is not."""
        name, at = pair
        if covers(self.given, pair, way(at)):
            return False
        return any(
            one == name and (node in way(at) or (at in way(node) and not covers(self.given, (one, node), way(node))))
            for one, node in self.withheld
        )


def stood_at(found: Approvals, catalog: str, fold: Callable[[str], str] = str) -> dict[NodeId, Stood]:
    """By group: what stands of a token, and what was denied, approved for less, revoked or is pending (P4)."""

    def folded(node: NodeId) -> NodeId:
        return fold(node) if isinstance(node, str) else node

    given: dict[NodeId, set[Pair]] = {}  # a grant may have nothing left
    withheld: dict[NodeId, set[Pair]] = {}
    for grant in found.grants:
        if grant.catalog == catalog:
            kept = given if grant.state is GrantState.ACTIVE else withheld
            kept.setdefault(folded(grant.group), set()).update((name, folded(node)) for name, node in grant.pairs)
    for request in found.requests:
        if request.catalog == catalog and request.state is not RequestState.CANCELLED:
            refused = request.asked - request.given
            withheld.setdefault(folded(request.group), set()).update((name, folded(node)) for name, node in refused)
    return {
        group: Stood(group in given, frozenset(given.get(group, ())), frozenset(withheld.get(group, ())))
        for group in {*given, *withheld}
    }


def carried_over(
    held: Mapping[NodeId, Iterable[str]], before: Ground, after: Ground, stood: Mapping[NodeId, Stood]
) -> dict[NodeId, set[Pair]]:
    """What was in force of a token under groups that did not require approval, or were not the topmost that do.

    `stood` is what groups had said of it before. What a former topmost group had not granted stays out, what the new
    one had refused or not answered too, and so does what covers such a part together with more.
    """
    found: dict[NodeId, set[Pair]] = {}
    for node, names in held.items():
        for group, at in after.askings(node):
            was = before.approving(at)
            if was == group or node not in before.way(at):
                continue
            former = [was] if was is not None else before.approving_below(at)
            for name in names:
                said = stood.get(group, Stood())
                pairs = _in_force(name, at, was, former, before, stood)
                pairs = {pair for pair in pairs if not said.keeps_back(pair, after.way)}
                if pairs:
                    found.setdefault(group, set()).update(pairs)
    return found


def _in_force(
    name: str,
    at: NodeId,
    was: NodeId | None,
    former: Sequence[NodeId],
    before: Ground,
    stood: Mapping[NodeId, Stood],
) -> set[Pair]:
    """The parts of a permission on a node that nothing kept back before; `former` are the groups that could have."""
    found: set[Pair] = set()
    whole = True
    for group in former:
        given = stood[group].given if group in stood else frozenset[Pair]()
        inner = at if was is not None else group
        if covers(given, (name, inner), before.way(inner)):
            continue
        whole = False
        found |= {(one, node) for one, node in given if one == name and inner in before.way(node)}
    return {(name, at)} if whole else found
