"""`authz directory sync gitlab`: what comes over, what a second run finds, and what an upstream in trouble changes."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.processes import DevService, dev_service
from tests.support.syncing import Syncing
from tests.support.upstream import TOKEN, Answer, GitLabWorld, running


@pytest.fixture(scope="module")
def dev() -> Iterator[DevService]:
    folder = Path(tempfile.mkdtemp(prefix="authz-sync-"))
    folder.chmod(0o755)  # the database's user must pass through
    with dev_service(folder) as found:
        yield found
    shutil.rmtree(folder, ignore_errors=True)


def company() -> GitLabWorld:
    """Two groups, one of them with a group in it, a person's own project, and everybody who may be there."""
    world = GitLabWorld(page=3)
    world.user(1, "root", is_admin=True)
    world.user(2, "dana")
    world.user(3, "sam")
    world.user(4, "eve", external=True)
    world.user(5, "max", state="deactivated")
    world.user(6, "project_42_bot", bot=True)
    world.group(10, "acme", visibility="public")
    world.group(11, "acme/shop", 10, visibility="internal")
    world.group(20, "tools")
    world.project(42, "acme/shop/web", visibility="internal")
    world.project(43, "acme/handbook", archived=True)
    world.project(44, "tools/lint")
    world.project(45, "dana/notes")
    world.member("groups", 10, 1, 50)
    world.member("groups", 11, 2, 40)
    world.member("groups", 20, 3, 30)
    world.member("projects", 42, 4, 10)
    world.member("projects", 42, 6, 30)
    return world


@pytest.fixture
def world() -> GitLabWorld:
    return company()


@pytest.fixture
def sync(dev, world, tmp_path, monkeypatch, capsys) -> Iterator[Syncing]:
    with running(world) as stand_in:
        yield Syncing(dev, stand_in, "gitlab", (), tmp_path / "state.ndjson", monkeypatch, capsys)


def test_a_whole_gitlab_comes_over_and_a_second_run_changes_nothing(sync):
    assert sync.done() == {
        "users_created": 6,
        "groups_created": 3,
        "projects_created": 4,
        "memberships_created": 5,
    }
    assert sync.places() == {
        "group:10": "acme",
        "group:11": "acme/shop",
        "group:20": "tools",
        "project:42": "acme/shop/web",
        "project:43": "acme/handbook",
        "project:44": "tools/lint",
        "project:45": "dana/notes",
    }
    assert sync.roles() == {
        ("user:1", "group:10"): "owner",
        ("user:2", "group:11"): "maintainer",
        ("user:3", "group:20"): "developer",
        ("user:4", "project:42"): "guest",
        ("user:6", "project:42"): "developer",
    }
    users = sync.users()
    assert (users["root"]["admin"], users["dana"]["admin"]) == (True, False)
    assert (users["max"]["state"], users["eve"]["external"]) == ("blocked", True)
    assert users["project_42_bot"]["service_account"]
    assert users["dana"]["namespace_id"] == "9002"
    by_path = {one.get("path"): one for one in sync.lines()}
    assert by_path["acme/handbook"]["archived"]
    assert (by_path["acme"]["visibility"], by_path["acme/shop"]["visibility"]) == ("public", "internal")
    assert sync.done() == {}
    assert not sync.state.exists()


def test_what_was_renamed_or_moved_keeps_its_id_and_who_takes_its_name_inherits_nothing(sync, world):
    sync.done()
    world.groups[10]["full_path"] = "globex"
    world.groups[11]["full_path"] = "globex/shop"
    world.projects[42]["path_with_namespace"] = "tools/web"
    world.projects[43]["path_with_namespace"] = "globex/handbook"
    world.group(30, "acme")
    world.project(50, "acme/handbook")
    world.users[2]["username"] = "daniela"
    world.projects[45]["path_with_namespace"] = "daniela/notes"
    world.user(7, "dana")
    seen = sync.run("--dry-run").document
    assert {(one["how"], one["kind"], one["name"]) for one in seen["changes"]} == {
        ("changed", "user", "daniela"),
        ("created", "user", "dana"),
        ("changed", "group", "globex"),
        ("created", "group", "acme"),
        ("changed", "project", "tools/web"),
        ("created", "project", "acme/handbook"),
    }
    assert sync.places()["group:10"] == "acme", "a dry run changes nothing"
    sync.done()
    places = sync.places()
    assert (places["group:10"], places["group:11"], places["project:43"]) == (
        "globex",
        "globex/shop",
        "globex/handbook",
    )
    assert (places["project:42"], places["group:30"], places["project:50"]) == ("tools/web", "acme", "acme/handbook")
    assert places["project:45"] == "daniela/notes"
    assert ("user:1", "group:30") not in sync.roles()
    assert sync.done() == {}


def test_what_is_gone_upstream_goes_here_and_what_no_list_named_but_is_there_stays(sync, world):
    sync.done()
    del world.projects[44]
    world.hidden.add(43)
    world.remove_member("projects", 42, 4)
    world.member("groups", 20, 3, 50)
    world.users[3]["state"] = "blocked"
    counts = sync.done("--allow-deletions", "30%")
    assert counts == {
        "projects_deleted": 1,
        "memberships_deleted": 1,
        "memberships_changed": 1,
        "users_changed": 1,
    }
    assert "project:43" in sync.places()
    assert "project:44" not in sync.places()
    assert sync.roles()["user:3", "group:20"] == "owner"
    assert sync.done() == {}


def test_a_group_that_is_gone_takes_what_lay_in_it_and_not_what_moved_out(sync, world):
    sync.done()
    del world.groups[20]
    world.projects[44]["path_with_namespace"] = "acme/lint"
    sync.done("--allow-deletions", "50%")
    assert sync.places()["project:44"] == "acme/lint"
    assert "group:20" not in sync.places()


def test_more_deletions_than_allowed_change_nothing_and_say_how_many(sync, world):
    sync.done()
    before = sync.lines()
    world.projects.clear()
    world.member("groups", 11, 3, 20)
    refused = sync.run()
    assert refused.status == 1
    assert "4 of 4 projects (100 %)" in refused.err
    assert "10 % is the most" in refused.err
    assert sync.lines() == before
    # What was fetched is not fetched again; whether it is gone is asked again.
    sync.upstream.paths.clear()
    assert sync.run("--allow-deletions", "99.9%").status == 1
    assert set(sync.upstream.paths) == {f"/api/v4/projects/{number}" for number in (42, 43, 44, 45)}
    world.project(42, "acme/shop/web")
    assert sync.done("--allow-deletions", "100%")["projects_deleted"] == 3
    assert set(sync.places()) >= {"project:42"}


def test_an_id_that_was_deleted_here_never_comes_back_and_the_rest_does(sync, world):
    sync.done()
    group, project = world.groups.pop(20), world.projects.pop(44)
    sync.done("--allow-deletions", "50%")
    world.groups[20], world.projects[44] = group, project
    world.group(21, "tools/more", 20)
    world.user(8, "new")
    ran = sync.run()
    assert (ran.status, ran.counts) == (0, {"users_created": 1}), ran.err
    left_out = ran.document["left_out"]
    assert set(left_out) == {"group tools", "project tools/lint", "group tools/more"}
    assert "deleted here" in left_out["group tools"]


def test_what_was_written_by_hand_is_left_alone(sync, world, dev):
    sync.done()
    lines = [
        {"type": "user", "username": "gateway", "service_account": True, "home": "group:acme"},
        {"type": "group", "path": "local"},
        {"type": "membership", "user": "gateway", "node": "acme", "role": "developer"},
        {"type": "membership", "user": "dana", "node": "local", "role": "owner"},
    ]
    with dev.client(dev.ready["admin_token"]) as http:
        body = "\n".join(map(json.dumps, lines))
        assert http.post("/v1/directory/import", params={"source": sync.source}, content=body).status_code == 200
    before = sync.lines()
    assert sync.done() == {}
    assert sync.lines() == before


# invited groups


def test_invited_groups_bring_their_members_in_as_gitlab_says(sync, world):
    world.groups[11]["shared_with_groups"] = [{"group_id": 20, "group_access_level": 20, "expires_at": None}]
    world.projects[44]["shared_with_groups"] = [
        {"group_id": 11, "group_access_level": 30, "expires_at": None},
        {"group_id": 99, "group_access_level": 50, "expires_at": None},
    ]
    world.projects[43]["shared_with_groups"] = [
        {"group_id": 20, "group_access_level": 50, "expires_at": "2020-01-01T00:00:00.000Z"}
    ]
    ran = sync.run()
    assert ran.status == 0, ran.err
    roles = sync.roles()
    assert roles["user:3", "group:11"] == "reporter", "the lower of both"
    # Into a project come also those whom the invited group has by its parent, or by an invitation of its own.
    assert roles["user:1", "project:44"] == "developer"
    assert roles["user:2", "project:44"] == "developer"
    assert roles["user:3", "project:44"] == "reporter"
    assert ("user:3", "project:43") not in roles
    assert "ids 99" in ran.err


def test_memberships_that_are_over_or_not_accepted_yet_are_none(sync, world):
    world.member("groups", 10, 2, 50, expires_at="2026-01-01")
    world.member("groups", 10, 3, 50, membership_state="awaiting")
    world.member("groups", 10, 4, 30, expires_at="2999-01-01")
    world.member("groups", 10, 5, 27)
    sync.done()
    at_top = {user: role for (user, node), role in sync.roles().items() if node == "group:10"}
    assert at_top == {"user:1": "owner", "user:4": "developer", "user:5": "access_level_27"}


def test_names_that_cannot_be_here_are_left_out_with_what_lies_in_them(sync, world):
    world.group(30, "2024")
    world.project(60, "2024/plans")
    world.user(9, "12345")
    world.group(31, "acme/2024", 10)
    ran = sync.run()
    assert ran.status == 0, ran.err
    assert set(ran.document["left_out"]) == {"group 2024", "project 2024/plans", "user 12345"}
    assert sync.places()["group:31"] == "acme/2024"
    assert sync.done() == {}


# an upstream in trouble


def test_too_many_requests_errors_cut_pages_and_lost_connections_are_tried_again(sync):
    trouble = {
        3: Answer({"message": "429 Too Many Requests"}, 429, {"Retry-After": "1"}),
        5: Answer(b"<html>bad gateway</html>", 502),
        7: Answer(raw=b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n[{"id": 4'),
        9: Answer(b'[{"id": 42, "path_with', 200),
        11: Answer(raw=b""),
        13: Answer({"message": "stay a while"}, 503, {"Retry-After": "0"}),
    }
    sync.upstream.fail = lambda asked: trouble.pop(asked.number, None)
    counts = sync.done("--workers", "1")
    assert not trouble
    assert counts["projects_created"] == 4
    assert len(sync.roles()) == 5


def test_a_token_that_ended_half_way_stops_it_and_a_new_one_goes_on(sync):
    sync.upstream.fail = lambda asked: Answer({"message": "401"}, 401) if asked.number > 9 else None
    refused = sync.run("--workers", "1")
    assert refused.status == 1
    assert "does not accept the token (401)" in refused.err
    assert sync.lines() == []
    assert sync.state.stat().st_mode & 0o777 == 0o600
    assert TOKEN not in sync.state.read_text()
    sync.upstream.fail = lambda asked: None
    asked = sync.upstream.paths
    first = set(asked)
    asked.clear()
    ran = sync.run()
    assert ran.status == 0, ran.err
    assert "9 pages are there already" in ran.err
    assert "/api/v4/users" in first
    assert "/api/v4/users" not in asked
    assert len(sync.roles()) == 5


def test_a_token_that_is_none_or_may_too_little_is_told_so(sync, world):
    wrong = sync.run(token="not-the-one")
    assert (wrong.status, "not-the-one" in wrong.err) == (1, False)
    for user in world.users.values():
        del user["is_admin"]
    small = sync.run("--fresh")
    assert small.status == 1
    assert "`--group`" in small.err
    sync.upstream.fail = lambda asked: Answer({}, 403) if asked.path.endswith("/members") else None
    assert "may not read" in sync.run("--fresh").err
    assert sync.lines() == []


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer({"message": "not a list"}), "something else than this API"),
        (Answer([{"id": "x", "username": "y"}]), "something else than this API"),
        (Answer([{"id": 1, "full_path": "x", "visibility": "odd"}]), "something else than this API"),
        (Answer({}, 301, {"Location": "https://elsewhere.test/api/v4/users"}), "leads elsewhere"),
        (Answer({}, 404), "is not there"),
        (Answer({}, 429, {"Retry-After": "7200"}), "wait 120 minutes"),
    ],
)
def test_what_is_no_gitlab_changes_nothing(sync, answer, said):
    sync.upstream.fail = lambda asked: answer
    ran = sync.run()
    assert ran.status in (1, 3)
    assert said in ran.err
    assert sync.lines() == []


def test_what_cannot_be_understood_is_two(sync, tmp_path):
    assert sync.run("--upstream", "http://gitlab.example.com").status == 2
    assert sync.run("--upstream", "https://user@gitlab.example.com").status == 2
    assert sync.run("--allow-deletions", "101%").status == 2
    assert sync.run("--workers", "0").status == 2
    assert sync.run(token=None).status == 2
    assert sync.upstream.count == 0
    open_to_all = tmp_path / "open"
    open_to_all.write_text("")
    open_to_all.chmod(0o644)
    ran = sync.run("--state", str(open_to_all))
    assert (ran.status, "not yours alone" in ran.err) == (2, True)


def test_who_may_not_import_is_told_before_anything_is_fetched(sync, dev):
    ran = sync.run(AUTHZ_TOKEN="azt_dev_none")
    assert ran.status == 1
    assert sync.upstream.count == 0
    assert sync.run(AUTHZ_TOKEN=dev.ready["sample_token"]).status == 1
    assert sync.lines() == []


# some groups alone


def test_of_some_groups_alone_the_others_stay_as_they_are(sync, world):
    sync.done()
    del world.groups[20], world.projects[44]
    world.project(46, "acme/new")
    for user in world.users.values():
        for name in ("is_admin", "external", "bot", "namespace_id"):
            del user[name]  # as somebody sees them who is no administrator
    assert sync.done("--group", "acme") == {"projects_created": 1}
    assert "project:44" in sync.places()
    assert sync.users()["root"]["admin"]


def test_what_moved_out_of_the_synced_groups_goes_and_who_left_them_stays(sync, world):
    sync.done("--group", "acme")
    assert set(sync.users()) == {"root", "dana", "eve", "project_42_bot"}
    world.projects[42]["path_with_namespace"] = "tools/web"
    counts = sync.done("--group", "acme", "--allow-deletions", "50%")
    assert (counts["projects_deleted"], counts["memberships_deleted"]) == (1, 2)
    assert "eve" in sync.users()
    inner = sync.run("--group", "acme/shop", "--state", f"{sync.state}-2")
    assert inner.status == 1
    assert "outermost" in inner.err


def test_who_is_gone_upstream_when_their_last_membership_ends_goes(sync, world):
    sync.done("--group", "acme")
    del world.users[4]
    world.remove_member("projects", 42, 4)
    assert sync.done("--group", "acme", "--allow-deletions", "50%")["users_deleted"] == 1
