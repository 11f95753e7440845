"""The chain over audit rows: linked after their commit, walked to be proven, and signed at its head now and then."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import ARRAY, BigInteger, LargeBinary, func, literal, select, text, update
from sqlalchemy import insert as insert_into
from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.store.audit import AuditRow, read_row
from authz_service.store.paging import bad_cursor, page_size, read_cursor, write_cursor
from authz_service.store.record_tables import audit_checkpoint
from authz_service.store.tables import audit

NO_HASH: Final = bytes(32)
"""What the first row links to."""
_LOCK: Final = 7_203_114_906
"""Beside the migrations' own: whoever holds it until its transaction ends is the one that seals."""
_ORDER: Final = "checkpoints"


@dataclass(frozen=True, slots=True)
class Head:
    """The last row of the chain; seal 0 before the first."""

    seal: int = 0
    hash: bytes = NO_HASH


@dataclass(frozen=True, slots=True)
class Sealed:
    """What one round did. `more` says that rows are left."""

    head: Head
    rows: int
    more: bool


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The head as somebody signed it. `signature` is over `message()`."""

    seal: int
    hash: bytes
    at: datetime
    algorithm: str
    key_id: str
    signature: bytes = b""

    def message(self) -> bytes:
        """What is signed: a line each, so that no two checkpoints read alike."""
        lines = ("authz-audit-checkpoint/1", self.seal, self.hash.hex(), _moment(self.at), self.algorithm, self.key_id)
        return "\n".join(map(str, lines)).encode()


@dataclass(frozen=True, slots=True)
class Link:
    """A sealed row as it is stored, with what it says of its predecessor."""

    row: AuditRow
    seal: int
    hash: bytes
    prev_hash: bytes


def row_hash(previous: bytes, seal: int, row: AuditRow) -> bytes:
    """SHA-256 over the predecessor's hash and the row as JSON: sorted names, no spaces, ASCII, microseconds."""
    entry = row.entry
    content = {
        "seal": seal,
        "id": row.id,
        "at": _moment(row.at),
        "actor_token": entry.actor_token,
        "actor_user": entry.actor_user,
        "action": entry.action,
        "subject": entry.subject,
        "details": entry.details,
        "nodes": list(entry.nodes),
        "revision": row.revision,
    }
    return hashlib.sha256(previous + json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).digest()


async def seal_rows(conn: AsyncConnection, *, limit: int = 2000) -> Sealed | None:
    """Link rows that were committed since; None when another replica is at it. It holds up nobody who writes rows."""
    held = await conn.execute(text("select pg_try_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    if not held.scalar_one():
        return None
    head = await load_head(conn)
    query = select(audit).where(audit.c.seal.is_(None)).order_by(audit.c.id).limit(limit + 1)
    found = [read_row(row) for row in (await conn.execute(query)).mappings()]
    rows = found[:limit]
    links: list[Link] = []
    for row in rows:
        hashed = row_hash(head.hash, head.seal + 1, row)
        links.append(Link(row, head.seal + 1, hashed, head.hash))
        head = Head(head.seal + 1, hashed)
    if links:
        await conn.execute(_write(links))
    return Sealed(head, len(rows), len(found) > limit)


def _write(links: list[Link]) -> Any:
    given = (
        func.unnest(
            literal([link.row.id for link in links], ARRAY(BigInteger)),
            literal([link.seal for link in links], ARRAY(BigInteger)),
            literal([link.hash for link in links], ARRAY(LargeBinary)),
            literal([link.prev_hash for link in links], ARRAY(LargeBinary)),
        )
        .table_valued("id", "seal", "hash", "prev_hash", name="given")
        .render_derived()
    )
    values = {"seal": given.c.seal, "hash": given.c.hash, "prev_hash": given.c.prev_hash}
    return update(audit).where(audit.c.id == given.c.id).values(values)


async def load_head(conn: AsyncConnection) -> Head:
    query = select(audit.c.seal, audit.c.hash).where(audit.c.seal.is_not(None)).order_by(audit.c.seal.desc()).limit(1)
    row = (await conn.execute(query)).one_or_none()
    return Head() if row is None else Head(row.seal, row.hash)


async def load_links(conn: AsyncConnection, *, after: int = 0, limit: int = 2000) -> tuple[Link, ...]:
    """Sealed rows in the order of the chain."""
    query = select(audit).where(audit.c.seal > after).order_by(audit.c.seal).limit(limit)
    return tuple(
        Link(read_row(row), row["seal"], row["hash"], row["prev_hash"])
        for row in (await conn.execute(query)).mappings()
    )


async def count_unsealed(conn: AsyncConnection) -> int:
    """Rows that no seal protects yet: a second's worth, while a replica runs."""
    return (await conn.execute(select(func.count()).where(audit.c.seal.is_(None)))).scalar_one()


async def add_checkpoint(conn: AsyncConnection, new: Checkpoint) -> None:
    """In the transaction that sealed its head. One for each head: a second of the same is refused by the table."""
    values = {
        "seal": new.seal,
        "hash": new.hash,
        "at": new.at,
        "algorithm": new.algorithm,
        "key_id": new.key_id,
        "signature": new.signature,
    }
    await conn.execute(insert_into(audit_checkpoint).values(values))


async def last_checkpoint(conn: AsyncConnection) -> Checkpoint | None:
    query = select(audit_checkpoint).order_by(audit_checkpoint.c.seal.desc()).limit(1)
    row = (await conn.execute(query)).mappings().one_or_none()
    return None if row is None else read_checkpoint(row)


async def list_checkpoints(
    conn: AsyncConnection, *, limit: int = 50, cursor: str | None = None
) -> tuple[tuple[Checkpoint, ...], str | None]:
    """Newest first, with the next page's cursor. Raises InvalidInputError for a cursor of another list."""
    size = page_size(limit)
    query = select(audit_checkpoint).order_by(audit_checkpoint.c.seal.desc()).limit(size + 1)
    if cursor is not None:
        (place,) = read_cursor(cursor, _ORDER, 1)
        if not (place.isascii() and place.isdigit() and len(place) < 19):
            raise bad_cursor()
        query = query.where(audit_checkpoint.c.seal < int(place))
    rows = (await conn.execute(query)).mappings().all()
    found = tuple(map(read_checkpoint, rows[:size]))
    return found, write_cursor(_ORDER, str(found[-1].seal)) if len(rows) > size else None


def read_checkpoint(row: Mapping[str, Any] | Any) -> Checkpoint:
    return Checkpoint(row["seal"], row["hash"], row["at"], row["algorithm"], row["key_id"], row["signature"])


def _moment(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds")
