"""Settings of traces: where spans go, and of how much there are any."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel, Field

from authz_service.errors import Fault


class TraceSettings(BaseModel):
    traces_endpoint: str | None = Field(
        None,
        description="where spans go, an OpenTelemetry collector's `http://collector:4318/v1/traces` (needs"
        " `authz-service[otel]`); without it there are none. The collector's own password belongs into"
        " OTEL_EXPORTER_OTLP_HEADERS",
    )
    traces_sample: float = Field(
        0.01,
        ge=0.0,
        le=1.0,
        description="the share of traces that begin here and are recorded; for a request with a `traceparent` its"
        " sender decided",
    )


def trace_contradictions(settings: TraceSettings) -> Iterator[Fault]:
    """What the type alone cannot show."""
    endpoint = settings.traces_endpoint
    if endpoint is None:
        return
    scheme, separator, rest = endpoint.partition("://")
    if not separator or scheme not in ("http", "https") or not rest.partition("/")[0]:
        yield Fault("AUTHZ_TRACES_ENDPOINT", "invalid", "write `http://collector:4318/v1/traces`")
    elif "@" in rest.partition("/")[0]:
        yield Fault("AUTHZ_TRACES_ENDPOINT", "invalid", "write no password here; OTEL_EXPORTER_OTLP_HEADERS takes it")
