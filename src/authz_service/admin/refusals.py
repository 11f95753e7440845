"""How many refused exchanges go on record: enough for whoever keeps a rule, and never so many that they fill it."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from limits import RateLimitItemPerDay, RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import FixedWindowRateLimiter

from authz_service.store.trust import TrustRule

MOST_RULES: Final = 10
"""Of one refused exchange: an issuer and audience that more rules name tell no more by all of them."""
_MOST_ISSUERS: Final = 1024


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why one rule did not give. `why` is our own words and never the token's, `claim` the one that does not fit.

    `proven`: a key of the issuer proves the token.
    """

    rule: TrustRule
    why: str
    proven: bool
    claim: str | None = None


class Refusals:
    """A bound for each issuer, in each worker.

    Tokens that nobody signed have one of their own: whoever makes them up does not use up what real jobs are told by.
    """

    def __init__(self, *, each_minute: int = 5, each_day: int = 200) -> None:
        self._limiter = FixedWindowRateLimiter(MemoryStorage())
        self._bounds = (RateLimitItemPerMinute(each_minute), RateLimitItemPerDay(each_day))
        self._left_out: OrderedDict[tuple[str, bool], int] = OrderedDict()

    async def take(self, issuer: str, *, proven: bool) -> int | None:
        """None when this one goes unrecorded; else how many did since the last that was recorded. Counts one.

        Only issuers of trust rules may come here.
        """
        key = (issuer, proven)
        room = True
        for bound in self._bounds:
            room = room and await self._limiter.hit(bound, "exchange", issuer, str(proven))
        if room:
            return self._left_out.pop(key, 0)
        self._left_out[key] = self._left_out.get(key, 0) + 1
        self._left_out.move_to_end(key)
        while len(self._left_out) > _MOST_ISSUERS:
            self._left_out.popitem(last=False)
        return None
