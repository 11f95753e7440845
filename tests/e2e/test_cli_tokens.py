"""A token's life on the command line: issued, edited, rotated, cloned, imported, swept."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from tests.support.processes import DevService, dev_service, run


@pytest.fixture(scope="module")
def dev() -> Iterator[DevService]:
    folder = Path(tempfile.mkdtemp(prefix="authz-cli-"))
    folder.chmod(0o755)  # the database's user must pass through
    with dev_service(folder, env={"AUTHZ_FOREIGN_PREFIXES": "glpat-"}) as found:
        yield found
    shutil.rmtree(folder, ignore_errors=True)


def ask(dev: DevService, *words: str, status: int = 0):
    done = run(*words, env=dev.as_token("admin_token"))
    assert done.returncode == status, done.stderr
    return done


def test_a_token_is_issued_edited_rotated_and_cloned(dev):
    where = ("--catalog", "gitlab", "--owner", "dana", "--permission", "job:read", "--node", "bakery/shop")
    made = json.loads(ask(dev, "token", "create", "--name", "first", *where, "--output", "json").stdout)
    shown = json.loads(
        ask(dev, "token", "edit", made["id"], "--name", "second", "--expires", "9d", "--output", "json").stdout
    )
    assert (shown["name"], shown["expires_at"] is not None) == ("second", True)
    assert "say what is to change" in ask(dev, "token", "edit", made["id"], status=2).stderr
    rotated = ask(dev, "token", "rotate", made["id"], "--overlap", "60")
    assert rotated.stdout.startswith("azt_")
    assert "is replaced by tok_" in rotated.stderr
    again = ask(dev, "token", "rotate", made["id"], "--overlap", "60", status=1)
    assert "was replaced by" in again.stderr
    cloned = json.loads(ask(dev, "token", "clone", made["id"], "--name", "third", "--output", "json").stdout)
    assert (cloned["name"], cloned["owner"]) == ("third", "dana")


def test_a_token_of_a_template_lives_as_long_as_the_template_says(dev):
    where = ("--name", "ci", "--catalog", "gitlab", "--owner", "dana", "--node", "bakery/shop")
    made = json.loads(ask(dev, "token", "create", *where, "--template", "ci-pipeline", "--output", "json").stdout)
    days = datetime.fromisoformat(made["expires_at"]) - datetime.fromisoformat(made["created_at"])
    assert round(days / timedelta(days=1)) == 90
    assert "job:run" in made["scopes"][0]["permissions"]
    asked = (*where, "--template", "ci-pipeline", "--expires")
    shorter = json.loads(ask(dev, "token", "create", *asked, "2030-12-31", "--output", "json").stdout)
    assert shorter["expires_at"].startswith("2031-01-01T00:00:00")
    endless = json.loads(ask(dev, "token", "create", *asked, "never", "--output", "json").stdout)
    assert endless["expires_at"] is None
    assert "write one of `read-only-code`" in ask(dev, "token", "create", *where, "--template", "no", status=2).stderr
    both = ("--template", "ci-pipeline", "--permission", "job:read")
    assert "a template says the permissions" in ask(dev, "token", "create", *where, *both, status=2).stderr


def test_a_gateway_s_token_says_which_catalogs_it_may_ask_about(dev):
    where = ("--name", "gate", "--catalog", "authz", "--owner", "gateway-bot", "--permission", "decision:evaluate")
    asked = (*where, "--reach", "instance", "--evaluates", "gitlab", "--evaluates", "orders", "--expires", "2030-12-31")
    made = json.loads(ask(dev, "token", "create", *asked, "--output", "json").stdout)
    assert sorted(made["evaluates"]) == ["gitlab", "orders"]


def test_templates_are_listed(dev):
    found = ask(dev, "token", "templates", "--catalog", "gitlab").stdout
    assert "ci-pipeline" in found


def test_tokens_of_another_system_are_imported(dev, tmp_path):
    line = {
        "sha256": hashlib.sha256(b"glpat-abcdefghij0123456789").hexdigest(),
        "name": "old",
        "owner": "dana",
        "catalog": "gitlab",
        "scopes": [{"reach": {"kind": "selected", "nodes": ["bakery/shop"]}, "permissions": ["job:read"]}],
    }
    file = tmp_path / "tokens.ndjson"
    file.write_text(json.dumps(line))
    assert "1 tokens are imported" in ask(dev, "token", "import", str(file)).stderr
    assert (
        "line 1 /sha256: a token with this secret is here already"
        in ask(dev, "token", "import", str(file), status=2).stderr
    )
