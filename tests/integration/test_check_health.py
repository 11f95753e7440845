from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx
import pytest
from tests.support.serving import Served, serving, settings_for

from authz_service.app import create_app
from authz_service.client import Ask, AsyncClient, UndecidedError
from authz_service.errors import DatabaseUnavailableError, SchemaOutdatedError

if TYPE_CHECKING:
    from authz_service.embedded import EmbeddedPostgres

HASTY = {"max_staleness": 1.0, "poll_interval": 0.2, "poll_timeout": 0.5}


async def test_a_healthy_worker_is_live_and_ready(database_url):
    async with serving(database_url) as served:
        assert (await served.http.get("/livez")).json() == {"live": True}
        ready = await served.http.get("/readyz")
        assert (ready.status_code, ready.json()) == (200, {"ready": True, "reasons": []})


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
