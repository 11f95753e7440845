"""Peppers by `kid`, and the way from a secret to its digest."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence

from authz_service.tokens.secret import digest, imported_digest, is_foreign_secret, parse_secret, sha256_hex


class Peppers:
    """The keyed digests of one service. The newest `kid` seals new secrets; all of them find old ones."""

    def __init__(
        self,
        peppers: Mapping[str, bytes],
        current: str,
        prefix: str = "azt",
        foreign: Mapping[str, str] | None = None,
    ) -> None:
        """`foreign` is the `kid` by what secrets of another system begin with, of which none begins another."""
        if current not in peppers or not set((foreign or {}).values()) <= set(peppers):
            raise ValueError("a pepper that is named is not among the peppers")
        self._peppers = dict(peppers)
        self.current = current
        self.prefix = prefix
        self.foreign = dict(foreign or {})

    def adopt(self, other: Peppers) -> None:
        """Be like another from here on, for everybody who holds this one."""
        self._peppers = other._peppers
        self.current = other.current
        self.prefix = other.prefix
        self.foreign = other.foreign

    @property
    def kids(self) -> Sequence[str]:
        return tuple(self._peppers)

    def digest(self, secret: str) -> bytes | None:
        """The digest to look up; None when the text is no secret of ours: wrong shape, checksum, prefix or `kid`.

        One of another system has no checksum: any text that begins right gets a digest, and costs a look-up.
        """
        parsed = parse_secret(secret, prefix=self.prefix)
        if parsed is None:
            prefix = next((one for one in self.foreign if is_foreign_secret(secret, one)), None)
            return None if prefix is None else self.digest_imported(prefix, sha256_hex(secret))
        pepper = self._peppers.get(parsed.kid)
        return None if pepper is None else digest(parsed.secret, pepper)

    def digest_imported(self, prefix: str, sha256: str) -> bytes:
        """The digest under which a secret of another system is stored, by 64 lower-case hex digits of its SHA-256.

        Raises KeyError for a prefix that is not registered.
        """
        return imported_digest(sha256, self._peppers[self.foreign[prefix]])

    def derive(self, purpose: str, kid: str | None = None) -> bytes | None:
        """A key of 32 bytes for another purpose, of the current pepper or that of `kid`; None when that is gone.

        `purpose` holds a `/`, which no secret does: so no such key is ever a secret's digest.
        """
        pepper = self._peppers.get(self.current if kid is None else kid)
        return None if pepper is None else hmac.digest(pepper, f"derived/{purpose}".encode(), hashlib.sha256)
