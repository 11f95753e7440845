"""Tokens ended by whoever shows their secret: like `DELETE /v1/self`, from wherever they may be used or not."""

from __future__ import annotations

from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.admin.management import Actor, Management
from authz_service.admin.tokens import revoke_line
from authz_service.store import audit, changes, directory, tokens
from authz_service.store.changes import ChangeSet
from authz_service.store.events import EventKind, append_event, event_of_token
from authz_service.tokens.model import TokenId

_SHOWN: Final = "revoked by whoever showed its secret"


async def revoke_presented(management: Management, token_id: TokenId, caller: Actor | None = None) -> None:
    """Revoke a token whose secret was just shown, and all that hangs under it; once more changes nothing.

    Needs no permission: who holds a secret may end it. `caller` is for the audit, None where nobody else was shown.
    Raises NotFoundError when it is gone.
    """

    async def work(conn: AsyncConnection) -> None:
        await directory.hold_still(conn)
        touched = ChangeSet()
        revoked = await revoke_line(conn, touched, token_id, reason=_SHOWN)
        stamp = await changes.append(conn, touched)
        if not revoked:
            return
        record = await tokens.get(conn, token_id)
        actor = record.token if caller is None else caller.token
        entry = audit.AuditEntry(
            action="token.revoke",
            subject=token_id,
            actor_token=actor.id,
            actor_user=actor.owner if isinstance(actor.owner, int) else None,
            details={"also": [one for one in revoked if one != token_id], "shown": True},
        )
        await audit.insert(conn, entry, stamp)
        await append_event(conn, event_of_token(EventKind.TOKEN_REVOKED, record.token, reason=_SHOWN))

    await management.database.run_in_transaction(work)
