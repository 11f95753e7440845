"""What `authz doctor` looks at: settings, files, the database, its server, and what the service leaves there."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Final

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service import __version__
from authz_service.config import Settings, load_settings, read_foreign, read_peppers, unknown_settings
from authz_service.errors import DatabaseUnavailableError, SchemaBehindError, SchemaOutdatedError, StartError
from authz_service.pdp.secrets import Peppers
from authz_service.store import fitness
from authz_service.store.catalogs import check_shipped
from authz_service.store.connect import Timeouts, connect, describe_url, our_errors, sqlstate
from authz_service.store.database import Database
from authz_service.store.fitness import GatewayToken, Role, Server, Upkeep
from authz_service.store.replicas import Replica, load_all
from authz_service.store.schema import check_schema, load_schema_revision, schema_head
from authz_service.store.shipped import shipped_catalogs, shipped_texts
from authz_service.store.token_sweeps import count_by_kid

DAY: Final = 86_400.0
_CHANNEL: Final = "authz_doctor"
_RING_SECONDS: Final = 3.0
_CLOCK_ADVICE, _CLOCK_WRONG = 2.0, 30.0
_GATEWAY_SOON: Final = 14 * DAY
_UNSEALED_SECONDS: Final = 60.0
_SWEEPS_SECONDS: Final = 3600.0
_LOG_KEPT: Final = 200_000
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


class Level(StrEnum):
    """`wrong` breaks the service or its promise, now or soon; `advice` does not yet."""

    FINE = "fine"
    ADVICE = "advice"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check saw. `mend` says what to do, and is empty where nothing is to be done."""

    check: str
    level: Level
    message: str
    mend: str = ""


def fine(check: str, message: str) -> Finding:
    return Finding(check, Level.FINE, message)


def advice(check: str, message: str, mend: str) -> Finding:
    return Finding(check, Level.ADVICE, message, mend)


def wrong(check: str, message: str, mend: str) -> Finding:
    return Finding(check, Level.WRONG, message, mend)


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
            found += await _look_at_tokens(settings, conn)
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


def look_at_connections(settings: Settings, rows: Sequence[Replica], limit: int | None) -> list[Finding]:
    """This start beside the replicas that run. `limit` is None behind a pooler."""
    own = settings.workers * settings.connections
    others = sum(row.connections for row in rows)
    if limit is None:
        return [fine("connections", "the pooler counts them")]
    if own > limit or others > limit:
        many = max(own, others)
        message = f"{many} connections are wanted, and the database takes {limit} from this role"
        mend = "raise `max_connections`, lower AUTHZ_POOL_SIZE or AUTHZ_WORKERS, or put a pooler in between"
        return [wrong("connections", message, mend)]
    if own + others > limit:
        message = f"{others} are in use by replicas, and {own} more of this one would exceed the {limit} there are"
        return [advice("connections", message, "leave room for one replica more, or a rolling update cannot start one")]
    return [fine("connections", f"{own} for this one and {others} of replicas that run, of {limit}")]


def look_at_replicas(settings: Settings, rows: Sequence[Replica]) -> list[Finding]:
    """Whether those that run are alike."""
    found: list[Finding] = []
    versions = sorted({row.name.rpartition(" ")[2] for row in rows if " " in row.name})
    if len(versions) > 1 or (versions and versions != [__version__]):
        seen = ", ".join(sorted({*versions, __version__}))
        message = f"versions differ: {seen}; a new rule counts everywhere once the last old replica is gone"
        found.append(advice("replicas", message, "finish the rolling update"))
    stalenesses = sorted({row.max_staleness for row in rows} | {settings.max_staleness})
    if len(stalenesses) > 1:
        listed = ", ".join(f"{one:g}" for one in stalenesses)
        message = f"AUTHZ_MAX_STALENESS differs ({listed} s): the promise is that of the largest"
        found.append(advice("replicas", message, "give every replica the same"))
    if not rows:
        return [advice("replicas", "no replica runs", "`authz serve`")]
    return found or [fine("replicas", f"{len(rows)} run, alike")]


# what is stored


async def _look_at_tokens(settings: Settings, conn: AsyncConnection) -> list[Finding]:
    found: list[Finding] = []
    try:
        peppers, current = read_peppers(settings)
    except StartError:
        found.append(wrong("peppers", "there are none that can be used", "see what is said of the settings"))
    else:
        keys = Peppers(peppers, current, settings.token_prefix, read_foreign(settings, current))
        found += look_at_kids(await count_by_kid(conn), peppers)
        found += await _look_at_own_gateway(settings, conn, keys)
    found += look_at_gateways(await fitness.find_expiring_gateways(conn, soon=_GATEWAY_SOON))
    admins, able = await fitness.count_admins(conn)
    if not admins:
        found.append(wrong("admins", "there is no active admin", "`authz bootstrap`"))
    elif not able:
        message = "no active admin has a password or a living token that manages: nobody can"
        found.append(wrong("admins", message, "`authz bootstrap --break-glass`, or `authz user sign-in-link`"))
    else:
        found.append(fine("admins", f"{able} of {admins} can manage"))
    missing = await fitness.find_missing_catalogs(conn, shipped=[one.label for one in shipped_catalogs()])
    if missing:
        message = f"living tokens were made under {', '.join(missing[:5])}, which is not installed: they are denied"
        found.append(wrong("catalogs", message, f"`authz catalog install` the file of {missing[0]} again"))
    return found


def look_at_kids(counted: Sequence[Mapping[str, object]], peppers: Mapping[str, bytes]) -> list[Finding]:
    """Whether the pepper of every living token is at hand."""
    lost = [row for row in counted if row["living"] and row["kid"] not in peppers]
    if not lost:
        return [fine("peppers", "each living token's is known")]
    listed = ", ".join(f"{row['living']} of `{row['kid']}`" for row in lost)
    message = f"living tokens have no pepper here and do not work: {listed}"
    return [
        wrong("peppers", message, "put the old pepper back beside the new one, and set AUTHZ_PEPPER_KID to the new")
    ]


async def _look_at_own_gateway(settings: Settings, conn: AsyncConnection, peppers: Peppers) -> list[Finding]:
    """The token that the gateway's own listener stands for."""
    if settings.gateway_token_file is None:
        return []
    try:
        digest = peppers.digest(settings.gateway_token_file.read_text("utf-8").strip())
    except (OSError, UnicodeDecodeError):
        return []  # the settings say so
    token = None if digest is None else await fitness.find_gateway(conn, digest)
    return [look_at_gateway(token)]


def look_at_gateway(token: GatewayToken | None) -> Finding:
    """One that is shown on every request."""
    mend = "issue one with `decision:evaluate` and put it into AUTHZ_GATEWAY_TOKEN_FILE"
    if token is None:
        return wrong("gateway", "AUTHZ_GATEWAY_TOKEN_FILE holds no token of this database", mend)
    if token.revoked or (token.left is not None and token.left <= 0):
        how = "was revoked" if token.revoked else "has expired"
        return wrong("gateway", f"the gateway's token {token.id} {how}: every request is refused", mend)
    if not token.evaluates:
        return wrong("gateway", f"the gateway's token {token.id} may not ask for decisions", mend)
    return fine("gateway", f"its token {token.id} works")


def look_at_gateways(expiring: Sequence[GatewayToken]) -> list[Finding]:
    """Tokens by which decisions are asked for, that end soon: with one, all behind that gateway is refused."""
    return [
        advice(
            "gateway",
            f"{one.id}, which asks for decisions, expires in {max(0.0, one.left or 0.0) / DAY:.1f} days",
            f"`authz token rotate {one.id}` with an overlap, and give the gateway the new secret",
        )
        for one in expiring
    ]


def look_at_upkeep(settings: Settings, upkeep: Upkeep, *, running: bool) -> list[Finding]:
    """Whether anybody does what is to be done again and again."""
    found: list[Finding] = []
    restart = "see the log of the replicas for the part that ended, and restart them"
    if upkeep.shift:
        message = f"the database's clock is shifted by {upkeep.shift:,.0f} s, as in a test: tokens expire by it"
        found.append(wrong("clock", message, "as the tables' owner: `update clock_shift set shift = interval '0'`"))
    if upkeep.unsealed and upkeep.unsealed_for > _UNSEALED_SECONDS:
        message = (
            f"{upkeep.unsealed} rows of the audit wait for their seal, the oldest for {upkeep.unsealed_for:,.0f} s"
        )
        mend = restart if running else "start a replica: it seals"
        found.append((wrong if running else advice)("audit", message, mend))
    else:
        found.append(fine("audit", "it is sealed"))
    found += look_at_sweeps(settings, upkeep, running=running)
    if upkeep.logged > _LOG_KEPT:
        message = f"the change log keeps {upkeep.logged:,} revisions: nobody prunes it"
        found.append(advice("change log", message, restart))
    return found


def look_at_sweeps(settings: Settings, upkeep: Upkeep, *, running: bool) -> list[Finding]:
    """Notices before expiry, tokens nobody uses, retention."""
    mend = "let AUTHZ_SWEEP_INTERVAL be more than 0, or run `authz sweep` by a timer"
    patience = max(_SWEEPS_SECONDS, 4 * settings.sweep_interval)
    late = [name for name, ended in upkeep.sweeps.items() if ended is None or ended > patience]
    if upkeep.age > patience and (late or not upkeep.sweeps):
        which = ", ".join(sorted(late)) or "none of them ever"
        message = (
            f"sweeps have not ended for {patience / 3600:.1f} h: {which}; nobody is told of expiry, nothing purged"
        )
        return [(wrong if running else advice)("sweeps", message, mend)]
    return [fine("sweeps", "they run" if upkeep.sweeps else "none was due yet")]
