"""Whole tokens, for those who may see all of them, to be asked about."""

from __future__ import annotations

from typing import Final

from authz_service.admin.authority import Authority
from authz_service.admin.management import Actor, Management
from authz_service.admin.tokens import find_seen, may_see_whole
from authz_service.errors import ForbiddenError
from authz_service.tokens.model import Token

DIRECTORY: Final = "directory:read"


async def token_of(management: Management, actor: Actor, token_id: str) -> Token:
    """A token that the actor may see as a whole. Raises NotFoundError, ForbiddenError for one seen in part."""
    async with management.database.snapshot() as conn:
        authority = await Authority.open(conn, management, actor, hold=False)
        record = await find_seen(conn, authority, token_id)
        if not await may_see_whole(authority, record):
            raise ForbiddenError("this token may see only a part of that one, which is not enough to ask about it")
        return record.token


async def may_see_hidden(management: Management, actor: Actor) -> bool:
    """Whether the actor may read the whole directory, so that nothing is hidden from them (A10)."""
    async with management.database.snapshot() as conn:
        authority = await Authority.open(conn, management, actor, hold=False)
        return await authority.may(DIRECTORY)
