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
    "audit_checkpoint": _ADD,
    "catalog_version": _ADD,
    "change_log": (*_ADD, "delete"),
    "clock_shift": _READ,
    "delivery": _ALL,
    "event": _ALL,
    # Closed and revoked, never deleted but with a purged token.
    "grant_request": _ALL,
    "idempotency": _ALL,
    "identity": _ALL,
    "identity_use": _ALL,
    "leak_report": _ALL,
    "membership": _ALL,
    # Never deleted: a deleted node's row keeps its external id from being given again.
    "node": _KEEP,
    "password": _ALL,
    "policy": _ALL,
    "replica": _ALL,
    "revision": ("select", "update"),
    "session": _ALL,
    "sign_in_link": _ALL,
    "sweep": _KEEP,
    # Never deleted but by `purge_tokens`, which takes only what ended long ago.
    "token": _KEEP,
    "token_grant": _ALL,
    "token_network": _ALL,
    "token_node": _ALL,
    "token_usage": _ALL,
    "trust_rule": _ALL,
    "trust_use": _ALL,
    "webhook": _ALL,
}
"""By table; a table that is not here the service cannot see."""
FUNCTIONS: Final = ("purge_tokens(text[], timestamptz)",)
"""What the owner of the tables does for the service."""


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
        *(f"grant execute on function {function} to {found}" for function in FUNCTIONS),
    ]
    for statement in statements:
        await conn.exec_driver_sql(statement)
