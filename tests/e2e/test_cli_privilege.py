"""`authz explain` and `authz suggest` against a running service."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.processes import DevService, dev_service, run


@pytest.fixture(scope="module")
def dev() -> Iterator[DevService]:
    folder = Path(tempfile.mkdtemp(prefix="authz-cli-"))
    folder.chmod(0o755)  # the database's user must pass through
    with dev_service(folder) as found:
        yield found
    shutil.rmtree(folder, ignore_errors=True)


def test_explain_names_the_fix_for_the_own_token_and_as_a_gateway(dev: DevService, tmp_path: Path):
    own = run("explain", "job:run", "bakery/shop/checkout", env=dev.as_token("sample_token"))
    assert (own.returncode, own.stdout.strip()) == (1, "deny")
    assert "fix: " in own.stderr
    assert "`job:run`" in own.stderr
    secret = tmp_path / "secret"
    secret.write_text(dev.ready["sample_token"])
    gateway = dev.as_token("gateway_token")
    words = ("--secret-file", str(secret), "--catalog", "gitlab")
    traced = run("explain", "job:run", "bakery/shop/checkout", *words, env=gateway)
    assert traced.returncode == 1
    assert "permission_missing" in traced.stdout + traced.stderr
    assert "fix: " in traced.stderr
    allowed = run("explain", "job:read", "bakery/shop/checkout", *words, "--output", "json", env=gateway)
    assert allowed.returncode == 0
    assert json.loads(allowed.stdout)["explanation"][0]["reason"] == "granted"
    request = run("explain", "GET", "/api/v4/projects/bakery%2Fovens/jobs", *words, env=gateway)
    assert request.returncode == 1


def test_what_suggest_prints_makes_a_token_that_makes_the_calls(dev: DevService, tmp_path: Path):
    admin = dev.as_token("admin_token")
    calls = tmp_path / "calls.txt"
    calls.write_text("# what the nightly job does\nGET /api/v4/projects/bakery%2Fovens/jobs\n\njob:run bakery/ovens\n")
    done = run("suggest", str(calls), "--catalog", "gitlab", "--owner", "sam", "--name", "nightly", env=admin)
    assert done.returncode == 0, done.stderr
    token = json.loads(done.stdout)
    assert token["name"] == "nightly"
    assert [sorted(one["permissions"]) for one in token["scopes"]] == [["job:read", "job:run"]]
    file = tmp_path / "token.json"
    file.write_text(done.stdout)
    made = run("token", "create", "--file", str(file), env=admin)
    assert made.returncode == 0, made.stderr
    env = admin | {"AUTHZ_TOKEN": made.stdout.strip()}
    assert run("can-i", "job:run", "bakery/ovens", env=env).returncode == 0
    assert run("can-i", "job:run", "bakery/shop/checkout", env=env).returncode == 1


@pytest.mark.parametrize("written", ["", "# nothing\n", "job:run\nfour words are none\n", "GET\n"])
def test_a_file_without_calls_is_not_understood(dev: DevService, tmp_path: Path, written: str):
    calls = tmp_path / "calls.txt"
    calls.write_text(written)
    done = run("suggest", str(calls), "--catalog", "gitlab", env=dev.as_token("admin_token"))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_calls_that_no_token_of_the_owner_may_make_are_named(dev: DevService, tmp_path: Path):
    calls = tmp_path / "calls.txt"
    calls.write_text("job:run no/such\njob:read bakery/ovens\n")
    done = run("suggest", str(calls), "--catalog", "gitlab", "--owner", "sam", env=dev.as_token("admin_token"))
    assert done.returncode == 1
    assert "still denied: job:run no/such" in done.stderr
