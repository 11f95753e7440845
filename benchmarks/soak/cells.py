"""Cells of the soak: each a group with people and tokens that one writer changes, and whose truth is read between."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Final

from tests.faults.client import Answer, Connection, now, request
from tests.faults.fleet import Fleet
from tests.reference import naive
from tests.reference.rows import Rows
from tests.support.stored_rows import Reading, read_all

from authz_service.engine.model import OperationRequest, PermissionRequest, Request
from authz_service.pdp.routing import HttpCall, Routing
from authz_service.store.database import Database
from authz_service.tokens.model import TokenId

PERMISSIONS: Final = ("job:read", "job:run", "pipeline:read", "issue:read", "issue:create")
CALLS: Final = (
    ("GET", "/api/v4/projects/{}/jobs"),
    ("GET", "/api/v4/projects/{}/pipelines"),
    ("GET", "/api/v4/projects/{}/issues"),
    ("POST", "/api/v4/projects/{}/issues"),
)
LIVE: Final = 4
"""Tokens of a cell that its writer keeps alive."""
_KEPT_ENDED: Final = 4
_MARGIN: Final = 0.4
"""Seconds beyond S until answers have to be those of the new state, for the client's own delays on the way."""


@dataclass(frozen=True, slots=True)
class Held:
    """A token as whoever holds it knows it."""

    id: str
    secret: str


@dataclass(frozen=True, slots=True)
class Asked:
    """One decision that was answered: of which token, about what, and whether it was an allow."""

    token: str
    about: PermissionRequest | HttpCall
    allowed: bool
    reason: str | None
    sent_at: float
    way: str
    replica: int


@dataclass
class Verdicts:
    """What became of all decisions."""

    compared: Counter[str] = field(default_factory=Counter)
    """By the way they were asked."""
    during: int = 0
    """Of those, asked less than S after a change: either state's answer is right."""
    unsettled: int = 0
    """Answers that nothing can be said of: the cell changed in an unknown way meanwhile."""
    wrong: list[str] = field(default_factory=list)
    changes: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    """Changes that were not acknowledged, by status or `lost`."""


class Truth:
    """The naive reference on rows of the database, for the tokens of one cell."""

    def __init__(self, reading: Reading, tokens: frozenset[str]) -> None:
        kept = [one for one in reading.rows.tokens if one.id in tokens]
        self.rows: Rows = replace(reading.rows, tokens=kept)
        self._now = reading.now
        self._answers: dict[tuple[str, PermissionRequest | HttpCall], tuple[bool, str]] = {}

    def of(self, token: str, about: PermissionRequest | HttpCall) -> tuple[bool, str]:
        key = (token, about)
        if key not in self._answers:
            asked: PermissionRequest | OperationRequest
            asked = _resolve(self._catalog(token), about) if isinstance(about, HttpCall) else about
            found = naive.decide(self.rows, TokenId(token), Request("gitlab", asked, self._now))
            self._answers[key] = (found.allowed, found.reason.value)
        return self._answers[key]

    def _catalog(self, token: str) -> str:
        version = next(one.catalogs["gitlab"] for one in self.rows.tokens if one.id == token)
        return f"gitlab@{version}"

    def same(self, other: Truth, cell: Cell) -> bool:
        """Whether nothing changed that a decision of this cell rests on."""
        return self._facts(cell) == other._facts(cell)

    def _facts(self, cell: Cell) -> tuple[Any, ...]:
        rows = self.rows
        near = {node.id for node in rows.nodes if node.name in cell.names or node.name == "instance"}
        return (
            rows.tokens,
            [node for node in rows.nodes if node.id in near],
            [user for user in rows.users if user.id in near],
            [one for one in rows.memberships if one[0] in near],
            [policy for policy in rows.policies if policy.node in near],
        )


_ROUTING: Final = Routing()


@lru_cache(maxsize=4096)
def _resolve(catalog: str, call: HttpCall) -> OperationRequest:
    from authz_service.store.shipped import shipped_catalogs

    return _ROUTING.resolve(next(one for one in shipped_catalogs() if one.label == catalog), call)


class Cell:
    """Only its own writer changes it, one change at a time, so what holds in between is known."""

    def __init__(self, fleet: Fleet, database: Database, number: int, verdicts: Verdicts, *, seed: int) -> None:
        self.fleet = fleet
        self.number = number
        self.group, self.project, self.user = f"soak-{number}", f"soak-{number}/web", f"worker-{number}"
        self.names = {self.group, self.user, f"web-{number}", "web"}
        self.project = f"{self.group}/web-{number}"
        self.live: list[Held] = []
        self.ended: deque[Held] = deque(maxlen=_KEPT_ENDED)
        self.answers: list[Asked] = []
        self._database = database
        self._verdicts = verdicts
        self._chance = random.Random(f"{seed} {number}")
        self._numbers = itertools.count(1)
        self._writer = number % len(fleet.replicas)

    # asking

    def targets(self) -> tuple[str, ...]:
        return (f"project:{self.project}", f"group:{self.group}", "project:soak-0/web-0", "project:soak-0/absent")

    def tokens(self) -> list[Held]:
        return [*self.live, *self.ended]

    def note(self, asked: Asked) -> None:
        self.answers.append(asked)

    # changing

    async def prepare(self) -> None:
        """The group, a project, a person and first tokens."""
        lines = (
            {"type": "user", "username": self.user, "external_id": f"u{self.number}"},
            {"type": "group", "path": self.group, "external_id": f"g{self.number}", "visibility": "private"},
            {"type": "project", "path": self.project, "external_id": f"{7000 + self.number}", "visibility": "private"},
            {"type": "membership", "user": self.user, "node": self.group, "role": "developer"},
        )
        assert (await self._import(*lines)).status == 200
        while len(self.live) < LIVE:
            status = await self._issue()
            assert status in (200, 201), f"no token could be issued: {status}"

    async def live_on(self, staleness: float, window: float) -> None:
        """Change something, let it settle, and hold all answers against what held: for ever."""
        before = await self._read()
        while True:
            self.answers.clear()
            known = frozenset(one.id for one in self.tokens())
            began = now()
            name, status = await self._change()
            self._verdicts.changes[name] += 1
            acknowledged = 200 <= status < 300
            if not acknowledged:
                self._verdicts.refused[str(status or "lost")] += 1
            done = now()
            after = await self._read(known)
            await asyncio.sleep(staleness + _MARGIN + window)
            answers, self.answers = self.answers, []
            at_the_end = await self._read(known)
            if not after.same(at_the_end, self):
                # A write that was given up came through later: nobody knows when.
                self._verdicts.unsettled += len(answers)
                before = at_the_end
                continue
            await self._judge(answers, before, after, began, done + staleness + _MARGIN, sure=acknowledged)
            before = await self._read()

    async def _judge(
        self, answers: list[Asked], before: Truth, after: Truth, began: float, settled: float, *, sure: bool
    ) -> None:
        for count, asked in enumerate(answers):
            if count % 50 == 49:
                await asyncio.sleep(0)
            if not any(one.id == asked.token for one in after.rows.tokens):
                self._verdicts.unsettled += 1
                continue
            right = {after.of(asked.token, asked.about)}
            if began <= asked.sent_at < settled or asked.sent_at < began:
                if not sure and asked.sent_at < settled:
                    self._verdicts.unsettled += 1
                    continue
                if any(one.id == asked.token for one in before.rows.tokens):
                    right.add(before.of(asked.token, asked.about))
                self._verdicts.during += 1
            self._verdicts.compared[asked.way] += 1
            said = (asked.allowed, asked.reason)
            matches = said in right if asked.reason is not None else asked.allowed in {one[0] for one in right}
            if not matches:
                self._verdicts.wrong.append(
                    f"replica {asked.replica}, {asked.way}, {asked.token}, {asked.about}: {said}, not {sorted(right)},"
                    f" {asked.sent_at - settled:+.2f} s from when that had to be known"
                )

    async def _read(self, tokens: frozenset[str] | None = None) -> Truth:
        wanted = frozenset(one.id for one in self.tokens()) | (tokens or frozenset())
        return Truth(await read_all(self._database, tokens=sorted(wanted)), wanted)

    async def _change(self) -> tuple[str, int]:
        ways: Mapping[str, Any] = {
            "issue": self._issue,
            "revoke": self._revoke,
            "rotate": self._rotate,
            "edit": self._edit,
            "policy": self._policy,
            "import: role": self._role,
            "import: visibility": self._visibility,
            "import: state": self._state,
        }
        name = self._chance.choice(list(ways))
        if len(self.live) < LIVE:
            name = "issue"
        return name, await ways[name]()

    async def _send(self, method: str, path: str, body: Any = None, *, kind: str = "application/json") -> Answer:
        """Once; 0 as the status where no answer came."""
        content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        for turn in range(len(self.fleet.replicas)):
            replica = self.fleet.replicas[(self._writer + turn) % len(self.fleet.replicas)]
            connection = Connection(replica.port)
            raw = request(method, path, self.fleet.writers[self.number % len(self.fleet.writers)], content, kind=kind)
            if method == "PATCH":
                head, _, rest = raw.partition(b"\r\n")
                length = b"" if b"Content-Length" in raw else b"Content-Length: %d\r\n" % len(content)
                raw = head + b"\r\nIf-Match: *\r\n" + length + rest
            try:
                async with asyncio.timeout(15):  # `wait_for` may swallow being cancelled, before Python 3.12
                    return await connection.send(raw)
            except ConnectionRefusedError:
                continue
            except (OSError, EOFError, TimeoutError):
                break
            finally:
                connection.close()
        return Answer(0, b"", b"")

    async def _import(self, *lines: Mapping[str, Any]) -> Answer:
        body = "\n".join(json.dumps(line) for line in lines).encode()
        return await self._send("POST", "/v1/directory/import", body, kind="application/x-ndjson")

    def _scopes(self) -> list[dict[str, Any]]:
        node = self._chance.choice((f"project:{self.project}", f"group:{self.group}"))
        names = sorted(self._chance.sample(PERMISSIONS, self._chance.randint(1, 3)))
        return [{"reach": {"kind": "selected", "nodes": [node]}, "permissions": names}]

    async def _issue(self) -> int:
        body = {
            "name": f"soak {next(self._numbers)}",
            "owner": self.user,
            "catalog": "gitlab",
            "scopes": self._scopes(),
        }
        if self.live and self._chance.random() < 0.2:
            body["parent"] = self.live[0].id
            body.pop("owner")
            body["owner"] = self.user
        answer = await self._send("POST", "/v1/tokens", body)
        if answer.status == 201:
            self.live.append(Held(answer.document["id"], answer.document["secret"]))
        # A child may ask for what its parent does not hold: then nothing was made, and nothing changed.
        return 200 if answer.status in (400, 403) else answer.status

    async def _revoke(self) -> int:
        held = self.live.pop(self._chance.randrange(len(self.live)))
        self.ended.append(held)
        return (await self._send("DELETE", f"/v1/tokens/{held.id}")).status

    async def _rotate(self) -> int:
        held = self.live.pop(self._chance.randrange(len(self.live)))
        self.ended.append(held)
        overlap = self._chance.choice((0, 0, 3600))
        answer = await self._send("POST", f"/v1/tokens/{held.id}/rotate", {"overlap_seconds": overlap})
        if answer.status == 201:
            self.live.append(Held(answer.document["id"], answer.document["secret"]))
        return 200 if answer.status in (400, 403, 409) else answer.status

    async def _edit(self) -> int:
        held = self._chance.choice(self.live)
        answer = await self._send("PATCH", f"/v1/tokens/{held.id}", {"scopes": self._scopes()})
        return 200 if answer.status in (400, 403, 409) else answer.status

    async def _policy(self) -> int:
        said = self._chance.choice(
            (
                {"fine_grained": {"value": "forbid"}},
                {"max_lifetime_days": {"fine_grained": {"value": 30}}},
                {"fine_grained": {"value": "allow"}},
                {},
            )
        )
        answer = await self._send("PUT", f"/v1/policies?node=group:{self.group}", {"catalog": "gitlab"} | said)
        return answer.status

    async def _role(self) -> int:
        line = {"type": "membership", "user": self.user, "node": self.group}
        role = self._chance.choice(("guest", "developer", "maintainer", None))
        if role is None:
            # Once more what is there, so that there is something to delete whatever went before.
            first = line | {"role": "guest"}
            return (await self._import(first, {"type": "delete", "what": "membership", **_without_type(line)})).status
        return (await self._import(line | {"role": role})).status

    async def _visibility(self) -> int:
        visibility = self._chance.choice(("private", "internal"))
        line = {"type": "project", "path": self.project, "external_id": f"{7000 + self.number}"}
        return (await self._import(line | {"visibility": visibility})).status

    async def _state(self) -> int:
        state = self._chance.choice(("active", "active", "blocked"))
        line = {"type": "user", "username": self.user, "external_id": f"u{self.number}", "state": state}
        return (await self._import(line)).status


def _without_type(line: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if name != "type"}
