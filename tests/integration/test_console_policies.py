"""Policies and approvals in the console: said beforehand, decided by others, whole or in part, or in bulk."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest
from tests.support.console import Visitor, field_of, make, secret_of, signed_in
from tests.support.managing import Stage, staged


@pytest.fixture
async def stage(database_url: str) -> AsyncIterator[Stage]:
    async with staged(database_url) as found:
        yield found


async def require_approval(visitor: Visitor, node: str, **fields: str) -> str:
    """Through the form, as its owner does: what it would stop first, and then the change. The words in between."""
    await visitor.get(f"/console/policies?node={node}&catalog=gitlab")
    usual = {"node": node, "catalog": "gitlab", "approval": "required", "etag": field_of(visitor.page.text, "etag")}
    await visitor.post("/console/policies", usual | fields | {"go": "try"})
    tried = visitor.text
    assert visitor.page.status_code == 200, tried
    await visitor.post("/console/policies", usual | fields | {"go": "set"})
    await visitor.follow()
    assert "It is set" in visitor.text
    return tried


async def test_an_owner_asks_for_approval_and_decides_what_waits(stage):
    olga, dana = await signed_in(stage, "olga"), await signed_in(stage, "dana")
    assert "This would stop no live token" in await require_approval(olga, "group:acme")
    begin = "?catalog=gitlab&node=project:acme/web&p=job:read&step=finish"
    for name in ("approved later", "denied later"):
        page = await make(dana, ("create", {"name": name, "expires": "7", "reason": "to see jobs"}), begin=begin)
        assert page.status_code == 201, dana.text
    secret = secret_of(page.text)

    async def decision() -> str:
        question = {"resource": "job", "action": "read", "target": "acme/web", "fully_consistent": True}
        return str((await stage.call("POST", "/v1/self/check", secret, question)).json()["reason"])

    assert await decision() == "approval_pending"
    await olga.get("/console/requests?node=group:acme")
    assert "approved later" in olga.text
    assert "to see jobs" in olga.text
    ids = re.findall(r'name="id" value="(\d+)"', olga.page.text)
    assert len(ids) == 2
    await olga.post("/console/requests?node=group:acme", [("id", one) for one in ids] + [("go", "approve")])
    assert olga.text.count("approved.") == 2
    assert await decision() == "granted"
    await olga.post("/console/requests?node=group:acme", {"go": f"deny:{ids[0]}"})
    assert f"Request {ids[0]}:" in olga.text
    assert await decision() == "granted"

    await olga.get("/console/grants?node=group:acme")
    grants = re.findall(r'name="id" value="(\d+)"', olga.page.text)
    assert grants
    for one in grants:
        await olga.get("/console/grants?node=group:acme")
        await olga.post("/console/grants", {"go": f"end:{one}"})
        assert f"Grant {one}: revoked." in olga.text
    assert await decision() == "approval_revoked"


async def test_nobody_decides_for_a_group_that_is_not_theirs(stage):
    olga, dana = await signed_in(stage, "olga"), await signed_in(stage, "dana")
    await require_approval(olga, "group:acme")
    await make(
        dana,
        ("create", {"name": "mine", "expires": "7"}),
        begin="?catalog=gitlab&node=project:acme/web&p=job:read&step=finish",
    )
    await olga.get("/console/requests?node=group:acme")
    [number] = re.findall(r'name="id" value="(\d+)"', olga.page.text)
    await dana.get("/console/requests?node=group:acme")
    assert "mine" not in dana.page.text.partition("<main")[2].replace("examine", "")
    await dana.post("/console/requests", {"go": f"approve:{number}"})
    assert "approved." not in dana.text
    await olga.get("/console/requests?node=group:acme")
    assert number in re.findall(r'name="id" value="(\d+)"', olga.page.text)
    await dana.get("/console/policies?node=group:acme")
    assert dana.page.status_code == 400
    await dana.post("/console/policies", {"node": "group:acme", "catalog": "gitlab", "approval": "off", "go": "set"})
    assert dana.page.status_code == 400


async def test_a_policy_that_was_changed_meanwhile_is_not_overwritten(stage):
    olga = await signed_in(stage, "olga")
    await olga.get("/console/policies?node=group:acme&catalog=gitlab")
    read = {"node": "group:acme", "catalog": "gitlab", "etag": field_of(olga.page.text, "etag"), "go": "set"}
    await olga.post("/console/policies", read | {"legacy": "forbid"})
    assert olga.page.status_code == 303
    await olga.get("/console/account")
    await olga.post("/console/policies", read | {"legacy": "allow"})
    assert olga.page.status_code == 400
    await olga.get("/console/policies?node=group:acme&catalog=gitlab")
    assert '<option value="forbid" selected>' in olga.page.text


async def test_a_policy_comes_back_as_it_was_written(stage):
    root = await signed_in(stage, "root")
    fields = {
        "fine_grained": "allow",
        "fine_grained_force": "yes",
        "days_fine_grained": "90",
        "days_fine_grained_force": "yes",
        "exempt_fine_grained": "yes",
        "legacy": "date",
        "legacy_date": "2030-01-31",
        "legacy_services": "yes",
        "approval_force": "yes",
        "auto": "rules",
        "auto_reads_0": "yes",
        "auto_days_0": "30",
        "auto_days_1": "7",
        "auto_nodes_1": "3",
        "auto_nodes_3": "1",
        "inactive": "180",
        "inactive_force": "yes",
    }
    await require_approval(root, "instance", **fields)
    page = root.page.text
    # Rows that say nothing are left out, so the last rule moves up.
    fields["auto_nodes_2"] = fields.pop("auto_nodes_3")
    for name, value in fields.items():
        tag = re.search(rf'<(?:input|select)[^>]*name="{name}"[^>]*>(?:.*?</select>)?', page, re.DOTALL)
        assert tag is not None, name
        if tag[0].startswith("<select"):
            assert f'<option value="{value}" selected>' in tag[0], name
        else:
            assert ("checked" in tag[0]) if value == "yes" else (f'value="{value}"' in tag[0]), (name, tag[0])


@pytest.mark.parametrize("number", ["0", "-1", "1.5", "x", "9999999", "\uff11"])
async def test_a_limit_that_is_no_number_is_said_and_nothing_is_set(stage, number):
    root = await signed_in(stage, "root")
    await root.get("/console/policies?node=instance&catalog=gitlab")
    fields = {"node": "instance", "catalog": "gitlab", "go": "set", "days_legacy": number, "legacy_date": "no day"}
    await root.post("/console/policies", fields | {"legacy": "date"})
    assert root.page.status_code == 400
    assert "Write a whole number" in root.text
    assert "Write the day as" in root.text


# what is said beforehand, partial approval, bulk

WEB = "?catalog=gitlab&node=project:acme/web&p=job:read&p=job:run&step=finish"


async def test_what_will_wait_for_approval_is_said_before_the_token_is_made(stage):
    olga, dana = await signed_in(stage, "olga"), await signed_in(stage, "dana")
    await dana.get(f"/console/tokens/new{WEB}")
    assert "Nobody has to approve it" in dana.text
    await require_approval(olga, "group:acme", auto="rules", auto_reads_0="yes")
    await dana.get(f"/console/tokens/new{WEB}")
    assert "Approval is needed." in dana.text
    assert "group:acme : job:read job:run on project:acme/web" in dana.text
    await dana.get("/console/tokens/new?catalog=gitlab&node=project:acme/web&p=job:read&step=finish")
    assert "Nobody has to approve it" in dana.text
    await dana.get("/console/tokens?search=x")
    assert "No token fits" in dana.text
    await olga.get("/console/requests?node=group:acme")
    assert "Nothing waits here" in olga.text


async def test_a_life_that_a_policy_refuses_is_said_before_the_token_is_made(stage):
    olga, dana = await signed_in(stage, "olga"), await signed_in(stage, "dana")
    await require_approval(olga, "group:acme", approval="", days_fine_grained="7")
    await dana.get(f"/console/tokens/new{WEB}&expires=30")
    assert "It would be refused." in dana.text
    assert "7 days at most" in dana.text
    await dana.get(f"/console/tokens/new{WEB}&expires=7")
    assert "It would be refused." not in dana.text


async def test_an_owner_approves_a_part_of_what_is_asked(stage):
    olga, dana = await signed_in(stage, "olga"), await signed_in(stage, "dana")
    await require_approval(olga, "group:acme")
    begin = f"{WEB}&node=project:acme/tools/lint"
    secret = secret_of((await make(dana, ("create", {"name": "a part", "expires": "7"}), begin=begin)).text)
    await olga.get("/console/requests?node=group:acme")
    [number] = re.findall(r'name="id" value="(\d+)"', olga.page.text)
    await olga.post("/console/requests?node=group:acme", {"go": f"part:{number}"})
    assert "Tick the permissions" in olga.text
    await olga.get("/console/requests?node=group:acme")
    ticked = {f"permissions:{number}": "job:read job:delete", "go": f"part:{number}"}
    await olga.post("/console/requests?node=group:acme", ticked)
    assert "was not asked for" in olga.text
    await olga.get("/console/requests?node=group:acme")
    ticked = {f"permissions:{number}": "job:read", f"nodes:{number}": "project:acme/web", "go": f"part:{number}"}
    await olga.post("/console/requests?node=group:acme", ticked)
    assert f"Request {number}: approved." in olga.text
    asked = {
        ("job:read", "project:acme/web"): True,
        ("job:run", "project:acme/web"): False,
        ("job:read", "project:acme/tools/lint"): False,
    }
    for (permission, target), expected in asked.items():
        assert await stage.allows(secret, permission, target) is expected, (permission, target)


async def test_a_token_that_waits_is_marked_for_its_owner(stage):
    olga, dana = await signed_in(stage, "olga"), await signed_in(stage, "dana")
    await require_approval(olga, "group:acme")
    await make(dana, ("create", {"name": "waiting", "expires": "30"}), begin=WEB)
    await dana.get("/console/tokens")
    assert ">waits</span>" in dana.page.text
    [token_id] = set(re.findall(r"/console/tokens/(tok_\w+)", dana.page.text))
    await dana.get(f"/console/tokens/{token_id}")
    assert "waits for approval" in dana.text
    await olga.get("/console/requests?node=group:acme")
    [number] = re.findall(r'name="id" value="(\d+)"', olga.page.text)
    await olga.post("/console/requests?node=group:acme", {"go": f"approve:{number}"})
    await dana.get("/console/tokens")
    assert ">waits</span>" not in dana.page.text
    await dana.get(f"/console/tokens/{token_id}")
    assert "granted group:acme" in dana.text


async def test_grants_end_several_at_once_and_each_by_itself(stage):
    olga, dana = await signed_in(stage, "olga"), await signed_in(stage, "dana")
    await require_approval(olga, "group:acme")
    secrets = [
        secret_of((await make(dana, ("create", {"name": name, "expires": "7"}), begin=WEB)).text) for name in "abc"
    ]
    await olga.get("/console/requests?node=group:acme")
    ids = re.findall(r'name="id" value="(\d+)"', olga.page.text)
    await olga.post("/console/requests?node=group:acme", [*(("id", one) for one in ids), ("go", "approve")])
    await olga.get("/console/grants?node=group:acme")
    granted = re.findall(r'name="id" value="(\d+)"', olga.page.text)
    assert len(granted) == 3
    await dana.get("/console/account")
    await dana.post("/console/grants", [*(("id", one) for one in granted), ("go", "end")])
    assert "revoked." not in dana.text
    await olga.post("/console/grants?node=group:acme", [("id", granted[0]), ("id", granted[1]), ("go", "end")])
    assert olga.text.count(": revoked.") == 2
    assert sorted([await stage.allows(one) for one in secrets]) == [False, False, True]
    await olga.get("/console/grants?node=group:acme")
    await olga.post("/console/grants?node=group:acme", {"go": "end"})
    assert "Tick at least one grant" in olga.text


async def test_rules_alone_and_no_rule_at_all_are_told_apart(stage):
    root = await signed_in(stage, "root")
    await root.get("/console/policies?node=instance&catalog=gitlab")
    usual = {"node": "instance", "catalog": "gitlab", "go": "try"}
    for fields, said in (
        ({"auto": "rules", "auto_reads_0": "yes"}, "rules alone say nothing"),
        ({"approval": "required", "auto": "rules"}, "Write at least one rule"),
        ({"approval": "required", "auto": "rules", "auto_days_0": "x", "auto_nodes_1": "-1"}, "a whole number"),
    ):
        await root.get("/console/policies?node=instance&catalog=gitlab")
        await root.post("/console/policies", usual | fields)
        assert root.page.status_code == 400
        assert said in root.text
    await require_approval(root, "instance", auto="none")
    assert re.search(r'<select name="auto">.*?value="none" selected', root.page.text, re.DOTALL)


async def test_a_dry_run_names_what_would_stop_and_counts_it(stage):
    olga, dana = await signed_in(stage, "olga"), await signed_in(stage, "dana")
    for name in ("one", "<b>two</b>"):
        await make(dana, ("create", {"name": name, "expires": "30"}), begin=WEB)
    await olga.get("/console/policies?node=group:acme&catalog=gitlab")
    fields = {"node": "group:acme", "catalog": "gitlab", "fine_grained": "forbid", "go": "try"}
    await olga.post("/console/policies", fields)
    assert "This would stop 2 live tokens." in olga.text
    assert "one for dana" in olga.text
    assert "<b>two</b>" not in olga.page.text
    await dana.get("/console/tokens")
    assert dana.page.text.count(">active</span>") == 2
