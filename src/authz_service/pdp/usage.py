"""What tokens are used for, counted in memory by each worker and folded into the database by batches.

Counts only: it decides nothing, and a worker that is killed loses what it counted since its last fold.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

from authz_service.cache.facts import Facts, NotAtHandError
from authz_service.cache.spots import KnownSpot
from authz_service.catalog.model import Catalog
from authz_service.directory.model import DEFAULT_SOURCE, INSTANCE_ID, NodeId, NodeKind, parse_target
from authz_service.engine.model import Decision
from authz_service.store import usage
from authz_service.store.database import Database
from authz_service.store.usage import ANYWHERE, NetworkUse, Use
from authz_service.tokens.model import TokenId

Key = tuple[TokenId, str, str, str]
_MOST_KEPT: Final = 200_000
"""Different (token, catalog, permission, place) between two folds; what comes beyond is dropped and counted."""
_BATCH: Final = 1_000


class UsageBook:
    """One worker's counts since the last fold."""

    def __init__(self, most: int = _MOST_KEPT) -> None:
        self._told: list[tuple[TokenId, Catalog, str, KnownSpot]] = []
        self.dropped = 0
        """Uses that were not counted, because there was no room or their place was not known."""
        self._most = most
        self._noted: dict[Key, int] = {}
        self._networks: dict[tuple[TokenId, str], int] = {}

    def open(self, token: TokenId, catalog: Catalog, place: NodeId) -> Callable[[KnownSpot], None]:
        """Whom to tell of uses of a token at a place; nothing is lost when the spot is forgotten meanwhile."""
        told, place_text = self._told, str(place)
        return lambda spot: told.append((token, catalog, place_text, spot))

    def note(self, token: TokenId, catalog: str, permission: str, place: str, calls: int = 1) -> None:
        """`place` is a node's id in digits, the text of a place without a directory, or `anywhere`."""
        key = (token, catalog, permission, place)
        if key not in self._noted and len(self._noted) >= self._most:
            self.dropped += calls
            return
        self._noted[key] = self._noted.get(key, 0) + calls

    def note_decision(self, facts: Facts, token: TokenId, catalog: Catalog, decision: Decision) -> None:
        """What an allow rested on; nothing for one that took no permission of the token's."""
        for permission, text in decision.used:
            place = _place_of(facts, catalog, text)
            if place is None:
                self.dropped += 1
            else:
                self.note(token, catalog.name, permission, place)

    def note_address(self, token: TokenId, address: str | None) -> None:
        """Where a call came from, as a network of 256 addresses, or a site's of IPv6."""
        network = None if address is None else _network_of(address)
        if network is None:
            return
        key = (token, network)
        if key in self._networks or len(self._networks) < self._most:
            self._networks[key] = self._networks.get(key, 0) + 1

    def take(self) -> tuple[list[Use], list[NetworkUse]]:
        """Everything since the last take, which is then no longer here."""
        for token, catalog, place, spot in self._told:
            for number, calls in spot.take_uses().items():
                self.note(token, catalog.name, catalog.permissions[number].name, place, calls)
        self._told.clear()
        noted, self._noted = self._noted, {}
        networks, self._networks = self._networks, {}
        return (
            [Use(*key, calls) for key, calls in noted.items()],
            [NetworkUse(*key, calls) for key, calls in networks.items()],
        )

    def put_back(self, uses: Sequence[Use], networks: Sequence[NetworkUse]) -> None:
        """What could not be stored comes with the next fold, as far as there is room."""
        for use in uses:
            self.note(use.token, use.catalog, use.permission, use.place, use.calls)
        for one in networks:
            key = (one.token, one.network)
            if key in self._networks or len(self._networks) < self._most:
                self._networks[key] = self._networks.get(key, 0) + one.calls


async def fold(book: UsageBook, database: Database) -> int:
    """Store what the book counted, batch by batch; answers how many rows were added to.

    Raises DatabaseUnavailableError: what was not stored is in the book again then, and when the task is cancelled.
    """
    uses, networks = book.take()
    uses.sort(key=lambda use: (use.token, use.catalog, use.permission, use.place))
    networks.sort(key=lambda one: (one.token, one.network))
    done = 0
    try:
        while done < max(len(uses), len(networks)):
            batch = slice(done, done + _BATCH)
            async with database.transaction() as conn:
                await usage.fold(conn, uses[batch], networks[batch])
            done += _BATCH
            await asyncio.sleep(0)
    finally:
        book.put_back(uses[done:], networks[done:])
    return len(uses) + len(networks)


def _place_of(facts: Facts, catalog: Catalog, text: str) -> str | None:
    """The node's id: a place may have another name tomorrow. None for what is not at hand any more."""
    if catalog.upstream or text == ANYWHERE:
        return text
    written = parse_target(text)
    if written is None or written.path is None:
        return str(INSTANCE_ID) if written is not None and written.kind is NodeKind.INSTANCE else None
    try:
        node = facts.find(catalog.source or DEFAULT_SOURCE, written.kind, written.path)
    except NotAtHandError:
        return None
    return None if node is None else str(node.id)


@lru_cache(maxsize=4096)
def _network_of(address: str) -> str | None:
    try:
        found = ip_address(address)
    except ValueError:
        return None
    if isinstance(found, IPv6Address):
        if found.ipv4_mapped is None:
            return str(ip_network((found, 48), strict=False))
        found = found.ipv4_mapped
    return str(ip_network((found, 24), strict=False))
