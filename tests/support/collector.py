"""An OpenTelemetry collector on loopback: takes spans over HTTP as the exporter sends them, and keeps them."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SERVER = 2
"""The kind of a span around a request, as the protocol numbers it."""
FAILED = 2
"""The status of a span that failed."""


@dataclass(frozen=True)
class Seen:
    """One span as it arrived; identifiers are hexadecimal."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: int
    failed: bool
    message: str
    attributes: dict[str, Any]
    events: int


@dataclass
class Collector:
    port: int
    bodies: list[bytes] = field(default_factory=list)
    resource: dict[str, Any] = field(default_factory=dict)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1/traces"

    @property
    def everything(self) -> bytes:
        """All that ever arrived, for what must not be in it."""
        return b"\n".join(self.bodies)

    def spans(self) -> list[Seen]:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        found = []
        for body in list(self.bodies):
            for group in ExportTraceServiceRequest.FromString(body).resource_spans:
                self.resource = {one.key: one.value.string_value for one in group.resource.attributes}
                for scope in group.scope_spans:
                    found += [_read(span) for span in scope.spans]
        return found

    def wait_for(self, wanted: Callable[[Seen], bool], seconds: float = 60.0) -> Seen:
        """The first span that fits; the exporter sends in batches, so it comes later."""
        end = time.monotonic() + seconds
        while True:
            spans = self.spans()
            for span in spans:
                if wanted(span):
                    return span
            assert time.monotonic() < end, f"no such span among {[one.name for one in spans]}"
            time.sleep(0.05)


def _read(span: Any) -> Seen:
    return Seen(
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.kind,
        span.status.code == FAILED,
        span.status.message,
        {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes},
        len(span.events),
    )


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector(0)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            collector.bodies.append(body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()
