"""What approves by itself, and what may approve at all: rules, owners, service accounts (P2, P4)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from tests.support.managing import scope
from tests.support.organisations import Organisation, organisation

FORCED = {"approval": {"value": "required", "force": True}}


@pytest.fixture
async def acme(database_url: str) -> AsyncIterator[Organisation]:
    async with organisation(database_url) as found:
        yield found


async def ruled(acme: Organisation, *rules: dict[str, Any]) -> None:
    """acme requires approval, and these rules give it."""
    approval = {"value": "required", "auto_approve": list(rules)}
    await acme.put(acme.olga, "group:acme", grandfather="false", approval=approval)


async def days(acme: Organisation, many: int) -> str:
    async with acme.stage.database.read() as conn:
        now = (await conn.execute(text("select authz_now()"))).scalar_one()
    return str((now + timedelta(days=many)).isoformat())


async def edit(acme: Organisation, token: Any, secret: str | None = None, **changes: Any) -> None:
    answer = await acme.stage.call(
        "PATCH", f"/v1/tokens/{token['id']}", secret or acme.dana, changes, headers={"If-Match": "*"}
    )
    assert answer.status_code == 200, answer.text


# whose lists count


async def test_a_list_below_the_group_that_approves_approves_nothing(acme):
    """A subgroup's owner does not switch off what the topmost group demands."""
    await acme.put(acme.olga, "group:acme", grandfather="false", **FORCED)
    rules = [{"max_lifetime_days": 36500}]
    await acme.put(acme.olga, "group:acme/tools", approval={"value": "required", "auto_approve": rules})
    ends = await days(acme, 300)
    token = await acme.make(acme.dana, scopes=[acme.on("project:acme/tools/lint")], expires_at=ends)
    assert await acme.check(token, target="project:acme/tools/lint") == "approval_pending"


async def test_a_list_below_narrows_that_of_the_group(acme):
    await ruled(acme, {"only_reads": True})
    await acme.put(acme.olga, "group:acme/tools", approval={"value": "required", "auto_approve": [{"max_nodes": 1}]})
    one = await acme.make(acme.dana, scopes=[acme.on("project:acme/tools/lint")])
    assert await acme.check(one, target="project:acme/tools/lint") == "granted"
    two = await acme.make(acme.dana, scopes=[acme.on("project:acme/tools/lint", "project:acme/tools/fmt")])
    assert await acme.check(two, target="project:acme/tools/lint") == "approval_pending"
    elsewhere = await acme.make(acme.dana, scopes=[acme.on("project:acme/web", "project:acme/site")])
    assert await acme.check(elsewhere) == "granted"


async def test_the_instances_list_counts_where_it_leaves_approval_to_the_groups(acme):
    await acme.put(acme.admin, "instance", approval={"value": "required", "auto_approve": [{"only_reads": True}]})
    token = await acme.make(acme.dana, scopes=[acme.on("project:acme/web")])
    assert await acme.check(token) == "granted"


# what was given by rule, and is edited


async def test_a_token_that_a_rule_approved_waits_when_it_is_to_live_longer_than_the_rule_allows(acme):
    await ruled(acme, {"only_reads": True, "max_lifetime_days": 30})
    for ends in (None, await days(acme, 31)):
        token = await acme.make(acme.dana, scopes=[acme.on("project:acme/web")], expires_at=await days(acme, 20))
        assert await acme.check(token) == "granted"
        await edit(acme, token, expires_at=await days(acme, 29))
        assert await acme.check(token) == "granted"
        await edit(acme, token, expires_at=ends)
        assert await acme.check(token) == "approval_pending"
        request = await acme.waiting()
        assert request["asked"] == [{"node": "project:acme/web", "permissions": ["job:read"]}]
        await acme.decide(acme.olga, request["id"])
        assert await acme.check(token) == "granted"
        # What a person approved stands on no rule.
        await edit(acme, token, expires_at=await days(acme, 300))
        await edit(acme, token, expires_at=await days(acme, 301))
        assert await acme.check(token) == "granted"


async def test_a_rule_is_judged_over_all_that_the_token_holds_when_more_is_added(acme):
    await ruled(acme, {"only_reads": True, "max_nodes": 1})
    token = await acme.make(acme.dana, scopes=[acme.on("project:acme/web")])
    assert await acme.check(token) == "granted"
    await edit(acme, token, scopes=[acme.on("project:acme/web", "project:acme/site")])
    assert await acme.check(token) == "granted"
    assert await acme.check(token, target="project:acme/site") == "approval_pending"
    request = await acme.waiting()
    assert [one["node"] for one in request["asked"]] == ["project:acme/site"]
    await acme.decide(acme.olga, request["id"], "deny")
    assert await acme.check(token, target="project:acme/site") == "approval_denied"
    path = f"/v1/tokens/{token['id']}/grant-requests"
    await acme.stage.call("POST", path, acme.dana, {"node": "project:acme/site"})
    assert await acme.check(token, target="project:acme/site") == "approval_pending"


async def test_what_a_person_approved_stays_where_a_rule_no_longer_does(acme):
    await ruled(acme, {"only_reads": True})
    token = await acme.make(acme.dana)
    await acme.decide(acme.olga, (await acme.waiting())["id"])
    await edit(acme, token, scopes=[acme.on("project:acme/web", "project:acme/site", may=("job:read", "job:run"))])
    assert await acme.check(token, "job:run") == "granted"
    assert await acme.check(token, "job:run", "project:acme/site") == "approval_pending"


async def test_a_service_account_prolongs_nothing_that_a_rule_gave(acme):
    """A rule judges the person who asks, then as at the creation."""
    await ruled(acme, {"only_reads": True, "max_lifetime_days": 30})
    reads = [acme.on("project:acme/web")]
    token = await acme.make(acme.admin, owner="bot", scopes=reads, expires_at=await days(acme, 20))
    assert await acme.check(token) == "granted"
    jobs = scope("gitlab", "all_memberships", "job:read", "job:run")
    _, bot = await acme.stage.give(
        "bot", scope("authz", "user", "token:edit"), jobs, catalogs={"authz": 1, "gitlab": 2}
    )
    await edit(acme, token, bot, expires_at=await days(acme, 25))
    assert await acme.check(token) == "approval_pending"


# the audit


async def approvals_of(acme: Organisation) -> list[Any]:
    reader = await acme.stage.give("olga", await acme.stage.scope_at("authz", ["group:acme"], "audit:read"))
    answer = await acme.stage.call("GET", "/v1/audit?node=group:acme&action=grant.approve", reader[1])
    assert answer.status_code == 200, answer.text
    return list(answer.json()["items"])


async def test_what_is_approved_by_itself_is_in_the_audit_of_the_group(acme):
    await ruled(acme, {"only_reads": True})
    whole = [{"reach": {"kind": "all_memberships"}, "permissions": ["job:read"]}]
    token = await acme.make(acme.dana, scopes=whole)
    [row] = await approvals_of(acme)
    assert (row["subject"], row["actor"]["user"]) == (token["id"], "dana")
    decide = await acme.stage.scope_at("authz", ["group:acme"], "grant:decide")
    jobs = scope("gitlab", "all_memberships", "job:read", "job:run")
    own = (await acme.stage.give("olga", decide, scope("authz", "user", "token:create", "token:edit"), jobs,
                                 catalogs={"authz": 1, "gitlab": 2}))[1]  # fmt: skip
    mine = await acme.make(own)
    assert await acme.check(mine, "job:run") == "granted"
    assert [row["subject"] for row in await approvals_of(acme)] == [mine["id"], token["id"]]
    await edit(acme, mine, own, scopes=[acme.on("project:acme/web", "project:acme/site", may=("job:read", "job:run"))])
    assert len(await approvals_of(acme)) == 3
    async with acme.stage.database.read() as conn:
        query = "select details ->> 'reason' from audit where action = 'grant.approve' order by id"
        reasons = (await conn.execute(text(query))).scalars().all()
    assert list(reasons) == ["by rule", "by owner", "by owner"]


# four eyes


async def test_a_service_account_approves_nothing_while_a_person_owns_the_group(acme):
    """Its tokens are issued by owners: else one of them would be both pairs of eyes."""
    await acme.put(acme.olga, "group:acme", grandfather="false", **FORCED)
    await acme.stage.apply({"type": "membership", "user": "bot", "node": "acme", "role": "owner"})
    held = await acme.stage.scope_at("authz", ["group:acme"], "grant:decide", "grant:read", "grant:revoke")
    _, bot = await acme.stage.give("bot", held)
    token = await acme.make(acme.dana)
    request = await acme.waiting()
    refused = await acme.decide(bot, request["id"])
    assert refused.status_code == 403
    assert "a service account approves nothing" in refused.json()["detail"]
    assert await acme.check(token) == "approval_pending"
    assert (await acme.decide(bot, request["id"], "deny")).status_code == 200


async def test_a_service_account_approves_where_no_person_owns_the_group(acme):
    await acme.put(acme.olga, "group:acme", grandfather="false", **FORCED)
    await acme.stage.apply({"type": "membership", "user": "bot", "node": "acme", "role": "owner"})
    held = await acme.stage.scope_at("authz", ["group:acme"], "grant:decide", "grant:read")
    _, bot = await acme.stage.give("bot", held)
    token = await acme.make(acme.dana)
    for name in ("olga", "owen"):
        await acme.stage.apply({"type": "delete", "what": "membership", "user": name, "node": "acme"})
    assert (await acme.decide(bot, (await acme.waiting(acme.admin))["id"])).status_code == 200
    assert await acme.check(token) == "granted"
