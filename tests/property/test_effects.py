"""What is said of two versions of a catalog is true of every decision: nobody is broken or widened without a word."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

from hypothesis import example, given, note
from tests.property.drawn import DECISIONS, Drawn, decisions, draw, drawn_worlds
from tests.property.newer import newer
from tests.support.memory_world import MemoryWorld, decide_in

from authz_service.catalog.effects import Comparison, Effect
from authz_service.catalog.model import Catalog, TargetKind
from authz_service.compiler.holding import granted_of, holding_of
from authz_service.directory.model import NodeKind
from authz_service.engine.model import OperationRequest, PermissionRequest, Request
from authz_service.tokens.model import Token, TokenId

VERSION_AFTER = 7


class Upgrade:
    """A drawn world, and the same one with a newer version of one catalog under every token."""

    def __init__(self, drawn: Drawn, old: Catalog) -> None:
        self.random = Random(f"newer {drawn.seed}")
        self.old, self.new = old, newer(self.random, old)
        self.drawn = drawn
        moved = [self._moved(token) for token in drawn.rows.tokens]
        self.world = MemoryWorld(replace(drawn.rows, catalogs=[*drawn.rows.catalogs, self.new], tokens=moved))
        self.kinds = {node.id: node.kind for node in drawn.rows.nodes}
        self.onward, self.back = Comparison(self.old, self.new), Comparison(self.new, self.old)

    def _moved(self, token: Token) -> Token:
        if token.catalogs.get(self.old.name) != self.old.version:
            return token
        return replace(token, catalogs={**token.catalogs, self.old.name: self.new.version})

    def line(self, comparison: Comparison, token: Token) -> list[Effect]:
        """The effects on the token and on those above it (T4), and on what their grants let through (P4)."""
        found, seen, above = [], set(), token
        while above is not None and above.id not in seen:
            seen.add(above.id)
            grants = [grant for grant in self.drawn.rows.grants if grant.token == above.id]
            found.append(comparison.effect(holding_of(above, self.old.name, self.kinds)))
            found += [comparison.effect(each) for each in granted_of(grants, self.old.name, self.kinds)]
            above = None if above.parent is None else self.drawn.world.token(above.parent)
        return found

    def concerns(self, token_id: TokenId, request: Request) -> bool:
        token = self.drawn.world.token(token_id)
        return (
            token is not None
            and request.catalog == self.old.name
            and request.version is None
            and token.catalogs.get(self.old.name) == self.old.version
            and not self._newly_listed(request)
            and not self._is_refused(request)
            and not self._called_otherwise(request)
        )

    def _newly_listed(self, request: Request) -> bool:
        """Judged by its path now, and by what the asker named before: that is another question (C7)."""
        ask = request.ask
        known = [
            isinstance(ask, OperationRequest) and ask.operation in each.operations for each in (self.old, self.new)
        ]
        return known[0] is not known[1]

    def _is_refused(self, request: Request) -> bool:
        """No loader takes it: an account or the instance lies below nothing."""
        operations = [each.operations.get(getattr(request.ask, "operation", "")) for each in (self.old, self.new)]
        return any(
            item.target.kind is TargetKind.BELOW and item.boundary in (NodeKind.USER, NodeKind.INSTANCE)
            for operation in operations
            if operation is not None
            for each in operation.sets
            for item in each.items
        )

    def _called_otherwise(self, request: Request) -> bool:
        """A new name of a permission that was there: another question, but no other permission."""
        if not isinstance(request.ask, PermissionRequest):
            return False
        names = (self.old.by_name, self.new.by_name)
        return any(
            request.ask.permission not in one and other.get(request.ask.permission) in [other.get(name) for name in one]
            for one, other in (names, names[::-1])
            if request.ask.permission in other
        )


@given(drawn=drawn_worlds())
@example(drawn=draw(24492))
@example(drawn=draw(303652))
@decisions(DECISIONS // 4)
def test_whoever_is_said_to_fare_the_same_is_decided_the_same(drawn: Drawn):
    for old in drawn.rows.catalogs:
        upgrade = Upgrade(drawn, old)
        for token_id, request in drawn.questions:
            if not upgrade.concerns(token_id, request):
                continue
            before, after = decide_in(drawn.world, token_id, request), decide_in(upgrade.world, token_id, request)
            if before.allowed is after.allowed:
                continue
            token = drawn.world.token(token_id)
            assert token is not None
            onward, back = upgrade.line(upgrade.onward, token), upgrade.line(upgrade.back, token)
            note(f"{drawn}, {old.label}: {token}\n  asks {request}\n  before {before}\n  after {after}")
            note(f"{holding_of(token, old.name, upgrade.kinds)}\n{onward}\n{back}")
            if before.allowed:
                assert any(effect.breaks for effect in onward)
                assert any(effect.widens for effect in back)
            else:
                assert any(effect.widens for effect in onward)
                assert any(effect.breaks for effect in back)


def test_a_good_part_of_drawn_tokens_fares_the_same_and_is_said_to():
    said: Counter[tuple[bool, bool]] = Counter()
    turned: Counter[tuple[bool, bool]] = Counter()
    for seed in range(90):
        drawn = draw(f"newer/{seed}")
        upgrade = Upgrade(drawn, drawn.rows.catalogs[0])
        for token in drawn.rows.tokens:
            if upgrade.old.name in token.catalogs:
                effect = upgrade.line(upgrade.onward, token)[0]
                said[effect.breaks, effect.widens] += 1
        for asked in drawn.questions:
            if upgrade.concerns(*asked):
                before, after = decide_in(drawn.world, *asked), decide_in(upgrade.world, *asked)
                turned[before.allowed, after.allowed] += 1
    total = said.total()
    assert said[False, False] > total / 10, said
    assert min(said[True, False], said[False, True], said[True, True]) > total / 50, said
    assert turned[True, False] + turned[False, True] > 20, turned


def test_a_version_compared_with_itself_changes_nothing_for_anybody():
    for seed in range(20):
        drawn = draw(f"same/{seed}")
        for catalog in drawn.rows.catalogs:
            comparison = Comparison(catalog, replace(catalog, version=VERSION_AFTER))
            for token in drawn.rows.tokens:
                effect = comparison.effect(holding_of(token, catalog.name, {}))
                assert not effect.breaks
                assert not effect.widens
