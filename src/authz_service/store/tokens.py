"""Token rows: found by their secret's digest with owner and memberships, in one statement; issued, edited, revoked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from dataclasses import replace as with_changes
from datetime import datetime
from functools import cache
from typing import Any, Final

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    DateTime,
    LargeBinary,
    Select,
    Text,
    bindparam,
    delete,
    exists,
    func,
    literal,
    or_,
    select,
    true,
    update,
)
from sqlalchemy import (
    insert as insert_into,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.directory.model import NodeId, User, UserState
from authz_service.errors import ConflictError, NotFoundError
from authz_service.store.changes import STAMP_COLUMNS, ChangeKind, ChangeSet, Stamp, read_stamp
from authz_service.store.tables import account, authz_now, membership, node, revision, token, token_node
from authz_service.store.token_rows import TokenRecord, either_column, read_record, row_of
from authz_service.tokens.model import Token, TokenId


@dataclass(frozen=True, slots=True)
class TokenReading:
    """What one snapshot says of a token.

    `owner` is None and `memberships` (node id to role) empty for an upstream owner, and when there is no such token.
    """

    stamp: Stamp
    record: TokenRecord | None
    owner: User | None = None
    memberships: Mapping[NodeId, str] = field(default_factory=dict)


async def insert(
    conn: AsyncConnection, record: TokenRecord, digest: bytes, *, created_at: datetime | None = None
) -> TokenRecord:
    """Store a new token; it was created now, by the database's clock, unless told otherwise. Bumps no revision.

    Raises ConflictError when the owner is deleted, the parent revoked or the whole family revoked: they are held, so
    that none of these can happen between this check and the commit.
    """
    new = record.token
    await _hold_what_a_token_hangs_on(conn, record)
    values = row_of(record) | {"id": new.id, "digest": digest, "kid": record.kid, "family_id": record.family}
    values |= {"kind": new.kind.value, "parent_id": new.parent, "evaluates": list(new.evaluates)}
    values |= either_column("owner", new.owner)
    values |= {"created_by_token": record.created_by_token, "created_by_user": record.created_by_user}
    values |= {"foreign_prefix": record.foreign_prefix}
    if created_at is not None:
        values["created_at"] = created_at
    at = (await conn.execute(insert_into(token).values(values).returning(token.c.created_at))).scalar_one()
    await _write_nodes(conn, new)
    return with_changes(record, token=with_changes(new, created_at=at))


async def _hold_what_a_token_hangs_on(conn: AsyncConnection, record: TokenRecord) -> None:
    new = record.token
    if isinstance(new.owner, int):
        found = await conn.execute(
            select(account.c.state).where(account.c.node_id == new.owner).with_for_update(read=True)
        )
        if found.scalar() in {None, UserState.DELETED.value}:
            raise ConflictError("the owner is deleted; issue the token for somebody else")
    if record.family != new.id:
        await _hold_family(conn, record.family)
        alive = select(exists().where(token.c.family_id == record.family, token.c.revoked_at.is_(None)))
        if not (await conn.execute(alive)).scalar_one():
            raise ConflictError("every token of this family is revoked; issue a new one")
    if new.parent is not None:
        found = await conn.execute(
            select(token.c.revoked_at, token.c.successor_id).where(token.c.id == new.parent).with_for_update(read=True)
        )
        parent = found.one_or_none()
        if parent is None or parent.revoked_at is not None:
            raise ConflictError("the token that this one is to be issued by is revoked")
        if parent.successor_id is not None:
            raise ConflictError("the token that this one is to be issued by was replaced just now; try again")


async def find_by_digest(conn: AsyncConnection, digest: bytes, *, memberships: bool = True) -> TokenReading:
    """In one statement; `record` is None for an unknown digest. Revoked and expired tokens are found too."""
    return await _find(conn, _finding("digest", memberships=memberships), digest, memberships=memberships)


async def find_by_id(conn: AsyncConnection, token_id: TokenId, *, memberships: bool = True) -> TokenReading:
    """Like `find_by_digest`, by public id: for a token's ancestors (T4)."""
    return await _find(conn, _finding("id", memberships=memberships), token_id, memberships=memberships)


_RECORD: Final = tuple(column for column in token.c if column.name != "digest")
_OWNERS_LOCK: Final = 720_311
_IMPORTS_LOCK: Final = 720_313
"""Any numbers that no other pair of lock numbers begins with."""


@cache
def _finding(column: str, *, memberships: bool) -> Select[Any]:
    """Made once: decisions wait for it, and making a statement costs more than asking it."""
    # The revision comes first and everything is joined to it, so that it comes back also when there is no token.
    which = token.c[column] == bindparam("which", type_=token.c[column].type)
    joined = (
        revision.outerjoin(token, which)
        .outerjoin(account, account.c.node_id == token.c.owner_id)
        .outerjoin(node, node.c.id == token.c.owner_id)
    )
    wanted: list[Any] = [
        *STAMP_COLUMNS,
        *_RECORD,
        node.c.name.label("username"),
        account.c.state,
        account.c.admin,
        account.c.external,
        account.c.service_account,
        account.c.home_id,
    ]
    if memberships:
        held = (
            select(
                func.array_agg(membership.c.node_id, type_=ARRAY(BigInteger)).label("member_nodes"),
                func.array_agg(membership.c.role, type_=ARRAY(Text)).label("member_roles"),
            )
            .where(membership.c.user_id == token.c.owner_id)
            .lateral("held")
        )
        joined = joined.outerjoin(held, true())
        wanted += [held.c.member_nodes, held.c.member_roles]
    return select(*wanted).select_from(joined)


async def _find(conn: AsyncConnection, query: Select[Any], which: object, *, memberships: bool) -> TokenReading:
    row = (await conn.execute(query, {"which": which})).mappings().one()
    stamp = read_stamp(row)
    if row["id"] is None:
        return TokenReading(stamp, None)
    if row["username"] is None:
        return TokenReading(stamp, read_record(row))
    owner = User(
        id=row["owner_id"],
        username=row["username"],
        state=UserState(row["state"]),
        admin=row["admin"],
        external=row["external"],
        service_account=row["service_account"],
        home=row["home_id"],
    )
    roles: dict[NodeId, str] = {}
    if memberships:
        roles = dict(zip(row["member_nodes"] or (), row["member_roles"] or (), strict=True))
    return TokenReading(stamp, read_record(row), owner, roles)


async def get(conn: AsyncConnection, token_id: TokenId, *, lock: bool = False) -> TokenRecord:
    """Raises NotFoundError. `lock` holds token and family until the transaction ends: for edits and rotation."""
    if lock:
        family = (await conn.execute(select(token.c.family_id).where(token.c.id == token_id))).scalar()
        if family is not None:
            # The family first, always: `revoke_family` takes them in this order too.
            await _hold_family(conn, family)
    query = select(*_RECORD).where(token.c.id == token_id)
    if lock:
        query = query.with_for_update()
    row = (await conn.execute(query)).mappings().one_or_none()
    if row is None:
        raise NotFoundError("there is no such token")
    return read_record(row)


async def load_children(conn: AsyncConnection, token_id: TokenId) -> tuple[TokenRecord, ...]:
    """The tokens issued by this one, newest first, revoked ones too; not theirs."""
    query = select(*_RECORD).where(token.c.parent_id == token_id).order_by(token.c.created_at.desc(), token.c.id.desc())
    return tuple(read_record(row) for row in (await conn.execute(query)).mappings())


async def replace(conn: AsyncConnection, changes: ChangeSet, record: TokenRecord) -> None:
    """Write an edit: name, reason, catalogs, scopes, dates, conditions, `resource_owner`, `may_rotate_self`.

    Everything else stays as it was stored, revocation above all: an edit revives nothing. Raises ConflictError when the
    token is revoked, NotFoundError when there is none.
    """
    edited = record.token
    done = await conn.execute(
        update(token)
        .where(token.c.id == edited.id, token.c.revoked_at.is_(None))
        .values(row_of(record) | {"evaluates": list(edited.evaluates)})
        .returning(token.c.id)
    )
    if done.scalar() is None:
        await get(conn, edited.id)
        raise ConflictError("the token is revoked; it cannot be edited any more")
    await conn.execute(delete(token_node).where(token_node.c.token_id == edited.id))
    await _write_nodes(conn, edited)
    changes.touch(ChangeKind.TOKEN, edited.id)


async def hold_imports(conn: AsyncConnection) -> None:
    """One import of tokens at a time: of two that bring the same one the second finds it here."""
    await conn.execute(select(func.pg_advisory_xact_lock(_IMPORTS_LOCK, 0)))


async def find_known(conn: AsyncConnection, digests: Sequence[bytes]) -> tuple[bytes, ...]:
    """Those of these digests that some token has, alive or not."""
    chosen = literal(list(digests), ARRAY(LargeBinary))
    query = select(token.c.digest).where(token.c.digest == func.any(chosen))
    return tuple(bytes(found) for found in (await conn.execute(query)).scalars())


async def hold_and_count(conn: AsyncConnection, owner: NodeId) -> int:
    """How many living tokens an owner has; no other transaction that asks this adds one before this one ends."""
    key = f"tokens of {owner}" if isinstance(owner, int) else f"tokens named {owner}"
    await conn.execute(select(func.pg_advisory_xact_lock(_OWNERS_LOCK, func.hashtext(key))))
    owned = token.c.owner_id == owner if isinstance(owner, int) else token.c.owner_name == owner
    alive = or_(token.c.expires_at.is_(None), token.c.expires_at > authz_now)
    query = select(func.count()).where(owned, token.c.revoked_at.is_(None), alive)
    return int((await conn.execute(query)).scalar_one())


async def revoke(conn: AsyncConnection, changes: ChangeSet, token_id: TokenId, *, reason: str) -> bool:
    """Revoke this very token, not its family. True when this call did it, False when it was revoked before.

    What it issued stops with it, for each use asks for the parent too (T4). Raises NotFoundError.
    """
    revoked = await _revoke_where(conn, changes, token.c.id == token_id, reason)
    if not revoked:
        await get(conn, token_id)
    return bool(revoked)


async def revoke_family(
    conn: AsyncConnection, changes: ChangeSet, family: TokenId, *, reason: str
) -> tuple[TokenId, ...]:
    """Revoke every member of a family and all that descends from one of them; answers what this call revoked."""
    await _hold_family(conn, family)
    revoked: list[TokenId] = []
    while True:
        # Again until nothing is found: a child issued meanwhile is seen only by a later statement.
        found = await _revoke_where(conn, changes, token.c.id.in_(_family_with_descendants(family)), reason)
        if not found:
            return tuple(revoked)
        revoked += found


async def revoke_of_users(
    conn: AsyncConnection, changes: ChangeSet, users: Sequence[int], *, reason: str
) -> tuple[TokenId, ...]:
    """Revoke every token of these owners; call it after their accounts are written, which keeps new ones out."""
    owned = token.c.owner_id == func.any(literal(list(users), ARRAY(BigInteger)))
    return tuple(await _revoke_where(conn, changes, owned, reason))


async def stamp_used(conn: AsyncConnection, used: Mapping[TokenId, datetime]) -> None:
    """Move `last_used_at` forward, never back. Bumps no revision."""
    seen = (
        func.unnest(literal(list(used), ARRAY(Text)), literal(list(used.values()), ARRAY(DateTime(timezone=True))))
        .table_valued("id", "at", name="seen")
        .render_derived()
    )
    await conn.execute(
        update(token).where(token.c.id == seen.c.id).values(last_used_at=func.greatest(token.c.last_used_at, seen.c.at))
    )


async def _hold_family(conn: AsyncConnection, family: TokenId) -> None:
    """Whoever adds to a family or ends it holds its first token: a rotation cannot slip past a revocation."""
    await conn.execute(select(token.c.id).where(token.c.id == family).with_for_update())


async def _revoke_where(
    conn: AsyncConnection, changes: ChangeSet, which: ColumnElement[bool], reason: str
) -> list[TokenId]:
    done = await conn.execute(
        update(token)
        .where(which, token.c.revoked_at.is_(None))
        .values(revoked_at=authz_now, revoked_reason=reason)
        .returning(token.c.id)
    )
    revoked = [TokenId(found) for found in done.scalars()]
    for found in revoked:
        changes.touch(ChangeKind.TOKEN, found)
    return revoked


def _family_with_descendants(family: TokenId) -> Any:
    """Ids of a family, of all that its members issued, and of those tokens' own families, all the way down."""
    members = select(token.c.id, token.c.family_id).where(token.c.family_id == family).cte("members", recursive=True)
    members = members.union(
        select(token.c.id, token.c.family_id).where(
            or_(token.c.parent_id == members.c.id, token.c.family_id == members.c.family_id)
        )
    )
    return select(members.c.id)


async def _write_nodes(conn: AsyncConnection, written: Token) -> None:
    nodes = {found for scope in written.scopes for found in scope.reach.nodes if isinstance(found, int)}
    if nodes:
        rows = [{"token_id": written.id, "node_id": found} for found in sorted(nodes)]
        await conn.execute(insert_into(token_node), rows)
