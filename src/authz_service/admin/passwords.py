"""Passwords: hashed by argon2id beside the event loop, a few at once, and tried no more often than people mistype."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

from limits import RateLimitItem, RateLimitItemPerHour, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter
from passlib.hash import argon2

from authz_service.admin.client_networks import network_of
from authz_service.errors import Fault, InvalidInputError, OverloadedError, RateLimitedError

SHORTEST: Final = 12
LONGEST: Final = 512
"""Characters of a password."""
_RUNNING: Final = 2
_WAITING: Final = 32
"""Hashes worked out at once, each with 64 MiB for a tenth of a second, and those that may wait for it."""


@dataclass
class Attempts:
    """Counts failed sign-ins, in this process's memory: with several workers, each has its own count.

    An IPv6 address is its /64.
    """

    by_address: RateLimitItem = field(default_factory=lambda: RateLimitItemPerMinute(30))
    by_name: RateLimitItem = field(default_factory=lambda: RateLimitItemPerHour(100))
    by_both: RateLimitItem = field(default_factory=lambda: RateLimitItemPerMinute(5))
    _limiter: FixedWindowRateLimiter = field(default_factory=lambda: FixedWindowRateLimiter(MemoryStorage()))

    def require_left(self, name: str, address: str | None) -> None:
        """Raises RateLimitedError when this address failed too often of late, or anybody did with this name."""
        for item, key in self._keys(name, address):
            if not self._limiter.test(item, *key):
                raise RateLimitedError("too many sign-ins failed; wait a minute, then try again")

    def note_failure(self, name: str, address: str | None) -> None:
        for item, key in self._keys(name, address):
            self._limiter.hit(item, *key)

    def _keys(self, name: str, address: str | None) -> list[tuple[RateLimitItem, tuple[str, ...]]]:
        who, where = name.lower()[:255], network_of(address)
        found: list[tuple[RateLimitItem, tuple[str, ...]]] = [(self.by_address, ("address", where))]
        if who:
            found += [(self.by_name, ("name", who)), (self.by_both, ("both", where, who))]
        return found


class Passwords:
    """Makes and tries hashes."""

    def __init__(self, *, memory_kib: int = 64 * 1024, rounds: int = 3) -> None:
        self._hasher = argon2.using(type="ID", memory_cost=memory_kib, time_cost=rounds, parallelism=1)
        # Of no password, at these very costs: whoever names an unknown user waits as long as for a known one.
        self._of_nobody = str(self._hasher.hash("nobody's"))
        self._slots = asyncio.Semaphore(_RUNNING)
        self._waiting = 0

    async def hash(self, text: str) -> str:
        """The hash to store. Raises InvalidInputError for a password that is too short, too long or does not print."""
        _check(text)
        async with self._slots:
            return str(await asyncio.to_thread(self._hasher.hash, text))

    async def verify(self, text: str, hashed: str | None) -> bool:
        """Whether the hash is this password's; None takes as long and is False. Raises OverloadedError."""
        if self._waiting >= _WAITING:
            raise OverloadedError("too many people sign in just now; try again shortly")
        self._waiting += 1
        try:
            async with self._slots:
                same = await asyncio.to_thread(argon2.verify, text[: LONGEST + 1], hashed or self._of_nobody)
        finally:
            self._waiting -= 1
        return bool(same) and hashed is not None


def _check(text: str) -> None:
    message = None
    if len(text) < SHORTEST:
        message = f"the password is too short; take {SHORTEST} characters or more, as a few words"
    elif len(text) > LONGEST:
        message = f"the password is longer than {LONGEST} characters; shorten it"
    elif not text.isprintable():
        message = "the password holds characters that do not print; leave them out"
    if message is not None:
        raise InvalidInputError(message, faults=[Fault("/password", "invalid_password", message)])
