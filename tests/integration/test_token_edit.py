"""Edits and clones: narrowing counts at once, widening is judged as a creation (M2)."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from tests.support.managing import SINGLE_OWNER, UPSTREAM, Stage, body_of, scope, staged

from authz_service.store import audit

NOWHERE = "tok_0000000000000000000000"


@pytest.fixture
async def stage(database_url):
    async with staged(database_url) as running:
        yield running


def selected(*nodes: str, permissions: tuple[str, ...] = ("job:read",), **more: Any) -> dict[str, Any]:
    return {"reach": {"kind": "selected", "nodes": list(nodes)}, "permissions": list(permissions), **more}


def soon(**by: float) -> str:
    return (datetime.now(UTC) + timedelta(**by)).isoformat().replace("+00:00", "Z")


async def web(stage: Stage, *permissions: str, owner: str = "dana", **more: Any) -> tuple[str, str]:
    return await stage.give(
        owner, await stage.scope_at("gitlab", ["acme/web"], *(permissions or ("job:read",))), **more
    )


async def edit(
    stage: Stage, secret: str, token: str, body: Any, *, tag: str | None = "*", **more: Any
) -> httpx.Response:
    headers = {} if tag is None else {"If-Match": tag}
    return await stage.call("PATCH", f"/v1/tokens/{token}", secret, body, headers=headers, **more)


async def everything(stage: Stage) -> list[tuple[Any, ...]]:
    async with stage.database.read() as conn:
        rows = (await conn.execute(text("select t::text, (select count(*) from audit) from token t order by id"))).all()
    return [tuple(row) for row in rows]


def codes(answer: httpx.Response) -> list[tuple[str, str]]:
    return [(fault["where"], fault["code"]) for fault in answer.json()["faults"]]


# what an edit says


async def test_every_field_that_may_be_edited_is_and_the_others_stay(stage):
    admin = await stage.admin()
    token, secret = await web(stage, "job:read", "job:run")
    start, end = soon(hours=-1), soon(days=30)
    body = {
        "name": "nightly",
        "reason": "the night needs it",
        "expires_at": end,
        "not_before": start,
        "conditions": {"networks": ["127.0.0.0/8"]},
        "scopes": [selected("acme/web", "group:acme/tools", permissions=("job:read", "pipeline:read"))],
        "may_rotate_self": True,
    }
    before = (await stage.call("GET", f"/v1/tokens/{token}", admin)).json()
    answer = await edit(stage, admin, token, body)
    assert answer.status_code == 200, answer.text
    after = answer.json()
    assert {name: after[name] for name in body if name != "scopes"} == {
        name: value for name, value in body.items() if name != "scopes"
    }
    assert after["scopes"][0]["reach"]["nodes"] == ["group:acme/tools", "project:acme/web"]
    assert after["scopes"][0]["permissions"] == ["job:read", "pipeline:read"]
    for same in ("id", "owner", "kind", "catalogs", "created_at", "parent", "evaluates", "state"):
        assert after[same] == before[same]
    assert not await stage.allows(secret, "job:run")


async def test_what_is_not_given_stays_though_the_editor_cannot_see_it(stage):
    """An editor who knows nothing of a group changes the name, and the group stays selected."""
    hidden = await stage.scope_at("gitlab", ["group:hidden"], "job:read")
    token, _ = await stage.give("dana", hidden)
    _, own = await stage.give("dana", scope("authz", "user", "token:edit", "token:read"))
    assert (await edit(stage, own, token, {"name": "still there"})).status_code == 200
    shown = (await stage.call("GET", f"/v1/tokens/{token}", await stage.admin())).json()
    assert shown["scopes"][0]["reach"]["nodes"] == ["group:hidden"]
    unseen = await edit(stage, own, token, {"scopes": [selected("group:hidden"), selected("group:nope")]})
    assert codes(unseen) == [
        ("/scopes/0/reach/nodes/0", "target_unknown"),
        ("/scopes/1/reach/nodes/0", "target_unknown"),
    ]


async def test_an_edit_that_changes_nothing_leaves_no_trace(stage):
    admin = await stage.admin()
    token, _ = await web(stage)
    before = await everything(stage)
    assert (await edit(stage, admin, token, {})).status_code == 200
    assert (await edit(stage, admin, token, {"scopes": [selected("acme/web")]})).status_code == 200
    assert await everything(stage) == before


async def test_every_fault_of_an_edit_is_named_at_once_and_nothing_changes(stage):
    admin = await stage.admin()
    token, _ = await web(stage)
    before = await everything(stage)
    body = {
        "name": " ",
        "expires_at": "2020-01-01T00:00:00Z",
        "conditions": {"networks": ["x"]},
        "scopes": [
            selected("nope/x", permissions=("job:fly", "job:read")),
            selected("acme/web", catalog="github"),
            selected("acme/web", catalog="gitlab@2"),
        ],
        "legacy_scopes": ["api"],
        "evaluates": ["gitlab"],
    }
    answer = await edit(stage, admin, token, body)
    assert answer.status_code == 400
    assert set(codes(answer)) == {
        ("/name", "too_short"),
        ("/expires_at", "in_past"),
        ("/conditions/networks/0", "invalid_network"),
        ("/scopes/0/reach/nodes/0", "target_unknown"),
        ("/scopes/0/permissions/0", "permission_unknown"),
        ("/scopes/1/catalog", "catalog_fixed"),
        ("/scopes/2/catalog", "catalog_fixed"),
        ("/legacy_scopes", "not_for_kind"),
        ("/evaluates", "not_for_token"),
    }
    assert await everything(stage) == before


NO_EDITS: tuple[Any, ...] = (
    {"owner": "eve"},
    {"kind": "legacy"},
    {"catalog": "github"},
    {"parent": None},
    {"resource_owner": "group:acme"},
    {"revoked_at": None},
    {"id": NOWHERE},
    {"name": None},
    {"scopes": None},
    {"scopes": [{"permissions": ["job:read"]}]},
    {"expires_at": "soon"},
    [],
    b"{",
    b'{"name": "a", "name": "b"}',
)


async def test_what_is_never_edited_and_what_is_no_edit_is_refused(stage):
    admin = await stage.admin()
    token, _ = await web(stage)
    before = await everything(stage)
    for body in NO_EDITS:
        assert (await edit(stage, admin, token, body)).status_code == 400, body
    assert await everything(stage) == before


async def test_a_legacy_token_is_edited_as_one(stage):
    admin = await stage.admin()
    token, _ = await stage.give("dana", legacy_scopes=("api",), catalogs={"gitlab": 1})
    assert (await edit(stage, admin, token, {"legacy_scopes": ["read_api"]})).json()["legacy_scopes"] == ["read_api"]
    none = await edit(stage, admin, token, {"legacy_scopes": []})
    unknown = await edit(stage, admin, token, {"legacy_scopes": ["root"]})
    scopes = await edit(stage, admin, token, {"scopes": [selected("acme/web")]})
    assert [codes(one)[0] for one in (none, unknown, scopes)] == [
        ("/legacy_scopes", "missing_field"),
        ("/legacy_scopes/0", "legacy_scope_unknown"),
        ("/scopes", "not_for_kind"),
    ]


async def test_a_token_of_one_resource_owner_keeps_it(stage):
    await stage.install(SINGLE_OWNER, "hub")
    admin = await stage.admin()
    wanted = selected("project:acme/web", permissions=("contents:read",))
    body = body_of(catalog="hub", resource_owner="group:acme", scopes=[wanted])
    token = (await stage.call("POST", "/v1/tokens", admin, body)).json()["id"]
    other = await edit(stage, admin, token, {"scopes": [selected("project:open/site", permissions=("contents:read",))]})
    assert codes(other) == [("/scopes/0/reach/nodes/0", "outside_resource_owner")]
    more = {"scopes": [selected("project:acme/tools/lint", permissions=("contents:write",))]}
    assert (await edit(stage, admin, token, more)).status_code == 200


# from what it was made


async def test_an_edit_says_what_it_was_made_from(stage):
    admin = await stage.admin()
    token, _ = await web(stage)
    read = await stage.call("GET", f"/v1/tokens/{token}", admin)
    tag = read.headers["etag"]
    assert tag == read.json()["etag"]
    missing = await edit(stage, admin, token, {"name": "x"}, tag=None)
    assert (missing.status_code, missing.json()["code"]) == (428, "precondition_required")
    first = await edit(stage, admin, token, {"name": "first"}, tag=tag)
    assert first.status_code == 200
    stale = await edit(stage, admin, token, {"name": "second"}, tag=tag)
    assert (stale.status_code, stale.json()["code"]) == (412, "precondition_failed")
    for odd in ('"x"', "x", "", f"W/{first.headers['etag']}", first.headers["etag"].strip('"')):
        assert (await edit(stage, admin, token, {"name": "odd"}, tag=odd)).status_code == 412, odd
    several = await edit(stage, admin, token, {"name": "third"}, tag=f'"x", {first.headers["etag"]}')
    assert several.status_code == 200
    assert (await stage.call("GET", f"/v1/tokens/{token}", admin)).json()["name"] == "third"


async def test_of_edits_at_once_from_the_same_reading_one_wins(stage):
    admin = await stage.admin()
    token, _ = await web(stage)
    tag = (await stage.call("GET", f"/v1/tokens/{token}", admin)).headers["etag"]
    answers = await asyncio.gather(*(edit(stage, admin, token, {"name": f"n{n}"}, tag=tag) for n in range(5)))
    assert sorted(answer.status_code for answer in answers) == [200, 412, 412, 412, 412]


async def test_a_tag_changes_with_every_edit_and_not_with_use(stage):
    admin = await stage.admin()
    token, _ = await web(stage, expires_at=datetime.now(UTC) + timedelta(days=9))
    tags = [(await stage.call("GET", f"/v1/tokens/{token}", admin)).headers["etag"]]
    for body in (
        {"name": "a"},
        {"reason": "b"},
        {"expires_at": soon(days=3)},
        {"not_before": soon(hours=-2)},
        {"conditions": {"networks": ["10.0.0.0/8"]}},
        {"scopes": [selected("acme/tools/lint")]},
        {"may_rotate_self": True},
    ):
        tags.append((await edit(stage, admin, token, body, tag=tags[-1])).headers["etag"])
    assert len(set(tags)) == len(tags)
    async with stage.database.transaction() as conn:
        await conn.execute(text("update token set last_used_at = authz_now()"))
    assert (await stage.call("GET", f"/v1/tokens/{token}", admin)).headers["etag"] == tags[-1]


async def test_whoever_sees_a_part_of_a_token_gets_no_tag_of_the_whole(stage):
    token, _ = await stage.give("dana", await stage.scope_at("gitlab", ["acme/tools", "hidden"], "job:run"))
    _, olga = await stage.give("olga", await stage.scope_at("authz", ["group:acme"], "token:read", "token:edit"))
    answer = await stage.call("GET", f"/v1/tokens/{token}", olga)
    assert (answer.json()["partial"], answer.json()["etag"]) == (True, None)
    assert "etag" not in answer.headers
    assert (await edit(stage, olga, token, {"name": "mine"})).status_code == 403


# narrower at once, wider by right


async def narrow_editor(stage: Stage) -> str:
    """May edit what is dana's, and holds nothing that could be issued."""
    return (await stage.give("dana", scope("authz", "user", "token:edit", "token:read")))[1]


NARROWER: tuple[dict[str, Any], ...] = (
    {"name": "other", "reason": "other"},
    {"scopes": []},
    {"scopes": [selected("acme/web")]},
    {"scopes": [selected("project:acme/tools/lint", permissions=("job:run",))]},
    {"scopes": [selected("group:acme/tools"), selected("acme/web", permissions=("job:run",))]},
    {"expires_at": soon(days=1)},
    {"not_before": soon(minutes=-1)},
    {"conditions": {"networks": ["10.1.0.0/16", "10.2.3.4/32"]}},
    {"may_rotate_self": False},
)
WIDER: tuple[dict[str, Any], ...] = (
    {"scopes": [selected("group:acme", permissions=("job:read", "job:run", "pipeline:read"))]},
    {"scopes": [selected("open/site")]},
    {"scopes": [{"reach": {"kind": "all_memberships"}, "permissions": ["job:read"]}]},
    {"scopes": [{"reach": {"kind": "personal_projects"}, "permissions": ["job:read"]}]},
    {"expires_at": soon(days=60)},
    {"expires_at": None},
    {"not_before": None},
    {"not_before": soon(days=-3)},
    {"conditions": {"networks": []}},
    {"conditions": {"networks": ["10.0.0.0/7"]}},
    {"conditions": {"networks": ["10.0.0.0/8", "192.168.0.0/16"]}},
    {"conditions": {"networks": ["2001:db8::/32"]}},
)


async def bounded(stage: Stage) -> str:
    token, _ = await stage.give(
        "dana",
        await stage.scope_at("gitlab", ["group:acme"], "job:read", "job:run"),
        expires_at=datetime.now(UTC) + timedelta(days=30),
        networks=("10.0.0.0/8",),
        may_rotate_self=True,
    )
    async with stage.database.transaction() as conn:
        query = text("update token set not_before = authz_now() - interval '1 day' where id = :id")
        await conn.execute(query, {"id": token})
    return token


async def test_an_edit_that_narrows_needs_no_more_than_the_right_to_edit(stage):
    editor = await narrow_editor(stage)
    for body in NARROWER:
        answer = await edit(stage, editor, await bounded(stage), body)
        assert answer.status_code == 200, (body, answer.text)


async def test_an_edit_that_widens_is_judged_as_a_creation(stage):
    editor, admin = await narrow_editor(stage), await stage.admin()
    for body in WIDER:
        token = await bounded(stage)
        before = await everything(stage)
        refused = await edit(stage, editor, token, body)
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden"), (body, refused.text)
        assert await everything(stage) == before
        assert (await edit(stage, admin, token, body)).status_code == 200


async def test_the_right_to_rotate_itself_is_given_by_those_who_could_issue_the_token(stage):
    editor = await narrow_editor(stage)
    token, _ = await web(stage)
    assert (await edit(stage, editor, token, {"may_rotate_self": True})).status_code == 403
    assert (await edit(stage, await stage.admin(), token, {"may_rotate_self": True})).status_code == 200


async def test_a_token_does_not_widen_itself(stage):
    token, secret = await stage.give(
        "dana",
        scope("authz", "user", "token:edit", "token:create", "token:read"),
        await stage.scope_at("gitlab", ["acme/web"], "job:read"),
    )
    wider = [
        {"catalog": "authz", "reach": {"kind": "user"}, "permissions": ["token:edit", "token:revoke"]},
        selected("acme/web", permissions=("job:read", "job:run"), catalog="gitlab"),
    ]
    answer = await edit(stage, secret, token, {"scopes": wider})
    assert (answer.status_code, set(codes(answer))) == (
        403,
        {("/scopes/0/permissions/1", "beyond_issuer"), ("/scopes/1/permissions/1", "beyond_issuer")},
    )


async def test_a_child_is_not_edited_beyond_its_parent(stage):
    admin = await stage.admin()
    parent, _ = await web(stage, expires_at=datetime.now(UTC) + timedelta(days=2))
    child, _ = await web(stage, parent=parent, expires_at=datetime.now(UTC) + timedelta(days=1))
    wider = await edit(stage, admin, child, {"scopes": [selected("group:acme")]})
    assert codes(wider) == [("/scopes/0/permissions/0", "beyond_parent")]
    longer = await edit(stage, admin, child, {"expires_at": soon(days=3)})
    assert codes(longer) == [("/expires_at", "after_parent")]
    flagged = await edit(stage, admin, child, {"may_rotate_self": True})
    assert codes(flagged) == [("/may_rotate_self", "not_for_child")]


async def test_only_an_admin_lets_a_token_ask_about_more_catalogs(stage):
    asks = scope("authz", "instance", "decision:evaluate")
    token, _ = await stage.give("olga", asks, evaluates=("gitlab", "github"))
    _, own = await stage.give("olga", scope("authz", "user", "token:edit", "token:read"), asks, evaluates=("*",))
    assert (await edit(stage, own, token, {"evaluates": ["gitlab"]})).status_code == 200
    assert (await edit(stage, own, token, {"evaluates": ["gitlab", "github"]})).status_code == 403
    assert (await edit(stage, await stage.admin(), token, {"evaluates": ["*"]})).status_code == 200


async def test_an_edit_reaches_every_check_that_asks_for_it(stage):
    admin = await stage.admin()
    token, secret = await web(stage, "job:read", "job:run")
    assert await stage.allows(secret, "job:run")
    answer = await edit(stage, admin, token, {"scopes": [selected("acme/web")]})
    body = {"resource": "job", "action": "run", "target": "acme/web", "at_least": answer.json()["revision"]}
    assert (await stage.call("POST", "/v1/self/check", secret, body)).json()["decision"] == "deny"
    assert await stage.allows(secret, "job:read")
    waited = await stage.call(
        "PATCH", f"/v1/tokens/{token}?wait=true", admin, {"scopes": []}, headers={"If-Match": "*"}
    )
    assert waited.status_code == 200
    assert not await stage.allows(secret, "job:read")


async def test_what_a_token_loses_the_secret_that_it_replaced_loses_too(stage):
    admin = await stage.admin()
    token, secret = await web(stage, "job:read", "job:run")
    rotated = await stage.call("POST", f"/v1/tokens/{token}/rotate", admin, {"overlap_seconds": 3600})
    new = rotated.json()["id"]
    replaced = await edit(stage, admin, token, {"name": "x"})
    assert (replaced.status_code, replaced.json()["code"]) == (409, "conflict")
    assert (await edit(stage, admin, new, {"scopes": [selected("acme/web")]})).status_code == 200
    assert await stage.allows(secret, "job:read")
    assert not await stage.allows(secret, "job:run")


@pytest.fixture
async def replaced(stage):
    """An admin's secret, a token that reads jobs from one network, replaced, still at work; the id of the new one."""
    admin = await stage.admin()
    begins = datetime.now(UTC) - timedelta(days=1)
    token, _ = await web(stage, networks=("203.0.113.0/24",), not_before=begins)
    new = await stage.call("POST", f"/v1/tokens/{token}/rotate", admin, {"overlap_seconds": 3600})
    return admin, token, new.json()["id"]


async def shown(stage: Stage, secret: str, token: str) -> dict[str, Any]:
    answer = (await stage.call("GET", f"/v1/tokens/{token}", secret)).json()
    return {name: answer[name] for name in ("scopes", "conditions", "not_before", "expires_at", "state")}


@pytest.mark.parametrize(
    "wider",
    [
        {"scopes": [selected("acme/web", permissions=("job:read", "job:run"))]},
        {"scopes": [selected("group:acme")]},
        {"scopes": [{"reach": {"kind": "all_memberships"}, "permissions": ["job:read"]}]},
        {"conditions": {"networks": []}},
        {"conditions": {"networks": ["203.0.0.0/16", "198.51.100.0/24"]}},
        {"not_before": None},
        {"expires_at": None},
        {"name": "another"},
    ],
    ids=str,
)
async def test_what_a_token_gains_the_secret_that_it_replaced_does_not(stage, replaced, wider):
    admin, former, new = replaced
    before = await shown(stage, admin, former)
    assert (await edit(stage, admin, new, wider)).status_code == 200
    assert await shown(stage, admin, former) == before


@pytest.mark.parametrize(
    ("edited", "kept"),
    [
        (
            {"scopes": [selected("acme/web", "acme/tools/lint", permissions=("job:run",))]},
            {"scopes": []},
        ),
        ({"conditions": {"networks": ["203.0.113.7/32", "198.51.100.0/24"]}}, {"networks": ["203.0.113.7/32"]}),
        ({"conditions": {"networks": ["198.51.100.0/24"]}}, {"networks": ["203.0.113.0/24"], "state": "expired"}),
    ],
    ids=["scopes", "networks", "no network in common"],
)
async def test_of_an_edit_that_takes_and_gives_the_replaced_secret_only_loses(stage, replaced, edited, kept):
    admin, former, new = replaced
    assert (await edit(stage, admin, new, edited)).status_code == 200
    found = await shown(stage, admin, former)
    found["networks"] = found["conditions"]["networks"]
    assert {name: found[name] for name in kept} == kept


async def test_the_replaced_secret_keeps_of_each_place_what_the_new_one_still_holds_there(stage):
    admin = await stage.admin()
    token, secret = await stage.give("dana", await stage.scope_at("gitlab", ["group:acme"], "job:read", "job:run"))
    rotated = await stage.call("POST", f"/v1/tokens/{token}/rotate", admin, {"overlap_seconds": 3600})
    body = {"scopes": [selected("acme/web", permissions=("job:read", "pipeline:read"))]}
    assert (await edit(stage, admin, rotated.json()["id"], body)).status_code == 200
    assert await stage.allows(secret, "job:read")
    assert not await stage.allows(secret, "job:run")
    assert not await stage.allows(secret, "pipeline:read")
    assert not await stage.allows(secret, "job:read", "project:acme/tools/lint")


async def test_a_coarse_secret_that_was_replaced_gains_no_scope_either(stage):
    admin = await stage.admin()
    token, _ = await stage.give("dana", catalogs={"gitlab": 1}, legacy_scopes=("read_api",))
    rotated = await stage.call("POST", f"/v1/tokens/{token}/rotate", admin, {"overlap_seconds": 3600})
    assert (await edit(stage, admin, rotated.json()["id"], {"legacy_scopes": ["api"]})).status_code == 200
    former = (await stage.call("GET", f"/v1/tokens/{token}", admin)).json()
    assert former["legacy_scopes"] == ["read_api"]


# by whom


async def test_an_edit_needs_the_right_to_edit_for_the_owner(stage):
    token, _ = await web(stage, owner="bot")
    _, reads = await stage.give("olga", await stage.scope_at("authz", ["group:acme"], "token:read"))
    _, edits = await stage.give("olga", await stage.scope_at("authz", ["group:acme"], "token:edit"))
    _, stranger = await stage.give("eve", scope("authz", "user", "token:edit", "token:read"))
    assert (await edit(stage, reads, token, {"name": "x"})).status_code == 403
    unseen, unknown = await edit(stage, stranger, token, {"name": "x"}), await edit(stage, stranger, NOWHERE, {})
    assert unseen.status_code == 404
    assert unseen.json() == unknown.json()
    assert (await edit(stage, edits, token, {"name": "x"})).status_code == 200


async def test_a_dead_token_is_not_edited(stage):
    admin = await stage.admin()
    revoked, _ = await web(stage)
    await stage.call("DELETE", f"/v1/tokens/{revoked}", admin)
    expired, _ = await web(stage, expires_at=datetime.now(UTC) - timedelta(days=1))
    before = await everything(stage)
    for token in (revoked, expired):
        for body in ({"name": "x"}, {"expires_at": soon(days=9)}):
            answer = await edit(stage, admin, token, body)
            assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert await everything(stage) == before


async def test_an_edit_is_audited_with_what_was_before(stage):
    admin = await stage.admin()
    token, _ = await web(stage, "job:read", "job:run")
    await edit(stage, admin, token, {"name": "new", "scopes": [selected("acme/web")]})
    async with stage.database.read() as conn:
        [row], _ = await audit.list_page(conn, audit.AuditFilter(action="token.edit"))
    before, after = row.entry.details["before"], row.entry.details["after"]
    assert (before["name"], after["name"]) == ("given", "new")
    assert before["scopes"][0]["permissions"] == ["job:read", "job:run"]
    assert after["scopes"][0]["permissions"] == ["job:read"]
    assert row.revision is not None


# limits


async def test_the_settings_say_how_much_a_token_may_ask_for(database_url):
    limits = {"max_tokens_per_owner": 2, "max_scopes": 1, "max_nodes": 1, "max_name_length": 8, "max_lifetime_days": 30}
    async with staged(database_url, **limits) as stage:
        admin = await stage.admin()
        many = [selected("acme/web", "acme/tools/lint"), selected("acme/web")]
        answer = await stage.call("POST", "/v1/tokens", admin, body_of(name="far too long", scopes=many))
        assert set(codes(answer)) == {
            ("/name", "too_long"),
            ("/scopes", "too_many"),
            ("/scopes/0/reach/nodes", "too_many"),
            ("/expires_at", "missing_field"),
        }
        longer = await stage.call("POST", "/v1/tokens", admin, body_of(name="ok", expires_at=soon(days=31)))
        assert codes(longer) == [("/expires_at", "lifetime_too_long")]
        body = body_of(name="ok", expires_at=soon(days=30, minutes=-1))
        made = [await stage.call("POST", "/v1/tokens", admin, body) for _ in range(2)]
        assert [answer.status_code for answer in made] == [201, 201]
        full = await stage.call("POST", "/v1/tokens", admin, body)
        assert (full.status_code, codes(full)) == (409, [("/owner", "too_many_tokens")])
        first = made[0].json()["id"]
        later = await edit(stage, admin, first, {"expires_at": soon(days=31)})
        assert codes(later) == [("/expires_at", "lifetime_too_long")]
        assert (await stage.call("POST", f"/v1/tokens/{first}/clone", admin, {})).status_code == 409
        rotated = await stage.call("POST", f"/v1/tokens/{first}/rotate", admin, {})
        assert rotated.status_code == 201
        await stage.call("DELETE", f"/v1/tokens/{rotated.json()['id']}", admin)
        assert (await stage.call("POST", "/v1/tokens", admin, body)).status_code == 201


async def test_an_owner_who_has_room_for_one_gets_one_however_many_ask_at_once(database_url):
    async with staged(database_url, max_tokens_per_owner=1) as stage:
        admins = [await stage.admin() for _ in range(4)]
        answers = await asyncio.gather(*(stage.call("POST", "/v1/tokens", one, body_of()) for one in admins))
        assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]


# clones and templates


async def test_a_clone_has_all_of_the_other_but_its_identity(stage):
    admin = await stage.admin()
    token, _ = await web(stage, "job:read", "job:run", networks=("127.0.0.0/8",))
    answer = await stage.call("POST", f"/v1/tokens/{token}/clone", admin, {"name": "again", "expires_at": soon(days=1)})
    assert answer.status_code == 201, answer.text
    clone, other = answer.json(), (await stage.call("GET", f"/v1/tokens/{token}", admin)).json()
    for same in ("owner", "kind", "catalogs", "scopes", "conditions", "parent", "may_rotate_self"):
        assert clone[same] == other[same]
    assert (clone["name"], clone["replaced_by"]) == ("again", None)
    assert await stage.allows(clone["secret"], "job:run")
    await stage.call("DELETE", f"/v1/tokens/{token}", admin)
    assert await stage.allows(clone["secret"])
    of_dead = await stage.call("POST", f"/v1/tokens/{token}/clone", admin, b"")
    assert of_dead.status_code == 201


async def test_a_clone_for_somebody_else_takes_the_right_to_issue_for_them(stage):
    token, _ = await web(stage)
    job = await stage.scope_at("gitlab", ["acme/web"], "job:read")
    _, olga = await stage.give("olga", await stage.scope_at("authz", ["group:acme"], "token:create", "token:read"), job)
    _, dana = await stage.give("dana", scope("authz", "user", "token:create", "token:read"), job)
    bots, _ = await web(stage, owner="bot")
    assert (await stage.call("POST", f"/v1/tokens/{token}/clone", dana, {"owner": "eve"})).status_code == 403
    assert (await stage.call("POST", f"/v1/tokens/{token}/clone", dana, {"owner": "nobody"})).status_code == 400
    assert (await stage.call("POST", f"/v1/tokens/{token}/clone", dana, {"owner": "bob"})).status_code == 400
    own = await stage.call("POST", f"/v1/tokens/{token}/clone", dana, {})
    assert (own.status_code, own.json()["owner"]) == (201, "dana")
    assert (await stage.call("POST", f"/v1/tokens/{bots}/clone", olga, {})).status_code == 201
    assert (await stage.call("POST", f"/v1/tokens/{bots}/clone", dana, {})).status_code == 404
    partly = await stage.call("POST", f"/v1/tokens/{token}/clone", olga, {"owner": "bot"})
    assert partly.status_code == 403


async def test_a_clone_that_asks_for_something_odd_is_refused(stage):
    admin = await stage.admin()
    token, _ = await web(stage, expires_at=datetime.now(UTC) - timedelta(days=1))
    for body in ({}, {"expires_at": "2020-01-01T00:00:00Z"}, {"name": " ", "expires_at": None}, {"scopes": []}):
        assert (await stage.call("POST", f"/v1/tokens/{token}/clone", admin, body)).status_code == 400, body
    blank = await stage.call("POST", f"/v1/tokens/{token}/clone", admin, {"name": " ", "expires_at": None})
    assert [(one["where"], one["code"]) for one in blank.json()["faults"]] == [("/name", "too_short")]
    assert (await stage.call("POST", f"/v1/tokens/{NOWHERE}/clone", admin, {})).status_code == 404
    assert (await stage.call("POST", f"/v1/tokens/{token}/clone", admin, {"expires_at": None})).status_code == 201


async def test_a_clone_of_a_token_of_an_api_without_a_directory(stage):
    await stage.install(UPSTREAM, "orders")
    admin = await stage.admin()
    wanted = selected("project:acme/till", permissions=("order:read",))
    made = await stage.call("POST", "/v1/tokens", admin, body_of(owner="till-1", catalog="orders", scopes=[wanted]))
    clone = await stage.call("POST", f"/v1/tokens/{made.json()['id']}/clone", admin, {"owner": "till-2"})
    assert (clone.status_code, clone.json()["owner"]) == (201, "till-2")
    assert await stage.allows(clone.json()["secret"], "order:read", "project:acme/till")


async def test_a_token_is_issued_from_a_template(stage):
    admin = await stage.admin()
    body = body_of(scopes=..., template="ci-pipeline", nodes=["project:acme/web"])
    answer = await stage.call("POST", "/v1/tokens", admin, body)
    assert answer.status_code == 201, answer.text
    assert await stage.allows(answer.json()["secret"], "pipeline:create")
    assert not await stage.allows(answer.json()["secret"], "code:push")
    gateway = await stage.call("POST", "/v1/tokens", admin, {"name": "edge", "catalog": "authz", "template": "gateway"})
    assert (gateway.status_code, gateway.json()["evaluates"]) == (201, ["*"])


MISFITS: tuple[tuple[dict[str, Any], tuple[str, str]], ...] = (
    ({"template": "nope", "nodes": ["acme/web"]}, ("/template", "template_unknown")),
    ({"template": "ci-pipeline"}, ("/nodes", "missing_field")),
    ({"template": "ci-pipeline", "nodes": ["nope"]}, ("/scopes/0/reach/nodes/0", "target_unknown")),
    ({"nodes": ["acme/web"]}, ("/nodes", "not_for_token")),
    (
        {"template": "ci-pipeline", "nodes": ["acme/web"], "scopes": [selected("acme/web")]},
        ("/template", "not_for_token"),
    ),
    ({"catalog": "authz", "template": "gateway", "nodes": ["acme"]}, ("/nodes", "not_for_reach")),
)


async def test_a_template_that_does_not_fit_is_refused(stage):
    admin = await stage.admin()
    for body, fault in MISFITS:
        answer = await stage.call("POST", "/v1/tokens", admin, body_of(scopes=...) | body)
        assert answer.status_code == 400
        assert fault in codes(answer), body


async def test_templates_are_listed_by_catalog(stage):
    _, secret = await web(stage)
    of_github = (await stage.call("GET", "/v1/templates?catalog=github", secret)).json()["items"]
    assert {item["catalog"] for item in of_github} == {"github@1"}
    older = (await stage.call("GET", "/v1/templates?catalog=gitlab@1", secret)).json()["items"]
    assert {item["catalog"] for item in older} == {"gitlab@1"}
    assert (await stage.call("GET", "/v1/templates?catalog=nothing", secret)).json() == {"items": []}
    assert {"gitlab@2", "authz@1"} <= {
        item["catalog"] for item in (await stage.call("GET", "/v1/templates", secret)).json()["items"]
    }
    assert (await stage.call("GET", "/v1/templates")).status_code == 401
