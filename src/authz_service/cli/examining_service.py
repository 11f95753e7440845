"""What `authz doctor` sees of the service in its database: replicas, tokens, gateways, and work that recurs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service import __version__
from authz_service.cli.findings import Finding, advice, fine, wrong
from authz_service.config import Settings, read_foreign, read_peppers
from authz_service.errors import StartError
from authz_service.pdp.secrets import Peppers
from authz_service.store import fitness
from authz_service.store.fitness import GatewayToken, Upkeep
from authz_service.store.replicas import Replica
from authz_service.store.shipped import shipped_catalogs
from authz_service.store.token_sweeps import count_by_kid

DAY: Final = 86_400.0
_GATEWAY_SOON: Final = 14 * DAY
_UNSEALED_SECONDS: Final = 60.0
_SWEEPS_SECONDS: Final = 3600.0
_LOG_KEPT: Final = 200_000


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


async def look_at_tokens(settings: Settings, conn: AsyncConnection) -> list[Finding]:
    """Their peppers, the gateway's own, admins, and catalogs that they were made under."""
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
