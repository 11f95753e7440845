"""`authz require` in a job: by itself, and as the shipped GitLab component and GitHub Action run it."""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.ci_jobs import run_shell, shell_of_the_action, shell_of_the_component
from tests.support.processes import DevService, dev_service, run

BARE = (sys.executable, "-c", "import sys; from authz_service.cli.bare import run; sys.exit(run())")
ENOUGH = '[[needs]]\npermissions = ["job:read", "pipeline:read"]\nat = "bakery/shop/checkout"\n'
TOO_LITTLE = '[[needs]]\npermissions = ["job:read",\n  "job:run"]\nat = "bakery/shop/checkout"\n'
TOO_MUCH = '[[needs]]\npermissions = "job:read"\nat = "bakery/shop/checkout"\n'


@pytest.fixture(scope="module")
def dev() -> Iterator[DevService]:
    folder = Path(tempfile.mkdtemp(prefix="authz-require-"))
    folder.chmod(0o755)  # the database's user must pass through
    with dev_service(folder) as found:
        yield found
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=[None, BARE], ids=["full", "bare"])
def require(request, dev, tmp_path):
    """Runs `require` of either installation as the sample token, in a folder with this authz.toml."""
    given = {} if request.param is None else {"program": request.param}

    def asking(text: str, *arguments: str, **env: str):
        (tmp_path / "authz.toml").write_text(text)
        usual = dev.as_token("sample_token") | {"GITHUB_ACTIONS": "", "GITLAB_CI": ""}
        return run("require", *arguments, env=usual | env, cwd=tmp_path, **given)

    return asking


def test_a_token_that_is_enough_lets_the_job_go_on(require):
    done = require(ENOUGH)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "all 2 things" in done.stderr


def test_a_missing_permission_is_named_with_its_fix(require):
    done = require(TOO_LITTLE)
    assert done.returncode == 1
    assert "permission_missing" in done.stdout
    assert "the token lacks `job:run` on `project:bakery/shop/checkout`; add it to its scopes" in done.stdout
    assert "job:read" not in done.stdout


def test_strict_fails_on_what_is_held_beyond_the_needs(require):
    assert require(TOO_MUCH).returncode == 0
    done = require(TOO_MUCH, "--strict", "--output", "json")
    assert done.returncode == 1
    said = json.loads(done.stdout)
    assert not said["satisfied"]
    assert {"unneeded_permission"} == {one["code"] for one in said["findings"]}
    assert "pipeline:read" in {one["permission"] for one in said["findings"]}


def test_a_hidden_place_reads_as_one_that_does_not_exist(require):
    said = []
    for place in ("bakery/ovens", "bakery/no-such"):
        done = require(TOO_MUCH.replace("bakery/shop/checkout", place), "--output", "json")
        assert done.returncode == 1
        said.append(done.stdout.replace(place, "…"))
    assert said[0] == said[1]


def test_a_file_that_cannot_be_used_is_two_and_a_service_that_is_not_there_is_three(require, tmp_path):
    done = require("[[needs]]\npermissions = ['job']\nplace = 'x'\n")
    assert done.returncode == 2
    assert "/needs/0/permissions/0" in done.stderr
    assert "/needs/0/place" in done.stderr
    assert require(ENOUGH, str(tmp_path / "none.toml")).returncode == 2
    assert require(ENOUGH, AUTHZ_URL="http://127.0.0.1:1").returncode == 3


def test_a_token_that_is_none_fails_and_is_not_repeated(require):
    done = require(ENOUGH, AUTHZ_TOKEN="azt_dev_hush")
    assert done.returncode == 1
    assert "hush" not in done.stdout + done.stderr


def test_the_token_may_come_from_a_file_that_a_variable_names(require, dev, tmp_path):
    file = tmp_path / "token"
    file.write_text(dev.ready["sample_token"] + "\n")
    assert require(ENOUGH, AUTHZ_TOKEN="", AUTHZ_TOKEN_FILE=str(file)).returncode == 0
    assert require(ENOUGH, AUTHZ_TOKEN="", AUTHZ_TOKEN_FILE=str(tmp_path / "none")).returncode == 2


def test_github_gets_an_annotation_at_the_line_that_says_so(require):
    done = require(TOO_LITTLE, GITHUB_ACTIONS="true")
    [line] = [one for one in done.stdout.splitlines() if one.startswith("::")]
    assert line.startswith("::error file=authz.toml,line=3,title=authz%3A permission_missing::`job:run`")


def test_what_a_place_is_called_is_never_a_command_of_the_ci_system(require):
    needs = '[[needs]]\npermissions = "job:read"\nat = "x%0A\\n::set-env name=A::b\\u001b[0Ksection_start:0:x\\r"\n'
    done = require(needs, GITHUB_ACTIONS="true")
    assert done.returncode == 1, done.stderr
    assert [line[:8] for line in done.stdout.splitlines() if line.startswith("::")] == ["::error "]
    assert "\x1b" not in done.stdout
    assert "%250A" in done.stdout


def test_gitlab_gets_a_section_and_a_report(require, tmp_path):
    report = tmp_path / "report.json"
    done = require(TOO_LITTLE, "--code-quality", str(report), GITLAB_CI="true")
    assert re.search(r"\x1b\[0Ksection_start:\d+:authz_require", done.stdout)
    [issue] = json.loads(report.read_text())
    assert issue["location"] == {"path": "authz.toml", "lines": {"begin": 3}}
    assert (issue["check_name"], issue["severity"]) == ("permission_missing", "major")
    assert require(ENOUGH, "--code-quality", str(report)).returncode == 0
    assert json.loads(report.read_text()) == []


# the shipped job and action, by their own shell


@pytest.fixture(params=[shell_of_the_component, shell_of_the_action], ids=["gitlab", "github"])
def job(request, dev, tmp_path):
    """Runs the shipped shell with `authz` on the path, in a folder with this authz.toml."""

    def running(text: str, **inputs: str):
        (tmp_path / "authz.toml").write_text(text)
        named = {name.replace("_", "-"): value for name, value in inputs.items()}
        script, variables = request.param({"url": dev.url} | named)
        token = {"AUTHZ_TOKEN": dev.ready["sample_token"]}
        return run_shell(script, tmp_path, variables | token)

    return running


def test_the_shipped_job_goes_on_when_the_token_is_enough(job):
    done = job(ENOUGH)
    assert done.returncode == 0, done.stderr


def test_the_shipped_job_fails_early_and_names_what_is_missing(job):
    done = job(TOO_LITTLE)
    assert done.returncode == 1
    assert "job:run" in done.stdout


def test_the_shipped_job_is_strict_when_asked(job):
    assert job(TOO_MUCH).returncode == 0
    assert job(TOO_MUCH, strict="true").returncode == 1


def test_an_input_is_never_run(job, tmp_path):
    done = job(ENOUGH, needs_file=f"$(touch {tmp_path}/run); touch {tmp_path}/run")
    assert done.returncode == 2
    assert not (tmp_path / "run").exists()
