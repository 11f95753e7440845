"""Least privilege over HTTP: denials explained with their fix, searches, simulations."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.support.managing import SINGLE_OWNER, UPSTREAM, Stage, body_of, scope, staged
from tests.support.privilege import at, check


@pytest.fixture
async def stage(database_url: str) -> AsyncIterator[Stage]:
    async with staged(database_url) as running:
        yield running


# explained


async def test_an_explained_denial_names_the_change_of_the_token_that_would_allow_it(stage: Stage):
    admin = await stage.admin()
    token_id, secret = await stage.give("dana", await at(stage, ["project:acme/web"], "job:read"))
    answer = await check(stage, admin, secret, "job:run", "project:acme/web", explain=True)
    assert answer["fixes"][0] == {
        "sentence": "add `job:run` to the scope on `project:acme/web`",
        "steps": [
            {
                "kind": "add_permissions",
                "token_id": token_id,
                "catalog": "gitlab",
                "scope": 0,
                "reach": "selected",
                "nodes": ["project:acme/web"],
                "permissions": ["job:run"],
            }
        ],
    }
    assert "fixes" not in await check(stage, admin, secret, "job:run", "project:acme/web")
    assert "fixes" not in await check(stage, admin, secret, "job:read", "project:acme/web", explain=True)


async def test_a_denial_for_want_of_a_membership_names_it(stage: Stage):
    admin = await stage.admin()
    _, secret = await stage.give("dana", await at(stage, ["project:open/site"], "job:run"))
    answer = await check(stage, admin, secret, "job:run", "project:open/site", explain=True)
    assert answer["reason"] == "owner_not_member"
    steps = answer["fixes"][0]["steps"]
    assert [(step["kind"], step["nodes"]) for step in steps] == [("add_membership", ["project:open/site"])]


@pytest.mark.parametrize("target", ["project:hidden/plan", "project:no/such"])
async def test_what_the_owner_may_not_see_is_in_no_fix(stage: Stage, target: str):
    admin = await stage.admin()
    _, secret = await stage.give("dana", await at(stage, ["project:acme/web"], "job:read"))
    assert (await check(stage, admin, secret, "job:run", target, explain=True))["fixes"] == []
    own = await stage.call(
        "POST", "/v1/self/check", secret, {"resource": "job", "action": "run", "target": target, "explain": True}
    )
    assert own.json()["fixes"] == []
    assert own.json()["reason"] == "target_unknown"


async def test_a_token_that_asks_about_itself_is_told_the_fix(stage: Stage):
    _, secret = await stage.give("dana", await at(stage, ["project:acme/web"], "job:read"))
    body = {"resource": "job", "action": "run", "target": "project:acme/web", "explain": True}
    answer = (await stage.call("POST", "/v1/self/check", secret, body)).json()
    assert answer["fixes"][0]["sentence"] == "add `job:run` to the scope on `project:acme/web`"


# searched


async def test_a_token_sees_all_that_it_may_do_page_by_page(stage: Stage):
    _, secret = await stage.give("dana", await at(stage, ["group:acme"], "job:read", "job:run"))
    found: dict[str, list[str]] = {}
    cursor: str | None = None
    while True:
        params = {"limit": "1", "public": "false"} | ({} if cursor is None else {"cursor": cursor})
        page = (await stage.call("GET", "/v1/self/effective", secret, params=params)).json()
        for one in page["items"]:
            found[one["target"]] = sorted(each["permission"] for each in one["permissions"])
        cursor = page["next_cursor"]
        if cursor is None:
            break
    jobs = ["job:read", "job:run"]
    assert found == {"project:acme/web": jobs, "project:acme/tools/lint": jobs}


async def test_it_may_be_asked_what_at_one_place_and_where_one_permission(stage: Stage):
    admin = await stage.admin()
    token_id, _ = await stage.give("dana", await at(stage, ["project:acme/web"], "job:read"))
    path = f"/v1/tokens/{token_id}/effective"
    there = (await stage.call("GET", path, admin, params={"target": "acme/web", "limit": "200"})).json()
    assert "job:read" in {one["permission"] for one in there["items"][0]["permissions"]}
    where = (await stage.call("GET", path, admin, params={"permission": "job:read"})).json()
    assert [one["target"] for one in where["items"]] == ["project:acme/web"]


SENSELESS_SEARCHES: list[tuple[dict[str, str], str]] = [
    ({"target": "project:no/such"}, "target_unknown"),
    ({"permission": "no:such"}, "permission_unknown"),
    ({"catalog": "github"}, "catalog_unknown"),
    ({"cursor": "nonsense"}, "invalid_cursor"),
]


async def test_a_search_for_what_is_not_there_says_so(stage: Stage):
    _, secret = await stage.give("dana", await at(stage, ["project:acme/web"], "job:read"))
    for params, code in SENSELESS_SEARCHES:
        answer = await stage.call("GET", "/v1/self/effective", secret, params=params)
        assert answer.status_code == 400
        assert [fault["code"] for fault in answer.json()["faults"]] == [code]


async def test_a_hidden_place_and_none_give_the_same_bytes_in_a_search(stage: Stage):
    _, secret = await stage.give("dana", await at(stage, ["project:acme/web"], "job:read"))
    answers = [
        await stage.call("GET", "/v1/self/effective", secret, params={"target": target})
        for target in ("project:hidden/plan", "project:hidden/none")
    ]
    assert answers[0].status_code == answers[1].status_code == 400
    assert answers[0].text.replace("plan", "none") == answers[1].text


async def test_a_group_owner_sees_of_a_token_what_lies_in_the_group(stage: Stage):
    await stage.apply({"type": "membership", "user": "dana", "node": "open", "role": "developer"})
    token_id, _ = await stage.give("dana", await at(stage, ["group:acme", "group:open"], "job:run"))
    _, olga = await stage.give("olga", await stage.scope_at("authz", ["group:acme"], "token:read"))
    page = (await stage.call("GET", f"/v1/tokens/{token_id}/effective", olga, params={"public": "false"})).json()
    assert {one["target"] for one in page["items"]} == {"project:acme/web", "project:acme/tools/lint"}
    params = {"target": "project:open/site"}
    beyond = await stage.call("GET", f"/v1/tokens/{token_id}/effective", olga, params=params)
    assert beyond.status_code == 400
    _, eve = await stage.give("eve", scope("authz", "user", "token:read"))
    assert (await stage.call("GET", f"/v1/tokens/{token_id}/effective", eve)).status_code == 404


async def test_the_tokens_that_may_touch_a_place_are_listed(stage: Stage):
    admin = await stage.admin()
    expected = {
        (await stage.give("dana", await at(stage, ["group:acme"], "job:run")))[0],
        (await stage.give("olga", scope("gitlab", "all_memberships", "job:run"), networks=("10.0.0.0/8",)))[0],
        (await stage.give("bot", catalogs={"gitlab": 1}, legacy_scopes=("api",)))[0],
    }
    await stage.give("eve", await at(stage, ["group:acme"], "job:run"))
    await stage.give("dana", await at(stage, ["group:acme"], "job:read"))
    params = {"catalog": "gitlab", "permission": "job:run", "target": "acme/web"}
    page = await stage.call("GET", "/v1/search/tokens", admin, params=params)
    assert {one["id"] for one in page.json()["items"]} == expected
    _, olga = await stage.give("olga", await stage.scope_at("authz", ["group:acme"], "token:read"))
    owned = (await stage.call("GET", "/v1/search/tokens", olga, params=params)).json()["items"]
    assert {one["id"] for one in owned} == expected
    assert {one["partial"] for one in owned if one["owner"] == "dana"} == {True}
    _, dana = await stage.give("dana", scope("authz", "user", "token:read"))
    assert (await stage.call("GET", "/v1/search/tokens", dana, params=params)).status_code == 403
    hidden = params | {"target": "project:hidden/plan"}
    assert (await stage.call("GET", "/v1/search/tokens", olga, params=hidden)).status_code == 400


# simulated


ISSUES = {"method": "GET", "path": "/api/v4/projects/acme%2Fweb/issues"}
RUN = {"resource": "job", "action": "run", "target": "project:acme/web"}


async def test_the_smallest_token_for_some_calls_is_created_as_it_is_suggested(stage: Stage):
    admin = await stage.admin()
    body = {"catalog": "gitlab@2", "owner": "dana", "calls": [ISSUES, RUN, RUN]}
    answer = (await stage.call("POST", "/v1/simulate", admin, body)).json()
    found = answer["suggestion"]
    assert found["exact"] is True
    assert [one["decision"] for one in found["decisions"]] == ["allow"] * 3
    [only] = found["token"]["scopes"]
    assert only["reach"] == {"kind": "selected", "nodes": ["project:acme/web"]}
    assert sorted(only["permissions"]) == ["job:run", "work_item:read"]
    assert "decisions" not in answer
    made = await stage.call("POST", "/v1/tokens", admin, found["token"])
    assert made.status_code == 201, made.text
    secret = made.json()["secret"]
    assert (await check(stage, admin, secret, "job:run", "project:acme/web"))["decision"] == "allow"
    assert (await check(stage, admin, secret, "job:run", "project:acme/tools/lint"))["decision"] == "deny"
    assert (await check(stage, admin, secret, "job:delete", "project:acme/web"))["decision"] == "deny"


async def test_a_token_and_a_draft_are_tried_without_making_anything(stage: Stage):
    admin = await stage.admin()
    token_id, _ = await stage.give("dana", await at(stage, ["project:acme/web"], "job:read"))
    body = {"catalog": "gitlab", "token_id": token_id, "calls": [RUN, RUN | {"action": "read"}]}
    answer = (await stage.call("POST", "/v1/simulate", admin, body)).json()
    assert [one["decision"] for one in answer["decisions"]] == ["deny", "allow"]
    assert answer["decisions"][0]["fixes"][0]["steps"][0]["kind"] == "add_permissions"
    before = (await stage.call("GET", "/v1/tokens", admin)).json()["items"]
    draft = {"catalog": "gitlab", "token": body_of(catalog="gitlab@1"), "calls": [RUN]}
    answer = (await stage.call("POST", "/v1/simulate", admin, draft | {"catalog": "gitlab@1"})).json()
    assert [one["decision"] for one in answer["decisions"]] == ["allow"]
    assert len((await stage.call("GET", "/v1/tokens", admin)).json()["items"]) == len(before)


async def test_a_suggestion_says_which_calls_the_owner_may_not_make_at_all(stage: Stage):
    admin = await stage.admin()
    calls = [RUN, RUN | {"target": "project:open/site"}, RUN | {"target": "project:hidden/plan"}]
    body = {"catalog": "gitlab@1", "owner": "dana", "calls": calls}
    found = (await stage.call("POST", "/v1/simulate", admin, body)).json()["suggestion"]
    assert [one["reason"] for one in found["decisions"]] == ["granted", "owner_not_member", "target_unknown"]
    assert found["decisions"][1]["fixes"][0]["steps"][0]["kind"] == "add_membership"
    assert "fixes" not in found["decisions"][2]
    assert found["left_out"] == [1, 2]
    assert [one["reach"]["nodes"] for one in found["token"]["scopes"]] == [["project:acme/web"]]


async def test_a_suggestion_for_a_catalog_with_resource_owners_names_one(stage: Stage):
    admin = await stage.admin()
    await stage.install(SINGLE_OWNER, "hub")
    calls = [{"resource": "contents", "action": "read", "target": "acme/web"}]
    body = {"catalog": "hub", "owner": "dana", "calls": calls}
    found = (await stage.call("POST", "/v1/simulate", admin, body)).json()["suggestion"]
    assert found["token"]["resource_owner"] == "group:acme"
    assert (await stage.call("POST", "/v1/tokens", admin, found["token"])).status_code == 201


async def test_a_suggestion_works_without_a_directory(stage: Stage):
    admin = await stage.admin()
    await stage.install(UPSTREAM, "orders")
    calls = [{"resource": "order", "action": "write", "target": "project:shop/eu"}]
    body = {"catalog": "orders", "owner": "someone", "calls": calls}
    found = (await stage.call("POST", "/v1/simulate", admin, body)).json()["suggestion"]
    assert found["token"]["owner"] == "someone"
    assert found["token"]["scopes"][0]["reach"]["nodes"] == ["project:shop/eu"]
    assert [one["decision"] for one in found["decisions"]] == ["allow"]


SENSELESS_SIMULATIONS: list[dict[str, Any]] = [
    {},
    {"catalog": "gitlab", "calls": []},
    {"catalog": "gitlab", "calls": [{}]},
    {"catalog": "gitlab", "calls": [{"method": "GET"}]},
    {"catalog": "gitlab", "calls": [ISSUES | RUN]},
    {"catalog": "gitlab", "calls": [RUN] * 201},
    {"catalog": "nobody", "calls": [RUN]},
    {"catalog": "gitlab", "owner": "nobody", "calls": [RUN]},
    {"catalog": "gitlab", "owner": "dana", "token_id": "tok_x", "calls": [RUN]},
    {"catalog": "gitlab", "calls": [RUN], "more": 1},
    {"catalog": "gitlab", "calls": [RUN], "token": {"name": ""}},
]


async def test_a_simulation_that_makes_no_sense_is_refused_with_its_faults(stage: Stage):
    admin = await stage.admin()
    for body in SENSELESS_SIMULATIONS:
        answer = await stage.call("POST", "/v1/simulate", admin, body)
        assert answer.status_code == 400, body
        assert answer.json()["faults"], body


async def test_only_those_who_may_create_for_an_owner_may_simulate_for_them(stage: Stage):
    _, dana = await stage.give("dana", scope("authz", "user", "token:create", "token:read"))
    body = {"catalog": "gitlab", "calls": [RUN]}
    own = await stage.call("POST", "/v1/simulate", dana, body)
    assert own.status_code == 200
    for other in ({"owner": "olga"}, {"owner": "root"}):
        assert (await stage.call("POST", "/v1/simulate", dana, body | other)).status_code == 403
    theirs, _ = await stage.give("olga", await at(stage, ["project:acme/web"], "job:read"))
    named = await stage.call("POST", "/v1/simulate", dana, body | {"token_id": theirs})
    assert named.status_code == 404
    _, plain = await stage.give("dana", await at(stage, ["project:acme/web"], "job:read"))
    assert (await stage.call("POST", "/v1/simulate", plain, body)).status_code == 403
