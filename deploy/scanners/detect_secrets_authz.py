"""A plugin of detect-secrets: tokens of authz-service, told from texts like them by their checksum."""

from __future__ import annotations

import re
import zlib
from collections.abc import Generator

from detect_secrets.plugins.base import RegexBasedDetector

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class AuthzServiceTokenDetector(RegexBasedDetector):
    """Six digits of base 62 at the end are the CRC-32 of all before them."""

    secret_type = "authz-service token"
    denylist = (re.compile(r"\b(azt_[a-z0-9]{1,8}_[A-Za-z0-9]{49})\b"),)

    def analyze_string(self, string: str) -> Generator[str, None, None]:
        for found in super().analyze_string(string):
            if _checksum(found[:-6]) == found[-6:]:
                yield found


def _checksum(body: str) -> str:
    number = zlib.crc32(body.encode("ascii"))
    digits = []
    for _ in range(6):
        number, digit = divmod(number, 62)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
