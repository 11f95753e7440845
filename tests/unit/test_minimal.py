"""The least of any-of sets: equal to trying everything, and honest where it could not be tried."""

from __future__ import annotations

from itertools import product
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authz_service.engine import minimal
from authz_service.engine.minimal import Weights, choose

calls_of = st.lists(st.lists(st.integers(1, 2**10 - 1), min_size=1, max_size=4), min_size=0, max_size=6)


def least(calls: list[list[int]], weights: Weights) -> int:
    """By trying every choice."""
    return min(weights.of(union(choice)) for choice in product(*calls))


def union(masks: tuple[int, ...]) -> int:
    found = 0
    for mask in masks:
        found |= mask
    return found


@given(calls=calls_of, wide=st.integers(0, 2**10 - 1), changing=st.integers(0, 2**10 - 1))
@settings(max_examples=400)
def test_the_choice_is_the_least_of_all_choices(calls: list[list[int]], wide: int, changing: int):
    weights = Weights(wide, changing)
    found = choose(calls, weights)
    assert found.exact
    assert found.cost == least(calls, weights) == found.at_least
    assert all(calls[position][taken] & ~found.given == 0 for position, taken in enumerate(found.taken))


def test_a_read_is_chosen_before_a_write_and_one_place_before_every_place():
    read, write, everywhere = 1, 2, 4
    weights = Weights(wide=everywhere, changing=write)
    assert choose([[write, read]], weights).taken == (1,)
    assert choose([[everywhere, write]], weights).taken == (1,)


def test_what_one_call_needs_anyway_is_used_for_another():
    assert choose([[0b011, 0b100], [0b011]], Weights()).given == 0b011


def test_no_calls_need_nothing():
    assert choose([], Weights()).given == 0


def test_fifty_calls_of_which_each_has_two_ways_are_solved_exactly():
    random = Random(7)
    for _ in range(3):
        calls = [[1 << random.randrange(40) | 1 << random.randrange(40) for _ in range(2)] for _ in range(50)]
        found = choose(calls, Weights())
        assert found.exact
        assert found.cost == found.at_least


def test_a_search_that_was_cut_says_so_and_names_what_nothing_can_be_below(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(minimal, "_MOST_NODES", 1)
    random = Random(3)
    calls = [[1 << random.randrange(12) | 1 << random.randrange(12) for _ in range(3)] for _ in range(6)]
    found = choose(calls, Weights())
    assert not found.exact
    assert found.at_least <= least(calls, Weights()) <= found.cost
