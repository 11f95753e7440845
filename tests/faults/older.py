"""Replicas of an earlier schema, as far as the database sees them: the statements that they send, frozen."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import asyncpg

from authz_service.store.changes import change_hash

_FOLDER = Path(__file__).parent / "statements"


@cache
def releases() -> Mapping[str, Sequence[str]]:
    """By the schema that their code needs, the statements of replicas of earlier releases."""
    return {file.stem: _read(file) for file in sorted(_FOLDER.glob("*.sql"))}


def _read(file: Path) -> Sequence[str]:
    text = re.sub(r"(?m)^--.*\n", "", file.read_text())
    return [" ".join(part.split()) for part in text.split(";\n") if part.strip()]


def statement(schema: str, *parts: str) -> str:
    """The one statement of a release that has all these parts."""
    [found] = [one for one in releases()[schema] if all(part.lower() in one.lower() for part in parts)]
    return found


@dataclass
class OldReplicas:
    """Work that never stops: polls, look-ups, revokes and creations. What goes wrong is written down, not raised.

    `patience` is how long any of their statements may take, whatever a migration holds meanwhile.
    """

    url: str
    schema: str
    digests: dict[str, bytes]
    """By token id; those of living tokens."""
    owner: int
    place: int
    patience: float = 10.0
    revoked: set[str] = field(default_factory=set)
    tried: set[str] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    _writing: asyncio.Lock = field(default_factory=asyncio.Lock)

    def sql(self, *parts: str) -> str:
        return statement(self.schema, *parts)

    async def run(self) -> None:
        await asyncio.gather(self._poll(), self._look_up(), self._look_up(), self._write())

    async def _connect(self) -> asyncpg.Connection[Any]:
        settings = {"statement_timeout": str(round(self.patience * 1000))}
        found = await asyncpg.connect(self.url, server_settings=settings)
        for kind in ("json", "jsonb"):
            await found.set_type_codec(kind, encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
        return found

    async def _guard(self, what: str, work: Any) -> None:
        conn = await self._connect()
        try:
            while True:
                try:
                    await work(conn)
                    self.counts[what] += 1
                except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                    self.wrong.append(f"{what}: {type(error).__name__}: {error}")
                    return
                await asyncio.sleep(0.01)
        finally:
            conn.terminate()

    async def _poll(self) -> None:
        since, tip = 0, b""

        async def work(conn: asyncpg.Connection[Any]) -> None:
            nonlocal since, tip
            rows = await conn.fetch(self.sql("r.hash as tip"), since, 1000)
            if tip and (rows[0]["rev"] != since or tip not in [row["hash"] for row in rows]):
                self.wrong.append("the change log is another one")
            since, tip = rows[-1]["rev"], rows[-1]["hash"]

        await self._guard("polls", work)

    async def _look_up(self) -> None:
        ids = sorted(self.digests)
        number = 0

        async def work(conn: asyncpg.Connection[Any]) -> None:
            nonlocal number
            number += 1
            token = ids[number * 7919 % len(ids)]
            known_revoked, known_living = token in self.revoked, token not in self.tried
            row = await conn.fetchrow(self.sql("token.digest = $1::BYTEA"), self.digests[token])
            lives = row["id"] is not None and row["revoked_at"] is None
            # Tried meanwhile: either is right.
            if (lives and known_revoked) or (not lives and known_living and token not in self.tried):
                self.wrong.append(f"{token} is {'alive' if lives else 'dead'}")

        await self._guard("look-ups", work)

    async def _write(self) -> None:
        waiting = sorted(self.digests)[::3]

        async def work(conn: asyncpg.Connection[Any]) -> None:
            async with conn.transaction():
                await conn.execute(self.sql("set_config('synchronous_commit', 'on'"), "10000")
                if self.counts["writes"] % 2 and waiting:
                    subject = waiting.pop()
                    self.tried.add(subject)
                    await conn.fetchrow(self.sql("select token.id from token where", "for update"), subject)
                    await conn.fetch(self.sql("set revoked_at=authz_now()"), "test", subject)
                    revision = await self._log(conn, subject)
                else:
                    subject = await self._create(conn)
                    revision = None
                what = "token.revoke" if revision is not None else "token.create"
                await conn.fetch(self.sql("INSERT INTO audit"), None, None, what, subject, {}, revision)
            if revision is not None:
                self.revoked.add(subject)
            await asyncio.sleep(0.02)

        await self._guard("writes", work)

    async def _log(self, conn: asyncpg.Connection[Any], subject: str) -> int:
        taken = await conn.fetchrow(self.sql("update revision set rev="), 1)
        rev: int = taken["rev"]
        hashed = change_hash(taken["hash"], rev, 0, "token", subject, taken["at"])
        await conn.execute(
            self.sql("insert into change_log"), rev, 0, "token", subject, hashed, taken["hash"], taken["at"]
        )
        await conn.execute(self.sql("update revision set hash"), hashed)
        return rev

    async def _create(self, conn: asyncpg.Connection[Any]) -> str:
        new = f"tok_{uuid.uuid4().hex[:22]}"
        scopes = [{"catalog": "gitlab", "reach": {"kind": "selected", "nodes": [self.place]}, "permissions": []}]
        values = (new, uuid.uuid4().bytes * 2, "k1", "fine_grained", "new", self.owner, None, {"gitlab": 2}, scopes)
        rest = ([], [], None, None, None, None, {}, None, new, "", False, None, None)
        await conn.fetch(self.sql("insert into token (id"), *values, *rest)
        await conn.execute(self.sql("insert into token_node"), new, self.place)
        return new
