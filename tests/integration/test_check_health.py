from __future__ import annotations

import asyncio
import platform
import re
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.support.serving import Served, bearer, serving, settings_for

from authz_service import __version__
from authz_service.app import create_app
from authz_service.client import Ask, AsyncClient, UndecidedError
from authz_service.errors import DatabaseUnavailableError, OverloadedError, SchemaOutdatedError
from authz_service.pdp.loader import Gate

if TYPE_CHECKING:
    from authz_service.embedded import EmbeddedPostgres

HASTY = {"max_staleness": 1.0, "poll_interval": 0.2, "poll_timeout": 0.5}


async def test_a_healthy_worker_is_live_and_ready(database_url):
    async with serving(database_url) as served:
        assert (await served.http.get("/livez")).json() == {"live": True}
        ready = await served.http.get("/readyz")
        assert (ready.status_code, ready.json()) == (200, {"ready": True, "reasons": [], "notes": []})


async def test_without_its_database_a_worker_denies_and_says_so_and_lives(
    make_database: Callable[..., str], postgres: EmbeddedPostgres
):
    url = make_database()
    async with serving(url, **HASTY) as served:
        assert (await served.check()).json()["decision"] == "allow"
        postgres.drop_database(urlsplit(url).path.removeprefix("/"))
        answer = await until_undecided(served)
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        body = answer.json()
        assert (body["decision"], body["reason"]) == ("deny", "stale")
        ready = await served.http.get("/readyz")
        assert (ready.status_code, ready.json()["ready"]) == (503, False)
        assert [one["code"] for one in ready.json()["reasons"]] == ["stale"]
        assert (await served.http.get("/livez")).status_code == 200
        async with AsyncClient(
            "http://authz.test", served.tokens.gateway, transport=httpx.ASGITransport(app=served.app.state.hot)
        ) as client:
            with pytest.raises(UndecidedError) as caught:
                await client.check(served.tokens.sample, Ask("job", "read", "bakery/shop/checkout"), catalog="gitlab")
        assert caught.value.reason == "stale"


async def until_undecided(served: Served) -> httpx.Response:
    async with asyncio.timeout(20):
        while True:
            answer = await served.check()
            if answer.status_code != 200:
                return answer
            await asyncio.sleep(0.05)


async def test_metrics_count_decisions_by_reason_and_show_no_names(database_url):
    async with serving(database_url) as served:
        for action in ("read", "read", "run"):
            await served.check(action=action)
        shown = await served.http.get("/metrics")
        assert shown.headers["content-type"].startswith("text/plain")
        lines = shown.text.splitlines()
        assert 'authz_decisions_total{decision="allow",reason="granted"} 2.0' in lines
        assert 'authz_decisions_total{decision="deny",reason="permission_missing"} 1.0' in lines
        assert 'authz_requests_total{route="/check",status="200"} 3.0' in lines
        names = ("authz_staleness_seconds", "authz_polls_total", "authz_cache_entries", "authz_loads_total")
        for name in names:
            assert any(line.startswith(name) for line in lines), name
        assert "bakery" not in shown.text
        assert "tok_" not in shown.text


async def test_a_route_is_counted_under_the_path_that_the_document_gives_it(database_url):
    async with serving(database_url) as served:
        documented = set(served.app.openapi()["paths"])
        headers = bearer(served.tokens.sample)
        await served.http.get("/v1/self", headers=headers)
        await served.http.get("/v1/tokens/tok_none", headers=headers)
        await served.http.post("/v1/self/check", json={}, headers=headers)
        await served.http.post("/access/v1/evaluation", json={}, headers=headers)
        await served.http.get("/readyz")
        text = (await served.http.get("/metrics")).text
    counted = set(re.findall(r'authz_requests_total\{route="([^"]+)"', text))
    assert counted == {
        "/v1/self",
        "/v1/tokens/{token_id}",
        "/v1/self/check",
        "/access/v1/evaluation",
        "/readyz",
    }
    assert counted <= documented


async def test_whatever_is_left_out_of_the_log_is_a_route_that_there_is(database_url):
    from authz_service.app import _QUIET, _UNTRACED

    documented = set(create_app(settings_for(database_url)).openapi()["paths"])
    documented.add("/gateway/envoy-constants/{path}")  # as `/gateway/envoy/`, which the document has
    assert {path.replace(":path", "") for path in _QUIET | _UNTRACED} <= documented


async def test_an_operator_sees_how_full_everything_is(database_url):
    async with serving(database_url, cache_tokens=1234, pool_size=9, loads_running=3) as served:
        await served.check()
        text = (await served.http.get("/metrics")).text
    shown = {
        sample.name + "".join(sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_bucket")
    }
    assert shown["authz_build_info" + "".join(sorted([__version__, platform.python_version()]))] == 1
    assert shown["authz_cache_limittokens"] == 1234
    assert 0 < shown["authz_cache_entriestokens"] < 1234
    assert shown["authz_pool_connectionslimit"] == 9
    assert shown["authz_pool_connectionsused"] + shown["authz_pool_connectionsidle"] >= 1
    assert shown["authz_load_seconds_count"] >= 1
    assert (shown["authz_ready"], shown["authz_workers"], shown["authz_loads_shed_total"]) == (1, 1, 0)
    assert shown["authz_requests_in_flight"] == 1, "the one that asks"
    assert shown["authz_processor_seconds_total"] > 0
    assert shown["authz_resident_memory_bytes"] > 10 << 20


async def test_what_is_shed_is_counted():
    gate = Gate(running=1, waiting=0)
    with pytest.raises(OverloadedError):
        async with gate.place():
            pass
    assert gate.shed == 1


async def test_a_worker_that_leaves_says_so_beside_whatever_else_is_wrong(database_url, monkeypatch):
    async with serving(database_url) as served:
        served.app.state.leaving = True
        ready = await served.http.get("/readyz")
        assert ready.status_code == 503
        assert [one["code"] for one in ready.json()["reasons"]] == ["stopping"]
        monkeypatch.setattr(served.services.point.follower, "rewound", True)
        ready = await served.http.get("/readyz")
        assert [one["code"] for one in ready.json()["reasons"]] == ["stopping", "rewound"]
        assert all(one["message"] for one in ready.json()["reasons"])
        assert (await served.http.get("/livez")).status_code == 200


async def test_an_unmatched_path_makes_no_new_metric(database_url):
    async with serving(database_url) as served:
        for number in range(3):
            assert (await served.http.get(f"/nothing/{number}")).status_code == 404
        text = (await served.http.get("/metrics")).text
        assert 'authz_requests_total{route="other",status="404"} 3.0' in text
        assert "/nothing" not in text


async def test_an_empty_database_stops_the_start_and_says_what_to_run(empty_database_url):
    app = create_app(settings_for(empty_database_url))
    with pytest.raises(SchemaOutdatedError, match="authz migrate"):
        async with app.router.lifespan_context(app):
            pass


async def test_an_unreachable_database_stops_the_start():
    app = create_app(settings_for("postgresql://nobody:secret@127.0.0.1:1/none"))
    with pytest.raises(DatabaseUnavailableError) as caught:
        async with app.router.lifespan_context(app):
            pass
    assert "secret" not in caught.value.message
