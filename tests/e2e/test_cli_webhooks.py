"""`authz webhook`: made, listed, tried and removed from the command line."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.processes import DevService, dev_service, run

RECEIVER = "https://localhost:1/authz"


@pytest.fixture(scope="module")
def dev() -> Iterator[DevService]:
    folder = Path(tempfile.mkdtemp(prefix="authz-cli-"))
    folder.chmod(0o755)  # the database's user must pass through
    with dev_service(folder, env={"AUTHZ_WEBHOOK_PRIVATE_HOSTS": "localhost"}) as found:
        yield found
    shutil.rmtree(folder, ignore_errors=True)


def ask(dev: DevService, *words: str, status: int = 0):
    done = run("webhook", *words, env=dev.as_token("admin_token"))
    assert done.returncode == status, done.stderr
    return done


def test_a_webhook_is_made_listed_tried_and_removed(dev):
    made = ask(dev, "create", RECEIVER, "--node", "group:bakery", "--event", "token.leaked", "--name", "leaks")
    assert made.stdout.startswith("whsec_")
    [listed] = json.loads(ask(dev, "list", "--node", "group:bakery", "--output", "json").stdout)
    assert (listed["url"], listed["events"], listed["name"]) == (RECEIVER, ["token.leaked"], "leaks")
    assert listed["id"] in made.stderr
    assert RECEIVER in ask(dev, "list").stdout
    assert f"authz webhook deliveries {listed['id']}" in ask(dev, "test", listed["id"]).stderr
    assert "webhook.tested" in ask(dev, "deliveries", listed["id"]).stdout
    assert "nothing" in ask(dev, "deliveries", listed["id"], "--state", "delivered").stderr
    ask(dev, "delete", listed["id"])
    assert json.loads(ask(dev, "list", "--output", "json").stdout) == []


def test_a_private_address_and_an_unknown_webhook_are_refused(dev):
    ask(dev, "create", "https://10.0.0.1/", status=2)
    ask(dev, "delete", "whk_none", status=2)
