import asyncio
import json

import pytest
from sqlalchemy import text
from tests.support.managing import ALL_AUTHZ, Stage, body_of, scope, staged

from authz_service.store import audit


@pytest.fixture
async def stage(database_url):
    async with staged(database_url) as running:
        yield running


async def given_tokens(stage: Stage) -> dict[str, str]:
    """Ids by whose and about what."""
    return {
        "dana web": (await stage.give("dana", await stage.scope_at("gitlab", ["acme/web"], "job:read")))[0],
        "dana both": (await stage.give("dana", await stage.scope_at("gitlab", ["acme/tools", "hidden"], "job:run")))[0],
        "eve": (await stage.give("eve", await stage.scope_at("gitlab", ["open/site"], "job:read")))[0],
        "bot": (await stage.give("bot", legacy_scopes=("read_api",), catalogs={"gitlab": 1}))[0],
    }


async def listed(stage: Stage, secret: str, query: str = "") -> list[str]:
    answer = await stage.call("GET", f"/v1/tokens{query}", secret)
    assert answer.status_code == 200, answer.text
    return [item["id"] for item in answer.json()["items"]]


async def test_an_admin_lists_all_tokens_newest_first(stage):
    given = await given_tokens(stage)
    assert (await listed(stage, await stage.admin()))[1:] == list(reversed(given.values()))


async def test_pages_are_complete_and_never_overlap(stage):
    for _ in range(7):
        await stage.give("dana", catalogs={"gitlab": 1})
    admin = await stage.admin()
    found, cursor = [], ""
    while True:
        answer = (await stage.call("GET", f"/v1/tokens?limit=3&sort=oldest{cursor}", admin)).json()
        assert len(answer["items"]) <= 3
        found += [item["id"] for item in answer["items"]]
        if answer["next_cursor"] is None:
            break
        cursor = f"&cursor={answer['next_cursor']}"
    assert found == list(reversed(await listed(stage, admin)))
    assert len(found) == 8


async def test_lists_are_filtered(stage):
    given = await given_tokens(stage)
    admin = await stage.admin()
    await stage.call("DELETE", f"/v1/tokens/{given['eve']}", admin)

    async def names(query: str) -> set[str]:
        found = await listed(stage, admin, query)
        return {name for name, token in given.items() if token in found}

    assert await names("?owner=dana") == {"dana web", "dana both"}
    assert await names("?owner=user:7") == {"dana web", "dana both"}
    assert await names("?kind=legacy") == {"bot"}
    assert await names("?state=revoked") == {"eve"}
    assert await names("?catalog=gitlab") == set(given)
    assert await names("?catalog=github") == set()
    assert await names("?permission=job:run") == {"dana both"}
    assert await names("?node=group:acme") == {"dana web", "dana both", "bot"}
    assert await names("?node=acme/web") == {"dana web", "bot"}
    assert await names("?search=DAN") == {"dana web", "dana both"}
    assert await names("?search=%25") == set()
    assert await names("?owner=nobody") == set()


async def test_an_odd_list_is_refused(stage):
    admin = await stage.admin()
    for query in (
        "?cursor=x",
        "?limit=0",
        "?limit=201",
        "?limit=x",
        "?state=dead",
        "?sort=name",
        "?search=",
        "?search=%00",
        "?owner=%00",
        "?node=nope",
        "?surprise=1",
    ):
        answer = await stage.call("GET", f"/v1/tokens{query}", admin)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_input"), query


async def test_a_cursor_of_another_order_is_refused(stage):
    await given_tokens(stage)
    admin = await stage.admin()
    cursor = (await stage.call("GET", "/v1/tokens?limit=1", admin)).json()["next_cursor"]
    assert (await stage.call("GET", f"/v1/tokens?limit=1&sort=oldest&cursor={cursor}", admin)).status_code == 400


async def test_everybody_else_lists_their_own(stage):
    given = await given_tokens(stage)
    own_id, own = await stage.give("dana", scope("authz", "user", "token:read"))
    assert set(await listed(stage, own)) == {given["dana web"], given["dana both"], own_id}
    assert (await stage.call("GET", "/v1/tokens?owner=eve", own)).status_code == 403
    assert (await stage.call("GET", "/v1/tokens?node=group:acme", own)).status_code == 403
    _, none = await stage.give("dana", scope("authz", "user", "token:create"))
    assert (await stage.call("GET", "/v1/tokens", none)).status_code == 403


async def test_a_group_owner_sees_of_a_token_what_lies_inside_the_group(stage):
    given = await given_tokens(stage)
    own, olga = await stage.give("olga", await stage.scope_at("authz", ["group:acme"], "token:read"))
    answer = (await stage.call("GET", "/v1/tokens?node=group:acme", olga)).json()
    assert {item["id"] for item in answer["items"]} == {
        given["dana web"], given["dana both"], given["bot"], own,
    }  # fmt: skip
    both = next(item for item in answer["items"] if item["id"] == given["dana both"])
    assert both["partial"] is True
    assert both["scopes"][0]["reach"]["nodes"] == ["group:acme/tools"]
    assert "hidden" not in str(answer)
    shown = (await stage.call("GET", f"/v1/tokens/{given['dana both']}", olga)).json()
    assert shown["scopes"] == both["scopes"]
    assert await listed(stage, olga, "?owner=bot") == [given["bot"]]
    dana = (await stage.give("dana", await stage.scope_at("authz", ["group:acme"], "token:read")))[1]
    assert (await stage.call("GET", "/v1/tokens?node=group:acme", dana)).status_code == 403


async def test_an_admin_finds_the_tokens_that_reach_into_a_place_as_its_groups_owner_does(stage):
    """By what they selected there, above and below, and what their owners are; only what is shown differs."""
    given = await given_tokens(stage)
    await stage.apply(
        {"type": "membership", "user": "eve", "node": "acme/tools/lint", "role": "guest"},
        {"type": "user", "username": "chief", "external_id": "20", "admin": True},
    )
    for name, owner, more in (
        ("above", "dana", [await stage.scope_at("gitlab", ["group:acme"], "job:read")]),
        ("members", "dana", [scope("gitlab", "all_memberships", "job:read")]),
        ("below", "eve", [scope("gitlab", "all_memberships", "job:read")]),
        ("personal", "dana", [scope("gitlab", "personal_projects", "job:read")]),
    ):
        given[name] = (await stage.give(owner, *more))[0]
    given["coarse"] = (await stage.give("chief", catalogs={"gitlab": 1}, legacy_scopes=("api",)))[0]
    named = {token: name for name, token in given.items()}
    admin = await stage.admin()
    _, olga = await stage.give("olga", await stage.scope_at("authz", ["group:acme"], "token:read"))

    async def found(secret: str, node: str) -> list[set[str]]:
        rows = (await stage.call("GET", f"/v1/token-export?node={node}", secret)).text.splitlines()
        ids = [await listed(stage, secret, f"?node={node}"), [json.loads(row)["id"] for row in rows]]
        return [{named[one] for one in each if one in named} for each in ids]

    reaching = {
        "group:acme": {"dana web", "dana both", "bot", "above", "members", "below", "coarse"},
        "group:acme/tools": {"dana both", "bot", "above", "members", "below", "coarse"},
        "project:acme/web": {"dana web", "bot", "above", "members", "coarse"},
        "project:acme/tools/lint": {"dana both", "bot", "above", "members", "below", "coarse"},
    }
    for node, names in reaching.items():
        assert await found(admin, node) == [names] * 2, node
        assert await found(olga, node) == [names] * 2, node
    assert await found(admin, "project:dana/notes") == [{"members", "personal", "coarse"}] * 2
    parts = (await stage.call("GET", "/v1/tokens?node=project:acme/web", olga)).json()["items"]
    [above] = [one for one in parts if one["id"] == given["above"]]
    assert above["partial"]
    assert above["scopes"][0]["reach"]["nodes"] == ["project:acme/web"]
    assert "group:acme" not in str([one["scopes"] for one in parts])


async def test_a_token_one_may_not_see_and_one_that_is_not_there_answer_alike(stage):
    given = await given_tokens(stage)
    own = (await stage.give("dana", scope("authz", "user", "token:read", "token:revoke")))[1]
    for method in ("GET", "DELETE"):
        unseen = await stage.call(method, f"/v1/tokens/{given['eve']}", own)
        unknown = await stage.call(method, "/v1/tokens/tok_0000000000000000000000", own)
        odd = await stage.call(method, "/v1/tokens/%00", own)
        assert unseen.status_code == 404
        assert unseen.json() == unknown.json() == odd.json()


async def test_a_renamed_project_is_shown_by_its_name_of_today(stage):
    given = await given_tokens(stage)
    await stage.apply({"type": "project", "path": "acme/site", "external_id": "42"})
    shown = (await stage.call("GET", f"/v1/tokens/{given['dana web']}", await stage.admin())).json()
    assert shown["scopes"][0]["reach"]["nodes"] == ["project:acme/site"]


async def test_a_deleted_place_is_left_out_and_a_deleted_owner_still_named(stage):
    given = await given_tokens(stage)
    await stage.apply(
        {"type": "delete", "what": "project", "node": "acme/web"}, {"type": "delete", "what": "user", "user": "dana"}
    )
    shown = (await stage.call("GET", f"/v1/tokens/{given['dana web']}", await stage.admin())).json()
    assert (shown["scopes"][0]["reach"]["nodes"], shown["owner"], shown["state"]) == ([], "dana", "revoked")


async def test_a_revoked_token_stops_and_says_so(stage):
    admin = await stage.admin()
    issued = (await stage.call("POST", "/v1/tokens", admin, body_of())).json()
    assert (await stage.call("GET", "/v1/self", issued["secret"])).status_code == 200
    answer = await stage.call("DELETE", f"/v1/tokens/{issued['id']}", admin)
    assert (answer.status_code, answer.json()["state"]) == (200, "revoked")
    asked = {"token": issued["secret"], "catalog": "gitlab", "resource": "job", "action": "read", "target": "acme/web"}
    checked = await stage.call("POST", "/check", admin, asked | {"at_least": answer.json()["revision"]})
    assert (checked.json()["decision"], checked.json()["reason"]) == ("deny", "token_revoked")
    assert (await stage.call("GET", "/v1/self", issued["secret"])).status_code == 401
    again = await stage.call("DELETE", f"/v1/tokens/{issued['id']}", admin)
    assert (again.status_code, again.json()["revoked_at"]) == (200, answer.json()["revoked_at"])


async def test_a_revoke_takes_a_revision_and_goes_on_record_once(stage):
    admin = await stage.admin()
    issued = (await stage.call("POST", "/v1/tokens", admin, body_of())).json()
    first = (await stage.call("DELETE", f"/v1/tokens/{issued['id']}", admin)).json()["revision"]
    assert first != issued["revision"]
    assert (await stage.call("DELETE", f"/v1/tokens/{issued['id']}", admin)).json()["revision"] == first
    async with stage.database.read() as conn:
        rows, _ = await audit.list_page(conn, audit.AuditFilter(action="token.revoke"))
    assert [(row.entry.subject, row.revision) for row in rows] == [(issued["id"], int(first.rsplit(".", 1)[1]))]


async def test_a_revoke_may_say_why_and_nothing_else(stage):
    admin = await stage.admin()
    held = await stage.scope_at("gitlab", ["acme/web", "hidden"], "job:read")
    token, secret = await stage.give("dana", held)
    _, other = await stage.give("dana", held)
    for body in ({"reasons": "x"}, {"reason": 1}, {"reason": "x" * 1001}, [], {"reason": "x", "wait": True}):
        for caller, path in ((admin, f"/v1/tokens/{token}"), (secret, "/v1/self")):
            answer = await stage.call("DELETE", path, caller, body)
            assert (answer.status_code, answer.json()["code"]) == (400, "invalid_body"), body
    assert await stage.allows(secret)
    for caller, path in ((admin, f"/v1/tokens/{token}"), (other, "/v1/self")):
        answer = (await stage.call("DELETE", path, caller, {"reason": "the laptop of hidden/plan is lost"})).json()
        assert answer["revoked_reason"] == "revoked on request: the laptop of hidden/plan is lost"
    again = await stage.call("DELETE", f"/v1/tokens/{token}", admin, {"reason": "another"})
    assert again.json()["revoked_reason"] == "revoked on request: the laptop of hidden/plan is lost"
    async with stage.database.read() as conn:
        rows, _ = await audit.list_page(conn, audit.AuditFilter(action="token.revoke"))
    assert [row.entry.details["reason"] for row in rows] == ["the laptop of hidden/plan is lost"] * 2
    _, olga = await stage.give("olga", await stage.scope_at("authz", ["group:acme"], "token:read"))
    for path in (f"/v1/tokens/{token}", f"/v1/tokens/{token}/blast-radius", "/v1/tokens?node=group:acme"):
        part = await stage.call("GET", path, olga)
        assert part.status_code == 200
        assert "revoked on request" in part.text
        assert "hidden" not in part.text


async def test_what_hangs_under_a_revoked_token_is_revoked_with_it(stage):
    held = await stage.scope_at("gitlab", ["acme/web"], "job:read")
    top, _ = await stage.give("dana", held)
    child, _ = await stage.give("dana", held, parent=top)
    grandchild, secret = await stage.give("dana", held, parent=child)
    other, _ = await stage.give("dana", held)
    admin = await stage.admin()
    await stage.call("DELETE", f"/v1/tokens/{top}", admin)
    states = {item["id"]: item["state"] for item in (await stage.call("GET", "/v1/tokens", admin)).json()["items"]}
    assert [states[token] for token in (top, child, grandchild, other)] == ["revoked", "revoked", "revoked", "active"]
    assert (await stage.call("GET", "/v1/self", secret)).status_code == 401


async def test_one_revokes_ones_own_and_those_of_service_accounts_at_home(stage):
    given = await given_tokens(stage)
    dana = (await stage.give("dana", scope("authz", "user", "token:revoke")))[1]
    assert (await stage.call("DELETE", f"/v1/tokens/{given['dana web']}", dana)).status_code == 200
    assert (await stage.call("DELETE", f"/v1/tokens/{given['bot']}", dana)).status_code == 404
    olga = (await stage.give("olga", await stage.scope_at("authz", ["group:acme"], "token:read", "token:revoke")))[1]
    assert (await stage.call("DELETE", f"/v1/tokens/{given['bot']}", olga)).status_code == 200
    assert (await stage.call("DELETE", f"/v1/tokens/{given['dana both']}", olga)).status_code == 403


async def test_a_revoke_that_waits_answers_when_every_replica_has_it(stage):
    admin = await stage.admin()
    issued = (await stage.call("POST", "/v1/tokens", admin, body_of())).json()
    management = stage.app.state.services.management
    waited = []

    async def settled(stamp):
        waited.append(stamp.revision)

    object.__setattr__(management, "settled", settled)
    answer = (await stage.call("DELETE", f"/v1/tokens/{issued['id']}?wait=true", admin)).json()
    assert waited == [int(answer["revision"].rsplit(".", 1)[1])]
    await stage.call("DELETE", f"/v1/tokens/{issued['id']}", admin)
    assert len(waited) == 1


async def test_two_admins_revoke_each_other_and_none_of_them_hangs(stage):
    first_id, first = await stage.give("root", scope("authz", "instance", *ALL_AUTHZ), evaluates=("*",))
    second_id, second = await stage.give("root", scope("authz", "instance", *ALL_AUTHZ), evaluates=("*",))
    answers = await asyncio.gather(
        stage.call("DELETE", f"/v1/tokens/{second_id}", first), stage.call("DELETE", f"/v1/tokens/{first_id}", second)
    )
    assert sorted(answer.status_code for answer in answers) == [200, 401]


async def test_a_database_that_refuses_is_503_and_tells_nothing(stage):
    admin = await stage.admin()
    await stage.call("GET", "/v1/self", admin)
    async with stage.database.transaction() as conn:
        await conn.execute(text("alter table token rename to gone"))
    answer = await stage.call("GET", "/v1/tokens", admin)
    assert answer.status_code in (500, 503)
    assert "token_pkey" not in answer.text
    assert "select" not in answer.text.lower()
    assert "relation" not in answer.text
