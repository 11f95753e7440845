"""What a worker goes on doing as long as it runs, beside answering."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from sqlalchemy.exc import SQLAlchemyError

from authz_service.admin.asking_again import open_first_request
from authz_service.admin.inactivity import AsPoliciesSay
from authz_service.admin.management import Management
from authz_service.admin.sweeps import Sweep, Sweeper, SweepRules
from authz_service.cache.clock import elapsed
from authz_service.errors import AuthzError, DatabaseUnavailableError
from authz_service.pdp.check import DecisionPoint
from authz_service.pdp.usage import UsageBook, fold
from authz_service.store.changes import prune_log
from authz_service.store.database import Database
from authz_service.store.usage import prune
from authz_service.telemetry import Metrics, logger

Part: TypeAlias = Callable[[], Awaitable[None]]
"""Something that goes on until it is cancelled; it returns where it has nothing to do."""

_SAMPLE_SECONDS: Final = 1.0
_PRUNE_SECONDS: Final = 600.0
_ASK_SECONDS: Final = 0.5
_PRUNE_USAGE_SECONDS: Final = 3_600.0
_LEAST_PAUSE, _MOST_PAUSE = 1.0, 60.0


async def keep_sampling(sample: Callable[[], None]) -> None:
    """Each worker shows its own figures, so each has to write them down before any is asked."""
    while True:
        sample()
        await asyncio.sleep(_SAMPLE_SECONDS)


async def keep_pruning(database: Database) -> None:
    """Forget what no replica needs any more. All workers do it: it is done twice, or once, and never not at all."""
    while True:
        await asyncio.sleep(_PRUNE_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
        with contextlib.suppress(DatabaseUnavailableError):
            async with database.transaction() as conn:
                await prune_log(conn)


async def keep_asking(management: Management, point: DecisionPoint) -> None:
    """Ask groups about tokens that were used there without anybody's having asked them yet (P4)."""
    while True:
        await asyncio.sleep(_ASK_SECONDS)
        for one in list(point.unasked.take()):
            try:
                await open_first_request(management, one)
            except (AuthzError, SQLAlchemyError) as error:
                point.unasked.give_back(one)
                if not isinstance(error, DatabaseUnavailableError):
                    logger().error("a group could not be asked", token=one.token, error=type(error).__name__)


async def keep_sweeping(database: Database, rules: SweepRules, metrics: Metrics) -> None:
    """Every worker of every replica looks; one at a time does what is due, and goes on where another was killed."""
    if not rules.interval:
        return
    sweeper = Sweeper(database, rules, AsPoliciesSay(rules.inactive_days))
    while True:
        await asyncio.sleep(rules.interval.total_seconds() / 4 * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
        for name in Sweep:
            try:
                swept = await sweeper.run(name)
            except DatabaseUnavailableError:
                metrics.sweep_failures.labels(name.value).inc()
            except SQLAlchemyError as error:
                metrics.sweep_failures.labels(name.value).inc()
                logger().error("a sweep failed", sweep=name.value, error=type(error).__name__)
            else:
                metrics.swept.labels(name.value).inc(swept.here)
                if swept.row is not None and swept.row.finished_at is not None:
                    metrics.sweeps.labels(name.value).inc()
                    metrics.sweep_finished.labels(name.value).set(swept.row.finished_at.timestamp())


async def keep_folding(book: UsageBook, database: Database, *, seconds: float, kept_days: int) -> None:
    """Fold what was used now and then, and forget what is too old. Every worker does it; nothing depends on when."""
    since_pruned = _PRUNE_USAGE_SECONDS
    while True:
        pause = seconds * random.uniform(0.7, 1.3)  # noqa: S311 - so that workers do not fold together
        await asyncio.sleep(pause)
        since_pruned += pause
        with contextlib.suppress(DatabaseUnavailableError):
            await fold(book, database)
            if since_pruned >= _PRUNE_USAGE_SECONDS:
                since_pruned = 0.0
                async with database.transaction() as conn:
                    await prune(conn, kept_days=kept_days)


async def keep_up(name: str, part: Part, metrics: Metrics) -> None:
    """Run a part until it is cancelled, and again when it failed: nobody waits for it, so nobody else would.

    A statement that took too long or a deadlock must not end for good what others do without. The pause before the next
    start grows from one second to a minute, and is short again after a minute without a fault.
    """
    pause = _LEAST_PAUSE
    while True:
        began = elapsed()
        try:
            await part()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is said, counted and begun again
            metrics.part_failures.labels(name).inc()
            logger().error("a part of the service failed and starts again", part=name, exc_info=error)
        else:
            return  # it has nothing to do here
        if elapsed() - began > _MOST_PAUSE:
            pause = _LEAST_PAUSE
        await asyncio.sleep(pause)
        pause = min(pause * 2, _MOST_PAUSE)
