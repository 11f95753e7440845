"""Spans as a collector gets them: over HTTP on loopback, by the real exporter."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
import secrets
from collections.abc import Iterator

import pytest
import structlog
from tests.support.collector import SERVER, Collector, collecting
from tests.support.serving import Served, bearer, serving

from authz_service.telemetry import configure_logging

pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="needs the extra `otel`")
pytestmark = pytest.mark.filterwarnings("default::DeprecationWarning")


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as running:
        yield running


def parent(*, sampled: bool = True) -> tuple[str, str]:
    """A trace of somebody's, and the header that names a span of it."""
    trace_id, span_id = secrets.token_hex(16), secrets.token_hex(8)
    return trace_id, f"00-{trace_id}-{span_id}-0{int(sampled)}"


def traced(database_url: str, collector: Collector, share: float = 0.0):
    return serving(database_url, traces_endpoint=collector.endpoint, traces_sample=share)


async def within(collector: Collector, wanted) -> object:
    return await asyncio.to_thread(collector.wait_for, wanted)


async def test_a_request_is_a_span_below_its_callers(database_url, collector):
    trace_id, header = parent()
    async with traced(database_url, collector) as served:
        answer = await served.http.get("/v1/tokens", headers=bearer(served.tokens.admin) | {"traceparent": header})
        assert answer.status_code == 200
    span = await within(collector, lambda one: one.trace_id == trace_id and one.kind == SERVER)
    assert span.name == "GET /v1/tokens"
    assert span.parent_id == header.split("-")[2]
    assert not span.failed
    assert span.attributes == {
        "http.request.method": "GET",
        "http.route": "/v1/tokens",
        "http.response.status_code": 200,
        "authz.request_id": answer.headers["x-request-id"],
    }
    assert collector.resource["service.name"] == "authz-service"
    assert collector.resource["service.version"]


async def test_what_had_to_be_loaded_stands_below_the_question(database_url, collector):
    trace_id, header = parent()
    async with traced(database_url, collector) as served:
        answer = await _ask(served, {"traceparent": header})
        assert answer.json()["decision"] == "allow"
    question = await within(collector, lambda one: one.trace_id == trace_id and one.name == "POST /check")
    loads = [one for one in collector.spans() if one.trace_id == trace_id and one.name == "load"]
    assert "token" in {one.attributes["authz.fact"] for one in loads}
    assert {one.parent_id for one in loads} == {question.span_id}


async def test_looks_at_the_change_log_are_spans_of_their_own(database_url, collector):
    async with traced(database_url, collector, share=1.0) as served:
        await served.issue()
    poll = await within(collector, lambda one: one.name == "poll")
    assert poll.parent_id == ""
    assert poll.attributes["authz.changes"] >= 0


async def test_what_memory_answers_is_the_same_with_a_parent_and_makes_no_span(database_url, collector):
    async with traced(database_url, collector, share=1.0) as served:
        for _ in range(3):
            plain = await _ask(served)
        trace_id, header = parent()
        again = await _ask(served, {"traceparent": header})
        assert again.json() == plain.json()
    spans = await asyncio.to_thread(collector.spans)
    assert "POST /check" in {one.name for one in spans}
    assert trace_id not in {one.trace_id for one in spans}


async def test_who_does_not_want_a_trace_gets_none(database_url, collector):
    unwanted, header = parent(sampled=False)
    wanted, other = parent()
    async with traced(database_url, collector, share=1.0) as served:
        await served.http.get("/v1/tokens", headers=bearer(served.tokens.admin) | {"traceparent": header})
        await served.http.get("/v1/tokens", headers=bearer(served.tokens.admin) | {"traceparent": other})
    await within(collector, lambda one: one.trace_id == wanted)
    assert unwanted not in {one.trace_id for one in collector.spans()}


async def test_probes_are_no_spans(database_url, collector):
    async with traced(database_url, collector, share=1.0) as served:
        for path in ("/livez", "/readyz", "/metrics", "/v1/self"):
            await served.http.get(path, headers=bearer(served.tokens.sample))
    await within(collector, lambda one: one.name == "GET /v1/self")
    assert {one.name for one in collector.spans() if one.kind == SERVER} == {"GET /v1/self"}


async def test_no_span_holds_a_secret_or_a_name_whatever_is_sent(database_url, collector):
    trace_id, header = parent()
    async with traced(database_url, collector, share=1.0) as served:
        secret = served.tokens.sample
        tracing = {"traceparent": header, "tracestate": f"vendor={secret}", "baggage": f"token={secret}"}
        headers = bearer(secret) | tracing
        await served.http.get(f"/v1/tokens/{secret}", headers=headers)
        await served.http.get("/v1/tokens", params={"q": secret}, headers=headers)
        await served.http.get("/v1/self", headers=headers | {"x-request-id": secret})
        await served.http.request(f"X{secret}", "/v1/self", headers=headers)
        await _ask(served, tracing, target=f"bakery/{secret}")
        await served.http.post("/v1/tokens", content=f'{{"name": "{secret}', headers=headers)
        with contextlib.suppress(RuntimeError):
            await served.http.get("/nowhere/bakery", headers=headers)
    await within(collector, lambda one: one.trace_id == trace_id)
    kept = collector.everything
    assert b"http.route" in kept
    for word in (secret, served.tokens.gateway, served.tokens.admin):
        assert word.encode() not in kept
        assert word[12:40].encode() not in kept
    assert b"bakery" not in kept
    assert b"postgresql" not in kept


async def test_a_request_that_fails_says_of_what_kind_and_no_more(database_url, collector, monkeypatch):
    trace_id, header = parent()
    async with traced(database_url, collector) as served:

        async def broken(*args, **given):
            raise ValueError(f"it failed for {served.tokens.sample}")

        monkeypatch.setattr(served.services.point, "authenticate", broken)
        answer = await served.http.get("/v1/self", headers=bearer(served.tokens.sample) | {"traceparent": header})
        assert answer.status_code == 500
    span = await within(collector, lambda one: one.trace_id == trace_id and one.kind == SERVER)
    assert span.failed
    assert (span.message, span.events) == ("", 0)
    assert served.tokens.sample.encode() not in collector.everything


async def test_a_collector_that_is_gone_holds_nobody_up(database_url):
    with collecting() as collector:
        gone = collector.endpoint
    async with asyncio.timeout(120):
        async with serving(database_url, traces_endpoint=gone, traces_sample=1.0) as served:
            for _ in range(5):
                assert (await _ask(served)).json()["decision"] == "allow"


async def test_the_log_names_the_trace_of_a_request(database_url, lines):
    trace_id, header = parent()
    async with serving(database_url) as served:
        await served.http.get("/v1/self", headers=bearer(served.tokens.sample) | {"traceparent": header})
        await served.http.get("/v1/self", headers=bearer(served.tokens.sample) | {"traceparent": "00-x"})
    requests = [line for line in map(json.loads, lines.getvalue().splitlines()) if line["event"] == "request"]
    assert [line.get("trace_id") for line in requests] == [trace_id, None]


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What is logged; afterwards everything is as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    out = io.StringIO()
    configure_logging(json=True, level="info", out=out)
    yield out
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("uvicorn.error").setLevel(logging.NOTSET)
    structlog.reset_defaults()


async def _ask(served: Served, headers: dict[str, str] | None = None, **question: str):
    body = {
        "token": served.tokens.sample,
        "catalog": "gitlab",
        "resource": "job",
        "action": "read",
        "target": "bakery/shop/checkout",
    }
    return await served.http.post(
        "/check", json=body | question, headers=bearer(served.tokens.gateway) | (headers or {})
    )
