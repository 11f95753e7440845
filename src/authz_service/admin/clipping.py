"""What of a token lies inside a group: all that the group's owners see of it (rule M3)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from authz_service.store.token_rows import TokenRecord
from authz_service.tokens.model import ReachKind, Scope


@dataclass(frozen=True, slots=True)
class Inside:
    """A group, the ids at and below it, and those above it."""

    group: int
    nodes: frozenset[int]
    above: frozenset[int]

    def clip(self, record: TokenRecord) -> TokenRecord:
        """The record with what lies inside alone: a place above the group is the group, and other reaches are gone.

        All memberships and legacy scopes stay as they are: they say nothing of other places.
        """
        scopes = [self._clip(scope) for scope in record.token.scopes]
        kept = tuple(scope for scope in scopes if scope is not None)
        return replace(record, token=replace(record.token, scopes=kept))

    def _clip(self, scope: Scope) -> Scope | None:
        if scope.reach.kind is ReachKind.ALL_MEMBERSHIPS:
            return scope
        if scope.reach.kind is not ReachKind.SELECTED:
            return None
        nodes = [self.group if node in self.above else node for node in scope.reach.nodes]
        kept = tuple(dict.fromkeys(node for node in nodes if node in self.nodes))
        return replace(scope, reach=replace(scope.reach, nodes=kept)) if kept else None
