"""`authz serve` with several workers on a database of its own: the start, the end, and what dies between."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from tests.support.processes import Running, run, started, workers_of
from tests.support.serving import PEPPER


@pytest.fixture
def env(database_url: str) -> dict[str, str]:
    return {"AUTHZ_DATABASE_URL": database_url, "AUTHZ_PEPPERS": f"t1:{PEPPER}", "AUTHZ_PORT": "0", "AUTHZ_DRAIN": "0"}


@contextmanager
def serve(tmp_path: Path, env: dict[str, str], **settings: str) -> Iterator[tuple[Running, str]]:
    """A running service, and where it answers."""
    with started("serve", env=env | settings, output=tmp_path / "log.jsonl") as running:
        running.wait_until(lambda: '"answering"' in running.printed)
        [url] = re.findall(r'"url": "([^"]+)"', running.printed)
        yield running, url


def test_the_first_admin_is_made_once_and_again_only_by_breaking_glass(env):
    first = run("bootstrap", "--username", "ada", env=env)
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("azt_t1_")
    again = run("bootstrap", "--username", "eve", env=env)
    assert again.returncode == 1
    assert "--break-glass" in again.stderr
    assert again.stdout == ""
    broken = run("bootstrap", "--username", "ada", "--break-glass", "--output", "json", env=env)
    assert json.loads(broken.stdout)["owner"] == "ada"


def test_the_first_admin_can_manage(env, tmp_path):
    secret = run("bootstrap", env=env).stdout.strip()
    with serve(tmp_path, env) as (_, url):
        done = run("token", "list", env={"AUTHZ_URL": url, "AUTHZ_TOKEN": secret})
        assert "bootstrap" in done.stdout, done.stderr
        assert secret not in (tmp_path / "log.jsonl").read_text()


def test_everything_that_is_missing_is_said_at_once():
    done = run("serve", env={"AUTHZ_WORKERS": "none", "AUTHZ_MAX_STALENESS": "1"})
    assert done.returncode == 1
    for name in ("AUTHZ_DATABASE_URL", "AUTHZ_PEPPERS", "AUTHZ_WORKERS", "AUTHZ_MAX_STALENESS"):
        assert f"  {name}: " in done.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_database_without_tables_is_said_once_with_what_to_run(empty_database_url, env, workers):
    empty = env | {"AUTHZ_DATABASE_URL": empty_database_url, "AUTHZ_WORKERS": workers}
    done = run("serve", env=empty)
    assert done.returncode == 1
    assert done.stderr.count("authz migrate") == 1
    assert "Traceback" not in done.stderr
    assert run("migrate", env=empty).returncode == 0
    assert run("migrate", env=empty).returncode == 0


def test_a_worker_that_dies_is_replaced(env, tmp_path):
    with serve(tmp_path, env, AUTHZ_WORKERS="2") as (running, url):
        before = workers_of(running.process.pid)
        assert len(before) == 2
        os.kill(before[0], signal.SIGKILL)

        def replaced() -> bool:
            now = workers_of(running.process.pid)
            return len(now) == 2 and before[0] not in now

        running.wait_until(replaced)
        for _ in range(8):  # a call to the new one's queue waits for it, and is not lost
            assert httpx.get(f"{url}/readyz", timeout=30, trust_env=False).status_code == 200
        assert '"worker died"' in running.printed


def test_workers_do_not_outlive_a_supervisor_that_was_killed(env, tmp_path):
    figures = tmp_path / "figures"  # who is killed cleans up nothing
    with serve(tmp_path, env, AUTHZ_WORKERS="2", AUTHZ_METRICS_DIR=str(figures)) as (running, _):
        workers = workers_of(running.process.pid)
        running.process.kill()
        running.process.wait()
        end = time.monotonic() + 30
        while any(Path(f"/proc/{worker}").exists() for worker in workers) and time.monotonic() < end:
            time.sleep(0.05)
        assert not [worker for worker in workers if Path(f"/proc/{worker}").exists()]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_request_under_way_is_answered_before_the_end(env, tmp_path, workers):
    secret = run("bootstrap", env=env).stdout.strip()
    with serve(tmp_path, env, AUTHZ_WORKERS=workers) as (running, url):
        host, _, port = url.removeprefix("http://").partition(":")
        stream = _slow_import(host, int(port), secret)
        next(stream)  # the head and half of the body are sent
        running.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        answer = stream.send(None)
        assert answer.startswith(b"HTTP/1.1 200"), answer
        assert running.process.wait(30) == 0


def _slow_import(host: str, port: int, secret: str) -> Iterator[bytes]:
    import socket

    body = b'{"type": "group", "path": "slow", "external_id": "1"}\n'
    head = (
        f"POST /v1/directory/import HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {secret}\r\n"
        f"Content-Type: application/x-ndjson\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((host, port), timeout=30) as connection:
        connection.sendall(head.encode() + body[:10])
        time.sleep(0.3)
        yield b""
        connection.sendall(body[10:])
        yield connection.recv(65536)


def test_it_listens_at_a_unix_socket_and_removes_it(env, tmp_path):
    uds = tmp_path / "authz.sock"
    settings = {name: value for name, value in env.items() if name != "AUTHZ_PORT"} | {"AUTHZ_UDS": str(uds)}
    with started("serve", env=settings, output=tmp_path / "log.jsonl") as running:
        running.wait_until(lambda: '"answering"' in running.printed)
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(uds))) as http:
            assert http.get("http://authz.test/readyz").status_code == 200
        assert running.stop() == 0
    assert not uds.exists()


def test_the_connection_budget_is_said_and_unknown_settings_are_named(env, tmp_path):
    with serve(tmp_path, env, AUTHZ_WORKERS="2", AUTHZ_MAX_STALENES="9") as (running, _):
        lines = [json.loads(line) for line in running.printed.splitlines()]
    [budget] = [line for line in lines if line["event"] == "connections"]
    assert (budget["workers"], budget["each"], budget["together"]) == (2, 12, 24)
    assert [line["name"] for line in lines if line["event"] == "this setting is not known"] == ["AUTHZ_MAX_STALENES"]
