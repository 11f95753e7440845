"""Common checks answered from memory: two dictionary accesses and a bit test, from what slower answers left behind."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from authz_service.cache.bounded import Bounded
from authz_service.cache.clock import elapsed
from authz_service.cache.facts import NotAtHandError, TokenEntry
from authz_service.cache.spots import YES, KnownSpot, PlaceKey, Places
from authz_service.catalog.model import Catalog
from authz_service.engine.case import Case, open_case
from authz_service.engine.decide import token_failure
from authz_service.engine.model import Decision, PermissionRequest, Reason, Request, allow
from authz_service.engine.spot import has_spots, spot_at
from authz_service.pdp.calls import Calls
from authz_service.pdp.check import ANY_CATALOG, DecisionPoint, Use, parse_catalog
from authz_service.pdp.question import HttpCall
from authz_service.store.changes import Stamp
from authz_service.tokens.model import Token, TokenId
from authz_service.tokens.policy import EVALUATE, MANAGEMENT

Encode: TypeAlias = Callable[[Decision, Token], bytes]

_GRANTED: Final = allow(Reason.GRANTED)
_FOREVER: Final = float("inf")
_EVALUATE: Final[tuple[str, str]] = tuple(EVALUATE.split(":"))  # type: ignore[assignment]
_NOWHERE: Final[Places] = {}
_MOST_DENIALS: Final = 64


@dataclass(slots=True)
class Known:
    """A secret whose token passed rule A1, and the epoch seconds of database time between which it does.

    `granted` is the encoded plain allow. `asks` are the catalogs it may ask about as a caller; None is all of them.
    `may_ask_in` is the generation of the facts in which it was seen to hold `decision:evaluate` everywhere.
    """

    token_id: TokenId
    entry: TokenEntry
    valid_from: float
    valid_until: float
    granted: bytes
    asks: frozenset[str] | None
    may_ask_in: int = -1
    places: dict[str, Places] = field(default_factory=dict)
    """By the catalog as it was asked for; empty ones where what was known is known no more."""
    calls: dict[str, Calls] = field(default_factory=dict)
    """By the catalog as it was asked for."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A decision with whose it is, for whoever words the answer: `use` is for the API behind an allow."""

    decision: Decision
    token: Token
    use: Use


class QuickAnswers:
    """Answers bare checks of common tokens, or None: then the decision point has to be asked.

    INVARIANT: an answer is, byte for byte, what the decision point's would be at the same revision. Nothing here is an
    authority of its own: entries and spots live in the facts, and go when the follower drops what they rest on.
    """

    def __init__(self, point: DecisionPoint, encode: Encode, *, bound: int = 200_000) -> None:
        self._point = point
        self._facts = point.facts
        self._follower = point.follower
        # Kept at hand: they are filled and emptied, and never others.
        self._tokens = point.facts.tokens
        self._clock = point.follower.clock
        self._records = point.records
        self.request_id = b""
        """Of the request that is being answered; the records name it."""
        self._encode = encode
        self._known: Bounded[str, Known] = Bounded(bound)
        self._callers: Bounded[bytes | str, Known] = Bounded(10_000)
        self._calls: dict[str, Calls] = {}
        self._granted = self._outside = self._missing = 0

    @property
    def stamp(self) -> Stamp | None:
        """The revision of answers to what was just admitted."""
        return self._follower.applied

    def take_counts(self) -> dict[Reason, int]:
        """How many answers of each reason were given since the last take."""
        counts = {
            Reason.GRANTED: self._granted,
            Reason.OUTSIDE_REACH: self._outside,
            Reason.PERMISSION_MISSING: self._missing,
        }
        self._granted = self._outside = self._missing = 0
        return counts

    def knows_caller(self, authorization: bytes) -> bool:
        """Whether this header was learned: only then is a body worth waiting for."""
        return authorization in self._callers

    def find_caller(self, asker: str) -> Token | None:
        """The token of a gateway whose own secret was learned; `admit` says whether it still stands."""
        caller = self._callers.get(asker)
        return None if caller is None else caller.entry.token

    def admit(self, asker: bytes | str, secret: str, catalog: str) -> Known | None:
        """The token of a secret, if a known caller may ask about it and both stand unchanged and pass rule A1 now.

        The caller is known by its `Authorization` as bytes, or by its secret alone, as gateways show it.

        Call it when nothing will be awaited before the answer: freshness and the revision are those of this moment.
        """
        caller = self._callers.get(asker)
        known = self._known.get(secret)
        if caller is None or known is None:
            return None
        follower = self._follower
        now = elapsed()
        tokens = self._tokens
        if (
            now > follower.deadline
            or tokens.get(known.token_id) is not known.entry
            or tokens.get(caller.token_id) is not caller.entry
        ):
            return None
        now += self._clock.offset
        if not (known.valid_from <= now < known.valid_until and caller.valid_from <= now < caller.valid_until):
            return None
        if caller.asks is not None and catalog.partition("@")[0] not in caller.asks:
            return None
        if caller.may_ask_in != self._facts.generation and not self._may_ask(caller):
            return None
        return known

    def _may_ask(self, caller: Known) -> bool:
        """Whether the caller is known to hold `decision:evaluate` everywhere; False says nothing."""
        found = caller.places.get(MANAGEMENT, _NOWHERE).get("instance")
        number = None if found is None else found.numbers.get(_EVALUATE)
        if found is None or number is None or found.allowed[number] != YES:
            return False
        caller.may_ask_in = self._facts.generation
        return True

    def answer(self, known: Known, catalog: str, resource: str, action: str, target: str) -> bytes | None:
        """The encoded decision, without a revision: that is the follower's `applied`, as long as nobody awaits."""
        found = known.places.get(catalog, _NOWHERE).get(target)
        if found is None:
            return None
        if found.action == action and found.resource == resource:
            found.calls += 1
        else:
            number = found.numbers.get((resource, action))
            if number is None:
                return None
            if found.allowed[number] != YES:
                denial = self._denied(known, found, number, f"{resource}:{action}")
                if denial is not None and self._records.on:
                    self._note(known, catalog, f"{resource}:{action}", target, _reason_of(found, number))
                return denial
            found.count(number, resource, action)
        self._granted += 1
        if self._records.on:
            self._note(known, catalog, f"{resource}:{action}", target, Reason.GRANTED)
        return known.granted

    def answer_call(self, known: Known, catalog: str, method: str, path: str) -> bytes | None:
        """The same for a request of an API, where its whole requirement is one permission at one place."""
        calls = known.calls.get(catalog)
        call = None if calls is None else calls.find(method, path)
        if call is None:
            return None
        found = known.places.get(catalog, _NOWHERE).get(call.place)
        needed = None if found is None else call.needs.get(found.spot.boundary)
        if found is None or needed is None:
            return None
        if found.allowed[needed.number] == YES:
            self._granted += 1
            found.count(needed.number)
            if self._records.on:
                self._note_call(known, catalog, method, path, Reason.GRANTED)
            return known.granted
        denial = None if call.reads_public else self._denied(known, found, needed.number, needed.permission)
        if denial is not None and self._records.on:
            self._note_call(known, catalog, method, path, _reason_of(found, needed.number))
        return denial

    def judge(
        self, known: Known, catalog: str, about: PermissionRequest | HttpCall, address: str | None
    ) -> Judged | None:
        """`answer` or `answer_call`, not yet in words, of a client at this address."""
        places = known.places.get(catalog, _NOWHERE)
        if isinstance(about, HttpCall):
            calls = known.calls.get(catalog)
            call = None if calls is None or about.target is not None else calls.find(about.method, about.path)
            found = None if call is None else places.get(call.place)
            needed = None if call is None or found is None else call.needs.get(found.spot.boundary)
            if call is None or found is None or needed is None:
                return None
            number, permission = needed.number, needed.permission
            told, deniable = call.told, not call.reads_public
        else:
            permission, told, deniable = about.permission, (about.permission,), True
            resource, _, action = permission.partition(":")
            spot = None if about.target is None else places.get(about.target)
            numbered = None if spot is None else spot.numbers.get((resource, action))
            if spot is None or numbered is None:
                return None
            found, number = spot, numbered
        judged = self._judge(known, found, number, permission if deniable else None, told)
        if judged is None:
            return None
        if judged.decision.allowed and self._point.usage is not None:
            self._point.usage.note_address(judged.token.id, address)
        if self._records.on:
            if isinstance(about, HttpCall):
                self._note_call(known, catalog, about.method, about.path, judged.decision.reason)
            else:
                self._note(known, catalog, permission, about.target, judged.decision.reason)
        return judged

    def _judge(
        self, known: Known, found: KnownSpot, number: int, permission: str | None, told: tuple[str, ...]
    ) -> Judged | None:
        """`permission` None is for what can only be allowed here."""
        spot, token = found.spot, known.entry.token
        if found.allowed[number] == YES:
            owner = self._owner_of(token)
            if owner is None:
                return None
            self._granted += 1
            found.count(number)
            return Judged(_GRANTED, token, Use(owner, told))
        if permission is None or not spot.deniable >> number & 1:
            return None
        if spot.elsewhere >> number & 1:
            self._outside += 1
        else:
            self._missing += 1
        return Judged(spot.denial(number, permission, token.id), token, Use("", ()))

    def _owner_of(self, token: Token) -> str | None:
        if isinstance(token.owner, str):
            return token.owner
        try:
            user = self._facts.user(token.owner)
        except NotAtHandError:
            return None
        return "" if user is None else user.username

    def _note_call(self, known: Known, catalog: str, method: str, path: str, reason: Reason) -> None:
        asked = f"{method} {path.partition('?')[0]}"
        self._note(known, catalog, asked, None, reason, permission=False)

    def _note(
        self, known: Known, catalog: str, asked: str, target: str | None, reason: Reason, *, permission: bool = True
    ) -> None:
        stamp = self._follower.applied
        if stamp is not None:
            self._records.note(
                known.entry.token,
                catalog,
                asked,
                target,
                allowed=reason is Reason.GRANTED,
                reason=reason,
                stamp=stamp,
                request_id=self.request_id.decode(),
                permission=permission,
            )

    def _denied(self, known: Known, found: KnownSpot, number: int, permission: str) -> bytes | None:
        denial = found.denials.get(number) or self._deny(known, found, number, permission)
        if denial is not None:
            if _reason_of(found, number) is Reason.OUTSIDE_REACH:
                self._outside += 1
            else:
                self._missing += 1
        return denial

    def _deny(self, known: Known, found: KnownSpot, number: int, permission: str) -> bytes | None:
        if not found.spot.deniable >> number & 1:
            return None
        token = known.entry.token
        denial = self._encode(found.spot.denial(number, permission, token.id), token)
        if len(found.denials) < _MOST_DENIALS:
            found.denials[number] = denial
        return denial

    def answer_all(self, known: Known, catalog: str, items: Iterable[tuple[str, str, str]]) -> list[bytes] | None:
        """`answer` for (resource, action, target) of each item; None when one of them is not in memory.

        Where decisions are recorded a batch takes the long way, which knows when all of it is answered.
        """
        if self._records.on:
            return None
        places = known.places.get(catalog, _NOWHERE)
        granted = known.granted
        answers = []
        used: list[KnownSpot] = []
        others: list[tuple[KnownSpot, int, str, str]] = []
        elsewhere = 0
        for resource, action, target in items:
            found = places.get(target)
            if found is None:
                return None
            if found.action == action and found.resource == resource:
                answers.append(granted)
                used.append(found)
                continue
            number = found.numbers.get((resource, action))
            if number is None:
                return None
            if found.allowed[number] == YES:
                answers.append(granted)
                others.append((found, number, resource, action))
                continue
            denial = found.denials.get(number) or self._deny(known, found, number, f"{resource}:{action}")
            if denial is None:
                return None
            answers.append(denial)
            elsewhere += found.spot.elsewhere >> number & 1
        # Only now: a batch that goes the long way is counted there.
        for found in used:
            found.calls += 1
        for found, number, resource, action in others:
            found.count(number, resource, action)
        granted_now = len(used) + len(others)
        self._granted += granted_now
        self._outside += elsewhere
        self._missing += len(answers) - granted_now - elsewhere
        return answers

    def learn_caller(self, asker: bytes | str, secret: str) -> None:
        """Remember who asked, by the header in which the secret came, or for a gateway by the secret itself."""
        self.learn(secret, MANAGEMENT, ["instance"])
        caller = self._known.get(secret)
        if caller is not None:
            self._callers[asker] = caller

    def learn(self, secret: str, catalog: str, asked: Iterable[str | HttpCall | None]) -> None:
        """Remember what decisions that were just made rest on; quietly nothing where that cannot be remembered.

        `asked` has the targets of bare questions, and requests of the API.
        """
        try:
            self._learn(secret, catalog, asked)
        except NotAtHandError:
            return

    def _learn(self, secret: str, catalog: str, asked: Iterable[str | HttpCall | None]) -> None:
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
        request = Request(name, PermissionRequest(""), self._follower.now(), version)
        if found is None or not has_spots(token, found) or token_failure(token, facts, request) is not None:
            return
        case = open_case(token, found, facts, request)
        calls = self._calls_of(found) if any(isinstance(one, HttpCall) for one in asked) else None
        for one in dict.fromkeys(asked):
            self._learn_place(case, entry.serial, catalog, one, calls)
        known = self._known.get(secret)
        if known is None or known.entry is not entry:
            known = self._known[secret] = Known(
                token.id,
                entry,
                -_FOREVER if token.not_before is None else token.not_before.timestamp(),
                _FOREVER if token.expires_at is None else token.expires_at.timestamp(),
                self._encode(allow(Reason.GRANTED), token),
                None if ANY_CATALOG in token.evaluates else frozenset(token.evaluates),
            )
        places = facts.spots.of(entry.serial, catalog)
        if places is not None:
            known.places[catalog] = places
        if calls is not None:
            known.calls[catalog] = calls

    def _learn_place(
        self, case: Case, serial: int, catalog: str, asked: str | HttpCall | None, calls: Calls | None
    ) -> None:
        key: str | PlaceKey
        if isinstance(asked, HttpCall):
            call = None if calls is None else calls.find(asked.method, asked.path)
            if call is None:
                return
            key = call.place
        elif asked is None:
            return
        else:
            key = asked
        spots = self._facts.spots
        places = spots.of(serial, catalog)
        if places is not None and key in places:
            return
        place = case.places.parse(key) if isinstance(key, str) else case.places.parameter(*key)
        if place is not None:
            usage = self._point.usage
            tell = None if usage is None else usage.open(case.token.id, case.catalog, place.id)
            spots.put(serial, catalog, key, KnownSpot(spot_at(case, place), tell))

    def _calls_of(self, catalog: Catalog) -> Calls:
        known = self._calls.get(catalog.label)
        if known is None or known.catalog is not catalog:
            known = self._calls[catalog.label] = Calls(catalog, self._point.routing.router(catalog))
        return known


def _reason_of(found: KnownSpot, number: int) -> Reason:
    """Of a denial (A3)."""
    return Reason.OUTSIDE_REACH if found.spot.elsewhere >> number & 1 else Reason.PERMISSION_MISSING
