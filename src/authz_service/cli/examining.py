"""What `authz doctor` looks at: settings, files, the database, its server, and what the service leaves there."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.cli.examining_service import look_at_connections, look_at_replicas, look_at_tokens, look_at_upkeep
from authz_service.cli.findings import Finding, Level, advice, fine, wrong
from authz_service.config import Settings, load_settings, unknown_settings
from authz_service.errors import DatabaseUnavailableError, SchemaBehindError, SchemaOutdatedError, StartError
from authz_service.store import fitness
from authz_service.store.catalogs import check_shipped
from authz_service.store.connect import Timeouts, connect, describe_url, our_errors, sqlstate
from authz_service.store.database import Database
from authz_service.store.fitness import Role, Server
from authz_service.store.replicas import load_all
from authz_service.store.schema import check_schema, load_schema_revision, schema_head
from authz_service.store.shipped import shipped_texts

_CHANNEL: Final = "authz_doctor"
_RING_SECONDS: Final = 3.0
_CLOCK_ADVICE, _CLOCK_WRONG = 2.0, 30.0
_SECRET_FILES: Final = (
    "settings_file",
    "peppers_file",
    "gateway_token_file",
    "gateway_key_file",
    "audit_key_file",
    "tls_key_file",
)
_NO_RIGHT: Final = "42501"
_TIMEOUTS: Final = Timeouts(connect=5.0, statement=10.0)


async def examine(environ: Mapping[str, str]) -> Sequence[Finding]:
    """Every finding, in the order in which to mend them. Reads only, changes nothing, and shows no secret."""
    found, settings = look_at_settings(environ)
    if settings is None:
        return found
    found += look_at_files(settings)
    try:
        await _look_at_database(settings, found)
    except DatabaseUnavailableError as error:
        mend = "check AUTHZ_DATABASE_URL, that the server runs, and that this machine may reach it"
        found.append(wrong("database", error.message, mend))
    except DBAPIError as error:
        if sqlstate(error) != _NO_RIGHT:
            raise
        mend = "`authz migrate --service-role ROLE`, as the tables' owner"
        found.append(wrong("role", "the role may not read what serving reads; nothing more can be looked at", mend))
    return found


# settings and files


def look_at_settings(environ: Mapping[str, str]) -> tuple[list[Finding], Settings | None]:
    """What is wrong with them, and as much of them as can be used: None without a database."""
    found: list[Finding] = []
    settings: Settings | None = None
    try:
        settings = load_settings(environ)
    except StartError as error:
        found += [wrong("settings", f"{one.where}: {one.message}", f"set {one.where} right") for one in error.faults]
        only = {name: environ[name] for name in environ if name.endswith(("DATABASE_URL", "DATABASE_DIRECT_URL"))}
        try:
            settings = load_settings(environ, without_peppers=True)
        except StartError:
            try:
                settings = load_settings(only, without_peppers=True)
            except StartError:
                return found, None
    found += [
        advice("settings", f"`{name}` is no setting of this version", f"correct its name, or unset {name}")
        for name in unknown_settings(environ)
    ]
    return found or [fine("settings", "they fit together")], settings


def look_at_files(settings: Settings) -> list[Finding]:
    """Files with secrets that more can read than should."""
    found: list[Finding] = []
    for name in _SECRET_FILES:
        file: Path | None = getattr(settings, name, None)
        if file is None:
            continue
        try:
            mode = file.stat().st_mode
        except OSError:
            continue  # the settings say so
        if mode & (stat.S_IROTH | stat.S_IWOTH):
            message = f"everybody on this machine may read `{file}` (mode {stat.S_IMODE(mode):04o})"
            mend = f"`chmod o-rwx {file}`; for a secret of Kubernetes `defaultMode: 0440` and `fsGroup`"
            found.append(advice("files", message, mend))
    return found or [fine("files", "secrets in files are closed to others")]


# the database


async def _look_at_database(settings: Settings, found: list[Finding]) -> None:
    found += await look_at_links(settings)
    # As by a pooler, which takes less: what is looked at here has to work either way.
    database = Database(
        settings.dsn, direct_url=settings.direct_dsn or settings.dsn, pool_size=2, timeouts=_TIMEOUTS, bell=False
    )
    try:
        async with database.read() as conn:
            began = datetime.now(UTC)
            server = await fitness.load_server(conn)
            found += look_at_clock(server, began, datetime.now(UTC))
            found += look_at_server(server)
            schema = await look_at_schema(conn)
            found += schema
            if all(one.level is Level.WRONG for one in schema):
                return
            role = await fitness.load_role(conn)
            found += look_at_role(role)
            if any(right == "select" for right, _ in role.lacking):
                return  # what it may not read is looked at by nobody
            rows = await load_all(conn)
            limit = None if settings.direct_dsn is not None else await fitness.load_connection_limit(conn)
            found += look_at_connections(settings, rows, limit)
            found += look_at_replicas(settings, rows)
            found += await look_at_tokens(settings, conn)
            found += look_at_upkeep(settings, await fitness.load_upkeep(conn), running=bool(rows))
    finally:
        await database.close()


@asynccontextmanager
async def _plain(url: str) -> AsyncIterator[asyncpg.Connection]:
    async with our_errors(describe_url(url)):
        conn = await connect(url, _TIMEOUTS, pooled=True, application="authz-service doctor")
        try:
            yield conn
        finally:
            conn.terminate()


async def look_at_links(settings: Settings) -> list[Finding]:
    """Whether each URL leads where it should: to the server itself, or by way of a pooler. Opens three connections.

    Raises DatabaseUnavailableError, for the first that does not answer.
    """
    direct_url = settings.direct_dsn or settings.dsn
    found = [fine("database", f"{describe_url(settings.dsn)} answers")]
    async with _plain(settings.dsn) as pool, _plain(direct_url) as direct:
        through, beside = await _is_pooled(pool), await _is_pooled(direct)
        if settings.direct_dsn is None and through:
            message = "AUTHZ_DATABASE_URL goes through a pooler, which carries neither polls nor the bell"
            mend = "set AUTHZ_DATABASE_DIRECT_URL to the primary itself, besides"
            return [*found, wrong("pooler", message, mend)]
        if beside:
            message = "AUTHZ_DATABASE_DIRECT_URL goes through a pooler too"
            return [*found, wrong("pooler", message, "point it at the primary itself")]
        if settings.direct_dsn is not None:
            same = "select current_database()::text || ' ' || coalesce((select system_identifier::text"
            same += " from pg_control_system()), '')"
            if await _ask(pool, same) != await _ask(direct, same):
                message = "AUTHZ_DATABASE_URL and AUTHZ_DATABASE_DIRECT_URL lead to different databases"
                return [*found, wrong("pooler", message, "point both at the same primary")]
        found.append(await look_at_bell(settings, pool, direct))
    return found


async def _ask(conn: asyncpg.Connection, statement: str) -> str | None:
    try:
        return str(await conn.fetchval(statement))
    except asyncpg.PostgresError:
        return None  # not for this role: nothing to compare


async def _is_pooled(conn: asyncpg.Connection) -> bool:
    """A pooler greets with a number of its own, not with that of the process that answers."""
    return bool(conn.get_server_pid() != await conn.fetchval("select pg_backend_pid()"))


async def look_at_bell(settings: Settings, pool: asyncpg.Connection, direct: asyncpg.Connection) -> Finding:
    """Ring on a channel of our own, which nobody else hears, and wait for it."""
    slow = f"a revoke is seen after up to {settings.poll_interval:g} s, not after some hundredths"
    if not settings.bell:
        message = f"the bell is off (AUTHZ_BELL): {slow}"
        return advice("bell", message, "leave it off for engines without LISTEN alone")
    heard = asyncio.Event()
    try:
        await direct.add_listener(_CHANNEL, lambda *_: heard.set())
        await pool.execute(f"notify {_CHANNEL}")
        async with asyncio.timeout(_RING_SECONDS):
            await heard.wait()
    except (asyncpg.PostgresError, TimeoutError):
        message = f"NOTIFY was not heard by LISTEN: {slow}"
        return advice(
            "bell", message, "let both URLs lead to one primary; set AUTHZ_BELL=false where there is no LISTEN"
        )
    return fine("bell", "a ring is heard")


def look_at_clock(server: Server, began: datetime, ended: datetime) -> list[Finding]:
    """This machine's clock against the database's, by which tokens expire."""
    apart = abs((server.clock - (began + (ended - began) / 2)).total_seconds())
    if apart <= _CLOCK_ADVICE:
        return [fine("clock", "this machine and the database agree")]
    message = f"this machine's clock and the database's are {apart:,.0f} s apart; tokens expire by the database's"
    mend = "have both machines' time kept by NTP (`timedatectl`, `chronyc tracking`)"
    return [(wrong if apart > _CLOCK_WRONG else advice)("clock", message, mend)]


def look_at_server(server: Server) -> list[Finding]:
    """Whether it keeps what it acknowledges, also when it fails over."""
    found: list[Finding] = []
    if server.in_recovery:
        message = "the database is a standby: it takes no writes and proves no freshness"
        found.append(wrong("server", message, "point AUTHZ_DATABASE_URL at the primary"))
    off = [name for name, on in (("fsync", server.fsync), ("full_page_writes", server.full_page_writes)) if not on]
    if off:
        message = f"{' and '.join(off)} {'is' if len(off) == 1 else 'are'} off: a crash forgets acknowledged revokes"
        found.append(wrong("server", message, f"`alter system reset {off[0]}`, then reload the server"))
    if server.standbys and not server.standby_names.strip():
        message = f"{server.standbys} standbys follow, and none is waited for: a failover may lose acknowledged revokes"
        found.append(advice("server", message, "set `synchronous_standby_names`, or do not fail over by itself"))
    return found or [fine("server", "what it acknowledges is kept")]


async def look_at_schema(conn: AsyncConnection) -> list[Finding]:
    """Whether this version can serve from the tables that are there, and from the catalogs."""
    has, needs = await load_schema_revision(conn), schema_head()
    try:
        await check_schema(conn)
    except SchemaBehindError as error:
        return [wrong("schema", error.message.partition(";")[0], "`authz migrate`, as the tables' owner")]
    except SchemaOutdatedError as error:
        mend = "`authz migrate`" if has is None else "run the newer version of the service that made it so"
        return [wrong("schema", error.message.partition(";")[0], mend)]
    found = [fine("schema", f"it is `{needs}`")]
    if has != needs:
        found = [
            advice("schema", f"it is `{has}`, newer than this version", "finish the upgrade: start the new version")
        ]
    try:
        await check_shipped(conn, shipped_texts())
    except StartError as error:
        found.append(wrong("catalogs", error.message, "install that catalog under another version"))
    return found


def look_at_role(role: Role) -> list[Finding]:
    """Whether the service's role has what serving takes, and no more."""
    mend = f"`authz migrate --service-role {role.name}`, as the tables' owner"
    if role.lacking:
        listed = ", ".join(f"{right} on {table}" for right, table in role.lacking[:5])
        more = f" and {len(role.lacking) - 5} more" if len(role.lacking) > 5 else ""
        return [wrong("role", f"`{role.name}` lacks {listed}{more}", mend)]
    why = ""
    if role.superuser:
        why = "is a superuser"
    elif role.owns:
        why = "owns the tables"
    elif role.powers:
        why = "may make roles or databases, or passes over row security"
    elif role.creates:
        why = "may create tables"
    elif role.beyond:
        listed = ", ".join(f"{right} on {table}" for right, table in role.beyond[:5])
        why = f"has rights that serving does not need: {listed}"
    if why:
        message = f"`{role.name}` {why}: whoever takes over the service could rewrite the audit"
        mend = "serve by a role of its own: `create role … login`, then `authz migrate --service-role …` by the owner"
        return [advice("role", message, mend)]
    return [fine("role", f"`{role.name}` may do what serving takes, and no more")]
