"""After a restore: a new history, and in the same transaction the revokes again that the restored one lost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.admin.faults import Faults
from authz_service.errors import NotFoundError
from authz_service.store import audit, changes, sessions, tokens
from authz_service.store.changes import ChangeSet, Stamp
from authz_service.store.database import Database
from authz_service.store.sessions import OpenedBy
from authz_service.tokens.model import TokenId
from authz_service.tokens.secret import is_token_id

_REASON: Final = "revoked before the database was restored"
_ENDS_SUBJECT: Final = frozenset({"token.revoke", "token.leak", "token.reuse"})
"""Entries after which the token that they are about is out."""
_ROTATES: Final = "token.rotate"
"""Of a rotation that was lost the new secret is unknown, and the old one was to be given up: nothing is left of it. One
that is not lost may overlap yet, and is left alone."""
_LISTS: Final = ("also", "revoked")
"""Where an entry's details name further tokens that it revoked."""
_MAY_NARROW: Final = (
    "token.edit",
    "grant.",
    "policy.",
    "directory.",
    "trust_rule.",
    "identity.",
    "password.",
    "catalog.",
    "webhook.",
)
"""Actions that may have taken something from somebody, and that nobody can do again from their entry alone."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One exported change, as far as it matters here. `id` and `at` are None where the line does not say them."""

    action: str
    subject: str
    at: datetime | None
    id: int | None = None


@dataclass(frozen=True, slots=True)
class Export:
    """What exported entries say: the tokens they ended, each once; rotations; and what else may have narrowed."""

    revoked: Sequence[TokenId] = ()
    rotated: Sequence[Entry] = ()
    others: Sequence[Entry] = ()


@dataclass(frozen=True, slots=True)
class Restored:
    """`unknown` tokens were issued after the backup was taken: they are gone, and so are their secrets.

    `review` is what the restored database lacks and was not done again: for somebody to look at, the oldest first.
    """

    stamp: Stamp
    revoked: tuple[TokenId, ...]
    already: int
    unknown: int
    sessions: int = 0
    review: Sequence[Entry] = field(default_factory=tuple)


def read_export(lines: Iterable[bytes]) -> Export:
    """What exported audit entries, one JSON object a line, tell. Without an `id` and `at` an entry counts as lost.

    Raises InvalidInputError with every line that is none.
    """
    revoked: dict[TokenId, None] = {}
    rotated: list[Entry] = []
    others: list[Entry] = []
    faults = Faults()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            said = msgspec.json.decode(line)
            action, subject, details = str(said["action"]), str(said["subject"]), said.get("details") or {}
        except (msgspec.MsgspecError, UnicodeDecodeError, TypeError, KeyError, AttributeError, RecursionError):
            faults.add(f"line {number}", "invalid_line", "this is no audit entry: export the audit as JSON lines")
            continue
        named: list[object] = [subject] if action in _ENDS_SUBJECT else []
        if isinstance(details, Mapping):
            named += [one for name in _LISTS for one in _as_list(details.get(name))]
        revoked |= {TokenId(one): None for one in named if isinstance(one, str) and is_token_id(one)}
        entry = Entry(action, subject, _read_moment(said.get("at")), _read_id(said.get("id")))
        if action == _ROTATES and is_token_id(subject):
            rotated.append(entry)
        elif action.startswith(_MAY_NARROW):
            others.append(entry)
    faults.raise_any("the audit")
    return Export(list(revoked), rotated, others)


def _as_list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _read_id(value: object) -> int | None:
    return value if isinstance(value, int) and 0 < value < 1 << 63 else None


def _read_moment(value: Any) -> datetime | None:
    try:
        found = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return found if found.tzinfo is not None else None


async def accept_history(database: Database, export: Export) -> Restored:
    """Begin a new epoch, by which every replica drops what it knows and decides by this database again.

    The tokens are revoked before anybody can be allowed by them: one transaction does both. It ends every session and
    every link to sign in by too, for of those the audit does not tell all.
    """

    async def work(conn: AsyncConnection) -> Restored:
        lost = await _find_lost(conn, [*export.rotated, *export.others])
        wanted = dict.fromkeys([*export.revoked, *(TokenId(one.subject) for one in export.rotated if one in lost)])
        again: list[TokenId] = []
        unknown = 0
        for token in wanted:
            try:
                if await tokens.revoke(conn, ChangeSet(), token, reason=_REASON):
                    again.append(token)
            except NotFoundError:
                unknown += 1
        ended = await sessions.end_everybody(conn)
        for row in ended:
            if row.opened_by is not OpenedBy.TOKEN:
                await tokens.revoke(conn, ChangeSet(), row.token, reason=_REASON)
        stamp = await changes.begin_epoch(conn)  # touches everything, so what was revoked needs no entries
        already = len(wanted) - len(again) - unknown
        details = {"revoked": again, "already": already, "unknown": unknown, "sessions": len(ended)}
        await audit.insert(conn, audit.AuditEntry("history.accept", str(stamp.epoch), details=details), stamp)
        review = [one for one in export.others if one in lost]
        review.sort(key=lambda one: (one.at is not None, one.at.timestamp() if one.at else 0.0))
        return Restored(stamp, tuple(again), already, unknown, len(ended), review)

    return await database.run_in_transaction(work)


async def _find_lost(conn: AsyncConnection, entries: Sequence[Entry]) -> set[Entry]:
    """Those that the restored database has no row of: another row may have their number by now, not their time too."""
    times = await audit.load_times(conn, [one.id for one in entries if one.id is not None])
    return {one for one in entries if one.id is None or one.at is None or times.get(one.id) != one.at}
