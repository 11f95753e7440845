"""Two replicas of the real service stay equal to the naive reference, whatever happens in whatever order."""

from __future__ import annotations

import os
import secrets
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from tests.support.endings import settings
from tests.support.forge import CATALOGS
from tests.support.machine import Machine
from tests.support.pair import Pair, pair_of_replicas
from tests.support.receiver import Receiver, receiving
from tests.support.stored_rows import install
from tests.support.upheaval import START

STEPS = int(os.environ.get("AUTHZ_STATEFUL_STEPS", "25"))
LONG_STEPS = 100
MINUTES = float(os.environ.get("AUTHZ_STATEFUL_MINUTES", "20"))
"""How long the long run goes on."""
SEED = os.environ.get("AUTHZ_STATEFUL_SEED")
"""One run of the long ones, as its failure named it, to be made again."""


async def run(url: str, seed: int | str, steps: int) -> Counter[str]:
    with TemporaryDirectory() as folder:
        async with (
            receiving(Path(folder)) as receiver,
            pair_of_replicas(url, START, **settings(Path(folder))) as pair,
        ):
            return await run_in(pair, seed, steps, receiver)


async def run_in(pair: Pair, seed: int | str, steps: int, receiver: Receiver) -> Counter[str]:
    await install(pair.database, *CATALOGS)
    machine = Machine(pair, seed, receiver)
    await machine.begin()
    await machine.run(steps)
    return machine.counts


@pytest.mark.parametrize("seed", range(4))
async def test_every_answer_is_the_references_whatever_happened(database_url: str, seed: int):
    counts = await run(database_url, seed, STEPS)
    # Else it would agree about next to nothing.
    assert counts["granted"] > counts["asked"] / 10
    assert counts["short"] > counts["asked"] / 10
    assert counts["newcomers"] > 1


@pytest.mark.long
async def test_every_answer_is_the_references_however_long_it_goes_on(make_database: Callable[..., str]):
    if SEED is not None:
        await run(make_database(), SEED, LONG_STEPS)
        return
    first, number, end = secrets.randbelow(2**32), 0, time.monotonic() + MINUTES * 60
    counts: Counter[str] = Counter()
    while time.monotonic() < end:
        counts += await run(make_database(), f"{first}/{number}", LONG_STEPS)
        number += 1
    print(f"{number} runs from {first}: {sorted(counts.items())}")  # noqa: T201 - what a long run was worth
