"""The GraphQL schema of an API beside its catalog: installed, and what it says of the catalog's operations (C3)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.admin.authority import Authority
from authz_service.admin.catalog_versions import INSTALL
from authz_service.admin.catalogs import READ, find_catalog
from authz_service.admin.faults import shown
from authz_service.admin.management import Actor, Management
from authz_service.catalog.graphql_schema import format_schema, load_schema, parse_stored
from authz_service.catalog.graphql_types import RESERVED, ROOTS, ApiSchema
from authz_service.catalog.model import Catalog, OperationKind
from authz_service.errors import ConflictError, NotFoundError
from authz_service.store import audit, catalog_schemas, changes
from authz_service.store.changes import ChangeSet, format_revision


@dataclass(frozen=True, slots=True)
class SchemaText:
    """A schema as it is sent: SDL, or the JSON answer of an introspection. `file` is its name in messages."""

    text: str
    file: str = "schema.graphql"


@dataclass(frozen=True, slots=True)
class InstalledSchema:
    """`new` is False where this very schema counts already."""

    answer: Mapping[str, Any]
    new: bool


async def install_schema(management: Management, actor: Actor, label: str, given: SchemaText) -> InstalledSchema:
    """From now on documents are read by this schema, for tokens of this version of the catalog alone.

    Every replica knows by the change log. Raises CatalogInvalidError with all faults, NotFoundError, ConflictError for
    a catalog that speaks of no documents, ForbiddenError.
    """
    # Seconds of a large schema would hold up every decision of this process.
    schema = await asyncio.to_thread(load_schema, given.text, file=shown(given.file))
    text = await asyncio.to_thread(format_schema, schema)

    async def work(conn: AsyncConnection) -> InstalledSchema:
        authority = await Authority.open(conn, management, actor, hold=True)
        await authority.require(INSTALL)
        catalog = await find_catalog(conn, management, label)
        if not any(operation.kind is OperationKind.GRAPHQL for operation in catalog.operations.values()):
            raise ConflictError(f"`{catalog.label}` has no operations of GraphQL documents, so a schema says nothing")
        touched = ChangeSet()
        number = await catalog_schemas.install(
            conn,
            touched,
            name=catalog.name,
            version=catalog.version,
            text=text,
            installed_by=authority.token.id,
        )
        stamp = await changes.append(conn, touched)
        answer = describe_schema(catalog, schema)
        if number is not None:
            entry = audit.AuditEntry(
                action="catalog.schema",
                subject=catalog.label,
                actor_token=authority.token.id,
                actor_user=authority.user_id,
                details={"number": number, "types": answer["types"], "fields": answer["fields"]},
            )
            await audit.insert(conn, entry, stamp)
        _, stored = await catalog_schemas.load(conn, catalog.name, catalog.version)
        counted = 0 if stored is None else stored.version
        answer |= {"number": counted, "new": number is not None, "revision": format_revision(stamp)}
        return InstalledSchema(answer, number is not None)

    return await management.database.run_in_transaction(work)


async def show_schema(management: Management, actor: Actor, label: str) -> Mapping[str, Any]:
    """What counts for a version, and what it lacks. Raises NotFoundError where none was installed, ForbiddenError."""
    async with management.database.snapshot() as conn:
        await (await Authority.open(conn, management, actor, hold=False)).require(READ)
        catalog = await find_catalog(conn, management, label)
        stamp, stored = await catalog_schemas.load(conn, catalog.name, catalog.version)
    if stored is None:
        raise NotFoundError(f"`{catalog.label}` has no GraphQL schema; `authz catalog schema` installs one")
    schema = await asyncio.to_thread(parse_stored, stored.text or "")
    found = describe_schema(catalog, schema)
    return found | {"number": stored.version, "new": False, "revision": format_revision(stamp)}


def describe_schema(catalog: Catalog, schema: ApiSchema) -> dict[str, Any]:
    """Counts, operations that the schema has neither type nor field for, and whether it tells of defaults."""
    return {
        "catalog": catalog.label,
        "types": len(schema.types),
        "fields": sum(len(each.fields) for each in schema.types.values()),
        "unknown": unknown_operations(catalog, schema),
        "defaults_known": schema.defaults_known,
    }


def unknown_operations(catalog: Catalog, schema: ApiSchema) -> list[str]:
    """Operations that no document by this schema can reach, in the order of the catalog."""
    roots = {ROOTS[word]: name for word, name in schema.roots.items()}
    found = []
    for operation in catalog.operations.values():
        if operation.kind is not OperationKind.GRAPHQL:
            continue
        owner, _, name = operation.id.partition(".")
        if name.startswith("__"):
            continue
        if owner == RESERVED:
            known = name in schema.types
        else:
            on = schema.types.get(roots.get(owner, owner))
            known = on is not None and name in on.fields
        if not known:
            found.append(operation.id)
    return found
