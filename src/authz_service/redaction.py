"""What looks like a token, and texts without it: of ours, and of other systems whose tokens are taken here."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

_LIKE_A_TOKEN: Final = re.compile(r"[A-Za-z0-9]{1,16}_[a-z0-9]{1,8}_[A-Za-z0-9]{20,}")
_FOREIGN: Final[dict[str, re.Pattern[str]]] = {}
_BEARER: Final = re.compile(r"(?i)(bearer\s+)[^\s\"'\\,]+")
_PASSWORD: Final = re.compile(r"(://[^:/@\s\"]*:)[^@\s\"]+@")


def know_foreign(prefixes: Iterable[str]) -> None:
    """From here on, also what begins like secrets of other systems that are tokens here: `glpat-`."""
    for prefix in prefixes:
        _FOREIGN[prefix] = re.compile(re.escape(prefix) + r"[A-Za-z0-9._~+/=-]{8,}")


def holds_foreign(text: str) -> bool:
    """Whether something in the text begins like a secret of one of these systems."""
    return any(foreign.search(text) for foreign in _FOREIGN.values())


def redact(text: str) -> str:
    """The text without what looks like a token, or the whole or part of one, and without passwords of URLs."""
    text = _BEARER.sub(r"\1…", redact_tokens(text))
    return _PASSWORD.sub(r"\1…@", text)


def redact_tokens(text: str) -> str:
    """The text without what looks like a token: for answers that repeat what was sent, and end in a client's log."""
    text = _LIKE_A_TOKEN.sub("…", text)
    for foreign in _FOREIGN.values():
        text = foreign.sub("…", text)
    return text
