"""What somebody may choose from while they make a token: catalogs as the engine has them, and places that they see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from authz_service.admin.authority import Authority
from authz_service.admin.catalogs import READ, find_catalog
from authz_service.admin.management import Actor, Management
from authz_service.admin.places import find_place
from authz_service.catalog.model import Catalog
from authz_service.directory.model import DEFAULT_SOURCE, NodeKind, format_target
from authz_service.errors import NotFoundError
from authz_service.store import directory, place_search

_CANDIDATES: Final = 400
"""Looked at for one search: what lies beyond them is found by a longer text."""


@dataclass(frozen=True, slots=True)
class FoundPlace:
    """A place that the user sees. `target` is its canonical text."""

    target: str
    kind: NodeKind
    path: str
    visibility: str | None


async def catalog_of(management: Management, actor: Actor, label: str) -> Catalog:
    """A catalog version by its label. Raises NotFoundError, ForbiddenError."""
    async with management.database.snapshot() as conn:
        await (await Authority.open(conn, management, actor, hold=False)).require(READ)
        return await find_catalog(conn, management, label)


async def search_places(
    management: Management, actor: Actor, catalog: str, text: str, *, limit: int = 20
) -> tuple[Sequence[FoundPlace], bool]:
    """Groups and projects whose path holds the text, the user's own first; and whether there may be more.

    What the user may not see is not found (D5), by the same rule that reads the finished token. Raises NotFoundError
    for an unknown catalog.
    """
    async with management.database.snapshot() as conn:
        authority = await Authority.open(conn, management, actor, hold=False)
        await authority.require(READ)
        found_catalog = await find_catalog(conn, management, catalog)
        if found_catalog.upstream or authority.user is None:
            return [], False
        wanted = text.strip().strip("/").lower()
        candidates = await place_search.load_candidates(
            conn,
            source=found_catalog.source or DEFAULT_SOURCE,
            user=int(authority.user.id),
            text=wanted.rpartition("/")[2],
            everything=authority.admin,
            limit=_CANDIDATES,
        )
        paths = await directory.load_paths(conn, [int(node.id) for node in candidates])
        found: list[FoundPlace] = []
        for node in candidates:
            kind, path = paths.get(int(node.id), (node.kind, ""))
            if not path or wanted not in path.lower():
                continue
            if len(found) == limit:
                return found, True
            place = await find_place(authority.world, authority.token, found_catalog, format_target(kind, path))
            if place is not None:
                visibility = None if place.visibility is None else place.visibility.name.lower()
                found.append(FoundPlace(place.text, place.kind, path, visibility))
        return found, len(candidates) == _CANDIDATES


async def check_place(management: Management, actor: Actor, catalog: str, text: str) -> FoundPlace:
    """One place by what somebody wrote for it. Raises NotFoundError alike for unknown and unseen ones."""
    async with management.database.snapshot() as conn:
        authority = await Authority.open(conn, management, actor, hold=False)
        found_catalog = await find_catalog(conn, management, catalog)
        place = await find_place(authority.world, authority.token, found_catalog, text)
        if place is None:
            raise NotFoundError(f"there is no `{text[:80]}`, or you may not see it")
        visibility = None if place.visibility is None else place.visibility.name.lower()
        return FoundPlace(place.text, place.kind, place.text.partition(":")[2], visibility)
