from datetime import UTC, datetime, timedelta

import pytest
from tests.support.managing import UPSTREAM, scope, staged


@pytest.fixture
async def stage(database_url):
    async with staged(database_url) as running:
        yield running


def asks(target: str | None = "project:acme/web", permission: str = "job:read", **more):
    resource, _, action = permission.partition(":")
    return {"resource": resource, "action": action, **({} if target is None else {"target": target}), **more}


async def test_a_token_may_always_read_itself(stage):
    held = await stage.scope_at("gitlab", ["acme/web"], "job:read")
    token_id, secret = await stage.give("dana", held, networks=("127.0.0.0/8",))
    answer = await stage.call("GET", "/v1/self", secret)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    found = answer.json()
    assert (found["id"], found["owner"], found["state"]) == (token_id, "dana", "active")
    assert found["conditions"] == {"networks": ["127.0.0.0/8"]}
    assert found["scopes"] == [
        {"catalog": "gitlab", "reach": {"kind": "selected", "nodes": ["project:acme/web"]}, "permissions": ["job:read"]}
    ]
    assert secret not in answer.text


async def test_a_token_that_does_not_work_learns_nothing_of_itself(stage):
    held = await stage.scope_at("gitlab", ["acme/web"], "job:read")
    past = datetime.now(UTC) - timedelta(seconds=1)
    expired = (await stage.give("dana", held, expires_at=past))[1]
    elsewhere = (await stage.give("dana", held, networks=("10.0.0.0/8",)))[1]
    blocked = (await stage.give("bob", held))[1]
    bodies = []
    for secret in (expired, elsewhere, blocked, expired[:-1] + "x", "azt_k1_x", "x"):
        for method, path, body in (
            ("GET", "/v1/self", None),
            ("DELETE", "/v1/self", None),
            ("POST", "/v1/self/check", asks()),
            ("POST", "/v1/self/check/batch", {"items": [asks()]}),
        ):
            answer = await stage.call(method, path, secret, body)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
            bodies.append(answer.content)
    assert len(set(bodies)) == 1


async def test_a_token_asks_about_itself(stage):
    token_id, secret = await stage.give("dana", await stage.scope_at("gitlab", ["acme/web"], "job:read"))
    allowed = await stage.call("POST", "/v1/self/check", secret, asks())
    assert allowed.json() == {
        "decision": "allow",
        "reason": "granted",
        "message": "allowed",
        "token_id": token_id,
        "revision": allowed.json()["revision"],
    }
    denied = (await stage.call("POST", "/v1/self/check", secret, asks(permission="job:run"))).json()
    assert (denied["decision"], denied["reason"]) == ("deny", "permission_missing")
    assert denied["missing"] == [{"permission": "job:run", "boundary": "project", "target": "project:acme/web"}]


async def test_a_hidden_target_and_an_unknown_one_get_the_same_bytes(stage):
    secret = (await stage.give("dana", await stage.scope_at("gitlab", ["acme/web"], "job:read")))[1]
    bodies = set()
    for target in ("project:hidden/plan", "project:hidden/nope", "hidden/plan", "group:hidden", "project:44", "1234"):
        for permission in ("job:read", "job:run"):
            answer = await stage.call("POST", "/v1/self/check", secret, asks(target, permission))
            bodies.add(answer.content)
    assert len(bodies) == 1
    assert b"target_unknown" in bodies.pop()
    batch = {"items": [asks("project:hidden/plan"), asks("project:hidden/nope")]}
    decisions = (await stage.call("POST", "/v1/self/check/batch", secret, batch)).json()["decisions"]
    assert decisions[0] == decisions[1]


async def test_a_batch_answers_each_question_like_a_single_one(stage):
    secret = (await stage.give("dana", await stage.scope_at("gitlab", ["acme/web"], "job:read")))[1]
    items = [asks(), asks("open/site"), asks(permission="job:fly"), asks(None), asks("hidden/plan")]
    batch = (await stage.call("POST", "/v1/self/check/batch", secret, {"items": items})).json()
    singles = [(await stage.call("POST", "/v1/self/check", secret, item)).json() for item in items]
    assert [
        decision | {key: batch[key] for key in ("token_id", "revision")} for decision in batch["decisions"]
    ] == singles
    assert [decision["reason"] for decision in batch["decisions"]] == [
        "granted",
        "outside_reach",
        "permission_unknown",
        "target_required",
        "target_unknown",
    ]


async def test_a_token_of_several_catalogs_says_which_one_is_meant(stage):
    held = await stage.scope_at("gitlab", ["acme/web"], "job:read")
    secret = (await stage.give("dana", held, scope("authz", "user", "token:read")))[1]
    answer = await stage.call("POST", "/v1/self/check", secret, asks())
    assert (answer.status_code, answer.json()["faults"][0]["where"]) == (400, "/catalog")
    for catalog in ("gitlab", "gitlab@1"):
        named = await stage.call("POST", "/v1/self/check", secret, asks(catalog=catalog))
        assert named.json()["decision"] == "allow"
    other = (await stage.call("POST", "/v1/self/check", secret, asks(catalog="gitlab@900"))).json()
    assert other["reason"] == "catalog_mismatch"


async def test_a_token_does_not_say_what_decides_about_it(stage):
    secret = (await stage.give("dana", await stage.scope_at("gitlab", ["acme/web"], "job:read")))[1]
    for more in ({"attributes": {}}, {"client_address": "10.0.0.1"}, {"token": "x"}):
        answer = await stage.call("POST", "/v1/self/check", secret, asks(**more))
        assert [fault["code"] for fault in answer.json()["faults"]] == ["unknown_field"]


async def test_a_fresher_answer_may_be_asked_for(stage):
    secret = (await stage.give("dana", await stage.scope_at("gitlab", ["acme/web"], "job:read")))[1]
    await stage.apply({"type": "delete", "what": "membership", "user": "dana", "node": "acme"})
    fresh = (await stage.call("POST", "/v1/self/check", secret, asks(fully_consistent=True))).json()
    assert (fresh["decision"], fresh["reason"]) == ("deny", "target_unknown")
    same = await stage.call("POST", "/v1/self/check", secret, asks(at_least=fresh["revision"]))
    assert same.json() == fresh
    epoch, number = fresh["revision"].rsplit(".", 1)
    ahead = await stage.call("POST", "/v1/self/check", secret, asks(at_least=f"{epoch}.{int(number) + 9}"))
    assert (ahead.status_code, ahead.json()["code"]) == (409, "revision_unknown")
    odd = await stage.call("POST", "/v1/self/check", secret, asks(at_least="yesterday"))
    assert (odd.status_code, odd.json()["faults"][0]["where"]) == (400, "/at_least")


async def test_a_malformed_batch_is_refused_as_a_whole(stage):
    secret = (await stage.give("dana", await stage.scope_at("gitlab", ["acme/web"], "job:read")))[1]
    for body in ({"items": []}, {"items": [asks(), {"resource": "job"}]}, {"items": [asks()] * 10_001}, {}):
        answer = await stage.call("POST", "/v1/self/check/batch", secret, body)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_body")


async def test_a_body_too_large_is_413(stage):
    secret = (await stage.give("dana", await stage.scope_at("gitlab", ["acme/web"], "job:read")))[1]
    answer = await stage.call("POST", "/v1/self/check", secret, b" " * 70_000)
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


async def test_a_token_ends_itself(stage):
    held = await stage.scope_at("gitlab", ["acme/web"], "job:read")
    token_id, secret = await stage.give("dana", held)
    _, child = await stage.give("dana", held, parent=token_id)
    answer = await stage.call("DELETE", "/v1/self", secret)
    assert (answer.status_code, answer.json()["state"], answer.json()["id"]) == (200, "revoked", token_id)
    assert (await stage.call("GET", "/v1/self", secret)).status_code == 401
    assert (await stage.call("GET", "/v1/self", child)).status_code == 401


async def test_a_token_without_a_directory_knows_itself_too(stage):
    await stage.install(UPSTREAM, "orders")
    body = {
        "name": "till",
        "owner": "Shop 1",
        "catalog": "orders",
        "scopes": [{"reach": {"kind": "selected", "nodes": ["group:shop"]}, "permissions": ["order:read"]}],
    }
    secret = (await stage.call("POST", "/v1/tokens", await stage.admin(), body)).json()["secret"]
    assert (await stage.call("GET", "/v1/self", secret)).json()["owner"] == "Shop 1"
    asked = asks("project:shop/x", "order:write")
    answer = (await stage.call("POST", "/v1/self/check", secret, asked)).json()
    assert (answer["reason"], answer["missing"][0]["target"]) == ("permission_missing", "project:shop/x")
    assert (await stage.call("GET", "/v1/tokens", secret)).status_code == 403
    assert (await stage.call("DELETE", "/v1/self", secret)).json()["state"] == "revoked"
