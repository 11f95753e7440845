"""The smallest fix of a denial: which change of the token, or of its owner's memberships, would allow it.

Nothing is guessed: each change is made in a world of its own and decided there by the engine. What would be a fix is
named only where the token's owner may see every place in it (A10).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from authz_service.catalog.model import Catalog
from authz_service.engine.case import open_case
from authz_service.engine.decide import explain
from authz_service.engine.model import (
    REASON_ORDER,
    Decision,
    Reason,
    Request,
    TracedToken,
    World,
)
from authz_service.engine.overlay import Overlay
from authz_service.engine.places import Place
from authz_service.engine.remedies import FIXABLE, asked_places, catalog_of, remedies, role_weight
from authz_service.engine.steps import Fix, Step, StepKind, take
from authz_service.tokens.model import ReachKind, Token, TokenId

_MOST_STEPS: Final = 3
_MOST_DECISIONS: Final = 400
"""One explanation may take as many decisions: about twenty milliseconds."""
_FRONTIER: Final = 12


@dataclass(frozen=True, slots=True)
class _State:
    """Where the search stands: the steps taken, and what is decided after them."""

    steps: tuple[Step, ...]
    world: Overlay
    decision: Decision
    trace: list[TracedToken]

    @property
    def left(self) -> tuple[int, int]:
        """Smaller is nearer to an allow."""
        return (-REASON_ORDER[self.decision.reason], len(self.decision.missing))


def find_fixes(token: Token, world: World, request: Request, decision: Decision, *, most: int = 3) -> tuple[Fix, ...]:
    """Fixes with as few steps as any, the narrowest first; none for what no change of rights would allow.

    A single step is found where there is one, whatever it takes besides; longer ones are looked for within a bound.
    None at all where a place that the token's owner may not see has a part in it. What the world raises passes through.
    """
    if decision.allowed or decision.hide or decision.reason not in FIXABLE:
        return ()
    start = Overlay(world)
    decided, trace = explain(token, start, request)
    if turns_on_hidden(token, start, request):
        return ()
    states = [_State((), start, decided, trace)]
    budget = _MOST_DECISIONS
    for _ in range(_MOST_STEPS):
        found: list[tuple[Step, ...]] = []
        waiting: list[_State] = []
        for state in states:
            for step in remedies(token, state.world, request, state.decision, state.trace):
                if budget == 0:
                    break
                budget -= 1
                after = _after(state, step, token, request)
                if after.decision.allowed:
                    found.append(_merged(after.steps, token, start))
                elif after.decision.reason in FIXABLE:
                    waiting.append(after)
        visible = _narrowest([steps for steps in found if _seen(steps, token, start, request)], token, request, start)
        if visible:
            trimmed: dict[frozenset[Step], tuple[Step, ...]] = {}
            for steps in visible:
                if len(trimmed) < most:
                    fewest = _trimmed(steps, token, start, request)
                    trimmed.setdefault(frozenset(fewest), fewest)
            return tuple(Fix(steps) for steps in trimmed.values())
        if found or budget == 0:
            return ()
        states = sorted(waiting, key=lambda state: state.left)[:_FRONTIER]
    return ()


def turns_on_hidden(token: Token, world: World, request: Request) -> bool:
    """Whether some way to an allow names a place that the owner may not see, or that is not there: alike (A10).

    A fix by another way would tell the two apart, or tell that one of them is there.
    """
    catalog = catalog_of(token, world, request)
    if catalog is None or catalog.upstream:
        return False
    case = open_case(token, catalog, world, request)
    return any(
        not case.places.seen(place) if isinstance(place, Place) else place is Reason.TARGET_UNKNOWN
        for place in asked_places(case)
    )


def _after(state: _State, step: Step, token: Token, request: Request) -> _State:
    world = take(step, state.world, token)
    decision, trace = explain(world.tokens.get(token.id, token), world, request)
    return _State((*state.steps, step), world, decision, trace)


def _trimmed(steps: tuple[Step, ...], token: Token, start: Overlay, request: Request) -> tuple[Step, ...]:
    """Without each permission and place that it does not take: what is left allows, and no part of it does."""
    position = 0
    while position < len(steps):
        step = steps[position]
        for smaller in _smaller(step):
            fewer = (*steps[:position], *smaller, *steps[position + 1 :])
            world = start
            for one in fewer:
                world = take(one, world, token)
            if fewer and explain(world.tokens.get(token.id, token), world, request)[0].allowed:
                steps = fewer
                break
        else:
            position += 1
    return steps


def _smaller(step: Step) -> Iterator[tuple[Step, ...]]:
    """The step with one permission or one place less, or, where it has no more of them, no step at all."""
    if step.kind in (StepKind.ADD_PERMISSIONS, StepKind.ADD_SCOPE) and len(step.permissions) > 1:
        for name in step.permissions:
            yield (replace(step, permissions=tuple(other for other in step.permissions if other != name)),)
    if step.kind in (StepKind.ADD_NODES, StepKind.ADD_SCOPE) and len(step.nodes) > 1:
        for number in range(len(step.nodes)):
            nodes, targets = step.nodes, step.targets
            yield (
                replace(
                    step, nodes=nodes[:number] + nodes[number + 1 :], targets=targets[:number] + targets[number + 1 :]
                ),
            )
    yield ()


def _merged(steps: tuple[Step, ...], token: Token, start: Overlay) -> tuple[Step, ...]:
    """A step about a scope that a former step makes is a part of making it: nobody can number a scope that is not."""
    merged: list[Step] = []
    made: dict[tuple[TokenId | None, int], int] = {}
    counts: dict[TokenId, int] = {}
    for step in steps:
        if step.token is not None and step.token not in counts:
            known = token if step.token == token.id else start.token(step.token)
            counts[step.token] = 0 if known is None else len(known.scopes)
        position = None if step.scope is None else made.get((step.token, step.scope))
        if position is not None:
            former = merged[position]
            merged[position] = replace(
                former,
                nodes=tuple(dict.fromkeys((*former.nodes, *step.nodes))),
                targets=tuple(dict.fromkeys((*former.targets, *step.targets))),
                permissions=tuple(dict.fromkeys((*former.permissions, *step.permissions))),
            )
            continue
        if step.kind is StepKind.ADD_SCOPE and step.token is not None:
            made[step.token, counts[step.token]] = len(merged)
            counts[step.token] += 1
        merged.append(step)
    return tuple(merged)


def _seen(steps: Iterable[Step], token: Token, world: Overlay, request: Request) -> bool:
    """Whether the token's owner may know of every place that the steps name, as the world is now."""
    catalog = catalog_of(token, world, request)
    if catalog is None:
        return False
    case = open_case(token, catalog, world, request)
    places = [case.places.parse(text) for step in steps for text in step.targets]
    return all(place is not None and case.places.seen(place) for place in places)


def _narrowest(found: list[tuple[Step, ...]], token: Token, request: Request, world: Overlay) -> list[tuple[Step, ...]]:
    """Of each kind of change the smallest alone: the lowest role, the fewest permissions, the lowest place."""
    catalog = catalog_of(token, world, request)
    if catalog is None:
        return []
    ranked = sorted(found, key=lambda steps: [_size(step, catalog) for step in steps])
    kept: dict[object, tuple[Step, ...]] = {}
    for steps in ranked:
        kinds = Counter((step.kind, step.user, step.nodes[:1] if step.role else ()) for step in steps)
        kept.setdefault(frozenset(kinds.items()), steps)  # in whichever order they are taken
    return list(kept.values())


def _size(step: Step, catalog: Catalog) -> tuple[object, ...]:
    kinds = list(StepKind)
    wide = step.reach is ReachKind.ALL_MEMBERSHIPS
    # A token's scopes are its owner's to change; memberships and roles are somebody's, and count for every token.
    return (
        kinds.index(step.kind) > kinds.index(StepKind.ADD_LEGACY_SCOPE),
        wide,
        len(step.permissions) * max(1, len(step.nodes)),
        kinds.index(step.kind),
        role_weight(catalog, step.role),
        _bundle_weight(catalog, step.legacy_scope),
        step.targets,
        step.permissions,
        step.scope or 0,
        step.role or "",
        step.legacy_scope or "",
    )


def _bundle_weight(catalog: Catalog, name: str | None) -> int:
    bundle = None if name is None else catalog.bundles.get(name)
    return 0 if bundle is None else len(bundle.permissions) + len(bundle.operations)
