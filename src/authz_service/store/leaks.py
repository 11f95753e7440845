"""Reported secrets: kept as digests until they are looked up, alike whether they hit a token or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import ARRAY, LargeBinary, delete, func, literal, select
from sqlalchemy import insert as insert_into
from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.store.record_tables import leak_report
from authz_service.store.tables import token
from authz_service.tokens.model import TokenId


@dataclass(frozen=True, slots=True)
class Reported:
    """`origin` is who found it, as `github` or `report`; `found_in` where, in their words, with no secret in them.

    `reporter` is the token of an authenticated reporter.
    """

    digest: bytes
    origin: str
    found_in: str | None = None
    reporter: TokenId | None = None


async def insert(conn: AsyncConnection, reports: Sequence[Reported]) -> None:
    """Keep reports until `take`."""
    rows = [
        {"digest": one.digest, "origin": one.origin, "found_in": one.found_in, "reporter": one.reporter}
        for one in reports
    ]
    if rows:
        await conn.execute(insert_into(leak_report), rows)


async def take(conn: AsyncConnection, *, limit: int = 500) -> tuple[Reported, ...]:
    """The oldest reports; gone with this transaction. Of two callers at once each gets others."""
    oldest = select(leak_report.c.id).order_by(leak_report.c.id).limit(limit).with_for_update(skip_locked=True)
    taken = await conn.execute(delete(leak_report).where(leak_report.c.id.in_(oldest)).returning(*leak_report.c))
    return tuple(Reported(row.digest, row.origin, row.found_in, row.reporter) for row in taken)


async def find_hit(conn: AsyncConnection, digests: Sequence[bytes]) -> Mapping[bytes, TokenId]:
    """The tokens among these digests, whatever their state."""
    wanted = token.c.digest == func.any(literal(list(digests), ARRAY(LargeBinary)))
    rows = await conn.execute(select(token.c.digest, token.c.id).where(wanted))
    return {row.digest: TokenId(row.id) for row in rows}
