"""Policies, requests and grants over HTTP, for tests: two owners of `acme`, a member, an admin, a gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from tests.support.managing import COMPANY, Stage, scope, staged

OWNERS = ("token:create", "token:read", "token:edit", "policy:read", "policy:edit", "grant:read", "grant:decide",
          "grant:revoke")  # fmt: skip
MORE = (
    {"type": "user", "username": "owen", "external_id": "30"},
    {"type": "membership", "user": "owen", "node": "acme", "role": "owner"},
    {"type": "user", "username": "hank", "external_id": "31"},
    {"type": "membership", "user": "hank", "node": "hidden", "role": "owner"},
    {"type": "project", "path": "acme/site", "external_id": "50", "visibility": "private"},
    {"type": "project", "path": "acme/tools/fmt", "external_id": "51", "visibility": "private"},
)


@dataclass
class Organisation:
    """`olga` and `owen` own acme, `dana` is a developer there, `hank` owns another group; each by a token of theirs."""

    stage: Stage
    admin: str
    olga: str
    owen: str
    hank: str
    dana: str
    gateway: str

    async def put(self, secret: str, node: str, expect: int = 200, **said: Any) -> Any:
        """Set a policy for `gitlab`, or what is said."""
        query = "&".join(
            f"{name}={said.pop(name)}" for name in ("dry_run", "grandfather", "allow_loosening") if name in said
        )
        tag = said.pop("tag", None)
        headers = {} if tag is None else {"If-Match": tag}
        path = f"/v1/policies?node={node}" + (f"&{query}" if query else "")
        answer = await self.stage.call("PUT", path, secret, {"catalog": "gitlab"} | said, headers=headers)
        assert answer.status_code == expect, answer.text
        return answer.json()

    async def make(self, secret: str, expect: int = 201, **changes: Any) -> Any:
        """A token of dana's that reads and runs jobs of acme/web."""
        given: dict[str, Any] = {
            "name": "jobs",
            "catalog": "gitlab",
            "scopes": [self.on("project:acme/web", may=("job:read", "job:run"))],
        }
        answer = await self.stage.call("POST", "/v1/tokens", secret, given | changes)
        assert answer.status_code == expect, answer.text
        return answer.json()

    def on(self, *nodes: str, may: tuple[str, ...] = ("job:read",)) -> Mapping[str, Any]:
        return {"reach": {"kind": "selected", "nodes": list(nodes)}, "permissions": list(may)}

    async def check(self, token: Any, permission: str = "job:read", target: str = "project:acme/web") -> str:
        """The reason, fully fresh."""
        resource, action = permission.split(":")
        secret = token if isinstance(token, str) else token["secret"]
        body = {"token": secret, "catalog": "gitlab", "resource": resource, "action": action, "target": target}
        answer = await self.stage.call("POST", "/check", self.gateway, body | {"fully_consistent": True})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["reason"])

    async def requests(self, secret: str, **query: str) -> list[Any]:
        return await self._list("/v1/grant-requests", secret, {"node": "group:acme"} | query)

    async def grants(self, secret: str, **query: str) -> list[Any]:
        return await self._list("/v1/grants", secret, {"node": "group:acme"} | query)

    async def _list(self, path: str, secret: str, query: Mapping[str, str]) -> list[Any]:
        answer = await self.stage.call("GET", path, secret, params=query)
        assert answer.status_code == 200, answer.text
        return list(answer.json()["items"])

    async def decide(self, secret: str, number: int, action: str = "approve", **more: Any) -> httpx.Response:
        return await self.stage.call("POST", f"/v1/grant-requests/{number}", secret, {"action": action} | more)

    async def waiting(self, secret: str | None = None) -> Any:
        """The only pending request."""
        [one] = await self.requests(secret or self.olga, state="pending")
        return one


@asynccontextmanager
async def organisation(url: str, *lines: Mapping[str, Any]) -> AsyncIterator[Organisation]:
    """On a database of its own."""
    async with staged(url, *COMPANY, *MORE, *lines) as stage:
        admin = await stage.admin()

        async def owner(name: str, *groups: str) -> str:
            held = await stage.scope_at("authz", groups, *OWNERS)
            own = scope("authz", "user", "token:create", "token:read", "token:edit", "token:revoke")
            jobs = scope("gitlab", "all_memberships", "job:read", "job:run", "pipeline:read")
            given = await stage.give(name, held, own, jobs, catalogs={"authz": 1, "gitlab": 2})
            return given[1]

        dana = scope("authz", "user", "token:create", "token:read", "token:edit")
        jobs = scope("gitlab", "all_memberships", "job:read", "job:run", "pipeline:read")
        gateway = await stage.give("root", scope("authz", "instance", "decision:evaluate"), evaluates=("*",))
        yield Organisation(
            stage,
            admin,
            await owner("olga", "group:acme"),
            await owner("owen", "group:acme"),
            await owner("hank", "group:hidden"),
            (await stage.give("dana", dana, jobs, catalogs={"authz": 1, "gitlab": 2}))[1],
            gateway[1],
        )
