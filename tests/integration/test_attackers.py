"""Walks of attackers: stolen tokens, a hostile gateway, group owner and operator try what there is; none gets on."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text
from tests.support.attacks import HIDDEN, OWNERS, Scene, rule_body, set_scene, tries
from tests.support.console import Visitor, give_password
from tests.support.managing import ALL_AUTHZ, scope, staged

from authz_service.console.guarding import COOKIE


@pytest.fixture
async def scene(database_url: str) -> AsyncIterator[Scene]:
    given = {"webhook_private_hosts": "localhost", "usage": False, "sweep_interval": 0, "public_url": None}
    async with staged(database_url, *HIDDEN, **given) as stage:
        yield await set_scene(stage)


async def the_walk(scene: Scene, secret: str | None) -> list[tuple[str, str, int]]:
    """All tries with one secret: nothing changes, and no answer tells what is there from what is not."""
    before, got = await scene.state(), []
    for real, absent in zip(tries(scene.real), tries(scene.absent), strict=True):
        method, path, body, headers = real
        found = await scene.call(method, path, secret, body, headers=headers)
        other = await scene.call(absent[0], absent[1], secret, absent[2], headers=absent[3])
        assert found.status_code < 500, (method, path, found.text)
        assert scene.real.hide(found) == scene.absent.hide(other), (method, path, body)
        if found.status_code < 300:
            got.append((method, path.replace(scene.real.token, "…"), found.status_code))
    after = await scene.state()
    assert after == before, {name for name in after if after[name] != before[name]}
    return got


LISTS = {"/v1/grant-requests", "/v1/grants"}
"""Decisions by the hundred: 200, and each by itself is refused."""


def only_harmless(got: list[tuple[str, str, int]], *more: str) -> bool:
    return {path for _, path, _ in got} <= LISTS | set(more)


# a stolen low-power token


@pytest.mark.parametrize("kind", ["reads jobs", "reads one policy", "issues for itself", "is a child", "is nothing"])
async def test_a_stolen_low_power_token_gets_nowhere(scene: Scene, kind: str):
    stage = scene.stage
    reads = await stage.scope_at("gitlab", ["project:acme/web"], "job:read")
    given: tuple[Any, ...] = (reads,)
    parent = None
    match kind:
        case "reads one policy":
            given = (reads, await stage.scope_at("authz", ["group:acme"], "policy:read"))
        case "issues for itself":
            given = (reads, scope("authz", "user", "token:create", "token:edit", "token:rotate"))
        case "is a child":
            given = (reads, scope("authz", "user", "token:create"))
            parent = (await stage.give("mallory", *given))[0]
    secret = None if kind == "is nothing" else (await stage.give("mallory", *given, parent=parent))[1]
    got = await the_walk(scene, secret)
    assert only_harmless(got, "/v1/simulate", "/v1/simulate/change"), got


BEYOND: dict[str, dict[str, Any]] = {
    "another permission": {"permissions": ["job:run"]},
    "a permission that exists nowhere": {"permissions": ["job:everything"]},
    "the project's group": {"nodes": ["group:acme"]},
    "a sibling": {"nodes": ["project:acme/tools/lint"]},
    "both": {"nodes": ["project:acme/web", "group:acme/tools"]},
    "all memberships": {"kind": "all_memberships"},
    "personal projects": {"kind": "personal_projects"},
    "the account": {"kind": "user"},
    "the instance": {"kind": "instance"},
    "another version": {"catalog": "gitlab@2"},
    "another catalog": {"catalog": "github", "permissions": ["contents:read"]},
    "a coarse token": {"draft": {"kind": "legacy", "legacy_scopes": ["api"]}},
    "a gateway": {"catalog": "authz", "permissions": ["decision:evaluate"], "draft": {"evaluates": ["*"]}},
    "more management": {"catalog": "authz", "kind": "user", "permissions": ["token:revoke"]},
    "management of a group": {"catalog": "authz", "nodes": ["group:acme"], "permissions": ["token:create"]},
    "the exemption": {"catalog": "authz", "kind": "instance", "permissions": ["token:create_any"]},
    "somebody else's": {"draft": {"owner": "olga"}},
    "an admin's": {"draft": {"owner": "root"}},
    "a service account's": {"draft": {"owner": "bot"}},
    "under the admin's token": {"draft": {"parent": "admin"}},
    "a template": {"draft": {"template": "gateway", "catalog": "authz"}},
}


@pytest.mark.parametrize("way", ["issue", "edit", "rotate and edit", "clone and edit", "below itself"])
async def test_a_token_that_issues_makes_nothing_that_holds_more_than_itself(scene: Scene, way: str):
    stage = scene.stage
    admin_id, _ = await stage.give("root", scope("authz", "instance", *ALL_AUTHZ), evaluates=("*",))
    given = await stage.scope_at("gitlab", ["project:acme/web"], "job:read")
    own = scope("authz", "user", "token:create", "token:edit", "token:rotate")
    stolen_id, stolen = await stage.give("dana", given, own, may_rotate_self=True)
    if way.startswith("rotate"):
        made = await scene.made("POST", "/v1/self/rotate", stolen, {"overlap_seconds": 3600})
        stolen_id, stolen = made["id"], made["secret"]
    elif way.startswith("clone"):
        made = await scene.made("POST", f"/v1/tokens/{stolen_id}/clone", stolen, {})
        stolen_id, stolen = made["id"], made["secret"]
    shown = await scene.made("GET", f"/v1/tokens/{stolen_id}", stolen, status=200)
    own_scopes = [{name: one[name] for name in ("catalog", "reach", "permissions")} for one in shown["scopes"]]
    before = await scene.state()
    for named, one in BEYOND.items():
        reach: dict[str, Any] = {"kind": one.get("kind", "selected")}
        if reach["kind"] == "selected":
            reach["nodes"] = one.get("nodes", ["project:acme/web"])
        catalog = one.get("catalog", "gitlab@1")
        wanted = {"reach": reach, "permissions": one.get("permissions", ["job:read"]), "catalog": catalog}
        draft = {"name": "more", "catalog": catalog, "scopes": [wanted]} | one.get("draft", {})
        if draft.get("parent") == "admin":
            draft["parent"] = admin_id
        if draft.get("kind") == "legacy" or "template" in draft:
            del draft["scopes"]
        if way == "below itself":
            draft = {"parent": "self"} | draft
        if "edit" in way:
            if "draft" in one and "evaluates" not in one["draft"]:
                continue  # an edit has no such field
            change = {"scopes": [*own_scopes, wanted]} | {name: draft[name] for name in ("evaluates",) if name in draft}
            answer = await scene.call("PATCH", f"/v1/tokens/{stolen_id}", stolen, change, headers={"If-Match": "*"})
        else:
            answer = await scene.call("POST", "/v1/tokens", stolen, draft)
        assert answer.status_code in (400, 403), (named, answer.text)
        assert "secret" not in answer.json()
    assert await scene.state() == before


async def test_a_stolen_token_does_not_become_its_owner_by_signing_in_with_it(scene: Scene):
    stage = scene.stage
    await give_password(stage, "olga")
    olga = Visitor(stage, agent="olga's own browser")
    await olga.sign_in("olga")
    low = await stage.scope_at("authz", ["group:acme"], "policy:read")
    _, stolen = await stage.give("olga", low)
    thief = Visitor(stage, agent="a thief's browser")
    assert (await thief.sign_in_by_token(stolen)).is_redirect
    await thief.get("/console/account")
    assert "a thief's browser" in thief.text
    assert "olga's own browser" not in thief.text
    await thief.post("/console/sign-out", {"everywhere": "yes"})
    assert (await olga.get("/console/tokens")).status_code == 200
    again = Visitor(stage)
    await again.sign_in_by_token(stolen)
    await olga.get("/console/account")
    async with stage.database.read() as conn:
        own = (await conn.execute(text("select digest from session where opened_by = 'password'"))).scalar_one()
    key = hashlib.sha256(b"key\n" + bytes(own)).hexdigest()[:24]
    await again.get("/console/account")
    await again.post("/console/account/sessions/end", {"key": key})
    assert (await olga.get("/console/tokens")).status_code == 200
    # And nothing that olga's roles would allow, but her token does not hold.
    for path in ("/console/review", "/console/audit", "/console/tokens/new"):
        page = await again.get(path)
        assert "hidden" not in again.text, path
        assert page.status_code < 500
    # A cookie is no bearer, and a bearer no cookie.
    cookie = olga.cookies[COOKIE]
    assert (await scene.call("GET", "/v1/self", cookie)).status_code == 401
    async with stage.database.read() as conn:
        name = (await conn.execute(text("select token_id from session where opened_by = 'password'"))).scalar_one()
    assert (await scene.call("GET", "/v1/self", name)).status_code == 401
    forged = Visitor(stage, cookies={COOKIE: stolen})
    assert (await forged.get("/console/tokens")).is_redirect


async def test_what_a_stolen_child_makes_while_its_line_is_revoked_is_dead(scene: Scene):
    stage = scene.stage
    given = await stage.scope_at("gitlab", ["project:acme/web"], "job:read")
    own = scope("authz", "user", "token:create", "token:revoke", "token:rotate")
    parent_id, parent = await stage.give("dana", given, own)
    _, child = await stage.give("dana", given, own, parent=parent_id)
    wanted = [{"reach": {"kind": "selected", "nodes": ["project:acme/web"]}, "permissions": ["job:read"]}]
    draft = {"name": "quick", "catalog": "gitlab@1", "scopes": wanted}

    async def issue(number: int) -> str | None:
        body = draft | ({} if number % 2 else {"parent": "self"})
        answer = await scene.call("POST", "/v1/tokens", child, body)
        return answer.json().get("secret")

    revoking = asyncio.create_task(scene.call("DELETE", f"/v1/tokens/{parent_id}", parent))
    made = await asyncio.gather(*(issue(number) for number in range(12)))
    assert (await revoking).status_code == 200
    await stage.app.state.services.point.follower.poll_now()
    for secret in (child, parent, *(one for one in made if one)):
        assert (await scene.call("GET", "/v1/self", secret)).status_code == 401


# a hostile gateway


async def test_a_hostile_gateway_learns_nothing_beyond_its_group_and_manages_nothing(scene: Scene):
    stage = scene.stage
    asks = await stage.scope_at("authz", ["group:rival"], "decision:evaluate")
    gateway_id, gateway = await stage.give("puppet", asks, evaluates=("gitlab",))
    # A secret that it was shown is one that it knows: what may not be told is where things are.
    scene.absent = replace(scene.absent, secret=scene.real.secret, token=scene.real.token)
    got = await the_walk(scene, gateway)
    asked = {"/check/http", "/access/v1/evaluation", "/oauth/introspect", "/check/batch"}
    searches = {f"/access/v1/search/{noun}" for noun in ("subject", "resource", "action")}
    assert only_harmless(got, *asked, *searches), got
    for body in ({}, {"overlap_seconds": 604_800}):
        assert (await scene.call("POST", "/v1/self/rotate", gateway, body)).status_code == 403
    assert (await scene.call("POST", f"/v1/tokens/{gateway_id}/clone", gateway, {})).status_code == 403
    asked_about = {"token": scene.secrets["owner"], "resource": "token", "action": "read", "target": "instance"}
    for catalog in ("authz", "github", "gitlab@2", "nothing"):
        answer = await scene.call("POST", "/check", gateway, asked_about | {"catalog": catalog})
        assert answer.status_code in (403, 400), (catalog, answer.text)


async def test_a_hostile_gateway_cannot_tell_a_good_secret_for_other_places_from_none(scene: Scene):
    stage = scene.stage
    asks = await stage.scope_at("authz", ["group:rival"], "decision:evaluate")
    _, gateway = await stage.give("puppet", asks, evaluates=("gitlab",))
    given = await stage.scope_at("gitlab", ["project:hidden/plan"], "pipeline:read")
    _, secret = await stage.give("dana", given, catalogs={"gitlab": 2})
    said = set()
    for path in ("hidden%2Fplan", "absent%2Fplan", "44", "999999"):
        for explain in (False, True):
            body = {"token": secret, "catalog": "gitlab", "method": "GET", "path": f"/api/v4/projects/{path}/pipelines"}
            answer = await scene.call("POST", "/check/http", gateway, body | {"explain": explain})
            assert answer.status_code == 200
            found = answer.json()
            assert found["decision"] == "deny"
            said.add((found["reason"], found.get("hide"), found.get("message"), "trace" in found))
    assert len({one[:2] for one in said}) == 1, said


# a hostile owner of another group


@pytest.mark.parametrize("way", ["token", "session"])
async def test_a_hostile_group_owner_gets_no_hold_of_another_group(scene: Scene, way: str):
    stage = scene.stage
    if way == "session":
        await give_password(stage, "mallory")
        visitor = Visitor(stage)
        await visitor.sign_in("mallory")
        before = await scene.state()
        for path in (
            f"/console/tokens/{scene.real.token}",
            "/console/policies?node=group:hidden",
            "/console/review?node=group:hidden",
            "/console/audit?node=group:hidden",
            "/console/directory?under=group:hidden",
        ):
            absent = path.replace("hidden", "absent").replace(scene.real.token, scene.absent.token)
            found = await visitor.get(path)
            real = scene.real.hide(found)
            other = scene.absent.hide(await visitor.get(absent))
            assert real[0] == other[0], path
            assert found.status_code < 500
            assert "olga" not in found.text, path
        left = {name: one for name, one in (await scene.state()).items() if name != "session"}
        assert left == {name: one for name, one in before.items() if name != "session"}
        return
    full = await stage.scope_at("authz", ["group:rival"], *OWNERS)
    mine = scope("authz", "user", "token:create", "token:read", "token:edit", "token:rotate", "token:revoke")
    jobs = await stage.scope_at("gitlab", ["group:rival"], "job:read", "job:run")
    got = await the_walk(scene, (await stage.give("mallory", full, mine, jobs))[1])
    own = {"/v1/simulate", "/v1/simulate/change", "/v1/tokens?parent=…"}
    assert only_harmless(got, *own), got


async def test_a_group_owner_cannot_ask_lists_what_a_token_holds_elsewhere(scene: Scene):
    stage = scene.stage
    inside = await stage.scope_at("gitlab", ["project:rival/den"], "job:read")
    outside = await stage.scope_at("gitlab", ["project:hidden/plan"], "job:run")
    managing = await stage.scope_at("authz", ["group:hidden"], "policy:read")
    parent, _ = await stage.give("root", inside, outside, managing)
    spread, _ = await stage.give("root", inside, outside, managing, parent=parent)
    reads = await stage.scope_at("authz", ["group:rival"], "token:read")
    mine, mallory = await stage.give("mallory", reads)

    async def listed(query: str) -> list[str]:
        items, cursor = [], ""
        while True:
            path = f"/v1/tokens?node=group:rival&limit=1&{query}{cursor}"
            page = await scene.made("GET", path, mallory, status=200)
            items += [one["id"] for one in page["items"]]
            if page["next_cursor"] is None:
                return [one for one in items if one != mine]
            cursor = f"&cursor={page['next_cursor']}"

    assert set(await listed("")) == {parent, spread}
    assert set(await listed("permission=job:read")) == {parent, spread}
    for query in ("permission=job:run", "permission=policy:read", "catalog=authz", f"parent={parent}"):
        assert await listed(query) == [], query
    token = f"/v1/tokens/{spread}"
    assert (await scene.made("GET", token, mallory, status=200))["partial"]
    page = await scene.made("GET", f"{token}/effective?limit=1", mallory, status=200)
    assert [one["target"] for one in page["items"]] == ["project:rival/den"]
    assert page["next_cursor"] is None
    for query in ("permission=job:run", "permission=job:run&kind=project"):
        page = await scene.made("GET", f"{token}/effective?{query}&limit=1", mallory, status=200)
        assert (page["items"], page["next_cursor"]) == ([], None)
    refused = [await scene.call("GET", f"{token}/effective?catalog={name}", mallory) for name in ("authz", "github")]
    assert len({one.text.replace("github", "authz") for one in refused}) == 1
    assert {one.status_code for one in refused} == {400}


async def test_a_hostile_trust_rule_takes_no_others_jobs_and_gives_no_more_than_its_author_may(scene: Scene):
    stage = scene.stage
    full = await stage.scope_at("authz", ["group:rival"], "token:create", "token:read")
    jobs = await stage.scope_at("gitlab", ["group:rival"], "job:read")
    _, mallory = await stage.give("mallory", full, jobs)
    den = "project:rival/den"
    beyond = [
        rule_body("group:rival", "keeper", den),
        rule_body("group:rival", "olga", den),
        rule_body("group:rival", "mallory", den),
        rule_body("instance", "puppet", den),
        rule_body("group:rival", "puppet", den, claims={"ref": "main"}),
        rule_body("group:rival", "puppet", den, claims={"project_path": {"like": "*"}}),
        rule_body("group:rival", "puppet", den, lifetime_seconds=86_400),
        rule_body("group:rival", "puppet", den, issuer="http://ci.example.com"),
        rule_body("group:rival", "puppet", den, catalog="gitlab@2"),
        rule_body("group:rival", "puppet", "group:hidden"),
    ]
    widened = [{"reach": {"kind": "selected", "nodes": [den]}, "permissions": ["job:run"]}]
    beyond.append(rule_body("group:rival", "puppet", den, scopes=widened))
    before = await scene.state()
    for body in beyond:
        answer = await scene.call("POST", "/v1/trust-rules", mallory, body)
        assert answer.status_code in (400, 403), answer.text
    assert await scene.state() == before


async def test_a_webhook_of_another_group_hears_nothing(scene: Scene):
    stage = scene.stage
    _, mallory = await stage.give("mallory", await stage.scope_at("authz", ["group:rival"], *OWNERS))
    hook = {"url": "https://localhost:9/mine", "node": "group:rival"}
    mine = (await scene.made("POST", "/v1/webhooks", mallory, hook))["id"]
    await scene.made("POST", f"/v1/grant-requests/{scene.real.request}", scene.owner, {"action": "approve"}, 200)
    body = {"catalog": "gitlab", "approval": {"value": "off"}}
    await scene.made("PUT", "/v1/policies?node=group:hidden", scene.owner, body, 200)
    admin = await stage.admin()
    await scene.made("POST", f"/v1/tokens/{scene.real.token}/rotate", admin, {})
    heard = (await scene.made("GET", f"/v1/webhooks/{mine}/deliveries", mallory, status=200))["items"]
    assert heard == []
    rows = await scene.made("GET", "/v1/audit?node=group:rival", mallory, status=200)
    assert {row["action"] for row in rows["items"]} == {"webhook.create"}


# a hostile operator: reads what can be read, and has no access to the database


async def test_an_operator_who_may_read_everything_finds_no_secret_and_writes_nothing(
    scene: Scene, caplog: pytest.LogCaptureFixture
):
    stage = scene.stage
    reads = [one for one in ALL_AUTHZ if one.endswith(":read")]
    _, operator = await stage.give("root", scope("authz", "instance", *reads))
    await give_password(stage, "olga")
    visitor = Visitor(stage)
    await visitor.sign_in("olga")
    async with stage.database.read() as conn:
        kept = (await conn.execute(text("select encode(digest, 'hex') from token"))).scalars().all()
        kept += (await conn.execute(text("select encode(digest, 'hex') from session"))).scalars().all()
        kept += (await conn.execute(text("select hash from password"))).scalars().all()
        kept += (await conn.execute(text("select encode(salt, 'hex') from webhook"))).scalars().all()
    canaries = {*scene.secrets.values(), operator, visitor.cookies[COOKIE], *kept}
    before = await scene.state()
    seen = []
    for real in tries(scene.real):
        method, path, body, headers = real
        answer = await scene.call(method, path, operator, body, headers=headers)
        if method != "GET" and not path.startswith(("/check", "/access", "/oauth", "/v1/simulate", "/v1/catalogs")):
            # Decisions by the hundred say by each what became of it.
            harmless = path in LISTS or "dry_run=true" in path
            assert answer.status_code in (400, 403, 404, 405, 409) or harmless, (method, path, answer.text)
        seen.append(answer.text)
    plain = ("/metrics", "/livez", "/readyz", "/openapi.json", "/v1/self", "/v1/tokens", "/v1/token-export")
    seen += [(await scene.call("GET", path, operator)).text for path in plain]
    assert len(json.dumps(seen)) > 20_000, "hardly anything was read"
    for canary in canaries:
        assert not any(canary in one for one in [*seen, caplog.text])
    assert await scene.state() == before


async def test_an_admin_can_neither_read_a_secret_again_nor_touch_what_was_audited(scene: Scene):
    stage = scene.stage
    admin = await stage.admin()
    wanted = [{"reach": {"kind": "selected", "nodes": ["project:acme/web"]}, "permissions": ["job:read"]}]
    body = json.dumps({"name": "once", "catalog": "gitlab", "scopes": wanted, "owner": "dana"}).encode()
    headers = {"Idempotency-Key": "the-very-same"}
    first = await scene.call("POST", "/v1/tokens", admin, body, headers=headers)
    again = await scene.call("POST", "/v1/tokens", admin, body, headers=headers)
    assert first.json()["secret"]
    assert again.json().get("secret") is None
    other = await scene.call("POST", "/v1/tokens", await stage.admin(), body, headers=headers)
    assert other.json()["id"] != first.json()["id"]
    for method in ("DELETE", "PUT", "PATCH", "POST"):
        for path in ("/v1/audit", "/v1/audit/1", "/v1/audit/export", "/v1/audit/checkpoints"):
            assert (await scene.call(method, path, admin, {})).status_code in (404, 405), (method, path)
