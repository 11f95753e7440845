from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog
from prometheus_client.parser import text_string_to_metric_families

from authz_service.redaction import redact
from authz_service.telemetry import Measured, Metrics, configure_logging, logger
from authz_service.tokens.secret import new_secret

SECRET = new_secret("azt", "k1").reveal()


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


@pytest.mark.parametrize(
    "text",
    [
        SECRET,
        f"Authorization: Bearer {SECRET}",
        f"Bearer {SECRET[:30]}",
        f'{{"token":"{SECRET}"}}',
        f"https://x.test/?t={SECRET}&u=1",
        f"prefix{SECRET}suffix",
        SECRET[:-3],
        "bearer some-other-scheme-of-secret",
        "postgresql://authz:hush@db/authz",
    ],
    ids=range(9),  # a secret is another in each process, and all of them must name the tests alike
)
def test_what_looks_like_a_secret_does_not_reach_the_log(text, lines):
    logger().warning("an event", detail=text)
    logging.getLogger("anybody").warning("of %s", text)
    logged = lines.getvalue()
    assert logged.count("\n") == 2
    for part in (SECRET[10:40], "some-other", "hush"):
        assert part not in logged


def test_a_traceback_is_redacted_too(lines):
    try:
        int(SECRET)  # its error repeats the text
    except ValueError:
        logging.getLogger("uvicorn.error").exception("it failed for %s", SECRET)
    [line] = lines.getvalue().splitlines()
    assert "ValueError" in json.loads(line)["exception"]
    assert SECRET[10:40] not in line


def test_public_ids_stay_in_the_log():
    text = "tok_3bJMOh7hrR4CulDQV7oYPV r1.9a42f84a.3 project:bakery/shop"
    assert redact(text) == text


def test_every_line_is_json_with_its_level_and_time(lines):
    logger().info("started", workers=2)
    line = json.loads(lines.getvalue())
    assert (line["event"], line["level"], line["workers"]) == ("started", "info", 2)
    assert line["timestamp"].endswith("Z")


def test_a_line_of_the_standard_library_keeps_the_request_that_it_belongs_to_and_nothing_else(lines):
    logging.getLogger("authz_service.api").error("it failed", extra={"request_id": "r-1", "body": SECRET})
    line = json.loads(lines.getvalue())
    assert (line["event"], line["request_id"], line["logger"]) == ("it failed", "r-1", "authz_service.api")
    assert "body" not in line


async def test_a_request_that_fails_is_counted_and_is_no_longer_under_way():
    metrics = Metrics()

    async def broken(scope, receive, send):
        assert shown(metrics)["authz_requests_in_flight"] == 1
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await Measured(broken, metrics)({"type": "http", "method": "GET", "path": "/x", "headers": []}, None, None)
    figures = shown(metrics)
    assert figures["authz_requests_in_flight"] == 0
    assert figures["authz_requests_total"] == 1


def shown(metrics: Metrics) -> dict[str, float]:
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }


def test_totals_kept_elsewhere_are_counted_once():
    metrics = Metrics()
    for polls in (3, 3, 5):
        metrics.sample(gauges={"staleness": 0.5}, followed={"polls": polls}, cached={"tokens": 7}, evicted={})
    figures = shown(metrics)
    assert figures["authz_polls_total"] == 5
    assert figures["authz_staleness_seconds"] == 0.5
    assert figures["authz_cache_entries"] == 7
