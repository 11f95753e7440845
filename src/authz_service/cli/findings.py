"""What `authz doctor` says: a finding, how bad it is, and how to mend it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """`wrong` breaks the service or its promise, now or soon; `advice` does not yet."""

    FINE = "fine"
    ADVICE = "advice"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check saw. `mend` says what to do, and is empty where nothing is to be done."""

    check: str
    level: Level
    message: str
    mend: str = ""


def fine(check: str, message: str) -> Finding:
    return Finding(check, Level.FINE, message)


def advice(check: str, message: str, mend: str) -> Finding:
    return Finding(check, Level.ADVICE, message, mend)


def wrong(check: str, message: str, mend: str) -> Finding:
    return Finding(check, Level.WRONG, message, mend)
