"""Catalogs as people read them: what an API has, at which boundaries, and what its operations need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.admin.authority import Authority
from authz_service.admin.faults import shown
from authz_service.admin.management import Actor, Management
from authz_service.catalog.model import (
    BOUNDARIES,
    Catalog,
    Operation,
    OperationKind,
    Permission,
    RequirementSet,
)
from authz_service.catalog.words import format_target_rule, say_target
from authz_service.errors import CatalogInvalidError, NotFoundError
from authz_service.pdp.check import parse_catalog
from authz_service.store import changes
from authz_service.store.changes import format_revision
from authz_service.store.paging import bad_cursor, read_cursor, write_cursor

READ: Final = "catalog:read"
_ORDER: Final = "operations"


async def list_catalogs(management: Management, actor: Actor) -> Mapping[str, Any]:
    """Every catalog by its newest version. Raises ForbiddenError."""
    async with management.database.snapshot() as conn:
        await (await Authority.open(conn, management, actor, hold=False)).require(READ)
        items = []
        for name, versions in (await management.shelf.versions(conn)).items():
            catalog = await _newest_readable(conn, management, name, versions)
            if catalog is not None:
                items.append(_summary(catalog, versions))
        return {"items": items, "next_cursor": None, "revision": format_revision(await changes.current(conn))}


async def _newest_readable(
    conn: AsyncConnection, management: Management, name: str, versions: Iterable[int]
) -> Catalog | None:
    """One text that a later version of the service stored, and this one does not read, must not hide all catalogs."""
    for version in versions:
        with suppress(CatalogInvalidError):
            return await management.shelf.find(conn, name, version)
    return None


async def show_catalog(management: Management, actor: Actor, label: str) -> Mapping[str, Any]:
    """One version with its permissions by category; `gitlab` is the newest. Raises NotFoundError, ForbiddenError."""
    async with management.database.snapshot() as conn:
        await (await Authority.open(conn, management, actor, hold=False)).require(READ)
        catalog = await find_catalog(conn, management, label)
        versions = (await management.shelf.versions(conn))[catalog.name]
        categories: dict[str, list[dict[str, Any]]] = {}
        for permission in catalog.permissions:
            categories.setdefault(permission.category, []).append(_describe_permission(permission))
        return _summary(catalog, versions) | {
            "version": catalog.version,
            "base_path": catalog.base_path,
            "roles": [
                {"name": role.name, "includes": list(role.includes), "inherits": role.inherits}
                for role in catalog.roles.values()
            ],
            "top_role": catalog.top_role,
            "legacy_scopes": [
                {"name": bundle.name, "description": bundle.description} for bundle in catalog.bundles.values()
            ],
            "categories": [{"name": name, "permissions": found} for name, found in categories.items()],
            "revision": format_revision(await changes.current(conn)),
        }


@dataclass(frozen=True, slots=True)
class OperationQuery:
    """`search` looks into ids and summaries, without case; `permission` keeps what that permission is needed for."""

    search: str | None = None
    permission: str | None = None
    kind: OperationKind | None = None
    limit: int = 50
    cursor: str | None = None


async def list_operations(management: Management, actor: Actor, label: str, query: OperationQuery) -> Mapping[str, Any]:
    """One page of a version's operations, in the order of the catalog. Raises NotFoundError, ForbiddenError."""
    async with management.database.snapshot() as conn:
        await (await Authority.open(conn, management, actor, hold=False)).require(READ)
        catalog = await find_catalog(conn, management, label)
        found = [one for one in catalog.operations.values() if _matches(one, query)]
        start = read_place(query.cursor, _ORDER, catalog.label)
        page = found[start : start + query.limit]
        more = start + query.limit < len(found)
        return {
            "items": [describe_operation(catalog, one) for one in page],
            "next_cursor": write_cursor(_ORDER, catalog.label, str(start + query.limit)) if more else None,
            "total": len(found),
            "catalog": catalog.label,
            "revision": format_revision(await changes.current(conn)),
        }


async def find_catalog(conn: AsyncConnection, management: Management, label: str) -> Catalog:
    """By name, the newest version, or by `name@version`. Raises NotFoundError."""
    name, version = parse_catalog(label)
    catalog = await management.shelf.find(conn, name, version)
    if catalog is None:
        raise NotFoundError(f"there is no catalog `{shown(label)}`; `GET /v1/catalogs` lists those that there are")
    return catalog


def read_place(cursor: str | None, order: str, of: str) -> int:
    """Where a list goes on. A version never changes, so that a number is a place for ever; elsewhere it is refused."""
    if cursor is None:
        return 0
    known, start = read_cursor(cursor, order, 2)
    if known != of or not (start.isascii() and start.isdigit() and len(start) < 9):
        raise bad_cursor()
    return int(start)


def _summary(catalog: Catalog, versions: Iterable[int]) -> dict[str, Any]:
    return {
        "name": catalog.name,
        "title": catalog.title,
        "versions": list(versions),
        "newest": max(versions),
        "permissions": len(catalog.permissions),
        "operations": len(catalog.operations),
        "owner_check": catalog.owner_check.value,
        "single_owner": catalog.single_owner,
        "words": {kind.value: catalog.words.get(kind, kind.value) for kind in BOUNDARIES},
    }


def _describe_permission(permission: Permission) -> dict[str, Any]:
    return {
        "name": permission.name,
        "description": permission.description,
        "boundaries": [
            {"boundary": boundary.value, "min_role": permission.boundaries[boundary]}
            for boundary in BOUNDARIES
            if boundary in permission.boundaries
        ],
        "mutates": permission.mutates,
        "public_read": permission.public_read,
        "implies": list(permission.implies),
        "deprecated": permission.deprecated,
        "when": _condition(permission.when),
    }


def describe_operation(
    catalog: Catalog, operation: Operation, parameters: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """With a request's parameters, its needs name the places that they name."""
    return {
        "id": operation.id,
        "kind": operation.kind.value,
        "summary": operation.summary,
        "mutates": operation.mutates,
        "open": operation.open,
        "public_read": operation.public_read,
        "closed": operation.closed,
        "needs": [_describe_set(catalog, one, parameters) for one in operation.sets],
    }


def _describe_set(catalog: Catalog, one: RequirementSet, parameters: Mapping[str, str] | None) -> dict[str, Any]:
    return {
        "all_of": [
            {
                "permission": item.permission,
                "boundary": item.boundary.value,
                "target": format_target_rule(item.target),
                "where": say_target(catalog, item, parameters),
            }
            for item in one.items
        ],
        "when": _condition(one.when),
        "min_role": one.min_role,
    }


def _condition(condition: Iterable[tuple[str, object]]) -> dict[str, Any]:
    return dict(condition)


def _matches(operation: Operation, query: OperationQuery) -> bool:
    if query.kind is not None and operation.kind is not query.kind:
        return False
    if query.search is not None:
        wanted = query.search.lower()
        if wanted not in operation.id.lower() and wanted not in operation.summary.lower():
            return False
    if query.permission is None:
        return True
    return any(item.permission == query.permission for one in operation.sets for item in one.items)
