"""What of a stranger's `traceparent` is believed, and that traces which are off cost and say nothing."""

from __future__ import annotations

import base64
import subprocess
import sys

import httpx
import pytest
from fastapi import FastAPI

from authz_service.client import AsyncClient
from authz_service.client.asgi import AuthzMiddleware
from authz_service.config import load_settings
from authz_service.errors import StartError
from authz_service.tracing import OFF, Parent, open_traces, parse_traceparent

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"
PEPPER = base64.b64encode(bytes(range(32))).decode()
ENOUGH = {"DATABASE_URL": "postgresql://u:hush@db/authz", "AUTHZ_PEPPERS": f"k1:{PEPPER}"}


def test_a_parent_is_read_as_it_was_written():
    assert parse_traceparent([PARENT.encode()]) == Parent(TRACE, SPAN, sampled=True)
    assert parse_traceparent([f"00-{TRACE}-{SPAN}-00".encode()]) == Parent(TRACE, SPAN, sampled=False)
    assert Parent(TRACE, SPAN, sampled=True).text == PARENT


def test_flags_that_nobody_knows_yet_are_no_reason_to_refuse():
    assert parse_traceparent([f"00-{TRACE}-{SPAN}-ff".encode()]) == Parent(TRACE, SPAN, sampled=True)


def test_a_later_version_may_say_more():
    assert parse_traceparent([f"01-{TRACE}-{SPAN}-01-more".encode()]) == Parent(TRACE, SPAN, sampled=True)


@pytest.mark.parametrize(
    "values",
    [
        [],
        [PARENT.encode(), PARENT.encode()],
        [b""],
        [PARENT.upper().encode()],
        [f"ff-{TRACE}-{SPAN}-01".encode()],
        [f"00-{TRACE}-{SPAN}-01-more".encode()],
        [f"00-{'0' * 32}-{SPAN}-01".encode()],
        [f"00-{TRACE}-{'0' * 16}-01".encode()],
        [f"00-{TRACE[:-1]}-{SPAN}-01".encode()],
        [f"00-{TRACE}-{SPAN}-1".encode()],
        [f"00-{TRACE}-{SPAN}-01, {PARENT}".encode()],
        [f"01-{TRACE}-{SPAN}-01-".encode() + b"x" * 1000],
        ["00-٤bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".encode()],
        [b"\xff\xfe\x00"],
    ],
)
def test_what_is_no_parent_is_none(values):
    assert parse_traceparent(values) is None


def test_traces_are_off_until_an_endpoint_is_set():
    assert load_settings(ENOUGH).traces_endpoint is None
    assert not OFF.on
    with OFF.span("load", authz__fact="token") as span:
        span.set(http__route="/x")
        span.fail("x")
        assert span.trace_id is None


def test_the_service_loads_nothing_of_the_extra_while_they_are_off():
    heavy = "('opentelemetry.sdk', 'opentelemetry.exporter')"  # the framework loads the bare API by itself
    loads = f"import sys, authz_service.app; sys.exit(any(name.startswith({heavy}) for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", loads], check=False).returncode == 0


def test_the_framework_sends_nothing_of_its_own_whatever_the_environment_says(monkeypatch):
    from opentelemetry import trace

    sdk = pytest.importorskip("opentelemetry.sdk.trace", reason="needs the extra `otel`")
    from authz_service.app import create_app

    monkeypatch.setenv("FASTAPI_OTEL_AUTO_CONFIGURE", "true")
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", sdk.TracerProvider(shutdown_on_exit=False))
    assert FastAPI()._native_telemetry.enabled()
    app = create_app(load_settings(ENOUGH))
    assert not app._native_telemetry.enabled()
    assert not app._telemetry["auto_configure"]


@pytest.mark.parametrize(
    "endpoint", ["collector:4318", "ftp://collector/v1/traces", "http:///v1/traces", "https://me:hush@collector/v1"]
)
def test_an_endpoint_that_is_none_stops_the_start_and_is_not_repeated(endpoint):
    with pytest.raises(StartError) as caught:
        load_settings(ENOUGH | {"AUTHZ_TRACES_ENDPOINT": endpoint})
    assert [(fault.where, fault.code) for fault in caught.value.faults] == [("AUTHZ_TRACES_ENDPOINT", "invalid")]
    assert "hush" not in caught.value.message


@pytest.mark.parametrize("share", ["-0.1", "1.1", "all"])
def test_a_share_that_is_none_stops_the_start(share):
    with pytest.raises(StartError) as caught:
        load_settings(ENOUGH | {"AUTHZ_TRACES_SAMPLE": share})
    assert [fault.where for fault in caught.value.faults] == ["AUTHZ_TRACES_SAMPLE"]


def test_without_the_extra_the_start_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(StartError, match=r"authz-service\[otel\]"):
        open_traces("http://collector:4318/v1/traces", share=1.0, version="1", clean=str)


@pytest.mark.parametrize(("given", "passed"), [(PARENT, PARENT), ("00-nothing", None), (None, None)])
async def test_a_protected_api_passes_its_callers_trace_on(given, passed):
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json={"decision": "allow", "reason": "granted"})

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    headers = {"Authorization": "Bearer t"} | ({} if given is None else {"traceparent": given})
    async with AsyncClient("http://authz.test", "g", transport=httpx.MockTransport(answer)) as source:
        guarded = AuthzMiddleware(app, source, catalog="orders")
        async with httpx.AsyncClient(transport=httpx.ASGITransport(guarded), base_url="http://api.test") as http:
            assert (await http.get("/orders", headers=headers)).status_code == 204
            assert (await http.get("/orders", headers={"Authorization": "Bearer t"})).status_code == 204
    assert asked[0].headers.get("traceparent") == passed
    assert "traceparent" not in asked[1].headers
