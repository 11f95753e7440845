"""Trust rules, and the job tokens that were exchanged by them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.errors import NotFoundError
from authz_service.store.paging import page_size, read_cursor, write_cursor
from authz_service.store.tables import authz_now
from authz_service.store.trust_tables import trust_rule, trust_use
from authz_service.tokens.model import TokenId

_RULES: Final = "trust-rules"


@dataclass(frozen=True, slots=True)
class TrustRule:
    """`claims` is name to text, or to `{"like": pattern}`; `gives` is owner, catalog and scopes as they were written.

    `lifetime` is in seconds; `keys` a JWK set, None for the issuer's own; `token` whose authority the rule lives by;
    `requires_name`: it gives only to an exchange that names it.
    """

    id: str
    node: int
    name: str
    issuer: str
    audience: str
    claims: Mapping[str, Any]
    gives: Mapping[str, Any]
    lifetime: int
    keys: Mapping[str, Any] | None
    token: TokenId
    requires_name: bool = False
    created_at: datetime | None = None


async def add(conn: AsyncConnection, new: TrustRule) -> None:
    await conn.execute(
        insert(trust_rule).values(
            id=new.id,
            node_id=new.node,
            name=new.name,
            issuer=new.issuer,
            audience=new.audience,
            claims=dict(new.claims),
            gives=dict(new.gives),
            lifetime=new.lifetime,
            keys=None if new.keys is None else dict(new.keys),
            token_id=new.token,
            requires_name=new.requires_name,
        )
    )


async def remove(conn: AsyncConnection, rule_id: str) -> list[TokenId]:
    """Answers the tokens that it gave, of those that may still live."""
    await conn.execute(delete(trust_rule).where(trust_rule.c.id == rule_id))
    return await list_given(conn, rule_id)


async def replace(conn: AsyncConnection, edited: TrustRule) -> None:
    """All but its group and the time of its making."""
    values = {
        "name": edited.name,
        "issuer": edited.issuer,
        "audience": edited.audience,
        "claims": dict(edited.claims),
        "gives": dict(edited.gives),
        "lifetime": edited.lifetime,
        "keys": None if edited.keys is None else dict(edited.keys),
        "token_id": edited.token,
        "requires_name": edited.requires_name,
    }
    await conn.execute(update(trust_rule).where(trust_rule.c.id == edited.id).values(values))


async def list_given(conn: AsyncConnection, rule_id: str) -> list[TokenId]:
    """The tokens that a rule gave, of those that may still live, each the first of its rotations."""
    given = select(trust_use.c.token_id).where(trust_use.c.rule_id == rule_id).order_by(trust_use.c.token_id)
    return [TokenId(one) for one in (await conn.execute(given)).scalars()]


async def get(conn: AsyncConnection, rule_id: str, *, lock: bool = False) -> TrustRule:
    """Raises NotFoundError. `lock` holds it until the transaction ends."""
    query = select(trust_rule).where(trust_rule.c.id == rule_id)
    row = (await conn.execute(query.with_for_update() if lock else query)).mappings().one_or_none()
    if row is None:
        raise NotFoundError("there is no such trust rule")
    return _read(row)


async def list_page(
    conn: AsyncConnection, *, nodes: Collection[int] | None, limit: int, cursor: str | None
) -> tuple[tuple[TrustRule, ...], str | None]:
    """Those of these very groups, by id; None for all. Raises InvalidInputError for a strange cursor."""
    size = page_size(limit)
    query = select(trust_rule).order_by(trust_rule.c.id).limit(size + 1)
    if nodes is not None:
        query = query.where(trust_rule.c.node_id.in_(nodes))
    if cursor is not None:
        query = query.where(trust_rule.c.id > read_cursor(cursor, _RULES, 1)[0])
    rows = (await conn.execute(query)).mappings().all()
    found = tuple(map(_read, rows[:size]))
    return found, write_cursor(_RULES, found[-1].id) if len(rows) > size else None


async def keeping(conn: AsyncConnection, nodes: Collection[int]) -> list[int]:
    """Those of the groups that keep rules, by id."""
    query = select(trust_rule.c.node_id).distinct().where(trust_rule.c.node_id.in_(nodes))
    return [int(one) for one in (await conn.execute(query.order_by(trust_rule.c.node_id))).scalars()]


async def count(conn: AsyncConnection, node: int) -> int:
    return (await conn.execute(select(func.count()).where(trust_rule.c.node_id == node))).scalar_one()


async def find_for(conn: AsyncConnection, issuer: str, audiences: Sequence[str]) -> list[TrustRule]:
    """The rules of an issuer for one of these audiences, by id."""
    query = select(trust_rule).where(trust_rule.c.issuer == issuer, trust_rule.c.audience.in_(audiences))
    return [_read(row) for row in (await conn.execute(query.order_by(trust_rule.c.id))).mappings()]


async def carry_over(conn: AsyncConnection, old: TokenId, new: TokenId) -> None:
    """A token that was rotated keeps its rules."""
    await conn.execute(update(trust_rule).where(trust_rule.c.token_id == old).values(token_id=new))


async def use(conn: AsyncConnection, digest: bytes, rule_id: str, token_id: TokenId, expires_at: datetime) -> bool:
    """False when this digest was used before. Of two at once the second waits for the first's transaction.

    `expires_at` is when neither the job token nor what it was exchanged for is worth anything any more.
    """
    await conn.execute(delete(trust_use).where(trust_use.c.expires_at < authz_now))
    values = {"digest": digest, "rule_id": rule_id, "token_id": token_id, "expires_at": expires_at}
    done = await conn.execute(upsert(trust_use).values(values).on_conflict_do_nothing().returning(trust_use.c.rule_id))
    return done.scalar() is not None


def _read(row: Mapping[Any, Any]) -> TrustRule:
    return TrustRule(
        id=row["id"],
        node=row["node_id"],
        name=row["name"],
        issuer=row["issuer"],
        audience=row["audience"],
        claims=row["claims"],
        gives=row["gives"],
        lifetime=row["lifetime"],
        keys=row["keys"],
        token=TokenId(row["token_id"]),
        requires_name=row["requires_name"],
        created_at=row["created_at"],
    )
