"""The deliverer: events become deliveries, deliveries become signed requests, tried again until they are taken."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import random
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from time import monotonic
from typing import Any, Final

from authz_service import __version__
from authz_service.admin.outbound import Outbound, OutboundError
from authz_service.admin.views import format_moment
from authz_service.admin.webhooks import describe_event, signing_secret
from authz_service.errors import DatabaseUnavailableError, InvalidInputError
from authz_service.pdp.secrets import Peppers
from authz_service.store import events, webhooks
from authz_service.store.changes import load_clock
from authz_service.store.database import Database
from authz_service.store.webhooks import DeliveryState, Due

SIGNATURE: Final = "Authz-Signature"
_SECONDS: Final = 1.0
_IN_FLIGHT: Final = 20
_PAUSES: Final = (10, 60, 300, 1800, 7200, 21_600, 43_200)
"""Seconds before the second attempt, the third and so on: a day in all. After the last one a delivery has failed."""
_GONE: Final = 410
_KEEP: Final = timedelta(days=30)
_PRUNE_SECONDS: Final = 3600.0
_log = logging.getLogger("authz_service.webhooks")


def sign(secret: str, at: int, body: bytes) -> str:
    """The header: `t=<seconds since 1970>,v1=<hex HMAC-SHA-256 of "<t>.<body>" under the secret's text>`.

    A receiver recomputes it, compares in constant time, and refuses a time that is minutes old: so nobody replays it.
    """
    code = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={code}"


class Deliverer:
    """Runs in every worker; each delivery is made by one of them at a time, and each is made at least once."""

    def __init__(
        self,
        database: Database,
        peppers: Peppers,
        outbound: Outbound,
        *,
        timeout: float = 10.0,
        observe: Callable[[str], None] = lambda outcome: None,  # noqa: ARG005 - whoever counts
        pauses: tuple[int, ...] = _PAUSES,
    ) -> None:
        self._database = database
        self._peppers = peppers
        self._outbound = outbound
        self._timeout = timeout
        self._observe = observe
        self._pauses = pauses
        self._busy: Counter[str] = Counter()
        self._flying: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until it is cancelled; what is under way then is tried again by whoever runs next."""
        pruned = monotonic()
        try:
            while True:
                try:
                    more = await self.round()
                    if monotonic() - pruned > _PRUNE_SECONDS:
                        pruned = monotonic()
                        await self._prune()
                except DatabaseUnavailableError:
                    more = False
                if not more:
                    await asyncio.sleep(_SECONDS)
        finally:
            for task in self._flying:
                task.cancel()
            await asyncio.gather(*self._flying, return_exceptions=True)

    async def round(self) -> bool:
        """Hand out what waits, start what is due; whether there may be more right now."""
        async with self._database.transaction() as conn:
            waiting = await events.take_waiting(conn)
            await webhooks.hand_out(conn, [one.id for one in waiting])
        room = _IN_FLIGHT - len(self._flying)
        due: tuple[Due, ...] = ()
        if room > 0:
            full = [webhook for webhook, many in self._busy.items() if many >= webhooks.AT_ONCE]
            async with self._database.transaction() as conn:
                lease = timedelta(seconds=self._timeout * 2 + 30)
                due = await webhooks.claim_due(conn, limit=room, lease=lease, busy=full)
        for one in due:
            self._busy[one.webhook.id] += 1
            task = asyncio.create_task(self._deliver(one), name=f"delivery {one.id}")
            self._flying.add(task)
            task.add_done_callback(self._flying.discard)
        return len(waiting) > 0 or len(due) > 0

    async def idle(self) -> None:
        """Wait for what is under way."""
        await asyncio.gather(*self._flying, return_exceptions=True)

    async def _deliver(self, due: Due) -> None:
        try:
            await self._try(due)
        except DatabaseUnavailableError:
            _log.warning(
                "a delivery cannot be noted: the database does not answer"
            )  # its lease ends, and it comes again
        finally:
            self._busy[due.webhook.id] -= 1
            if self._busy[due.webhook.id] <= 0:
                del self._busy[due.webhook.id]

    async def _try(self, due: Due) -> None:
        webhook = due.webhook
        async with self._database.snapshot() as conn:
            at = await load_clock(conn)
            told = await describe_event(conn, due.event, webhook)
        secret = signing_secret(self._peppers, webhook)
        started = monotonic()
        status: int | None = None
        error: str | None = None
        if not webhook.active:
            error = "the webhook was switched off"
        elif secret is None:
            error = "the pepper that the signing secret was made from is gone; renew the secret"
        else:
            body = json.dumps(told, separators=(",", ":"), ensure_ascii=False).encode()
            headers = {
                "Content-Type": "application/json",
                "User-Agent": f"authz-service/{__version__}",
                "Authz-Event": due.event.event.kind.value,
                "Authz-Delivery": f"dlv_{due.id}",
                SIGNATURE: sign(secret, int(at.timestamp()), body),
            }
            try:
                answer = await self._outbound.send(
                    "POST", webhook.url, headers=headers, body=body, timeout=self._timeout
                )
                status = answer.status
            except OutboundError as failure:
                error = failure.message
            except InvalidInputError as failure:
                error = failure.faults[0].message if failure.faults else failure.message
        attempt = {
            "at": format_moment(at),
            "status": status,
            "error": error,
            "ms": round((monotonic() - started) * 1000),
        }
        await self._note(due, attempt, taken=status is not None and 200 <= status < 300, ended=not webhook.active)

    async def _note(self, due: Due, attempt: dict[str, Any], *, taken: bool, ended: bool) -> None:
        state, again = DeliveryState.DELIVERED, None
        if not taken:
            ended = ended or attempt["status"] == _GONE or due.attempts > len(self._pauses)
            state = DeliveryState.FAILED if ended else DeliveryState.WAITING
            if not ended:
                # Those that failed together do not come back together.
                again = timedelta(seconds=self._pauses[due.attempts - 1] * random.uniform(0.8, 1.2))  # noqa: S311
        self._observe("retried" if state is DeliveryState.WAITING else state.value)
        async with self._database.transaction() as conn:
            await webhooks.end_attempt(conn, due.id, attempt=attempt, state=state, again=again)

    async def _prune(self) -> None:
        async with self._database.transaction() as conn:
            await events.prune(conn, older_than=_KEEP)
