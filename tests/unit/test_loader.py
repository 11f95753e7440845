"""Loads without a database: how many run and wait at once, which of them are joined, and what is kept of absence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from authz_service.cache.facts import Bounds, Facts, NotAtHandError
from authz_service.cache.follower import Freshness
from authz_service.cache.journal import Journal
from authz_service.cache.keys import FactKey, PathKey
from authz_service.engine.model import PermissionRequest, Reason
from authz_service.errors import OverloadedError
from authz_service.pdp.check import DecisionPoint
from authz_service.pdp.loader import Gate, Loaded, Loader
from authz_service.pdp.question import Ask, Freshly, Question
from authz_service.pdp.secrets import Peppers
from authz_service.store import catalogs, tokens
from authz_service.store.changes import Revision, Stamp
from authz_service.store.token_rows import TokenRecord
from authz_service.store.tokens import TokenReading
from authz_service.tokens.model import Token, TokenId
from authz_service.tokens.secret import new_secret

NOW = Stamp(Revision(1), UUID(int=1))
PEPPERS = Peppers({"k1": b"p" * 32}, "k1")
SECRET = new_secret(PEPPERS.prefix, PEPPERS.current).reveal()
QUESTION = [Ask(PermissionRequest("job:read", "acme/web"))]


@dataclass
class StillFollower:
    """A history in which nothing happens."""

    settings: Freshness = field(default_factory=Freshness)

    def require_fresh(self) -> Stamp:
        return NOW

    def now(self) -> datetime:
        return datetime.now(UTC)

    async def applied_to(self, revision: Revision) -> None:
        pass

    async def poll_now(self) -> None:
        pass


class NoDatabase:
    @asynccontextmanager
    async def read(self) -> AsyncIterator[None]:
        yield None


def loader_of(facts: Facts, gate: Gate, read: Callable[[FactKey], Awaitable[Loaded]] | None = None) -> Loader:
    """One whose facts come from `read`, or from the store as a test has it."""
    database, follower = NoDatabase(), StillFollower()
    loader = Loader(database, follower, Journal(facts), facts, gate)  # type: ignore[arg-type]
    if read is not None:

        async def answer(_: Any, key: FactKey) -> Loaded:
            return await read(key)

        loader._reader.read = answer  # type: ignore[method-assign]
    return loader


def paths(many: int, group: str = "acme") -> list[FactKey]:
    return [PathKey("default", f"{group}/p{number}") for number in range(many)]


@pytest.mark.parametrize("many", [1, 65, 3000])
@pytest.mark.parametrize("gate", [(8, 1000), (8, 20), (1, 8)])
async def test_a_batch_is_loaded_whole_and_leaves_room_for_others(many, gate):
    running, waiting = gate
    loaded: list[FactKey] = []
    most = 0

    async def read(key: FactKey) -> Loaded:
        nonlocal most
        most = max(most, room.waiting)
        await asyncio.sleep(0)
        return NOW, [], lambda: loaded.append(key)

    room = Gate(running, waiting)
    loader = loader_of(Facts(), room, read)
    others = paths(20, "others")
    batch = asyncio.create_task(loader.load(paths(many)))
    for other in others:
        await loader.load([other])
    await batch
    assert set(loaded) == {*paths(many), *others}
    assert room.shed == 0
    assert most < max(2, waiting // 2)


async def test_a_batch_of_which_a_part_cannot_be_loaded_says_so():
    async def read(key: FactKey) -> Loaded:
        if key == paths(100)[70]:
            raise OverloadedError("not this one")
        return NOW, [], lambda: None

    with pytest.raises(OverloadedError, match="not this one"):
        await loader_of(Facts(), Gate(8, 1000), read).load(paths(100))


@dataclass
class Rows:
    """Tokens by digest. Each look-up sees what was there when it began; while `held`, its answer is under way."""

    record: TokenRecord | None = None
    held: asyncio.Event = field(default_factory=asyncio.Event)
    begun: int = 0

    async def find(self, _conn: object, _digest: bytes) -> TokenReading:
        self.begun += 1
        seen = self.record
        await self.held.wait()
        return TokenReading(NOW, seen)


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never comes to it")


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> Rows:
    found = Rows()
    monkeypatch.setattr(tokens, "find_by_digest", found.find)
    return found


def point_of(facts: Facts) -> DecisionPoint:
    return DecisionPoint(facts, StillFollower(), loader_of(facts, Gate(8, 1000)), PEPPERS)  # type: ignore[arg-type]


async def ask(point: DecisionPoint, freshly: Freshly) -> Reason:
    [answer] = await point.check(SECRET, Question(QUESTION, "gitlab", None, freshly))
    return answer.decision.reason


async def test_a_question_that_asks_for_freshness_waits_for_no_look_up_that_began_before_it(rows):
    point = point_of(Facts())
    first = asyncio.create_task(ask(point, Freshly()))
    await until(lambda: rows.begun == 1)
    rows.record = TokenRecord(Token(TokenId("tok_new"), "somebody", {}), "k1", TokenId("tok_new"))
    second = asyncio.create_task(ask(point, Freshly(fully_consistent=True)))
    for _ in range(100):  # nothing outside the loop is waited for: by now it has joined, or begun its own
        await asyncio.sleep(0)
    rows.held.set()
    assert await second == Reason.CATALOG_MISMATCH, "the token is known"
    assert await first in (Reason.UNKNOWN_TOKEN, Reason.CATALOG_MISMATCH)
    assert rows.begun == 2


async def test_questions_that_ask_for_no_freshness_share_one_look_up(rows):
    point = point_of(Facts())
    asked = [asyncio.create_task(ask(point, Freshly())) for _ in range(5)]
    await until(lambda: rows.begun == 1)
    rows.held.set()
    assert await asyncio.gather(*asked) == [Reason.UNKNOWN_TOKEN] * 5
    assert await ask(point, Freshly()) == Reason.UNKNOWN_TOKEN
    assert rows.begun == 1


async def test_what_was_unknown_before_a_fresh_question_is_looked_up_for_it(rows):
    point = point_of(Facts())
    rows.held.set()
    assert await ask(point, Freshly()) == Reason.UNKNOWN_TOKEN
    assert await ask(point, Freshly(fully_consistent=True)) == Reason.UNKNOWN_TOKEN
    assert rows.begun == 2


async def test_catalogs_that_nobody_has_are_kept_within_a_bound(monkeypatch):
    async def load(_conn: object, _name: str, _version: int) -> tuple[Stamp, None]:
        return NOW, None

    monkeypatch.setattr(catalogs, "load", load)
    facts = Facts(bounds=Bounds(questions=100))
    loader = loader_of(facts, Gate(8, 1000))
    for version in range(1, 501):
        with pytest.raises(NotAtHandError) as asked:
            facts.catalog("gitlab", version)
        await loader.load([asked.value.key])
        assert facts.catalog("gitlab", version) is None
    assert len(facts.absent_catalogs) == 100
    assert len(facts.catalogs) == 0
    facts.drop_catalog("gitlab")
    with pytest.raises(NotAtHandError):
        facts.catalog("gitlab", 500)
