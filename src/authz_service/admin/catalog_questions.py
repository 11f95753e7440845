"""Questions about one catalog version: how much it covers, what a call needs, which calls a permission unlocks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from authz_service.admin.authority import Authority
from authz_service.admin.catalogs import READ, describe_operation, find_catalog, read_place
from authz_service.admin.faults import shown
from authz_service.admin.management import Actor, Management
from authz_service.catalog.coverage import coverage_of
from authz_service.catalog.model import BOUNDARIES, Catalog, Operation, Permission, bits
from authz_service.catalog.near import no_such_permission
from authz_service.catalog.reverse import need_of, unlocked_by
from authz_service.catalog.routes import PathFault, RouteFault, make_router
from authz_service.errors import Fault, InvalidInputError, NotFoundError
from authz_service.store import catalog_schemas, changes
from authz_service.store.changes import format_revision
from authz_service.store.paging import write_cursor

_ORDER: Final = "unlocked"


async def show_coverage(management: Management, actor: Actor, label: str) -> Mapping[str, Any]:
    """How much of the API a version decides. Raises NotFoundError, ForbiddenError."""
    async with management.database.snapshot() as conn:
        await (await Authority.open(conn, management, actor, hold=False)).require(READ)
        catalog = await find_catalog(conn, management, label)
        _, schema = await catalog_schemas.load(conn, catalog.name, catalog.version)
        revision = format_revision(await changes.current(conn))
    counts = await asyncio.to_thread(coverage_of, catalog)
    by_kind = {kind.value: asdict(found) for kind, found in counts.by_kind.items()}
    number = 0 if schema is None else schema.version
    return {
        "catalog": catalog.label,
        **asdict(counts),
        "by_kind": by_kind,
        "schema_number": number,
        "revision": revision,
    }


@dataclass(frozen=True, slots=True)
class NeedQuery:
    """A request as its client sends it, or an operation by its id."""

    method: str | None = None
    path: str | None = None
    operation: str | None = None


async def show_need(management: Management, actor: Actor, label: str, query: NeedQuery) -> Mapping[str, Any]:
    """What a call needs. Raises NotFoundError where the version has no such operation, InvalidInputError."""
    if (query.operation is None) is (query.path is None) or (query.method is None) is not (query.path is None):
        message = "say `method` and `path`, or `operation`"
        raise InvalidInputError("the request has a fault", faults=[Fault("path", "missing_parameter", message)])
    catalog, revision = await _open(management, actor, label)
    operation, parameters = await asyncio.to_thread(_find_operation, catalog, query)
    return {
        "catalog": catalog.label,
        "operation": describe_operation(catalog, operation, parameters),
        "parameters": dict(parameters),
        "revision": revision,
    }


def _find_operation(catalog: Catalog, query: NeedQuery) -> tuple[Operation, Mapping[str, str]]:
    if query.operation is not None:
        found = catalog.operations.get(query.operation)
        if found is None:
            raise NotFoundError(f"`{catalog.label}` has no operation `{shown(query.operation)}`; search for it")
        return found, {}
    need = need_of(catalog, make_router(catalog), (query.method or "").upper(), query.path or "")
    if not isinstance(need, PathFault):
        return need.operation, need.parameters
    if need.fault is RouteFault.BAD_PATH:
        raise InvalidInputError("the request has a fault", faults=[Fault("path", need.fault.value, need.message)])
    base = f"; its paths begin with `{catalog.base_path}`" if catalog.base_path else ""
    raise NotFoundError(f"`{catalog.label}` has no operation for this method and path{base}")


@dataclass(frozen=True, slots=True)
class UnlockQuery:
    """Which page."""

    limit: int = 50
    cursor: str | None = None


async def list_unlocked(
    management: Management, actor: Actor, label: str, name: str, query: UnlockQuery
) -> Mapping[str, Any]:
    """One page of what a permission opens or helps to open, implications applied. Raises NotFoundError."""
    catalog, revision = await _open(management, actor, label)
    permission = catalog.by_name.get(name)
    if permission is None:
        raise NotFoundError(no_such_permission(catalog, name))
    found = await asyncio.to_thread(lambda: list(unlocked_by(catalog, permission)))
    start = read_place(query.cursor, _ORDER, f"{catalog.label} {permission.name}")
    end = start + query.limit
    more = end < len(found)
    return {
        "items": [
            {
                **describe_operation(catalog, each.operation),
                "boundaries": [boundary.value for boundary in each.boundaries],
                "alone": each.alone,
                "beside": [list(names) for names in each.beside],
            }
            for each in found[start:end]
        ],
        "next_cursor": write_cursor(_ORDER, f"{catalog.label} {permission.name}", str(end)) if more else None,
        "total": len(found),
        "catalog": catalog.label,
        "permission": permission.name,
        "includes": _included(catalog, permission),
        "revision": revision,
    }


def _included(catalog: Catalog, permission: Permission) -> list[str]:
    """What the permission confers besides itself, at some boundary."""
    mask = 0
    for boundary in BOUNDARIES:
        mask |= catalog.confers[boundary][permission.number]
    return [catalog.permissions[number].name for number in bits(mask) if number != permission.number]


async def _open(management: Management, actor: Actor, label: str) -> tuple[Catalog, str]:
    async with management.database.snapshot() as conn:
        await (await Authority.open(conn, management, actor, hold=False)).require(READ)
        catalog = await find_catalog(conn, management, label)
        return catalog, format_revision(await changes.current(conn))
