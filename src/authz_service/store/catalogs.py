"""Catalog versions as text: installed once, never changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Select, null, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.errors import ConflictError, StartError
from authz_service.store.changes import ChangeKind, ChangeSet, Stamp, load_stamped
from authz_service.store.tables import catalog_version

SIDE_MARK: Final = "#"
"""In the name of a text that lies beside a catalog and is none (`catalog_schemas`)."""


@dataclass(frozen=True, slots=True)
class CatalogVersion:
    """`digest` is SHA-256 over the text in UTF-8; `text` is None where only the list was asked for."""

    name: str
    version: int
    digest: bytes
    text: str | None = None


async def install(
    conn: AsyncConnection, changes: ChangeSet, *, name: str, version: int, text: str, installed_by: str
) -> bool:
    """True when it is new, False when this very text is installed already; ConflictError when the version has another.

    Whether the text is a catalog at all is for the caller to prove first.
    """
    digest = hashlib.sha256(text.encode()).digest()
    values = {"name": name, "version": version, "text": text, "digest": digest, "installed_by": installed_by}
    query = insert(catalog_version).values(values).on_conflict_do_nothing().returning(catalog_version.c.version)
    if (await conn.execute(query)).scalar() is not None:
        changes.touch(ChangeKind.CATALOG, name)
        return True
    named = (catalog_version.c.name == name, catalog_version.c.version == version)
    if (await conn.execute(select(catalog_version.c.digest).where(*named))).scalar_one() != digest:
        raise ConflictError(f"`{name}@{version}` is installed with another text; give the new one another version")
    return False


async def check_shipped(conn: AsyncConnection, shipped: Iterable[tuple[str, str]]) -> None:
    """Raises StartError where an installed version has the number of a shipped one, and another text.

    `shipped` are labels (`gitlab@1`) and texts. Tokens were made under the installed one; served by the shipped one
    they would mean something else (C8).
    """
    ours = {label: hashlib.sha256(text.encode()).digest() for label, text in shipped}
    _, installed = await load_all(conn)
    other = [f"{one.name}@{one.version}" for one in installed]
    changed = [label for label, one in zip(other, installed, strict=True) if ours.get(label, one.digest) != one.digest]
    if changed:
        raise StartError(
            f"the database holds another `{changed[0]}` than the one that comes with this version, and its tokens would"
            " change their meaning: go back to the version before, and install that catalog under another name or a"
            " number that is free"
        )


_LISTED: Final = tuple(column for column in catalog_version.c if column.name != "text")


async def load(conn: AsyncConnection, name: str, version: int | None = None) -> tuple[Stamp, CatalogVersion | None]:
    """One version with its text; the newest when `version` is None."""
    query = select(catalog_version).where(catalog_version.c.name == name)
    if version is not None:
        query = query.where(catalog_version.c.version == version)
    stamp, found = await _load(conn, query.order_by(catalog_version.c.version.desc()).limit(1))
    return stamp, found[0] if found else None


async def load_text(conn: AsyncConnection, name: str, version: int | None = None) -> tuple[Stamp, str | None]:
    """The text of one version, of the newest when `version` is None; None when there is none."""
    stamp, found = await load(conn, name, version)
    return stamp, None if found is None else found.text


async def load_newest(conn: AsyncConnection, name: str) -> tuple[Stamp, int]:
    """The number of the newest installed version, 0 when there is none."""
    query = select(*_LISTED, null().label("text")).where(catalog_version.c.name == name)
    stamp, found = await _load(conn, query.order_by(catalog_version.c.version.desc()).limit(1))
    return stamp, found[0].version if found else 0


async def load_all(conn: AsyncConnection, *, text: bool = False) -> tuple[Stamp, tuple[CatalogVersion, ...]]:
    """All versions, by name, newest first; with their texts when asked for."""
    column = catalog_version.c.text if text else null().label("text")
    catalogs_only = catalog_version.c.name.not_like(f"%{SIDE_MARK}%")
    return await _load(conn, select(*_LISTED, column).where(catalogs_only))


async def _load(conn: AsyncConnection, query: Select[Any]) -> tuple[Stamp, tuple[CatalogVersion, ...]]:
    found = query.subquery()
    stamp, rows = await load_stamped(conn, found, found.c.name, found.c.version.desc())
    return stamp, tuple(
        CatalogVersion(
            name=row["name"],
            version=row["version"],
            digest=row["digest"],
            text=row["text"],
        )
        for row in rows
        if row["name"] is not None
    )
