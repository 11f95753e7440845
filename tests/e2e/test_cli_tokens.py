"""A token's life on the command line: issued, edited, rotated, cloned, imported, swept."""

from __future__ import annotations

import hashlib
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
