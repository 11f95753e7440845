"""What runs: the revision, every replica with what it has applied, the schema and the catalogs' versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import text

from authz_service import __version__
from authz_service.admin.authority import Authority
from authz_service.admin.management import Actor, Management
from authz_service.store import changes, replicas
from authz_service.store.changes import format_revision

READ: Final = "audit:read"


async def show_system(management: Management, actor: Actor) -> Mapping[str, Any]:
    """Needs `audit:read` at the instance: names of machines are for whoever oversees them. Raises ForbiddenError."""
    async with management.database.snapshot() as conn:
        authority = await Authority.open(conn, management, actor, hold=False)
        await authority.require(READ)
        stamp = await changes.current(conn)
        found = await replicas.load_all(conn)
        schema = (await conn.execute(text("select version_num from alembic_version"))).scalar()
        server = (await conn.execute(text("show server_version"))).scalar()
        return {
            "version": __version__,
            "schema": schema,
            "database": f"PostgreSQL {server}",
            "revision": format_revision(stamp),
            "replicas": [
                {
                    "name": one.name,
                    "applied": None if one.stamp is None else one.stamp.revision,
                    "behind": None if one.stamp is None else max(0, stamp.revision - one.stamp.revision),
                    "current": one.reached(stamp),
                    "max_staleness": one.max_staleness,
                }
                for one in found
            ],
            "catalogs": await management.shelf.versions(conn),
        }
