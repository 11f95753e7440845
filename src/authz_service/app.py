"""The composition root: settings in, an application out that starts its parts and stops them in order."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from time import process_time
from typing import Any, Final

from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.telemetry import TelemetryConfig
from starlette.types import ASGIApp

from authz_service import __version__, console
from authz_service.admin.delivering import Deliverer
from authz_service.admin.leaks import LeakDesk, LeakIntake, Reports
from authz_service.admin.management import Management, wait_out
from authz_service.admin.openid import Client, OpenId
from authz_service.admin.outbound import Outbound
from authz_service.admin.partners import PartnerKeys
from authz_service.admin.sealing import Sealer, read_signer
from authz_service.admin.sessions import Timeouts
from authz_service.admin.settled import Barrier
from authz_service.admin.shelf import Shelf
from authz_service.api import admin, health, problems
from authz_service.api import self as own
from authz_service.api.apart import Apart
from authz_service.api.check import authzen, authzen_search, check, envoy, forward, graphql, oauth
from authz_service.api.check.counted import CountedHotPath
from authz_service.api.check.encoding import encode_decision
from authz_service.api.check.gateway_listener import OwnListener
from authz_service.api.check.hot import HotPath
from authz_service.api.check.hot_gateway import GatewayPath
from authz_service.api.check.serving import Serving
from authz_service.api.documents import complete_documents
from authz_service.api.limits import Limited, Limiter
from authz_service.api.state import Services
from authz_service.api.surfaces import AtListener, Surface
from authz_service.api.wire import refuse_also
from authz_service.cache.bounded import Bounded
from authz_service.cache.clock import elapsed
from authz_service.cache.facts import Bounds, Facts
from authz_service.cache.follower import Follower, Freshness
from authz_service.cache.journal import Journal
from authz_service.cache.keys import FactKey
from authz_service.cache.polling import connector
from authz_service.cache.presence import new_member
from authz_service.config import (
    Environment,
    Settings,
    find_apart,
    read_foreign,
    read_gateway_trust,
    read_limits,
    read_openid_secret,
    read_peppers,
    read_rates,
    read_sweep_rules,
)
from authz_service.errors import DatabaseUnavailableError
from authz_service.keepers import keep_asking, keep_pruning, keep_sampling, keep_sweeping, tell_of_end
from authz_service.pdp.check import DecisionPoint
from authz_service.pdp.loader import Gate, Loader
from authz_service.pdp.quick import QuickAnswers
from authz_service.pdp.search import Search
from authz_service.pdp.secrets import Peppers
from authz_service.pdp.usage import UsageBook, keep_folding
from authz_service.pdp.usage import fold as fold_usage
from authz_service.reloading import Recording, Reloading, open_recorder
from authz_service.store.catalogs import check_shipped
from authz_service.store.database import Database, check_schema
from authz_service.store.shipped import shipped_catalogs, shipped_texts
from authz_service.telemetry import Measured, Metrics, redact, redact_also, resident_memory
from authz_service.tracing import OFF as OFF_TRACES
from authz_service.tracing import Traces, open_traces

_GC_THRESHOLDS: Final = (20_000, 50, 100)
"""A request leaves hardly any cycles, and the facts in memory are many: looking through them all is to be rare."""
_LAST_FOLD_SECONDS: Final = 2.0
_QUIET: Final = frozenset(
    {
        "/check",
        "/check/batch",
        "/check/http",
        "/check/graphql",
        "/access/v1/evaluation",
        "/access/v1/evaluations",
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
_UNTRACED: Final = frozenset({"/livez", "/readyz", "/metrics"})
_NO_TELEMETRY_OF_THE_FRAMEWORK: Final[TelemetryConfig] = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
}
"""Its own would send messages of errors, which may repeat what a client sent, wherever the environment says."""
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
    traces = _traces(settings)
    for note in (redact_also, refuse_also):
        note(read_foreign(settings, ""))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        def fold() -> None:
            hot.fold()
            gateways.fold()

        async with _running(settings, metrics, traces, fold) as (services, sample, recording):
            app.state.services = services
            app.state.console = _console(settings, services)
            app.state.gateways = read_gateway_trust(settings, dev=settings.environment is Environment.DEV)
            app.state.quick = hot.quick = gateways.quick = QuickAnswers(services.point, encode_decision)
            app.state.sample = sample
            app.state.reloading = Reloading(app, settings, recording, metrics)
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
        telemetry=_NO_TELEMETRY_OF_THE_FRAMEWORK,
    )
    serving = Serving(metrics, settings.check_body_limit, settings.batch_body_limit)
    app.state.serving = serving
    app.state.quick = None
    app.state.public_url = settings.public_url
    gateways = GatewayPath(app, serving)
    app.state.gateway_listener = OwnListener(gateways)
    apart = frozenset(find_apart(settings))
    at_main = frozenset(Surface) - apart
    app.state.served = gateways
    with_decisions = {Surface.DECIDE} if Surface.DECIDE in apart else at_main
    hot = app.state.hot = _hot_path(settings)(_at(gateways, with_decisions), serving)
    app.state.main = hot if Surface.DECIDE in at_main else _at(gateways, at_main)
    for router in (
        authzen.router,
        authzen.discovery,
        authzen_search.router,
        oauth.router,
        check.router,
        graphql.router,
        forward.router,
        envoy.router,
        own.router,
        admin.router,
        health.router,
        console.router,
    ):
        app.include_router(router)
    complete_documents(app)
    limiter = app.state.limiter = Limiter(read_rates(settings))
    app.add_middleware(Limited, limiter=limiter)
    if apart:
        app.add_middleware(Apart)
    problems.install(app)
    app.add_middleware(Measured, metrics=metrics, quiet=_QUIET, traces=traces, untraced=_UNTRACED)
    return app


def _traces(settings: Settings) -> Traces:
    """Raises StartError for traces without the extra that they need."""
    if settings.traces_endpoint is None:
        return OFF_TRACES
    return open_traces(settings.traces_endpoint, share=settings.traces_sample, version=__version__, clean=redact)


def _hot_path(settings: Settings) -> Callable[[ASGIApp, Serving], HotPath]:
    """The short way; one that counts only where there is a limit, so that nobody else pays for it."""
    limit = settings.check_per_caller
    return HotPath if limit is None else partial(CountedHotPath, limit=limit)


def _at(app: ASGIApp, surfaces: Collection[Surface]) -> ASGIApp:
    """The application as a listener of these surfaces serves it."""
    return app if len(surfaces) == len(Surface) else AtListener(app, surfaces)


def _console(settings: Settings, services: Services) -> console.Console | None:
    """None where it is switched off, or where nobody said at which address people reach it."""
    dev = settings.environment is Environment.DEV
    if not settings.console or (settings.public_url is None and not dev):
        return None
    return console.Console(
        services.management,
        services.point,
        services.search,
        services.leaks,
        settings.public_url,
        Timeouts(timedelta(seconds=settings.session_idle), timedelta(seconds=settings.session_lifetime)),
        openid=_openid(settings, services.management),
    )


def _openid(settings: Settings, management: Management) -> OpenId | None:
    """None unless a provider is named. Raises StartError for a secret that cannot be read any more."""
    if settings.openid_issuer is None or settings.openid_client_id is None or settings.public_url is None:
        return None
    client = Client(
        issuer=settings.openid_issuer,
        client_id=settings.openid_client_id,
        secret=read_openid_secret(settings),
        redirect_uri=settings.public_url + console.OPENID_CALLBACK,
        claim=settings.openid_claim,
        source=settings.openid_source,
        scopes=settings.openid_scopes,
        name=settings.openid_name,
    )
    return OpenId(client, management.outbound, management.peppers)


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
async def _running(
    settings: Settings, metrics: Metrics, traces: Traces, fold: Callable[[], None]
) -> AsyncIterator[tuple[Services, Callable[[], None], Recording]]:
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
        background = [
            asyncio.create_task(keep_sampling(sample), name="metrics"),
            asyncio.create_task(keep_pruning(management.database), name="pruning"),
            asyncio.create_task(keep_sweeping(management.database, read_sweep_rules(settings), metrics), name="sweeps"),
        ]
        background.append(asyncio.create_task(keep_asking(management, point), name="first requests"))
        if book is not None:
            folding = keep_folding(
                book, management.database, seconds=settings.usage_fold_seconds, kept_days=settings.usage_days
            )
            background.append(asyncio.create_task(folding, name="usage"))
        intake = _leak_intake(settings, management, metrics)
        background += _keepers(settings, management, metrics, intake)
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


def _keepers(
    settings: Settings, management: Management, metrics: Metrics, intake: LeakIntake
) -> list[asyncio.Task[None]]:
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
    tasks = [
        asyncio.create_task(sealer.run(), name="audit"),
        asyncio.create_task(deliverer.run(), name="webhooks"),
        asyncio.create_task(intake.desk.run(), name="leaks"),
    ]
    for task in tasks:
        task.add_done_callback(tell_of_end)
    return tasks


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

    async def load(self, keys: Iterable[FactKey]) -> None:
        wanted: Sequence[FactKey] = list(keys)
        self._metrics.loads.inc(len(wanted))
        began = elapsed()
        try:
            await super().load(wanted)
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
