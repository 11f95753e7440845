"""The command line against a running service: what it prints, and the exit statuses that scripts rely on."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.processes import DevService, dev_service, run

BARE = (sys.executable, "-c", "import sys; from authz_service.cli.bare import run; sys.exit(run())")
"""The front of the base install, which has no typer."""


@pytest.fixture(scope="module")
def dev() -> Iterator[DevService]:
    folder = Path(tempfile.mkdtemp(prefix="authz-cli-"))
    folder.chmod(0o755)  # the database's user must pass through
    with dev_service(folder) as found:
        yield found
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=[None, BARE], ids=["full", "bare"])
def ask(request, dev):
    """Runs a command of either installation as the sample token."""
    given = {} if request.param is None else {"program": request.param}

    def asking(*arguments: str, env: dict[str, str] | None = None, **more: str):
        return run(*arguments, env=dev.as_token("sample_token") | (env or {}), **given, **more)

    return asking


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("job:read", "bakery/shop/checkout"), 0, "allow"),
        (("read", "job", "bakery/shop/checkout"), 0, "allow"),
        (("job:run", "bakery/shop/checkout"), 1, "deny"),
        (("run", "job", "bakery/shop/checkout"), 1, "deny"),
        (("job:read", "bakery/ovens"), 1, "deny"),
        ((), 2, ""),
        (("job:read:more", "bakery"), 2, ""),
        (("a", "b", "c", "d"), 2, ""),
    ],
)
def test_can_i_says_it_by_its_exit_status(ask, words, status, said):
    done = ask("can-i", *words)
    assert (done.returncode, done.stdout.strip()) == (status, said), done.stderr
    assert "Traceback" not in done.stderr


def test_can_i_says_on_stderr_why_not(ask):
    done = ask("can-i", "job:run", "bakery/shop/checkout")
    assert "permission_missing: the token lacks `job:run` on `project:bakery/shop/checkout`" in done.stderr


def test_a_slip_of_the_pen_is_told_what_was_meant_and_what_the_token_is_for(ask):
    for words in (("job:rnu", "bakery/shop/checkout"), ("job", "run", "bakery/shop/checkout")):
        done = ask("can-i", *words)
        assert done.returncode == 1
        assert "did you mean `job:run`" in done.stderr
        assert "the token is for `gitlab@" in done.stderr
    done = ask("can-i", "job:read", "bakery/shop/checkout", "--catalog", "gitlb")
    assert (done.returncode, "the catalog `gitlb`" in done.stderr) == (1, True)


def test_a_request_and_a_public_id_are_told_what_is_taken_instead(ask):
    done = ask("can-i", "GET", "/api/v4/projects")
    assert (done.returncode, "can-i job:read acme/web" in done.stderr) == (2, True)
    done = ask("whoami", env={"AUTHZ_TOKEN": f"tok_{'a' * 22}"})
    assert (done.returncode, "this is a token's public id; send its secret" in done.stderr) == (1, True)


def test_a_service_that_does_not_answer_is_three(ask):
    for url in ("http://127.0.0.1:1", "http://nowhere.invalid"):
        done = ask("can-i", "job:read", "x", env={"AUTHZ_URL": url})
        assert done.returncode == 3
        assert "cannot be reached" in done.stderr


def test_what_is_not_set_is_named(ask):
    for name in ("AUTHZ_URL", "AUTHZ_TOKEN"):
        done = ask("whoami", env={name: ""})
        assert done.returncode == 2
        assert name in done.stderr


def test_a_token_that_is_none_is_a_deny_and_is_not_repeated(ask):
    done = ask("can-i", "job:read", "x", env={"AUTHZ_TOKEN": "azt_dev_hush"})
    assert done.returncode == 1
    assert "hush" not in done.stdout + done.stderr


def test_can_i_list_shows_what_the_token_holds(ask):
    done = ask("can-i", "--list")
    assert done.returncode == 0
    assert "job:read, pipeline:read" in done.stdout
    assert "group:bakery/shop" in done.stdout


def test_whoami_shows_the_token_without_its_secret(ask, dev):
    done = ask("whoami")
    assert done.returncode == 0
    assert "dana" in done.stdout
    assert dev.ready["sample_token"] not in done.stdout
    shown = json.loads(ask("whoami", "--output", "json").stdout)
    assert shown["owner"] == "dana"


def test_a_token_s_table_is_for_people(ask):
    said = ask("whoami").stdout
    assert "expires at" in said
    assert "never" in said
    assert "etag" not in said
    assert "etag" in ask("whoami", "--output", "json").stdout


def test_a_list_takes_no_question_and_a_token_that_is_none_is_named_as_such(ask):
    done = ask("can-i", "--list", "job:read", "bakery/shop/checkout")
    assert (done.returncode, done.stdout, "leave `--list` out" in done.stderr) == (2, "", True)
    assert "the token is not accepted" in ask("whoami", env={"AUTHZ_TOKEN": "azt_dev_hush"}).stderr


def test_an_answer_as_json_is_one_document(ask):
    done = ask("can-i", "job:run", "bakery/shop/checkout", "--output", "json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["reason"] == "permission_missing"


def test_a_gateway_asks_about_a_secret_from_standard_input(ask, dev):
    for action, status in (("read", 0), ("run", 1)):
        done = ask(
            "check",
            "--catalog",
            "gitlab",
            f"job:{action}",
            "bakery/shop/checkout",
            env=dev.as_token("gateway_token"),
            given=dev.ready["sample_token"] + "\n",
        )
        assert done.returncode == status, done.stderr


def test_a_token_comes_from_a_file_too(ask, dev, tmp_path):
    file = tmp_path / "token"
    file.write_text(dev.ready["sample_token"] + "\n")
    done = ask("can-i", "job:read", "bakery/shop/checkout", "--token-file", str(file), env={"AUTHZ_TOKEN": ""})
    assert done.returncode == 0
    assert ask("whoami", "--token-file", str(tmp_path / "none"), env={"AUTHZ_TOKEN": ""}).returncode == 2


def test_the_base_install_says_where_the_other_commands_are():
    done = run("serve", program=BARE)
    assert done.returncode == 2
    assert "authz-service[server]" in done.stderr


def test_a_token_is_made_shown_listed_and_revoked(dev):
    admin = dev.as_token("admin_token")
    made = run(
        *("token", "create", "--name", "nightly", "--catalog", "gitlab", "--owner", "sam", "--expires", "30d"),
        *("--permission", "job:read", "--permission", "job:run", "--node", "project:bakery/ovens"),
        env=admin,
    )
    assert made.returncode == 0, made.stderr
    secret = made.stdout.strip()
    token_id = next(word for word in made.stderr.split() if word.startswith("tok_"))
    own = admin | {"AUTHZ_TOKEN": secret}
    assert run("can-i", "job:run", "bakery/ovens", env=own).returncode == 0
    assert "nightly" in run("token", "show", token_id, env=admin).stdout
    listed = run("token", "list", "--output", "json", env=admin)
    assert token_id in {one["id"] for one in json.loads(listed.stdout)}
    assert secret not in listed.stdout
    assert run("token", "revoke", token_id, "--reason", "a test", env=admin).returncode == 0
    assert "revoked on request: a test" in run("token", "show", token_id, env=admin).stdout
    assert run("whoami", env=own).returncode == 1


def test_all_faults_of_a_request_are_listed(dev):
    done = run(
        *("token", "create", "--name", "x", "--catalog", "gitlab", "--permission", "no:such", "--node", "group:no"),
        env=dev.as_token("admin_token"),
    )
    assert done.returncode == 2
    assert "/scopes/0/permissions/0" in done.stderr
    assert "/scopes/0/reach/nodes/0" in done.stderr


def test_a_directory_is_imported_and_a_faulty_one_is_not(dev, tmp_path):
    file = tmp_path / "more.ndjson"
    file.write_text('{"type": "group", "path": "depot", "external_id": "900", "visibility": "private"}\n')
    done = run("directory", "import", str(file), env=dev.as_token("admin_token"))
    assert done.returncode == 0, done.stderr
    assert "groups created  1" in done.stdout
    file.write_text('{"type": "group"}\n{"type": "whale"}\n')
    done = run("directory", "import", str(file), env=dev.as_token("admin_token"))
    assert done.returncode == 2
    assert "line 1" in done.stderr
    assert "line 2" in done.stderr


def test_who_may_not_manage_is_told_so(dev):
    done = run("directory", "import", "-", env=dev.as_token("sample_token"), given="{}\n")
    assert done.returncode == 1
    assert "directory:import" in done.stderr
