"""Least privilege over HTTP: denials explained with their fix, searches, simulations."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.support.managing import Stage, scope, staged
from tests.support.privilege import at, check, folded, later

from authz_service.store.paging import write_cursor


@pytest.fixture
async def stage(database_url: str) -> AsyncIterator[Stage]:
    async with staged(database_url) as running:
        yield running


# used, suggested, narrowed


async def test_a_token_used_for_a_week_shrinks_to_exactly_what_it_used(stage: Stage):
    admin = await stage.admin()
    wide = await at(stage, ["group:acme"], "job:read", "job:run", "job:delete", "pipeline:read")
    token_id, secret = await stage.give("dana", wide, await at(stage, ["group:open"], "job:read"))
    for _ in range(7):
        for _ in range(3):
            await check(stage, admin, secret, "job:read", "project:acme/web", client_address="192.0.2.77")
        await check(stage, admin, secret, "job:run", "acme/tools/lint")
        await check(stage, admin, secret, "job:run", "project:open/site")  # denied: no use
        await folded(stage)
        await later(stage, "1 day")
    seen = (await stage.call("GET", f"/v1/tokens/{token_id}/usage", admin)).json()
    assert [(one["permission"], one["target"], one["calls"], one["days"]) for one in seen["items"]] == [
        ("job:read", "project:acme/web", 21, 7),
        ("job:run", "project:acme/tools/lint", 7, 7),
    ]
    assert seen["seen"]["days"] == 7
    assert seen["seen"]["calls"] == 28
    assert [(one["network"], one["calls"]) for one in seen["networks"]] == [("192.0.2.0/24", 21)]
    listed = (await stage.call("GET", "/v1/tokens", admin, params={"owner": "dana"})).json()["items"]
    assert [one["privilege"] for one in listed if one["id"] == token_id] == [
        {"permissions": 4, "unused": 2, "wide": True}
    ]
    found = (await stage.call("GET", f"/v1/tokens/{token_id}/suggestion", admin)).json()
    assert found["token"]["scopes"] == [
        {
            "catalog": "gitlab@1",
            "reach": {"kind": "selected", "nodes": ["project:acme/tools/lint"]},
            "permissions": ["job:run"],
        },
        {
            "catalog": "gitlab@1",
            "reach": {"kind": "selected", "nodes": ["project:acme/web"]},
            "permissions": ["job:read"],
        },
    ]
    assert sorted(found["unused_permissions"]) == ["job:delete", "pipeline:read"]
    assert found["applicable"]
    path = f"/v1/tokens/{token_id}/suggestion/apply"
    assert (await stage.call("POST", path, admin)).status_code == 428
    assert (await stage.call("POST", path, admin, headers={"If-Match": '"other"'})).status_code == 412
    done = await stage.call("POST", path, admin, headers={"If-Match": found["etag"]})
    assert done.status_code == 200, done.text
    await stage.app.state.services.point.follower.poll_now()
    assert (await check(stage, admin, secret, "job:read", "project:acme/web"))["decision"] == "allow"
    assert (await check(stage, admin, secret, "job:run", "acme/tools/lint"))["decision"] == "allow"
    for permission, target in (("job:run", "acme/web"), ("job:read", "acme/tools/lint"), ("job:delete", "acme/web")):
        assert (await check(stage, admin, secret, permission, target))["decision"] == "deny"
    again = (await stage.call("GET", f"/v1/tokens/{token_id}/suggestion", admin)).json()
    assert again["narrower"] is False


async def test_requests_of_the_api_count_what_they_rested_on(stage: Stage):
    admin = await stage.admin()
    held = await at(stage, ["group:acme"], "work_item:read", "job:run", "job:read")
    token_id, secret = await stage.give("dana", held, catalogs={"gitlab": 2})
    body = {"token": secret, "catalog": "gitlab", "method": "GET", "path": "/api/v4/projects/acme%2Fweb/jobs"}
    for _ in range(3):
        assert (await stage.call("POST", "/check/http", admin, body)).json()["decision"] == "allow"
    await folded(stage)
    seen = (await stage.call("GET", f"/v1/tokens/{token_id}/usage", admin)).json()
    assert [(one["permission"], one["target"], one["calls"]) for one in seen["items"]] == [
        ("job:read", "project:acme/web", 3)
    ]


async def test_the_short_way_counts_as_the_long_way_does(stage: Stage):
    import httpx

    admin = await stage.admin()
    token_id, secret = await stage.give("dana", await at(stage, ["group:acme"], "job:read", "job:run"))
    body = {"token": secret, "catalog": "gitlab", "resource": "job", "action": "read", "target": "acme/web"}
    transport = httpx.ASGITransport(app=stage.app.state.hot, raise_app_exceptions=False, client=("127.0.0.1", 1))
    headers = {"Authorization": f"Bearer {admin}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        for _ in range(5):
            assert (await client.post("/check", json=body, headers=headers)).json()["decision"] == "allow"
        items = [{"resource": "job", "action": "run", "target": "acme/web"}] * 2
        batch = {"token": secret, "catalog": "gitlab", "items": items}
        for _ in range(3):
            await client.post("/check/batch", json=batch, headers=headers)
        await folded(stage)
        await client.post("/check", json=body, headers=headers)
        await stage.apply({"type": "membership", "user": "eve", "node": "acme", "role": "developer"})
        await stage.app.state.services.point.follower.poll_now()  # what was remembered is gone; what was counted is not
        await folded(stage)
    seen = (await stage.call("GET", f"/v1/tokens/{token_id}/usage", admin)).json()
    assert [(one["permission"], one["calls"]) for one in seen["items"]] == [("job:read", 6), ("job:run", 6)]


async def test_what_a_child_used_its_parent_keeps(stage: Stage):
    admin = await stage.admin()
    parent, secret = await stage.give("dana", await at(stage, ["group:acme"], "job:read", "job:run"))
    _, child = await stage.give("dana", await at(stage, ["project:acme/web"], "job:run"), parent=parent)
    await check(stage, admin, secret, "job:read", "acme/web")
    await check(stage, admin, child, "job:run", "acme/web")
    await folded(stage)
    found = (await stage.call("GET", f"/v1/tokens/{parent}/suggestion", admin)).json()
    assert [sorted(one["permissions"]) for one in found["token"]["scopes"]] == [["job:read", "job:run"]]


async def test_nothing_known_is_nothing_to_apply(stage: Stage):
    admin = await stage.admin()
    token_id, _ = await stage.give("dana", await at(stage, ["group:acme"], "job:read"))
    found = (await stage.call("GET", f"/v1/tokens/{token_id}/suggestion", admin)).json()
    assert not found["applicable"]
    assert found["token"]["scopes"] == []
    refused = await stage.call("POST", f"/v1/tokens/{token_id}/suggestion/apply", admin, headers={"If-Match": "*"})
    assert refused.status_code == 409
    legacy, _ = await stage.give("dana", catalogs={"gitlab": 1}, legacy_scopes=("api",))
    refused = await stage.call("POST", f"/v1/tokens/{legacy}/suggestion/apply", admin, headers={"If-Match": "*"})
    assert refused.status_code == 409


async def test_a_coarse_token_is_told_the_fine_grained_one_that_would_do(stage: Stage):
    admin = await stage.admin()
    token_id, secret = await stage.give("dana", catalogs={"gitlab": 1}, legacy_scopes=("api",))
    assert (await check(stage, admin, secret, "job:run", "acme/web"))["decision"] == "allow"
    await folded(stage)
    found = (await stage.call("GET", f"/v1/tokens/{token_id}/suggestion", admin)).json()
    assert found["token"]["scopes"] == [
        {
            "catalog": "gitlab@1",
            "reach": {"kind": "selected", "nodes": ["project:acme/web"]},
            "permissions": ["job:run"],
        }
    ]


async def test_usage_is_seen_by_those_who_see_the_token_and_in_part_by_group_owners(stage: Stage):
    admin = await stage.admin()
    await stage.apply({"type": "membership", "user": "dana", "node": "open", "role": "developer"})
    token_id, secret = await stage.give("dana", await at(stage, ["group:acme", "group:open"], "job:run"))
    await check(stage, admin, secret, "job:run", "acme/web", client_address="192.0.2.1")
    await check(stage, admin, secret, "job:run", "open/site")
    await folded(stage)
    _, olga = await stage.give("olga", await stage.scope_at("authz", ["group:acme"], "token:read"))
    part = (await stage.call("GET", f"/v1/tokens/{token_id}/usage", olga)).json()
    assert [one["target"] for one in part["items"]] == ["project:acme/web"]
    assert part["networks"] == []
    assert part["seen"]["calls"] == 1
    assert (await stage.call("GET", f"/v1/tokens/{token_id}/suggestion", olga)).status_code == 404
    _, eve = await stage.give("eve", scope("authz", "user", "token:read"))
    assert (await stage.call("GET", f"/v1/tokens/{token_id}/usage", eve)).status_code == 404
    first = (await stage.call("GET", f"/v1/tokens/{token_id}/usage", admin, params={"limit": "1"})).json()
    params = {"limit": "1", "cursor": first["next_cursor"]}
    second = (await stage.call("GET", f"/v1/tokens/{token_id}/usage", admin, params=params)).json()
    assert [one["target"] for page in (first, second) for one in page["items"]] == [
        "project:acme/web",
        "project:open/site",
    ]
    assert second["next_cursor"] is None


# changes


async def test_a_change_names_the_recent_uses_that_it_would_end(stage: Stage):
    admin = await stage.admin()
    token_id, secret = await stage.give("dana", await at(stage, ["group:acme"], "job:read", "job:run"))
    idle, _ = await stage.give("dana", await at(stage, ["group:acme"], "job:run"))
    await check(stage, admin, secret, "job:run", "acme/web")
    await check(stage, admin, secret, "job:read", "acme/web")
    await folded(stage)

    async def ask(**change: Any) -> dict[str, Any]:
        answer = await stage.call("POST", "/v1/simulate/change", admin, {"catalog": "gitlab"} | change)
        assert answer.status_code == 200, answer.text
        return answer.json()

    gone = await ask(permission="job:run")
    assert [(one["token_id"], [use["permission"] for use in one["uses"]]) for one in gone["items"]] == [
        (token_id, ["job:run"])
    ]
    left = await ask(user="dana", node="group:acme", role=None)
    assert [(one["token_id"], {use["reason"] for use in one["uses"]}) for one in left["items"]] == [
        (token_id, {"owner_not_member"})
    ]
    assert (await ask(user="dana", node="group:acme", role="owner"))["items"] == []
    assert (await ask(user="olga", node="group:acme", role=None))["items"] == []
    paged = await ask(user="dana", node="group:acme", role=None, limit=1)
    assert paged["next_cursor"]
    rest = await ask(user="dana", node="group:acme", role=None, limit=1, cursor=paged["next_cursor"])
    uses = [use["permission"] for page in (paged, rest) for one in page["items"] for use in one["uses"]]
    assert sorted(uses) == ["job:read", "job:run"]
    assert idle not in str(left)
    same = await ask(version=1)
    assert same["items"] == []
    assert (await check(stage, admin, secret, "job:run", "acme/web"))["decision"] == "allow"


SENSELESS_CHANGES: list[dict[str, Any]] = [
    {"catalog": "gitlab"},
    {"catalog": "gitlab", "permission": "job:run", "version": 2},
    {"catalog": "gitlab", "user": "dana"},
    {"catalog": "gitlab", "user": "nobody", "node": "group:acme"},
    {"catalog": "gitlab", "user": "dana", "node": "group:none"},
    {"catalog": "nobody", "version": 1},
    {"catalog": "gitlab", "version": 9999},
    {"catalog": "gitlab", "permission": "no:such"},
    {"catalog": "gitlab", "permission": "job:run", "cursor": "nonsense"},
]


async def test_a_change_that_makes_no_sense_is_refused(stage: Stage):
    admin = await stage.admin()
    for body in SENSELESS_CHANGES:
        answer = await stage.call("POST", "/v1/simulate/change", admin, body)
        assert answer.status_code == 400, body
        assert answer.json()["faults"], body


async def test_a_group_owner_may_ask_about_members_of_the_group_alone(stage: Stage):
    admin = await stage.admin()
    _, secret = await stage.give("dana", await at(stage, ["group:acme"], "job:run"))
    await check(stage, admin, secret, "job:run", "acme/web")
    await folded(stage)
    _, olga = await stage.give("olga", await stage.scope_at("authz", ["group:acme"], "token:read"))
    inside = {"catalog": "gitlab", "user": "dana", "node": "group:acme", "role": None}
    answer = await stage.call("POST", "/v1/simulate/change", olga, inside)
    assert [use["target"] for one in answer.json()["items"] for use in one["uses"]] == ["project:acme/web"]
    for beyond in ({"catalog": "gitlab", "permission": "job:run"}, inside | {"node": "group:open"}):
        assert (await stage.call("POST", "/v1/simulate/change", olga, beyond)).status_code == 403


async def test_a_group_owner_learns_nothing_of_uses_elsewhere(stage: Stage):
    """Neither counted nor found by a cursor that points at them (M3)."""
    admin = await stage.admin()
    await stage.apply({"type": "membership", "user": "dana", "node": "open", "role": "developer"})
    shared, secret = await stage.give("dana", await at(stage, ["group:acme", "group:open"], "job:read", "job:run"))
    foreign, other = await stage.give("dana", await at(stage, ["group:open"], "job:read", "job:run"))
    await check(stage, admin, secret, "job:run", "acme/web")
    await folded(stage)
    _, olga = await stage.give("olga", await stage.scope_at("authz", ["group:acme"], "token:read"))
    site, web = await stage.node("open/site"), await stage.node("acme/web")
    keys = [
        (token, permission, place)
        for token in ("", "tok_", shared, foreign, "tok_zzzz")
        for permission in ("", "job:read", "job:run", "~")
        for place in ("", str(site), str(web), "~")
    ]
    cursors = [None, *(write_cursor("change", *key) for key in keys)]
    change = {"catalog": "gitlab", "user": "dana", "node": "group:acme", "role": None}

    async def told() -> list[bytes]:
        asked = [{**change, "cursor": cursor} if cursor else change for cursor in cursors]
        found = [await stage.call("POST", "/v1/simulate/change", olga, body) for body in asked]
        path = f"/v1/tokens/{shared}/usage"
        found += [await stage.call("GET", path, olga, params=query) for query in ({}, {"limit": "1"})]
        assert {answer.status_code for answer in found} == {200}
        return [answer.content for answer in found]

    before = await told()
    for token in (secret, other):
        for permission in ("job:read", "job:run"):
            await check(stage, admin, token, permission, "open/site")
    await folded(stage)
    assert await told() == before
    whole = await stage.call("GET", f"/v1/tokens/{shared}/usage", admin)
    assert whole.json()["seen"]["calls"] == 3
