"""What else happens to tokens in the machine's sequences: leaks, imports, sweeps, and webhooks that hear of it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import text
from tests.reference.places import path_of
from tests.support.asked_for import TokenDrawer
from tests.support.pair import FOREIGN, Pair, Side
from tests.support.receiver import Receiver
from tests.support.stored_rows import Reading

from authz_service.admin.sweeps import SameForAll, Sweep, Sweeper, SweepRules
from authz_service.directory.model import NodeKind
from authz_service.tokens.model import Token, TokenId

KEY = ec.generate_private_key(ec.SECP256R1())
KEY_ID = "1c0ffee1"
UNUSED_DAYS = 30
"""Tokens that are brought along were made long before: nobody has used them for so long."""
PATIENCE = 60.0

Act = Callable[[], Awaitable[None]]


def settings(folder: Path) -> dict[str, Any]:
    """What replicas have to know, written into a folder that has the certificate of a receiver."""
    pem = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    keys = {"public_keys": [{"key_identifier": KEY_ID, "key": pem, "is_current": True}]}
    (folder / "keys.json").write_text(json.dumps(keys), "utf-8")
    return {
        "leak_keys_file": folder / "keys.json",
        "leak_reports_per_minute": 10_000,
        "foreign_prefixes": FOREIGN,
        "webhook_private_hosts": "localhost",
        "webhook_ca_file": folder / "ca.pem",
        "sweep_interval": 0,
    }


@dataclass
class Endings:
    """Draws these things for one run, and knows what was done."""

    random: Random
    pair: Pair
    receiver: Receiver
    secrets: dict[TokenId, str]
    note: Callable[..., None]
    leaked: set[TokenId] = field(default_factory=set)
    """Reported while they were alive: they end alone, whatever hangs under them (its line has ended, T4)."""
    purging: bool = False
    hooks: list[str] = field(default_factory=list)
    _numbers: int = 0

    async def begin(self) -> None:
        """Somebody listens to everything from the start."""
        await self._hook(self.pair.sides[0], {"url": self.receiver.url("/all")})

    def draw(self, side: Side, reading: Reading, drawer: TokenDrawer, alive: Sequence[Token], *, alone: bool) -> Act:
        """One of them; everything random is drawn now. What takes more than one revision only happens `alone`."""
        draw = self.random.random()
        if draw < 0.3 and alive:
            token = self.random.choice(alive)
            as_partner = self.random.random() < 0.5
            beside = ["hunter2", f"{FOREIGN}{self._number():020}"]
            return lambda: self._report(side, token, beside, as_partner=as_partner)
        if draw < 0.6:
            return self._draw_import(side, reading, drawer)
        if draw < 0.7:
            return self._draw_hook(side, reading)
        if draw < 0.85 or not alone:
            return lambda: self._sweep(Sweep.UNUSED)
        if draw < 0.9:
            return lambda: self._sweep(Sweep.NOTICES)
        return lambda: self._sweep(Sweep.PURGE)

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    # leaks

    async def _report(self, side: Side, token: Token, beside: Sequence[str], *, as_partner: bool) -> None:
        found = [*beside, self.secrets[token.id]]
        if as_partner:
            body = json.dumps([{"token": one, "type": "authz", "url": "https://paste.example/x"} for one in found])
            answer = await side.call("POST", "/v1/leaks", None, body.encode(), headers=signed(body.encode()))
        else:
            answer = await side.call("POST", "/v1/leaks/report", None, {"secrets": found})
        self.note(f"report {token.id}{' as a partner' if as_partner else ''}", answer, 202)
        self.leaked.add(token.id)
        await self._until(self._is_settled, "reports wait to be looked up")

    async def _is_settled(self) -> bool:
        async with self.pair.database.read() as conn:
            return not (await conn.execute(text("select count(*) from leak_report"))).scalar_one()

    # tokens of another system

    def _draw_import(self, side: Side, reading: Reading, drawer: TokenDrawer) -> Act:
        """Some lines together; now and then a secret that was brought along before, and then none of them comes."""
        lines = []
        for _ in range(self.random.choice((1, 1, 3))):
            secret = f"{FOREIGN}{self._number():024}"
            lines.append((secret, self._line(reading, drawer, secret)))
        known = [one for one in self.secrets.values() if one.startswith(FOREIGN)]
        if known and self.random.random() < 0.15:
            again = self.random.choice(known)
            lines.append((again, self._line(reading, drawer, again)))
        return lambda: self._import(side, lines)

    def _line(self, reading: Reading, drawer: TokenDrawer, secret: str) -> dict[str, Any]:
        root = next(token for token in reading.rows.tokens if token.id not in self.secrets)
        wanted = drawer.draw(reading.rows, root, ())
        wanted.pop("parent", None)
        people = [user.username for user in reading.rows.users if user.username not in ("root", "gateway")]
        wanted.setdefault("owner", self.random.choice(people))
        if self.random.random() < 0.5:
            made = reading.now - timedelta(days=self.random.choice((UNUSED_DAYS - 1, UNUSED_DAYS + 1)))
            wanted["created_at"] = made.isoformat()
        return wanted | {"sha256": hashlib.sha256(secret.encode()).hexdigest(), "prefix": FOREIGN}

    async def _import(self, side: Side, lines: Sequence[tuple[str, dict[str, Any]]]) -> None:
        body = b"\n".join(json.dumps(line).encode() for _, line in lines)
        answer = await side.call("POST", "/v1/tokens/import", self.pair.admin, body)
        self.note(f"bring {[line for _, line in lines]}", answer, 201, 400, 403, 409)
        if answer.status_code == httpx.codes.CREATED:
            for one in answer.json()["tokens"]:
                self.secrets[TokenId(one["id"])] = lines[one["line"] - 1][0]

    # sweeps

    async def _sweep(self, name: Sweep) -> None:
        """Not the replica's own, which sleep: one that runs now, as theirs would."""
        self.purging = self.purging or name is Sweep.PURGE
        rules = SweepRules(interval=timedelta(), keep_ended=timedelta(minutes=45))
        swept = await Sweeper(self.pair.database, rules, SameForAll(UNUSED_DAYS)).run(name, at_once=True)
        self.note(f"sweep {name.value}: {swept.here}")

    # webhooks

    def _draw_hook(self, side: Side, reading: Reading) -> Act:
        draw = self.random.random()
        if len(self.hooks) > 1 and draw < 0.6:
            hook = self.hooks.pop(1 + self.random.randrange(len(self.hooks) - 1))
            return lambda: self._end_hook(side, hook)
        groups = [f"group:{path_of(reading.rows, one)}" for one in reading.rows.nodes if one.kind is NodeKind.GROUP]
        node = self.random.choice(["instance", *groups])
        return lambda: self._hook(side, {"url": self.receiver.url("/some"), "node": node})

    async def _hook(self, side: Side, body: dict[str, Any]) -> None:
        answer = await side.call("POST", "/v1/webhooks", self.pair.admin, body)
        self.note(f"listen {body}", answer, 201, 400, 404)
        if answer.status_code == httpx.codes.CREATED:
            self.hooks.append(answer.json()["id"])

    async def _end_hook(self, side: Side, hook: str) -> None:
        answer = await side.call("DELETE", f"/v1/webhooks/{hook}", self.pair.admin)
        self.note(f"listen no more {hook}", answer, 200, 204)

    async def check_heard(self) -> None:
        """Whoever listens to everything has heard of each token that leaked, and of none besides."""

        async with self.pair.database.read() as conn:
            rows = (await conn.execute(text("select id, token_id from event where kind = 'token.leaked'"))).all()
        assert {row.token_id for row in rows} <= self.leaked, "a token leaked that nobody reported"
        expected = {f"evt_{row.id}" for row in rows}

        async def heard() -> bool:
            told = [json.loads(one.body) for one in self.receiver.requests if one.path == "/all"]
            return {one["id"] for one in told if one["kind"] == "token.leaked"} == expected

        await self._until(heard, "a listener was not told of a leak")

    async def _until(self, condition: Callable[[], Awaitable[bool]], what: str) -> None:
        end = asyncio.get_running_loop().time() + PATIENCE
        while not await condition():
            assert asyncio.get_running_loop().time() < end, what
            await asyncio.sleep(0.02)


def signed(body: bytes) -> dict[str, str]:
    """The headers of a partner who scans for secrets."""
    signature = base64.b64encode(KEY.sign(body, ec.ECDSA(SHA256()))).decode()
    return {"Github-Public-Key-Identifier": KEY_ID, "Github-Public-Key-Signature": signature}
