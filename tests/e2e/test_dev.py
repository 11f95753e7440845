"""`authz dev` with two workers, as somebody meets it who has just installed it."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from tests.support.processes import DevService, connections_of, dev_service, run, workers_of

PROMISE = 5.0
"""Seconds: S, by which every worker knows of a revoke whatever fails."""


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    found = Path(tempfile.mkdtemp(prefix="authz-dev-"))
    found.chmod(0o755)  # the database's user must pass through
    yield found
    shutil.rmtree(found, ignore_errors=True)


@pytest.fixture(scope="module")
def dev(folder: Path) -> Iterator[DevService]:
    with dev_service(folder, "--workers", "2") as found:
        yield found


def pasted(dev: DevService, *changes: tuple[str, str]) -> list[dict[str, str]]:
    """What the two questions of the welcome answer when they are pasted into a shell, with words changed."""
    dev.running.wait_until(lambda: "authz token list" in dev.running.printed)
    commands = re.findall(r"^  (curl .*?\\\n.*?)$", dev.running.printed, re.MULTILINE | re.DOTALL)
    assert len(commands) == 2
    answers = []
    for command in commands:
        changed = command
        for before, after in changes:
            changed = changed.replace(before, after)
        done = subprocess.run(["bash", "-c", changed], capture_output=True, text=True, check=True)
        answers.append(json.loads(done.stdout))
    return answers


def test_the_ready_file_is_private_and_names_all_that_a_script_needs(dev):
    status = (dev.folder / "ready.json").stat()
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert sorted(dev.ready) == [
        "admin_token",
        "database_url",
        "gateway_token",
        "sample_token",
        "sign_in_url",
        "url",
    ]
    assert dev.ready["database_url"].startswith("postgresql://")


def test_secrets_are_kept_for_nobody_else_to_read(dev):
    for name in ("tokens.json", "peppers", "env"):
        assert stat.S_IMODE((dev.folder / "data" / name).stat().st_mode) == 0o600


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
def test_both_questions_of_the_welcome_allow_when_pasted(dev):
    assert [answer["decision"] for answer in pasted(dev)] == ["allow", "allow"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
def test_with_one_word_changed_they_deny_and_name_what_is_missing(dev):
    gitlab, orders = pasted(dev, ('"read"', '"run"'), ('"create"', '"cancel"'))
    assert (gitlab["decision"], orders["decision"]) == ("deny", "deny")
    assert "`job:run` on `project:bakery/shop/checkout`" in gitlab["message"]
    assert "`order:cancel` on `project:corner-shop`" in orders["message"]


def test_the_gateway_token_may_ask_and_nothing_else(dev):
    with dev.client(dev.ready["gateway_token"]) as http:
        assert dev.check(http).json()["decision"] == "allow"
        me = http.get("/v1/self").json()
        assert [scope["permissions"] for scope in me["scopes"]] == [["decision:evaluate"]]
        assert me["owner"] == "gateway-bot"
        for path in ("/v1/tokens", "/v1/directory/nodes", "/v1/catalogs"):
            assert http.get(path).status_code in (200, 403), path
        assert http.post("/v1/directory/import", content=b"{}").status_code == 403


def exported(folder: Path) -> dict[str, str]:
    """What a shell has that read the file for it."""
    command = f"env -i bash -c '. {folder / 'data' / 'env'}; env -0'"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    pairs = [line.partition("=") for line in done.stdout.split("\0") if line]
    return {name: value for name, _, value in pairs if name.isupper() and name not in ("PWD", "SHLVL", "_")}


@pytest.mark.parametrize(
    "command",
    [
        ("doctor",),
        ("audit", "verify"),
        ("pepper", "status"),
        ("sweep", "--status"),
        ("user", "sign-in-link", "dana"),
        ("token", "list"),
    ],
)
def test_a_shell_that_read_the_env_file_has_all_that_commands_need(dev, command):
    done = run(*command, env=exported(dev.folder))
    assert done.returncode == 0, done.stderr
    if command[0] == "user":
        assert done.stdout.startswith(f"{dev.url}/console/sign-in/link?code=")


def test_the_welcome_signs_in_an_admin_a_developer_and_an_owner(dev):
    links = re.findall(r"^  (http\S+/console/sign-in/link\S+)$", dev.running.printed, re.MULTILINE)
    assert len(set(links)) == 3
    assert links[0] == dev.ready["sign_in_url"]
    for name in ("`admin`", "`dana`", "`priya`"):
        assert name in dev.running.printed


def test_a_revoke_through_one_worker_is_denied_by_the_other(dev):
    port = urlsplit(dev.url).port
    with contextlib.ExitStack() as opened:
        admin = opened.enter_context(dev.client(dev.ready["admin_token"]))
        made = admin.post(
            "/v1/tokens",
            json={
                "name": "soon revoked",
                "owner": "sam",
                "catalog": "gitlab",
                "scopes": [{"reach": {"kind": "selected", "nodes": ["group:bakery"]}, "permissions": ["job:read"]}],
            },
        ).json()
        gateways = [opened.enter_context(dev.client(dev.ready["gateway_token"])) for _ in range(24)]
        for http in gateways:  # each connection stays with the worker that took it
            assert dev.check(http, token=made["secret"]).json()["decision"] == "allow"
        workers = workers_of(dev.running.process.pid)
        assert len(workers) == 2
        assert all(connections_of(worker, port or 0) for worker in workers), "one worker has all connections"

        assert admin.delete(f"/v1/tokens/{made['id']}").status_code in (200, 204)
        acknowledged = time.monotonic()
        allowing = gateways
        while allowing and time.monotonic() < acknowledged + PROMISE:
            allowing = [http for http in allowing if says(dev, http, made["secret"]) == "allow"]
        assert not allowing
        assert {dev.check(http, token=made["secret"]).json()["reason"] for http in gateways} == {"token_revoked"}


def says(dev: DevService, http: httpx.Client, secret: str) -> str:
    return str(dev.check(http, token=secret).json()["decision"])


def test_the_workers_figures_are_one_sum_whoever_answers(dev):
    for _ in range(12):
        with dev.client(dev.ready["gateway_token"]) as http:  # a connection each: either worker may take it
            assert dev.check(http, resource="whale").json()["reason"] == "permission_unknown"
    end = time.monotonic() + 20
    with dev.client() as http:
        while counted(http, "permission_unknown") != 12 and time.monotonic() < end:
            time.sleep(0.1)
        assert counted(http, "permission_unknown") == 12


def counted(http: httpx.Client, reason: str) -> float:
    lines = http.get("/metrics").text.splitlines()
    label = f'reason="{reason}"'
    return sum(float(line.split()[-1]) for line in lines if line.startswith("authz_decisions_total") and label in line)


def test_a_second_service_on_the_same_data_is_refused(dev):
    done = run("dev", "--port", "0", "--data", str(dev.folder / "data"))
    assert done.returncode == 1
    assert f"process {dev.running.process.pid}" in done.stderr
    assert "--data" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken_is_said_before_anything_starts(dev, tmp_path):
    done = run("dev", "--port", str(urlsplit(dev.url).port), "--data", str(tmp_path / "other"))
    assert done.returncode == 1
    assert "something else listens" in done.stderr
    assert not (tmp_path / "other" / "database").exists()


def test_a_named_database_that_cannot_be_reached_is_never_replaced_by_another(tmp_path):
    url = "postgresql://nobody:hush@127.0.0.1:1/none"
    for option, env in ((("--database-url", url), {}), ((), {"DATABASE_URL": url})):
        done = run("dev", "--port", "0", "--data", str(tmp_path / "data"), *option, env=env)
        assert done.returncode == 1
        assert "cannot be reached" in done.stderr
        assert "hush" not in done.stderr
    assert not (tmp_path / "data" / "database").exists()


def test_production_does_not_try_things(tmp_path):
    done = run("dev", "--data", str(tmp_path), env={"AUTHZ_ENVIRONMENT": "production"})
    assert done.returncode == 1
    assert "authz serve" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_in_order_and_starts_again_with_the_same_tokens(folder, number):
    place = folder / number.name
    place.mkdir()
    place.chmod(0o755)
    with dev_service(place, "--workers", "2") as first:
        workers = workers_of(first.running.process.pid)
        assert len(workers) == 2
        assert first.running.stop(number) == 0
        assert not [worker for worker in workers if Path(f"/proc/{worker}").exists()]
        assert "Traceback" not in first.running.printed
    # From a shell that has read the first one's variables: its database is not another's.
    with dev_service(place, env=exported(place)) as second, second.client(second.ready["gateway_token"]) as http:
        names = ("admin_token", "gateway_token", "sample_token", "database_url")
        assert [second.ready[name] for name in names] == [first.ready[name] for name in names]
        assert second.check(http).json()["decision"] == "allow"
        assert http.get("/livez").status_code == 200
        listed = httpx.get(
            f"{second.url}/v1/tokens",
            headers={"Authorization": f"Bearer {second.ready['admin_token']}"},
            trust_env=False,
        ).json()
        assert len(listed["items"]) == 4  # nothing was made twice


def test_a_second_folder_from_the_same_shell_has_a_database_of_its_own(dev, folder):
    place = folder / "beside"
    place.mkdir()
    place.chmod(0o755)
    with dev_service(place, env=exported(dev.folder)) as second, second.client(second.ready["gateway_token"]) as http:
        assert second.ready["database_url"] != dev.ready["database_url"]
        assert second.ready["admin_token"] != dev.ready["admin_token"]
        assert second.check(http).json()["decision"] == "allow"
        assert (place / "data" / "peppers").exists()


def test_the_readme_shows_what_is_answered(dev):
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text("utf-8")
    shown = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", readme, re.DOTALL)]
    questions = [
        ("sample", "job", "read", "bakery/shop/checkout"),
        ("sample", "job", "run", "bakery/shop/checkout"),
        ("orders", "order", "create", "project:corner-shop"),
        ("orders", "order", "cancel", "project:corner-shop"),
    ]
    secrets = json.loads((dev.folder / "data" / "tokens.json").read_text())
    catalogs = {"sample": "gitlab", "orders": "orders"}
    with dev.client(dev.ready["gateway_token"]) as http:
        for (name, resource, action, target), answer in zip(questions, shown, strict=True):
            given = {"resource": resource, "action": action, "target": target}
            found = dev.check(http, token=secrets[name], catalog=catalogs[name], **given).json()
            changing = ("token_id", "revision")
            assert list(found) == list(answer)
            assert [found[key] for key in found if key not in changing] == [
                answer[key] for key in answer if key not in changing
            ]
            assert all(found[key].startswith(answer[key].rstrip("…")) for key in changing)


def test_a_named_database_is_used_and_one_of_somebody_else_s_is_left_alone(empty_database_url, tmp_path):
    option = ("--database-url", empty_database_url)
    with dev_service(tmp_path, *option) as named, named.client(named.ready["gateway_token"]) as http:
        assert named.ready["database_url"] == empty_database_url
        assert named.check(http).json()["decision"] == "allow"
        admin = named.as_token("admin_token")
        assert not (tmp_path / "data" / "database").exists()
        file = tmp_path / "other.ndjson"
        file.write_text('{"type": "delete", "what": "group", "node": "bakery"}\n')
        assert run("directory", "import", str(file), env=admin).returncode == 0
    done = run("dev", "--port", "0", "--data", str(tmp_path / "fresh"), "--database-url", empty_database_url)
    assert done.returncode == 1
    assert "holds an organisation already" in done.stderr


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b" " * (65 * 1024), 413),
        (b"[" * 1100 + b"]" * 1100, 400),
        (b'{"resource": "job", "resource": "pipeline"}', 400),
        (b'{"token": 1, "resource": [], "action": {}, "target": true}', 400),
        (b"\x00\xff", 400),
    ],
    ids=["65 KiB", "1,100 levels", "a field twice", "wrong types", "no text"],
)
def test_an_odd_body_is_refused_and_the_next_one_is_answered(dev, body, status):
    with dev.client(dev.ready["gateway_token"]) as http:
        for path in ("/check", "/check/batch"):
            answer = http.post(path, content=body if status != 413 or path == "/check" else b" " * (5 << 20))
            assert answer.status_code == status
            assert answer.headers["content-type"] == "application/problem+json"
        assert dev.check(http).json()["decision"] == "allow"


def test_a_secret_in_a_url_is_refused_and_reaches_no_log(dev):
    with dev.client(dev.ready["gateway_token"]) as http:
        answer = http.post(f"/check?token={dev.ready['sample_token']}")
        assert (answer.status_code, answer.json()["code"]) == (400, "secret_in_url")
    after_welcome = dev.running.printed.partition("authz token list")[2]
    assert dev.ready["sample_token"] not in after_welcome


def test_a_token_of_one_api_is_worth_nothing_at_another_s_gateway(dev):
    with dev.client(dev.ready["gateway_token"]) as http:
        answer = dev.check(http, catalog="orders", resource="order", action="read", target="project:corner-shop").json()
        assert (answer["decision"], answer["reason"]) == ("deny", "catalog_mismatch")
