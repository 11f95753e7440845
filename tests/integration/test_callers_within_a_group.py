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
