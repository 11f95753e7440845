"""OpenID Connect tokens of CI jobs: read, verified by their issuer's keys, compared with what a rule expects."""

from __future__ import annotations

import base64
import binascii
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet, OKPKey, RSAKey

from authz_service.admin.addresses import parse_receiver
from authz_service.admin.faults import Faults
from authz_service.admin.joining import Joined
from authz_service.admin.outbound import Outbound, OutboundError
from authz_service.errors import InvalidInputError

ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""With a public key, all of them: a key set never becomes somebody's shared secret."""
LONGEST: Final = 16 * 1024
LONGEST_CLAIM: Final = 2000
"""Characters of a claim that is compared; a longer one fits nothing."""
_MOST_BYTES: Final = 64 * 1024
_MOST_KEYS: Final = 64
_LEAST_RSA_BITS: Final = 2048
_KEEP_SECONDS: Final = 300.0
_AHEAD_SECONDS: Final = 240.0
_AGAIN_SECONDS: Final = 30.0
_MOST_ISSUERS: Final = 256
_LEEWAY: Final = 60
_LONGEST_LIFE: Final = 24 * 3600
_DISCOVERY: Final = "/.well-known/openid-configuration"


class JobTokenError(Exception):
    """The job's token is not taken. Says nothing to whoever showed it; `args` is our own words, for the audit alone."""


@dataclass(frozen=True, slots=True)
class Claims:
    """What a verified token says."""

    issuer: str
    audiences: tuple[str, ...]
    jti: str
    expires_at: datetime
    every: Mapping[str, Any]

    def fit(self, expected: Mapping[str, Any]) -> bool:
        """Whether each expected claim is there, as a text that is equal or like its pattern."""
        return next(self.misfits(expected), None) is None

    def misfits(self, expected: Mapping[str, Any]) -> Iterator[str]:
        """The names of the expected claims that are not there, or say something else."""
        return (name for name, wanted in expected.items() if not _fits(self.every.get(name), wanted))

    def is_too_long(self, name: str) -> bool:
        """Whether this claim is a text that is not compared, for its length."""
        value = self.every.get(name)
        return isinstance(value, str) and len(value) > LONGEST_CLAIM


def _fits(value: object, wanted: object) -> bool:
    if not isinstance(value, str) or len(value) > LONGEST_CLAIM:
        return False
    if isinstance(wanted, str):
        return value == wanted
    if not isinstance(wanted, Mapping) or not isinstance(wanted.get("like"), str):
        return False
    return is_like(value, wanted["like"])


def is_like(text: str, pattern: str) -> bool:
    """Whether the text is the pattern's, where each `*` is any characters but `/`, or none.

    Never tries a part at a second place: the leftmost is as good as any. A part with a `/` has one place alone, for no
    `*` may pass the `/` before it; of one without, an earlier place leaves the next `*` more to choose from.
    """
    first, *others = pattern.split("*")
    if not others:
        return text == pattern
    *inner, last = others
    at, end = len(first), len(text) - len(last)
    if end < at or not text.startswith(first) or not text.endswith(last):
        return False
    for part in inner:
        found = text.find(part, at, end)
        if found < 0 or "/" in text[at:found]:
            return False
        at = found + len(part)
    return "/" not in text[at:end]


def peek(text: str) -> tuple[str, tuple[str, ...]]:
    """Issuer and audiences as an unverified token claims them: to find keys by, and for nothing else."""
    if len(text) > LONGEST or text.count(".") != 2 or not text.isascii():
        raise JobTokenError("no signed token")
    document = _payload(text.split(".")[1].encode())
    return _names(document)


def _payload(encoded: bytes) -> Mapping[str, Any]:
    try:
        document = msgspec.json.decode(base64.urlsafe_b64decode(encoded + b"=" * (-len(encoded) % 4)))
    except (binascii.Error, ValueError) as error:
        raise JobTokenError("unreadable") from error
    if not isinstance(document, dict):
        raise JobTokenError("unreadable")
    return document


def _names(document: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    issuer, audience = document.get("iss"), document.get("aud")
    audiences = [audience] if isinstance(audience, str) else audience
    if not isinstance(issuer, str) or not isinstance(audiences, list) or not 0 < len(audiences) <= 16:
        raise JobTokenError("no issuer or audience")
    if not all(isinstance(one, str) and "\0" not in one for one in [issuer, *audiences]):
        raise JobTokenError("no issuer or audience")
    return issuer, tuple(audiences)


def verify(text: str, keys: Sequence[Mapping[str, Any]], now: datetime) -> Claims:
    """What the token says, once one of the keys proves it and its times are right. Raises JobTokenError."""
    _, document = prove(text, keys)
    issuer, audiences = _names(document)
    seconds = now.timestamp()
    ends, issued = _time_of(document, "exp"), _time_of(document, "iat")
    if not seconds < ends <= seconds + _LONGEST_LIFE:
        raise JobTokenError("over, or lives too long")
    if issued > seconds + _LEEWAY:
        raise JobTokenError("not issued yet")
    if "nbf" in document and _time_of(document, "nbf") > seconds + _LEEWAY:
        raise JobTokenError("not yet valid")
    jti = document.get("jti")
    if not isinstance(jti, str) or not 0 < len(jti) <= 1000:
        raise JobTokenError("no id, so it could be shown again")
    return Claims(issuer, audiences, jti, datetime.fromtimestamp(ends, UTC), document)


def prove(text: str, keys: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Header and claims that one of the keys signed, and nothing else looked at yet. Raises JobTokenError."""
    try:
        found = jws.deserialize_compact(text, _key_set(keys), algorithms=list(ALGORITHMS))
    except (JoseError, ValueError, TypeError, KeyError) as error:
        raise JobTokenError("no key proves it") from error
    try:
        document = msgspec.json.decode(found.payload)
    except msgspec.MsgspecError as error:
        raise JobTokenError("unreadable") from error
    if not isinstance(document, dict):
        raise JobTokenError("unreadable")
    return dict(found.headers()), document


def _time_of(document: Mapping[str, Any], name: str) -> float:
    value = document.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1 << 36:
        raise JobTokenError(f"`{name}` is no time")
    return value


def _key_set(keys: Sequence[Mapping[str, Any]]) -> KeySet:
    """The keys that may sign, of those; others are passed over."""
    kinds: dict[str, type[RSAKey | ECKey | OKPKey]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
    found: list[Any] = []
    for one in keys[:_MOST_KEYS]:
        kind = kinds.get(str(one.get("kty")))
        if kind is None or one.get("use", "sig") != "sig" or (kind is RSAKey and _bits(one) < _LEAST_RSA_BITS):
            continue
        try:
            key = kind.import_key({name: value for name, value in one.items() if name not in _PRIVATE})
        except (JoseError, ValueError, TypeError, KeyError):
            continue
        found.append(key)
    if not found:
        raise JobTokenError("the issuer has no key that could prove it")
    return KeySet(found)


def _bits(key: Mapping[str, Any]) -> int:
    """Of an RSA key's modulus; before it is read, because readers do no more than warn of short ones."""
    modulus = key.get("n")
    if not isinstance(modulus, str) or len(modulus) > 4096:
        return 0
    try:
        return int.from_bytes(base64.urlsafe_b64decode(modulus + "=" * (-len(modulus) % 4))).bit_length()
    except ValueError:
        return 0


_PUBLIC: Final = ("kty", "kid", "use", "alg", "crv", "n", "e", "x", "y")
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


def check_keys(keys: Mapping[str, Any], where: str, faults: Faults) -> None:
    """A fault unless this is a key set with at least one public key that may sign."""
    given = keys.get("keys")
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        faults.add(where, "invalid_keys", 'write a key set, as `{"keys": [...]}` (RFC 7517)')
    elif any(not _PRIVATE.isdisjoint(one) for one in given):
        faults.add(where, "private_key", "this holds a private key; give public ones alone, and renew that one")
    elif len(given) > _MOST_KEYS:
        faults.add(where, "too_many", f"a key set has {_MOST_KEYS} keys at most here")
    else:
        try:
            _key_set(given)
        except JobTokenError:
            faults.add(where, "invalid_keys", "no key of these can prove a signature; RSA needs 2048 bits or more")


def keep_public(keys: Mapping[str, Any]) -> dict[str, Any]:
    """What of a checked key set is stored: the members that a signature is proven by, and no others."""
    return {
        "keys": [
            {name: one[name] for name in _PUBLIC if isinstance(one.get(name), str) and one[name].isprintable()}
            for one in keys["keys"]
        ]
    }


@dataclass(slots=True)
class _Known:
    """Of an issuer: when it was last asked, and when it was asked for the keys that it gave last."""

    tried_at: float = -math.inf
    loaded_at: float = -math.inf
    keys: Sequence[Mapping[str, Any]] = ()


class IssuerKeys:
    """Key sets of issuers, by their discovery documents, each asked for at most twice a minute and kept five minutes.

    After four they are asked for again, so that an issuer may fail for a minute; callers at the same moment wait for
    one answer. Only issuers of trust rules get here. The key set has to be at the issuer's own host and port.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._loads: Joined[Sequence[Mapping[str, Any]]] = Joined()

    async def find(self, outbound: Outbound, issuer: str, kid: str | None) -> Sequence[Mapping[str, Any]]:
        """Raises JobTokenError when the issuer does not answer as one, and nothing that it said before holds still."""
        known = self._known.setdefault(issuer, _Known())
        self._known.move_to_end(issuer)
        while len(self._known) > _MOST_ISSUERS:
            self._known.popitem(last=False)
        kept = self._kept(known)
        named = bool(kept) and (kid is None or any(one.get("kid") == kid for one in kept))
        now = self._clock()
        if named and now - known.loaded_at < _AHEAD_SECONDS:
            return kept
        if now - known.tried_at < _AGAIN_SECONDS and not self._loads.runs(issuer):
            # One that fails, or is asked for keys that it has not, is left alone for a while.
            if not kept:
                raise JobTokenError("the issuer did not answer a moment ago")
            return kept
        try:
            return await self._loads.do(issuer, lambda: self._ask(outbound, issuer, known))
        except JobTokenError:
            kept = self._kept(known)
            if not kept:
                raise
            return kept

    def _kept(self, known: _Known) -> Sequence[Mapping[str, Any]]:
        """The keys that are believed still."""
        return known.keys if self._clock() - known.loaded_at < _KEEP_SECONDS else ()

    async def _ask(self, outbound: Outbound, issuer: str, known: _Known) -> Sequence[Mapping[str, Any]]:
        known.tried_at = asked_at = self._clock()
        keys = await self._load(outbound, issuer)
        known.keys, known.loaded_at = keys, asked_at
        return keys

    async def _load(self, outbound: Outbound, issuer: str) -> Sequence[Mapping[str, Any]]:
        discovery = await _get(outbound, issuer.rstrip("/") + _DISCOVERY)
        place = discovery.get("jwks_uri")
        if discovery.get("issuer") != issuer or not isinstance(place, str):
            raise JobTokenError("the issuer describes another one")
        try:
            here, there = parse_receiver(issuer), parse_receiver(place)
        except InvalidInputError as error:
            raise JobTokenError("the issuer's keys are at no good place") from error
        if (here.host, here.port) != (there.host, there.port):
            raise JobTokenError("the issuer's keys are at another host")
        keys = (await _get(outbound, place)).get("keys")
        if not isinstance(keys, list):
            raise JobTokenError("the issuer has no keys")
        return [one for one in keys if isinstance(one, dict)]


async def _get(outbound: Outbound, url: str) -> Mapping[str, Any]:
    try:
        answer = await outbound.send("GET", url, max_bytes=_MOST_BYTES, timeout=5.0)
        document = msgspec.json.decode(answer.body) if answer.status == 200 else None
    except (OutboundError, InvalidInputError, msgspec.MsgspecError) as error:
        raise JobTokenError("the issuer does not answer") from error
    if not isinstance(document, dict):
        raise JobTokenError("the issuer does not answer as one")
    return document


def key_id(text: str) -> str | None:
    """Which key an unverified token says it was signed with."""
    kid = _payload(text.partition(".")[0].encode()).get("kid")
    return kid if isinstance(kid, str) else None
