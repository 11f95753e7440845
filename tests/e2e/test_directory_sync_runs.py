"""`authz directory sync github`, and syncs as processes: one of 10,000 projects is killed half-way, and goes on."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.processes import AUTHZ, DevService, dev_service, environment, run, started
from tests.support.syncing import Syncing, export_lines
from tests.support.upstream import TOKEN, Answer, GitHubWorld, GitLabWorld, running

PROJECTS = 10_000
GROUPS = 200
USERS = 300


@pytest.fixture(scope="module")
def dev() -> Iterator[DevService]:
    folder = Path(tempfile.mkdtemp(prefix="authz-sync-"))
    folder.chmod(0o755)  # the database's user must pass through
    with dev_service(folder) as found:
        yield found
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def world() -> GitHubWorld:
    world = GitHubWorld(page=2)
    for number, login in enumerate(("olive", "dana", "sam", "eve", "kit", "leo"), 1):
        world.user(number, login)
    world.user(7, "deploy", "Bot")
    world.org(100, "acme", "read")
    world.people[100] = {1: "admin", 2: "member", 3: "member", 4: "member"}
    world.repo(500, 100, "web", "public")
    world.repo(501, 100, "ledger")
    world.repo(502, 100, ".github", "internal", archived=True)
    world.collaborators[501] = {5: "triage", 7: "write"}
    world.team(70, 100, "payments", [2, 3, 6], {501: "maintain", 500: "write"})
    world.team(71, 100, "readers", [2], {501: "read"})
    return world


@pytest.fixture
def sync(dev, world, tmp_path, monkeypatch, capsys) -> Iterator[Syncing]:
    with running(world) as stand_in:
        scope = ("--org", "acme")
        yield Syncing(dev, stand_in, "github", scope, tmp_path / "state.ndjson", monkeypatch, capsys)


def test_an_organisation_comes_over_with_its_teams_and_a_second_run_changes_nothing(sync):
    sync.done()
    assert sync.places() == {
        "group:100": "acme",
        "project:500": "acme/web",
        "project:501": "acme/ledger",
        "project:502": "acme/.github",
    }
    assert sync.roles() == {
        ("user:1", "group:100"): "owner",
        ("user:2", "group:100"): "read",
        ("user:3", "group:100"): "read",
        ("user:4", "group:100"): "read",
        ("user:2", "project:500"): "write",
        ("user:3", "project:500"): "write",
        ("user:6", "project:500"): "write",
        ("user:2", "project:501"): "maintain",
        ("user:3", "project:501"): "maintain",
        ("user:6", "project:501"): "maintain",
        ("user:5", "project:501"): "triage",
        ("user:7", "project:501"): "write",
    }
    by_path = {one.get("path"): one for one in sync.lines()}
    assert (by_path["acme"]["visibility"], by_path["acme/web"]["visibility"]) == ("public", "public")
    assert (by_path["acme/.github"]["visibility"], by_path["acme/.github"]["archived"]) == ("internal", True)
    assert sync.users()["deploy"]["service_account"]
    assert sync.done() == {}


def test_a_renamed_and_recreated_repository_inherits_nothing_and_a_left_team_takes_its_roles_along(sync, world):
    sync.done()
    world.repos[501] |= {"name": "books", "full_name": "acme/books"}
    world.repo(600, 100, "ledger")
    world.teams[70]["members"].remove(3)
    world.orgs[100]["default_repository_permission"] = "none"
    sync.done("--allow-deletions", "20%")
    places, roles = sync.places(), sync.roles()
    assert (places["project:501"], places["project:600"]) == ("acme/books", "acme/ledger")
    assert {user for user, node in roles if node == "project:600"} == set()
    assert ("user:3", "project:501") not in roles
    assert roles["user:3", "group:100"] == "member"
    world.repos.pop(500)
    refused = sync.run()
    assert (refused.status, "1 of 4 projects (25 %)" in refused.err) == (1, True)
    assert sync.done("--allow-deletions", "25%") == {"projects_deleted": 1, "memberships_deleted": 2}


def test_github_s_limits_are_waited_for(sync):
    spent = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1", "Retry-After": "1"}
    trouble = {
        2: Answer({"message": "API rate limit exceeded"}, 403, spent),
        4: Answer({"message": "You have exceeded a secondary rate limit"}, 403, {"Retry-After": "1"}),
        6: Answer({"message": "slow down"}, 429, {"Retry-After": "0"}),
    }
    sync.upstream.fail = lambda asked: trouble.pop(asked.number, None)
    ran = sync.run("--workers", "1")
    assert ran.status == 0, ran.err
    assert not trouble
    assert "asks to wait 1 s" in ran.err
    assert len(sync.roles()) == 12


def test_a_base_permission_that_is_not_shown_gives_nothing_and_is_said(sync, world):
    del world.orgs[100]["default_repository_permission"]
    ran = sync.run()
    assert ran.status == 0, ran.err
    assert "base permission of `acme`" in ran.err
    assert sync.roles()["user:4", "group:100"] == "member"


def test_an_organisation_that_is_not_there_is_told(sync):
    sync.scope = ("--org", "nobody")
    ran = sync.run()
    assert ran.status == 1
    assert "/orgs/nobody" in ran.err
    sync.scope = ()
    assert sync.run().status == 2


# as processes


def large() -> GitLabWorld:
    """Groups with fifty projects each, in which everybody is somebody."""
    world = GitLabWorld()
    for number in range(1, USERS + 1):
        world.user(number, f"user{number}", is_admin=number == 1)
    for number in range(GROUPS):
        world.group(1000 + number, f"group{number}")
        world.member("groups", 1000 + number, 1 + number % USERS, 50)
    for number in range(PROJECTS):
        world.project(100_000 + number, f"group{number % GROUPS}/project{number}")
        world.member("projects", 100_000 + number, 1 + number % USERS, 30)
    return world


def test_ten_thousand_projects_sync_although_the_run_is_killed_half_way(dev, tmp_path):
    world = large()
    state = tmp_path / "state.ndjson"
    with running(world) as stand_in:
        command = ("directory", "sync", "gitlab", "--upstream", stand_in.url, "--source", "large")
        command += ("--state", str(state), "--workers", "8")
        env = dev.as_token("admin_token") | {"GITLAB_TOKEN": TOKEN}
        stand_in.stop_at = PROJECTS // 2
        with started(*command, output=tmp_path / "first.txt", env=env) as first:
            first.wait_until(stand_in.reached.is_set, 240)
            first.process.send_signal(signal.SIGKILL)
            assert first.process.wait(30) == -signal.SIGKILL
        assert export_lines(dev, "large") == [], "half a directory is none"
        before = stand_in.count
        stand_in.go_on()
        with started(*command, output=tmp_path / "second.txt", env=env) as second:
            assert second.process.wait(300) == 0, second.printed
    assert "are there already" in second.printed
    asked_for = 3 + PROJECTS // 100 + 2 + 2 * GROUPS + PROJECTS
    assert before + (stand_in.count - before) < asked_for + 60, "what was fetched is not fetched again"
    assert not state.exists()
    lines = export_lines(dev, "large")
    places = {(one["type"], one["external_id"]): one["path"] for one in lines if one["type"] in ("group", "project")}
    assert places == {("group", str(one["id"])): one["full_path"] for one in world.groups.values()} | {
        ("project", str(one["id"])): one["path_with_namespace"] for one in world.projects.values()
    }
    roles = {(one["user"], one["node"]): one["role"] for one in lines if one["type"] == "membership"}
    assert roles == {
        (f"user:{one['id']}", f"{kind[:-1]}:{number}"): "owner" if kind == "groups" else "developer"
        for (kind, number), members in world.members.items()
        for one in members
    }
    assert len([one for one in lines if one["type"] == "user"]) == USERS


def test_a_state_file_is_one_run_s_at_a_time_and_its_default_is_the_user_s_own(dev, tmp_path, world):
    env = dev.as_token("admin_token") | {"GITHUB_TOKEN": TOKEN, "XDG_STATE_HOME": str(tmp_path / "own")}
    with running(world) as stand_in:
        command = ("directory", "sync", "github", "--org", "acme", "--upstream", stand_in.url, "--source", "once")
        stand_in.stop_at = 5
        with started(*command, output=tmp_path / "first.txt", env=env) as first:
            first.wait_until(stand_in.reached.is_set)
            second = run(*command, env=env)
            assert (second.returncode, "another sync uses" in second.stderr) == (2, True), second.stderr
            first.process.kill()
            first.process.wait(30)
        [state] = (tmp_path / "own/authz-service").iterdir()
        assert (state.stat().st_mode & 0o777, state.parent.stat().st_mode & 0o777) == (0o600, 0o700)
        stand_in.go_on()
        third = run(*command, env=env)
    assert third.returncode == 0, third.stderr
    assert not list((tmp_path / "own/authz-service").iterdir())


def test_on_a_terminal_there_is_a_bar_and_elsewhere_there_are_lines(dev, tmp_path, world):
    env = environment(dev.as_token("admin_token") | {"GITHUB_TOKEN": TOKEN, "TERM": "xterm", "COLUMNS": "100"})
    with running(world) as stand_in:
        command = [*AUTHZ, "directory", "sync", "github", "--org", "acme", "--upstream", stand_in.url]
        command += ["--source", "bars", "--state", str(tmp_path / "state"), "--dry-run"]
        ours, theirs = pty.openpty()
        with subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=theirs
        ) as done:
            os.close(theirs)
            shown = b""
            while True:
                try:
                    part = os.read(ours, 4096)
                except OSError:  # Linux: the other end is closed
                    break
                if not part:
                    break
                shown += part
            assert done.stdout is not None
            table = done.stdout.read()
        os.close(ours)
        assert (done.returncode, b"acme/ledger" in table) == (0, True), shown
        assert b"collaborators" in shown
        assert b"\x1b[" in shown
        plain = run(
            *command[len(AUTHZ) :], "--fresh", env={name: value for name, value in env.items() if name != "TERM"}
        )
    assert plain.returncode == 0, plain.stderr
    assert "repositories: 1 of 1" in plain.stderr
    assert "\x1b" not in plain.stderr
