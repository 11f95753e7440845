"""Peppers by `kid`, and the way from a secret to its digest."""

from __future__ import annotations

from collections.abc import Mapping

from authz_service.tokens.secret import digest, parse_secret


class Peppers:
    """The keyed digests of one service. The newest `kid` seals new secrets; all of them find old ones."""

    def __init__(self, peppers: Mapping[str, bytes], current: str, prefix: str = "azt") -> None:
        if current not in peppers:
            raise ValueError("the current pepper is not among the peppers")
        self._peppers = dict(peppers)
        self.current = current
        self.prefix = prefix

    def digest(self, secret: str) -> bytes | None:
        """The digest to look up; None when the text is no secret of ours: wrong shape, checksum, prefix or `kid`."""
        parsed = parse_secret(secret, prefix=self.prefix)
        if parsed is None:
            return None
        pepper = self._peppers.get(parsed.kid)
        return None if pepper is None else digest(parsed.secret, pepper)
