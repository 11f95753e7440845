"""A rotation that meets a decision about what the token was granted: the new secret never keeps what is taken away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from tests.support.locks import waits_for_a_lock
from tests.support.organisations import Organisation, organisation

from authz_service.store import grants

REQUIRED = {"approval": {"value": "required"}}


class Stopped:
    """Stops a function once its work is done, before its transaction commits."""

    def __init__(self, work: Callable[..., Any]) -> None:
        self._work = work
        self.reached, self.opened = asyncio.Event(), asyncio.Event()

    async def __call__(self, *given: Any, **named: Any) -> Any:
        done = await self._work(*given, **named)
        self.reached.set()
        await self.opened.wait()
        return done


async def rotate(acme: Organisation, token: Any) -> Any:
    path = f"/v1/tokens/{token['id']}/rotate"
    answer = await acme.stage.call("POST", path, acme.admin, {"overlap_seconds": 3600})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def test_a_secret_rotated_while_its_grant_is_revoked_is_granted_no_more(database_url, monkeypatch):
    async with organisation(database_url) as acme:
        await acme.put(acme.olga, "group:acme", grandfather="false", **REQUIRED)
        token = await acme.make(acme.dana)
        await acme.decide(acme.olga, (await acme.waiting())["id"])
        [grant] = await acme.grants(acme.olga, state="active")
        touched = Stopped(grants.revoke)
        monkeypatch.setattr(grants, "revoke", touched)
        revoking = asyncio.create_task(acme.stage.call("DELETE", f"/v1/grants/{grant['id']}", acme.olga))
        await touched.reached.wait()
        rotating = asyncio.create_task(rotate(acme, token))
        if not await waits_for_a_lock(acme.stage.database, rotating):
            assert await acme.check(rotating.result()) == "granted"  # the revoke is not committed
        touched.opened.set()
        assert (await revoking).status_code == 200
        assert await acme.check(await rotating) == await acme.check(token) == "approval_revoked"
