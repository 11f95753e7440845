"""The log of a running service, line by line: JSON whoever wrote it, with request ids, and without a secret."""

from __future__ import annotations

import json
import re
import secrets
import socket
from pathlib import Path

import httpx
from tests.support.processes import Running, run, started
from tests.support.serving import PEPPER


def test_every_line_is_json_whoever_wrote_it(database_url, tmp_path):
    env = {
        "AUTHZ_DATABASE_URL": database_url,
        "AUTHZ_PEPPERS": f"t1:{PEPPER}",
        "AUTHZ_PORT": "0",
        "AUTHZ_DRAIN": "0",
        "AUTHZ_WORKERS": "2",
        "AUTHZ_LOG_LEVEL": "debug",
        "PYTHONWARNINGS": "always",
    }
    secret = run("bootstrap", env=env).stdout.strip()
    given = f"trace-{secrets.token_hex(8)}"
    with started("serve", env=env, output=tmp_path / "log.jsonl") as running:
        running.wait_until(lambda: '"answering"' in running.printed)
        [url] = re.findall(r'"url": "([^"]+)"', running.printed)
        with httpx.Client(base_url=url, trust_env=False, timeout=60) as http:
            headers = {"Authorization": f"Bearer {secret}"}
            answer = http.get("/v1/tokens", headers=headers | {"X-Request-Id": given})
            assert (answer.status_code, answer.headers["x-request-id"]) == (200, given)
            refused = http.get(f"/v1/tokens/{secret}", headers=headers)
            assert refused.status_code == 400
            made_up = http.get("/v1/self", headers=headers | {"X-Request-Id": "two words\tand a tab"})
            assert re.fullmatch(r"[0-9a-f]{32}", made_up.headers["x-request-id"])
            http.post("/check", json={"token": secret}, headers=headers)
        _speak_nonsense(url, secret)
        running.wait_until(lambda: "Invalid HTTP request" in running.printed)
        _wait_for_request(running, given)
        assert running.stop() == 0
    printed = (tmp_path / "log.jsonl").read_text()
    lines = [json.loads(line) for line in printed.splitlines()]
    for line in lines:
        assert {"event", "level", "timestamp"} <= set(line), line
    assert "uvicorn.error" in {line.get("logger") for line in lines}
    [request] = [line for line in lines if line.get("request_id") == given]
    assert request["event"] == "request"
    assert (request["method"], request["path"], request["status"]) == ("GET", "/v1/tokens", 200)
    assert request["ms"] >= 0
    paths = [line["path"] for line in lines if line["event"] == "request"]
    assert "/check" not in paths, "decisions are counted"
    assert any(path.startswith("/v1/tokens/…") for path in paths), "the secret in it was taken out"
    assert lines[-1]["event"] == "stopped"
    for word in (secret, secret[10:40], PEPPER):
        assert word not in printed


def _speak_nonsense(url: str, secret: str) -> None:
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(f"{secret} nonsense\r\n\r\n".encode())
        connection.recv(4096)


def _wait_for_request(running: Running, request_id: str) -> None:
    running.wait_until(lambda: f'"request_id": "{request_id}"' in Path(running.output).read_text())
