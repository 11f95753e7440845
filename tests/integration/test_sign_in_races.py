"""What was taken away while somebody signed in by it opens no session that outlives its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from sqlalchemy import text
from tests.support.console import PASSWORD, QUICK, give_password
from tests.support.managing import Stage, staged

from authz_service.admin import signing
from authz_service.admin.id_tokens import Account
from authz_service.admin.passwords import Attempts, Passwords
from authz_service.admin.sessions import Timeouts, Visitor, find_session
from authz_service.errors import UnauthenticatedError

NEXT = "quite another password"
ISSUER = "https://provider.test"


@pytest.fixture
async def stage(database_url: str) -> AsyncIterator[Stage]:
    async with staged(database_url) as found:
        yield found


class Between:
    """Begins something when a session is about to be opened, and goes on once it is done or waits for a lock."""

    def __init__(self, stage: Stage, monkeypatch: pytest.MonkeyPatch, what: Callable[[], Awaitable[object]]) -> None:
        self.stage = stage
        self.what = what
        self.task: asyncio.Task[object] | None = None
        self.opens = signing.open_session
        monkeypatch.setattr(signing, "open_session", self.open)

    async def open(self, *given):
        self.task = asyncio.ensure_future(self.what())
        async with asyncio.timeout(20):
            while not self.task.done() and not await self.waiting():
                await asyncio.sleep(0.01)
        return await self.opens(*given)

    async def waiting(self) -> bool:
        query = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        async with self.stage.database.read() as conn:
            return bool((await conn.execute(text(query))).scalar_one())


async def works(stage: Stage, cookie: str) -> bool:
    management = stage.app.state.services.management
    return await find_session(management, cookie, Timeouts(), Visitor()) is not None


def by_password(stage: Stage, passwords: Passwords, word: str) -> Awaitable[str]:
    management = stage.app.state.services.management
    return signing.sign_in_by_password(management, passwords, Attempts(), "dana", word, Timeouts(), Visitor())


async def test_a_password_that_was_replaced_while_it_was_tried_opens_nothing(stage, monkeypatch):
    await give_password(stage, "dana")
    passwords = Passwords(**QUICK)
    verify = passwords.verify

    async def slowly(word: str, hashed: str | None) -> bool:
        right = await verify(word, hashed)
        await give_password(stage, "dana", password=NEXT)
        return right

    monkeypatch.setattr(passwords, "verify", slowly)
    with pytest.raises(UnauthenticatedError):
        await by_password(stage, passwords, PASSWORD)
    monkeypatch.setattr(passwords, "verify", verify)
    assert await works(stage, await by_password(stage, passwords, NEXT))


async def test_a_password_that_is_replaced_while_a_session_is_opened_ends_that_too(stage, monkeypatch):
    await give_password(stage, "dana")
    between = Between(stage, monkeypatch, lambda: give_password(stage, "dana", password=NEXT))
    cookie = await by_password(stage, Passwords(**QUICK), PASSWORD)
    await between.task
    assert not await works(stage, cookie)


async def test_an_account_that_is_unlinked_while_a_session_is_opened_ends_that_too(stage, monkeypatch):
    management = stage.app.state.services.management
    await signing.link_account(management, "dana", ISSUER, "opaque")
    between = Between(stage, monkeypatch, lambda: signing.unlink_accounts(management, "dana", ISSUER))
    account = Account(ISSUER, "opaque", None, b"one")
    cookie = await signing.sign_in_by_account(management, account, Timeouts(), Visitor())
    await between.task
    assert not await works(stage, cookie)
    with pytest.raises(UnauthenticatedError):
        await signing.sign_in_by_account(management, Account(ISSUER, "opaque", None, b"two"), Timeouts(), Visitor())
