"""A dictionary that never outgrows its bound."""

from __future__ import annotations

from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Bounded(dict[K, V]):
    """Drops the entry that was put in first when a new key would exceed `bound`.

    Reading costs what a plain dictionary costs, because it records nothing: an entry that is read often is dropped and
    loaded again once for each `bound` new keys.
    """

    __slots__ = ("bound", "dropped")

    def __init__(self, bound: int) -> None:
        super().__init__()
        if bound < 1:
            raise ValueError("a bound is at least 1")
        self.bound = bound
        self.dropped = 0

    def __setitem__(self, key: K, value: V) -> None:
        if len(self) >= self.bound and key not in self:
            del self[next(iter(self))]
            self.dropped += 1
        super().__setitem__(key, value)
