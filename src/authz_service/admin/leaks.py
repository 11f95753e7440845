"""Leaked secrets: whoever found one may say so, learns nothing by it, and ends that very token and no other."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import FixedWindowRateLimiter
from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.admin.authority import Authority
from authz_service.admin.client_networks import network_of
from authz_service.admin.management import Actor, Management
from authz_service.admin.partners import PartnerKeys
from authz_service.errors import DatabaseUnavailableError, RateLimitedError
from authz_service.redaction import redact
from authz_service.store import audit, changes, leaks, tokens
from authz_service.store.changes import ChangeSet
from authz_service.store.database import Database
from authz_service.store.events import EventKind, append_event, event_of_token
from authz_service.store.leaks import Reported
from authz_service.tokens.model import TokenId

REPORT: Final = "leak:report"
MOST_SECRETS: Final = 1000
_REASON: Final = "its secret was reported as leaked"
_SECONDS: Final = 1.0
_LONGEST_PLACE: Final = 500
_log = logging.getLogger("authz_service.leaks")


@dataclass(frozen=True, slots=True)
class Found:
    """A secret somebody found, and where, in their words."""

    secret: str
    found_in: str | None = None


class Reports:
    """How many reports one worker takes a minute, from one address and from all. An IPv6 address is its /64."""

    def __init__(self, *, each: int, in_all: int) -> None:
        self._limiter = FixedWindowRateLimiter(MemoryStorage())
        self._each = RateLimitItemPerMinute(each)
        self._in_all = RateLimitItemPerMinute(in_all)

    async def require_room(self, address: str | None) -> None:
        """Counts one. Raises RateLimitedError, before anything is looked at."""
        # One's own bound first: who has used it up does not use up everybody's.
        if not await self._limiter.hit(self._each, "leaks", network_of(address)):
            raise RateLimitedError("too many reports from this address; send more secrets in one, a minute later")
        if not await self._limiter.hit(self._in_all, "leaks"):
            raise RateLimitedError("too many reports at once; try again in a minute")

    async def require_unspent(self, address: str | None) -> None:
        """Counts nothing. Raises RateLimitedError when `require_room` would."""
        if not await self._limiter.test(self._each, "leaks", network_of(address)):
            raise RateLimitedError("too many reports from this address; try again in a minute")


async def may_report(management: Management, actor: Actor) -> bool:
    """Whether the actor reports by `leak:report`: no bound counts then."""
    async with management.database.snapshot() as conn:
        return await (await Authority.open(conn, management, actor, hold=False)).may(REPORT)


async def report(
    management: Management, found: Sequence[Found], *, origin: str, reporter: TokenId | None = None
) -> None:
    """Keep what was found to be looked up: after this it is certain to be, whatever dies.

    The work is that of writing one row for each secret of our shape, whether it hits a token or not.
    """
    rows: dict[bytes, Reported] = {}
    for one in found:
        digest = management.peppers.digest(one.secret)
        if digest is not None:
            place = None if one.found_in is None else redact(one.found_in)[:_LONGEST_PLACE]
            rows.setdefault(digest, Reported(digest, origin, place, reporter))

    async def work(conn: AsyncConnection) -> None:
        await leaks.insert(conn, list(rows.values()))

    await management.database.run_in_transaction(work)


class LeakDesk:
    """Looks up what was reported, off every request; in each worker, and each report in one of them."""

    def __init__(
        self,
        database: Database,
        *,
        observe: Callable[[int], None] = lambda revoked: None,  # noqa: ARG005 - whoever counts
    ) -> None:
        """`observe` hears how many tokens each round revoked."""
        self._database = database
        self._observe = observe
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """There is a report: do not wait for the second to end."""
        self._woken.set()

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            self._woken.clear()
            try:
                while await self.round():
                    pass
            except DatabaseUnavailableError:
                _log.warning("reports of leaks wait: the database does not answer")
            try:
                async with asyncio.timeout(_SECONDS):
                    await self._woken.wait()
            except TimeoutError:
                continue

    async def round(self) -> bool:
        """Settle some reports; whether there were any."""
        some, revoked = await self._database.run_in_transaction(_settle)
        self._observe(len(revoked))
        return some


@dataclass(frozen=True, slots=True)
class LeakIntake:
    """What the routes of leaks need."""

    reports: Reports
    partners: PartnerKeys
    desk: LeakDesk


async def _settle(conn: AsyncConnection) -> tuple[bool, list[TokenId]]:
    taken = await leaks.take(conn)
    if not taken:
        return False, []
    hit = await leaks.find_hit(conn, [one.digest for one in taken])
    by_token = {hit[one.digest]: one for one in reversed(taken) if one.digest in hit}
    touched = ChangeSet()
    # In one order always: two rounds of two replicas must not wait for each other.
    revoked = [token for token in sorted(by_token) if await tokens.revoke(conn, touched, token, reason=_REASON)]
    stamp = await changes.append(conn, touched)
    for token_id in revoked:
        one = by_token[token_id]
        record = await tokens.get(conn, token_id)
        where = {"origin": one.origin, "found_in": one.found_in}
        await append_event(conn, event_of_token(EventKind.TOKEN_LEAKED, record.token, **where))
        details = {**where, "revoked": [token_id]}
        await audit.insert(conn, audit.AuditEntry("token.leak", token_id, one.reporter, details=details), stamp)
    return True, revoked
