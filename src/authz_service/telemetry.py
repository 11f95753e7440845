"""What the service tells of itself: metrics that add up over all workers, and logs that never show a token."""

from __future__ import annotations

import logging
import os
import platform
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from http import HTTPStatus
from pathlib import Path
from time import perf_counter
from typing import Any, Final, TextIO

import structlog
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    multiprocess,
)
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from authz_service import __version__
from authz_service.redaction import redact
from authz_service.tracing import OFF, Traces, parse_traceparent

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which nobody reads

MULTIPROCESS_DIR: Final = "PROMETHEUS_MULTIPROC_DIR"
"""Where workers share their figures; prometheus_client reads it once, when it is first imported."""
CONTENT_TYPE: Final = CONTENT_TYPE_LATEST

# A decision takes a fraction of a millisecond and a load some; gateways give up after 200 ms and more.
_BUCKETS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)

_STATM: Final = Path("/proc/self/statm")


def resident_memory() -> int:
    """Bytes of memory that this process holds now, or 0 where the system does not tell."""
    try:
        pages = int(_STATM.read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


class Metrics:
    """The figures of one process. With several workers each keeps its own file, and any of them shows the sums."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.decisions = Counter("authz_decisions", "Decisions made", ["decision", "reason"], registry=registry)
        self.undecided = Counter(
            "authz_undecided", "Requests that no decision was possible for (503)", ["reason"], registry=registry
        )
        self.requests = Counter("authz_requests", "Requests answered", ["route", "status"], registry=registry)
        self.seconds = Histogram(
            "authz_request_seconds", "Seconds from request to answer", ["route"], buckets=_BUCKETS, registry=registry
        )
        self.revoke_to_deny = Histogram(
            "authz_revoke_to_deny_seconds",
            "Seconds from when a change was written, a revoke above all, until this process decided by it",
            buckets=_BUCKETS,
            registry=registry,
        )
        self.in_flight = Gauge(
            "authz_requests_in_flight",
            "Requests that are being answered; what memory answers takes no time to be seen",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.loads = Counter("authz_loads", "Facts that had to be loaded", registry=registry)
        self.load_seconds = Histogram(
            "authz_load_seconds",
            "Seconds that a question waited for facts from the database, the queue before it included",
            buckets=_BUCKETS,
            registry=registry,
        )
        self._gauges = {
            "staleness": Gauge(
                "authz_staleness_seconds",
                "Seconds since this process last proved that its facts are true; the worst of the workers",
                multiprocess_mode="livemax",
                registry=registry,
            ),
            "revision": Gauge(
                "authz_applied_revision",
                "The revision applied; the least of the workers",
                multiprocess_mode="livemin",
                registry=registry,
            ),
            "rewound": Gauge(
                "authz_rewound",
                "1 while the database's history is found to have gone back, and nothing is decided",
                multiprocess_mode="livemax",
                registry=registry,
            ),
            "waiting": Gauge(
                "authz_loads_waiting", "Loads that wait for a place", multiprocess_mode="livesum", registry=registry
            ),
            "ready": Gauge(
                "authz_ready",
                "1 while every worker may be asked, as `/readyz` says it; 0 as soon as one may not",
                multiprocess_mode="livemin",
                registry=registry,
            ),
            "workers": Gauge("authz_workers", "Workers that answer", multiprocess_mode="livesum", registry=registry),
            "memory": Gauge(
                "authz_resident_memory_bytes",
                "Memory that the workers hold, where the system tells",
                multiprocess_mode="livesum",
                registry=registry,
            ),
        }
        self._pool = Gauge(
            "authz_pool_connections",
            "Connections of the pools to the database: `used`, `idle`, and the most there may be (`limit`)",
            ["state"],
            multiprocess_mode="livesum",
            registry=registry,
        )
        self._cached = Gauge(
            "authz_cache_entries", "Facts kept in memory", ["kind"], multiprocess_mode="livesum", registry=registry
        )
        self._cache_limit = Gauge(
            "authz_cache_limit",
            "Facts that there is room for; beyond, the oldest go",
            ["kind"],
            multiprocess_mode="livesum",
            registry=registry,
        )
        self._evicted = Counter("authz_cache_evictions", "Facts dropped for want of room", ["kind"], registry=registry)
        self._followed = {
            "polls": Counter("authz_polls", "Looks at the change log", registry=registry),
            "failures": Counter("authz_poll_failures", "Looks that failed", registry=registry),
            "resets": Counter("authz_cache_resets", "Times that everything was dropped", registry=registry),
            "changes": Counter("authz_changes", "Changes applied", registry=registry),
            "shed": Counter(
                "authz_loads_shed", "Loads refused because the queue was full (503, `overloaded`)", registry=registry
            ),
            "processor": Counter(
                "authz_processor_seconds", "Seconds of processor time that the workers used", registry=registry
            ),
        }
        self.part_failures = Counter(
            "authz_part_failures", "Parts of a worker that failed and were started again", ["part"], registry=registry
        )
        self.sweeps = Counter("authz_sweeps", "Runs of sweeps that this process ended", ["sweep"], registry=registry)
        self.sweep_failures = Counter("authz_sweep_failures", "Runs that failed", ["sweep"], registry=registry)
        self.swept = Counter("authz_swept", "What sweeps dealt with", ["sweep"], registry=registry)
        self.sweep_finished = Gauge(
            "authz_sweep_finished_timestamp_seconds",
            "When the last run of each sweep ended, as far as a process saw",
            ["sweep"],
            multiprocess_mode="max",
            registry=registry,
        )
        self.sealed = Counter("authz_audit_sealed", "Rows of the audit linked into its chain", registry=registry)
        self.audit_broken = Gauge(
            "authz_audit_broken",
            "1 when the audit's chain has lost its last checkpoint",
            multiprocess_mode="livemax",
            registry=registry,
        )
        self.reloads = Counter(
            "authz_settings_reloads", "Times that settings were read again", ["outcome"], registry=registry
        )
        self.reload_refused = Gauge(
            "authz_settings_reload_refused",
            "1 while the settings read last were refused, and the last good ones are in use",
            multiprocess_mode="livemax",
            registry=registry,
        )
        self.leaks = Counter("authz_leaked_tokens", "Tokens revoked because somebody reported them", registry=registry)
        self.deliveries = Counter(
            "authz_webhook_attempts", "Attempts to deliver to webhooks", ["outcome"], registry=registry
        )
        self._records = {
            "written": Counter("authz_decision_records", "Decision records written", registry=registry),
            "dropped": Counter(
                "authz_decision_records_dropped",
                "Decision records lost for want of room, or of somebody who takes them",
                registry=registry,
            ),
        }
        build = Gauge(
            "authz_build_info",
            "1, with what is running as labels",
            ["version", "python"],
            multiprocess_mode="livemax",
            registry=registry,
        )
        build.labels(__version__, platform.python_version()).set(1)
        self._seen: dict[str, float] = {}
        self._children: dict[tuple[str, str], Any] = {}

    def count_decision(self, *, allowed: bool, reason: str) -> None:
        key = ("allow" if allowed else "deny", reason)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = self.decisions.labels(*key)
        child.inc()

    @property
    def buckets(self) -> tuple[float, ...]:
        """The upper bounds of the histogram's buckets, in seconds; what is above them all has a bucket of its own."""
        return _BUCKETS

    def add_decisions(self, reason: str, count: int) -> None:
        """Decisions that were counted elsewhere; `granted…` are allows."""
        if count:
            self.decisions.labels("allow" if reason.startswith("granted") else "deny", reason).inc(count)

    def add_requests(self, route: str, status: int, counts: Sequence[int], seconds: float) -> None:
        """Requests that were timed elsewhere: how many fell in each bucket, and the sum of their seconds."""
        total = sum(counts)
        if not total:
            return
        self.requests.labels(route, str(status)).inc(total)
        child = self.seconds.labels(route)
        # The library takes observations one by one only; its buckets are plain values, not yet summed up.
        child._sum.inc(seconds)  # noqa: SLF001
        for bucket, count in zip(child._buckets, counts, strict=True):  # noqa: SLF001
            bucket.inc(count)

    def sample(
        self,
        *,
        gauges: Mapping[str, float],
        followed: Mapping[str, float],
        cached: Mapping[str, int],
        evicted: Mapping[str, int],
        limits: Mapping[str, int] | None = None,
        pool: Mapping[str, int] | None = None,
    ) -> None:
        """Take over figures that others keep as plain numbers; counts may come as totals, each adds what is new."""
        for name, value in gauges.items():
            self._gauges[name].set(value)
        for kind, entries in cached.items():
            self._cached.labels(kind).set(entries)
        for kind, limit in (limits or {}).items():
            self._cache_limit.labels(kind).set(limit)
        for state, connections in (pool or {}).items():
            self._pool.labels(state).set(connections)
        for name, total in followed.items():
            self._followed[name].inc(self._new(name, total))
        for kind, total in evicted.items():
            self._evicted.labels(kind).inc(self._new(f"evicted {kind}", total))

    def sample_records(self, totals: Mapping[str, float]) -> None:
        """Take over how many decision records were `written` and `dropped`, as totals."""
        for name, total in totals.items():
            self._records[name].inc(self._new(f"records {name}", total))

    def _new(self, name: str, total: float) -> float:
        new = max(0.0, total - self._seen.get(name, 0.0))
        self._seen[name] = total
        return new

    def render(self) -> bytes:
        """The text that a Prometheus server reads."""
        if MULTIPROCESS_DIR not in os.environ:
            return generate_latest(self.registry)
        together = CollectorRegistry()
        multiprocess.MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(together)


class Measured:
    """Counts and times every request by its route, whatever became of it. The outermost layer of the application.

    Each leaves one line in the log, but for the `quiet` routes: decisions come by the thousand, and are counted. With
    `traces` each is a span, but for the `untraced` routes.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        quiet: frozenset[str] = frozenset(),
        traces: Traces = OFF,
        untraced: frozenset[str] = frozenset(),
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._quiet = quiet
        self._traces = traces
        self._untraced = untraced
        self._log = logger()
        self._children: dict[tuple[str, int], tuple[Any, Any]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        parent = parse_traceparent(value for name, value in scope["headers"] if name == b"traceparent")
        if not self._traces.on or scope["path"] in self._untraced:
            await self._answer(scope, receive, send, None if parent is None else parent.trace_id)
            return
        with self._traces.request(scope["method"], parent, http__request__method=scope["method"]) as span:
            status = await self._answer(scope, receive, send, span.trace_id)
            route = _route_of(scope)
            span.rename(f"{scope['method']} {route}")
            span.set(http__route=route, http__response__status_code=status)
            request_id = (scope.get("state") or {}).get("request_id")
            if request_id is not None:
                span.set(authz__request_id=request_id)
            if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                span.fail(str(status))

    async def _answer(self, scope: Scope, receive: Receive, send: Send, trace_id: str | None) -> int:
        status = 500
        started = perf_counter()
        self._metrics.in_flight.inc()

        async def watching(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watching)
        finally:
            self._metrics.in_flight.dec()
            key = (_route_of(scope), status)
            children = self._children.get(key)
            if children is None:
                children = self._children[key] = (
                    self._metrics.requests.labels(key[0], str(status)),
                    self._metrics.seconds.labels(key[0]),
                )
            seconds = perf_counter() - started
            children[0].inc()
            children[1].observe(seconds)
            if key[0] not in self._quiet:
                traced = {} if trace_id is None else {"trace_id": trace_id}
                self._log.info("request", **_event_fields(scope), **traced, status=status, ms=round(seconds * 1000, 1))
        return status


def _route_of(scope: Scope) -> str:
    """The route's path, with names in place of values. What none matched is one name: no client makes new ones."""
    # A route that was included under a prefix knows its own end alone; what it became stands beside it.
    included = (scope.get("fastapi") or {}).get("effective_route_context")
    return str(getattr(included, "path", None) or getattr(scope.get("route"), "path", "other"))


def configure_logging(*, json: bool, level: str, out: TextIO | None = None) -> None:
    """One line for each event, for our own loggers and everybody else's, redacted after it was put into words."""
    out = out or sys.stderr
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if json
        else structlog.dev.ConsoleRenderer(colors=out.isatty(), exception_formatter=structlog.dev.plain_traceback)
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.add_logger_name, structlog.stdlib.ExtraAdder({"request_id"}), *shared],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer, _redact_line],
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers[:] = []
        logger.propagate = True
    # Its word of starting and stopping comes once for each worker, and ours says it better.
    logging.getLogger("uvicorn.error").setLevel(max(logging.WARNING, root.level))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def _redact_line(logger: Any, method: str, line: Any) -> Any:
    del logger, method
    return redact(line) if isinstance(line, str) else line


def logger() -> Any:
    """Where the service writes: events with names, never a whole request."""
    return structlog.get_logger("authz_service")


def _event_fields(scope: MutableMapping[str, Any]) -> dict[str, Any]:
    """What a log line may say of a request: never its query, headers or body."""
    state = scope.get("state") or {}
    return {
        "method": scope.get("method"),
        "path": str(scope.get("path", ""))[:512],
        "request_id": state.get("request_id"),
    }
