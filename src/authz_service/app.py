"""The composition root: settings in, an application out that starts its parts and stops them in order."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Final

from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.telemetry import TelemetryConfig
from starlette.types import ASGIApp

from authz_service import __version__, console
from authz_service.admin.management import Management
from authz_service.admin.openid import Client, OpenId
from authz_service.admin.sessions import Timeouts
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
from authz_service.config import (
    Environment,
    Settings,
    find_apart,
    read_foreign,
    read_gateway_trust,
    read_openid_secret,
    read_rates,
)
from authz_service.pdp.quick import QuickAnswers
from authz_service.redaction import know_foreign, redact
from authz_service.reloading import Reloading
from authz_service.running import running
from authz_service.telemetry import Measured, Metrics
from authz_service.tracing import OFF as OFF_TRACES
from authz_service.tracing import Traces, open_traces

_GC_THRESHOLDS: Final = (20_000, 50, 100)
"""A request leaves hardly any cycles, and the facts in memory are many: looking through them all is to be rare."""
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
    know_foreign(read_foreign(settings, ""))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        def fold() -> None:
            hot.fold()
            gateways.fold()

        async with running(settings, metrics, traces, fold) as (services, sample, recording):
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
