"""Secrets: made at random, told apart by shape and checksum before any look-up, kept at rest as digests alone."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import zlib
from dataclasses import dataclass
from typing import Final

from authz_service.tokens.model import TokenId

DEFAULT_PREFIX: Final = "azt"

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM_BYTES: Final = 32
_RANDOM_LENGTH: Final = 43  # 62 ** 43 > 256 ** 32, and 62 ** 42 is less
_CHECKSUM_LENGTH: Final = 6  # 62 ** 6 > 2 ** 32
_TOKEN_ID_LENGTH: Final = 22  # 62 ** 22 > 256 ** 16

_PREFIX: Final = re.compile(r"[A-Za-z0-9]{1,16}")
_KID: Final = re.compile(r"[a-z0-9]{1,8}")
_SECRET: Final = re.compile(r"([A-Za-z0-9]{1,16})_([a-z0-9]{1,8})_([A-Za-z0-9]{43})([A-Za-z0-9]{6})")
_FOREIGN: Final = re.compile(r"[A-Za-z0-9._~+/=-]{16,255}")  # what a bearer token may be (RFC 6750)
_TOKEN_ID: Final = re.compile(r"tok_[A-Za-z0-9]{22}")


class TokenSecret:
    """A secret's text. Printing, formatting or logging it shows its prefix alone; `reveal()` is the way to the text."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The whole secret: for the one answer that shows it, and for its digest."""
        return self._text

    def __repr__(self) -> str:
        # The kid stays: it tells an operator which pepper is meant, and is no part of the random.
        shown = self._text.rpartition("_")[0]
        return f"{shown}_…" if _SECRET.fullmatch(self._text) else "…"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TokenSecret):
            return NotImplemented
        return hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash((TokenSecret, self._text))

    def __reduce__(self) -> str:
        raise TypeError("a secret is not to be pickled or copied")


@dataclass(frozen=True, slots=True)
class ParsedSecret:
    """A text with the shape and the checksum of a secret. That says nothing about whether it was ever issued."""

    prefix: str
    kid: str
    secret: TokenSecret


def new_secret(prefix: str, kid: str) -> TokenSecret:
    """A new `<prefix>_<kid>_<43 random><6 checksum>` of 256 random bits, all `[A-Za-z0-9_]`.

    `prefix` is 1 to 16 of `[A-Za-z0-9]`, `kid` 1 to 8 of `[a-z0-9]`: ValueError otherwise, for both come from settings
    that the start has checked.
    """
    if not is_prefix(prefix):
        raise ValueError("a secret's prefix is 1 to 16 ASCII letters and digits")
    if not is_kid(kid):
        raise ValueError("a kid is 1 to 8 lower-case ASCII letters and digits")
    random = _base62(int.from_bytes(secrets.token_bytes(_RANDOM_BYTES)), _RANDOM_LENGTH)
    body = f"{prefix}_{kid}_{random}"
    return TokenSecret(body + _checksum(body))


def parse_secret(text: str, *, prefix: str | None = None) -> ParsedSecret | None:
    """Read a secret; None for anything else, whatever it is: this never raises on a text.

    With `prefix`, only secrets of that prefix. A secret is never trimmed, decoded or folded: one character off is none.
    """
    match = _SECRET.fullmatch(text)
    if match is None:
        return None
    checksum_at = len(text) - _CHECKSUM_LENGTH
    if _checksum(text[:checksum_at]) != match[4]:
        return None
    if prefix is not None and match[1] != prefix:
        return None
    return ParsedSecret(prefix=match[1], kid=match[2], secret=TokenSecret(text))


def digest(secret: TokenSecret, pepper: bytes) -> bytes:
    """HMAC-SHA-256 over the whole secret, 32 bytes: what the database holds and a look-up asks for."""
    return hmac.digest(pepper, secret.reveal().encode(), hashlib.sha256)


def is_foreign_secret(text: str, prefix: str) -> bool:
    """Whether a text could be a secret that another system made, by its beginning: it has no checksum of ours."""
    return text.startswith(prefix) and _FOREIGN.fullmatch(text) is not None


def sha256_hex(text: str) -> str:
    """What an import knows of a secret: 64 lower-case hex digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def imported_digest(sha256: str, pepper: bytes) -> bytes:
    """Of a secret that another system made, by its `sha256_hex`: never that of a secret of ours, which is no hex."""
    return hmac.digest(pepper, sha256.encode(), hashlib.sha256)


def new_token_id() -> TokenId:
    """`tok_` and 22 base62 characters of 128 random bits: public, and no part of the secret."""
    return TokenId("tok_" + _base62(int.from_bytes(secrets.token_bytes(16)), _TOKEN_ID_LENGTH))


def is_token_id(text: str) -> bool:
    """Whether the text has the shape of a token id; it may never have been given."""
    return _TOKEN_ID.fullmatch(text) is not None


def is_prefix(text: str) -> bool:
    """Whether a secret may start so."""
    return _PREFIX.fullmatch(text) is not None


def is_kid(text: str) -> bool:
    """Whether a pepper may be called so."""
    return _KID.fullmatch(text) is not None


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode("ascii")), _CHECKSUM_LENGTH)


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
