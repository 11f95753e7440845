"""What a database and its server tell of whether the service is well off with them; reads, and changes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.store.roles import FUNCTIONS, PRIVILEGES

# What is left for us of what the server takes: its superusers keep some, and role and database may have less.
_LIMIT: Final = text(
    """
    select least(
      current_setting('max_connections')::int
        - coalesce(current_setting('superuser_reserved_connections', true)::int, 0)
        - coalesce(current_setting('reserved_connections', true)::int, 0),
      (select nullif(rolconnlimit, -1) from pg_roles where rolname = current_user),
      (select nullif(datconnlimit, -1) from pg_database where datname = current_database()))
    """
)
_SERVER: Final = text(
    """
    select clock_timestamp() as clock, pg_is_in_recovery() as in_recovery,
      coalesce(current_setting('fsync', true), 'on') <> 'off' as fsync,
      coalesce(current_setting('full_page_writes', true), 'on') <> 'off' as full_page_writes,
      coalesce(current_setting('synchronous_standby_names', true), '') as standby_names
    """
)
_STANDBYS: Final = text("select count(*) from pg_stat_replication")
_ROLE: Final = text(
    """
    select rolname as name, rolsuper as superuser, rolcreaterole or rolcreatedb or rolbypassrls as powers,
      has_schema_privilege(current_user, current_schema(), 'create') as creates,
      exists (select from pg_class where oid = to_regclass('audit') and pg_has_role(relowner, 'member')) as owns
    from pg_roles where rolname = current_user
    """
)
_RIGHTS: Final = text(
    """
    select name, lower(kind) as kind, has_table_privilege(name, kind) as has
    from unnest(cast(:tables as text[])) as name, unnest(array['SELECT', 'INSERT', 'UPDATE', 'DELETE']) as kind
    where to_regclass(name) is not null
    """
)
_CALLS: Final = text(
    "select name from unnest(cast(:functions as text[])) as name"
    " where to_regprocedure(name) is null or not has_function_privilege(name, 'execute')"
)
_UPKEEP: Final = text(
    """
    select
      (select extract(epoch from shift)::float from clock_shift where id = 1) as shift,
      (select rev from revision where id = 1) - coalesce((select min(rev) from change_log), 0) as logged,
      (select count(*) from audit where seal is null) as unsealed,
      (select extract(epoch from authz_now() - min(at))::float from audit where seal is null) as unsealed_for,
      (select extract(epoch from authz_now() - min(at))::float from audit) as age
    """
)
_SWEEPS: Final = text("select name, extract(epoch from authz_now() - finished_at)::float as ended from sweep")
# Whoever may sign in or show a token, and manage: an active admin with a living token for the management's catalog,
# or a password.
_ADMINS: Final = text(
    """
    select count(*) as admins,
      count(*) filter (where exists (
        select from token t where t.owner_id = a.node_id and t.catalogs ? 'authz' and t.revoked_at is null
        and (t.expires_at is null or t.expires_at > authz_now())
      ) or exists (select from password p where p.user_id = a.node_id)) as able
    from account a where a.admin and a.state = 'active'
    """
)
_GATEWAYS: Final = text(
    """
    select id, name, extract(epoch from expires_at - authz_now())::float as left
    from token
    where cardinality(evaluates) > 0 and revoked_at is null and successor_id is null
    and expires_at between authz_now() and authz_now() + make_interval(secs => :soon)
    order by expires_at limit 20
    """
)
_BY_DIGEST: Final = text(
    """
    select id, name, revoked_at is not null as revoked,
      extract(epoch from expires_at - authz_now())::float as left, cardinality(evaluates) as evaluates
    from token where digest = :digest
    """
)
_CATALOGS: Final = text(
    """
    select distinct used.key as name, used.value::int as version
    from token t, jsonb_each_text(t.catalogs) used
    where t.revoked_at is null and (t.expires_at is null or t.expires_at > authz_now())
    and not exists (select from catalog_version v where v.name = used.key and v.version = used.value::int)
    """
)


@dataclass(frozen=True, slots=True)
class Server:
    """`standbys` are those that follow now; `standby_names` is what the server waits for, empty for nobody."""

    clock: datetime
    in_recovery: bool
    fsync: bool
    full_page_writes: bool
    standby_names: str
    standbys: int


@dataclass(frozen=True, slots=True)
class Role:
    """Whom the URL signs in as. `lacking` and `beyond` are (right, table), held against what serving needs."""

    name: str
    superuser: bool
    owns: bool
    powers: bool
    creates: bool
    lacking: Sequence[tuple[str, str]]
    beyond: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Upkeep:
    """What the service's own work leaves behind where nobody does it. Times in seconds, by the database's clock."""

    shift: float
    logged: int
    unsealed: int
    unsealed_for: float
    age: float
    """Since the first row of the audit; 0 for a database that is new."""
    sweeps: Mapping[str, float | None]
    """Since each last ended; None for one that never did."""


@dataclass(frozen=True, slots=True)
class GatewayToken:
    """`left` are seconds until it expires, None for never."""

    id: str
    name: str
    left: float | None
    revoked: bool = False
    evaluates: bool = True


async def load_connection_limit(conn: AsyncConnection) -> int:
    """How many connections the server takes from this role, all of ours together."""
    return int((await conn.execute(_LIMIT)).scalar_one())


async def load_server(conn: AsyncConnection) -> Server:
    """Needs none of our tables."""
    row = (await conn.execute(_SERVER)).mappings().one()
    standbys = 0 if row["in_recovery"] else int((await conn.execute(_STANDBYS)).scalar_one())
    return Server(**row, standbys=standbys)


async def load_role(conn: AsyncConnection) -> Role:
    """What the role may do on our tables, and what not. Needs the schema."""
    row = (await conn.execute(_ROLE)).mappings().one()
    rights: dict[str, set[str]] = {}
    for one in (await conn.execute(_RIGHTS, {"tables": list(PRIVILEGES)})).mappings():
        rights.setdefault(one["name"], set())
        if one["has"]:
            rights[one["name"]].add(one["kind"])
    wanted = {table: {one for one in given if " " not in one} for table, given in PRIVILEGES.items()}
    lacking = [(right, table) for table, has in rights.items() for right in sorted(wanted[table] - has)]
    lacking += [("execute", name) for name in (await conn.execute(_CALLS, {"functions": list(FUNCTIONS)})).scalars()]
    beyond = [(right, table) for table, has in rights.items() for right in sorted(has - wanted[table])]
    return Role(**row, lacking=lacking, beyond=beyond)


async def load_upkeep(conn: AsyncConnection) -> Upkeep:
    """Needs the schema."""
    row = dict((await conn.execute(_UPKEEP)).mappings().one())
    sweeps = {one["name"]: one["ended"] for one in (await conn.execute(_SWEEPS)).mappings()}
    return Upkeep(**{name: value or 0 for name, value in row.items()}, sweeps=sweeps)


async def count_admins(conn: AsyncConnection) -> tuple[int, int]:
    """Active admins, and how many of them have a password or a living token that manages."""
    row = (await conn.execute(_ADMINS)).one()
    return int(row.admins), int(row.able)


async def find_expiring_gateways(conn: AsyncConnection, *, soon: float) -> Sequence[GatewayToken]:
    """Living tokens that ask for decisions, were not replaced, and expire within `soon` seconds; 20 at the most."""
    rows = (await conn.execute(_GATEWAYS, {"soon": soon})).mappings()
    return [GatewayToken(**row) for row in rows]


async def find_gateway(conn: AsyncConnection, digest: bytes) -> GatewayToken | None:
    """The token of this digest, whatever it is for."""
    row: Any = (await conn.execute(_BY_DIGEST, {"digest": digest})).mappings().first()
    if row is None:
        return None
    return GatewayToken(row["id"], row["name"], row["left"], row["revoked"], bool(row["evaluates"]))


async def find_missing_catalogs(conn: AsyncConnection, *, shipped: Sequence[str]) -> Sequence[str]:
    """Catalog versions (`orders@3`) that living tokens were made under and that are nowhere."""
    rows = await conn.execute(_CATALOGS)
    return sorted({f"{row.name}@{row.version}" for row in rows} - set(shipped))
