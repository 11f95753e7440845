"""Grant requests and grants over HTTP: asked, reviewed, given at once (P4)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from tests.support.managing import scope
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


async def test_a_token_waits_until_an_owner_approves_it(strict):
    token = await strict.make(strict.dana, reason="nightly build")
    assert token["grants"] == ["group:acme"]
    assert await strict.check(token) == "approval_pending"
    request = await strict.waiting()
    waits = {"group": "group:acme", "catalog": "gitlab", "permissions": ["job:read", "job:run"]}
    pending = [{**waits, "state": "pending", "request_id": request["id"]}]
    assert token["approvals"] == pending
    assert (await strict.stage.call("GET", "/v1/self", token["secret"])).json()["approvals"] == pending
    assert (request["token"]["name"], request["token"]["owner"], request["reason"]) == ("jobs", "dana", "nightly build")
    assert request["asked"] == [{"node": "project:acme/web", "permissions": ["job:read", "job:run"]}]
    approved = await strict.decide(strict.olga, request["id"])
    assert approved.status_code == 200
    assert approved.json()["closed_by"]["user"] == "olga"
    assert await strict.check(token) == "granted"
    own = (await strict.stage.call("GET", "/v1/self", token["secret"])).json()
    assert own["approvals"] == [{**waits, "state": "active", "request_id": None}]
    [grant] = await strict.grants(strict.olga, state="active")
    assert (grant["origin"], grant["token"]["id"]) == ("review", token["id"])


async def test_a_denied_token_may_ask_again(strict):
    token = await strict.make(strict.dana)
    request = await strict.waiting()
    assert (await strict.decide(strict.olga, request["id"], "deny", reason="too much")).status_code == 200
    assert await strict.check(token) == "approval_denied"
    path = f"/v1/tokens/{token['id']}/grant-requests"
    asked = await strict.stage.call("POST", path, strict.dana, {"node": "project:acme/web", "reason": "please"})
    assert asked.status_code == 200, asked.text
    assert await strict.check(token) == "approval_pending"
    assert (await strict.waiting())["reason"] == "please"


async def test_a_group_may_approve_less_than_was_asked(strict):
    token = await strict.make(
        strict.dana, scopes=[strict.on("group:acme/tools", "project:acme/web", may=("job:read", "job:run"))]
    )
    request = await strict.waiting()
    done = await strict.decide(
        strict.olga, request["id"], permissions=["job:read"], nodes=["project:acme/tools/lint", "project:acme/web"]
    )
    assert done.status_code == 200, done.text
    assert await strict.check(token) == "granted"
    assert await strict.check(token, target="project:acme/tools/lint") == "granted"
    assert await strict.check(token, target="project:acme/tools/fmt") == "approval_denied"
    assert await strict.check(token, "job:run") == "approval_denied"


@pytest.mark.parametrize(
    "less", [{"permissions": ["job:delete"]}, {"nodes": ["project:acme/site"]}, {"nodes": ["group:acme"]},
             {"nodes": ["group:hidden"]}, {"permissions": []}, {"nodes": []}, {"nodes": ["no such place at all"]}]
)  # fmt: skip
async def test_nothing_is_approved_that_was_not_asked(strict, less):
    token = await strict.make(strict.dana)
    request = await strict.waiting()
    assert (await strict.decide(strict.olga, request["id"], **less)).status_code == 400
    assert (await strict.waiting())["id"] == request["id"]
    assert await strict.check(token) == "approval_pending"


async def test_what_is_closed_stays_closed(strict):
    token = await strict.make(strict.dana)
    request = await strict.waiting()
    cancelled = await strict.decide(strict.dana, request["id"], "cancel")
    assert cancelled.json()["state"] == "cancelled"
    late = await strict.decide(strict.olga, request["id"])
    assert late.status_code == 409
    assert "cancelled" in late.json()["detail"]
    assert await strict.check(token) == "approval_pending"
    assert await strict.grants(strict.olga) == []


async def test_a_superseded_request_cannot_be_approved_any_more(strict):
    token = await strict.make(strict.dana)
    request = await strict.waiting()
    await edit(strict, token, scopes=[strict.on("project:acme/web", may=("job:read", "job:run", "pipeline:read"))])
    newer = await strict.waiting()
    assert newer["id"] != request["id"]
    late = await strict.decide(strict.olga, request["id"])
    assert late.status_code == 409
    assert f"superseded by request {newer['id']}" in late.json()["detail"]
    assert await strict.check(token) == "approval_pending"


async def edit(acme: Organisation, token: Any, secret: str | None = None, **changes: Any) -> Any:
    answer = await acme.stage.call(
        "PATCH", f"/v1/tokens/{token['id']}", secret or acme.dana, changes, headers={"If-Match": "*"}
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_two_racing_reviewers_never_both_win(strict):
    for attempt in range(6):
        token = await strict.make(strict.dana, name=f"raced {attempt}")
        request = await strict.waiting()
        answers = await asyncio.gather(
            strict.decide(strict.olga, request["id"], "approve"), strict.decide(strict.owen, request["id"], "deny")
        )
        statuses = sorted(answer.status_code for answer in answers)
        assert statuses == [200, 409]
        approved = answers[0].status_code == 200
        assert await strict.check(token) == ("granted" if approved else "approval_denied")


async def test_an_owner_outside_the_group_decides_nothing(strict):
    await strict.make(strict.dana)
    number = (await strict.waiting())["id"]
    hidden = await strict.decide(strict.hank, number)
    unknown = await strict.decide(strict.hank, number + 1000)
    assert hidden.status_code == unknown.status_code == 404
    assert hidden.json()["detail"] == unknown.json()["detail"]
    answer = await strict.stage.call("GET", "/v1/grant-requests?node=group:acme", strict.hank)
    assert answer.status_code == 400
    assert (await strict.decide(strict.dana, number)).status_code == 403
    assert (await strict.stage.call("GET", "/v1/grant-requests", strict.olga)).status_code == 403
    assert (await strict.stage.call("GET", "/v1/grant-requests", strict.admin)).status_code == 200


async def test_an_owner_who_asks_for_themselves_is_approved_at_once(strict):
    token = await strict.make(strict.admin, owner="olga")  # asked by somebody else
    assert await strict.check(token) == "approval_pending"
    own = await strict.make(await everything_of(strict, "olga"))
    assert await strict.check(own) == "granted"
    [grant] = await strict.grants(strict.owen, state="active")
    assert grant["origin"] == "owner"


async def everything_of(acme: Organisation, name: str) -> str:
    """A token of an owner that also decides at the group."""
    decide = await acme.stage.scope_at("authz", ["group:acme"], "grant:decide", "grant:read")
    jobs = scope("gitlab", "all_memberships", "job:read", "job:run", "pipeline:read")
    own = scope("authz", "user", "token:create", "token:read", "token:edit")
    return (await acme.stage.give(name, decide, own, jobs, catalogs={"authz": 1, "gitlab": 2}))[1]


async def test_a_token_that_is_denied_has_no_other_made_that_is_not(strict):
    """An owner's own token without a grant, and without the right to decide, passes nothing on to a new one."""
    jobs = scope("gitlab", "all_memberships", "job:read", "job:run")
    own = scope("authz", "user", "token:create")
    weak = (await strict.stage.give("olga", own, jobs, catalogs={"authz": 1, "gitlab": 2}))[1]
    assert await strict.check(weak) == "approval_pending"
    made = await strict.make(weak)
    assert await strict.check(made) == "approval_pending"


async def test_nobody_approves_their_own_request_while_another_owner_is_there(strict):
    token = await strict.make(strict.admin, owner="olga")
    request = await strict.waiting()
    refused = await strict.decide(strict.olga, request["id"])
    assert refused.status_code == 403
    assert await strict.check(token) == "approval_pending"
    assert (await strict.decide(strict.owen, request["id"])).status_code == 200
    assert await strict.check(token) == "granted"


async def test_a_groups_only_owner_approves_their_own(strict):
    token = await strict.make(strict.admin, owner="olga")
    request = await strict.waiting()
    await strict.stage.apply({"type": "delete", "what": "membership", "user": "owen", "node": "acme"})
    assert (await strict.decide(strict.olga, request["id"])).status_code == 200
    assert await strict.check(token) == "granted"


async def test_a_service_account_is_never_approved_at_once(strict):
    bot = await strict.make(strict.admin, owner="bot")
    assert await strict.check(bot) == "approval_pending"
    await strict.stage.apply({"type": "membership", "user": "bot", "node": "acme", "role": "owner"})
    again = await strict.make(strict.admin, owner="bot", name="again")
    assert await strict.check(again) == "approval_pending"


async def test_rules_approve_what_a_person_asks_and_they_allow(acme):
    rules = [{"only_reads": True, "max_lifetime_days": 30, "max_nodes": 1}]
    await acme.put(acme.olga, "group:acme", grandfather="false", approval={"value": "required", "auto_approve": rules})
    async with acme.stage.database.read() as conn:
        now = (await conn.execute(text("select authz_now()"))).scalar_one()
    soon, later = (now + timedelta(days=29)).isoformat(), (now + timedelta(days=31)).isoformat()
    reads = [acme.on("project:acme/web")]
    fine = await acme.make(acme.dana, expires_at=soon, scopes=reads)
    assert await acme.check(fine) == "granted"
    [grant] = await acme.grants(acme.olga, state="active")
    assert grant["origin"] == "rule"
    for name, changes in {
        "writes": {"expires_at": soon, "scopes": [acme.on("project:acme/web", may=("job:read", "job:run"))]},
        "long": {"expires_at": later, "scopes": reads},
        "endless": {"scopes": reads},
        "wide": {"expires_at": soon, "scopes": [acme.on("project:acme/web", "project:acme/site")]},
        "whole": {"expires_at": soon, "scopes": [acme.on("group:acme")]},
    }.items():
        assert await acme.check(await acme.make(acme.dana, name=name, **changes)) == "approval_pending", name


async def test_rules_of_two_policies_must_both_allow(acme):
    await acme.put(acme.admin, "instance", approval={"value": "required", "auto_approve": [{"only_reads": True}]})
    await acme.put(acme.olga, "group:acme", approval={"value": "required", "auto_approve": [{"max_nodes": 1}]})
    reads = await acme.make(acme.dana, scopes=[acme.on("project:acme/web")])
    assert await acme.check(reads) == "granted"
    writes = await acme.make(acme.dana, scopes=[acme.on("project:acme/web", may=("job:read", "job:run"))])
    assert await acme.check(writes) == "approval_pending"
    await acme.put(acme.olga, "group:acme", approval={"value": "required", "auto_approve": []})
    again = await acme.make(acme.dana, scopes=[acme.on("project:acme/web")])
    assert await acme.check(again) == "approval_pending"


async def test_many_are_decided_at_once_and_each_says_what_became_of_it(strict):
    for number in range(5):
        await strict.make(strict.dana, name=f"many {number}")
    ids = [one["id"] for one in await strict.requests(strict.olga, state="pending")]
    body = {"ids": [*ids[:3], 999_999], "action": "approve"}
    answer = await strict.stage.call("POST", "/v1/grant-requests", strict.olga, body)
    results = answer.json()["results"]
    assert [result["done"] is not None for result in results] == [True, True, True, False]
    assert results[3]["problem"]["code"] == "not_found"
    many = await strict.stage.call(
        "POST", "/v1/grant-requests", strict.olga, {"ids": list(range(1, 102)), "action": "deny"}
    )
    assert many.status_code == 400
    grants = [one["id"] for one in await strict.grants(strict.olga, state="active")]
    revoked = await strict.stage.call("POST", "/v1/grants", strict.olga, {"ids": grants, "reason": "cleaning"})
    assert all(result["done"]["state"] == "revoked" for result in revoked.json()["results"])


async def test_lists_come_in_complete_pages_and_keep_what_is_asked(strict):
    for number in range(7):
        await strict.make(strict.dana, name=f"page {number}")
    seen: list[int] = []
    cursor: str | None = None
    while True:
        query = {"node": "group:acme", "limit": "3"} | ({} if cursor is None else {"cursor": cursor})
        page = (await strict.stage.call("GET", "/v1/grant-requests", strict.olga, params=query)).json()
        seen += [one["id"] for one in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == sorted(set(seen), reverse=True)
    assert len(seen) == 7
    assert await strict.requests(strict.olga, state="denied") == []
    wrong = await strict.stage.call("GET", "/v1/grant-requests?node=group:acme&cursor=abc", strict.olga)
    assert wrong.status_code == 400


async def test_owners_of_a_token_see_what_became_of_it(strict):
    token = await strict.make(strict.dana)
    answer = await strict.stage.call("GET", f"/v1/grant-requests?token={token['id']}", strict.dana)
    assert [one["state"] for one in answer.json()["items"]] == ["pending"]
    other = await strict.stage.call("GET", f"/v1/grant-requests?token={token['id']}", strict.hank)
    unknown = await strict.stage.call("GET", "/v1/grant-requests?token=tok_nobody", strict.hank)
    assert other.status_code == unknown.status_code == 404


async def test_every_step_is_in_the_audit_and_told_to_those_who_listen(strict):
    token = await strict.make(strict.dana)
    await strict.decide(strict.olga, (await strict.waiting())["id"])
    [grant] = await strict.grants(strict.olga, state="active")
    await strict.stage.call("DELETE", f"/v1/grants/{grant['id']}", strict.olga)
    async with strict.stage.database.read() as conn:
        query = "select action from audit where subject = :token and action like 'grant.%' order by id"
        actions = (await conn.execute(text(query), {"token": token["id"]})).scalars().all()
        query = "select kind from event where token_id = :token and kind like 'grant.%' order by id"
        kinds = (await conn.execute(text(query), {"token": token["id"]})).scalars().all()
    assert list(actions) == ["grant.approve", "grant.revoke"]
    assert list(kinds) == ["grant.requested", "grant.approved", "grant.revoked"]


async def test_nothing_of_a_revoked_token_is_approved(strict):
    token = await strict.make(strict.dana)
    request = await strict.waiting()
    await strict.stage.call("DELETE", f"/v1/tokens/{token['id']}", strict.admin)
    assert (await strict.decide(strict.olga, request["id"])).status_code == 409
    assert (await strict.decide(strict.olga, request["id"], "deny")).status_code == 200
