"""The common check answered at once: two dictionary accesses and a bit test, from what slower answers left behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from authz_service.cache.bounded import Bounded
from authz_service.cache.clock import elapsed
from authz_service.cache.facts import Facts, NotAtHandError, TokenEntry
from authz_service.cache.follower import Follower
from authz_service.engine.case import open_case
from authz_service.engine.decide import token_failure
from authz_service.engine.model import Decision, Missing, PermissionRequest, Reason, Request, allow, deny
from authz_service.engine.spot import Spot, has_spots, spot_at
from authz_service.pdp.check import DecisionPoint, parse_catalog
from authz_service.pdp.question import Answer
from authz_service.store.changes import Stamp
from authz_service.tokens.model import Token

Encode: TypeAlias = Callable[[Answer], bytes]

_FOREVER: Final = float("inf")


@dataclass(slots=True)
class _Known:
    """A secret whose token passed rule A1, with the epoch seconds of database time between which it does.

    `granted` is the encoded plain allow at `stamp`; only the token's id and the revision are in it.
    """

    entry: TokenEntry
    valid_from: float
    valid_until: float
    stamp: Stamp | None = None
    granted: bytes = b""


class QuickAnswers:
    """Answers bare checks of common tokens, or None: then the decision point has to be asked.

    INVARIANT: an answer is, byte for byte, what the decision point's would be at the same revision. Nothing here is
    an authority of its own: entries and spots live in the facts and go when the follower drops what they rest on.
    """

    def __init__(self, point: DecisionPoint, encode: Encode, *, bound: int = 200_000) -> None:
        self._facts: Facts = point.facts
        self._follower: Follower = point.follower
        self._point = point
        self._encode = encode
        self._known: Bounded[str, _Known] = Bounded(bound)

    def answer(self, secret: str, catalog: str, resource: str, action: str, target: str) -> bytes | None:
        """The encoded answer, from memory alone."""
        found = self._find(secret, catalog, target)
        if found is None:
            return None
        known, spot = found
        number = spot.numbers.get((resource, action))
        if number is None:
            return None
        if spot.allowed >> number & 1:
            stamp = self._follower.applied
            if known.stamp is not stamp:
                known.stamp = stamp
                known.granted = self._encoded(allow(Reason.GRANTED), known.entry.token)
            return known.granted
        if not spot.deniable >> number & 1:
            return None
        return self._encoded(_denial(spot, known.entry.token, number, resource, action), known.entry.token)

    def holds(self, secret: str, catalog: str, resource: str, action: str, target: str) -> bool:
        """Whether the token is known to be allowed this; False says nothing."""
        found = self._find(secret, catalog, target)
        if found is None:
            return False
        number = found[1].numbers.get((resource, action))
        return number is not None and bool(found[1].allowed >> number & 1)

    def _find(self, secret: str, catalog: str, target: str) -> tuple[_Known, Spot] | None:
        """The token and the spot, where both are known, still stand, and rule A1 holds now."""
        known = self._known.get(secret)
        if known is None:
            return None
        follower = self._follower
        now = elapsed()
        entry = known.entry
        if now > follower.deadline or self._facts.tokens.get(entry.token.id) is not entry:
            return None
        if not known.valid_from <= now + follower.clock.offset < known.valid_until:
            return None
        spot = self._facts.spots.get((entry.serial, catalog, target))
        return None if spot is None else (known, spot)

    def _encoded(self, decision: Decision, token: Token) -> bytes:
        return self._encode(Answer(decision, token, self._follower.require_fresh()))

    def learn(self, secret: str, catalog: str, target: str) -> None:
        """Remember what a decision that was just made rests on. Quietly does nothing where that cannot be remembered."""
        try:
            self._learn(secret, catalog, target)
        except NotAtHandError:
            return

    def _learn(self, secret: str, catalog: str, target: str) -> None:
        facts = self._facts
        digest = self._point.peppers.digest(secret)
        token = None if digest is None else facts.find_token(digest)
        entry = None if token is None else facts.tokens.get(token.id)
        if token is None or entry is None:
            return
        name, version = parse_catalog(catalog)
        own_version = token.catalogs.get(name)
        if own_version is None or version not in (None, own_version):
            return
        found = facts.catalog(name, own_version)
        request = Request(name, PermissionRequest("", target), self._follower.now(), version)
        if found is None or not has_spots(token, found) or token_failure(token, facts, request) is not None:
            return
        case = open_case(token, found, facts, request)
        place = case.places.parse(target)
        if place is None:
            return
        facts.spots[entry.serial, catalog, target] = spot_at(case, place)
        known = self._known.get(secret)
        if known is None or known.entry is not entry:
            self._known[secret] = _Known(
                entry,
                -_FOREVER if token.not_before is None else token.not_before.timestamp(),
                _FOREVER if token.expires_at is None else token.expires_at.timestamp(),
            )


def _denial(spot: Spot, token: Token, number: int, resource: str, action: str) -> Decision:
    reason = Reason.OUTSIDE_REACH if spot.elsewhere >> number & 1 else Reason.PERMISSION_MISSING
    missing = Missing(f"{resource}:{action}", spot.boundary, spot.text)
    return deny(reason, (missing,), hide=spot.hide, target=spot.text, failed_token=token.id)
