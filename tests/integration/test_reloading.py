"""Settings taken over by a worker that runs, in this process: all or nothing."""

from __future__ import annotations

import base64
import json
import logging
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.serving import PEPPER, Served, bearer, serving

from authz_service.config import load_settings
from authz_service.errors import StartError
from authz_service.reloading import Reloading

OTHER = base64.b64encode(os.urandom(32)).decode()


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


class Stage:
    def __init__(self, served: Served, url: str) -> None:
        self.served, self.url = served, url
        self.reloading: Reloading = served.app.state.reloading

    def take(self, **given: Any) -> None:
        peppers = given.pop("peppers", f"t1:{PEPPER}")
        self.reloading.prepare(load_settings({}, database_url=self.url, peppers=peppers, **given))()

    async def readiness(self) -> dict[str, Any]:
        found: dict[str, Any] = (await self.served.http.get("/readyz")).json()
        return found

    async def allowed(self, **question: Any) -> bool:
        answer = (await self.served.check(**question)).json()
        return bool(answer["decision"] == "allow")


@pytest.fixture
async def stage(database_url: str) -> AsyncIterator[Stage]:
    async with serving(database_url) as served:
        yield Stage(served, database_url)


async def test_a_new_pepper_seals_new_secrets_and_the_old_ones_work_on(stage: Stage):
    assert await stage.allowed()
    stage.take(peppers=f"t1:{PEPPER},t2:{OTHER}", pepper_kid="t2")
    assert await stage.allowed()
    body = {"name": "n", "owner": "dana", "catalog": "gitlab", "scopes": []}
    scope = {"reach": {"kind": "selected", "nodes": ["group:bakery/shop"]}, "permissions": ["job:read"]}
    made = await stage.served.http.post(
        "/v1/tokens", json=body | {"scopes": [scope]}, headers=bearer(stage.served.tokens.admin)
    )
    secret = made.json()["secret"]
    assert "_t2_" in secret
    assert await stage.allowed(token=secret)
    # Taken out again, its tokens stop at once: nothing that is remembered by their secrets stays.
    stage.take()
    assert not await stage.allowed(token=secret)
    assert await stage.allowed()


async def test_the_pepper_that_signs_is_kept_until_a_restart(stage: Stage):
    with pytest.raises(StartError, match="signs the audit's checkpoints"):
        stage.take(peppers=f"t2:{OTHER}")
    assert await stage.allowed()


async def test_limits_count_from_then_on(stage: Stage):
    body = {"name": "n" * 50, "owner": "dana", "catalog": "gitlab"}
    scope = {"reach": {"kind": "selected", "nodes": ["group:bakery/shop"]}, "permissions": ["job:read"]}

    async def create() -> int:
        answer = await stage.served.http.post(
            "/v1/tokens", json=body | {"scopes": [scope]}, headers=bearer(stage.served.tokens.admin)
        )
        return answer.status_code

    assert await create() == 201
    stage.take(max_name_length=20)
    assert await create() == 400
    stage.take()
    assert await create() == 201


async def test_decision_records_begin_and_end(stage: Stage, tmp_path: Path):
    file = tmp_path / "records.jsonl"
    point = stage.served.services.point
    await stage.allowed()
    stage.take(decision_records="all", decision_records_sink="file", decision_records_file=file)
    assert await stage.allowed()
    await point.records.flush()
    assert [json.loads(line)["decision"] for line in file.read_text().splitlines()] == ["allow"]
    stage.take()
    assert await stage.allowed()
    assert not point.records.on
    assert len(file.read_text().splitlines()) == 1
    text = (await stage.served.http.get("/metrics")).text
    assert "authz_decision_records_total 1.0" in text


async def test_a_level_of_the_log(stage: Stage):
    stage.take(log_level="error")
    assert logging.getLogger().level == logging.ERROR
    stage.take(log_level="debug")
    assert logging.getLogger().level == logging.DEBUG


async def test_what_needs_a_restart_leaves_everything_as_it_was_and_says_so(stage: Stage):
    for wrong in ({"pool_size": 20, "max_name_length": 20}, {"decision_records": "all", "host": "0.0.0.0"}):
        with pytest.raises(StartError, match="needs a restart") as caught:
            stage.take(**wrong)
        stage.reloading.refuse(caught.value)
    assert stage.served.services.management.limits.name_length == 100
    assert not stage.served.services.point.records.on
    assert await stage.allowed()
    told = await stage.readiness()
    assert told["ready"] is True
    assert [one["code"] for one in told["notes"]] == ["settings_refused"]
    text = (await stage.served.http.get("/metrics")).text
    assert "authz_settings_reload_refused 1.0" in text
    assert 'authz_settings_reloads_total{outcome="refused"} 2.0' in text
    stage.take()
    assert (await stage.readiness())["notes"] == []
    assert "authz_settings_reload_refused 0.0" in (await stage.served.http.get("/metrics")).text


async def test_a_sink_that_cannot_be_used_refuses_the_rest_too(stage: Stage, tmp_path: Path):
    with pytest.raises(StartError, match="AUTHZ_DECISION_RECORDS_FILE"):
        stage.take(
            max_name_length=20,
            decision_records="all",
            decision_records_sink="file",
            decision_records_file=tmp_path / "nowhere" / "records",
        )
    assert stage.served.services.management.limits.name_length == 100


async def test_counts_survive(stage: Stage):
    for _ in range(3):
        await stage.allowed()
    stage.take(log_level="error")
    await stage.allowed()
    text = (await stage.served.http.get("/metrics")).text
    assert 'authz_requests_total{route="/check",status="200"} 4.0' in text
