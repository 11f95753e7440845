import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from tests.support.managing import SINGLE_OWNER, UPSTREAM, Stage, body_of, scope, staged


@pytest.fixture
async def stage(database_url):
    async with staged(database_url) as running:
        yield running


def selected(*nodes: str, permissions: tuple[str, ...] = ("job:read",), **more):
    return {"reach": {"kind": "selected", "nodes": list(nodes)}, "permissions": list(permissions), **more}


def reach(kind: str, *permissions: str, **more):
    return {"reach": {"kind": kind}, "permissions": list(permissions), **more}


async def faults_of(stage: Stage, secret: str, body, status: int = 400) -> list[tuple[str, str]]:
    answer = await stage.call("POST", "/v1/tokens", secret, body)
    assert answer.status_code == status, answer.text
    return [(fault["where"], fault["code"]) for fault in answer.json()["faults"]]


async def test_an_issued_token_works_at_once_and_shows_its_secret_this_once(stage):
    admin = await stage.admin()
    answer = await stage.call("POST", "/v1/tokens", admin, body_of(reason="nightly build"))
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    issued = answer.json()
    assert answer.headers["location"] == f"/v1/tokens/{issued['id']}"
    assert (issued["owner"], issued["state"], len(issued["catalogs"])) == ("dana", "active", 1)
    assert issued["scopes"] == [
        {
            "catalog": "gitlab",
            "reach": {"kind": "selected", "nodes": ["project:acme/web"]},
            "permissions": ["job:read", "job:run"],
        }
    ]
    checked = await stage.call(
        "POST", "/v1/self/check", issued["secret"], {"resource": "job", "action": "run", "target": "project:acme/web"}
    )
    assert checked.json()["decision"] == "allow"
    shown = await stage.call("GET", f"/v1/tokens/{issued['id']}", admin)
    assert "secret" not in shown.json()
    assert issued["secret"] not in shown.text


async def test_a_day_counts_to_its_end_in_utc(stage):
    admin = await stage.admin()
    issued = (await stage.call("POST", "/v1/tokens", admin, body_of(expires_at="2030-12-31"))).json()
    assert issued["expires_at"].startswith("2031-01-01T00:00:00")
    path = f"/v1/tokens/{issued['id']}"
    edited = await stage.call("PATCH", path, admin, {"expires_at": "2030-11-30"}, headers={"If-Match": "*"})
    assert edited.json()["expires_at"].startswith("2030-12-01T00:00:00")
    naive = body_of(expires_at="2030-12-31T10:00:00")
    assert await faults_of(stage, admin, naive) == [("/expires_at", "invalid_date")]
    for at, many in (({"at_from": "2020-01-01"}, 2), ({"at_before": "2020-01-01"}, 0)):
        assert len((await stage.call("GET", "/v1/audit", admin, params=at)).json()["items"]) == many


async def test_the_secret_is_nowhere_in_the_database(stage):
    admin = await stage.admin()
    issued = (await stage.call("POST", "/v1/tokens", admin, body_of(), headers={"Idempotency-Key": "k"})).json()
    from sqlalchemy import text

    async with stage.database.read() as conn:
        tables = (await conn.execute(text("select tablename from pg_tables where schemaname = 'public'"))).scalars()
        for table in tables.all():
            rows = (await conn.execute(text(f'select t::text from "{table}" t'))).scalars().all()
            assert not [row for row in rows if issued["secret"][8:] in row], table


async def test_every_fault_of_a_draft_is_named_at_once(stage):
    admin = await stage.admin()
    body = body_of(
        name=" ",
        owner="nobody",
        expires_at="2020-01-01T00:00:00Z",
        conditions={"networks": ["10.0.0.0/8", "10.0.0.1/8", "x", "10.0.0.0/8", "::ffff:10.0.0.0/104"]},
        resource_owner="group:acme",
        evaluates=["gitlab"],
        parent="tok_0000000000000000000000",
        scopes=[
            selected("nope/x", "acme/web", "project:acme/web", "instance", permissions=("job:fly", "job:read")),
            selected(),
            reach("user", "job:read"),
            {"reach": {"kind": "instance", "nodes": ["acme"]}, "permissions": []},
            selected("acme/web", catalog="nothing"),
            selected("acme/web", catalog="gitlab@900"),
        ],
    )
    assert await faults_of(stage, admin, body) == [
        ("/name", "too_short"),
        ("/expires_at", "in_past"),
        ("/conditions/networks/1", "invalid_network"),
        ("/conditions/networks/2", "invalid_network"),
        ("/conditions/networks/3", "duplicate"),
        ("/conditions/networks/4", "invalid_network"),
        ("/scopes/4/catalog", "catalog_unknown"),
        ("/scopes/5/catalog", "catalog_unknown"),
        ("/owner", "owner_unknown"),
        ("/resource_owner", "not_for_catalog"),
        ("/scopes/0/reach/nodes/0", "target_unknown"),
        ("/scopes/0/reach/nodes/2", "duplicate"),
        ("/scopes/0/reach/nodes/3", "not_selectable"),
        ("/scopes/0/permissions/0", "permission_unknown"),
        ("/scopes/1/reach/nodes", "missing_field"),
        ("/scopes/2/permissions/0", "boundary_mismatch"),
        ("/scopes/3/reach/nodes", "not_for_reach"),
        ("/scopes/3/permissions", "missing_field"),
        ("/evaluates", "not_for_token"),
        ("/parent", "parent_unknown"),
    ]


async def test_nothing_is_stored_when_a_draft_has_a_fault(stage):
    admin = await stage.admin()
    before = (await stage.call("GET", "/v1/tokens", admin)).json()["items"]
    await faults_of(stage, admin, body_of(owner="nobody"))
    assert (await stage.call("GET", "/v1/tokens", admin)).json()["items"] == before


DRAFTS = [
    ({"catalog": ...}, ("/scopes/0/catalog", "missing_field")),
    ({"catalog": ..., "scopes": []}, ("/catalog", "missing_field")),
    ({"catalog": "gitlab@0"}, ("/catalog", "catalog_unknown")),
    ({"catalog": "gitlab@x"}, ("/catalog", "catalog_unknown")),
    ({"owner": "bob"}, ("/owner", "owner_inactive")),
    ({"owner": "group:acme"}, ("/owner", "owner_unknown")),
    ({"name": "x" * 101}, ("/name", "too_long")),
    ({"name": "a\u202eb"}, ("/name", "invalid_text")),
    ({"reason": "x" * 1001}, ("/reason", "too_long")),
    ({"legacy_scopes": ["api"]}, ("/legacy_scopes", "not_for_kind")),
    ({"kind": "legacy"}, ("/legacy_scopes", "missing_field")),
    ({"kind": "legacy", "legacy_scopes": ["api"]}, ("/scopes", "not_for_kind")),
    ({"kind": "legacy", "scopes": [], "legacy_scopes": ["all"]}, ("/legacy_scopes/0", "legacy_scope_unknown")),
    ({"kind": "legacy", "scopes": [], "legacy_scopes": ["api", "api"]}, ("/legacy_scopes/1", "duplicate")),
    ({"parent": "self", "may_rotate_self": True}, ("/may_rotate_self", "not_for_child")),
    (
        {"expires_at": "2999-01-01T00:00:00Z", "not_before": "2999-01-02T00:00:00Z"},
        ("/expires_at", "before_start"),
    ),
    (
        {"catalog": "authz", "scopes": [reach("instance", "decision:evaluate")]},
        ("/evaluates", "missing_field"),
    ),
    (
        {"catalog": "authz", "scopes": [reach("instance", "decision:evaluate")], "evaluates": ["gitlap"]},
        ("/evaluates/0", "catalog_unknown"),
    ),
    (
        {"scopes": [selected("acme/web", permissions=("job:read", "job:read"))]},
        ("/scopes/0/permissions/1", "duplicate"),
    ),
    ({"scopes": [reach("selected")] * 101}, ("/scopes", "too_many")),
]


async def test_a_draft_that_does_not_hold_together_is_refused(stage):
    admin = await stage.admin()
    for changes, fault in DRAFTS:
        assert fault in await faults_of(stage, admin, body_of(**changes)), changes


SHAPES = [
    ({"expires_at": "2027-02-31"}, ("/expires_at", "invalid_date")),
    ({"expires_at": "2027-01-31T00:00:00"}, ("/expires_at", "invalid_date")),
    ({"expires_at": 1800000000}, ("/expires_at", "invalid_date")),
    ({"expires_at": "9999-12-31T23:59:59-14:00"}, ("/expires_at", "invalid_date")),
    ({"kind": "coarse"}, ("/kind", "unknown_value")),
    ({"scopes": [{"reach": {"kind": "all"}, "permissions": []}]}, ("/scopes/0/reach/kind", "unknown_value")),
    ({"may_rotate_self": "yes"}, ("/may_rotate_self", "wrong_type")),
    ({"surprise": 1}, ("/surprise", "unknown_field")),
]


async def test_a_body_of_another_shape_is_refused(stage):
    admin = await stage.admin()
    for changes, fault in SHAPES:
        assert fault in await faults_of(stage, admin, body_of(**changes)), changes


async def test_a_place_one_may_not_see_and_one_that_is_not_there_answer_alike(stage):
    own = [scope("authz", "user", "token:create"), await stage.scope_at("gitlab", ["group:acme"], "job:read")]
    _, dana = await stage.give("dana", *own)
    answers = []
    for path in ("hidden/plan", "hidden/none"):
        body = body_of(scopes=[selected(f"project:{path}")])
        answer = await stage.call("POST", "/v1/tokens", dana, body)
        answers.append((answer.status_code, answer.text.replace(path, "…")))
    assert answers[0] == answers[1]
    assert answers[0][0] == 400
    assert "target_unknown" in answers[0][1]


async def test_an_admin_sees_every_place(stage):
    body = body_of(scopes=[selected("hidden/plan")])
    assert (await stage.call("POST", "/v1/tokens", await stage.admin(), body)).status_code == 201


async def test_a_users_node_stands_for_the_projects_in_it(stage):
    admin = await stage.admin()
    answer = await stage.call("POST", "/v1/tokens", admin, body_of(scopes=[selected("user:dana")]))
    assert answer.json()["scopes"][0]["reach"]["nodes"] == ["user:dana"]
    asked = {"resource": "job", "action": "read", "target": "dana/notes"}
    assert (await stage.call("POST", "/v1/self/check", answer.json()["secret"], asked)).json()["decision"] == "allow"


async def test_a_catalog_without_a_version_is_its_newest_one(stage):
    admin = await stage.admin()
    await stage.install(
        UPSTREAM.replace("catalog: orders", "catalog: gitlab").replace("version: 1", "version: 900"), "gitlab", 900
    )
    newest = body_of(owner="Dana D", scopes=[selected("project:a/b", permissions=("order:read",))])
    issued = (await stage.call("POST", "/v1/tokens", admin, newest)).json()
    assert issued["catalogs"] == ["gitlab@900"]
    former = (await stage.call("POST", "/v1/tokens", admin, body_of(catalog="gitlab@1"))).json()
    assert former["catalogs"] == ["gitlab@1"]
    both = body_of(scopes=[selected("acme/web", catalog="gitlab@1")])
    assert ("/scopes/0/catalog", "two_versions") in await faults_of(stage, admin, both)


async def test_a_catalog_without_a_directory_takes_owners_and_places_as_they_are_written(stage):
    admin = await stage.admin()
    await stage.install(UPSTREAM, "orders")
    body = body_of(
        catalog="orders",
        owner="Somebody Else",
        scopes=[selected("group:Shop", "project:shop/Till", permissions=("order:read",))],
    )
    answer = await stage.call("POST", "/v1/tokens", admin, body)
    assert answer.status_code == 201, answer.text
    assert answer.json()["owner"] == "Somebody Else"
    assert answer.json()["scopes"][0]["reach"]["nodes"] == ["group:shop", "project:shop/till"]
    asked = {"resource": "order", "action": "read", "target": "project:SHOP/a/b"}
    assert (await stage.call("POST", "/v1/self/check", answer.json()["secret"], asked)).json()["decision"] == "allow"


async def test_what_a_catalog_without_a_directory_cannot_have_is_refused(stage):
    admin = await stage.admin()
    await stage.install(UPSTREAM, "orders")
    body = body_of(
        catalog="orders",
        owner=...,
        scopes=[
            reach("all_memberships", "order:read"),
            selected("user:dana", "shop/till", permissions=("order:read",)),
            reach("instance", "catalog:read", catalog="authz"),
        ],
    )
    assert await faults_of(stage, admin, body) == [
        ("/catalog", "mixed_catalogs"),
        ("/owner", "missing_field"),
        ("/scopes/0/reach/kind", "reach_refused"),
        ("/scopes/1/reach/nodes/0", "not_selectable"),
        ("/scopes/1/reach/nodes/1", "target_unknown"),
    ]


async def test_a_catalog_of_single_owners_demands_one_and_keeps_to_it(stage):
    admin = await stage.admin()
    await stage.install(SINGLE_OWNER, "hub")
    read = ("contents:read",)
    missing = body_of(catalog="hub", scopes=[selected("acme/web", permissions=read)])
    assert await faults_of(stage, admin, missing) == [("/resource_owner", "missing_field")]
    wrong = body_of(
        catalog="hub",
        resource_owner="group:acme",
        scopes=[
            selected("acme/web", "open/site", permissions=read),
            reach("all_memberships", *read),
            reach("user", "email:read"),
            reach("personal_projects", *read),
        ],
    )
    assert await faults_of(stage, admin, wrong) == [
        ("/scopes/0/reach/nodes/1", "outside_resource_owner"),
        ("/scopes/1/reach/kind", "reach_refused"),
        ("/scopes/2/reach/kind", "outside_resource_owner"),
        ("/scopes/3/reach/kind", "outside_resource_owner"),
    ]
    project = body_of(catalog="hub", resource_owner="project:acme/web", scopes=[])
    assert await faults_of(stage, admin, project) == [("/resource_owner", "invalid_value")]
    good = body_of(catalog="hub", resource_owner="user:dana", scopes=[reach("user", "email:read")])
    answer = await stage.call("POST", "/v1/tokens", admin, good)
    assert (answer.status_code, answer.json()["resource_owner"]) == (201, "user:dana")


async def test_a_repeated_request_with_one_key_creates_one_token(stage):
    admin = await stage.admin()
    headers = {"Idempotency-Key": "build-1"}
    first = await stage.call("POST", "/v1/tokens", admin, body_of(), headers=headers)
    again = await stage.call("POST", "/v1/tokens", admin, body_of(), headers=headers)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == {**first.json(), "secret": None}
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    other = await stage.call("POST", "/v1/tokens", admin, body_of(name="other"), headers=headers)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_key_reused")
    someone = await stage.call("POST", "/v1/tokens", await stage.admin(), body_of(), headers=headers)
    assert someone.json()["id"] != first.json()["id"]


async def test_requests_with_one_key_at_once_create_one_token(stage):
    admin = await stage.admin()
    headers = {"Idempotency-Key": "build-1"}
    answers = await asyncio.gather(
        *(stage.call("POST", "/v1/tokens", admin, body_of(), headers=headers) for _ in range(5))
    )
    assert [answer.status_code for answer in answers] == [201] * 5
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len([answer for answer in answers if answer.json()["secret"]]) == 1


async def test_a_key_is_free_again_when_the_request_had_a_fault(stage):
    admin = await stage.admin()
    headers = {"Idempotency-Key": "build-1"}
    await stage.call("POST", "/v1/tokens", admin, body_of(name=""), headers=headers)
    assert (await stage.call("POST", "/v1/tokens", admin, body_of(), headers=headers)).status_code == 201


async def test_an_odd_idempotency_key_is_refused(stage):
    admin = await stage.admin()
    for key in ("", "a b", "x" * 256, "é"):
        headers = {"Idempotency-Key": key.encode()}
        answer = await stage.call("POST", "/v1/tokens", admin, body_of(), headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_input"), key


async def test_the_issue_is_on_record_with_who_did_it(stage):
    from authz_service.store import audit

    admin = await stage.admin()
    issued = (await stage.call("POST", "/v1/tokens", admin, body_of())).json()
    me = (await stage.call("GET", "/v1/self", admin)).json()["id"]
    async with stage.database.read() as conn:
        rows, _ = await audit.list_page(conn)
    assert [(row.entry.action, row.entry.subject, row.entry.actor_token) for row in rows] == [
        ("token.create", issued["id"], me)
    ]
    assert issued["secret"] not in repr(rows)


async def test_a_token_that_starts_later_is_early(stage):
    start = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    issued = (await stage.call("POST", "/v1/tokens", await stage.admin(), body_of(not_before=start))).json()
    assert issued["state"] == "early"
    assert (await stage.call("GET", "/v1/self", issued["secret"])).status_code == 401
