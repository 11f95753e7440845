"""Decision records: a line for each decision that is to leave one, and nothing else; above all no secret."""

from __future__ import annotations

import asyncio
import gzip
import http.server
import json
import sys
import threading
from pathlib import Path
from typing import ClassVar
from uuid import UUID

import pytest
from tests.support.serving import bearer, serving

from authz_service.config import load_settings
from authz_service.engine.model import PermissionRequest, Reason, allow, deny
from authz_service.errors import StartError
from authz_service.pdp.question import Answer, Ask, Question
from authz_service.pdp.records import OFF, Recorder, write_file, write_lines, write_otlp
from authz_service.store.changes import Revision, Stamp
from authz_service.tokens.model import Token, TokenId
from authz_service.tokens.secret import new_secret

STAMP = Stamp(Revision(7), UUID(int=1))
TOKEN = Token(TokenId("tok_" + "a" * 22), 12, {"gitlab": 1})


def settings(path: Path, mode: str) -> dict:
    return {"decision_records": mode, "decision_records_sink": "file", "decision_records_file": path}


async def records(served, path: Path) -> list[dict]:
    await served.services.point.records.flush()
    return read(path)


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_each_decision_leaves_one_line_with_all_that_it_was_about(database_url, tmp_path):
    path = tmp_path / "decisions.jsonl"
    async with serving(database_url, **settings(path, "all")) as served:
        headers = bearer(served.tokens.gateway) | {"X-Request-ID": "request-1"}
        body = {
            "token": served.tokens.sample,
            "catalog": "gitlab",
            "resource": "job",
            "action": "read",
            "target": "bakery/shop/checkout",
        }
        answer = (await served.http.post("/check", json=body, headers=headers)).json()
        for _ in range(3):  # memory would answer these, if it left records
            await served.check()
        await served.check(action="nonsense")
        await served.check(token=new_secret("azt", "t1").reveal())
        await served.check(token="nonsense")
        found = await records(served, path)
    assert len(found) == 7
    first = found[0]
    at = first.pop("at")
    assert at.endswith("Z")
    assert isinstance(first.pop("owner_id"), int)
    assert first == {
        "token_id": answer["token_id"],
        "catalog": "gitlab",
        "permission": "job:read",
        "target": "bakery/shop/checkout",
        "decision": "allow",
        "reason": "granted",
        "revision": answer["revision"],
        "request_id": "request-1",
    }
    assert [one["reason"] for one in found[4:]] == ["permission_unknown", "unknown_token", "malformed_token"]
    assert [one["token_id"] is None for one in found[4:]] == [False, True, True]


async def test_batches_calls_and_questions_about_oneself_are_recorded_too(database_url, tmp_path):
    path = tmp_path / "decisions.jsonl"
    async with serving(database_url, **settings(path, "all")) as served:
        items = [{"resource": "job", "action": action, "target": "bakery/shop"} for action in ("read", "run")]
        await served.batch(items)
        call = {"token": served.tokens.sample, "catalog": "gitlab", "method": "GET", "path": "/api/v4/version?x=secret"}
        await served.http.post("/check/http", json=call, headers=bearer(served.tokens.gateway))
        own = {"resource": "job", "action": "read", "target": "bakery/shop"}
        await served.http.post("/v1/self/check", json=own, headers=bearer(served.tokens.sample))
        found = await records(served, path)
    assert [one.get("permission") or one["operation"] for one in found] == [
        "job:read",
        "job:run",
        "GET /api/v4/version",
        "job:read",
    ]


async def test_denies_alone_and_none_at_all(database_url, tmp_path):
    path = tmp_path / "denies.jsonl"
    async with serving(database_url, **settings(path, "denies")) as served:
        await served.check()
        await served.check(target="bakery/elsewhere")
        assert [one["decision"] for one in await records(served, path)] == ["deny"]


async def test_records_are_off_unless_they_are_asked_for(database_url):
    async with serving(database_url) as served:
        assert served.services.point.records is OFF
        await served.check()
        assert (OFF.on, OFF.written, OFF.dropped) == (False, 0, 0)


async def test_a_secret_in_the_wrong_field_is_never_written(database_url, tmp_path):
    path = tmp_path / "decisions.jsonl"
    canary = new_secret("azt", "t1").reveal()
    async with serving(database_url, **settings(path, "all")) as served:
        await served.check(target=f"bakery/{canary}")
        await served.check(resource=canary)
        await served.check(token=canary)
        call = {"token": canary, "catalog": "gitlab", "method": "GET", "path": f"/api/v4/projects/{canary}?t={canary}"}
        await served.http.post("/check/http", json=call, headers=bearer(served.tokens.gateway))
        found = await records(served, path)
        text = json.dumps(found)
    assert len(found) == 4
    assert canary[-49:] not in text
    assert served.tokens.sample not in text


async def test_what_is_lost_is_counted_and_shown(database_url, tmp_path):
    path = tmp_path / "decisions.jsonl"
    async with serving(database_url, **settings(path, "all"), decision_records_queue=100) as served:
        items = [{"resource": "job", "action": "read", "target": "bakery/shop"}] * 150
        await served.batch(items)
        assert len(await records(served, path)) == 100
        metrics = (await served.http.get("/metrics")).text
    assert "authz_decision_records_dropped_total 50.0" in metrics
    assert "authz_decision_records_total 100.0" in metrics


async def test_a_sample_is_a_share(tmp_path):
    kept: list = []
    recorder = Recorder(kept.extend, allows=True, share=0.25, queue=100_000)
    for _ in range(20_000):
        recorder.note(TOKEN, "gitlab", "job:read", None, allowed=True, reason="granted", stamp=STAMP)
    await recorder.flush()
    assert 4_000 < len(kept) < 6_000


async def test_a_sink_that_fails_holds_up_nobody_and_is_counted():
    def refuse(records):
        raise OSError(28, "no space left")

    recorder = Recorder(refuse, allows=True)
    question = Question([Ask(PermissionRequest("job:read", "acme/web"))], "gitlab")
    for decision in (allow(Reason.GRANTED), deny(Reason.OUTSIDE_REACH)):
        recorder.note_answers(question, [Answer(decision, TOKEN, STAMP)])
    await recorder.flush()
    assert (recorder.written, recorder.dropped) == (0, 2)


async def test_what_was_noted_before_a_stop_is_written(tmp_path):
    path = tmp_path / "decisions.jsonl"
    recorder = Recorder(write_file(path), allows=True)
    task = asyncio.create_task(recorder.run())
    await asyncio.sleep(0)
    for _ in range(2500):
        recorder.note(TOKEN, "gitlab", "job:read", "acme/web", allowed=True, reason="granted", stamp=STAMP)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert len(read(path)) == 2500


def test_lines_on_a_pipe_come_whole(tmp_path):
    path = tmp_path / "pieces"
    with path.open("wb") as file:
        write_lines(file.fileno(), piece=4096)([{"text": "x" * size} for size in (10, 5000, 3000, 3000, 1)])
    assert [len(json.loads(line)["text"]) for line in path.read_bytes().splitlines()] == [10, 5000, 3000, 3000, 1]


def test_settings_that_contradict_each_other_stop_the_start(tmp_path):
    given = {"database_url": "postgresql://u@h/d", "peppers": "k1:" + "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY="}
    for wrong, named in (
        ({"decision_records": "all", "decision_records_sink": "file"}, "AUTHZ_DECISION_RECORDS_FILE"),
        ({"decision_records": "denies", "decision_records_sink": "otlp"}, "AUTHZ_DECISION_RECORDS_ENDPOINT"),
        ({"decision_records": "most"}, "AUTHZ_DECISION_RECORDS"),
        ({"leak_keys_url": "http://keys.example.com"}, "AUTHZ_LEAK_KEYS_URL"),
        ({"leak_keys_file": tmp_path / "absent"}, "AUTHZ_LEAK_KEYS_FILE"),
        ({"audit_key_file": tmp_path / "absent"}, "AUTHZ_AUDIT_KEY_FILE"),
    ):
        with pytest.raises(StartError) as caught:
            load_settings({}, **given, **wrong)
        assert [fault.where for fault in caught.value.faults] == [named]
    with pytest.raises(StartError, match="cannot be written"):
        write_file(tmp_path / "absent" / "file")


def test_otlp_without_the_extra_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http._log_exporter", None)
    with pytest.raises(StartError, match=r"authz-service\[otel\]"):
        write_otlp("http://127.0.0.1:1/v1/logs")


class Collector(http.server.BaseHTTPRequestHandler):
    bodies: ClassVar[list[bytes]] = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.bodies.append(body)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.mark.filterwarnings("default::DeprecationWarning")
async def test_a_collector_gets_them_as_log_records():
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="needs the extra `otel`")
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

    with http.server.HTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            recorder = Recorder(write_otlp(f"http://127.0.0.1:{server.server_port}/v1/logs"), allows=True)
            recorder.note(TOKEN, "gitlab", "job:read", "acme/web", allowed=False, reason="outside_reach", stamp=STAMP)
            await recorder.flush()
        finally:
            server.shutdown()
            thread.join()
    assert (recorder.written, recorder.dropped) == (1, 0)
    [record] = ExportLogsServiceRequest.FromString(Collector.bodies[0]).resource_logs[0].scope_logs[0].log_records
    assert json.loads(record.body.string_value)["reason"] == "outside_reach"
    assert {one.key for one in record.attributes} >= {"authz.token_id", "authz.permission", "authz.decision"}
