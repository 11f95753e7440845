"""Tokens that another system issued, brought in by the digests of their secrets: all of them or none (M3)."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.admin.approvals import settle_token
from authz_service.admin.authority import Authority
from authz_service.admin.drafts import TokenDraft
from authz_service.admin.faults import Faults, shown
from authz_service.admin.issuing import IssueReader
from authz_service.admin.management import Actor, Management
from authz_service.admin.policy_checks import find_unadmitted
from authz_service.admin.tokens import details_of, entry_of, new_record, require_room
from authz_service.errors import ForbiddenError
from authz_service.store import audit, changes, tokens
from authz_service.store.changes import ChangeSet, format_revision
from authz_service.tokens.secret import new_token_id

IMPORT: Final = "token:import"
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_PAUSE: Final = 20


@dataclass(frozen=True, slots=True)
class ImportedToken:
    """One line. `sha256` is of the whole secret, 64 lower-case hex digits; `prefix` None where only one is registered.

    `created_at` is when the other system made it: its lifetime and its days without use count from there.
    """

    line: int
    draft: TokenDraft
    sha256: str
    prefix: str | None = None
    created_at: datetime | None = None


async def require_may_import(management: Management, actor: Actor) -> None:
    """Raises ForbiddenError: for a look before a body of many megabytes is read. The import asks again."""
    async with management.database.snapshot() as conn:
        await _require(await Authority.open(conn, management, actor, hold=False))


async def _require(authority: Authority) -> None:
    await authority.require(IMPORT)
    if not authority.admin or authority.token.parent is not None:
        raise ForbiddenError(
            "only an admin imports tokens, and by no child token: what is imported hangs under nothing"
        )


async def import_tokens(management: Management, actor: Actor, given: Sequence[ImportedToken]) -> Mapping[str, Any]:
    """Store the tokens. Raises InvalidInputError naming every fault of every line; then nothing is stored.

    Raises ConflictError where an owner would have too many.
    """

    async def work(conn: AsyncConnection) -> Mapping[str, Any]:
        authority = await Authority.open(conn, management, actor, hold=True)
        await _require(authority)
        await tokens.hold_imports(conn)
        faults = Faults()
        digests = await _read_digests(conn, management, authority, given, faults)
        made: list[dict[str, object]] = []
        records = []
        for number, one in enumerate(given):
            if number % _PAUSE == 0:
                await asyncio.sleep(0)  # thousands of lines must not hold up every decision of this process
            reader = IssueReader(conn, management, authority, one.draft)
            issue = await reader.read_collecting(new_token_id())
            wrong = [*reader.faults.named]
            if issue is not None:
                token = replace(issue.token, created_at=one.created_at)
                wrong += (await find_unadmitted(conn, authority, token)).named
            for fault in wrong:
                faults.add(f"line {one.line} {fault.where}", fault.code, fault.message)
            if issue is not None:
                record = new_record(
                    management, authority, issue, one.draft.reason, may_rotate_self=one.draft.may_rotate_self
                )
                records.append((one, record))
        faults.raise_any("the import")
        owners = Counter(record.token.owner for _, record in records)
        for owner, many in sorted(owners.items(), key=lambda pair: str(pair[0])):
            await require_room(conn, management, owner, many)
        for one, plain in records:
            prefix, digest = digests[one.line]
            record = replace(plain, kid=management.peppers.foreign[prefix], foreign_prefix=prefix)
            record = await tokens.insert(conn, record, digest, created_at=one.created_at)
            granted = await settle_token(conn, ChangeSet(), authority, record, None)
            imported = entry_of("token.import", record, authority, details_of(record) | {"as": prefix})
            for entry in (imported, *granted):
                await audit.insert(conn, entry)
            made.append({"line": one.line, "id": record.token.id})
        revision = format_revision(await changes.current(conn))
        return {"imported": len(made), "tokens": made, "revision": revision}

    return await management.database.run_in_transaction(work)


async def _read_digests(
    conn: AsyncConnection,
    management: Management,
    authority: Authority,
    given: Sequence[ImportedToken],
    faults: Faults,
) -> Mapping[int, tuple[str, bytes]]:
    """Prefix and digest by line. One that is here already is refused, and so is one that comes twice."""
    foreign = management.peppers.foreign
    found: dict[int, tuple[str, bytes]] = {}
    lines: dict[bytes, int] = {}
    for one in given:
        where = f"line {one.line}"
        prefix = next(iter(foreign)) if one.prefix is None and len(foreign) == 1 else one.prefix
        if prefix is None or prefix not in foreign:
            known = ", ".join(f"`{name}`" for name in foreign) or "none; the setting AUTHZ_FOREIGN_PREFIXES names them"
            message = f"say what the secret begins with, as it is registered here: {known}"
            faults.add(f"{where} /prefix", "missing_field" if prefix is None else "prefix_unknown", message)
            continue
        if not _SHA256.fullmatch(one.sha256):
            message = f"`{shown(one.sha256)}` is no SHA-256: 64 hex digits in small letters, of the whole secret"
            faults.add(f"{where} /sha256", "invalid_digest", message)
            continue
        if one.created_at is not None and one.created_at > authority.world.now:
            faults.add(f"{where} /created_at", "in_future", "a token cannot have been made later than now")
        digest = management.peppers.digest_imported(prefix, one.sha256)
        if digest in lines:
            message = f"the same secret stands in line {lines[digest]}; keep one"
            faults.add(f"{where} /sha256", "duplicate", message)
            continue
        lines[digest] = one.line
        found[one.line] = (prefix, digest)
    for digest in await tokens.find_known(conn, list(lines)):
        message = "a token with this secret is here already; leave the line out"
        faults.add(f"line {lines[digest]} /sha256", "already_here", message)
    return found
