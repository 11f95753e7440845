"""What tests of least privilege do with a stage: ask, fold what was counted, let time pass."""

from __future__ import annotations

from typing import Any

from sqlalchemy import text
from tests.support.managing import Stage

from authz_service.pdp.usage import fold


async def check(stage: Stage, gateway: str, token: str, permission: str, target: str, **more: Any) -> dict[str, Any]:
    resource, action = permission.split(":")
    body = {"token": token, "catalog": "gitlab", "resource": resource, "action": action, "target": target} | more
    answer = await stage.call("POST", "/check", gateway, body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def folded(stage: Stage) -> None:
    book = stage.app.state.services.point.usage
    await fold(book, stage.database)


async def later(stage: Stage, interval: str) -> None:
    async with stage.database.transaction() as conn:
        await conn.execute(text(f"update clock_shift set shift = shift + interval '{interval}'"))
    await stage.app.state.services.point.follower.poll_now()


async def at(stage: Stage, nodes: list[str], *permissions: str) -> Any:
    return await stage.scope_at("gitlab", nodes, *permissions)
