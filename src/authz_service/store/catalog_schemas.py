"""The GraphQL schemas of APIs, each beside the catalog version it was installed for. The newest one counts.

They lie among the catalogs' texts, under names that no catalog can have: the change log of the catalog's own name
tells of them too, so whatever drops a catalog from a cache drops its schema.
"""

from __future__ import annotations

import hashlib
from typing import Final

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.errors import ConflictError
from authz_service.store import catalogs
from authz_service.store.catalogs import CatalogVersion
from authz_service.store.changes import ChangeKind, ChangeSet, Stamp
from authz_service.store.tables import catalog_version

MARK: Final = catalogs.SIDE_MARK
"""What no catalog's name has."""


def name_of(name: str, version: int) -> str:
    """Under which the schemas of a catalog version lie."""
    return f"{name}@{version}{MARK}graphql"


async def load(conn: AsyncConnection, name: str, version: int) -> tuple[Stamp, CatalogVersion | None]:
    """The schema that counts, with its text; its own `version` counts the schemas installed before it, and it."""
    return await catalogs.load(conn, name_of(name, version))


async def install(
    conn: AsyncConnection, changes: ChangeSet, *, name: str, version: int, text: str, installed_by: str
) -> int | None:
    """The number it got, or None when this very text counts already. Raises ConflictError when another was faster."""
    _, known = await load(conn, name, version)
    digest = hashlib.sha256(text.encode()).digest()
    if known is not None and known.digest == digest:
        return None
    number = 1 if known is None else known.version + 1
    values = {
        "name": name_of(name, version),
        "version": number,
        "text": text,
        "digest": digest,
        "installed_by": installed_by,
    }
    query = insert(catalog_version).values(values).on_conflict_do_nothing().returning(catalog_version.c.version)
    if (await conn.execute(query)).scalar() is None:
        raise ConflictError("another schema was installed at this very moment; look at it, and try again")
    changes.touch(ChangeKind.CATALOG, name)
    return number
