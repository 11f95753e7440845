"""Grants that stand: carried over, narrowed, widened, moved with their places, taken back, seen by owners (P4, M3)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import text
from tests.support.organisations import Organisation, organisation

REQUIRED = {"approval": {"value": "required"}}


@pytest.fixture
async def acme(database_url: str) -> AsyncIterator[Organisation]:
    async with organisation(database_url) as found:
        yield found


@pytest.fixture
async def strict(acme: Organisation) -> Organisation:
    """acme requires approval, and nothing was there before."""
    await acme.put(acme.olga, "group:acme", grandfather="false", **REQUIRED)
    return acme


async def edit(acme: Organisation, token: Any, secret: str | None = None, **changes: Any) -> Any:
    answer = await acme.stage.call(
        "PATCH", f"/v1/tokens/{token['id']}", secret or acme.dana, changes, headers={"If-Match": "*"}
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_switching_approval_on_carries_over_what_live_tokens_hold(acme):
    token = await acme.make(acme.dana)
    whole = await acme.make(acme.dana, scopes=[{"reach": {"kind": "all_memberships"}, "permissions": ["job:read"]}])
    await acme.put(acme.olga, "group:acme", **REQUIRED)
    assert await acme.check(token) == await acme.check(whole) == "granted"
    assert {grant["origin"] for grant in await acme.grants(acme.olga, state="active")} == {"grandfathered"}
    new = await acme.make(acme.dana)
    assert await acme.check(new) == "approval_pending"


async def test_told_otherwise_nothing_is_carried_over(acme):
    token = await acme.make(acme.dana)
    await acme.put(acme.olga, "group:acme", grandfather="false", **REQUIRED)
    assert await acme.check(token) == "approval_pending"


async def move(acme: Organisation, node: str, to: str | None, expect: int = 200) -> None:
    line = {"type": "move", "node": node, "to": to}
    answer = await acme.stage.call("POST", "/v1/directory/import", acme.admin, line)
    assert answer.status_code == expect, answer.text


async def test_a_project_transferred_between_organisations_is_under_the_new_one(acme):
    """Into a group that requires approval: live tokens keep it; out of one: nothing holds it back any more."""
    await acme.stage.apply({"type": "membership", "user": "dana", "node": "open", "role": "developer"})
    await acme.stage.apply({"type": "project", "path": "open/kit", "external_id": "61", "visibility": "private"})
    kit = await acme.make(acme.dana, scopes=[acme.on("project:open/kit")])
    await acme.put(acme.olga, "group:acme", **REQUIRED)
    await move(acme, "open/kit", "acme")
    assert await acme.check(kit, target="project:acme/kit") == "granted"
    new = await acme.make(acme.dana, scopes=[acme.on("project:acme/kit")])
    assert await acme.check(new, target="project:acme/kit") == "approval_pending"
    await move(acme, "acme/kit", "open")
    assert await acme.check(new, target="project:open/kit") == "granted"
    await move(acme, "open/kit", "acme")
    assert await acme.check(new, target="project:acme/kit") == "approval_pending"  # acme has not answered
    assert await acme.check(kit, target="project:acme/kit") == "granted"


async def switch_off_and_on(acme: Organisation) -> None:
    """By a body that does not speak of approval, as a file about something else has it."""
    await acme.put(acme.olga, "group:acme", legacy={"value": "forbid"})
    await acme.put(acme.olga, "group:acme", **REQUIRED)


async def test_approval_switched_off_and_on_again_leaves_what_was_refused_refused(strict):
    waits, denied, revoked = [await strict.make(strict.dana, name=name) for name in ("waits", "denied", "revoked")]
    numbers = {one["token"]["id"]: one["id"] for one in await strict.requests(strict.olga, state="pending")}
    await strict.decide(strict.olga, numbers[denied["id"]], "deny")
    await strict.decide(strict.olga, numbers[revoked["id"]])
    [grant] = await strict.grants(strict.olga, state="active")
    await strict.stage.call("DELETE", f"/v1/grants/{grant['id']}", strict.olga)
    new = await strict.make(strict.dana, name="part")
    part = (await strict.requests(strict.olga, state="pending"))[0]
    assert part["token"]["id"] == new["id"]
    await strict.decide(strict.olga, part["id"], permissions=["job:read"])
    await switch_off_and_on(strict)
    assert await strict.check(waits) == "approval_pending"
    assert await strict.check(denied) == "approval_denied"
    assert await strict.check(revoked) == "approval_revoked"
    assert await strict.check(new) == "granted"
    assert await strict.check(new, "job:run") == "approval_denied"
    # No request that waits is covered by a grant, and to deny it leaves nothing.
    [still] = [one for one in await strict.requests(strict.olga, state="pending") if one["id"] == numbers[waits["id"]]]
    assert waits["id"] not in [one["token"]["id"] for one in await strict.grants(strict.olga, state="active")]
    await strict.decide(strict.olga, still["id"], "deny")
    assert await strict.check(waits) == "approval_denied"


async def test_a_denial_says_what_an_active_grant_still_allows(strict):
    """A place that waits moves below one that is granted: the denial ends nothing there, and says so."""
    scopes = [strict.on("group:acme/tools"), strict.on("project:acme/site", may=("job:read", "job:run"))]
    await strict.make(strict.dana, scopes=scopes)
    approved = await strict.decide(strict.olga, (await strict.waiting())["id"], nodes=["group:acme/tools"])
    assert approved.json()["still_granted"] == []
    token = approved.json()["token"]["id"]
    path = f"/v1/tokens/{token}/grant-requests"
    await strict.stage.call("POST", path, strict.dana, {"node": "project:acme/site"})
    await move(strict, "acme/site", "acme/tools")
    denied = await strict.decide(strict.olga, (await strict.waiting())["id"], "deny")
    assert denied.json()["state"] == "denied"
    assert denied.json()["still_granted"] == [{"node": "project:acme/tools/site", "permissions": ["job:read"]}]


async def test_what_was_never_asked_is_carried_over_beside_what_was_refused(strict):
    token = await strict.make(strict.dana)
    await strict.decide(strict.olga, (await strict.waiting())["id"], permissions=["job:read"])
    await strict.put(strict.olga, "group:acme")
    await edit(strict, token, scopes=[strict.on("project:acme/web", "project:acme/site", may=("job:read", "job:run"))])
    await strict.put(strict.olga, "group:acme", **REQUIRED)
    assert await strict.check(token) == "granted"
    assert await strict.check(token, "job:run") == "approval_denied"
    assert await strict.check(token, "job:run", "project:acme/site") == "granted"


async def test_a_place_that_covers_what_was_refused_together_with_more_is_not_carried_over(strict):
    token = await strict.make(strict.dana, scopes=[strict.on("project:acme/tools/lint")])
    await strict.decide(strict.olga, (await strict.waiting())["id"], "deny")
    await strict.put(strict.olga, "group:acme")
    await edit(strict, token, scopes=[strict.on("group:acme/tools", "project:acme/web")])
    await strict.put(strict.olga, "group:acme", **REQUIRED)
    assert await strict.check(token, target="project:acme/tools/lint") == "approval_denied"
    assert await strict.check(token, target="project:acme/tools/fmt") == "approval_pending"
    assert await strict.check(token) == "granted"


async def test_what_was_granted_after_a_refusal_stands_and_grows(strict):
    token = await strict.make(strict.dana)
    await strict.decide(strict.olga, (await strict.waiting())["id"], "deny")
    path = f"/v1/tokens/{token['id']}/grant-requests"
    await strict.stage.call("POST", path, strict.dana, {"node": "project:acme/web"})
    await strict.decide(strict.olga, (await strict.waiting())["id"])
    await strict.put(strict.olga, "group:acme")
    await edit(strict, token, scopes=[strict.on("group:acme", may=("job:read", "job:run"))])
    await strict.put(strict.olga, "group:acme", **REQUIRED)
    assert await strict.check(token, "job:run") == "granted"
    assert await strict.check(token, "job:run", "project:acme/site") == "granted"


async def test_a_move_revives_nothing_that_a_group_refused(acme):
    await acme.put(acme.olga, "group:acme/tools", grandfather="false", **REQUIRED)
    denied = await acme.make(acme.dana, scopes=[acme.on("project:acme/tools/lint")])
    request = await acme.waiting()
    await acme.decide(acme.olga, request["id"], "deny")
    everywhere = await acme.make(acme.dana, scopes=[acme.on("group:acme")])
    await acme.put(acme.olga, "group:acme", **REQUIRED)
    assert await acme.check(denied, target="project:acme/tools/lint") == "approval_pending"
    assert await acme.check(everywhere, target="project:acme/tools/lint") == "approval_pending"


async def test_what_a_lower_group_granted_is_carried_over_to_the_higher(acme):
    await acme.put(acme.olga, "group:acme/tools", grandfather="false", **REQUIRED)
    token = await acme.make(acme.dana, scopes=[acme.on("project:acme/tools/lint", may=("job:read", "job:run"))])
    request = await acme.waiting()
    await acme.decide(acme.olga, request["id"], permissions=["job:read"])
    await acme.put(acme.olga, "group:acme", **REQUIRED)
    assert await acme.check(token, target="project:acme/tools/lint") == "granted"
    assert await acme.check(token, "job:run", "project:acme/tools/lint") == "approval_pending"


async def test_a_revoked_grant_ends_the_token_there_and_nowhere_else(strict):
    token = await strict.make(strict.dana, scopes=[strict.on("project:acme/web", "project:dana/notes")])
    await strict.decide(strict.olga, (await strict.waiting())["id"])
    [grant] = await strict.grants(strict.olga, state="active")
    assert [one["node"] for one in grant["granted"]] == ["project:acme/web"]
    for _ in range(2):
        done = await strict.stage.call("DELETE", f"/v1/grants/{grant['id']}", strict.olga)
        assert done.status_code == 200
    assert await strict.check(token) == "approval_revoked"
    assert await strict.check(token, target="project:dana/notes") == "granted"
    assert (await strict.stage.call("DELETE", f"/v1/grants/{grant['id']}", strict.hank)).status_code == 404
    assert (await strict.stage.call("DELETE", f"/v1/grants/{grant['id']}", strict.dana)).status_code == 403


async def test_narrowing_acts_at_once_and_widening_asks_while_the_old_grant_stands(strict):
    token = await strict.make(strict.dana)
    await strict.decide(strict.olga, (await strict.waiting())["id"])
    wide = [strict.on("project:acme/web", "project:acme/site", may=("job:read", "job:run"))]
    await edit(strict, token, scopes=wide)
    assert await strict.check(token) == "granted"
    assert await strict.check(token, target="project:acme/site") == "approval_pending"
    request = await strict.waiting()
    assert request["asked"] == [{"node": "project:acme/site", "permissions": ["job:read", "job:run"]}]
    await edit(strict, token, scopes=[strict.on("project:acme/web")])
    assert await strict.check(token, "job:run") == "permission_missing"
    assert await strict.requests(strict.olga, state="pending") == []
    await edit(strict, token, scopes=[strict.on("project:acme/web", may=("job:read", "job:run"))])
    assert await strict.check(token) == "granted"
    assert await strict.check(token, "job:run") == "approval_pending"


async def test_the_secrets_of_a_rotation_share_their_grant(strict):
    token = await strict.make(strict.dana)
    await strict.decide(strict.olga, (await strict.waiting())["id"])
    rotated = await strict.stage.call(
        "POST", f"/v1/tokens/{token['id']}/rotate", strict.admin, {"overlap_seconds": 3600}
    )
    assert rotated.status_code == 201, rotated.text
    assert await strict.check(rotated.json()) == await strict.check(token) == "granted"
    [grant] = await strict.grants(strict.olga, state="active")
    await strict.stage.call("DELETE", f"/v1/grants/{grant['id']}", strict.olga)
    assert await strict.check(rotated.json()) == await strict.check(token) == "approval_revoked"


async def test_the_first_use_asks_where_nobody_ever_asked(acme):
    token = await acme.make(acme.dana)
    await acme.put(acme.olga, "group:acme", grandfather="false", **REQUIRED)
    assert await acme.requests(acme.olga) == []
    assert await acme.check(token) == "approval_pending"
    async with asyncio.timeout(10):
        while not await acme.requests(acme.olga, state="pending"):
            await asyncio.sleep(0.05)
    request = await acme.waiting()
    assert request["asked_by"] == {"token": None, "user": None}
    await acme.decide(acme.olga, request["id"], "deny")
    assert await acme.check(token) == "approval_denied"
    await asyncio.sleep(0.8)
    assert await acme.requests(acme.olga, state="pending") == []


async def test_what_could_not_be_asked_is_asked_at_the_next_use(acme, capsys):
    token = await acme.make(acme.dana)
    await acme.put(acme.olga, "group:acme", grandfather="false", **REQUIRED)
    database = acme.stage.database
    async with database.transaction() as conn:
        await conn.execute(text("alter table grant_request add constraint nothing check (false) not valid"))
    assert await acme.check(token) == "approval_pending"
    async with asyncio.timeout(10):
        while "a group could not be asked" not in capsys.readouterr().out:
            await asyncio.sleep(0.05)
    async with database.transaction() as conn:
        await conn.execute(text("alter table grant_request drop constraint nothing"))
    async with asyncio.timeout(10):
        while not await acme.requests(acme.olga, state="pending"):
            assert await acme.check(token) == "approval_pending"
            await asyncio.sleep(0.05)


async def test_leaving_and_coming_back_leaves_the_grant_as_it_was(strict):
    token = await strict.make(strict.dana)
    await strict.decide(strict.olga, (await strict.waiting())["id"])
    await strict.stage.apply({"type": "delete", "what": "membership", "user": "dana", "node": "acme"})
    assert await strict.check(token) == "owner_not_member"
    await strict.stage.apply({"type": "membership", "user": "dana", "node": "acme", "role": "developer"})
    assert await strict.check(token) == "granted"


async def test_a_groups_owner_sees_every_token_that_reaches_into_it_and_what_lies_inside(acme):
    selected = await acme.make(acme.admin, owner="dana", scopes=[acme.on("project:acme/web", "project:dana/notes")])
    above = await acme.make(acme.admin, owner="dana", scopes=[acme.on("group:acme")])
    whole = await acme.make(
        acme.admin,
        owner="dana",
        scopes=[
            {"reach": {"kind": "all_memberships"}, "permissions": ["job:read"]},
            {"reach": {"kind": "personal_projects"}, "permissions": ["job:run"]},
        ],
    )
    coarse, _ = await acme.stage.give("dana", catalogs={"gitlab": 1}, legacy_scopes=("read_api",))
    stranger, _ = await acme.stage.give("eve", catalogs={"gitlab": 1}, legacy_scopes=("api",))
    elsewhere = await acme.make(acme.admin, owner="dana", scopes=[acme.on("project:dana/notes")])
    found: dict[str, Any] = {}
    for node in ("group:acme", "group:acme/tools"):
        answer = await acme.stage.call("GET", f"/v1/token-export?node={node}", acme.olga)
        assert answer.status_code == 200, answer.text
        found[node] = {one["id"]: one for one in map(json.loads, answer.text.splitlines())}
    inside, below = found["group:acme"], found["group:acme/tools"]
    assert {selected["id"], above["id"], whole["id"], coarse} <= set(inside)
    assert not {stranger, elsewhere["id"]} & set(inside)
    assert inside[selected["id"]]["scopes"][0]["reach"]["nodes"] == ["project:acme/web"]
    assert [scope["reach"]["kind"] for scope in inside[whole["id"]]["scopes"]] == ["all_memberships"]
    assert inside[coarse]["legacy_scopes"] == ["read_api"]
    assert below[above["id"]]["scopes"][0]["reach"]["nodes"] == ["group:acme/tools"]
    assert selected["id"] not in below
    assert all(one["partial"] for one in inside.values())
    assert (await acme.stage.call("GET", "/v1/token-export?node=group:acme", acme.dana)).status_code == 403
    listed = await acme.stage.call("GET", "/v1/tokens?node=group:acme&limit=200", acme.olga)
    assert {one["id"] for one in listed.json()["items"]} == set(inside)
    # One by one they are as the list has them, and what no list has is nowhere.
    parts = 0
    for one in listed.json()["items"]:
        shown = (await acme.stage.call("GET", f"/v1/tokens/{one['id']}", acme.olga)).json()
        if shown["partial"]:
            parts += 1
            for key in ("scopes", "legacy_scopes", "catalogs", "grants", "owner", "conditions", "parent", "etag"):
                assert shown[key] == one[key], key
    assert parts >= 4
    for token in (stranger, elsewhere["id"]):
        assert (await acme.stage.call("GET", f"/v1/tokens/{token}", acme.olga)).status_code == 404
        assert (await acme.stage.call("GET", f"/v1/tokens/{token}/effective", acme.olga)).status_code == 404
    may = (await acme.stage.call("GET", f"/v1/tokens/{whole['id']}/effective", acme.olga)).json()
    assert may["items"]
    assert all(item["target"].partition(":")[2].startswith("acme") for item in may["items"])
    for token in (selected["id"], whole["id"], coarse):
        assert (await acme.stage.call("GET", f"/v1/tokens/{token}", acme.dana)).json()["partial"] is False
