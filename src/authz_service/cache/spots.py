"""What is remembered of tokens at places for the short way: all permissions of one place together, and their uses."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final, TypeAlias

from authz_service.catalog.model import ParameterKind
from authz_service.engine.spot import Spot

PlaceKey: TypeAlias = tuple[ParameterKind, str]
"""A place as a request of the API names it: by the kind and value of a parameter."""

YES: Final = ord("1")


class KnownSpot:
    """A spot, and by permission number the encoded denials that were given there, and how often it was used.

    `numbers` are the spot's; `allowed[number]` is `YES` for a permission in its mask. One permission that was used,
    and so is allowed, is `resource` and `action`, both None where none was: whoever is asked for it again adds one to
    `calls` and need not look further. For all others there is `count`. `tell` hears when there is something to take.
    """

    __slots__ = (
        "_number", "_others", "_tell", "action", "allowed", "calls", "denials", "numbers", "resource", "spot",
    )  # fmt: skip

    def __init__(self, spot: Spot, tell: Callable[[KnownSpot], None] | None = None) -> None:
        self.spot = spot
        self.numbers = spot.numbers
        self.allowed = _table(spot.allowed, len(spot.numbers))
        self.denials: dict[int, bytes] = {}
        self.resource: str | None = None
        self.action: str | None = None
        self.calls = 0
        self._number = -1
        self._others: dict[int, int] = {}
        self._tell = tell

    def count(self, number: int, resource: str | None = None, action: str | None = None) -> None:
        """One use of a permission that is allowed here, with its names as they were asked for, if they were."""
        if not self.calls:
            self._number = number
            if self._tell is not None:
                self._tell(self)
        if number != self._number:
            self._others[number] = self._others.get(number, 0) + 1
            return
        self.calls += 1
        if resource is not None:
            self.resource, self.action = resource, action

    def take_uses(self) -> dict[int, int]:
        """Uses by permission number since the last take."""
        taken = {self._number: self.calls, **self._others} if self.calls else {}
        self.resource = self.action = None
        self._number, self.calls, self._others = -1, 0, {}
        return taken


Places: TypeAlias = dict[str | PlaceKey, KnownSpot]
"""What is remembered of one token in one catalog, by the target as asked."""


class Spots:
    """By entry serial and catalog as asked.

    INVARIANT: what is dropped is emptied, so whoever still holds some `Places` finds nothing there any more.
    """

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._count = 0
        self._places: dict[tuple[int, str], Places] = {}

    def __len__(self) -> int:
        return self._count

    def of(self, serial: int, catalog: str) -> Places | None:
        """Those of a token in a catalog, for reading; None where there is none. They are filled by `put` alone."""
        return self._places.get((serial, catalog))

    def put(self, serial: int, catalog: str, target: str | PlaceKey, spot: KnownSpot) -> None:
        """Where there is no room any more, the tokens that came first lose all of theirs."""
        if target not in self._places.get((serial, catalog), ()):
            while self._count >= self._bound:
                self._forget(next(iter(self._places)))
            self._count += 1
        self._places.setdefault((serial, catalog), {})[target] = spot

    def _forget(self, key: tuple[int, str]) -> None:
        places = self._places.pop(key)
        self._count -= len(places)
        places.clear()

    def clear(self) -> None:
        for places in self._places.values():
            places.clear()
        self._places.clear()
        self._count = 0


@lru_cache(maxsize=4096)
def _table(mask: int, size: int) -> bytes:
    """A byte for each permission: to read one takes no new number, as shifting a mask of hundreds of bits does."""
    return f"{mask:0{size}b}"[::-1].encode()
