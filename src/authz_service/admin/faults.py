"""Faults of one request, collected, so that one answer names them all."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from authz_service.errors import Fault, InvalidInputError

MAX_NAMED: Final = 200
"""More are counted, not named: a body of ten thousand wrong names must not answer with as many sentences."""


@dataclass(slots=True)
class Faults:
    """Each fault at its JSON pointer; the order is that of the look-ups, so the same request gets the same answer."""

    named: list[Fault] = field(default_factory=list)
    count: int = 0

    def add(self, where: str, code: str, message: str) -> None:
        self.count += 1
        if len(self.named) < MAX_NAMED:
            self.named.append(Fault(where, code, message))

    def __bool__(self) -> bool:
        return bool(self.count)

    def summary(self, what: str) -> str:
        """`the token has 3 faults`."""
        many = "a fault" if self.count == 1 else f"{self.count} faults"
        cut = f", the first {MAX_NAMED} are named" if self.count > MAX_NAMED else ""
        return f"{what} has {many}{cut}"

    def raise_any(self, what: str, *, then: str = "") -> None:
        """Raises InvalidInputError when there is a fault. `then` is what was not looked at because of it."""
        if self.count:
            raise InvalidInputError(self.summary(what) + then, faults=self.named)


def shown(text: str) -> str:
    """A stranger's text, short enough and harmless between backticks."""
    clean = "".join(letter if letter.isprintable() and letter != "`" else "?" for letter in text[:81])
    return clean if len(clean) <= 80 else f"{clean[:80]}…"
