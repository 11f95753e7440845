"""Two replicas of the real service stay equal to the naive reference, whatever happens in whatever order."""

from __future__ import annotations

import os
import secrets
import time
from collections import Counter

import pytest
from tests.support.forge import CATALOGS
from tests.support.machine import Machine
from tests.support.pair import pair_of_replicas
from tests.support.stored_rows import install
from tests.support.upheaval import START

STEPS = int(os.environ.get("AUTHZ_STATEFUL_STEPS", "30"))
MINUTES = float(os.environ.get("AUTHZ_STATEFUL_MINUTES", "20"))
"""How long the long run goes on; its seed can be given too, to repeat one that failed."""
SEED = os.environ.get("AUTHZ_STATEFUL_SEED")


async def run(url: str, seed: int | str, steps: int) -> Counter[str]:
    async with pair_of_replicas(url, START) as pair:
        await install(pair.database, *CATALOGS)
        machine = Machine(pair, seed)
        await machine.begin()
        await machine.run(steps)
        return machine.counts


@pytest.mark.parametrize("seed", range(3))
async def test_every_answer_is_the_references_whatever_happened(database_url, seed):
    counts = await run(database_url, seed, STEPS)
    print(sorted(counts.items()))
    assert counts["granted"] > counts["asked"] / 10
    assert counts["short"] > counts["asked"] / 20
