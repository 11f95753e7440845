"""The catalog versions one can choose from: those shipped with this version, and those installed in the database."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.catalog.loader import load_catalog
from authz_service.catalog.model import Catalog
from authz_service.store import catalogs
from authz_service.store.catalogs import CatalogVersion


class Shelf:
    """Finds catalogs by name and version. A shipped version stands before an installed one of the same number."""

    def __init__(self, shipped: Iterable[Catalog]) -> None:
        self.shipped = tuple(sorted(shipped, key=lambda catalog: (catalog.name, catalog.version)))
        self._shipped: Mapping[tuple[str, int], Catalog] = {
            (catalog.name, catalog.version): catalog for catalog in self.shipped
        }
        self._parsed: dict[tuple[str, int, bytes], Catalog] = {}

    async def find(self, conn: AsyncConnection, name: str, version: int | None = None) -> Catalog | None:
        """This version, or the newest of all when `version` is None; None when there is no such catalog."""
        shipped = [number for known, number in self._shipped if known == name and version in (None, number)]
        if version is not None and shipped:
            return self._shipped[name, version]
        _, installed = await catalogs.load_all(conn)
        of_name = [one for one in installed if one.name == name and version in (None, one.version)]
        newest = max(of_name, key=lambda one: one.version, default=None)
        if newest is not None and newest.version > max(shipped, default=0):
            return await self._parse(conn, newest)
        return self._shipped[name, max(shipped)] if shipped else None

    async def versions(self, conn: AsyncConnection) -> dict[str, tuple[int, ...]]:
        """Every name with its versions, newest first."""
        _, installed = await catalogs.load_all(conn)
        found: dict[str, set[int]] = {}
        for name, version in (*self._shipped, *((one.name, one.version) for one in installed)):
            found.setdefault(name, set()).add(version)
        return {name: tuple(sorted(versions, reverse=True)) for name, versions in sorted(found.items())}

    async def _parse(self, conn: AsyncConnection, installed: CatalogVersion) -> Catalog | None:
        # An installed version never changes, so that its digest names one catalog for ever.
        key = (installed.name, installed.version, installed.digest)
        if key not in self._parsed:
            _, text = await catalogs.load_text(conn, installed.name, installed.version)
            if text is None:
                return None
            label = f"{installed.name}@{installed.version}"
            # In a thread: seconds of a large catalog would hold up every decision of this process.
            self._parsed[key] = await asyncio.to_thread(load_catalog, text, file=label)
        return self._parsed[key]
