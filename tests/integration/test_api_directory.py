import asyncio
import json

import pytest
from tests.support.managing import ALL_AUTHZ, Stage, scope, staged

from authz_service.store import audit


@pytest.fixture
async def stage(database_url):
    async with staged(database_url) as running:
        yield running


def lines(*changes: dict) -> bytes:
    return "\n".join(json.dumps(change) for change in changes).encode()


async def targets(stage: Stage, secret: str, query: str = "") -> list[str]:
    answer = await stage.call("GET", f"/v1/directory/nodes{query}", secret)
    assert answer.status_code == 200, answer.text
    return [item["target"] for item in answer.json()["items"]]


async def test_an_import_counts_what_it_did_and_names_its_revision(stage):
    admin = await stage.admin()
    body = lines(
        {"type": "group", "path": "new", "external_id": "50"},
        {"type": "project", "path": "new/one", "external_id": "51", "visibility": "public"},
        {"type": "membership", "user": "eve", "node": "new", "role": "developer"},
    )
    answer = await stage.call("POST", "/v1/directory/import", admin, body)
    assert answer.status_code == 200
    assert answer.json() == {
        "lines": 3,
        "counts": {"groups_created": 1, "projects_created": 1, "memberships_created": 1},
        "revision": answer.json()["revision"],
    }
    again = await stage.call("POST", "/v1/directory/import", admin, body)
    assert (again.json()["counts"], again.json()["revision"]) == ({}, answer.json()["revision"])


async def test_an_import_is_whole_or_nothing_and_names_every_line_at_fault(stage):
    admin = await stage.admin()
    body = b"\n".join(
        [
            lines({"type": "group", "path": "new", "external_id": "50"}),
            b"nonsense",
            lines({"type": "membership", "user": "nobody", "node": "new", "role": "developer"}),
            lines({"type": "group", "path": "new", "colour": "red"}),
        ]
    )
    answer = await stage.call("POST", "/v1/directory/import", admin, body)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_input")
    assert [fault["where"] for fault in answer.json()["faults"]] == ["line 2", "line 4"]
    assert "group:new" not in await targets(stage, admin)
    late = lines(
        {"type": "group", "path": "new", "external_id": "50"},
        {"type": "membership", "user": "nobody", "node": "new", "role": "developer"},
    )
    answer = await stage.call("POST", "/v1/directory/import", admin, late)
    assert [fault["where"] for fault in answer.json()["faults"]] == ["line 2"]
    assert "group:new" not in await targets(stage, admin)


async def test_an_import_needs_an_admin(stage):
    body = lines({"type": "user", "username": "dana", "external_id": "7", "admin": True})
    for owner, permissions in (("dana", ALL_AUTHZ), ("root", ("token:create",))):
        secret = (await stage.give(owner, scope("authz", "instance", *permissions)))[1]
        assert (await stage.call("POST", "/v1/directory/import", secret, body)).status_code == 403
    assert (await stage.call("POST", "/v1/directory/import", None, body)).status_code == 401


async def test_an_import_larger_than_the_cap_is_not_read(stage):
    admin = await stage.admin()
    limits = stage.app.state.services.management.limits
    object.__setattr__(limits, "import_bytes", 1000)
    answer = await stage.call("POST", "/v1/directory/import", admin, b"\n" * 1001)
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


async def test_an_import_goes_on_record(stage):
    admin = await stage.admin()
    body = lines({"type": "group", "path": "new", "external_id": "50"})
    await stage.call("POST", "/v1/directory/import?source=other", admin, body)
    async with stage.database.read() as conn:
        rows, _ = await audit.list_page(conn)
    assert [(row.entry.action, row.entry.subject) for row in rows] == [("directory.import", "source:other")]
    assert await targets(stage, admin, "?source=other") == ["group:new"]
    assert "group:new" not in await targets(stage, admin)


async def test_imports_at_once_come_one_after_the_other(stage):
    admin = await stage.admin()
    bodies = [lines({"type": "group", "path": f"g{number}", "external_id": f"g{number}"}) for number in range(6)]
    answers = await asyncio.gather(*(stage.call("POST", "/v1/directory/import", admin, body) for body in bodies))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["revision"] for answer in answers}) == 6


async def test_the_last_admin_may_end_their_own_rule_and_then_imports_no_more(stage):
    admin = await stage.admin()
    body = lines({"type": "user", "username": "root", "external_id": "1", "admin": False})
    assert (await stage.call("POST", "/v1/directory/import", admin, body)).status_code == 200
    assert (await stage.call("POST", "/v1/directory/import", admin, body)).status_code == 403


async def test_a_membership_that_ends_is_known_from_the_imports_revision_on(stage):
    secret = (await stage.give("dana", await stage.scope_at("gitlab", ["group:acme"], "job:read")))[1]
    asked = {"resource": "job", "action": "read", "target": "acme/web"}
    assert (await stage.call("POST", "/v1/self/check", secret, asked)).json()["decision"] == "allow"
    body = lines({"type": "delete", "what": "membership", "user": "dana", "node": "acme"})
    revision = (await stage.call("POST", "/v1/directory/import", await stage.admin(), body)).json()["revision"]
    after = await stage.call("POST", "/v1/self/check", secret, asked | {"at_least": revision})
    assert after.json()["decision"] == "deny"


async def test_what_lies_under_a_group_is_listed_in_complete_pages(stage):
    admin = await stage.admin()
    whole = await targets(stage, admin, "?under=group:acme")
    assert whole == ["group:acme/tools", "project:acme/web", "project:acme/tools/lint"]
    found, cursor = [], ""
    while True:
        answer = (await stage.call("GET", f"/v1/directory/nodes?limit=2{cursor}", admin)).json()
        found += [item["target"] for item in answer["items"]]
        if answer["next_cursor"] is None:
            break
        cursor = f"&cursor={answer['next_cursor']}"
    assert found == await targets(stage, admin, "?limit=200")
    assert len(found) == 15


async def test_lists_are_filtered_by_kind_and_name(stage):
    admin = await stage.admin()
    assert await targets(stage, admin, "?kind=user&search=O") == ["user:root", "user:olga", "user:bob", "user:bot"]
    assert await targets(stage, admin, "?kind=project&under=user:dana") == ["project:dana/notes"]
    assert await targets(stage, admin, "?search=lint&limit=1") == ["project:acme/tools/lint"]
    for query in ("?kind=instance", "?under=nope", "?cursor=x", "?source=A", "?x=1", "?search=%00"):
        assert (await stage.call("GET", f"/v1/directory/nodes{query}", admin)).status_code == 400, query


async def test_a_group_owner_reads_the_own_group_alone(stage):
    olga = (await stage.give("olga", await stage.scope_at("authz", ["group:acme"], "directory:read")))[1]
    assert len(await targets(stage, olga, "?under=group:acme")) == 3
    assert (await stage.call("GET", "/v1/directory/nodes", olga)).status_code == 403
    assert (await stage.call("GET", "/v1/directory/nodes?under=group:open", olga)).status_code == 403
    assert (await stage.call("GET", "/v1/directory/node?target=acme/web", olga)).status_code == 200
    assert (await stage.call("GET", "/v1/directory/node?target=open/site", olga)).status_code == 403
    hidden = await stage.call("GET", "/v1/directory/node?target=hidden/plan", olga)
    nowhere = await stage.call("GET", "/v1/directory/node?target=hidden/none", olga)
    assert hidden.status_code == nowhere.status_code == 404
    assert hidden.text.replace("plan", "…") == nowhere.text.replace("none", "…")
    assert (await stage.call("GET", "/v1/directory/users/dana", olga)).status_code == 403
    own = (await stage.call("GET", "/v1/directory/users/olga", olga)).json()
    assert own["memberships"] == [{"node": "group:acme", "role": "owner"}]


async def test_a_place_is_shown_with_its_effective_visibility(stage):
    admin = await stage.admin()
    await stage.apply({"type": "project", "path": "acme/pub", "external_id": "77", "visibility": "public"})
    shown = (await stage.call("GET", "/v1/directory/node?target=project:77", admin)).json()
    assert (shown["target"], shown["visibility"], shown["effective_visibility"]) == (
        "project:acme/pub",
        "public",
        "private",
    )
    for target in ("nope", "instance", "77", "project:"):
        assert (await stage.call("GET", f"/v1/directory/node?target={target}", admin)).status_code == 404, target


async def test_a_user_is_shown_by_name_or_external_id(stage):
    admin = await stage.admin()
    by_name = (await stage.call("GET", "/v1/directory/users/bot", admin)).json()
    assert (by_name["service_account"], by_name["home"]) == (True, "group:acme")
    by_id = (await stage.call("GET", "/v1/directory/users/user:11", admin)).json()
    assert by_id == by_name
    for name in ("nobody", "%00", "group:acme", "11"):
        answer = await stage.call("GET", f"/v1/directory/users/{name}", admin)
        assert answer.status_code == (200 if name == "11" else 404), name
