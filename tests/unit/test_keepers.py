"""What goes on beside answering is begun again after a fault, and ends when it is told to."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from authz_service import keepers
from authz_service.keepers import keep_up
from authz_service.telemetry import Metrics


@pytest.fixture
def quick(monkeypatch) -> list[float]:
    """Pauses take no time and are written down."""
    pauses: list[float] = []
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        await real(0)

    monkeypatch.setattr(keepers.asyncio, "sleep", sleep)
    return pauses


def failures(metrics: Metrics, part: str) -> float:
    return metrics.part_failures.labels(part)._value.get()


async def test_a_part_that_fails_is_started_again_after_longer_and_longer_pauses(quick, capsys):
    metrics, starts = Metrics(), 0

    async def part() -> None:
        nonlocal starts
        starts += 1
        if starts < 10:
            raise RuntimeError("a deadlock, perhaps")

    await keep_up("audit", part, metrics)
    assert starts == 10
    assert quick == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert failures(metrics, "audit") == 9


async def test_after_a_minute_without_a_fault_the_pause_is_short_again(quick, monkeypatch):
    now = 0.0
    monkeypatch.setattr(keepers, "elapsed", lambda: now)
    starts = 0

    async def part() -> None:
        nonlocal now, starts
        starts += 1
        now += 61 if starts == 4 else 1
        if starts < 6:
            raise RuntimeError

    await keep_up("webhooks", part, Metrics())
    assert quick == [1, 2, 4, 1, 2]


async def test_a_part_with_nothing_to_do_is_not_started_again(quick):
    metrics, starts = Metrics(), 0

    async def part() -> None:
        nonlocal starts
        starts += 1

    await keep_up("sweeps", part, metrics)
    assert (starts, quick, failures(metrics, "sweeps")) == (1, [], 0)


async def test_a_part_that_is_cancelled_is_no_fault():
    metrics, begun = Metrics(), asyncio.Event()

    async def part() -> None:
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(keep_up("leaks", part, metrics))
    await begun.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert failures(metrics, "leaks") == 0
