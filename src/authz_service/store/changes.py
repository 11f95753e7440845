"""The revision counter, and the hash-chained change log that tells every replica what a write touched."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final, NewType, cast
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    FromClause,
    RowMapping,
    Select,
    bindparam,
    delete,
    func,
    insert,
    select,
    text,
    true,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.store.database import ring_after_commit
from authz_service.store.tables import authz_now, change_log, revision

Revision = NewType("Revision", int)
"""The change log's counter. Two revisions compare only within one epoch."""

ALL_KEYS: Final = "all"
"""As a key: everything of that kind."""
MAX_ROWS_OF_A_KIND: Final = 1000

_REVISION: Final = re.compile(r"r1\.([0-9a-f]{8})\.(0|[1-9][0-9]{0,17})")


class ChangeKind(StrEnum):
    """What was touched.

    Keys: a token's id; a user's node id, for USER (state, flags, home) and for MEMBERSHIP (any row of theirs); a node's
    id (name, parent, visibility, attributes, deletion, creation); a catalog's name, for CATALOG and for POLICY (any
    policy for it); for GRANT the id of the token that a request or a grant is about.
    BARRIER touches nothing: somebody waits until every replica has reported this revision.
    """

    TOKEN = "token"
    USER = "user"
    MEMBERSHIP = "membership"
    NODE = "node"
    CATALOG = "catalog"
    POLICY = "policy"
    GRANT = "grant"
    EPOCH = "epoch"
    BARRIER = "barrier"


@dataclass(frozen=True, slots=True)
class Stamp:
    """A revision and the history it belongs to: what every read and write answers with."""

    revision: Revision
    epoch: UUID


@dataclass(frozen=True, slots=True)
class ParsedRevision:
    """What a client sent back: the first eight hex digits of an epoch, and a revision."""

    epoch8: str
    revision: Revision


def format_revision(stamp: Stamp) -> str:
    """`r1.<epoch8>.<rev>`: opaque to clients."""
    return f"r1.{stamp.epoch.hex[:8]}.{stamp.revision}"


def parse_revision(text: str) -> ParsedRevision | None:
    """Read what `format_revision` wrote; None for anything else. Whether that revision exists is another question."""
    match = _REVISION.fullmatch(text)
    return None if match is None else ParsedRevision(match[1], Revision(int(match[2])))


class ChangeSet:
    """What one transaction touched, each thing once; above 1,000 of a kind, all of that kind."""

    def __init__(self) -> None:
        self._touched: dict[ChangeKind, dict[str, None]] = {}

    def touch(self, kind: ChangeKind, key: str | int) -> None:
        """A change outside what ChangeKind lists (a creation of a token, a last use) is not to be touched."""
        self._touched.setdefault(kind, {})[str(key)] = None

    def __bool__(self) -> bool:
        return bool(self._touched)

    def rows(self) -> list[tuple[ChangeKind, str]]:
        """The (kind, key) pairs for the log."""
        found: list[tuple[ChangeKind, str]] = []
        for kind, keys in self._touched.items():
            if len(keys) > MAX_ROWS_OF_A_KIND or ALL_KEYS in keys:
                found.append((kind, ALL_KEYS))
            else:
                found.extend((kind, key) for key in keys)
        return found


async def append(conn: AsyncConnection, changes: ChangeSet) -> Stamp:
    """Take the next revision and log the changes under it. Nothing touched: no new revision, and the current one.

    Call it once a transaction, after all row work and before the audit row: from here on every other writer waits for
    this commit. That wait is what makes revisions visible in their order; a sequence would not.
    """
    rows = changes.rows()
    if not rows:
        return await current(conn)
    return await _append(conn, rows, epoch=None)


async def begin_epoch(conn: AsyncConnection) -> Stamp:
    """Start a new history, after a restore or a rewind that an operator accepted: every replica drops everything."""
    epoch = cast(UUID, (await conn.execute(select(func.gen_random_uuid()))).scalar_one())
    return await _append(conn, [(ChangeKind.EPOCH, str(epoch))], epoch=epoch)


async def load_clock(conn: AsyncConnection) -> datetime:
    """Database time: of the statement, not of the transaction's begin."""
    now: datetime = (await conn.execute(select(authz_now))).scalar_one()
    return now


async def current(conn: AsyncConnection) -> Stamp:
    """The revision that this statement sees."""
    return read_stamp((await conn.execute(select(*STAMP_COLUMNS))).mappings().one())


STAMP_COLUMNS: Final = (revision.c.rev.label("stamp_rev"), revision.c.epoch.label("stamp_epoch"))


def read_stamp(row: RowMapping | Mapping[str, Any]) -> Stamp:
    """The stamp of a row that holds STAMP_COLUMNS."""
    return Stamp(Revision(row["stamp_rev"]), row["stamp_epoch"])


async def load_stamped(
    conn: AsyncConnection, found: FromClause, *order: ColumnElement[Any]
) -> tuple[Stamp, Sequence[RowMapping]]:
    """What a query finds and the revision it was found at, in one statement.

    The revision comes back also when nothing was found: then there is one row, and all its columns are NULL.
    """
    return await read_stamped(conn, stamped(found, *order), {})


def stamped(found: FromClause, *order: ColumnElement[Any]) -> Select[Any]:
    """The query of `load_stamped`, for those that are asked often: made once, with values bound at each reading."""
    return select(*STAMP_COLUMNS, found).select_from(revision.outerjoin(found, true())).order_by(*order)


async def read_stamped(
    conn: AsyncConnection, query: Select[Any], values: Mapping[str, object]
) -> tuple[Stamp, Sequence[RowMapping]]:
    rows = (await conn.execute(query, values)).mappings().all()
    return read_stamp(rows[0]), rows


async def _append(conn: AsyncConnection, rows: Sequence[tuple[ChangeKind, str]], *, epoch: UUID | None) -> Stamp:
    new: dict[str, Any] = {"rev": revision.c.rev + 1}
    if epoch is not None:
        # Never before the epoch it ends, whatever became of the clock: a replica takes the newer of two.
        new |= {"epoch": epoch, "began": func.greatest(authz_now, revision.c.began + timedelta(microseconds=1))}
    taken = (
        await conn.execute(
            update(revision)
            .values(new)
            .returning(revision.c.rev, revision.c.epoch, revision.c.hash, authz_now.label("at"))
        )
    ).one()
    previous = cast(bytes, taken.hash)
    logged: list[dict[str, object]] = []
    for seq, (kind, key) in enumerate(rows):
        hashed = change_hash(previous, taken.rev, seq, kind, key, taken.at)
        logged.append(
            {
                "rev": taken.rev,
                "seq": seq,
                "kind": kind.value,
                "key": key,
                "hash": hashed,
                "prev_hash": previous,
                "at": taken.at,
            }
        )
        previous = hashed
    await conn.execute(insert(change_log), logged)
    await conn.execute(update(revision).values(hash=previous))
    ring_after_commit(conn)
    return Stamp(Revision(taken.rev), taken.epoch)


def change_hash(previous: bytes, rev: int, seq: int, kind: str, key: str, at: datetime) -> bytes:
    """A row's hash over its predecessor's. The time is in it: two histories that part and do the same still differ."""
    moment = at.astimezone(UTC).isoformat(timespec="microseconds")
    return hashlib.sha256(previous + f"{rev}/{seq}/{kind}/{moment}/{key}".encode()).digest()


@dataclass(frozen=True, slots=True)
class Change:
    """One row of the change log; `key` may be ALL_KEYS."""

    revision: Revision
    seq: int
    kind: str
    key: str
    hash: bytes
    at: datetime
    """Database time, taken while the revision was written: just before its commit."""


@dataclass(frozen=True, slots=True)
class Poll:
    """One look at the change log.

    `changes` are whole revisions, ascending, from the one asked for on, itself included: the hash of that one's last
    row must be the hash remembered, and with no row of it, or a `head` behind it, history went back. `tip` is the hash
    of the newest row of all. `began` says since when there is this epoch. `clock` is database time, by which expiry is
    judged.
    """

    changes: tuple[Change, ...]
    head: Stamp
    tip: bytes
    began: datetime
    in_recovery: bool
    clock: datetime


# Portable SQL with numbered parameters, so that the follower's raw connection sends the very same statement.
SINCE_SQL: Final = """
select r.rev as head, r.epoch, r.hash as tip, r.began, pg_is_in_recovery() as in_recovery, authz_now() as clock,
       c.rev, c.seq, c.kind, c.key, c.hash, c.at
from revision r left join change_log c
  on c.rev >= $1 and c.rev <= coalesce(
       (select rev from change_log where rev >= $1 order by rev, seq offset $2 limit 1), r.rev)
where r.id = 1
order by c.rev, c.seq
"""
"""$1: the revision applied last (bigint). $2: how many rows are enough (bigint); no revision is cut, so more come."""


_SINCE: Final = text(SINCE_SQL.replace("$1", ":rev").replace("$2", ":many")).bindparams(
    bindparam("rev", type_=BigInteger), bindparam("many", type_=BigInteger)
)


async def since(conn: AsyncConnection, revision: Revision, limit: int = MAX_ROWS_OF_A_KIND) -> Poll:
    """Look at the change log from `revision` on, in one statement. Never part of a revision, so a few above `limit`."""
    return read_poll((await conn.execute(_SINCE, {"rev": revision, "many": limit})).mappings().all())


def read_poll(rows: Sequence[Any]) -> Poll:
    """What the rows of SINCE_SQL say; they are mappings, or the driver's own records."""
    first = rows[0]
    return Poll(
        changes=tuple(
            Change(Revision(row["rev"]), row["seq"], row["kind"], row["key"], row["hash"], row["at"])
            for row in rows
            if row["rev"] is not None
        ),
        head=Stamp(Revision(first["head"]), first["epoch"]),
        tip=first["tip"],
        began=first["began"],
        in_recovery=first["in_recovery"],
        clock=first["clock"],
    )


async def prune_log(conn: AsyncConnection, *, keep: int = 100_000) -> int:
    """Forget all but the newest revisions; answers how many rows went. A replica further behind starts over."""
    oldest = select(revision.c.rev - keep).scalar_subquery()
    return (await conn.execute(delete(change_log).where(change_log.c.rev < oldest))).rowcount
