"""Versions of catalogs by the API: installed, compared before that, and tokens moved from one to another."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import text as sql
from tests.support.managing import Stage, scope, staged

from authz_service.api.admin.catalog_reports import UpgradeBody
from authz_service.cache.clock import elapsed
from authz_service.store import grants
from authz_service.store.changes import ChangeSet, append
from authz_service.store.grants import NOBODY
from authz_service.store.tables import token as token_table
from authz_service.tokens.grants import Origin
from authz_service.tokens.model import TokenId

SHOPS = """\
catalog: shops
version: 1
roles: {member: , owner: [member]}
top_role: owner
base_path: /api
targets: {/shops/:shop: project, /chains/:chain: group}
permissions:
  order:
    read: {project: "GET /shops/:shop/orders", group: "GET /chains/:chain/orders"}
    cancel: {project: "DELETE /shops/:shop/orders/:order"}
  refund:
    create: {project: "POST /shops/:shop/refunds"}
operations:
  GET /version: {open: true}
"""


def changed(*changes: tuple[str, str], version: int = 2) -> str:
    text = SHOPS.replace("version: 1", f"version: {version}")
    for before, after in changes:
        assert before in text, before
        text = text.replace(before, after)
    return text


WITHOUT_CANCEL = ('    cancel: {project: "DELETE /shops/:shop/orders/:order"}\n', "")
READ_INCLUDES_CANCEL = ("    read: {project:", '    read: {implies: "order:cancel", project:')
CANCEL_FOR_OWNERS = ('cancel: {project: "DELETE', 'cancel: {project: {min_role: owner, operations: "DELETE')
CLOSING = ('orders/:order"}', 'orders/:order"}}')
EXPORT = ('"GET /shops/:shop/orders"', '["GET /shops/:shop/orders", "GET /shops/:shop/export"]')


@pytest.fixture
async def stage(database_url):
    async with staged(database_url) as running:
        yield running


async def admin_of(stage: Stage) -> str:
    permissions = ("catalog:install", "catalog:read", "token:edit", "token:read", "token:create_any", "token:create")
    return (await stage.give("root", scope("authz", "instance", *permissions)))[1]


async def install(stage: Stage, secret: str, text: str, **more: Any):
    return await stage.call(
        "POST", "/v1/catalogs", secret, text.encode(), headers={"Content-Type": "application/yaml"}, **more
    )


async def compare(stage: Stage, secret: str, text: str, name: str = "shops", query: str = "") -> dict[str, Any]:
    answer = await stage.call("POST", f"/v1/catalogs/{name}/compare{query}", secret, {"text": text})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def upgrade(stage: Stage, secret: str, query: str = "", **body: Any) -> dict[str, Any]:
    answer = await stage.call("POST", f"/v1/catalogs/shops/upgrade{query}", secret, {"to": 2, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def given(stage: Stage, *permissions: str, node: str = "project:acme/web", **more: Any) -> tuple[str, str]:
    return await stage.give("dana", await stage.scope_at("shops", [node], *permissions), **more)


async def ask(stage: Stage, secret: str, permission: str, **more: str) -> str:
    resource, _, action = permission.partition(":")
    body = {"catalog": "shops", "resource": resource, "action": action, "target": "acme/web", **more}
    answer = await stage.call("POST", "/v1/self/check", secret, body)
    assert answer.status_code == 200, answer.text
    return answer.json()["reason"]


# install


async def test_a_catalog_is_installed_and_decided_by_at_once(stage):
    admin = await admin_of(stage)
    answer = await install(stage, admin, SHOPS)
    assert answer.status_code == 201
    assert answer.headers["location"] == "/v1/catalogs/shops@1"
    found = answer.json()
    assert (found["catalog"], found["new"], found["permissions"], found["operations"]) == ("shops@1", True, 3, 5)
    body = {
        "name": "till",
        "owner": "dana",
        "catalog": "shops",
        "scopes": [{"reach": {"kind": "selected", "nodes": ["project:acme/web"]}, "permissions": ["order:read"]}],
    }
    secret = (await stage.call("POST", "/v1/tokens", admin, body)).json()["secret"]
    assert await ask(stage, secret, "order:read") == "granted"
    assert await ask(stage, secret, "order:cancel") == "permission_missing"


async def test_a_text_comes_in_json_too_and_its_file_is_named_in_faults(stage):
    admin = await admin_of(stage)
    assert (await stage.call("POST", "/v1/catalogs", admin, {"text": SHOPS})).status_code == 201
    broken = {"text": changed(("order:", "ORDER:")), "file": "mine.yaml"}
    answer = await stage.call("POST", "/v1/catalogs", admin, broken)
    assert answer.status_code == 400
    assert {fault["where"].partition(":")[0] for fault in answer.json()["faults"]} == {"mine.yaml"}


async def test_the_same_text_again_changes_nothing_and_another_is_refused(stage):
    admin = await admin_of(stage)
    first = (await install(stage, admin, SHOPS)).json()
    again = await install(stage, admin, SHOPS)
    assert (again.status_code, again.json()["new"], again.json()["revision"]) == (200, False, first["revision"])
    other = await install(stage, admin, SHOPS.replace("refund", "repayment"))
    assert (other.status_code, other.json()["code"]) == (409, "conflict")
    assert "version: 2" in other.json()["detail"]
    assert (await install(stage, admin, changed(version=3))).status_code == 201
    older = await install(stage, admin, changed(version=2))
    assert older.status_code == 409
    assert "version: 4" in older.json()["detail"]


async def test_all_faults_are_told_by_line_and_the_last_good_version_stays(stage):
    admin = await admin_of(stage)
    await install(stage, admin, SHOPS)
    _, secret = await given(stage, "order:read")
    bad = changed(
        ("refund:\n    create:", "refund:\n    create: {implies: order:fly}\n    undo:"),
        ("GET /version: {open: true}", "GET /version: {open: true}\n  GET /shops/:id/orders: order:read"),
    )
    answer = await install(stage, admin, bad)
    assert (answer.status_code, answer.json()["code"]) == (400, "catalog_invalid")
    faults = answer.json()["faults"]
    assert len(faults) > 1
    assert {fault["code"] for fault in faults} >= {"unknown_permission"}
    lines = [int(fault["where"].rpartition(":")[2]) for fault in faults]
    assert lines == sorted(lines)
    assert min(lines) > 1
    shown = (await stage.call("GET", "/v1/catalogs/shops", admin)).json()
    assert shown["versions"] == [1]
    assert await ask(stage, secret, "order:read") == "granted"


async def test_a_shipped_name_gets_higher_versions_alone_and_authz_none(stage):
    admin = await admin_of(stage)
    own = SHOPS.replace("catalog: shops", "catalog: gitlab")
    for version in (1, 2):
        assert (await install(stage, admin, own.replace("version: 1", f"version: {version}"))).status_code == 409
    assert (await install(stage, admin, own.replace("version: 1", "version: 900"))).status_code == 201
    versions = (await stage.call("GET", "/v1/catalogs/gitlab", admin)).json()["versions"]
    assert versions[0] == 900
    for version in (1, 2, 900):
        refused = await install(stage, admin, SHOPS.replace("shops", "authz").replace("sion: 1", f"sion: {version}"))
        assert (refused.status_code, refused.json()["code"]) == (409, "conflict")


async def test_only_an_admin_with_the_permission_installs_compares_and_upgrades(stage):
    reader = (await stage.give("root", scope("authz", "instance", "catalog:read")))[1]
    dana = (await stage.give("dana", scope("authz", "instance", "catalog:install", "token:edit")))[1]
    for secret, status in ((reader, 403), (dana, 403), (None, 401)):
        assert (await install(stage, secret, SHOPS)).status_code == status
        assert (await stage.call("POST", "/v1/catalogs/shops/compare", secret, {"text": SHOPS})).status_code == status
        assert (await stage.call("POST", "/v1/catalogs/shops/upgrade", secret, {"to": 2})).status_code == status


async def test_to_move_tokens_takes_the_right_to_edit_them_and_to_look_does_not(stage):
    await install(stage, await admin_of(stage), SHOPS)
    await install(stage, await admin_of(stage), changed())
    installer = (await stage.give("root", scope("authz", "instance", "catalog:install")))[1]
    assert (await stage.call("POST", "/v1/catalogs/shops/upgrade", installer, {"to": 2})).status_code == 403
    body = {"to": 2, "dry_run": True}
    assert (await stage.call("POST", "/v1/catalogs/shops/upgrade", installer, body)).status_code == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"\xff\xfe", 400),
        (b"catalog: \x00", 400),
        (b"{", 400),
        (b"[]", 400),
        (b'{"text": 7}', 400),
        (b'{"text": "a: 1", "extra": 1}', 400),
        (b'{"text": "a: 1", "file": "\\u0007"}', 400),
        (b"a: &x [*x, *x]", 400),
        (b"[" * 5000, 400),
        (b"catalog: a\nversion: 1\nbase_path: /..\npermissions: {i: {read: project}}\n", 400),
        (b" " * (17 * 1024 * 1024), 413),
    ],
)
async def test_odd_bodies_are_refused_with_a_reason(stage, body, status):
    admin = await admin_of(stage)
    for path in ("/v1/catalogs", "/v1/catalogs/gitlab/compare"):
        answer = await stage.call("POST", path, admin, body)
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/problem+json"


async def test_an_install_is_audited_with_its_revision(stage):
    admin = await admin_of(stage)
    await install(stage, admin, SHOPS)
    await install(stage, admin, SHOPS)
    async with stage.database.read() as conn:
        rows = (await conn.execute(sql("select action, subject, revision from audit order by id"))).all()
    assert [(row.action, row.subject) for row in rows] == [("catalog.install", "shops@1")]
    assert rows[0].revision is not None


# compare


async def test_a_comparison_names_what_a_version_adds_removes_and_changes(stage):
    admin = await admin_of(stage)
    await install(stage, admin, SHOPS)
    text = changed(
        WITHOUT_CANCEL, ("refund:\n    create: {project:", "refund:\n    create: {group: , project:"), EXPORT
    )
    found = await compare(stage, admin, text)
    difference = found["difference"]
    assert (found["from"], found["to"], found["installable"]) == ("shops@1", "shops@2", True)
    assert difference["permissions"]["removed"] == ["order:cancel"]
    assert difference["operations"]["added"] == ["GET /shops/:shop/export"]
    assert difference["operations"]["removed"] == ["DELETE /shops/:shop/orders/:order"]
    [refund] = difference["permissions"]["changed"]
    assert (refund["name"], [change["aspect"] for change in refund["changes"]]) == ("refund:create", ["at group"])


async def test_a_comparison_names_the_live_tokens_that_break_or_widen_and_no_others(stage):
    admin = await admin_of(stage)
    await install(stage, admin, SHOPS)
    canceller, _ = await given(stage, "order:cancel")
    reader, _ = await given(stage, "order:read")
    await given(stage, "refund:create")
    ended, _ = await given(stage, "order:cancel")
    async with stage.database.transaction() as conn:
        await conn.execute(sql("update token set revoked_at = authz_now() where id = :id"), {"id": ended})
    found = await compare(stage, admin, changed(WITHOUT_CANCEL, EXPORT))
    assert found["counts"] == {"tokens": 3, "broken": 1, "widened": 1, "refused": 0, "unchanged": 1}
    assert {(item["id"], item["broken"], item["widened"]) for item in found["items"]} == {
        (canceller, True, False),
        (reader, False, True),
    }
    broken = next(item for item in found["items"] if item["id"] == canceller)
    assert broken["lacking"] == ["order:cancel"]
    assert broken["owner"] == "dana"
    assert [(call["operation"], call["turn"]) for call in broken["calls"]] == [
        ("DELETE /shops/:shop/orders/:order", "lost")
    ]
    widened = next(item for item in found["items"] if item["id"] == reader)
    assert [(call["operation"], call["turn"], call["unknown"]) for call in widened["calls"]] == [
        ("GET /shops/:shop/export", "gained", True)
    ]


async def test_an_implication_widens_and_says_that_it_is_one(stage):
    admin = await admin_of(stage)
    await install(stage, admin, SHOPS)
    reader, _ = await given(stage, "order:read")
    [item] = (await compare(stage, admin, changed(READ_INCLUDES_CANCEL)))["items"]
    assert item["id"] == reader
    assert item["permissions"] == [
        {"permission": "order:cancel", "boundary": "project", "turn": "gained", "implied": True}
    ]


async def test_a_higher_role_narrows_and_a_place_that_a_token_cannot_reach_does_not_count(stage):
    admin = await admin_of(stage)
    await install(stage, admin, SHOPS)
    await given(stage, "order:cancel")
    found = await compare(stage, admin, changed(CANCEL_FOR_OWNERS, CLOSING))
    [item] = found["items"]
    assert [(each["permission"], each["turn"]) for each in item["permissions"]] == [("order:cancel", "narrower")]
    projects_alone, _ = await given(stage, "order:read")
    below_group, _ = await given(stage, "order:read", node="group:acme")
    found = await compare(stage, admin, changed((', group: "GET /chains/:chain/orders"', "")))
    assert [item["id"] for item in found["items"]] == [below_group]
    assert projects_alone != below_group


async def test_what_a_group_granted_may_cover_less_and_is_said_to(stage):
    """The token holds both permissions; its grant covers the one only as long as the other includes it."""
    admin = await admin_of(stage)
    await install(stage, admin, changed(READ_INCLUDES_CANCEL, version=1))
    token, _ = await given(stage, "order:read", "order:cancel")
    group, project = await stage.node("group:acme"), await stage.node("project:acme/web")
    async with stage.database.transaction() as conn:
        changes = ChangeSet()
        await grants.give(
            conn, changes, TokenId(token), "shops", group, [("order:read", project)], origin=Origin.REVIEW, by=NOBODY
        )
        await append(conn, changes)
    [item] = (await compare(stage, admin, changed()))["items"]
    assert (item["id"], item["broken"], item["widened"]) == (token, True, False)
    assert [shift["code"] for shift in item["shifts"]] == ["grants_differ"]
    assert (item["permissions"], item["calls"]) == ([], [])


async def test_tokens_come_in_complete_pages(stage):
    admin = await admin_of(stage)
    await install(stage, admin, SHOPS)
    wanted = sorted([(await given(stage, "order:cancel"))[0] for _ in range(5)])
    found: list[str] = []
    cursor = ""
    while True:
        page = await compare(stage, admin, changed(WITHOUT_CANCEL), query=f"?limit=2{cursor}")
        assert page["total"] == page["counts"]["broken"] == 5
        found += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert found == wanted
    other = await stage.call("POST", f"/v1/catalogs/shops/compare?limit=2{cursor}", admin, {"text": changed(version=3)})
    assert other.status_code == 400


async def test_nothing_is_stored_by_a_comparison_and_what_cannot_be_installed_is_said(stage):
    admin = await admin_of(stage)
    await install(stage, admin, SHOPS)
    found = await compare(stage, admin, SHOPS.replace("refund", "repayment"))
    assert found["installable"] is False
    assert "version: 2" in found["refusal"]
    assert (await stage.call("GET", "/v1/catalogs/shops@2", admin)).status_code == 404
    for path, body, status in (
        ("shops/compare", {"text": SHOPS.replace("catalog: shops", "catalog: stores")}, 400),
        ("stores/compare", {"text": SHOPS.replace("catalog: shops", "catalog: stores")}, 404),
        ("shops/compare", {"version": 9}, 404),
        ("shops/compare", {"version": 1, "text": SHOPS}, 400),
        ("shops/compare", {}, 400),
        ("shops/upgrade", {"to": 9}, 404),
        ("shops/upgrade", {"to": 0}, 400),
        ("nobody/upgrade", {"to": 1}, 404),
    ):
        assert (await stage.call("POST", f"/v1/catalogs/{path}", admin, body)).status_code == status, (path, body)


async def test_versions_that_are_there_are_compared_too(stage):
    admin = await admin_of(stage)
    await stage.give("dana", await stage.scope_at("gitlab", ["project:acme/web"], "job:read"))
    answer = await stage.call("POST", "/v1/catalogs/gitlab/compare", admin, {"version": 2})
    assert answer.status_code == 200
    found = answer.json()
    assert (found["from"], found["to"]) == ("gitlab@1", "gitlab@2")
    assert found["counts"]["tokens"] == 1


# upgrade


async def catalogs_of(stage: Stage, token: str) -> dict[str, int]:
    async with stage.database.read() as conn:
        query = token_table.select().where(token_table.c.id == token)
        return dict((await conn.execute(query)).mappings().one()["catalogs"])


async def test_tokens_go_to_a_newer_version_in_one_revision_and_keep_their_meaning_until_then(stage):
    admin = await admin_of(stage)
    await install(stage, admin, SHOPS)
    one, secret = await given(stage, "order:cancel")
    two, _ = await given(stage, "order:read")
    await install(stage, admin, changed(WITHOUT_CANCEL))
    assert await ask(stage, secret, "order:cancel") == "granted"
    before = await upgrade(stage, admin, dry_run=True)
    assert (before["upgraded"], before["counts"]["broken"]) == (0, 1)
    assert await catalogs_of(stage, one) == {"shops": 1}
    found = await upgrade(stage, admin)
    assert (found["upgraded"], found["meanwhile"], found["counts"]["refused"]) == (2, 0, 0)
    assert [await catalogs_of(stage, token) for token in (one, two)] == [{"shops": 2}] * 2
    assert await ask(stage, secret, "order:cancel", at_least=found["revision"]) == "permission_unknown"
    revision = int(found["revision"].rpartition(".")[2])
    async with stage.database.read() as conn:
        rows = await conn.execute(sql("select kind, key from change_log where rev = :rev"), {"rev": revision})
        assert sorted(rows.all()) == sorted([("token", one), ("token", two)])
    assert (await upgrade(stage, admin))["counts"]["tokens"] == 0


@pytest.mark.parametrize(
    ("change", "allowed_by"),
    [(READ_INCLUDES_CANCEL, {"widening"}), (EXPORT, {"widening", "new_calls"}), (None, {*"abc"})],
)
async def test_a_token_that_would_gain_is_refused_unless_that_is_allowed(stage, change, allowed_by):
    admin = await admin_of(stage)
    await install(stage, admin, SHOPS)
    token, _ = await given(stage, "order:read")
    await install(stage, admin, changed(*([change] if change else [])))
    for allow in ("nothing", "new_calls", "widening"):
        found = await upgrade(stage, admin, allow=allow, dry_run=True)
        moves = change is None or allow in allowed_by
        assert found["counts"]["refused"] == (not moves), allow
        assert [item["refusal"] is None for item in found["items"]] == ([] if change is None else [moves])
    if change is not None:
        found = await upgrade(stage, admin)
        assert found["upgraded"] == 0
        assert await catalogs_of(stage, token) == {"shops": 1}
        assert found["refusals"] == {"would_widen" if allowed_by == {"widening"} else "would_call_more": 1}
        assert (await upgrade(stage, admin, allow=max(allowed_by)))["upgraded"] == 1
        assert await catalogs_of(stage, token) == {"shops": 2}


async def test_tokens_of_another_kind_of_catalog_cannot_be_moved_at_all(stage):
    admin = await admin_of(stage)
    await install(stage, admin, SHOPS)
    await given(stage, "order:read")
    text = changed(("roles: {member: , owner: [member]}\ntop_role: owner", "owner_check: upstream"))
    assert (await install(stage, admin, text)).status_code == 201
    found = await upgrade(stage, admin, allow="widening")
    assert (found["upgraded"], found["refusals"]) == (0, {"incompatible": 1})
    assert "owner_check" in found["incompatible"]["shops@1"][0]


async def test_a_child_changes_with_the_token_above_it(stage):
    admin = await admin_of(stage)
    await install(stage, admin, SHOPS)
    parent, _ = await given(stage, "order:read")
    child, _ = await given(stage, "order:cancel", "order:read", parent=parent)
    await install(stage, admin, changed(READ_INCLUDES_CANCEL))
    items = {item["id"]: item for item in (await upgrade(stage, admin, dry_run=True))["items"]}
    assert items[child]["widened"]
    assert items[child]["above"] == [parent]
    assert items[child]["permissions"] == []


async def test_coarse_tokens_are_compared_by_their_bundles(stage):
    admin = await admin_of(stage)
    bundle = "bundles:\n  all: {permissions: all, operations: all}\n  read: {permissions: reads}\n"
    await install(stage, admin, SHOPS + bundle)
    ids = [(await stage.give("dana", catalogs={"shops": 1}, legacy_scopes=(name,)))[0] for name in ("all", "read")]
    text = changed(WITHOUT_CANCEL) + bundle
    found = await compare(stage, admin, text)
    assert [(item["id"], item["broken"], item["widened"]) for item in found["items"]] == [(ids[0], True, False)]


async def test_what_was_edited_or_revoked_meanwhile_stays_as_it_is(stage):
    from authz_service.store import changes, pins

    admin = await admin_of(stage)
    await install(stage, admin, SHOPS)
    ids = sorted([(await given(stage, "order:read"))[0] for _ in range(3)])
    async with stage.database.read() as conn:
        read = await pins.load_page(conn, "shops", limit=10)
    assert [pin.record.token.id for pin in read] == ids
    async with stage.database.transaction() as conn:
        await conn.execute(
            sql("""update token set scopes = '[{"catalog": "shops", "reach": {"kind": "instance"},
                "permissions": []}]' where id = :id"""),
            {"id": ids[0]},
        )
        await conn.execute(sql("update token set revoked_at = authz_now() where id = :id"), {"id": ids[1]})
    async with stage.database.transaction() as conn:
        touched = changes.ChangeSet()
        assert await pins.repin(conn, touched, "shops", read, 2) == (ids[2],)
        await changes.append(conn, touched)
    assert [(await catalogs_of(stage, token))["shops"] for token in ids] == [1, 1, 2]


def test_the_body_of_an_upgrade_allows_nothing_unless_it_says_so():
    assert UpgradeBody(to=2).upgrade().allowance.value == "nothing"
    assert UpgradeBody(to=2).upgrade().dry_run is False


# every replica


async def test_every_replica_decides_by_a_new_version_and_a_bad_one_changes_none(database_url):
    nobody_new = {"type": "user", "username": "root", "external_id": "1", "admin": True}
    async with staged(database_url) as one, staged(database_url, nobody_new) as two:
        admin = await admin_of(one)
        await install(one, admin, SHOPS)
        _, secret = await given(one, "order:read", "order:cancel")
        for stage in (one, two):
            assert await ask(stage, secret, "order:cancel") == "granted"
        assert (await install(two, admin, changed(WITHOUT_CANCEL))).status_code == 201
        assert (await install(two, admin, "catalog: shops\nversion: 3\n")).status_code == 400
        for stage in (one, two):
            shown = (await stage.call("GET", "/v1/catalogs/shops", admin)).json()
            assert shown["versions"] == [2, 1]
            assert await ask(stage, secret, "order:cancel") == "granted"  # it is pinned to the first
        assert (await upgrade(one, admin))["upgraded"] == 1
        until = elapsed() + 10
        while await ask(two, secret, "order:cancel") != "permission_unknown":
            assert elapsed() < until, "the other replica never heard of it"
            await asyncio.sleep(0.02)
        assert await ask(one, secret, "order:cancel") == "permission_unknown"
        assert await ask(two, secret, "order:read") == "granted"


async def test_ten_installs_at_once_leave_one_text_for_each_version(stage):
    admin = await admin_of(stage)
    texts = [SHOPS.replace("refund", f"refund_{number}") for number in range(10)]
    answers = await asyncio.gather(*(install(stage, admin, text) for text in texts))
    assert sorted(answer.status_code for answer in answers) == [201, *[409] * 9]


def large(operations: int) -> str:
    """A catalog that takes its time to be read."""
    lines = "".join(f"        GET /shops/:shop/things{number}\n" for number in range(operations))
    head = SHOPS.replace('read: {project: "GET /shops/:shop/orders"', "see: project\n    read: {project: ")
    return head.partition("  order:")[0] + "  thing:\n    read:\n      project: |\n" + lines


async def test_a_large_catalog_holds_up_no_decision_while_it_is_read(stage):
    admin = await admin_of(stage)
    await install(stage, admin, SHOPS)
    _, secret = await given(stage, "order:read")
    assert await ask(stage, secret, "order:read") == "granted"
    assert (await install(stage, admin, large(15_000).replace("catalog: shops", "catalog: large"))).status_code == 201
    _, other = await stage.give("dana", await stage.scope_at("large", ["project:acme/web"], "thing:read"))
    body = {"catalog": "large", "resource": "thing", "action": "read", "target": "acme/web"}
    first = asyncio.create_task(stage.call("POST", "/v1/self/check", other, body))
    answered = 0
    while not first.done():
        assert await ask(stage, secret, "order:read") == "granted"
        answered += 1
        await asyncio.sleep(0.01)  # what is answered from memory never gives way by itself
    assert answered > 5
    until = elapsed() + 60
    while (await stage.call("POST", "/v1/self/check", other, body)).json().get("reason") != "granted":
        assert elapsed() < until, "it was never read"
        await asyncio.sleep(0.1)


async def test_a_stored_text_that_is_not_read_here_decides_nothing_and_hides_no_other_catalog(stage):
    admin = await admin_of(stage)
    await install(stage, admin, SHOPS)
    await stage.install("catalog: shops\nversion: 2\nfuture: true\n", "shops", 2)
    _, secret = await given(stage, "order:read", catalogs={"shops": 2})
    body = {"catalog": "shops", "resource": "order", "action": "read", "target": "acme/web"}
    answer = await stage.call("POST", "/v1/self/check", secret, body)
    assert answer.status_code == 503
    _, older = await given(stage, "order:read")
    assert await ask(stage, older, "order:read") == "granted"
    listed = (await stage.call("GET", "/v1/catalogs", admin)).json()["items"]
    assert next(item["versions"] for item in listed if item["name"] == "shops") == [2, 1]
    found = await compare(stage, admin, changed(version=3), query="?limit=10", name="shops@1")
    assert {item["version"]: item["refusal"] for item in found["items"]} == {2: "version_unknown"}
