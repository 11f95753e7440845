"""What tokens were used for: folded in by batches, read for a while, forgotten after it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any, Final

from sqlalchemy import ARRAY, ColumnElement, Date, Text, cast, delete, func, literal, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.store.changes import load_clock
from authz_service.store.directory import below_ids
from authz_service.store.tables import authz_now, token
from authz_service.store.tokens import stamp_used
from authz_service.store.usage_tables import token_network, token_usage
from authz_service.tokens.model import TokenId

ANYWHERE: Final = "anywhere"
"""As a place: some place or other of those that the token reaches."""
MANY: Final = "*"
"""As a place: more places than are kept one by one."""
KEPT_DAYS: Final = 90
_MOST_ROWS: Final = 5_000
"""Of one token on one day; what comes beyond is written under MANY."""
_MOST_NETWORKS: Final = 50


@dataclass(frozen=True, slots=True)
class Use:
    """So many calls by a token with a permission at a place: a node's id in digits, or a text."""

    token: TokenId
    catalog: str
    permission: str
    place: str
    calls: int = 1


@dataclass(frozen=True, slots=True)
class NetworkUse:
    """So many calls by a token from a network."""

    token: TokenId
    network: str
    calls: int = 1


@dataclass(frozen=True, slots=True)
class Used:
    """What is recorded of a permission at a place: calls, on how many days, and when the last was."""

    catalog: str
    permission: str
    place: str
    calls: int
    days: int
    last_at: datetime


@dataclass(frozen=True, slots=True)
class Network:
    """Where calls came from."""

    network: str
    calls: int
    first_at: datetime
    last_at: datetime


@dataclass(frozen=True, slots=True)
class Span:
    """How much is known: days with any use, calls in all, the first day and the last moment."""

    days: int = 0
    calls: int = 0
    first_day: date | None = None
    last_at: datetime | None = None


async def fold(conn: AsyncConnection, uses: Sequence[Use], networks: Sequence[NetworkUse]) -> None:
    """Add a batch to what is known, as of now, and move `last_used_at`. Bumps no revision.

    Tokens that are gone are passed over. Rows are written in the order of their keys, so that replicas that fold at
    the same time wait for each other and do not deadlock.
    """
    wanted = {use.token for use in uses} | {use.token for use in networks}
    ids = literal(sorted(wanted), ARRAY(Text))
    living = set((await conn.execute(select(token.c.id).where(token.c.id == func.any(ids)))).scalars())
    now = await load_clock(conn)
    rows = await _bounded(conn, [use for use in uses if use.token in living], now)
    if rows:
        new = insert(token_usage).values(rows)
        await conn.execute(
            new.on_conflict_do_update(
                constraint="pk_token_usage",
                set_={
                    "calls": token_usage.c.calls + new.excluded.calls,
                    "last_at": func.greatest(token_usage.c.last_at, new.excluded.last_at),
                },
            )
        )
    await _fold_networks(conn, [use for use in networks if use.token in living], now)
    if living:
        await stamp_used(conn, dict.fromkeys(map(TokenId, sorted(living)), now))


async def _bounded(conn: AsyncConnection, uses: Sequence[Use], now: datetime) -> list[dict[str, Any]]:
    """Rows to write: for tokens with as many places today as are kept, new ones come under MANY."""
    tokens = literal(sorted({use.token for use in uses}), ARRAY(Text))
    today = token_usage.c.day == now.date()
    counted = select(token_usage.c.token_id, func.count()).where(token_usage.c.token_id == func.any(tokens), today)
    found = await conn.execute(counted.group_by(token_usage.c.token_id))
    full = {token_id for token_id, count in found if count >= _MOST_ROWS}
    calls: Counter[Use] = Counter()
    for use in uses:
        place = MANY if use.token in full else use.place
        calls[replace(use, place=place, calls=0)] += use.calls
    ordered = sorted(calls, key=lambda use: (use.token, use.catalog, use.permission, use.place))
    return [
        {
            "token_id": use.token,
            "day": now.date(),
            "catalog": use.catalog,
            "permission": use.permission,
            "place": use.place,
            "calls": calls[use],
            "last_at": now,
        }
        for use in ordered
    ]


async def _fold_networks(conn: AsyncConnection, uses: Sequence[NetworkUse], now: datetime) -> None:
    if not uses:
        return
    ordered = sorted(uses, key=lambda use: (use.token, use.network))
    new = insert(token_network).values(
        [
            {"token_id": use.token, "network": use.network, "calls": use.calls, "first_at": now, "last_at": now}
            for use in ordered
        ]
    )
    await conn.execute(
        new.on_conflict_do_update(
            constraint="pk_token_network",
            set_={"calls": token_network.c.calls + new.excluded.calls, "last_at": new.excluded.last_at},
        )
    )
    ids = sorted({use.token for use in uses})
    place = func.row_number().over(partition_by=token_network.c.token_id, order_by=token_network.c.last_at.desc())
    ranked = select(token_network.c.token_id, token_network.c.network, place.label("place")).where(
        token_network.c.token_id == func.any(literal(ids, ARRAY(Text)))
    )
    ranked_rows = ranked.subquery()
    surplus = select(ranked_rows.c.token_id, ranked_rows.c.network).where(ranked_rows.c.place > _MOST_NETWORKS)
    await conn.execute(
        delete(token_network).where(tuple_(token_network.c.token_id, token_network.c.network).in_(surplus))
    )


async def prune(conn: AsyncConnection, *, kept_days: int = KEPT_DAYS) -> int:
    """Forget days that are longer past than that; answers how many rows went."""
    oldest = cast(authz_now, Date) - kept_days
    done = await conn.execute(delete(token_usage).where(token_usage.c.day < oldest).returning(token_usage.c.token_id))
    return len(done.all())


def _recent(days: int) -> ColumnElement[bool]:
    return token_usage.c.day > cast(select(authz_now).scalar_subquery(), Date) - days


async def load_used(conn: AsyncConnection, tokens: Collection[TokenId], *, days: int) -> tuple[Used, ...]:
    """What these tokens, together, were used for in the last days, by catalog, permission and place."""
    keys = (token_usage.c.catalog, token_usage.c.permission, token_usage.c.place)
    query = (
        select(
            *keys,
            func.sum(token_usage.c.calls).label("calls"),
            func.count(token_usage.c.day.distinct()).label("days"),
            func.max(token_usage.c.last_at).label("last_at"),
        )
        .where(token_usage.c.token_id == func.any(literal(sorted(tokens), ARRAY(Text))), _recent(days))
        .group_by(*keys)
        .order_by(*keys)
    )
    rows = (await conn.execute(query)).mappings()
    return tuple(
        Used(row["catalog"], row["permission"], row["place"], int(row["calls"]), row["days"], row["last_at"])
        for row in rows
    )


async def load_span(
    conn: AsyncConnection, tokens: Collection[TokenId], *, days: int, places: Collection[str] | None = None
) -> Span:
    """How much of these tokens' use is known; with `places`, of their use there."""
    query = select(
        func.count(token_usage.c.day.distinct()),
        func.coalesce(func.sum(token_usage.c.calls), 0),
        func.min(token_usage.c.day),
        func.max(token_usage.c.last_at),
    ).where(token_usage.c.token_id == func.any(literal(sorted(tokens), ARRAY(Text))), _recent(days))
    if places is not None:
        query = query.where(token_usage.c.place == func.any(literal(sorted(places), ARRAY(Text))))
    row = (await conn.execute(query)).one()
    return Span(row[0], int(row[1]), row[2], row[3])


async def load_networks(conn: AsyncConnection, token_id: TokenId) -> tuple[Network, ...]:
    """Where its calls came from, the latest first."""
    query = select(token_network).where(token_network.c.token_id == token_id).order_by(token_network.c.last_at.desc())
    rows = (await conn.execute(query)).mappings()
    return tuple(Network(row["network"], row["calls"], row["first_at"], row["last_at"]) for row in rows)


async def load_permissions(
    conn: AsyncConnection, tokens: Collection[TokenId], *, days: int
) -> Mapping[TokenId, frozenset[tuple[str, str]]]:
    """(catalog, permission) of whatever each of these tokens was used for."""
    query = (
        select(token_usage.c.token_id, token_usage.c.catalog, token_usage.c.permission)
        .where(token_usage.c.token_id == func.any(literal(sorted(tokens), ARRAY(Text))), _recent(days))
        .distinct()
    )
    found: dict[TokenId, set[tuple[str, str]]] = {}
    for token_id, catalog, permission in await conn.execute(query):
        found.setdefault(TokenId(token_id), set()).add((catalog, permission))
    return {token_id: frozenset(names) for token_id, names in found.items()}


async def load_descendants(conn: AsyncConnection, token_id: TokenId) -> tuple[TokenId, ...]:
    """The token, those it replaced and all that were issued under these: what it must hold for them to work (T4)."""
    family = select(token.c.family_id).where(token.c.id == token_id).scalar_subquery()
    line = select(token.c.id).where(token.c.family_id == family).cte("line", recursive=True)
    child = token.alias("child")
    line = line.union(select(child.c.id).where(child.c.parent_id == line.c.id))
    return tuple(TokenId(found) for found in (await conn.execute(select(line.c.id))).scalars())


@dataclass(frozen=True, slots=True)
class TokenUse:
    """One token's use of a permission at a place."""

    token: TokenId
    permission: str
    place: str
    calls: int
    last_at: datetime


async def load_uses(
    conn: AsyncConnection,
    catalog: str,
    *,
    days: int,
    after: tuple[str, str, str] | None,
    limit: int,
    permissions: Collection[str] | None = None,
    owner: int | None = None,
    below: int | None = None,
) -> tuple[TokenUse, ...]:
    """Uses of live tokens in one catalog, by (token, permission, place), from beyond `after`.

    `permissions` keeps those of these names; `owner` those of tokens that act for this user, and of tokens under them;
    `below` those at this node or below it.
    """
    keys = (token_usage.c.token_id, token_usage.c.permission, token_usage.c.place)
    query = (
        select(*keys, func.sum(token_usage.c.calls).label("calls"), func.max(token_usage.c.last_at).label("last_at"))
        .join(token, token.c.id == token_usage.c.token_id)
        .where(token_usage.c.catalog == catalog, _recent(days), token.c.revoked_at.is_(None))
    )
    if permissions is not None:
        query = query.where(token_usage.c.permission == func.any(literal(sorted(permissions), ARRAY(Text))))
    if owner is not None:
        line = select(token.c.id).where(token.c.owner_id == owner).cte("owned", recursive=True)
        child = token.alias("child")
        line = line.union(select(child.c.id).where(child.c.parent_id == line.c.id))
        query = query.where(token_usage.c.token_id.in_(select(line.c.id)))
    if below is not None:
        inside = below_ids(below)
        query = query.where(token_usage.c.place.in_(select(cast(inside.c.id, Text))))
    if after is not None:
        query = query.where(tuple_(*keys) > tuple_(*(literal(part) for part in after)))
    rows = (await conn.execute(query.group_by(*keys).order_by(*keys).limit(limit))).mappings()
    return tuple(
        TokenUse(TokenId(row["token_id"]), row["permission"], row["place"], int(row["calls"]), row["last_at"])
        for row in rows
    )
