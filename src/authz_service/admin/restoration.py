"""After a restore: a new history, and in the same transaction the revokes again that the restored one lost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.admin.faults import Faults
from authz_service.errors import NotFoundError
from authz_service.store import audit, changes, tokens
from authz_service.store.changes import ChangeSet, Stamp
from authz_service.store.database import Database
from authz_service.tokens.model import TokenId
from authz_service.tokens.secret import is_token_id

_REASON: Final = "revoked before the database was restored"
_LISTS: Final = ("also", "revoked")
"""Where an entry's details name further tokens that it revoked."""


@dataclass(frozen=True, slots=True)
class Restored:
    """`unknown` tokens were issued after the backup was taken: they are gone, and so are their secrets."""

    stamp: Stamp
    revoked: tuple[TokenId, ...]
    already: int
    unknown: int


def read_revoked(lines: Iterable[bytes]) -> list[TokenId]:
    """Ids of all tokens that exported audit entries, one JSON object a line, say were revoked; each once.

    Reads `action`, `subject` and `details` alone. Raises InvalidInputError with every line that is none.
    """
    found: dict[TokenId, None] = {}
    faults = Faults()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entry = msgspec.json.decode(line)
            action, subject, details = entry["action"], entry["subject"], entry.get("details") or {}
        except (msgspec.MsgspecError, UnicodeDecodeError, TypeError, KeyError, AttributeError, RecursionError):
            faults.add(f"line {number}", "invalid_line", "this is no audit entry: export the audit as JSON lines")
            continue
        named: list[object] = [subject] if action == "token.revoke" else []
        if isinstance(details, Mapping):
            named += [one for name in _LISTS for one in _as_list(details.get(name))]
        found |= {TokenId(one): None for one in named if isinstance(one, str) and is_token_id(one)}
    faults.raise_any("the audit")
    return list(found)


def _as_list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


async def accept_history(database: Database, revoked: Iterable[TokenId]) -> Restored:
    """Begin a new epoch, by which every replica drops what it knows and decides by this database again.

    The tokens are revoked before anybody can be allowed by them: one transaction does both.
    """
    wanted = list(revoked)

    async def work(conn: AsyncConnection) -> Restored:
        again: list[TokenId] = []
        unknown = 0
        for token in wanted:
            try:
                if await tokens.revoke(conn, ChangeSet(), token, reason=_REASON):
                    again.append(token)
            except NotFoundError:
                unknown += 1
        stamp = await changes.begin_epoch(conn)  # touches everything, so what was revoked needs no entries
        details = {"revoked": again, "already": len(wanted) - len(again) - unknown, "unknown": unknown}
        await audit.insert(conn, audit.AuditEntry("history.accept", str(stamp.epoch), details=details), stamp)
        return Restored(stamp, tuple(again), len(wanted) - len(again) - unknown, unknown)

    return await database.run_in_transaction(work)
