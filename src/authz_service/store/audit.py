"""Who did what: rows that are only ever inserted, in the transaction of the change that they tell of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ARRAY, BigInteger, ColumnElement, RowMapping, cast, func, literal, select, union
from sqlalchemy import insert as insert_into
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.store.changes import Revision, Stamp
from authz_service.store.paging import bad_cursor, page_size, read_cursor, write_cursor
from authz_service.store.tables import account, audit, token, token_node
from authz_service.tokens.model import TokenId


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """`action` is a word as `token.revoke`, `subject` what it was done to: `tok_…`, `group:acme`, `gitlab@2`.

    `details` is JSON, and never holds a secret. Both actors are None for what the service does by itself. `nodes` are
    ids of the groups and projects that it concerns, whose owners may read it; `insert` adds those of a token.
    """

    action: str
    subject: str
    actor_token: TokenId | None = None
    actor_user: int | None = None
    details: Mapping[str, object] = field(default_factory=dict)
    nodes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class AuditRow:
    """An entry as stored. `hash` is None until the sealer has linked the row into the chain."""

    id: int
    at: datetime
    entry: AuditEntry
    revision: Revision | None
    hash: bytes | None = None
    seal: int | None = None


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """What a list keeps; an empty filter keeps all. `action` ending in `.` keeps all that begin so: `token.`.

    The dates are half-open: from, and before. `within` keeps rows that concern one of these ids.
    """

    within: Sequence[int] | None = None
    actor_token: TokenId | None = None
    actor_user: int | None = None
    action: str | None = None
    subject: str | None = None
    at_from: datetime | None = None
    at_before: datetime | None = None


EVERYTHING: Final = AuditFilter()
_ORDER: Final = "audit"


async def insert(conn: AsyncConnection, entry: AuditEntry, stamp: Stamp | None = None) -> int:
    """After `append`, with its stamp; None where the action takes no revision. Answers the row's id."""
    values = {
        "action": entry.action,
        "subject": entry.subject,
        "actor_token": entry.actor_token,
        "actor_user": entry.actor_user,
        "details": dict(entry.details),
        "revision": None if stamp is None else stamp.revision,
        "nodes": _nodes_of(entry),
    }
    row_id: int = (await conn.execute(insert_into(audit).values(values).returning(audit.c.id))).scalar_one()
    return row_id


def _nodes_of(entry: AuditEntry) -> ColumnElement[Any]:
    """Those given, and of a token those that it selects and the home of its owner, as of this very statement."""
    given = cast(literal(sorted(set(entry.nodes)), ARRAY(BigInteger)), ARRAY(BigInteger))
    if not entry.subject.startswith("tok_"):
        return given
    selected = select(token_node.c.node_id).where(token_node.c.token_id == entry.subject)
    home = (
        select(account.c.home_id)
        .select_from(token.join(account, account.c.node_id == token.c.owner_id))
        .where(token.c.id == entry.subject, account.c.home_id.is_not(None))
    )
    everything = union(select(func.unnest(given)), selected, home).subquery("concerned")
    column = everything.c[0]
    ordered = aggregate_order_by(column, column.asc())
    return func.coalesce(select(func.array_agg(ordered)).scalar_subquery(), given)


async def list_page(
    conn: AsyncConnection, wanted: AuditFilter = EVERYTHING, *, limit: int = 50, cursor: str | None = None
) -> tuple[tuple[AuditRow, ...], str | None]:
    """Newest first, with the next page's cursor. Raises InvalidInputError for a cursor of another list."""
    size = page_size(limit)
    query = select(audit).order_by(audit.c.id.desc()).limit(size + 1)
    for column, value in (
        (audit.c.actor_token, wanted.actor_token),
        (audit.c.actor_user, wanted.actor_user),
        (audit.c.subject, wanted.subject),
    ):
        if value is not None:
            query = query.where(column == value)
    if wanted.action is not None and wanted.action.endswith("."):
        query = query.where(audit.c.action.startswith(wanted.action, autoescape=True))
    elif wanted.action is not None:
        query = query.where(audit.c.action == wanted.action)
    if wanted.at_from is not None:
        query = query.where(audit.c.at >= wanted.at_from)
    if wanted.at_before is not None:
        query = query.where(audit.c.at < wanted.at_before)
    if wanted.within is not None:
        query = query.where(audit.c.nodes.overlap(literal(list(wanted.within), ARRAY(BigInteger))))
    if cursor is not None:
        (place,) = read_cursor(cursor, _ORDER, 1)
        if not (place.isascii() and place.isdigit() and len(place) < 19):
            raise bad_cursor()
        query = query.where(audit.c.id < int(place))
    rows = (await conn.execute(query)).mappings().all()
    found = tuple(map(read_row, rows[:size]))
    return found, write_cursor(_ORDER, str(found[-1].id)) if len(rows) > size else None


def read_row(row: Mapping[str, Any] | RowMapping) -> AuditRow:
    """The row of a result that holds the columns of `audit`."""
    return AuditRow(
        id=row["id"],
        at=row["at"],
        entry=AuditEntry(
            action=row["action"],
            subject=row["subject"],
            actor_token=row["actor_token"],
            actor_user=row["actor_user"],
            details=row["details"],
            nodes=tuple(row["nodes"]),
        ),
        revision=row["revision"],
        hash=row["hash"],
        seal=row["seal"],
    )


async def load_times(conn: AsyncConnection, ids: Sequence[int]) -> Mapping[int, datetime]:
    """When the rows of these ids were written; an id that is not there is left out."""
    query = select(audit.c.id, audit.c.at).where(audit.c.id == func.any(literal(list(ids), ARRAY(BigInteger))))
    return {row.id: row.at for row in await conn.execute(query)}
