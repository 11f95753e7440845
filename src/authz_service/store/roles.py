"""What the role that serves may do: no tables of its own making, no history rewritten, no clock shifted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.errors import InvalidInputError

_READ: Final = ("select",)
_ADD: Final = ("select", "insert")
_KEEP: Final = ("select", "insert", "update")
_ALL: Final = ("select", "insert", "update", "delete")

PRIVILEGES: Final[Mapping[str, tuple[str, ...]]] = {
    "account": _KEEP,
    # The sealer sets the three columns of the chain; what a row tells of can be written once.
    "audit": (*_ADD, "update (seal, hash, prev_hash)"),
    "catalog_version": _ADD,
    "change_log": (*_ADD, "delete"),
    "clock_shift": _READ,
    "idempotency": _ALL,
    "membership": _ALL,
    # Never deleted: a deleted node's row keeps its external id from being given again.
    "node": _KEEP,
    "replica": _ALL,
    "revision": ("select", "update"),
    "token": _KEEP,
    "token_node": _ALL,
}
"""By table; a table that is not here the service cannot see."""


async def grant_service_role(conn: AsyncConnection, role: str) -> None:
    """Give an existing role what serving needs, and take from it whatever else it has on our tables.

    Run it as the owner of the tables, after each migration: a new table is granted to nobody. The role must be another
    than the owner, whom no privilege binds. Raises InvalidInputError for a role that is not there.
    """
    found = (
        await conn.execute(text("select quote_ident(rolname) from pg_roles where rolname = :role"), {"role": role})
    ).scalar()
    if found is None:
        raise InvalidInputError(
            f"the database has no role `{role}`; create it first, with a password and without any right"
        )
    schema = (await conn.execute(text("select quote_ident(current_schema())"))).scalar_one()
    statements = [
        f"revoke all on all tables in schema {schema} from {found}",
        f"revoke create on schema {schema} from public, {found}",
        f"grant usage on schema {schema} to {found}",
        f"grant usage on all sequences in schema {schema} to {found}",
        f"grant select on alembic_version to {found}",
        *(f"grant {', '.join(rights)} on {table} to {found}" for table, rights in PRIVILEGES.items()),
    ]
    for statement in statements:
        await conn.exec_driver_sql(statement)
