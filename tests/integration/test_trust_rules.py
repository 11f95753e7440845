"""Trust rules that change, and what goes on record of exchanges that were refused (M5)."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from sqlalchemy import text
from tests.support.issuer import another_key, issuing
from tests.support.locks import waits_for_a_lock
from tests.support.managing import Stage, staged
from tests.support.trusting import admin, exchange, keeper, rule, wanted

from authz_service.admin.refusals import MOST_RULES, Refusals
from authz_service.store import trust


@pytest.fixture
async def issuer(tmp_path):
    async with issuing(tmp_path) as running:
        yield running


@pytest.fixture
async def stage(database_url, tmp_path, issuer):
    given = {"webhook_private_hosts": "localhost", "webhook_ca_file": tmp_path / "ca.pem"}
    async with staged(database_url, **given) as running:
        yield running


async def edit(stage: Stage, secret: str, made: dict, change: dict, tag: str | None = None):
    headers = {"If-Match": tag or made["etag"]}
    return await stage.call("PATCH", f"/v1/trust-rules/{made['id']}", secret, change, headers=headers)


async def rows(stage: Stage, action: str) -> list:
    async with stage.database.read() as conn:
        query = text("select subject, details, nodes, actor_token from audit where action = :action order by id")
        return list((await conn.execute(query, {"action": action})).all())


# edits


async def test_an_edited_rule_gives_by_what_it_says_now(stage, issuer):
    secret = await keeper(stage)
    made = await rule(stage, issuer, secret)
    scopes = [{"reach": {"kind": "selected", "nodes": ["project:acme/web"]}, "permissions": ["job:run"]}]
    answer = await edit(stage, secret, made, {"claims": {"project_path": "acme/web", "ref": "next"}, "scopes": scopes})
    assert answer.status_code == 200, answer.text
    edited = answer.json()
    assert answer.headers["etag"] == edited["etag"] != made["etag"]
    unchanged = ("id", "node", "name", "issuer", "audience", "owner", "catalog", "lifetime_seconds", "created_at")
    assert {name: edited[name] for name in unchanged} == {name: made[name] for name in unchanged}
    assert (await exchange(stage, issuer.sign(), rule=made["id"])).status_code == 400
    given = await exchange(stage, issuer.sign(ref="next"), rule=made["id"])
    assert given.json()["scope"] == "job:run"
    shown = await stage.call("GET", f"/v1/trust-rules/{made['id']}", secret)
    assert shown.headers["etag"] == edited["etag"]
    [row] = await rows(stage, "trust_rule.edit")
    assert (row.subject, row.details["claims"]["ref"], row.details["gives"]["scopes"][0]["permissions"]) == (
        made["id"],
        "next",
        ["job:run"],
    )


@pytest.mark.parametrize(
    ("change", "lives"),
    [
        ({"name": "deploy of the web"}, True),
        ({"lifetime_seconds": 60}, True),
        ({"claims": {"project_path": "acme/web"}}, False),
        ({"audience": "https://other.test"}, False),
    ],
)
async def test_what_a_rule_gave_is_revoked_unless_its_name_or_lifetime_alone_change(stage, issuer, change, lives):
    secret = await keeper(stage)
    made = await rule(stage, issuer, secret)
    given = (await exchange(stage, issuer.sign(), rule=made["id"])).json()["access_token"]
    assert await stage.allows(given)
    assert (await edit(stage, secret, made, change)).status_code == 200
    assert await stage.allows(given) is lives


async def rotate(stage: Stage, admin: str, secret: str, overlap: int) -> str:
    """The secret that stands in the place of this one."""
    token = (await stage.call("GET", "/v1/self", secret)).json()["id"]
    rotated = await stage.call("POST", f"/v1/tokens/{token}/rotate", admin, {"overlap_seconds": overlap})
    assert rotated.status_code == 201, rotated.text
    return str(rotated.json()["secret"])


@pytest.mark.parametrize("overlap", [0, 300])
async def test_what_a_rule_gave_ends_with_the_rule_however_often_it_was_rotated(stage, issuer, overlap):
    admin, secret = await stage.admin(), await keeper(stage)
    made = await rule(stage, issuer, secret)
    members = [(await exchange(stage, issuer.sign(), rule=made["id"])).json()["access_token"]]
    for _ in range(2):
        members.append(await rotate(stage, admin, members[-1], overlap))
    assert [await stage.allows(one) for one in members] == [overlap > 0, overlap > 0, True]
    assert (await stage.call("DELETE", f"/v1/trust-rules/{made['id']}", secret)).status_code == 204
    assert [await stage.allows(one) for one in members] == [False] * 3


async def test_a_secret_rotated_while_its_rule_is_removed_ends_with_the_rule(stage, issuer, monkeypatch):
    admin, secret = await stage.admin(), await keeper(stage)
    made = await rule(stage, issuer, secret)
    given = (await exchange(stage, issuer.sign(), rule=made["id"])).json()["access_token"]
    carried, reached, opened = trust.carry_over, asyncio.Event(), asyncio.Event()

    async def stopped(conn: Any, old: Any, new: Any) -> None:
        await carried(conn, old, new)
        reached.set()
        await opened.wait()

    monkeypatch.setattr(trust, "carry_over", stopped)
    rotating = asyncio.create_task(rotate(stage, admin, given, 0))
    await reached.wait()
    removing = asyncio.create_task(stage.call("DELETE", f"/v1/trust-rules/{made['id']}", secret))
    assert await waits_for_a_lock(stage.database, removing)
    opened.set()
    assert (await removing).status_code == 204
    assert not await stage.allows(await rotating)


async def test_an_edit_of_what_was_not_read_is_refused(stage, issuer):
    secret = await keeper(stage)
    made = await rule(stage, issuer, secret)
    first = await edit(stage, secret, made, {"name": "one"})
    assert first.status_code == 200
    stale = await edit(stage, secret, made, {"name": "two"})
    assert (stale.status_code, stale.json()["code"]) == (412, "precondition_failed")
    untagged = await stage.call("PATCH", f"/v1/trust-rules/{made['id']}", secret, {"name": "two"})
    assert untagged.status_code == 428
    assert (await edit(stage, secret, made, {"name": "three"}, "*")).status_code == 200
    tag = (await stage.call("GET", f"/v1/trust-rules/{made['id']}", secret)).json()["etag"]
    racing = await asyncio.gather(*(edit(stage, secret, made, {"name": f"n{one}"}, tag) for one in range(4)))
    assert sorted(answer.status_code for answer in racing) == [200, 412, 412, 412]


async def test_an_edit_is_judged_as_a_creation_of_whoever_edits(stage, issuer):
    made = await rule(stage, issuer, await keeper(stage))
    authz = await stage.scope_at("authz", ["group:acme"], "token:create", "token:read")
    smaller = (await stage.give("olga", authz, await stage.scope_at("gitlab", ["group:acme"], "job:run")))[1]
    beyond = await edit(stage, smaller, made, {"name": "mine"})
    assert beyond.status_code == 403
    assert {fault["code"] for fault in beyond.json()["faults"]} == {"beyond_issuer"}
    scopes = [{"reach": {"kind": "selected", "nodes": ["project:acme/web"]}, "permissions": ["job:run"]}]
    mine = await edit(stage, smaller, made, {"scopes": scopes})
    assert mine.status_code == 200, mine.text
    assert mine.json()["made_by_token"] != made["made_by_token"]
    # It lives by that token now, and ends with it.
    assert (await exchange(stage, issuer.sign(), rule=made["id"])).status_code == 200
    assert (await stage.call("DELETE", "/v1/self", smaller)).status_code == 200
    assert (await exchange(stage, issuer.sign(), rule=made["id"])).status_code == 400


async def test_who_keeps_no_rules_there_edits_none_and_learns_nothing(stage, issuer):
    made = await rule(stage, issuer)
    authz = await stage.scope_at("authz", ["group:acme"], "token:create", "token:read")
    for secret in [(await stage.give("dana", authz))[1], (await stage.give("eve", authz))[1]]:
        unseen = await edit(stage, secret, made, {"name": "mine"}, "*")
        missing = await edit(stage, secret, {"id": "tru_" + "0" * 20}, {"name": "mine"}, "*")
        assert (unseen.status_code, unseen.text) == (missing.status_code, missing.text)
        assert unseen.status_code == 404


async def test_all_faults_of_an_edit_are_told_and_nothing_changes(stage, issuer):
    secret = await keeper(stage)
    made = await rule(stage, issuer, secret)
    change = {"issuer": "http://x", "audience": "", "claims": {"ref": "*"}, "lifetime_seconds": 1, "owner": "dana"}
    answer = await edit(stage, secret, made, change)
    assert answer.status_code == 400
    assert {fault["where"] for fault in answer.json()["faults"]} == {
        "/issuer",
        "/audience",
        "/claims",
        "/claims/ref",
        "/lifetime_seconds",
        "/owner",
    }
    for body in ({"node": "group:open"}, {"claims": 7}, [], {"scopes": []}):
        assert (await edit(stage, secret, made, body)).status_code == 400
    shown = (await stage.call("GET", f"/v1/trust-rules/{made['id']}", secret)).json()
    assert shown["etag"] == made["etag"]


async def test_keys_are_pinned_and_let_go_by_an_edit(stage, issuer):
    secret = await keeper(stage)
    made = await rule(stage, issuer, secret)
    pinned = (await edit(stage, secret, made, {"keys": {"keys": [issuer.public()]}})).json()
    assert (await exchange(stage, issuer.sign(), rule=made["id"])).status_code == 200
    assert issuer.receiver.requests == []
    kept = (await edit(stage, secret, pinned, {"name": "pinned"})).json()
    assert kept["keys"] == pinned["keys"]
    loose = (await edit(stage, secret, kept, {"keys": None})).json()
    assert loose["keys"] is None
    assert (await exchange(stage, issuer.sign(), rule=made["id"])).status_code == 200
    assert issuer.receiver.requests


async def test_an_edit_that_changes_nothing_leaves_no_row(stage, issuer):
    secret = await keeper(stage)
    made = await rule(stage, issuer, secret)
    answer = await edit(stage, secret, made, {"name": made["name"], "claims": made["claims"]})
    assert answer.json()["etag"] == made["etag"]
    assert await rows(stage, "trust_rule.edit") == []


# refused exchanges


async def test_a_refused_exchange_says_to_the_rules_keeper_what_did_not_fit_and_nothing_of_the_token(stage, issuer):
    made = await rule(stage, issuer)
    secrets = [
        issuer.sign(ref="feature/x", sub="project_path:acme/web:secret-subject"),
        issuer.sign(another_key(), "ES256"),
    ]
    for one in secrets:
        assert (await exchange(stage, one, rule=made["id"])).status_code == 400
    assert (await exchange(stage, issuer.sign(ref="ma" + "i" * 2_000), rule=made["id"])).status_code == 400
    taken = issuer.sign()
    assert [(await exchange(stage, taken, rule=made["id"])).status_code for _ in range(2)] == [200, 400]
    found = await rows(stage, "token.exchange_refused")
    assert [(row.subject, row.details["why"], row.details["claim"]) for row in found] == [
        (made["id"], "a claim does not fit", "ref"),
        (made["id"], "no key proves it", None),
        (made["id"], "a claim is longer than 2000 characters", "ref"),
        (made["id"], "this job token was exchanged before", None),
    ]
    assert {row.details["issuer"] for row in found} == {issuer.url}
    group = await stage.node("group:acme")
    assert all(list(row.nodes) == [group] and row.actor_token is None for row in found)
    told = json.dumps([dict(row.details) for row in found])
    assert not any(part in told for one in [*secrets, taken] for part in one.split("."))
    assert "secret-subject" not in told
    assert "feature/x" not in told


async def test_the_group_s_owner_reads_the_row_and_another_group_s_owner_does_not(stage, issuer):
    made = await rule(stage, issuer)
    await exchange(stage, issuer.sign(ref="feature"), rule=made["id"])
    olga = (await stage.give("olga", await stage.scope_at("authz", ["group:acme"], "audit:read")))[1]
    params = {"node": "group:acme", "action": "token.exchange_refused"}
    [row] = (await stage.call("GET", "/v1/audit", olga, params=params)).json()["items"]
    assert row["details"]["claim"] == "ref"
    await stage.apply({"type": "membership", "user": "eve", "node": "open", "role": "owner"})
    eve = (await stage.give("eve", await stage.scope_at("authz", ["group:open"], "audit:read")))[1]
    answer = await stage.call("GET", "/v1/audit", eve, params=params | {"node": "group:open"})
    assert answer.json()["items"] == []


async def test_why_an_author_may_not_give_any_more_is_on_record(stage, issuer):
    made = await rule(stage, issuer)
    await stage.apply({"type": "membership", "user": "olga", "node": "acme", "role": "developer"})
    await exchange(stage, issuer.sign(), rule=made["id"])
    [row] = await rows(stage, "token.exchange_refused")
    assert "may not issue here any more" in row.details["why"]


async def test_of_several_rules_that_fit_each_keeper_is_told(stage, issuer):
    root = await admin(stage)
    made = [await rule(stage, issuer, root, name=name) for name in ("one", "two")]
    await exchange(stage, issuer.sign())
    found = await rows(stage, "token.exchange_refused")
    assert {row.subject for row in found} == {one["id"] for one in made}
    assert all("several rules fit" in row.details["why"] for row in found)


async def test_nobody_fills_the_audit_with_refused_exchanges(stage, issuer):
    secret = await keeper(stage)
    for number in range(MOST_RULES + 2):
        await rule(stage, issuer, secret, name=f"rule {number}", claims={"project_path": "acme/web", "ref": "main"})
    forged = [issuer.sign(another_key(), "ES256", sub=f"forged {number}") for number in range(12)]
    for one in forged:
        assert (await exchange(stage, one)).status_code == 400
    unproven = await rows(stage, "token.exchange_refused")
    assert len(unproven) == 5 * MOST_RULES
    # Made-up tokens do not use up what the issuer's own jobs are told by.
    await exchange(stage, issuer.sign(ref="other"))
    proven = (await rows(stage, "token.exchange_refused"))[len(unproven) :]
    assert {row.details["why"] for row in proven} == {"a claim does not fit"}


async def test_an_issuer_without_a_rule_leaves_no_row(stage, issuer):
    for shown in (issuer.sign(), issuer.sign(iss="https://elsewhere.test"), "a.b.c"):
        await exchange(stage, shown)
    await rule(stage, issuer, audience="https://another.test")
    await exchange(stage, issuer.sign())
    assert await rows(stage, "token.exchange_refused") == []


async def test_what_went_unrecorded_is_counted_in_the_next_row():
    refusals = Refusals(each_minute=2, each_day=100)
    taken = [await refusals.take("https://one.test", proven=True) for _ in range(5)]
    assert taken == [0, 0, None, None, None]
    assert await refusals.take("https://one.test", proven=False) == 0
    assert await refusals.take("https://two.test", proven=True) == 0
    day = Refusals(each_minute=100, each_day=3)
    assert [await day.take("https://one.test", proven=True) for _ in range(4)] == [0, 0, 0, None]


async def test_a_rule_that_is_wanted_for_another_group_is_another_rule(stage, issuer):
    secret = await keeper(stage)
    made = await rule(stage, issuer, secret)
    answer = await edit(stage, secret, made, wanted(issuer))
    assert (answer.status_code, answer.json()["faults"][0]["where"]) == (400, "/node")


# lists


async def listed(stage: Stage, secret: str, query: str) -> list[str]:
    """Names of the rules, over pages of one."""
    found: list[str] = []
    cursor = ""
    while True:
        answer = await stage.call("GET", f"/v1/trust-rules?limit=1{query}{cursor}", secret)
        assert answer.status_code == 200, answer.text
        found += [one["name"] for one in answer.json()["items"]]
        if answer.json()["next_cursor"] is None:
            return sorted(found)
        cursor = f"&cursor={answer.json()['next_cursor']}"


async def test_the_rules_below_a_group_and_all_there_are(stage, issuer):
    await stage.apply(
        {"type": "group", "path": "acme/team", "external_id": "41", "visibility": "private"},
        {"type": "group", "path": "acme/team/inner", "external_id": "42", "visibility": "private"},
        {"type": "project", "path": "open/site", "external_id": "43", "visibility": "public"},
    )
    root, olga = await admin(stage), await keeper(stage)
    for node, name in (
        ("group:acme", "own"),
        ("group:acme/team", "under"),
        ("group:acme/team/inner", "further under"),
        ("group:open", "another's"),
    ):
        await rule(stage, issuer, root, node=node, name=name)
    assert await listed(stage, olga, "&node=group:acme") == ["own"]
    assert await listed(stage, olga, "&node=group:acme&below=false") == ["own"]
    assert await listed(stage, olga, "&node=group:acme&below=true") == ["further under", "own", "under"]
    assert await listed(stage, olga, "&node=group:acme/team&below=true") == ["further under", "under"]
    everything = await stage.admin()
    assert await listed(stage, everything, "") == ["another's", "further under", "own", "under"]
    assert await listed(stage, everything, "&node=group:acme&below=true") == ["further under", "own", "under"]
    for query in ("", "?below=true"):
        answer = await stage.call("GET", f"/v1/trust-rules{query}", olga)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    narrow = await stage.scope_at("authz", ["group:acme/team/inner"], "token:read")
    inner = (await stage.give("olga", narrow))[1]
    assert await listed(stage, inner, "&node=group:acme/team/inner&below=true") == ["further under"]
    assert (await stage.call("GET", "/v1/trust-rules?node=group:acme&below=true", inner)).status_code == 403
