"""A gateway whose token holds `decision:evaluate` in one group asks about that group and nothing else (rule M1)."""

from __future__ import annotations

from tests.support.managing import staged


async def test_a_gateway_of_one_group_asks_about_that_group_alone(database_url):
    async with staged(database_url) as stage:
        at = await stage.scope_at("authz", ["group:acme"], "decision:evaluate")
        caller = (await stage.give("olga", at, evaluates=("gitlab",)))[1]
        secret = (await stage.give("dana", await stage.scope_at("gitlab", ["group:acme"], "job:read")))[1]
        found = {}
        for target in (
            "acme/web", "project:acme/web", "project:42", "group:12", "group:acme", "acme", "acme/tools/lint",
            "hidden/plan", "project:44", "group:hidden", "user:dana", "instance", "acmex/web", "", None,
        ):  # fmt: skip
            body = {"token": secret, "catalog": "gitlab", "resource": "job", "action": "read", "target": target}
            found[target] = (await stage.call("POST", "/check", caller, body)).status_code
        inside = {"acme/web", "project:acme/web", "project:42", "group:12", "group:acme", "acme", "acme/tools/lint"}
        assert {target for target, status in found.items() if status == 200} == inside
        assert {status for target, status in found.items() if target not in inside} == {403}
        items = [{"resource": "job", "action": "read", "target": target} for target in ("acme/web", "hidden/plan")]
        batch = {"token": secret, "catalog": "gitlab", "items": items}
        assert (await stage.call("POST", "/check/batch", caller, batch)).status_code == 403
        other = {"token": secret, "catalog": "orders", "resource": "job", "action": "read", "target": "acme/web"}
        assert (await stage.call("POST", "/check", caller, other)).status_code == 403


async def test_a_gateway_of_one_group_passes_bare_requests_there_and_sees_nothing_beyond(database_url):
    async with staged(database_url) as stage:
        at = await stage.scope_at("authz", ["group:acme"], "decision:evaluate")
        caller = (await stage.give("olga", at, evaluates=("gitlab",)))[1]
        reach = await stage.scope_at("gitlab", ["group:acme", "group:hidden", "group:open"], "job:read")
        token, secret = await stage.give("dana", reach, catalogs={"gitlab": 2})
        await stage.apply({"type": "membership", "user": "dana", "node": "hidden", "role": "owner"})

        async def ask(path: str, as_caller: str = caller, shown: str = secret):
            body = {"token": shown, "catalog": "gitlab", "method": "GET", "path": f"/api/v4{path}"}
            answer = await stage.call("POST", "/check/http", as_caller, body)
            assert answer.status_code == 200
            return answer.json()

        for inside in ("/projects/acme%2Fweb/jobs", "/projects/42/jobs", "/projects/acme%2Ftools%2Flint/jobs"):
            assert (await ask(inside))["decision"] == "allow", inside
        nowhere = await ask("/projects/4711/jobs")
        assert (nowhere["reason"], nowhere["hide"], nowhere["token_id"]) == ("target_unknown", True, token)
        beyond = (
            "/projects/44/jobs", "/projects/hidden%2Fplan/jobs", "/projects/open%2Fsite/jobs",
            "/projects/dana%2Fnotes/jobs", "/projects/no%2Fsuch/jobs", "/groups/hidden", "/users/7", "/runners/all",
            "/projects/hidden%2Fplan/nothing/of/it",
        )  # fmt: skip
        for path in beyond[:5]:
            assert await ask(path) == nowhere, path
        everywhere = await stage.admin()
        assert (await ask("/projects/44/jobs", everywhere))["decision"] == "allow"
        for path in beyond:
            assert (await ask(path))["decision"] == "deny", path
        assert (await ask("/projects/44/jobs", shown=secret[:-1]))["reason"] == "malformed_token"


async def test_no_explanation_tells_a_gateway_of_one_group_about_another(database_url):
    async with staged(database_url) as stage:
        at = await stage.scope_at("authz", ["group:acme"], "decision:evaluate")
        caller = (await stage.give("olga", at, evaluates=("gitlab",)))[1]
        secret = (
            await stage.give("dana", await stage.scope_at("gitlab", ["group:acme"], "job:read"), catalogs={"gitlab": 2})
        )[1]
        found = []
        for number in ("44", "4711"):
            path = f"/api/v4/projects/{number}/jobs"
            body = {"token": secret, "catalog": "gitlab", "method": "GET", "path": path, "explain": True}
            found.append((await stage.call("POST", "/check/http", caller, body)).content)
        assert found[0] == found[1]
        assert b"hidden" not in found[0]


async def test_a_gateway_of_one_group_may_be_a_real_one(database_url):
    async with staged(database_url) as stage:
        at = await stage.scope_at("authz", ["group:acme"], "decision:evaluate")
        caller = (await stage.give("olga", at, evaluates=("gitlab",)))[1]
        secret = (
            await stage.give("dana", await stage.scope_at("gitlab", ["group:acme"], "job:read"), catalogs={"gitlab": 2})
        )[1]

        async def forward(uri: str):
            headers = {"X-Authz-Gateway": caller, "X-Forwarded-Method": "GET", "X-Forwarded-Uri": f"/api/v4{uri}"}
            return await stage.call("GET", "/gateway/forward/x-forwarded?catalog=gitlab", secret, headers=headers)

        assert (await forward("/projects/42/jobs")).status_code == 200
        beyond, nowhere = await forward("/projects/44/jobs"), await forward("/projects/4711/jobs")
        assert (beyond.status_code, beyond.content) == (nowhere.status_code, nowhere.content)
        assert beyond.status_code == 403
        other = {"X-Authz-Gateway": caller, "X-Forwarded-Method": "GET", "X-Forwarded-Uri": "/orders"}
        refused = await stage.call("GET", "/gateway/forward/x-forwarded?catalog=orders", secret, headers=other)
        assert (refused.status_code, refused.json()["reason"]) == (403, "forbidden")


async def test_a_path_of_another_source_is_another_place(database_url):
    """Two systems have a group `acme`: who may ask about one may not ask about the other."""
    there = (
        {"type": "user", "username": "zed", "external_id": "1", "source": "elsewhere"},
        {"type": "group", "path": "acme", "external_id": "1", "visibility": "private", "source": "elsewhere"},
        {"type": "project", "path": "acme/web", "external_id": "2", "visibility": "private", "source": "elsewhere"},
        {"type": "membership", "user": "zed", "node": "acme", "role": "owner", "source": "elsewhere"},
    )
    text = "catalog: far\nversion: 1\nsource: elsewhere\npermissions: {thing: {read: [project]}}\n"
    async with staged(database_url) as stage:
        await stage.apply(*there)
        await stage.install(text, "far")
        at = await stage.scope_at("authz", ["group:acme"], "decision:evaluate")
        caller = (await stage.give("olga", at, evaluates=("far",)))[1]
        secret = (await stage.give("dana", catalogs={"far": 1}))[1]
        body = {"token": secret, "catalog": "far", "resource": "thing", "action": "read", "target": "acme/web"}
        assert (await stage.call("POST", "/check", caller, body)).status_code == 403
        assert (await stage.call("POST", "/check", await stage.admin(), body)).status_code == 200
