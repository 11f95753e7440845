"""Grant requests and grants as rows: asked, closed, given and taken back, one token's family at a time."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    RowMapping,
    Table,
    Text,
    delete,
    exists,
    func,
    insert,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.directory.model import NodeId
from authz_service.store.changes import STAMP_COLUMNS, ChangeKind, ChangeSet, Stamp, read_stamp
from authz_service.store.policies import place_columns
from authz_service.store.policy_tables import approval_no, grant_request, token_grant
from authz_service.store.tables import authz_now, token
from authz_service.store.token_rows import TokenRecord, read_record
from authz_service.tokens.grants import Approvals, Grant, GrantRequest, GrantState, Origin, Pair, RequestState
from authz_service.tokens.model import TokenId


@dataclass(frozen=True, slots=True)
class By:
    """Who did it; both None for the service itself."""

    token: TokenId | None = None
    user: int | None = None


NOBODY = By()


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """A request with what only management shows of it. `family` is the first token of all rotations."""

    request: GrantRequest
    reason: str
    asked_at: datetime
    asked_by: By
    closed_at: datetime | None = None
    closed_by: By = NOBODY
    closed_reason: str | None = None
    superseded_by: int | None = None

    @property
    def family(self) -> TokenId:
        return self.request.token

    @property
    def given_by_rule(self) -> bool:
        """Approved by an `auto_approve` rule: nobody closed it, for that reason."""
        approved = self.request.state is RequestState.APPROVED
        return approved and self.closed_by == NOBODY and self.closed_reason == f"by {Origin.RULE.value}"


@dataclass(frozen=True, slots=True)
class GrantRecord:
    """A grant with what only management shows of it."""

    grant: Grant
    origin: Origin
    granted_at: datetime
    granted_by: By
    revoked_at: datetime | None = None
    revoked_by: By = NOBODY
    revoked_reason: str | None = None

    @property
    def family(self) -> TokenId:
        return self.grant.token


# reading


async def load_of_token(conn: AsyncConnection, token_id: TokenId) -> tuple[Stamp, Approvals]:
    """All that was asked and given for the rotations that this token is one of, in one statement."""
    row = (await conn.execute(_OF_TOKEN, {"token": token_id})).mappings().one()
    return read_stamp(row), Approvals(
        tuple(_request(found) for found in row["requests"]), tuple(_grant(found) for found in row["grants"])
    )


_OF_TOKEN: Final = select(
    *STAMP_COLUMNS,
    *(
        text(
            f"(select coalesce(jsonb_agg(to_jsonb(g) order by g.id), '[]'::jsonb) from {table.name} g "  # noqa: S608
            f"where g.family_id = (select t.family_id from token t where t.id = :token)) as {name}"
        )
        for table, name in ((grant_request, "requests"), (token_grant, "grants"))
    ),
)


async def load_of_family(conn: AsyncConnection, family: TokenId) -> Approvals:
    return await _load(conn, grant_request.c.family_id == family, token_grant.c.family_id == family)


async def load_of_families(conn: AsyncConnection, families: Sequence[TokenId]) -> Mapping[TokenId, Approvals]:
    """By family; those that never asked are left out."""
    wanted = func.any(literal(list(families), ARRAY(Text)))
    found = await _load(conn, grant_request.c.family_id == wanted, token_grant.c.family_id == wanted)
    requests: dict[TokenId, list[GrantRequest]] = {}
    grants: dict[TokenId, list[Grant]] = {}
    for request in found.requests:
        requests.setdefault(request.token, []).append(request)
    for grant in found.grants:
        grants.setdefault(grant.token, []).append(grant)
    return {
        family: Approvals(tuple(requests.get(family, ())), tuple(grants.get(family, ())))
        for family in {*requests, *grants}
    }


async def _load(conn: AsyncConnection, of_requests: ColumnElement[bool], of_grants: ColumnElement[bool]) -> Approvals:
    requests = await conn.execute(select(grant_request).where(of_requests).order_by(grant_request.c.id))
    grants = await conn.execute(select(token_grant).where(of_grants).order_by(token_grant.c.id))
    return Approvals(
        tuple(read_request(row).request for row in requests.mappings()),
        tuple(read_grant(row).grant for row in grants.mappings()),
    )


async def find_request(conn: AsyncConnection, request_id: int) -> RequestRecord | None:
    row = (await conn.execute(select(grant_request).where(grant_request.c.id == request_id))).mappings().one_or_none()
    return None if row is None else read_request(row)


async def find_grant(conn: AsyncConnection, grant_id: int) -> GrantRecord | None:
    row = (await conn.execute(select(token_grant).where(token_grant.c.id == grant_id))).mappings().one_or_none()
    return None if row is None else read_grant(row)


async def load_approved(
    conn: AsyncConnection, family: TokenId, catalog: str, group: NodeId
) -> tuple[RequestRecord, ...]:
    """The approved requests of a token at a group, in the order in which they were closed."""
    at = grant_request.c.group_id == group if isinstance(group, int) else grant_request.c.group_name == group
    query = select(grant_request).where(
        grant_request.c.family_id == family,
        grant_request.c.catalog == catalog,
        at,
        grant_request.c.state == RequestState.APPROVED.value,
    )
    rows = await conn.execute(query.order_by(grant_request.c.closed_no))
    return tuple(read_request(row) for row in rows.mappings())


async def newest_of_family(conn: AsyncConnection, family: TokenId) -> TokenRecord | None:
    """The member of a token's rotations that still works or came last; None when all are purged."""
    query = (
        select(*(column for column in token.c if column.name != "digest"))
        .where(token.c.family_id == family)
        .order_by(token.c.revoked_at.is_(None).desc(), token.c.created_at.desc(), token.c.id.desc())
        .limit(1)
    )
    row = (await conn.execute(query)).mappings().one_or_none()
    return None if row is None else read_record(row)


async def hold(conn: AsyncConnection, family: TokenId) -> None:
    """Whoever asks, decides or takes back for a token waits for whoever does so now, until that transaction ends.

    Whoever adds a member to the family takes it too, before the change log: `touch_family` names the members there are.
    """
    await conn.execute(select(func.pg_advisory_xact_lock_shared(_EVERYBODYS)))
    await conn.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"grants/{family}", 0))))


_EVERYBODYS: Final = func.hashtextextended("grants", 0)


async def hold_all(conn: AsyncConnection) -> None:
    """`hold` for every token there is, by one lock."""
    await conn.execute(select(func.pg_advisory_xact_lock(_EVERYBODYS)))


# writing; `hold` comes before all of it


async def open_request(
    conn: AsyncConnection,
    changes: ChangeSet,
    family: TokenId,
    catalog: str,
    group: NodeId,
    asked: Iterable[Pair],
    *,
    by: By,
    reason: str,
) -> int:
    """Ask; a request that is pending there is replaced by it. Answers the id."""
    pending = await _open_row(conn, grant_request, RequestState.PENDING, family, catalog, group)
    if pending is not None:
        await close_request(conn, changes, read_request(pending), RequestState.CANCELLED, by=by, reason="superseded")
    values = {
        "family_id": family,
        "catalog": catalog,
        **place_columns("group", group),
        "state": RequestState.PENDING.value,
        "asked": write_pairs(asked),
        "reason": reason,
        "asked_by_token": by.token,
        "asked_by_user": by.user,
    }
    query = insert(grant_request).values(values).returning(grant_request.c.id)
    number: int = (await conn.execute(query)).scalar_one()
    if pending is not None:
        superseded = update(grant_request).where(grant_request.c.id == pending["id"])
        await conn.execute(superseded.values(superseded_by=number))
    await touch_family(conn, changes, family)
    return number


async def close_request(
    conn: AsyncConnection,
    changes: ChangeSet,
    record: RequestRecord,
    state: RequestState,
    *,
    by: By,
    reason: str,
    given: Iterable[Pair] = (),
) -> bool:
    """Approve, deny or cancel; False when it was closed before."""
    done = await conn.execute(
        update(grant_request)
        .where(grant_request.c.id == record.request.id, grant_request.c.state == RequestState.PENDING.value)
        .values(
            state=state.value,
            given=write_pairs(given),
            closed_at=authz_now,
            closed_by_token=by.token,
            closed_by_user=by.user,
            closed_reason=reason,
            closed_no=approval_no.next_value(),
        )
        .returning(grant_request.c.id)
    )
    if done.scalar() is None:
        return False
    await touch_family(conn, changes, record.family)
    return True


async def set_asked(conn: AsyncConnection, changes: ChangeSet, record: RequestRecord, asked: Iterable[Pair]) -> None:
    """Narrow what a pending request asks for."""
    await conn.execute(
        update(grant_request)
        .where(grant_request.c.id == record.request.id, grant_request.c.state == RequestState.PENDING.value)
        .values(asked=write_pairs(asked))
    )
    await touch_family(conn, changes, record.family)


async def give(
    conn: AsyncConnection,
    changes: ChangeSet,
    family: TokenId,
    catalog: str,
    group: NodeId,
    pairs: Iterable[Pair],
    *,
    origin: Origin,
    by: By,
) -> int:
    """Add to the active grant, or make one. Answers its id."""
    await touch_family(conn, changes, family)
    row = await _open_row(conn, token_grant, GrantState.ACTIVE, family, catalog, group)
    if row is not None:
        grown = read_pairs(row["pairs"]) | frozenset(pairs)
        await conn.execute(update(token_grant).where(token_grant.c.id == row["id"]).values(pairs=write_pairs(grown)))
        return int(row["id"])
    values = {
        "family_id": family,
        "catalog": catalog,
        **place_columns("group", group),
        "state": GrantState.ACTIVE.value,
        "pairs": write_pairs(pairs),
        "origin": origin.value,
        "granted_by_token": by.token,
        "granted_by_user": by.user,
    }
    made: int = (await conn.execute(insert(token_grant).values(values).returning(token_grant.c.id))).scalar_one()
    return made


async def give_many(
    conn: AsyncConnection,
    changes: ChangeSet,
    catalog: str,
    given: Mapping[tuple[TokenId, NodeId], frozenset[Pair]],
    *,
    origin: Origin,
) -> None:
    """New grants by family and group, none of which has an active one there; `hold_all` before."""
    rows = [
        {
            "family_id": family,
            "catalog": catalog,
            **place_columns("group", group),
            "state": GrantState.ACTIVE.value,
            "pairs": write_pairs(pairs),
            "origin": origin.value,
        }
        for (family, group), pairs in given.items()
    ]
    if not rows:
        return
    await conn.execute(insert(token_grant), rows)
    await _touch_families(conn, changes, {family for family, _ in given})


async def set_pairs(conn: AsyncConnection, changes: ChangeSet, grant: Grant, pairs: Iterable[Pair]) -> None:
    """Narrow an active grant."""
    await conn.execute(
        update(token_grant)
        .where(token_grant.c.id == grant.id, token_grant.c.state == GrantState.ACTIVE.value)
        .values(pairs=write_pairs(pairs))
    )
    await touch_family(conn, changes, grant.token)


async def revoke(conn: AsyncConnection, changes: ChangeSet, record: GrantRecord, *, by: By, reason: str) -> bool:
    """False when it was revoked before."""
    done = await conn.execute(
        update(token_grant)
        .where(token_grant.c.id == record.grant.id, token_grant.c.state == GrantState.ACTIVE.value)
        .values(
            state=GrantState.REVOKED.value,
            revoked_at=authz_now,
            revoked_by_token=by.token,
            revoked_by_user=by.user,
            revoked_reason=reason,
            closed_no=approval_no.next_value(),
        )
        .returning(token_grant.c.id)
    )
    if done.scalar() is None:
        return False
    await touch_family(conn, changes, record.family)
    return True


async def touch_family(conn: AsyncConnection, changes: ChangeSet, family: TokenId) -> None:
    """Every secret of the rotations is decided by these grants."""
    await _touch_families(conn, changes, {family})


async def _touch_families(conn: AsyncConnection, changes: ChangeSet, families: Collection[TokenId]) -> None:
    members = select(token.c.id).where(token.c.family_id == func.any(literal(list(families), ARRAY(Text))))
    for member in (await conn.execute(members)).scalars():
        changes.touch(ChangeKind.GRANT, member)


async def forget_purged(conn: AsyncConnection) -> int:
    """Drop what belongs to tokens that are purged; answers how many rows went."""
    gone = 0
    for table in (grant_request, token_grant):
        left = exists().where(token.c.family_id == table.c.family_id)
        gone += (await conn.execute(delete(table).where(~left))).rowcount
    return gone


async def _open_row(
    conn: AsyncConnection, table: Table, state: str, family: TokenId, catalog: str, group: NodeId
) -> RowMapping | None:
    at = table.c.group_id == group if isinstance(group, int) else table.c.group_name == group
    query = select(table).where(table.c.family_id == family, table.c.catalog == catalog, at, table.c.state == state)
    return (await conn.execute(query)).mappings().one_or_none()


# rows


def write_pairs(pairs: Iterable[Pair]) -> list[list[object]]:
    return [list(pair) for pair in sorted(pairs, key=lambda pair: (pair[0], str(pair[1])))]


def read_pairs(written: Iterable[Sequence[Any]]) -> frozenset[Pair]:
    return frozenset((name, node) for name, node in written)


def _request(row: RowMapping | Mapping[str, Any]) -> GrantRequest:
    return GrantRequest(
        id=row["id"],
        token=TokenId(row["family_id"]),
        catalog=row["catalog"],
        group=row["group_id"] if row["group_id"] is not None else row["group_name"],
        state=RequestState(row["state"]),
        asked=read_pairs(row["asked"]),
        given=read_pairs(row["given"]),
        closed_no=row["closed_no"],
    )


def _grant(row: RowMapping | Mapping[str, Any]) -> Grant:
    return Grant(
        id=row["id"],
        token=TokenId(row["family_id"]),
        catalog=row["catalog"],
        group=row["group_id"] if row["group_id"] is not None else row["group_name"],
        state=GrantState(row["state"]),
        pairs=read_pairs(row["pairs"]),
        closed_no=row["closed_no"],
    )


def read_request(row: RowMapping | Mapping[str, Any]) -> RequestRecord:
    """The record of a row that holds the columns of `grant_request`."""
    return RequestRecord(
        _request(row),
        reason=row["reason"],
        asked_at=row["asked_at"],
        asked_by=By(row["asked_by_token"], row["asked_by_user"]),
        closed_at=row["closed_at"],
        closed_by=By(row["closed_by_token"], row["closed_by_user"]),
        closed_reason=row["closed_reason"],
        superseded_by=row["superseded_by"],
    )


def read_grant(row: RowMapping | Mapping[str, Any]) -> GrantRecord:
    """The record of a row that holds the columns of `token_grant`."""
    return GrantRecord(
        _grant(row),
        origin=Origin(row["origin"]),
        granted_at=row["granted_at"],
        granted_by=By(row["granted_by_token"], row["granted_by_user"]),
        revoked_at=row["revoked_at"],
        revoked_by=By(row["revoked_by_token"], row["revoked_by_user"]),
        revoked_reason=row["revoked_reason"],
    )
