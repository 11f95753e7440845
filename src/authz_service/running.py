"""The parts of one worker: started in order, kept up beside answering, and stopped in order."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from time import process_time
from typing import Any, Final

from authz_service.admin.delivering import Deliverer
from authz_service.admin.leaks import LeakDesk, LeakIntake, Reports
from authz_service.admin.management import Management, wait_out
from authz_service.admin.outbound import Outbound
from authz_service.admin.partners import PartnerKeys
from authz_service.admin.sealing import Sealer, read_signer
from authz_service.admin.settled import Barrier
from authz_service.admin.shelf import Shelf
from authz_service.api.state import Services
from authz_service.cache.bounded import Bounded
from authz_service.cache.clock import elapsed
from authz_service.cache.facts import Bounds, Facts
from authz_service.cache.follower import Follower, Freshness
from authz_service.cache.journal import Journal
from authz_service.cache.keys import FactKey
from authz_service.cache.polling import connector
from authz_service.cache.presence import new_member
from authz_service.config import (
    Settings,
    read_foreign,
    read_limits,
    read_peppers,
    read_sweep_rules,
)
from authz_service.errors import DatabaseUnavailableError
from authz_service.keepers import Part, keep_asking, keep_folding, keep_pruning, keep_sampling, keep_sweeping, keep_up
from authz_service.pdp.check import DecisionPoint
from authz_service.pdp.loader import Gate, Loader
from authz_service.pdp.search import Search
from authz_service.pdp.secrets import Peppers
from authz_service.pdp.usage import UsageBook
from authz_service.pdp.usage import fold as fold_usage
from authz_service.reloading import Recording, open_recorder
from authz_service.store.catalogs import check_shipped
from authz_service.store.database import Database, check_schema
from authz_service.store.shipped import shipped_catalogs, shipped_texts
from authz_service.telemetry import Metrics, resident_memory
from authz_service.tracing import OFF as OFF_TRACES
from authz_service.tracing import Traces

_LAST_FOLD_SECONDS: Final = 2.0


@asynccontextmanager
async def open_management(settings: Settings) -> AsyncIterator[Management]:
    """The write paths alone, for commands that work on the database itself. Raises what the lifespan raises."""
    peppers, kid = read_peppers(settings)
    async with _open_database(settings) as database:
        yield Management(
            database=database,
            peppers=Peppers(peppers, kid, settings.token_prefix, read_foreign(settings, kid)),
            shelf=Shelf(shipped_catalogs()),
            settled=wait_out(settings.max_staleness),
            outbound=Outbound(settings.private_hosts, ca_file=settings.webhook_ca_file),
            limits=read_limits(settings, import_bytes=settings.import_body_limit),
        )


@asynccontextmanager
async def _open_database(settings: Settings) -> AsyncIterator[Database]:
    database = Database(settings.dsn, direct_url=settings.direct_dsn, pool_size=settings.pool_size, bell=settings.bell)
    try:
        async with database.read() as conn:
            await check_schema(conn)
        yield database
    finally:
        await database.close()


@asynccontextmanager
async def running(
    settings: Settings, metrics: Metrics, traces: Traces, fold: Callable[[], None]
) -> AsyncIterator[tuple[Services, Callable[[], None], Recording]]:
    """The parts of one worker, what hands its figures to the metrics, and what it records decisions with.

    `fold` is called before figures are read. Raises what the lifespan raises.
    """
    async with open_management(settings) as management:
        async with management.database.read() as conn:
            await check_shipped(conn, shipped_texts())
        bounds = Bounds(
            tokens=settings.cache_tokens,
            unknown_tokens=settings.cache_unknown_tokens,
            users=settings.cache_users,
            nodes=settings.cache_nodes,
            questions=settings.cache_questions,
        )
        facts = Facts(management.shipped, bounds)
        journal = Journal(facts)
        freshness = Freshness(settings.max_staleness, settings.poll_interval, settings.poll_timeout)
        follower = Follower(
            journal,
            connector(management.database, bell=settings.bell),
            freshness,
            member=new_member(max_staleness=settings.max_staleness, connections=settings.connections),
            observe=metrics.revoke_to_deny.observe,
            traces=traces,
        )
        barrier = Barrier(management.database, settings.max_staleness, elapsed=elapsed)
        gate = Gate(settings.loads_running, settings.loads_waiting)
        loader = CountingLoader(metrics, management.database, follower, journal, facts, gate, traces=traces)
        point = DecisionPoint(facts, follower, loader, management.peppers)
        book = point.usage = UsageBook() if settings.usage else None

        recorder = open_recorder(settings)

        def sample() -> None:
            fold()
            metrics.sample_records(recording.sums())
            _sample(metrics, facts, follower, gate, management.database)

        await follower.start()
        recording = Recording(point, recorder)
        parts: dict[str, Part] = {
            "metrics": partial(keep_sampling, sample),
            "pruning": partial(keep_pruning, management.database),
            "sweeps": partial(keep_sweeping, management.database, read_sweep_rules(settings), metrics),
            "first requests": partial(keep_asking, management, point),
        }
        if book is not None:
            parts["usage"] = partial(
                keep_folding,
                book,
                management.database,
                seconds=settings.usage_fold_seconds,
                kept_days=settings.usage_days,
            )
        intake = _leak_intake(settings, management, metrics)
        parts |= _shared_parts(settings, management, metrics, intake)
        background = [asyncio.create_task(keep_up(name, part, metrics), name=name) for name, part in parts.items()]
        try:
            search = Search(management.database, facts)
            yield Services(point, replace(management, settled=barrier), leaks=intake, search=search), sample, recording
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            await recording.close()
            if book is not None:
                with contextlib.suppress(DatabaseUnavailableError, TimeoutError):
                    async with asyncio.timeout(_LAST_FOLD_SECONDS):
                        await fold_usage(book, management.database)
            await barrier.close()
            await follower.stop()
            await traces.close()


def _shared_parts(
    settings: Settings, management: Management, metrics: Metrics, intake: LeakIntake
) -> Mapping[str, Part]:
    """What every worker does for the whole service, each piece of it at any time in one of them."""

    def sealed(rows: int, broken: bool) -> None:  # noqa: FBT001 - called by position
        metrics.sealed.inc(rows)
        metrics.audit_broken.set(broken)

    sealer = Sealer(
        management.database,
        read_signer(settings.audit_key_file, management.peppers),
        interval=settings.audit_checkpoint_interval,
        file=settings.audit_checkpoint_file,
        observe=sealed,
    )
    deliverer = Deliverer(
        management.database,
        management.peppers,
        management.outbound,
        timeout=settings.webhook_timeout,
        observe=lambda outcome: metrics.deliveries.labels(outcome).inc(),
    )
    return {"audit": sealer.run, "webhooks": deliverer.run, "leaks": intake.desk.run}


def _leak_intake(settings: Settings, management: Management, metrics: Metrics) -> LeakIntake:
    return LeakIntake(
        Reports(each=settings.leak_reports_per_minute, in_all=settings.leak_reports_in_all),
        PartnerKeys(management.outbound, file=settings.leak_keys_file, url=settings.leak_keys_url),
        LeakDesk(management.database, observe=metrics.leaks.inc),
    )


class CountingLoader(Loader):
    """Counts the facts that were not at hand."""

    def __init__(self, metrics: Metrics, *parts: Any, traces: Traces = OFF_TRACES) -> None:
        super().__init__(*parts, traces=traces)
        self._metrics = metrics

    async def load(self, keys: Iterable[FactKey], *, since: float = 0.0) -> None:
        wanted: Sequence[FactKey] = list(keys)
        self._metrics.loads.inc(len(wanted))
        began = elapsed()
        try:
            await super().load(wanted, since=since)
        finally:
            self._metrics.load_seconds.observe(elapsed() - began)


def _sample(metrics: Metrics, facts: Facts, follower: Follower, gate: Gate, database: Database) -> None:
    caches: Mapping[str, Bounded[Any, Any]] = {
        "tokens": facts.tokens,
        "unknown_tokens": facts.unknown_digests,
        "users": facts.users,
        "memberships": facts.members,
        "nodes": facts.nodes,
    }
    counts = follower.counts
    metrics.sample(
        gauges={
            "staleness": follower.staleness(),
            "revision": follower.applied.revision if follower.applied is not None else 0,
            "rewound": float(follower.rewound),
            "waiting": gate.waiting,
            "ready": float(elapsed() <= follower.deadline),
            "workers": 1,
            "memory": resident_memory(),
        },
        followed={
            "polls": counts.polls,
            "failures": counts.failures,
            "resets": counts.resets,
            "changes": counts.changes,
            "shed": gate.shed,
            "processor": process_time(),
        },
        cached={kind: len(entries) for kind, entries in caches.items()},
        evicted={kind: entries.dropped for kind, entries in caches.items()},
        limits={kind: entries.bound for kind, entries in caches.items()},
        pool=database.pool_use(),
    )
