"""The composition root: settings in, an application out that starts its parts and stops them in order."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final

from fastapi import FastAPI
from fastapi.routing import APIRoute

from authz_service import __version__
from authz_service.admin.management import Limits, Management, wait_out
from authz_service.admin.settled import Barrier
from authz_service.admin.shelf import Shelf
from authz_service.api import admin, health, problems
from authz_service.api import self as own
from authz_service.api.check import check, envoy, forward
from authz_service.api.check.encoding import encode_decision
from authz_service.api.check.gateway_listener import OwnListener
from authz_service.api.check.hot import HotPath
from authz_service.api.check.serving import Serving
from authz_service.api.documents import complete_documents
from authz_service.api.state import Services
from authz_service.cache.bounded import Bounded
from authz_service.cache.clock import elapsed
from authz_service.cache.facts import Bounds, FactKey, Facts
from authz_service.cache.follower import Follower, Freshness
from authz_service.cache.journal import Journal
from authz_service.cache.polling import connector
from authz_service.cache.presence import new_member
from authz_service.config import Environment, Settings, read_gateway_trust, read_peppers
from authz_service.errors import DatabaseUnavailableError
from authz_service.pdp.check import DecisionPoint
from authz_service.pdp.loader import Gate, Loader
from authz_service.pdp.quick import QuickAnswers
from authz_service.pdp.secrets import Peppers
from authz_service.store.changes import prune_log
from authz_service.store.database import Database, check_schema
from authz_service.store.shipped import shipped_catalogs
from authz_service.telemetry import Measured, Metrics

_SAMPLE_SECONDS: Final = 1.0
_GC_THRESHOLDS: Final = (20_000, 50, 100)
"""A request leaves hardly any cycles, and the facts in memory are many: looking through them all is to be rare."""
_PRUNE_SECONDS: Final = 600.0
_QUIET: Final = frozenset(
    {
        "/check",
        "/check/batch",
        "/v1/self/check",
        "/v1/self/check/batch",
        "/gateway/forward/{family}",
        "/gateway/envoy/{path:path}",
        "/gateway/envoy-constants/{path:path}",
        "/livez",
        "/readyz",
        "/metrics",
    }
)
_DESCRIPTION: Final = """
Fine-grained access tokens: issue them with exactly the permissions that a job needs, and ask on each request whether a
token may do this here. Every answer has a reason.
"""


def create_app(settings: Settings) -> FastAPI:
    """The application of one worker; what to serve is its `state.hot`, the same with a short way for checks.

    Needs no database until its lifespan starts, so the API's document needs none. Entering the lifespan raises
    DatabaseUnavailableError, SchemaOutdatedError or StartError, each saying what to do.
    """
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with _running(settings, metrics, hot.fold) as (services, sample):
            app.state.services = services
            app.state.gateways = read_gateway_trust(settings, dev=settings.environment is Environment.DEV)
            app.state.quick = hot.quick = QuickAnswers(services.point, encode_decision)
            app.state.sample = sample
            gc.collect()
            gc.freeze()  # what stands now stands until the end: no later collection looks at it
            gc.set_threshold(*_GC_THRESHOLDS)
            yield

    documented = settings.environment is Environment.DEV
    app = FastAPI(
        title="authz-service",
        version=__version__,
        description=_DESCRIPTION.strip(),
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        docs_url="/docs" if documented else None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=_operation_id,
        lifespan=lifespan,
    )
    serving = Serving(metrics, settings.check_body_limit, settings.batch_body_limit)
    app.state.serving = serving
    app.state.quick = None
    app.state.gateway_listener = OwnListener(app)
    hot = app.state.hot = HotPath(app, serving)
    for router in (check.router, forward.router, envoy.router, own.router, admin.router, health.router):
        app.include_router(router)
    complete_documents(app)
    problems.install(app)
    app.add_middleware(Measured, metrics=metrics, quiet=_QUIET)
    return app


def _operation_id(route: APIRoute) -> str:
    """Short names for generated clients; the document's test holds that none comes twice."""
    return route.name


@asynccontextmanager
async def open_management(settings: Settings) -> AsyncIterator[Management]:
    """The write paths alone, for commands that work on the database itself. Raises what the lifespan raises."""
    peppers, kid = read_peppers(settings)
    async with _open_database(settings) as database:
        yield Management(
            database=database,
            peppers=Peppers(peppers, kid, settings.token_prefix),
            shelf=Shelf(shipped_catalogs()),
            settled=wait_out(settings.max_staleness),
            limits=Limits(import_bytes=settings.import_body_limit),
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
async def _running(
    settings: Settings, metrics: Metrics, fold: Callable[[], None]
) -> AsyncIterator[tuple[Services, Callable[[], None]]]:
    async with open_management(settings) as management:
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
        )
        barrier = Barrier(management.database, settings.max_staleness, elapsed=elapsed)
        gate = Gate(settings.loads_running, settings.loads_waiting)
        loader = CountingLoader(metrics, management.database, follower, journal, facts, gate)
        point = DecisionPoint(facts, follower, loader, management.peppers)

        def sample() -> None:
            fold()
            _sample(metrics, facts, follower, gate)

        await follower.start()
        background = [
            asyncio.create_task(_keep_sampling(sample), name="metrics"),
            asyncio.create_task(_keep_pruning(management.database), name="pruning"),
        ]
        try:
            yield Services(point, replace(management, settled=barrier)), sample
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            await barrier.close()
            await follower.stop()


class CountingLoader(Loader):
    """Counts the facts that were not at hand."""

    def __init__(self, metrics: Metrics, *parts: Any) -> None:
        super().__init__(*parts)
        self._metrics = metrics

    async def load(self, keys: Iterable[FactKey]) -> None:
        wanted: Sequence[FactKey] = list(keys)
        self._metrics.loads.inc(len(wanted))
        await super().load(wanted)


async def _keep_sampling(sample: Callable[[], None]) -> None:
    """Each worker shows its own figures, so each has to write them down before any is asked."""
    while True:
        sample()
        await asyncio.sleep(_SAMPLE_SECONDS)


async def _keep_pruning(database: Database) -> None:
    """Forget what no replica needs any more. All workers do it: it is done twice, or once, and never not at all."""
    while True:
        await asyncio.sleep(_PRUNE_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
        with contextlib.suppress(DatabaseUnavailableError):
            async with database.transaction() as conn:
                await prune_log(conn)


def _sample(metrics: Metrics, facts: Facts, follower: Follower, gate: Gate) -> None:
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
        },
        followed={
            "polls": counts.polls,
            "failures": counts.failures,
            "resets": counts.resets,
            "changes": counts.changes,
        },
        cached={kind: len(entries) for kind, entries in caches.items()},
        evicted={kind: entries.dropped for kind, entries in caches.items()},
    )
