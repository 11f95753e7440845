"""Who may do what here: decided by the same engine, on the rows of the very transaction that acts on it (M1, M2)."""

from __future__ import annotations

from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.admin.management import Actor, Management
from authz_service.directory.model import DEFAULT_SOURCE, NodeId, NodeKind, User, format_target
from authz_service.errors import ForbiddenError, NotFoundError, UnauthenticatedError
from authz_service.pdp.authority_facts import TransactionWorld
from authz_service.store import directory, sessions, tokens
from authz_service.store.token_lists import SESSION_NAME
from authz_service.tokens.model import Token
from authz_service.tokens.policy import MANAGEMENT

INSTANCE: Final = "instance"
SESSION: Final = SESSION_NAME


class Authority:
    """What one actor may do, as of one transaction. Never kept beyond it."""

    def __init__(self, world: TransactionWorld, token: Token, user: User | None, *, signed_in: bool = False) -> None:
        self.world = world
        self.token = token
        """The actor's token as it is stored now, not as it was when the request came."""
        self.user = user
        """Its owner; None for a token of a catalog without a directory, which may do nothing here."""
        self.signed_in = signed_in
        """Whether the actor is a person with an open session: they issue for themselves beyond what they hold (M2)."""

    @classmethod
    async def open(cls, conn: AsyncConnection, management: Management, actor: Actor, *, hold: bool) -> Authority:
        """Raises UnauthenticatedError when the actor's token has ended since it was shown.

        `hold` is for writes: no import commits, and nobody revokes or edits the actor's token or one above it, until
        the transaction ends. So a downgrade that races a write comes before it, and is seen, or after it. Take no
        other lock before.
        """
        if hold:
            await directory.hold_still(conn)
            await _hold_line(conn, actor.token)
        world = await TransactionWorld.open(conn, management.shipped, actor.client_address)
        token = await world.token(actor.token.id)
        if token is None or await world.line_failure(token) is not None:
            raise UnauthenticatedError("show a valid token as `Authorization: Bearer`")
        user = await world.user(token.owner) if isinstance(token.owner, int) else None
        # The name alone proves nothing, and spares everybody else the question.
        signed_in = token.name == SESSION and await sessions.is_own_token(conn, token.id)
        return cls(world, token, user, signed_in=signed_in)

    @property
    def user_id(self) -> int | None:
        """Whoever owns the actor's token; None for a free text (C9)."""
        return self.token.owner if isinstance(self.token.owner, int) else None

    def require_holds(self, *permissions: str) -> None:
        """Raises ForbiddenError unless some scope names one of these: the way out before anything is looked at."""
        held = {name for scope in self.token.scopes if scope.catalog == MANAGEMENT for name in scope.permissions}
        if self.user is None or held.isdisjoint(permissions):
            raise ForbiddenError(f"this token may not do that: it needs {_any_of(permissions)}")

    async def may(self, permission: str, target: str = INSTANCE, *, source: str = DEFAULT_SOURCE) -> bool:
        """Whether the engine allows the permission at the target."""
        if MANAGEMENT not in self.token.catalogs:
            return False
        return (await self.world.decide(self.token, permission, target, source=source)).allowed

    async def may_at(self, permission: str, node: NodeId) -> bool:
        """Like `may`, at a node of the directory, in whichever source it lies; False where it is gone."""
        chain = await self.world.chain(node)
        if not chain:
            return False
        path = "/".join(above.name for above in reversed(chain))
        return await self.may(permission, format_target(chain[0].kind, path), source=chain[0].source)

    async def may_at_group_of(self, permission: str, node: NodeId) -> bool:
        """Like `may_at`, at the group itself or at the group that a project lies in."""
        groups = [above for above in await self.world.chain(node) if above.kind is NodeKind.GROUP]
        return bool(groups) and await self.may_at(permission, groups[0].id)

    async def may_for(self, permission: str, owner: NodeId) -> bool:
        """Rule M2: for oneself, for a service account whose home group one manages, for anyone else as admin."""
        if await self.may(permission):
            return True
        if not isinstance(owner, int):
            return False
        if owner == self.token.owner:
            return await self.may_at(permission, owner)
        user = await self.world.user(owner)
        if user is None or not user.service_account or user.home is None:
            return False
        return await self.may_at(permission, user.home)

    async def require(self, permission: str, target: str = INSTANCE, *, source: str = DEFAULT_SOURCE) -> None:
        """Raises ForbiddenError unless `may`."""
        self.require_holds(permission)
        if not await self.may(permission, target, source=source):
            raise ForbiddenError(f"this token may not do that: it needs `{permission}` on `{target}`")

    @property
    def admin(self) -> bool:
        return self.user is not None and self.user.admin


async def _hold_line(conn: AsyncConnection, token: Token) -> None:
    """Lock the token and all above it, from the lowest up; a line that breaks is found out by rule A1."""
    parent = token.id
    for _ in range(64):
        try:
            record = await tokens.get(conn, parent, lock=True)
        except NotFoundError:
            return
        if record.token.parent is None:
            return
        parent = record.token.parent


def _any_of(permissions: tuple[str, ...]) -> str:
    return " or ".join(f"`{permission}`" for permission in permissions)
