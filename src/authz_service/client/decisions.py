"""Where an API's decisions come from: the service, a short memory before it, or a fake in the API's own tests."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from typing import Final, Protocol

from authz_service.client.model import Answer, Ask, Missing

LONGEST_SECONDS: Final = 60.0


class DecisionSource(Protocol):
    """What the middleware and the FastAPI dependency ask. `AsyncClient` is one. Raises ClientError, never guesses."""

    async def check(
        self, token: str, ask: Ask, *, catalog: str | None = None, client_address: str | None = None
    ) -> Answer: ...

    async def check_http(
        self, token: str, method: str, path: str, *, catalog: str | None = None, client_address: str | None = None
    ) -> Answer: ...


class CachedDecisions:
    """Gives an answer again for `seconds`, which are added to the service's own staleness: a revoke takes that longer.

    Only answers of one revision are kept: the first answer of another forgets the rest. Errors are never kept, and
    nothing is answered beyond its seconds, so an outage denies. Secrets are kept as digests.
    """

    def __init__(
        self,
        source: DecisionSource,
        *,
        seconds: float = 2.0,
        most: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not 0 < seconds <= LONGEST_SECONDS:
            raise ValueError(f"a decision is kept for more than 0 and at most {LONGEST_SECONDS:g} seconds")
        if most < 1:
            raise ValueError("keep at least one decision")
        self._source, self._seconds, self._most, self._clock = source, seconds, most, clock
        self._kept: OrderedDict[tuple[object, ...], tuple[float, Answer]] = OrderedDict()
        self._revision: str | None = None

    async def check(
        self, token: str, ask: Ask, *, catalog: str | None = None, client_address: str | None = None
    ) -> Answer:
        given = tuple(sorted((name, type(value), value) for name, value in (ask.attributes or {}).items()))
        about = ("check", ask.resource, ask.action, ask.target, repr(given), catalog, client_address)
        known = self._find(token, about)
        if known is not None:
            return known
        asked_at = self._clock()
        answer = await self._source.check(token, ask, catalog=catalog, client_address=client_address)
        return self._keep(token, about, answer, asked_at)

    async def check_http(
        self, token: str, method: str, path: str, *, catalog: str | None = None, client_address: str | None = None
    ) -> Answer:
        about = ("http", method, path, catalog, client_address)
        known = self._find(token, about)
        if known is not None:
            return known
        asked_at = self._clock()
        answer = await self._source.check_http(token, method, path, catalog=catalog, client_address=client_address)
        return self._keep(token, about, answer, asked_at)

    def clear(self) -> None:
        """Forget all answers: the next question of each kind is asked again."""
        self._kept.clear()

    def _find(self, token: str, about: tuple[object, ...]) -> Answer | None:
        key = (_digest(token), *about)
        kept = self._kept.get(key)
        if kept is None:
            return None
        if self._clock() >= kept[0]:
            del self._kept[key]
            return None
        return kept[1]

    def _keep(self, token: str, about: tuple[object, ...], answer: Answer, asked_at: float) -> Answer:
        if answer.revision is None:
            return answer
        if answer.revision != self._revision:
            self._kept.clear()
            self._revision = answer.revision
        # From when it was asked: the service decided no earlier.
        self._kept[(_digest(token), *about)] = (asked_at + self._seconds, answer)
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)
        return answer


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


class FakeDecisions:
    """For tests of an API: allows what each token was given, denies all else with the service's own reasons.

    `given` is token to permission to targets, `{"till": {"order:read": ["project:corner-shop"]}}`; `"*"` is
    everywhere. For `check_http` a permission is `GET /orders`. It knows no catalog, no groups and no implications.
    `asked` is what was asked.
    """

    def __init__(self, given: Mapping[str, Mapping[str, Collection[str]]]) -> None:
        self.given = given
        self.asked: list[tuple[str, str, str | None]] = []

    async def check(
        self,
        token: str,
        ask: Ask,
        *,
        catalog: str | None = None,  # noqa: ARG002 - the fake knows no catalogs
        client_address: str | None = None,  # noqa: ARG002 - nor networks
    ) -> Answer:
        return self._answer(token, f"{ask.resource}:{ask.action}", ask.target)

    async def check_http(
        self,
        token: str,
        method: str,
        path: str,
        *,
        catalog: str | None = None,  # noqa: ARG002 - the fake knows no catalogs
        client_address: str | None = None,  # noqa: ARG002 - nor networks
    ) -> Answer:
        return self._answer(token, f"{method} {path.partition('?')[0]}", None)

    def _answer(self, token: str, permission: str, target: str | None) -> Answer:
        self.asked.append((token, permission, target))
        held = self.given.get(token)
        if held is None:
            return Answer("deny", "unknown_token", "there is no such token")
        targets = held.get(permission)
        if targets is not None and ("*" in targets or target in targets or target is None):
            return Answer("allow", "granted", token_id="tok_fake", revision="r1.fake.0")
        reason = "permission_missing" if targets is None else "outside_reach"
        missing = Missing(permission, "project", target or "instance")
        message = f"the token lacks `{permission}` on `{missing.target}`; add it to its scopes"
        return Answer("deny", reason, message, (missing,), token_id="tok_fake", revision="r1.fake.0")
