"""Live tokens by the catalog version that they are pinned to: read in pages, and moved to another version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ARRAY, BigInteger, ColumnElement, Text, cast, func, literal, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.directory.model import NodeId, NodeKind
from authz_service.store.changes import ChangeKind, ChangeSet
from authz_service.store.tables import authz_now, node, token
from authz_service.store.token_rows import TokenRecord, read_record
from authz_service.tokens.model import TokenId

_RECORD: Final = tuple(column for column in token.c if column.name != "digest")
# What a token may do, as the database writes it: jsonb has one spelling for each value.
_PRINT: Final[ColumnElement[str]] = func.md5(
    func.concat_ws(" ", cast(token.c.scopes, Text), cast(token.c.legacy_scopes, Text))
)


@dataclass(frozen=True, slots=True)
class Pin:
    """A live token as it was read. `print` changes with whatever the token may do."""

    record: TokenRecord
    print: str


async def load_page(
    conn: AsyncConnection, catalog: str, *, before: int | None = None, after: TokenId | None = None, limit: int
) -> tuple[Pin, ...]:
    """Tokens that name the catalog and are neither revoked nor expired, by id; with `before`, of lower versions alone.

    The next page begins after the last id of this one.
    """
    query = select(*_RECORD, _PRINT.label("print")).where(token.c.catalogs.has_key(catalog), *_alive())
    if before is not None:
        query = query.where(_version(catalog) < before)
    if after is not None:
        query = query.where(token.c.id > after)
    rows = (await conn.execute(query.order_by(token.c.id).limit(limit))).mappings().all()
    return tuple(Pin(read_record(row), row["print"]) for row in rows)


async def load_live(conn: AsyncConnection, ids: Sequence[TokenId]) -> Mapping[TokenId, TokenRecord]:
    """Those of these tokens that are neither revoked nor expired."""
    query = select(*_RECORD).where(token.c.id == func.any(literal(list(ids), ARRAY(Text))), *_alive())
    found = [read_record(row) for row in (await conn.execute(query)).mappings()]
    return {record.token.id: record for record in found}


async def load_kinds(conn: AsyncConnection, ids: Sequence[int]) -> Mapping[NodeId, NodeKind]:
    """What these nodes are, deleted ones too."""
    query = select(node.c.id, node.c.kind).where(node.c.id == func.any(literal(list(ids), ARRAY(BigInteger))))
    return {row.id: NodeKind(row.kind) for row in (await conn.execute(query)).all()}


async def repin(
    conn: AsyncConnection, changes: ChangeSet, catalog: str, pins: Sequence[Pin], version: int
) -> tuple[TokenId, ...]:
    """Move tokens to another version of the catalog; answers those that were moved.

    Left alone is what was revoked, edited or moved since it was read: nothing was said about it as it is now.
    """
    read = (
        func.unnest(
            literal([pin.record.token.id for pin in pins], ARRAY(Text)),
            literal([pin.print for pin in pins], ARRAY(Text)),
            literal([pin.record.token.catalogs[catalog] for pin in pins], ARRAY(BigInteger)),
        )
        .table_valued("id", "print", "version", name="read")
        .render_derived()
    )
    moved = func.jsonb_set(
        token.c.catalogs, literal([catalog], ARRAY(Text)), func.to_jsonb(literal(version, BigInteger))
    )
    done = await conn.execute(
        update(token)
        .where(
            token.c.id == read.c.id,
            read.c.print == _PRINT,
            _version(catalog) == read.c.version,
            token.c.revoked_at.is_(None),
        )
        .values(catalogs=moved)
        .returning(token.c.id)
    )
    found = tuple(TokenId(each) for each in done.scalars())
    for each in found:
        changes.touch(ChangeKind.TOKEN, each)
    return found


def _version(catalog: str) -> ColumnElement[int]:
    return cast(token.c.catalogs[catalog].astext, BigInteger)


def _alive() -> tuple[ColumnElement[bool], ...]:
    now = select(authz_now).scalar_subquery()
    return (token.c.revoked_at.is_(None), or_(token.c.expires_at.is_(None), token.c.expires_at > now))
