"""Names of places in what is told of a token: those that its reader sees now, and no others (M4)."""

from __future__ import annotations

import json
import re

from tests.support.managing import body_of, scope, staged
from tests.support.privilege import check, folded

JOB = "job:read"


async def test_a_place_that_is_hidden_now_is_shown_as_one_that_is_gone(database_url: str):
    """A token keeps what it selects; its owner, who has left, learns no name that the place got since (M4)."""
    async with staged(database_url) as stage:
        await stage.apply(
            {"type": "group", "path": "left", "external_id": "91", "visibility": "private"},
            {"type": "project", "path": "left/plan", "external_id": "92", "visibility": "private"},
            {"type": "group", "path": "gone", "external_id": "93", "visibility": "private"},
            {"type": "project", "path": "gone/plan", "external_id": "94", "visibility": "private"},
            *({"type": "membership", "user": "dana", "node": node, "role": "developer"} for node in ("left", "gone")),
        )
        admin = await stage.admin()
        _, reader = await stage.give("dana", scope("authz", "user", "token:read", "grant:read"))
        held = {}
        for group in ("left", "gone"):
            policy = {"catalog": "gitlab", "approval": {"value": "required"}}
            assert (await stage.call("PUT", f"/v1/policies?node=group:{group}", admin, policy)).status_code == 200
            nodes = [f"group:{group}", f"project:{group}/plan", "project:acme/web"]
            body = body_of(owner="dana", scopes=[{"reach": {"kind": "selected", "nodes": nodes}, "permissions": [JOB]}])
            made = (await stage.call("POST", "/v1/tokens", admin, body)).json()
            asked = (await stage.call("GET", f"/v1/grant-requests?node=group:{group}", admin)).json()["items"][0]
            done = await stage.call("POST", f"/v1/grant-requests/{asked['id']}", admin, {"action": "approve"})
            assert done.status_code == 200
            for target in (f"project:{group}/plan", "project:acme/web"):
                assert (await check(stage, admin, made["secret"], JOB, target))["decision"] == "allow"
            held[group] = made, [str(await stage.node(node)) for node in nodes[:2]]
        await folded(stage)
        await stage.apply(
            {"type": "delete", "what": "membership", "user": "dana", "node": "left"},
            {"type": "group", "path": "takeover", "external_id": "91", "visibility": "private"},
            {"type": "delete", "what": "project", "node": "gone/plan"},
            {"type": "delete", "what": "group", "node": "gone"},
        )
        told = {}
        for group, (made, numbers) in held.items():
            token = made["id"]
            answers = [
                await stage.call("GET", "/v1/self", made["secret"]),
                await stage.call("GET", f"/v1/tokens/{token}", reader),
                await stage.call("GET", f"/v1/tokens/{token}/usage", reader),
                await stage.call("GET", f"/v1/tokens/{token}/suggestion", reader),
            ]
            assert {answer.status_code for answer in answers} == {200}
            listed = (await stage.call("GET", "/v1/tokens?owner=dana", reader)).json()["items"]
            found = [answer.json() for answer in answers] + [one for one in listed if one["id"] == token]
            text = json.dumps(found).replace(token, "ID").replace(made["created_at"], "THEN")
            for position, number in enumerate(numbers):
                text = text.replace(f'"{number}"', f'"NODE {position}"')
            told[group] = re.sub(r'\\"[0-9a-f]{32}\\"|[0-9-]+T[0-9:.]+Z', "X", text)
            assert "plan" not in text
            assert "takeover" not in text
            assert found[0]["unseen_nodes"] == 2
            assert found[0]["scopes"][0]["reach"]["nodes"] == ["project:acme/web"]
        assert told["left"] == told["gone"]
        whole = (await stage.call("GET", f"/v1/tokens/{held['left'][0]['id']}", admin)).json()
        assert whole["unseen_nodes"] == 0
        assert whole["scopes"][0]["reach"]["nodes"] == ["group:takeover", "project:acme/web", "project:takeover/plan"]
