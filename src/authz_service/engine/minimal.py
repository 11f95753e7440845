"""The smallest token for some calls: of every call one alternative, so that together they allow as little as can be.

What a token gives is counted, not what is written in it: a permission counts at every place it reaches that is spoken
of, with all that it implies. First as few wide reaches as can be, then as few changing permissions, then as few at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from authz_service.catalog.model import bits

Mask = int
"""A set of elements: one bit for each permission at each place that a token could give."""

_MOST_NODES: Final = 8_000
"""Of the search: a second or two at worst. Fifty calls with two alternatives each, at random, take some hundred."""

_SHARE: Final = 4
"""Costs are shared in sixteenths while a bound is worked out."""


@dataclass(frozen=True, slots=True)
class Weights:
    """What an element costs: `wide` before `changing` before one each."""

    wide: Mask = 0
    changing: Mask = 0

    def of(self, mask: Mask) -> int:
        """Additive over elements, so that more of them never cost less."""
        return ((mask & self.wide).bit_count() << 60) + ((mask & self.changing).bit_count() << 30) + mask.bit_count()


@dataclass(frozen=True, slots=True)
class Choice:
    """Which alternative was taken of each call. When `exact` is false, none costs less than `at_least`."""

    taken: tuple[int, ...]
    given: Mask
    cost: int
    exact: bool
    at_least: int


def choose(calls: Sequence[Sequence[Mask]], weights: Weights) -> Choice:
    """One alternative of each call, at the least cost of all together; every call has at least one.

    Exact unless the search takes more steps than it may: the problem is a set cover, so some fifty calls could be made
    for that, but none that a catalog of ours asks for. Equal calls cost nothing. The same calls give the same choice.
    """
    given = 0
    open_calls = [_narrow(call) for call in calls]
    while True:
        settled = [call[0] for call in open_calls if len(call) == 1]
        for mask in settled:
            given |= mask
        left = [_narrow([mask & ~given for mask in call]) for call in open_calls if len(call) > 1]
        open_calls = [call for call in left if 0 not in call]
        if not any(len(call) == 1 for call in open_calls):
            break
    open_calls = _without_included(open_calls)
    search = _Search(weights, _MOST_NODES)
    at_least = weights.of(given)
    for part in _parts(open_calls):
        best = search.solve(part)
        given |= best.given
        at_least += best.at_least
    taken = tuple(_cheapest(call, given, weights) for call in calls)
    cost = weights.of(given)
    return Choice(taken, given, cost, exact=search.complete, at_least=cost if search.complete else at_least)


def _cheapest(call: Sequence[Mask], given: Mask, weights: Weights) -> int:
    """The position of an alternative that is given already: the largest of them, the first of equals."""
    inside = [position for position, mask in enumerate(call) if not mask & ~given]
    return min(inside, key=lambda position: (weights.of(call[position]), position))


def _narrow(call: Sequence[Mask]) -> list[Mask]:
    """Without alternatives that give all that another one gives, and more."""
    kept: list[Mask] = []
    for mask in sorted(dict.fromkeys(call), key=lambda one: (one.bit_count(), one)):
        if not any(other & ~mask == 0 for other in kept):
            kept.append(mask)
    return kept


def _without_included(calls: list[list[Mask]]) -> list[list[Mask]]:
    """Without calls that any choice for another call answers as well."""
    unique = [list(call) for call in dict.fromkeys(tuple(call) for call in calls)]
    kept: list[list[Mask]] = []
    for position, call in enumerate(unique):
        included = any(
            other is not call and all(any(mask & ~wider == 0 for mask in call) for wider in other)
            for other in (*kept, *unique[position + 1 :])
        )
        if not included:
            kept.append(call)
    return kept


def _parts(calls: list[list[Mask]]) -> list[list[list[Mask]]]:
    """Calls that share an element, directly or by others, together."""
    parts: list[tuple[Mask, list[list[Mask]]]] = []
    for call in calls:
        spoken, together = _union(call), [call]
        apart: list[tuple[Mask, list[list[Mask]]]] = []
        for mask, part in parts:
            if mask & spoken:
                spoken, together = spoken | mask, part + together
            else:
                apart.append((mask, part))
        parts = [*apart, (spoken, together)]
    return [part for _, part in parts]


def _union(masks: Sequence[Mask]) -> Mask:
    found = 0
    for mask in masks:
        found |= mask
    return found


@dataclass(frozen=True, slots=True)
class _Best:
    given: Mask
    at_least: int


class _Search:
    """Branch and bound: call by call, the cheapest alternative first, never where the bound already says no."""

    def __init__(self, weights: Weights, nodes: int) -> None:
        self._weights = weights
        self._nodes = nodes
        self._given = 0
        self._cost = 0

    @property
    def complete(self) -> bool:
        """Whether everything that could have been better was looked at."""
        return self._nodes > 0

    def solve(self, calls: list[list[Mask]]) -> _Best:
        self._given = self._greedy(calls)
        self._cost = self._weights.of(self._given)
        root = self._bound(calls)
        self._branch(calls, 0)
        return _Best(self._given, self._cost if self.complete else root)

    def _greedy(self, calls: list[list[Mask]]) -> Mask:
        given = 0
        for call in sorted(calls, key=len):
            given |= min(call, key=lambda mask: (self._weights.of(mask & ~given), mask))
        return given

    def _branch(self, calls: list[list[Mask]], given: Mask) -> None:
        if self._nodes <= 0:
            return
        self._nodes -= 1
        left = [_narrow([mask & ~given for mask in call]) for call in calls]
        left = [call for call in left if 0 not in call]
        cost = self._weights.of(given)
        if not left:
            if cost < self._cost:
                self._given, self._cost = given, cost
            return
        if cost + self._bound(left) >= self._cost:
            return
        call = min(left, key=lambda one: (len(one), -self._weights.of(min(one, key=self._weights.of))))
        for mask in sorted(call, key=lambda one: (self._weights.of(one), one)):
            self._branch(left, given | mask)

    def _bound(self, calls: list[list[Mask]]) -> int:
        """No choice costs less: each call takes what its cheapest alternative still costs, and no element pays twice.

        A call charges an element once, whichever of its alternatives hold it; elements that few calls want come first.
        """
        wanted: dict[int, int] = {}
        for call in calls:
            for number in bits(_union(call)):
                wanted[number] = wanted.get(number, 0) + 1
        left = {number: self._weights.of(1 << number) << _SHARE for number in wanted}
        total = 0
        for call in sorted(calls, key=lambda one: sum(wanted[number] for number in bits(_union(one)))):
            ways = [sorted(bits(mask), key=wanted.__getitem__) for mask in call]
            least = min(sum(left[number] for number in way) for way in ways)
            charged: dict[int, int] = {}
            for way in ways:
                owed = least - sum(charged.get(number, 0) for number in way)
                for number in way:
                    if owed <= 0:
                        break
                    more = min(owed, left[number] - charged.get(number, 0))
                    charged[number] = charged.get(number, 0) + more
                    owed -= more
            for number, charge in charged.items():
                left[number] -= charge
            total += least
        return -(-total >> _SHARE)
