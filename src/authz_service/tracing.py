"""Spans for whoever runs a tracing system: requests that take a while, cold loads, looks at the change log.

Off unless an endpoint is set. What memory answers makes no span: a span costs more than such an answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from authz_service.errors import StartError

Value: TypeAlias = str | int | float | bool
Clean: TypeAlias = Callable[[str], str]

_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_LONGEST_TRACEPARENT: Final = 512
_LONGEST_VALUE: Final = 200
_EXPORT_SECONDS: Final = 2.0
_QUEUE: Final = 2048


@dataclass(frozen=True, slots=True)
class Parent:
    """A span of somebody else's, as W3C's `traceparent` names it."""

    trace_id: str
    span_id: str
    sampled: bool

    @property
    def text(self) -> str:
        """As a header's value."""
        return f"00-{self.trace_id}-{self.span_id}-0{int(self.sampled)}"


def parse_traceparent(values: Iterable[bytes]) -> Parent | None:
    """The parent that a request names, or None for none, for several, and for whatever is not one.

    `tracestate` and `baggage` are never read: they are free text of a stranger's, and spans carry none.
    """
    found = list(values)
    if len(found) != 1 or len(found[0]) > _LONGEST_TRACEPARENT:
        return None
    match = _TRACEPARENT.fullmatch(found[0].decode("latin-1").strip())
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    # A later version may say more after these four, this one may not (W3C Trace Context, 3.2).
    if version == "ff" or (version == "00" and more) or not int(trace_id, 16) or not int(span_id, 16):
        return None
    return Parent(trace_id, span_id, sampled=bool(int(flags, 16) & 1))


class Span:
    """One that is not recorded: it takes everything and keeps nothing."""

    @property
    def trace_id(self) -> str | None:
        """32 hexadecimal digits, where there is a trace."""
        return None

    def set(self, **attributes: Value) -> None:
        """Say more of what is going on. `__` in a name becomes `.`: `http__route` is `http.route`."""

    def rename(self, name: str) -> None:
        """Name it anew, for what is known only later."""

    def fail(self, what: str) -> None:
        """Mark it as failed; `what` is a code or the name of a kind of error, never a message."""


class Traces:
    """Where spans go; this one drops them all."""

    on = False

    def span(self, name: str, **attributes: Value) -> AbstractContextManager[Span]:
        """A span around a piece of work; its parent is the span around it, if any."""
        del name, attributes
        return _NOTHING

    def request(self, name: str, parent: Parent | None, **attributes: Value) -> AbstractContextManager[Span]:
        """A span around one request to this service, below the parent that it names."""
        del name, attributes
        return _NOTHING if parent is None else contextlib.nullcontext(_Named(parent.trace_id))

    async def close(self) -> None:
        """Send what waits, for some seconds at most."""


class _Named(Span):
    def __init__(self, trace_id: str) -> None:
        self._trace_id = trace_id

    @property
    def trace_id(self) -> str | None:
        return self._trace_id


_NOTHING: Final[AbstractContextManager[Span]] = contextlib.nullcontext(Span())
OFF: Final = Traces()


def open_traces(
    endpoint: str,
    *,
    share: float,
    version: str,
    clean: Clean,
    exporter: Any = None,
) -> Traces:
    """Spans to an OpenTelemetry collector, over HTTP in the background. Raises StartError without the extra.

    `share` of the traces that begin here are recorded; whoever sends a `traceparent` decides for theirs. `clean` takes
    what looks like a secret out of each text. The variables of OpenTelemetry's SDK say the rest: names of the service
    and its headers (`OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_EXPORTER_OTLP_HEADERS`).
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - an extra
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased  # noqa: PLC0415
    except ImportError as error:
        raise StartError("AUTHZ_TRACES_ENDPOINT: traces need `pip install authz-service[otel]`") from error
    resource = Resource.create({"service.version": version})
    if str(resource.attributes.get("service.name", "unknown_service")).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": "authz-service"}))
    provider = TracerProvider(resource=resource, sampler=ParentBased(TraceIdRatioBased(share)), shutdown_on_exit=False)
    sends_to = exporter or OTLPSpanExporter(endpoint=endpoint, timeout=_EXPORT_SECONDS)
    provider.add_span_processor(
        BatchSpanProcessor(sends_to, max_queue_size=_QUEUE, export_timeout_millis=_EXPORT_SECONDS * 1000)
    )
    return _Recorded(provider, version, clean)


class _Recorded(Traces):
    on = True

    def __init__(self, provider: Any, version: str, clean: Clean) -> None:
        from opentelemetry import trace  # noqa: PLC0415 - an extra

        self._api = trace
        self._provider = provider
        self._tracer = provider.get_tracer("authz_service", version)
        self._clean = clean

    def span(self, name: str, **attributes: Value) -> AbstractContextManager[Span]:
        return self._open(name, None, self._api.SpanKind.INTERNAL, attributes)

    def request(self, name: str, parent: Parent | None, **attributes: Value) -> AbstractContextManager[Span]:
        # An empty context, not the one that is running: a request begins its trace unless it names another's.
        api = self._api
        above = api.set_span_in_context(api.INVALID_SPAN)
        if parent is not None:
            flags = api.TraceFlags(api.TraceFlags.SAMPLED if parent.sampled else api.TraceFlags.DEFAULT)
            named = api.SpanContext(
                int(parent.trace_id, 16), int(parent.span_id, 16), is_remote=True, trace_flags=flags
            )
            above = api.set_span_in_context(api.NonRecordingSpan(named))
        return self._open(name, above, api.SpanKind.SERVER, attributes)

    @contextmanager
    def _open(self, name: str, above: Any, kind: Any, attributes: Mapping[str, Value]) -> Iterator[Span]:
        # The library would keep an error's message and traceback, which may repeat what somebody sent.
        with self._tracer.start_as_current_span(
            name, context=above, kind=kind, record_exception=False, set_status_on_exception=False
        ) as recorded:
            span = _Kept(recorded, self._api, self._clean)
            span.set(**attributes)
            try:
                yield span
            except BaseException as error:
                span.fail(type(error).__name__)
                raise

    async def close(self) -> None:
        # In a thread: it waits for the collector, and whoever stops has others to wait for.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2 * _EXPORT_SECONDS):
                await asyncio.to_thread(self._provider.shutdown)


class _Kept(Span):
    def __init__(self, recorded: Any, api: Any, clean: Clean) -> None:
        self._recorded = recorded
        self._api = api
        self._clean = clean

    @property
    def trace_id(self) -> str | None:
        return f"{self._recorded.get_span_context().trace_id:032x}"

    def set(self, **attributes: Value) -> None:
        for name, value in attributes.items():
            kept = self._clean(value)[:_LONGEST_VALUE] if isinstance(value, str) else value
            self._recorded.set_attribute(name.replace("__", "."), kept)

    def rename(self, name: str) -> None:
        self._recorded.update_name(self._clean(name)[:_LONGEST_VALUE])

    def fail(self, what: str) -> None:
        self._recorded.set_attribute("error.type", what)
        self._recorded.set_status(self._api.StatusCode.ERROR)
