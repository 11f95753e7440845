"""One replica as the service composes it, and the writes that tests make behind its back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from authz_service.cache.facts import Bounds, Facts
from authz_service.cache.follower import Follower, Freshness
from authz_service.cache.journal import Journal
from authz_service.cache.polling import connector
from authz_service.catalog.model import Catalog
from authz_service.pdp.check import DecisionPoint
from authz_service.pdp.loader import Gate, Loader
from authz_service.pdp.secrets import Peppers
from authz_service.store.database import Database

PEPPERS = Peppers({"k1": b"p" * 32}, "k1")


@dataclass
class Replica:
    database: Database
    facts: Facts
    journal: Journal
    follower: Follower
    loader: Loader
    point: DecisionPoint


@asynccontextmanager
async def replica(
    url: str,
    catalogs: Iterable[Catalog] = (),
    *,
    freshness: Freshness | None = None,
    bell: bool = True,
    bounds: Bounds | None = None,
    peppers: Peppers = PEPPERS,
) -> AsyncIterator[Replica]:
    database = Database(url, bell=bell)
    facts = Facts(catalogs, bounds)
    journal = Journal(facts)
    follower = Follower(journal, connector(database, bell=bell), freshness or Freshness())
    loader = Loader(database, follower, journal, facts, Gate(running=8, waiting=1000))
    await follower.start()
    try:
        yield Replica(database, facts, journal, follower, loader, DecisionPoint(facts, follower, loader, peppers))
    finally:
        await follower.stop()
        await database.close()
