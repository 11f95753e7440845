"""How the chain over the audit stands now: its head, what is not sealed yet, and whether its end holds together."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from authz_service.admin.audit import READ
from authz_service.admin.authority import Authority
from authz_service.admin.management import Actor, Management
from authz_service.store import audit_chain

LOOKED_AT: Final = 500
"""Rows at the end of the chain that are worked out again for a page; the whole of it is `authz audit verify`'s."""


@dataclass(frozen=True, slots=True)
class ChainState:
    """`broken_at` is the first of the last rows that is not what was sealed; None where they all hold."""

    sealed: int
    unsealed: int
    looked_at: int
    broken_at: int | None
    checkpoint: int | None
    checkpoint_at: datetime | None


async def show_chain(management: Management, actor: Actor) -> ChainState:
    """Needs `audit:read` at the instance. Raises ForbiddenError."""
    async with management.database.snapshot() as conn:
        authority = await Authority.open(conn, management, actor, hold=False)
        await authority.require(READ)
        head = await audit_chain.load_head(conn)
        links = await audit_chain.load_links(conn, after=max(0, head.seal - LOOKED_AT), limit=LOOKED_AT)
        broken: int | None = None
        before = links[0] if links else None
        for link in links:
            follows = link is before or before is None or (link.seal, link.prev_hash) == (before.seal + 1, before.hash)
            if not follows or audit_chain.row_hash(link.prev_hash, link.seal, link.row) != link.hash:
                broken = link.seal
                break
            before = link
        last = await audit_chain.last_checkpoint(conn)
        return ChainState(
            head.seal,
            await audit_chain.count_unsealed(conn),
            len(links),
            broken,
            None if last is None else last.seal,
            None if last is None else last.at,
        )
