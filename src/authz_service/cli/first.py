"""The first admin: made from the database's side, because nobody is there yet who could allow it."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.admin.management import Management
from authz_service.catalog.model import Catalog
from authz_service.directory.lines import UserLine
from authz_service.directory.model import DEFAULT_SOURCE, NodeKind, UserState
from authz_service.errors import ConflictError, StartError
from authz_service.store import audit, changes, directory, tokens
from authz_service.store.changes import ChangeSet, load_clock
from authz_service.store.directory_import import apply_import
from authz_service.store.tables import account
from authz_service.store.token_rows import TokenRecord
from authz_service.tokens.model import Reach, ReachKind, Scope, Token, TokenId
from authz_service.tokens.policy import EVALUATE, MANAGEMENT
from authz_service.tokens.secret import new_secret, new_token_id

NAME: Final = "bootstrap"


async def make_admin(
    management: Management, username: str, *, lifetime: timedelta | None, break_glass: bool = False
) -> tuple[TokenId, str]:
    """An active admin of this name with a token for everything an admin may manage; its id and secret.

    Raises ConflictError when there is an admin already, unless `break_glass`. The audit tells of it either way.
    """
    catalog = next((one for one in management.shipped if one.name == MANAGEMENT), None)
    if catalog is None:
        raise StartError("this installation lacks its own catalog; install the package again")

    async def work(conn: AsyncConnection) -> tuple[TokenId, str]:
        await directory.hold_for_import(conn)
        if not break_glass and await _has_admin(conn):
            raise ConflictError(
                "there is an admin already, who can issue tokens; `--break-glass` makes another all the same"
            )
        touched = ChangeSet()
        line = UserLine(number=1, username=username, state=UserState.ACTIVE, admin=True)
        await apply_import(conn, [line], changes=touched)
        found = await directory.find_user(conn, source=DEFAULT_SOURCE, username=username)
        if found.user is None:
            raise AssertionError("who was just imported is there")
        now = await load_clock(conn)
        secret = new_secret(management.peppers.prefix, management.peppers.current)
        digest = management.peppers.digest(secret.reveal())
        if digest is None:
            raise AssertionError("a new secret has a digest")
        token = Token(
            id=new_token_id(),
            owner=found.user.id,
            catalogs={catalog.name: catalog.version},
            scopes=_scopes(catalog),
            name=NAME,
            expires_at=None if lifetime is None else now + lifetime,
        )
        record = TokenRecord(token, management.peppers.current, token.id, reason="made by `authz bootstrap`")
        await tokens.insert(conn, record, digest)
        stamp = await changes.append(conn, touched)
        entry = audit.AuditEntry("bootstrap", token.id, details={"username": username, "break_glass": break_glass})
        await audit.insert(conn, entry, stamp)
        return token.id, secret.reveal()

    return await management.database.run_in_transaction(work)


async def _has_admin(conn: AsyncConnection) -> bool:
    query = select(func.count()).where(account.c.admin, account.c.state == UserState.ACTIVE.value)
    return bool((await conn.execute(query)).scalar_one())


def _scopes(catalog: Catalog) -> tuple[Scope, ...]:
    """All of management, on the instance and for the admin's own account; asking for decisions is a gateway's work."""
    return tuple(
        Scope(
            catalog.name,
            Reach(reach),
            tuple(one.name for one in catalog.permissions if boundary in one.boundaries and one.name != EVALUATE),
        )
        for boundary, reach in ((NodeKind.INSTANCE, ReachKind.INSTANCE), (NodeKind.USER, ReachKind.USER))
    )
