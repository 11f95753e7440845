"""Floods of management: the one who floods is told to wait, and everybody else is answered."""

from __future__ import annotations

import asyncio
from collections import Counter

import httpx
from tests.support.managing import Stage, scope, staged

OWN = ("token:create", "token:read")


async def given(stage: Stage, owner: str) -> str:
    return (await stage.give(owner, scope("authz", "user", *OWN)))[1]


async def flood(stage: Stage, secret: str | None, count: int, path: str = "/v1/tokens") -> list[httpx.Response]:
    return await asyncio.gather(*(stage.call("GET", path, secret) for _ in range(count)))


def statuses(answers: list[httpx.Response]) -> Counter[int]:
    return Counter(answer.status_code for answer in answers)


async def test_one_tokens_flood_leaves_every_other_answer_alone(database_url: str):
    async with staged(database_url, manage_per_caller=20) as stage:
        loud, quiet, other = await given(stage, "dana"), await given(stage, "dana"), await given(stage, "olga")
        said = statuses(await flood(stage, loud, 60))
        # A minute may end meanwhile, and then there is room for as many again.
        assert said[200] in (20, 40)
        assert said[429] == 60 - said[200]
        assert statuses(await flood(stage, quiet, 5)) == {200: 5}
        assert statuses(await flood(stage, other, 5)) == {200: 5}
        refused = next(one for one in await flood(stage, loud, 25) if one.status_code == 429)
        assert 1 <= int(refused.headers["retry-after"]) <= 61
        assert refused.json()["code"] == "rate_limited"
        assert refused.headers["content-type"] == "application/problem+json"
        # Decisions have no budget here, whoever asks.
        body = {"resource": "job", "action": "read", "target": "project:acme/web", "catalog": "gitlab"}
        checks = [await stage.call("POST", "/check", loud, {"token": "x"} | body) for _ in range(30)]
        assert statuses(checks) == {403: 30}


async def test_strangers_flood_an_address_and_nobody_elses_token_is_out_of_budget(database_url: str):
    async with staged(database_url, manage_per_address=30) as stage:
        secret = await given(stage, "dana")
        said = statuses(await flood(stage, "azt_k1_" + "A" * 49, 80))
        assert said[401] in (30, 60)
        assert said[429] == 80 - said[401]
        elsewhere = httpx.ASGITransport(app=stage.app, client=("192.0.2.7", 1))
        async with httpx.AsyncClient(transport=elsewhere, base_url="http://service") as client:
            answer = await client.get("/v1/tokens", headers={"Authorization": f"Bearer {secret}"})
        assert answer.status_code == 200
        assert (await stage.call("GET", "/readyz")).status_code == 200


async def test_requests_under_way_have_a_share_for_each_token_and_an_end_in_all(database_url: str):
    async with staged(database_url, manage_running=12, manage_running_per_caller=4) as stage:
        loud, quiet = await given(stage, "dana"), await given(stage, "olga")
        answers = await asyncio.gather(flood(stage, loud, 10), flood(stage, quiet, 2))
        assert set(statuses(answers[0])) <= {200, 429}
        assert statuses(answers[1]) == {200: 2}
        many = [loud, quiet, *[await given(stage, name) for name in ("eve", "root", "dana")]]
        said = statuses([one for part in await asyncio.gather(*(flood(stage, one, 8) for one in many)) for one in part])
        assert set(said) <= {200, 429, 503}
        assert said[503], "more than all that may run at once were let in"
        # Everything was given back.
        for _ in range(3):
            assert statuses(await flood(stage, loud, 4)) == {200: 4}


async def test_a_budget_of_decisions_refuses_with_a_body_that_says_deny(database_url: str):
    async with staged(database_url, check_per_caller=5) as stage:
        _, asker = await stage.give("root", scope("authz", "instance", "decision:evaluate"), evaluates=("*",))
        transport = httpx.ASGITransport(app=stage.app.state.hot)
        body = {"token": asker, "resource": "job", "action": "read", "target": "project:acme/web", "catalog": "gitlab"}
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            headers = {"Authorization": f"Bearer {asker}"}
            for _ in range(50):
                answers = await asyncio.gather(*(client.post("/check", json=body, headers=headers) for _ in range(20)))
                refused = [one for one in answers if one.status_code == 429]
                if refused:
                    break
        assert refused
        assert refused[0].json()["decision"] == "deny"
        assert refused[0].headers["retry-after"] == "1"
        assert {one.status_code for one in answers} <= {200, 429}
