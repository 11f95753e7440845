"""Lists of grant requests and grants: what concerns a place, or a token, in complete pages, newest first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, Select, Table, select
from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.directory.model import INSTANCE_ID, NodeId
from authz_service.store.directory import below_ids
from authz_service.store.grants import GrantRecord, RequestRecord, read_grant, read_request
from authz_service.store.paging import bad_cursor, page_size, read_cursor, write_cursor
from authz_service.store.policy_tables import grant_request, token_grant
from authz_service.tokens.model import TokenId

_ORDER: Final = {"grant_request": "grant-requests", "token_grant": "grants"}


@dataclass(frozen=True, slots=True)
class ApprovalFilter:
    """What a list keeps; an empty one keeps all. `under` is a group with all below it; the instance is everything."""

    under: NodeId | None = None
    state: str | None = None
    catalog: str | None = None
    family: TokenId | None = None


async def list_requests(
    conn: AsyncConnection, wanted: ApprovalFilter, *, limit: int = 50, cursor: str | None = None
) -> tuple[tuple[RequestRecord, ...], str | None]:
    """A page and the next one's cursor. Raises InvalidInputError for a cursor of another list."""
    query = _page(grant_request, wanted, limit, cursor)
    rows = (await conn.execute(query)).mappings().all()
    found = tuple(read_request(row) for row in rows[: page_size(limit)])
    return found, _next(grant_request, found[-1].request.id if found else 0, more=len(rows) > len(found))


async def list_grants(
    conn: AsyncConnection, wanted: ApprovalFilter, *, limit: int = 50, cursor: str | None = None
) -> tuple[tuple[GrantRecord, ...], str | None]:
    """Like `list_requests`."""
    query = _page(token_grant, wanted, limit, cursor)
    rows = (await conn.execute(query)).mappings().all()
    found = tuple(read_grant(row) for row in rows[: page_size(limit)])
    return found, _next(token_grant, found[-1].grant.id if found else 0, more=len(rows) > len(found))


def _page(table: Table, wanted: ApprovalFilter, limit: int, cursor: str | None) -> Select[tuple[object, ...]]:
    kept: list[ColumnElement[bool]] = []
    if isinstance(wanted.under, int) and wanted.under != INSTANCE_ID:
        kept.append(table.c.group_id.in_(select(below_ids(wanted.under).c.id)))
    elif isinstance(wanted.under, str):
        kept.append((table.c.group_name == wanted.under) | table.c.group_name.startswith(f"{wanted.under}/"))
    if wanted.state is not None:
        kept.append(table.c.state == wanted.state)
    if wanted.catalog is not None:
        kept.append(table.c.catalog == wanted.catalog)
    if wanted.family is not None:
        kept.append(table.c.family_id == wanted.family)
    if cursor is not None:
        (place,) = read_cursor(cursor, _ORDER[table.name], 1)
        if not (place.isascii() and place.isdigit() and len(place) < 19):
            raise bad_cursor()
        kept.append(table.c.id < int(place))
    return select(table).where(*kept).order_by(table.c.id.desc()).limit(page_size(limit) + 1)


def _next(table: Table, last: int, *, more: bool) -> str | None:
    return write_cursor(_ORDER[table.name], str(last)) if more else None
