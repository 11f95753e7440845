"""Secret-scanning partners: their public keys, pinned or fetched with care, and whether a report is signed by one."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from authz_service.admin.joining import Joined
from authz_service.admin.outbound import Outbound, OutboundError
from authz_service.errors import NotFoundError, StartError, UnauthenticatedError

KEY_HEADER: Final = "Github-Public-Key-Identifier"
SIGNATURE_HEADER: Final = "Github-Public-Key-Signature"
_MAX_BYTES: Final = 64 * 1024
_MOST_KEYS: Final = 50
_FRESH_SECONDS: Final = 3600.0
_PAUSE_SECONDS: Final = 60.0
_NO_KEYS: Final = "this service takes no partner's reports: it has no public keys of theirs; use `/v1/leaks/report`"
_UNSIGNED: Final = "the report is not signed by a partner's key; nothing was looked at"


class PartnerKeys:
    """Keys by their id. Those of a URL are fetched again when an unknown one is named, once a minute at most.

    Keys older than an hour are fetched again before they are used, so that one taken back stops working.
    """

    def __init__(
        self,
        outbound: Outbound,
        *,
        file: Path | None = None,
        url: str | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Raises StartError for a file that holds no keys."""
        self._outbound = outbound
        self._url = url
        self._clock = clock
        self._keys: Mapping[str, EllipticCurvePublicKey] = {}
        self._fetched_at = self._tried_at = float("-inf")
        self._fetches: Joined[None] = Joined()
        if file is not None:
            try:
                self._keys = parse_keys(file.read_bytes())
            except OSError as error:
                raise StartError(f"AUTHZ_LEAK_KEYS_FILE: `{file}` cannot be read") from error
            if not self._keys:
                raise StartError(f"AUTHZ_LEAK_KEYS_FILE: `{file}` holds no P-256 public keys in the published form")

    async def require_signed(self, key_id: str | None, signature: str | None, body: bytes) -> None:
        """Raises UnauthenticatedError unless the very bytes of the body are signed by a key we know.

        One message for whatever is wrong. Raises NotFoundError where no partner's keys are set.
        """
        if self._url is None and not self._keys:
            raise NotFoundError(_NO_KEYS)
        key = None if key_id is None or len(key_id) > 256 else await self._find(key_id)
        if key is None or signature is None or not _verify(key, signature, body):
            raise UnauthenticatedError(_UNSIGNED)

    async def _find(self, key_id: str) -> EllipticCurvePublicKey | None:
        now = self._clock()
        url, old = self._url, now - self._fetched_at > _FRESH_SECONDS
        # Whoever comes while they are fetched waits for them too: its key may be among the new ones.
        if (
            url is not None
            and (old or key_id not in self._keys)
            and (now - self._tried_at > _PAUSE_SECONDS or self._fetches.runs(url))
        ):
            await self._fetches.do(url, lambda: self._fetch(url))
        stale = self._url is not None and self._clock() - self._fetched_at > 24 * _FRESH_SECONDS
        return None if stale else self._keys.get(key_id)

    async def _fetch(self, url: str) -> None:
        self._tried_at = self._clock()
        try:
            answer = await self._outbound.send("GET", url, headers={"Accept": "application/json"}, max_bytes=_MAX_BYTES)
        except OutboundError:
            return
        found = parse_keys(answer.body) if answer.status == 200 else {}
        if found:
            self._keys, self._fetched_at = found, self._clock()


def parse_keys(text: bytes) -> dict[str, EllipticCurvePublicKey]:
    """Keys of `{"public_keys": [{"key_identifier", "key": PEM}]}`; what is no P-256 key is left out."""
    try:
        listed = json.loads(text)["public_keys"][:_MOST_KEYS]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    found: dict[str, EllipticCurvePublicKey] = {}
    for one in listed:
        try:
            key = load_pem_public_key(one["key"].encode())
            key_id = one["key_identifier"]
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
        if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1) and isinstance(key_id, str):
            found[key_id] = key
    return found


def _verify(key: EllipticCurvePublicKey, signature: str, body: bytes) -> bool:
    try:
        key.verify(base64.b64decode(signature, validate=True), body, ECDSA(SHA256()))
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True
