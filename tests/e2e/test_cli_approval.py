"""`authz policy` and `authz grant` against a running service."""

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


@pytest.fixture
def authz(dev):
    def asking(*arguments: str, given: str | None = None, token: str | None = None):
        env = dev.as_token("admin_token") | ({} if token is None else {"AUTHZ_TOKEN": token})
        done = run(*arguments, env=env, given=given)
        assert "Traceback" not in done.stderr
        return done

    return asking


def test_a_policy_is_tried_out_set_and_shown_and_requests_are_decided(authz):
    required = json.dumps({"catalog": "gitlab", "approval": {"value": "required"}})
    tried = authz("policy", "set", "group:bakery", "-", "--dry-run", "--no-grandfather", given=required)
    assert tried.returncode == 0, tried.stderr
    assert "nothing was changed" in tried.stderr
    assert "approval_pending" in tried.stdout
    assert authz("policy", "set", "group:bakery", "-", given=required).returncode == 0
    shown = authz("policy", "show", "group:bakery/shop", "--catalog", "gitlab")
    assert "required" in shown.stdout
    assert "group:bakery" in shown.stdout

    scope = ("--catalog", "gitlab", "--owner", "dana", "--node", "group:bakery/shop")
    for name in ("first", "second"):
        made = authz(
            "token", "create", "--name", name, *scope, "--permission", "job:read", "--permission", "job:run"
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
    reviewer = ("--permission", "grant:decide", "--permission", "grant:read")
    made = authz(
        "token",
        "create",
        "--name",
        "review",
        "--catalog",
        "authz",
        "--owner",
        "priya",
        "--node",
        "group:bakery",
        *reviewer,
    )
    priya = made.stdout.strip()
    waiting = json.loads(
        authz("grant", "requests", "--node", "group:bakery", "--state", "pending", "--output", "json").stdout
    )
    assert len(waiting) == 2
    first, second = (str(one["id"]) for one in waiting)
    own = authz("grant", "approve", first)
    assert own.returncode == 1
    assert "nobody approves their own" in own.stdout
    part = authz("grant", "approve", first, "--permission", "job:read", "--reason", "reading is enough", token=priya)
    assert part.returncode == 0, part.stderr
    assert "approved for job:read on group:bakery/shop" in part.stderr
    assert authz("grant", "deny", second, "--reason", "no", token=priya).returncode == 0
    late = authz("grant", "approve", second, token=priya)
    assert late.returncode == 1
    assert "denied already" in late.stdout
    active = json.loads(authz("grant", "list", "--state", "active", "--output", "json").stdout)
    numbers = [str(one["id"]) for one in active if one["origin"] == "review"]
    assert authz("grant", "revoke", *numbers).returncode == 0


def test_what_is_wrong_with_a_policy_is_said(authz):
    wrong = json.dumps({"catalog": "gitlab", "approval": {"value": "required", "auto_approve": [{}]}})
    done = authz("policy", "set", "group:bakery", "-", given=wrong)
    assert done.returncode != 0
    assert "this rule would approve everything" in done.stderr
    assert authz("grant", "approve", "1", "2", "--permission", "job:read").returncode == 2


def test_a_file_that_loosens_is_taken_only_when_told_so(authz):
    """A file replaces the whole policy: one about something else would switch approval off."""
    strict = json.dumps({"catalog": "gitlab", "approval": {"value": "required"}})
    coarse = json.dumps({"catalog": "gitlab", "legacy": {"value": "forbid"}})
    assert authz("policy", "set", "group:bakery", "-", "--no-grandfather", given=strict).returncode == 0
    tried = authz("policy", "set", "group:bakery", "-", "--dry-run", given=coarse)
    assert tried.returncode == 0, tried.stderr
    assert 'looser: approval, from {"value":"required","force":false} to nothing' in tried.stderr
    assert "would start to work" in tried.stderr
    assert "starts" in tried.stdout
    refused = authz("policy", "set", "group:bakery", "-", given=coarse)
    assert refused.returncode != 0
    assert "this is looser" in refused.stderr
    assert "--allow-loosening" in refused.stderr
    assert "required" in authz("policy", "show", "group:bakery", "--catalog", "gitlab").stdout
    done = authz("policy", "set", "group:bakery", "-", "--allow-loosening", given=coarse)
    assert done.returncode == 0, done.stderr
    assert "looser: approval" in done.stderr
    assert "required" not in authz("policy", "show", "group:bakery", "--catalog", "gitlab").stdout
    assert (
        authz("policy", "set", "group:bakery", "-", "--allow-loosening", given='{"catalog": "gitlab"}').returncode == 0
    )


def test_whoever_may_set_a_policy_and_not_read_one_sets_it_all_the_same(authz):
    made = authz(
        "token", "create", "--name", "sets", "--catalog", "authz", "--owner", "priya", "--node", "group:bakery",
        "--permission", "policy:edit",
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    said = json.dumps({"catalog": "gitlab", "max_inactive_days": {"value": 90}})
    done = authz("policy", "set", "group:bakery", "-", given=said, token=made.stdout.strip())
    assert done.returncode == 0, done.stderr
