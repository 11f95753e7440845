"""Policies over HTTP: set by owners, inherited, forced, tried out; nobody locks themselves out (P1 to P3)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from tests.support.managing import scope
from tests.support.organisations import Organisation, organisation


@pytest.fixture
async def acme(database_url: str) -> AsyncIterator[Organisation]:
    async with organisation(database_url) as found:
        yield found


FORBIDDEN = {"legacy": {"value": "forbid"}}


async def test_an_owner_sets_a_policy_and_it_counts_at_once(acme):
    _, coarse = await acme.stage.give("dana", catalogs={"gitlab": 1}, legacy_scopes=("api",))
    assert await acme.check(coarse) == "granted"
    await acme.put(acme.olga, "group:acme", **FORBIDDEN)
    assert await acme.check(coarse) == "policy_forbids_kind"


async def test_a_denial_says_which_policy_where_and_since_when(acme):
    _, coarse = await acme.stage.give("dana", catalogs={"gitlab": 1}, legacy_scopes=("api",))
    await acme.put(acme.olga, "group:acme", legacy={"forbidden_from": "2020-01-01"})
    body = {"token": coarse, "catalog": "gitlab", "resource": "job", "action": "read", "target": "project:acme/web"}
    answer = await acme.stage.call("POST", "/check", acme.gateway, body | {"fully_consistent": True})
    assert "the policy of `group:acme` forbids legacy tokens since 2020-01-01" in answer.json()["message"]


async def test_a_policy_is_shown_as_it_was_set_and_as_it_counts_below(acme):
    said = {"approval": {"value": "required"}, "max_lifetime_days": {"fine_grained": {"value": 90}}}
    await acme.put(acme.olga, "group:acme", **said)
    answer = await acme.stage.call("GET", "/v1/policies?node=group:acme/tools&catalog=gitlab", acme.olga)
    [shown] = answer.json()["policies"]
    assert shown["said"] is None
    assert shown["in_force"]["approval"] == {"value": "required", "by": "group:acme"}
    assert shown["in_force"]["max_lifetime_days.fine_grained"] == {"value": 90, "by": "group:acme"}
    own = (await acme.stage.call("GET", "/v1/policies?node=group:acme", acme.olga)).json()["policies"][0]
    assert own["said"]["approval"]["value"] == "required"
    assert own["changed_by"] == "olga"


async def test_an_owner_manages_nothing_beside_or_above_their_group(acme):
    await acme.put(acme.olga, "instance", expect=403, **FORBIDDEN)
    await acme.put(acme.olga, "group:open", expect=403, **FORBIDDEN)
    hidden = await acme.put(acme.olga, "group:hidden", expect=400, **FORBIDDEN)
    unknown = await acme.put(acme.olga, "group:nowhere", expect=400, **FORBIDDEN)
    assert hidden["faults"][0]["code"] == unknown["faults"][0]["code"] == "target_unknown"
    await acme.put(acme.dana, "group:acme", expect=403, **FORBIDDEN)
    await acme.put(acme.olga, "group:acme/tools", **FORBIDDEN)
    answer = await acme.stage.call("GET", "/v1/policies?node=group:acme", acme.hank)
    assert answer.status_code == 400


async def test_what_is_forced_above_is_refused_below_and_its_policy_named(acme):
    await acme.put(
        acme.admin,
        "instance",
        fine_grained={"value": "allow", "force": True},
        legacy={"forbidden_from": "2030-01-01", "force": True},
        approval={"value": "off", "force": True},
        max_lifetime_days={"fine_grained": {"value": 90, "force": True}},
        max_inactive_days={"value": 30, "force": True},
    )
    refused = await acme.put(
        acme.olga,
        "group:acme",
        expect=400,
        fine_grained={"value": "forbid"},
        legacy={"forbidden_from": "2031-01-01"},
        approval={"value": "required"},
        max_lifetime_days={"fine_grained": {"value": 91}},
        max_inactive_days={"value": 31},
    )
    assert {fault["where"] for fault in refused["faults"]} == {
        "/fine_grained", "/legacy", "/approval", "/max_lifetime_days/fine_grained", "/max_inactive_days",
    }  # fmt: skip
    assert {fault["code"] for fault in refused["faults"]} == {"policy_forced"}
    assert all("the policy of `instance`" in fault["message"] for fault in refused["faults"])
    await acme.put(acme.olga, "group:acme", legacy={"value": "forbid"}, max_inactive_days={"value": 29})


async def test_a_policy_set_meanwhile_is_not_overwritten(acme):
    read = await acme.stage.call("GET", "/v1/policies?node=group:acme&catalog=gitlab", acme.olga)
    tag = read.headers["etag"]
    first = await acme.put(acme.olga, "group:acme", tag=tag, **FORBIDDEN)
    await acme.put(acme.owen, "group:acme", expect=412, tag=tag, legacy={"value": "allow"})
    again = await acme.put(acme.owen, "group:acme", tag=first["policies"][0]["etag"], legacy={"value": "allow"})
    assert again["policies"][0]["said"]["legacy"]["value"] == "allow"


async def test_a_policy_that_says_nothing_is_taken_away(acme):
    await acme.put(acme.olga, "group:acme", **FORBIDDEN)
    await acme.put(acme.olga, "group:acme")
    answer = await acme.stage.call("GET", "/v1/policies?node=group:acme", acme.olga)
    assert answer.json()["policies"] == []


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({"approval": {"value": "required", "auto_approve": [{}]}}, "matches_everything"),
        ({"approval": {"value": "required", "auto_approve": [{"only_reads": False}]}}, "matches_everything"),
        ({"max_lifetime_days": {"legacy": {"value": 0}}}, "out_of_range"),
        ({"max_inactive_days": {"value": -3}}, "out_of_range"),
        ({"legacy": {"value": "perhaps"}}, "unknown_value"),
        ({"legacy": {"forbidden_from": "tomorrow"}}, "invalid_date"),
        ({"legacy": {}}, "missing_field"),
        ({"legacy": {"value": "allow", "forbidden_from": "2027-01-01"}}, "missing_field"),
        ({"legacy": {"value": "allow", "include_service_accounts": True}}, "not_for_setting"),
        ({"approval": {"value": "required", "auto_approve": [{"max_nodes": 0}]}}, "out_of_range"),
        ({"catalog": "nobody"}, "catalog_unknown"),
        ({"surprise": 1}, "unknown_field"),
    ],
)
async def test_a_policy_with_faults_is_refused_and_nothing_changed(acme, said, code):
    refused = await acme.put(acme.olga, "group:acme", expect=400, **said)
    assert [fault["code"] for fault in refused["faults"]] == [code]
    assert (await acme.stage.call("GET", "/v1/policies?node=group:acme", acme.olga)).json()["policies"] == []


async def test_a_policy_is_for_groups_and_the_instance_alone(acme):
    for node in ("project:acme/web", "user:dana"):
        refused = await acme.put(acme.admin, node, expect=400, **FORBIDDEN)
        assert refused["faults"][0]["code"] == "invalid_value"


async def test_a_dry_run_names_the_live_tokens_that_would_stop_and_changes_nothing(acme):
    coarse, secret = await acme.stage.give("dana", catalogs={"gitlab": 1}, legacy_scopes=("api",))
    fine = await acme.make(acme.dana)
    tried = await acme.put(
        acme.olga, "group:acme", dry_run="true", legacy={"value": "forbid"},
        max_lifetime_days={"fine_grained": {"value": 30}},
    )  # fmt: skip
    stopped = {one["id"]: one for one in tried["would_stop"]}
    assert stopped[coarse]["reason"] == "policy_forbids_kind"
    assert stopped[coarse]["owner"] == "dana"
    assert stopped[fine["id"]]["reason"] == "lifetime_exceeds_policy"
    assert tried["would_stop_count"] == len(stopped)
    assert await acme.check(secret) == "granted"
    assert (await acme.stage.call("GET", "/v1/policies?node=group:acme", acme.olga)).json()["policies"] == []


async def test_a_dry_run_of_approval_tells_what_is_carried_over(acme):
    fine = await acme.make(acme.dana)
    required = {"approval": {"value": "required"}}
    kept = await acme.put(acme.olga, "group:acme", dry_run="true", **required)
    assert fine["id"] not in [one["id"] for one in kept["would_stop"]]
    assert kept["grants_carried_over"] >= 1
    lost = await acme.put(acme.olga, "group:acme", dry_run="true", grandfather="false", **required)
    assert "approval_pending" in [one["reason"] for one in lost["would_stop"] if one["id"] == fine["id"]]


async def test_a_token_that_a_policy_refuses_is_not_issued(acme):
    await acme.put(
        acme.olga, "group:acme", legacy={"value": "forbid"}, max_lifetime_days={"fine_grained": {"value": 30}}
    )
    refused = await acme.make(acme.dana, expect=400)
    assert [fault["code"] for fault in refused["faults"]] == ["lifetime_exceeds_policy"]
    assert "`group:acme`" in refused["faults"][0]["message"]
    ends = (await _now(acme) + timedelta(days=29)).isoformat()
    await acme.make(acme.dana, expires_at=ends)
    elsewhere = await acme.make(acme.dana, scopes=[acme.on("project:dana/notes")])
    assert elsewhere["state"] == "active"


async def test_a_limit_refuses_a_rotation_and_revokes_nothing(acme):
    token = await acme.make(acme.dana)
    await acme.put(acme.olga, "group:acme", max_lifetime_days={"fine_grained": {"value": 30}})
    assert await acme.check(token) == "lifetime_exceeds_policy"
    shown = await acme.stage.call("GET", f"/v1/tokens/{token['id']}", acme.dana)
    assert shown.json()["state"] == "active"
    refused = await acme.stage.call("POST", f"/v1/tokens/{token['id']}/rotate", acme.admin, {})
    assert refused.status_code == 400
    assert refused.json()["faults"][0]["code"] == "lifetime_exceeds_policy"
    soon = (await _now(acme) + timedelta(days=10)).isoformat()
    rotated = await acme.stage.call("POST", f"/v1/tokens/{token['id']}/rotate", acme.admin, {"expires_at": soon})
    assert await acme.check(rotated.json()) == "granted"


async def _now(acme: Organisation):
    from sqlalchemy import text

    async with acme.stage.database.read() as conn:
        return (await conn.execute(text("select authz_now()"))).scalar_one()


async def test_nobody_locks_themselves_out(acme):
    """P3: whatever a policy says of management, admins and gateways go on; others do not."""
    everything = {
        "catalog": "authz",
        "fine_grained": {"value": "forbid", "force": True},
        "legacy": {"value": "forbid"},
        "max_lifetime_days": {"fine_grained": {"value": 1}},
    }
    token = await acme.make(acme.dana)
    await acme.put(acme.admin, "instance", **everything)
    assert await acme.check(token) == "granted"  # the gateway asks, about another catalog
    assert (await acme.stage.call("GET", "/v1/policies?node=group:acme", acme.olga)).status_code == 403
    await acme.put(acme.admin, "instance", catalog="authz")
    assert (await acme.stage.call("GET", "/v1/policies?node=group:acme", acme.olga)).status_code == 200


async def test_no_policy_of_another_catalog_reaches_management(acme):
    await acme.put(acme.admin, "instance", fine_grained={"value": "forbid"})
    assert (await acme.stage.call("GET", "/v1/policies?node=group:acme", acme.olga)).status_code == 200


async def test_a_change_of_a_policy_is_in_the_audit_and_the_outbox(acme):
    from sqlalchemy import text

    await acme.put(acme.olga, "group:acme", **FORBIDDEN)
    async with acme.stage.database.read() as conn:
        [row] = (await conn.execute(text("select * from audit where action = 'policy.set'"))).mappings().all()
        events = (await conn.execute(text("select kind from event where kind = 'policy.changed'"))).scalars().all()
    assert row["details"]["after"]["legacy"]["value"] == "forbid"
    assert row["revision"] is not None
    assert len(events) == 1


async def test_policies_of_an_api_without_a_directory_apply_by_path(acme):
    from tests.support.managing import UPSTREAM

    await acme.stage.install(UPSTREAM, "orders")
    made = await acme.stage.call(
        "POST",
        "/v1/tokens",
        acme.admin,
        {"name": "o", "owner": "Dana", "catalog": "orders", "scopes": [acme.on("group:Shop", may=("order:read",))]},
    )
    secret = made.json()["secret"]
    body = {"token": secret, "catalog": "orders", "resource": "order", "action": "read", "target": "project:shop/a"}

    async def reason() -> str:
        answer = await acme.stage.call("POST", "/check", acme.gateway, body | {"fully_consistent": True})
        return answer.json()["reason"]

    assert await reason() == "granted"
    await acme.put(acme.olga, "group:shop", expect=403, catalog="orders", fine_grained={"value": "forbid"})
    await acme.put(acme.admin, "group:SHOP", catalog="orders", fine_grained={"value": "forbid"})
    assert await reason() == "policy_forbids_kind"
    await acme.put(acme.admin, "group:shop", catalog="orders", approval={"value": "required"})
    assert await reason() == "approval_pending" or await reason() == "granted"


@pytest.mark.parametrize("catalog", ["gitlab"])
async def test_the_quick_way_sees_a_policy_and_a_grant_at_once(acme, catalog):
    """What is answered from memory follows every change that any policy above or grant makes."""
    import httpx

    token = await acme.make(acme.dana)
    transport = httpx.ASGITransport(app=acme.stage.app.state.hot)
    body = {"token": token["secret"], "catalog": catalog, "resource": "job", "action": "read"}
    body["target"] = "project:acme/web"
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as hot:

        async def reasons() -> set[str]:
            found = set()
            for _ in range(4):
                answer = await hot.post("/check", json=body, headers={"Authorization": f"Bearer {acme.gateway}"})
                found.add(answer.json()["reason"])
            return found

        async def settled() -> None:
            await acme.stage.app.state.services.point.follower.poll_now()

        assert await reasons() == {"granted"}
        await acme.put(acme.admin, "instance", fine_grained={"value": "forbid"})
        await settled()
        assert await reasons() == {"policy_forbids_kind"}
        await acme.put(acme.admin, "instance", approval={"value": "required"}, grandfather="false")
        await settled()
        assert await reasons() == {"approval_pending"}
        request = await acme.stage.call(
            "POST", f"/v1/tokens/{token['id']}/grant-requests", acme.dana, {"node": "group:acme"}
        )
        number = (await acme.waiting())["id"] if request.status_code == 409 else request.json()["items"][0]["id"]
        await acme.decide(acme.olga, number)
        await settled()
        assert await reasons() == {"granted"}
        [grant] = await acme.grants(acme.olga, state="active")
        await acme.stage.call("DELETE", f"/v1/grants/{grant['id']}", acme.olga)
        await settled()
        assert await reasons() == {"approval_revoked"}
        await acme.put(acme.admin, "instance")
        await settled()
        assert await reasons() == {"granted"}


async def test_a_signed_secret_of_a_policy_never_leaves_the_group(acme):
    """A member who owns nothing reads no policy of the group, and a stranger not even that it exists."""
    member = await acme.stage.give("dana", scope("authz", "all_memberships", "policy:read"))
    assert (await acme.stage.call("GET", "/v1/policies?node=group:acme", member[1])).status_code == 403
    stranger = await acme.stage.give("eve", scope("authz", "all_memberships", "policy:read"))
    hidden = await acme.stage.call("GET", "/v1/policies?node=group:acme", stranger[1])
    nowhere = await acme.stage.call("GET", "/v1/policies?node=group:acma", stranger[1])
    assert hidden.status_code == nowhere.status_code == 400
    assert hidden.json()["faults"][0]["code"] == nowhere.json()["faults"][0]["code"]


async def test_a_dry_run_names_the_live_tokens_that_would_start_and_what_is_looser(acme):
    """A body replaces the whole policy: what it leaves out is taken back, and the dry run says so."""
    await acme.put(acme.olga, "group:acme", grandfather="false", approval={"value": "required"},
                   max_lifetime_days={"fine_grained": {"value": 90}}, max_inactive_days={"value": 30})  # fmt: skip
    soon = (await _now(acme) + timedelta(days=9)).isoformat()
    token = await acme.make(acme.dana, expires_at=soon)
    tried = await acme.put(acme.olga, "group:acme", dry_run="true", **FORBIDDEN, max_inactive_days={"value": 29})
    started = {one["id"]: one for one in tried["would_start"]}
    assert started[token["id"]]["reason"] == "approval_pending"
    assert started[token["id"]]["node"] == "project:acme/web"
    assert tried["would_start_count"] == len(started)
    assert token["id"] not in [one["id"] for one in tried["would_stop"]]
    assert tried["looser"] == [
        {"setting": "approval", "before": {"value": "required", "force": False}, "after": None},
        {
            "setting": "max_lifetime_days.fine_grained",
            "before": {"value": 90, "force": False, "exempt_admins": False},
            "after": None,
        },
    ]
    assert await acme.check(token) == "approval_pending"


async def test_a_part_that_would_start_is_named_beside_one_that_goes_on_waiting(acme):
    await acme.put(acme.olga, "group:acme", grandfather="false", approval={"value": "required"})
    token = await acme.make(acme.dana)
    await acme.decide(acme.olga, (await acme.waiting())["id"], permissions=["job:read"])
    same = await acme.put(acme.olga, "group:acme", dry_run="true", approval={"value": "required"})
    assert token["id"] not in [one["id"] for one in same["would_start"]]
    assert same["looser"] == []
    off = await acme.put(acme.olga, "group:acme", dry_run="true", approval={"value": "off"})
    assert [one["reason"] for one in off["would_start"] if one["id"] == token["id"]] == ["approval_denied"]


REQUIRED = {"approval": {"value": "required"}}
RULED = {"approval": {"value": "required", "auto_approve": [{"only_reads": True, "max_lifetime_days": 30}]}}


@pytest.mark.parametrize(
    ("before", "after", "looser"),
    [
        (FORBIDDEN, {"legacy": {"forbidden_from": "2027-01-01"}}, ["legacy"]),
        (FORBIDDEN, {"legacy": {"value": "forbid", "include_service_accounts": True}}, []),
        ({"legacy": {"value": "forbid", "include_service_accounts": True}}, FORBIDDEN, ["legacy"]),
        ({}, {"legacy": {"value": "allow", "force": True}}, ["legacy"]),
        ({}, {"approval": {"value": "off", "force": True}}, ["approval"]),
        ({"fine_grained": {"value": "forbid"}}, {}, ["fine_grained"]),
        ({}, RULED, []),
        (REQUIRED, RULED, ["approval"]),
        (RULED, REQUIRED, ["approval"]),
        (RULED, {"approval": {"value": "required", "auto_approve": []}}, []),
        (RULED, {"approval": {"value": "required", "auto_approve": [{"only_reads": True}]}}, ["approval"]),
        (
            RULED,
            {"approval": {"value": "required",
                          "auto_approve": [{"only_reads": True, "max_lifetime_days": 29, "max_nodes": 1}]}},
            [],
        ),
        ({"max_inactive_days": {"value": 30}}, {"max_inactive_days": {"value": 31}}, ["max_inactive_days"]),
        (
            {"max_lifetime_days": {"legacy": {"value": 30}}},
            {"max_lifetime_days": {"legacy": {"value": 29, "exempt_admins": True}}},
            ["max_lifetime_days.legacy"],
        ),
    ],
)  # fmt: skip
async def test_what_is_looser_is_named_and_refused_where_it_may_not(acme, before, after, looser):
    await acme.put(acme.olga, "group:acme", **before)
    tried = await acme.put(acme.olga, "group:acme", dry_run="true", **after)
    assert [one["setting"] for one in tried["looser"]] == looser
    done = await acme.put(acme.olga, "group:acme", 400 if looser else 200, allow_loosening="false", **after)
    if looser:
        assert [(one["where"], one["code"]) for one in done["faults"]] == [
            ("/" + looser[0].replace(".", "/"), "policy_loosens")
        ]
        assert (await acme.put(acme.olga, "group:acme", **after))["looser"] == tried["looser"]


async def test_rules_are_looser_where_a_group_above_or_below_requires_approval(acme):
    await acme.put(acme.olga, "group:acme/tools", **REQUIRED)
    tried = await acme.put(acme.olga, "group:acme", dry_run="true", **RULED)
    assert [one["setting"] for one in tried["looser"]] == ["approval"]


async def test_the_audit_names_the_tokens_that_were_carried_over(acme):
    from sqlalchemy import text

    token = await acme.make(acme.dana)
    set_ = await acme.put(acme.olga, "group:acme", **REQUIRED)
    async with acme.stage.database.read() as conn:
        details = (await conn.execute(text("select details from audit where action = 'policy.set'"))).scalar_one()
    carried = details["tokens_carried_over"]
    assert token["id"] in carried["ids"]
    assert carried["count"] == len(carried["ids"]) >= 1
    assert details["grants_carried_over"] == set_["grants_carried_over"]


async def test_a_dry_run_compares_paths_as_the_catalog_does(acme):
    from sqlalchemy import text
    from tests.support.managing import UPSTREAM

    await acme.stage.install(UPSTREAM, "orders")
    held = {"name": "o", "owner": "Dana", "catalog": "orders", "scopes": [acme.on("group:Shop", may=("order:read",))]}
    assert (await acme.stage.call("POST", "/v1/tokens", acme.admin, held)).status_code == 201
    async with acme.stage.database.transaction() as conn:  # as it was stored before creations wrote it so themselves
        query = "update token set scopes = replace(scopes::text, 'group:shop', 'group:Shop')::jsonb"
        await conn.execute(text(query))
    said = {"catalog": "orders", **REQUIRED}
    tried = await acme.put(acme.admin, "group:shop", dry_run="true", **said)
    done = await acme.put(acme.admin, "group:shop", **said)
    assert tried["grants_carried_over"] == done["grants_carried_over"] == 1
    assert tried["would_stop_count"] == 0
