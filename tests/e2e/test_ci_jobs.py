"""The three lines of YAML in docs/ci.md, run by the shipped pieces' own shell against a running service."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support.ci_jobs import run_shell, shell_of_the_action, shell_of_the_component, yaml_of_the_docs
from tests.support.issuer import Issuer
from tests.support.processes import DevService, dev_service, run
from tests.support.receiver import Receiver
from tests.support.upstream import TOKEN, Answer, Asked, running

from authz_service.cli import main

NEEDS = 'catalog = "gitlab"\n[[needs]]\npermissions = ["job:read", "job:run"]\nat = "${CI_PROJECT_PATH}"\n'
PROJECT = "bakery/shop/checkout"


@pytest.fixture(scope="module")
def dev() -> Iterator[DevService]:
    folder = Path(tempfile.mkdtemp(prefix="authz-jobs-"))
    folder.chmod(0o755)  # the database's user must pass through
    with dev_service(folder) as found:
        yield found
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    """Signs jobs' tokens; its keys are given with the rules, so that it need not answer."""
    return Issuer(Receiver(port=443))


@dataclass
class Job:
    """What a person wrote, and the shell that comes of it."""

    lines: int
    script: str
    variables: Mapping[str, str]


def gitlab_job(dev: DevService, word: str) -> Job:
    text, read = yaml_of_the_docs("ci.md", word)
    [component] = read["include"]
    name = component["component"].rpartition("/")[2].partition("@")[0]
    inputs = {
        key: str(value).lower() if isinstance(value, bool) else value for key, value in component["inputs"].items()
    }
    script, variables = shell_of_the_component(inputs | {"url": dev.url}, name)
    return Job(len(text.splitlines()), script, variables)


def github_job(dev: DevService, *, secret: bool) -> Job:
    text, read = yaml_of_the_docs("ci.md", "authz-require@")
    given = {key: str(value) for key, value in read[0]["with"].items()} | {"url": dev.url}
    if not secret:
        del given["token"]
    script, variables = shell_of_the_action(given)
    return Job(len(text.splitlines()), script, variables)


def in_folder(job: Job, folder: Path, **variables: str) -> Any:
    (folder / "authz.toml").write_text(NEEDS)
    return run_shell(job.script, folder, dict(job.variables) | {"CI_PROJECT_PATH": PROJECT} | variables)


@pytest.mark.parametrize("system", ["gitlab", "github"])
def test_a_job_of_a_few_lines_fails_with_the_missing_permission_named_and_passes_after_one_edit(dev, tmp_path, system):
    job = gitlab_job(dev, "/require@") if system == "gitlab" else github_job(dev, secret=True)
    assert job.lines == {"gitlab": 3, "github": 4}[system]
    admin = dev.as_token("admin_token")
    made = run(
        *("token", "create", "--name", system, "--catalog", "gitlab", "--owner", "deploy-bot", "--expires", "1d"),
        *("--permission", "job:read", "--node", f"project:{PROJECT}"),
        env=admin,
    )
    secret = made.stdout.strip()
    refused = in_folder(job, tmp_path, AUTHZ_TOKEN=secret)
    assert refused.returncode == 1, refused.stderr
    assert "the token lacks `job:run` on `project:bakery/shop/checkout`; add it to its scopes" in refused.stdout
    assert "job:read" not in refused.stdout
    # The one edit: what was named is added to the token.
    token_id = next(word for word in made.stderr.split() if word.startswith("tok_"))
    scopes = [{"reach": {"kind": "selected", "nodes": [f"project:{PROJECT}"]}, "permissions": ["job:read", "job:run"]}]
    with dev.client(dev.ready["admin_token"]) as http:
        path = f"/v1/tokens/{token_id}"
        tag = http.get(path).headers["etag"]
        edited = http.patch(path, json={"scopes": scopes}, headers={"If-Match": tag})
    assert edited.status_code == 200, edited.text
    passed = in_folder(job, tmp_path, AUTHZ_TOKEN=secret)
    assert passed.returncode == 0, passed.stdout + passed.stderr


@pytest.fixture
def exchanged(dev, issuer, tmp_path) -> Iterator[Callable[[Job, str], Any]]:
    """Runs a job with a job's own token for this audience, as its system hands it over."""

    def running_as(job: Job, system: str) -> Any:
        claims = {"project_path": PROJECT, "ref": "release-7", "aud": dev.url, "sub": f"project_path:{PROJECT}"}
        own = issuer.sign(**claims)
        if system == "gitlab":
            return in_folder(job, tmp_path, AUTHZ_JOB_TOKEN=own, TMPDIR=str(tmp_path))
        with running(Tokens({dev.url: own})) as github:
            asking = {
                "ACTIONS_ID_TOKEN_REQUEST_URL": f"{github.url}/token?x=1",
                "ACTIONS_ID_TOKEN_REQUEST_TOKEN": TOKEN,
            }
            return in_folder(job, tmp_path, TMPDIR=str(tmp_path), **asking)

    yield running_as
    left = [one for one in tmp_path.iterdir() if one.is_dir() and one.name != "bin"]
    assert left == [], "the token's folder is gone with the job"


@dataclass
class Tokens:
    """Gives a job its token, by audience."""

    by_audience: Mapping[str, str]

    def answer(self, asked: Asked, origin: str) -> Answer:
        return Answer({"value": self.by_audience[asked.query["audience"]]})


@pytest.mark.parametrize("system", ["gitlab", "github"])
def test_the_same_job_without_a_stored_secret(dev, issuer, exchanged, tmp_path, system):
    job = gitlab_job(dev, "/require-without-secret@") if system == "gitlab" else github_job(dev, secret=False)
    if system == "gitlab":
        assert job.lines == 3
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"keys": [issuer.public()]}))
    admin = dev.as_token("admin_token")
    nothing = exchanged(job, system)
    assert (nothing.returncode, "this token is not taken" in nothing.stderr) == (1, True), nothing.stderr
    made = run(
        *("trust-rule", "create", "--group", "group:bakery/shop", "--name", system, "--issuer", issuer.url),
        *("--audience", dev.url, "--claim", f"project_path={PROJECT}", "--claim-like", "ref=release-*"),
        *("--owner", "deploy-bot", "--catalog", "gitlab", "--permission", "job:read"),
        *("--node", f"project:{PROJECT}", "--keys-file", str(keys), "--output", "json"),
        env=admin,
    )
    assert made.returncode == 0, made.stderr
    rule = json.loads(made.stdout)["id"]
    refused = exchanged(job, system)
    assert refused.returncode == 1, refused.stderr
    assert "the token lacks `job:run` on `project:bakery/shop/checkout`; add it to its scopes" in refused.stdout
    # The one edit: what was named is added to the rule.
    edit = run("trust-rule", "edit", rule, "--permission", "job:read", "--permission", "job:run", env=admin)
    assert edit.returncode == 0, edit.stderr
    passed = exchanged(job, system)
    assert passed.returncode == 0, passed.stdout + passed.stderr
    assert run("trust-rule", "delete", rule, env=admin).returncode == 0


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def rules(dev, monkeypatch, capsys) -> Callable[..., Done]:
    """`authz trust-rule …` in this process."""

    def running_as(*arguments: str, token: str = "admin_token") -> Done:
        for name, value in dev.as_token(token).items():
            monkeypatch.setenv(name, value)
        capsys.readouterr()
        status = main(("trust-rule", *arguments))
        said = capsys.readouterr()
        return Done(status, said.out, said.err)

    return running_as


def test_trust_rules_are_kept_from_the_command_line(rules, tmp_path):
    whole = {
        "node": "group:bakery/shop",
        "name": "nightly",
        "issuer": "https://ci.example.com",
        "audience": "https://authz.example.com",
        "claims": {"repository": "bakery/shop", "ref": {"like": "refs/heads/*"}},
        "owner": "deploy-bot",
        "catalog": "gitlab",
        "scopes": [{"reach": {"kind": "selected", "nodes": ["group:bakery/shop"]}, "permissions": ["job:read"]}],
    }
    file = tmp_path / "rule.json"
    file.write_text(json.dumps(whole))
    made = rules("create", "--file", str(file), "--output", "json")
    assert made.returncode == 0, made.stderr
    rule = json.loads(made.stdout)["id"]
    listed = rules("list", "group:bakery/shop")
    assert rule in listed.stdout
    assert "refs/heads/*" in listed.stdout
    assert rules("list", "group:bakery", "--output", "json").stdout.strip() == "[]"
    for more in (("group:bakery", "--below"), ()):
        found = json.loads(rules("list", *more, "--output", "json").stdout)
        assert [(one["id"], one["node"]) for one in found if one["id"] == rule] == [(rule, "group:bakery/shop")]
    assert "deploy-bot" in rules("show", rule).stdout
    changed = rules("edit", rule, "--lifetime", "60", "--claim", "repository=bakery/web")
    assert changed.returncode == 0, changed.stderr
    shown = json.loads(rules("show", rule, "--output", "json").stdout)
    assert (shown["lifetime_seconds"], shown["claims"]) == (60, {"repository": "bakery/web"})
    assert shown["scopes"][0]["permissions"] == ["job:read"]
    wrong = [
        ("create", "--group", "group:bakery/shop"),
        ("create", "--group", "group:bakery/shop", "--permission", "job:read"),
        ("edit", rule),
        ("edit", rule, "--claim", "ref"),
        ("edit", rule, "--claim", "ref=a", "--claim-like", "ref=b*"),
        ("edit", rule, "--file", str(tmp_path / "none.json")),
        ("edit", rule, "--lifetime", "7"),
        ("show", "tru_" + "0" * 20),
        ("list", "project:bakery/shop/checkout"),
    ]
    for command in wrong:
        done = rules(*command)
        assert done.returncode == 2, (command, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
    assert rules("list", token="sample_token").returncode == 1
    assert rules("delete", rule, token="sample_token").returncode == 1
    assert rules("delete", rule).returncode == 0
    assert rules("delete", rule).returncode == 2
