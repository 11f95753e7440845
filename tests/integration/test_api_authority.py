import asyncio
import json

import pytest
from sqlalchemy import text
from tests.support.managing import ALL_AUTHZ, SINGLE_OWNER, Stage, body_of, scope, staged

from authz_service.directory.changes import parse_import
from authz_service.store import changes, directory_import, tokens
from authz_service.tokens.model import TokenId


@pytest.fixture
async def stage(database_url):
    async with staged(database_url) as running:
        yield running


def selected(*nodes: str, permissions: tuple[str, ...] = ("job:read",), **more):
    return {"reach": {"kind": "selected", "nodes": list(nodes)}, "permissions": list(permissions), **more}


def reach(kind: str, *permissions: str, **more):
    return {"reach": {"kind": kind}, "permissions": list(permissions), **more}


async def issue(stage: Stage, secret: str, **changed):
    return await stage.call("POST", "/v1/tokens", secret, body_of(**changed))


def faults_of(answer) -> list[tuple[str, str]]:
    return [(fault["where"], fault["code"]) for fault in answer.json()["faults"]]


async def own_token(stage: Stage, owner: str = "dana", *more, **given) -> str:
    """A token of somebody who may issue for themselves what it holds on acme."""
    scopes = [scope("authz", "user", "token:create"), await stage.scope_at("gitlab", ["group:acme"], "job:read")]
    return (await stage.give(owner, *scopes, *more, **given))[1]


async def test_without_a_token_and_with_a_wrong_one_nothing_is_issued(stage):
    assert (await stage.call("POST", "/v1/tokens", None, body_of())).status_code == 401
    answer = await stage.call("POST", "/v1/tokens", "azt_k1_nonsense", body_of())
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Bearer error="invalid_token"')


async def test_a_token_without_the_permission_may_not_issue(stage):
    secret = (await stage.give("root", scope("authz", "instance", "token:read")))[1]
    assert (await issue(stage, secret)).status_code == 403


async def test_a_permission_at_the_instance_is_worth_nothing_without_an_admin(stage):
    secret = (await stage.give("dana", scope("authz", "instance", *ALL_AUTHZ)))[1]
    assert (await issue(stage, secret, owner="eve")).status_code == 403
    assert (await issue(stage, secret, owner="dana")).status_code == 403


async def test_one_issues_for_oneself_at_most_what_the_own_token_holds(stage):
    secret = await own_token(stage)
    assert (await issue(stage, secret, scopes=[selected("acme/web")])).status_code == 201
    assert (await issue(stage, secret, scopes=[selected("acme/web")], owner=...)).json()["owner"] == "dana"
    more = await issue(
        stage,
        secret,
        scopes=[
            selected("acme/web", permissions=("job:run", "job:read")),
            selected("open/site"),
            reach("all_memberships", "job:read"),
            reach("personal_projects", "job:read"),
        ],
    )
    assert more.status_code == 403
    assert faults_of(more) == [
        ("/scopes/0/permissions/0", "beyond_issuer"),
        ("/scopes/1/permissions/0", "beyond_issuer"),
        ("/scopes/2/permissions/0", "beyond_issuer"),
        ("/scopes/3/permissions/0", "beyond_issuer"),
    ]


async def test_a_token_issues_for_no_catalog_that_it_is_not_for(stage):
    secret = (await stage.give("dana", scope("authz", "user", "token:create")))[1]
    answer = await issue(stage, secret, scopes=[])
    assert (answer.status_code, faults_of(answer)) == (403, [("/catalog", "beyond_issuer")])


async def test_a_coarse_token_is_issued_only_by_who_may_issue_anything(stage):
    secret = await own_token(stage)
    coarse = {"kind": "legacy", "legacy_scopes": ["read_api"], "scopes": []}
    answer = await issue(stage, secret, **coarse)
    assert (answer.status_code, faults_of(answer)) == (403, [("/legacy_scopes", "beyond_issuer")])
    assert (await issue(stage, await stage.admin(), **coarse)).status_code == 201


async def test_all_memberships_holds_the_places_where_its_owner_is_a_member(stage):
    scopes = [scope("authz", "user", "token:create"), scope("gitlab", "all_memberships", "job:read")]
    secret = (await stage.give("dana", *scopes))[1]
    inside = [selected("acme/web", "group:acme/tools", "dana/notes"), reach("personal_projects", "job:read")]
    assert (await issue(stage, secret, scopes=inside)).status_code == 201
    outside = await issue(stage, secret, scopes=[selected("open/site")])
    assert (outside.status_code, faults_of(outside)) == (403, [("/scopes/0/permissions/0", "beyond_issuer")])


async def test_a_role_that_does_not_inherit_holds_its_own_place_alone(stage):
    await stage.apply({"type": "membership", "user": "eve", "node": "open", "role": "minimal_access"})
    scopes = [scope("authz", "user", "token:create"), scope("gitlab", "all_memberships", "job:read")]
    secret = (await stage.give("eve", *scopes))[1]
    answer = await issue(stage, secret, owner="eve", scopes=[selected("group:open")])
    assert (answer.status_code, faults_of(answer)) == (403, [("/scopes/0/permissions/0", "beyond_issuer")])


async def test_an_implied_permission_is_held(stage):
    await stage.install(SINGLE_OWNER, "hub")
    from authz_service.tokens.model import Reach, ReachKind, Scope

    acme = await stage.node("group:acme")
    scopes = [
        scope("authz", "user", "token:create"),
        Scope("hub", Reach(ReachKind.SELECTED, (acme,)), ("contents:write",)),
    ]
    secret = (await stage.give("dana", *scopes))[1]
    async with stage.database.transaction() as conn:
        await conn.execute(text("update token set resource_owner_id = :acme where name = 'given'"), {"acme": acme})
    await stage.apply({"type": "group", "path": "acme/other", "external_id": "99"})
    read = {"catalog": "hub", "scopes": [selected("acme/web", permissions=("contents:read",))]}
    assert (await issue(stage, secret, resource_owner="group:acme", **read)).status_code == 201
    write = {"catalog": "hub", "scopes": [selected("acme/web", permissions=("contents:write",))]}
    assert (await issue(stage, secret, resource_owner="group:acme", **write)).status_code == 201
    other = {"catalog": "hub", "scopes": [selected("open/site", permissions=("contents:read",))]}
    answer = await issue(stage, secret, resource_owner="group:open", **other)
    assert (answer.status_code, faults_of(answer)) == (403, [("/scopes/0", "beyond_issuer")])


async def test_group_owners_issue_for_the_service_accounts_at_home_there(stage):
    scopes = [
        await stage.scope_at("authz", ["group:acme"], "token:create"),
        await stage.scope_at("gitlab", ["group:acme"], "job:read", "job:run"),
    ]
    olga = (await stage.give("olga", *scopes))[1]
    dana = (await stage.give("dana", *scopes))[1]
    assert (await issue(stage, olga, owner="bot")).status_code == 201
    assert (await issue(stage, olga, owner="dana")).status_code == 403
    assert (await issue(stage, olga, owner="olga")).status_code == 403
    assert (await issue(stage, dana, owner="bot")).status_code == 403


async def test_reaches_of_the_owners_own_are_not_given_to_another_owner(stage):
    scopes = [
        await stage.scope_at("authz", ["group:acme"], "token:create"),
        scope("gitlab", "all_memberships", "job:read"),
        scope("gitlab", "instance", "runner:read"),
    ]
    olga = (await stage.give("olga", *scopes))[1]
    for wanted in (reach("all_memberships", "job:read"), selected("acme/web"), selected("user:olga")):
        answer = await issue(stage, olga, owner="bot", scopes=[wanted])
        assert (answer.status_code, faults_of(answer)) == (403, [("/scopes/0/permissions/0", "beyond_issuer")]), wanted


async def test_nobody_has_a_service_account_go_where_they_are_no_member_themselves(stage):
    scopes = [
        await stage.scope_at("authz", ["group:acme"], "token:create"),
        await stage.scope_at("gitlab", ["group:open"], "job:read"),
    ]
    olga = (await stage.give("olga", *scopes))[1]
    answer = await issue(stage, olga, owner="bot", scopes=[selected("open/site")])
    assert (answer.status_code, faults_of(answer)) == (403, [("/scopes/0/permissions/0", "beyond_issuer")])


async def test_only_admins_issue_tokens_that_ask_about_others(stage):
    scopes = [
        scope("authz", "user", "token:create"),
        await stage.scope_at("authz", ["group:acme"], "decision:evaluate"),
    ]
    olga = (await stage.give("olga", *scopes, evaluates=("gitlab",)))[1]
    asked = {"catalog": "authz", "evaluates": ["gitlab"], "owner": "olga"}
    wanted = [selected("group:acme", permissions=("decision:evaluate",))]
    assert (await issue(stage, olga, scopes=wanted, **asked)).status_code == 403
    admin = await stage.admin()
    assert (await issue(stage, admin, scopes=wanted, **asked)).status_code == 201


async def test_an_admin_without_create_any_gives_no_more_than_the_own_token_holds(stage):
    scopes = [
        scope("authz", "instance", "token:create", "decision:evaluate"),
        await stage.scope_at("gitlab", ["group:acme"], "job:read"),
    ]
    root = (await stage.give("root", *scopes, evaluates=("gitlab",)))[1]
    assert (await issue(stage, root, owner="dana", scopes=[selected("acme/web")])).status_code == 201
    wide = {"catalog": "authz", "owner": "root", "scopes": [reach("instance", "decision:evaluate")]}
    assert (await issue(stage, root, evaluates=["gitlab"], **wide)).status_code == 201
    answer = await issue(stage, root, evaluates=["gitlab", "authz"], **wide)
    assert (answer.status_code, faults_of(answer)) == (403, [("/evaluates/1", "beyond_issuer")])
    foreign = await issue(stage, root, evaluates=["gitlab"], **wide | {"owner": "dana"})
    assert (foreign.status_code, faults_of(foreign)) == (403, [("/scopes/0/permissions/0", "beyond_issuer")])


async def test_a_child_is_never_wider_than_its_parent(stage):
    admin = await stage.admin()
    parent = (await issue(stage, admin, scopes=[selected("acme/web")], expires_at="2990-01-01T00:00:00Z")).json()
    narrow = await issue(stage, admin, scopes=[selected("acme/web")], parent=parent["id"])
    assert narrow.status_code == 201
    assert (narrow.json()["parent"], narrow.json()["expires_at"]) == (parent["id"], "2990-01-01T00:00:00Z")
    wide = await issue(stage, admin, scopes=[selected("group:acme")], parent=parent["id"])
    assert (wide.status_code, faults_of(wide)) == (400, [("/scopes/0/permissions/0", "beyond_parent")])
    late = await issue(
        stage, admin, scopes=[selected("acme/web")], parent=parent["id"], expires_at="2990-01-01T00:00:01Z"
    )
    assert (late.status_code, faults_of(late)) == (400, [("/expires_at", "after_parent")])


async def test_a_token_issues_children_of_itself(stage):
    secret = await own_token(stage)
    child = await issue(stage, secret, scopes=[selected("acme/web")], parent="self")
    assert child.status_code == 201
    asked = {"resource": "job", "action": "read", "target": "acme/web"}
    assert (await stage.call("POST", "/v1/self/check", child.json()["secret"], asked)).json()["decision"] == "allow"


async def test_a_child_issues_only_what_ends_with_it(stage):
    parent, _ = await stage.give("dana", await stage.scope_at("gitlab", ["group:acme"], "job:read"))
    scopes = [scope("authz", "user", "token:create"), await stage.scope_at("gitlab", ["group:acme"], "job:read")]
    top, _ = await stage.give("dana", *scopes)
    child, secret = await stage.give("dana", *scopes, parent=top)
    issued = await issue(stage, secret, scopes=[selected("acme/web")])
    assert (issued.status_code, issued.json()["parent"]) == (201, child)
    below = await issue(stage, secret, scopes=[selected("acme/web")], parent=issued.json()["id"])
    assert below.json()["parent"] == issued.json()["id"]
    for other in (top, parent):
        answer = await issue(stage, secret, scopes=[selected("acme/web")], parent=other)
        assert (answer.status_code, faults_of(answer)) == (400, [("/parent", "parent_refused")])


async def test_nobody_issues_under_a_token_that_is_not_theirs_to_issue(stage):
    secret = await own_token(stage)
    other = (await stage.give("eve", await stage.scope_at("gitlab", ["group:acme"], "job:read")))[0]
    answer = await issue(stage, secret, scopes=[selected("acme/web")], parent=other)
    nowhere = await issue(stage, secret, scopes=[selected("acme/web")], parent="tok_0000000000000000000000")
    assert answer.json() == nowhere.json()
    assert (answer.status_code, faults_of(answer)) == (400, [("/parent", "parent_unknown")])


async def test_a_revoked_parent_has_no_children(stage):
    admin = await stage.admin()
    parent = (await issue(stage, admin)).json()["id"]
    await stage.call("DELETE", f"/v1/tokens/{parent}", admin)
    answer = await issue(stage, admin, parent=parent)
    assert (answer.status_code, faults_of(answer)) == (400, [("/parent", "parent_ended")])


async def test_a_line_of_ancestors_has_an_end(stage):
    held = await stage.scope_at("gitlab", ["group:acme"], "job:read")
    parent = None
    for _ in range(30):
        parent = (await stage.give("dana", held, parent=parent))[0]
    admin = await stage.admin()
    last = await issue(stage, admin, scopes=[selected("acme/web")], parent=parent)
    assert last.status_code == 201
    answer = await issue(stage, admin, scopes=[selected("acme/web")], parent=last.json()["id"])
    assert (answer.status_code, faults_of(answer)) == (400, [("/parent", "too_deep")])


async def test_a_token_bound_to_a_network_manages_only_from_there(stage):
    given = scope("authz", "instance", *ALL_AUTHZ)
    inside = (await stage.give("root", given, networks=("127.0.0.0/8",)))[1]
    outside = (await stage.give("root", given, networks=("10.0.0.0/8",)))[1]
    assert (await issue(stage, inside)).status_code == 201
    assert (await issue(stage, outside)).status_code == 401


async def waiting_for_a_lock(stage: Stage) -> None:
    async with stage.database.read() as conn:
        for _ in range(500):
            if (await conn.execute(text("select count(*) from pg_locks where not granted"))).scalar():
                return
            await asyncio.sleep(0.01)
    raise AssertionError("nobody waits")


async def test_a_demotion_that_commits_before_the_issue_wins(stage):
    admin = await stage.admin()
    demoted = json.dumps({"type": "user", "username": "root", "external_id": "1", "admin": False}).encode()
    async with stage.database.transaction() as conn:
        await directory_import.apply_import(conn, parse_import(demoted))
        issuing = asyncio.create_task(issue(stage, admin, scopes=[selected("open/site")]))
        await waiting_for_a_lock(stage)
    assert (await issuing).status_code == 403


async def test_a_revoke_of_the_issuer_that_commits_before_the_issue_wins(stage):
    issuer, secret = await stage.give("root", scope("authz", "instance", *ALL_AUTHZ), evaluates=("*",))
    await stage.call("GET", "/v1/self", secret)
    async with stage.database.transaction() as conn:
        touched = changes.ChangeSet()
        await tokens.revoke(conn, touched, TokenId(issuer), reason="test")
        issuing = asyncio.create_task(issue(stage, secret))
        await waiting_for_a_lock(stage)
        await changes.append(conn, touched)
    assert (await issuing).status_code == 401


async def test_a_revoke_of_the_issuers_parent_that_commits_before_the_issue_wins(stage):
    parent, _ = await stage.give("root", scope("authz", "instance", *ALL_AUTHZ), evaluates=("*",))
    given = scope("authz", "instance", *ALL_AUTHZ)
    secret = (await stage.give("root", given, evaluates=("*",), parent=parent))[1]
    await stage.call("GET", "/v1/self", secret)
    async with stage.database.transaction() as conn:
        touched = changes.ChangeSet()
        await tokens.revoke(conn, touched, TokenId(parent), reason="test")
        issuing = asyncio.create_task(issue(stage, secret))
        await waiting_for_a_lock(stage)
        await changes.append(conn, touched)
    assert (await issuing).status_code == 401


async def test_many_issues_at_once_all_succeed(stage):
    admin = await stage.admin()
    answers = await asyncio.gather(*(issue(stage, admin, name=f"n{number}") for number in range(20)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 20
