"""What was taken away and answered for is seen by every check that asks for it, and by all checks within S."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
from tests.support.forge import CATALOGS
from tests.support.pair import Pair, Side, pair_of_replicas
from tests.support.stored_rows import import_lines, install
from tests.support.upheaval import START

from authz_service.cache.clock import elapsed
from authz_service.tokens.model import Reach, ReachKind, Scope, Token

S = 2.0
FRESHNESS = {"max_staleness": S, "poll_interval": 0.5, "poll_timeout": 1.0}


@dataclass
class Watched:
    """A token with an owner and a project of its own, and every answer about it with the moment it was asked for at."""

    pair: Pair
    number: int
    token: Token
    secret: str
    answers: list[tuple[float, str]] = field(default_factory=list)
    stopped: bool = False

    @property
    def user(self) -> dict[str, Any]:
        return {"type": "user", "username": f"u{self.number}", "external_id": f"70{self.number}"}

    @property
    def project(self) -> str:
        return f"acme/p{self.number}"

    async def ask(self, side: Side, *, short: bool = False, **more: Any) -> str:
        body = {"token": self.secret, "catalog": "forge", "resource": "issue", "action": "read"}
        answer = await side.call(
            "POST", "/check", self.pair.gateway, {**body, "target": self.project, **more}, short=short
        )
        return str(answer.json()["decision"])

    async def keep_asking(self, side: Side, *, short: bool) -> None:
        while not self.stopped:
            asked_at = elapsed()
            self.answers.append((asked_at, await self.ask(side, short=short)))
            await asyncio.sleep(0.1)

    async def send(self, side: Side, *lines: Mapping[str, Any]) -> httpx.Response:
        body = b"\n".join(json.dumps(line).encode() for line in lines)
        return await side.call("POST", "/v1/directory/import", self.pair.admin, body)


Taking = Callable[[Watched, Side], Awaitable[httpx.Response]]
TAKING: Mapping[str, Taking] = {
    "the token is revoked": lambda it, side: side.call("DELETE", f"/v1/tokens/{it.token.id}", it.pair.admin),
    "the token revokes itself": lambda it, side: side.call("DELETE", "/v1/self", it.secret),
    "the token above it is revoked": lambda it, side: side.call(
        "DELETE", f"/v1/tokens/{it.token.parent}", it.pair.admin
    ),
    "the owner is blocked": lambda it, side: it.send(side, {**it.user, "state": "blocked"}),
    "the owner is deleted": lambda it, side: it.send(side, {**it.user, "state": "deleted"}),
    "another takes the owner's name": lambda it, side: it.send(
        side, {**it.user, "state": "deleted"}, {**it.user, "external_id": f"80{it.number}", "admin": True}
    ),
    "the owner leaves": lambda it, side: it.send(
        side, {"type": "delete", "what": "membership", "user": it.user["username"], "node": it.project}
    ),
    "the project moves out of reach": lambda it, side: it.send(
        side, {"type": "move", "node": it.project, "to": "hidden"}
    ),
    "another project takes its name": lambda it, side: it.send(
        side, {"type": "project", "path": it.project, "external_id": f"90{it.number}"}
    ),
}


async def test_nothing_is_allowed_by_what_was_taken_away(database_url: str):
    async with pair_of_replicas(database_url, START, **FRESHNESS) as pair:
        await install(pair.database, *CATALOGS)
        watched = [await watched_token(pair, number, what) for number, what in enumerate(TAKING)]
        for one in watched:
            asked = [await one.ask(side, short=short) for side in pair.sides for short in (False, True, True)]
            assert set(asked) == {"allow"}
        await asyncio.gather(*(take(one, what) for one, what in zip(watched, TAKING, strict=True)))


async def take(one: Watched, what: str) -> None:
    sides = one.pair.sides
    asking = [asyncio.create_task(one.keep_asking(side, short=side is sides[one.number // 2 % 2])) for side in sides]
    await asyncio.sleep(0.3)
    done = await TAKING[what](one, sides[one.number % 2])
    told_at = elapsed()
    assert done.status_code == 200, done.text
    revision = done.json()["revision"]
    at_once = await asyncio.gather(*(one.ask(side, at_least=revision) for side in sides for _ in range(3)))
    assert set(at_once) == {"deny"}, what
    await asyncio.sleep(max(0.0, told_at + S - elapsed()) + 0.2)
    one.stopped = True
    await asyncio.gather(*asking)
    assert "allow" in {decision for asked_at, decision in one.answers if asked_at < told_at}
    assert {decision for asked_at, decision in one.answers if asked_at >= told_at + S} == {"deny"}, what


async def watched_token(pair: Pair, number: int, what: str) -> Watched:
    user, path = f"u{number}", f"acme/p{number}"
    await import_lines(
        pair.database,
        {"type": "user", "username": user, "external_id": f"70{number}"},
        {"type": "project", "path": path, "external_id": f"60{number}", "visibility": "private"},
        {"type": "membership", "user": user, "node": path, "role": "developer"},
    )
    nodes = [await pair.node("project", f"60{number}")]
    if "moves" in what:  # else it would still be within reach where it went
        nodes = [await pair.node("group", "21")]
    held = Scope("forge", Reach(ReachKind.SELECTED, tuple(nodes)), ("issue:read",))
    parent = (await pair.put_token(user, held))[0].id if "above" in what else None
    token, secret = await pair.put_token(user, held, parent=parent)
    return Watched(pair, number, token, secret)
