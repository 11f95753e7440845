"""Who asks during the soak: decisions by every way there is, and what else a service does all day."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import quote

import httpx
from tests.faults.client import Answer, Connection, now, request
from tests.faults.fleet import Fleet

from authz_service.engine.model import PermissionRequest
from authz_service.pdp.routing import HttpCall
from benchmarks.soak.cells import CALLS, PERMISSIONS, Asked, Cell, Held

_PAUSE = 0.004
"""Seconds between two questions of one connection: the machine is to be busy, not full."""


@dataclass
class Latencies:
    """Of answered decisions, in milliseconds, with when they were asked."""

    taken: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=2_000_000))

    def between(self, begin: float, end: float) -> list[float]:
        return sorted(took for at, took in self.taken if begin <= at < end)


@dataclass
class Asking:
    """Tasks that ask until they are cancelled. What gets no answer is asked anew, as real clients do."""

    fleet: Fleet
    cells: list[Cell]
    latencies: Latencies = field(default_factory=Latencies)
    statuses: Counter[str] = field(default_factory=Counter)
    unexpected: list[str] = field(default_factory=list)
    """Answers that no way to ask has: a 500, a 401 for a gateway that is one."""
    seed: int = 1

    def tasks(self) -> list[asyncio.Task[None]]:
        replicas = range(len(self.fleet.replicas))
        return [
            *(asyncio.create_task(self._decide(number)) for number in replicas),
            *(asyncio.create_task(self._manage(number)) for number in replicas),
            asyncio.create_task(self._visit_console()),
        ]

    # decisions

    async def _decide(self, number: int) -> None:
        chance = random.Random(f"{self.seed} asks {number}")
        connection = Connection(self.fleet.replicas[number].port)
        ways = [
            self._check,
            self._check,
            self._check,
            self._batch,
            self._http,
            self._forward,
            self._evaluate,
            self._own,
        ]
        try:
            while True:
                await asyncio.sleep(_PAUSE)
                cell = chance.choice(self.cells)
                tokens = cell.tokens()
                if tokens:
                    await self._ask(connection, number, chance, cell, chance.choice(tokens), chance.choice(ways))
        finally:
            connection.close()

    async def _ask(
        self,
        connection: Connection,
        number: int,
        chance: random.Random,
        cell: Cell,
        held: Held,
        way: Callable[[random.Random, Cell, Held], tuple[str, bytes, list[PermissionRequest | HttpCall]]],
    ) -> None:
        name, raw, abouts = way(chance, cell, held)
        sent_at = now()
        try:
            async with asyncio.timeout(10):  # `wait_for` may swallow being cancelled, before Python 3.12
                answer = await connection.send(raw)
        except (OSError, EOFError, TimeoutError):
            connection.close()
            self.statuses["decisions: lost"] += 1
            await asyncio.sleep(0.1)
            return
        took = (now() - sent_at) * 1000
        self.statuses[f"decisions: {answer.status}"] += 1
        if answer.status == 503:
            await asyncio.sleep(0.05)
            return
        found = _read(name, answer)
        if found is None:
            self.unexpected.append(f"{name}: {answer.status} {answer.body[:200]!r}")
            return
        self.latencies.taken.append((sent_at, took))
        for about, (allowed, reason) in zip(abouts, found, strict=True):
            cell.note(Asked(held.id, about, allowed, reason, sent_at, name, number))

    def _check(
        self, chance: random.Random, cell: Cell, held: Held
    ) -> tuple[str, bytes, list[PermissionRequest | HttpCall]]:
        about = _bare(chance, cell)
        body = {"token": held.secret, "catalog": "gitlab", **_named(about)}
        return "check", request("POST", "/check", self.fleet.gateway, _json(body)), [about]

    def _batch(
        self, chance: random.Random, cell: Cell, held: Held
    ) -> tuple[str, bytes, list[PermissionRequest | HttpCall]]:
        abouts = [_bare(chance, cell) for _ in range(8)]
        body = {"token": held.secret, "catalog": "gitlab", "items": [_named(about) for about in abouts]}
        return "batch", request("POST", "/check/batch", self.fleet.gateway, _json(body)), [*abouts]

    def _http(
        self, chance: random.Random, cell: Cell, held: Held
    ) -> tuple[str, bytes, list[PermissionRequest | HttpCall]]:
        call = _call(chance, cell)
        body = {"token": held.secret, "catalog": "gitlab", "method": call.method, "path": call.path}
        return "http", request("POST", "/check/http", self.fleet.gateway, _json(body)), [call]

    def _forward(
        self, chance: random.Random, cell: Cell, held: Held
    ) -> tuple[str, bytes, list[PermissionRequest | HttpCall]]:
        call = _call(chance, cell)
        raw = request("GET", "/gateway/forward/x-original?catalog=gitlab", held.secret)
        head = f"X-Authz-Gateway: {self.fleet.gateway}\r\n"
        head += f"X-Original-Method: {call.method}\r\nX-Original-URI: {call.path}\r\n"
        return "gateway", raw[:-2] + head.encode() + b"\r\n", [call]

    def _evaluate(
        self, chance: random.Random, cell: Cell, held: Held
    ) -> tuple[str, bytes, list[PermissionRequest | HttpCall]]:
        about = _bare(chance, cell, project=True)
        body = {
            "subject": {"type": "token", "id": held.id},
            "action": {"name": about.permission.partition(":")[2]},
            "resource": {"type": about.permission.partition(":")[0], "id": about.target},
            "context": {"authz": {"catalog": "gitlab"}},
        }
        return "authzen", request("POST", "/access/v1/evaluation", self.fleet.gateway, _json(body)), [about]

    def _own(
        self, chance: random.Random, cell: Cell, held: Held
    ) -> tuple[str, bytes, list[PermissionRequest | HttpCall]]:
        about = _bare(chance, cell)
        return (
            "self",
            request("POST", "/v1/self/check", held.secret, _json({"catalog": "gitlab", **_named(about)})),
            [about],
        )

    # everything else

    async def _manage(self, number: int) -> None:
        """Searches, lists, simulations, documents and tokens of passing jobs, all the time and not too fast."""
        chance = random.Random(f"{self.seed} manages {number}")
        connection = Connection(self.fleet.replicas[number].port)
        writer = self.fleet.writers[number]
        try:
            while True:
                await asyncio.sleep(chance.uniform(0.1, 0.3))
                cell = chance.choice(self.cells)
                for raw in self._chores(chance, cell, writer):
                    await self._do(connection, raw)
        finally:
            connection.close()

    def _chores(self, chance: random.Random, cell: Cell, writer: str) -> list[bytes]:
        tokens = cell.live
        held = chance.choice(tokens) if tokens else None
        document = {"query": "query { currentUser { id } }", "token": held.secret if held else "x", "catalog": "gitlab"}
        find = {
            "subject": {"type": "token"},
            "action": {"name": "read"},
            "resource": {"type": "job", "id": f"project:{cell.project}"},
            "context": {"authz": {"catalog": "gitlab"}},
        }
        draft = {
            "name": "passing job",
            "owner": cell.user,
            "catalog": "gitlab",
            "scopes": [
                {"reach": {"kind": "selected", "nodes": [f"project:{cell.project}"]}, "permissions": ["job:read"]}
            ],
        }
        call = {"resource": "job", "action": "read", "target": f"project:{cell.project}"}
        chores = [
            [request("POST", "/check/graphql", self.fleet.gateway, _json(document))],
            [request("POST", "/access/v1/search/subject", self.fleet.gateway, _json(find))],
            [request("GET", f"/v1/tokens?node=group:{cell.group}&limit=20", writer)],
            [request("POST", "/v1/simulate", writer, _json({"catalog": "gitlab", "token": draft, "calls": [call]}))],
            [request("GET", "/v1/tokens?limit=50&sort=newest", writer), request("GET", "/metrics", writer)],
        ]
        if held is not None:
            chores.append([request("GET", "/v1/self", held.secret), request("GET", "/v1/self/effective", held.secret)])
        return chance.choice(chores)

    async def _do(self, connection: Connection, raw: bytes) -> None:
        try:
            async with asyncio.timeout(15):  # `wait_for` may swallow being cancelled, before Python 3.12
                answer = await connection.send(raw)
        except (OSError, EOFError, TimeoutError):
            connection.close()
            self.statuses["management: lost"] += 1
            await asyncio.sleep(0.2)
            return
        self.statuses[f"management: {answer.status}"] += 1
        if answer.status == 500:
            self.unexpected.append(f"{raw[:80]!r}: 500")

    async def _visit_console(self) -> None:
        """The sign-in page and a page that needs a session, of one replica after the other."""
        turn = 0
        while True:
            await asyncio.sleep(0.5)
            turn += 1
            port = self.fleet.replicas[turn % len(self.fleet.replicas)].port
            with contextlib.suppress(httpx.HTTPError):
                async with httpx.AsyncClient(
                    base_url=f"http://127.0.0.1:{port}", timeout=10, trust_env=False
                ) as client:
                    for path in ("/console/sign-in", "/console/tokens"):
                        answer = await client.get(path)
                        self.statuses[f"console: {answer.status_code}"] += 1
                        if answer.status_code >= 500 and answer.status_code != 503:
                            self.unexpected.append(f"{path}: {answer.status_code}")


def _json(body: object) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


def _bare(chance: random.Random, cell: Cell, *, project: bool = False) -> PermissionRequest:
    targets = [one for one in cell.targets() if not project or one.startswith("project:")]
    return PermissionRequest(chance.choice(PERMISSIONS), chance.choice(targets))


def _call(chance: random.Random, cell: Cell) -> HttpCall:
    method, path = chance.choice(CALLS)
    return HttpCall(method, path.format(quote(cell.project, safe="")))


def _named(about: PermissionRequest) -> dict[str, str]:
    resource, _, action = about.permission.partition(":")
    return {"resource": resource, "action": action, "target": str(about.target)}


def _read(way: str, answer: Answer) -> list[tuple[bool, str | None]] | None:
    """Allowed or not, with the reason where the way tells the true one; None for what no such question is answered."""
    if way == "gateway":
        return [(answer.status == 200, None)] if answer.status in (200, 401, 403) else None
    if way == "self" and answer.status == 401:
        return [(False, None)]
    if answer.status != 200:
        return None
    if way == "authzen":
        return [(answer.document["decision"] is True, None)]
    if way == "batch":
        return [(one["decision"] == "allow", one["reason"]) for one in answer.document["decisions"]]
    hidden = way == "self"
    return [(answer.document["decision"] == "allow", None if hidden else answer.document["reason"])]
