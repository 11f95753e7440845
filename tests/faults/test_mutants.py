"""The service with one protection taken away: the same scenarios fail, which shows that they can."""

from __future__ import annotations

import asyncio

import pytest
from tests.faults import scenarios
from tests.faults.fleet import Fleet
from tests.faults.mutants import MUTANTS

NOTICED_BY = {
    "sequence-for-counter": scenarios.slow_writers,
    "no-staleness-check": scenarios.black_hole,
    "no-fill-guard": scenarios.slow_fills,
    "listen-only": scenarios.deaf_bell,
    "no-rewind-check": scenarios.lost_tail,
    "unreported": scenarios.waits,
}
TRIES = 3
"""Some need two things to happen at once, which is made likely and cannot be made certain."""


def test_each_mutant_has_a_scenario():
    assert NOTICED_BY.keys() == MUTANTS.keys()


def run_until_noticed(scenario, fleet):
    for _ in range(TRIES):
        asyncio.run(scenario(fleet))
        fleet.heal()


QUICKEST = "no-staleness-check"
"""Runs each time; the others with `make test-faults`."""


@pytest.mark.parametrize(
    "mutant", [one if one == QUICKEST else pytest.param(one, marks=pytest.mark.long) for one in MUTANTS]
)
def test_a_mutant_allows_what_was_revoked(mutant):
    scenario = NOTICED_BY[mutant]
    with Fleet(replicas=2, mutant=mutant, split=scenario is scenarios.slow_fills) as fleet:
        with pytest.raises(AssertionError) as noticed:
            run_until_noticed(scenario, fleet)
        said = str(noticed.value)
        assert "after its revoke was acknowledged" in said or "allows a revoked token" in said, said


@pytest.mark.long
def test_the_service_itself_passes_where_loads_are_slow():
    with Fleet(replicas=2, split=True) as fleet:
        asyncio.run(scenarios.slow_fills(fleet))
