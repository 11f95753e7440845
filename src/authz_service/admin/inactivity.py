"""After how many days without a use a token is revoked, as the policies say (rule P2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.directory.model import INSTANCE_ID, NodeId
from authz_service.store import directory, policies
from authz_service.store.grandfathering import Directory
from authz_service.store.token_rows import TokenRecord
from authz_service.tokens.asking import Book
from authz_service.tokens.model import ReachKind, Token, TokenId
from authz_service.tokens.policy import MANAGEMENT, set_aside


@dataclass(frozen=True, slots=True)
class AsPoliciesSay:
    """The sweep's limits: `most` is the installation's own, which holds beside every policy; None is none."""

    most: int | None = None

    async def least_days(self, conn: AsyncConnection) -> int | None:
        """The fewest days that any token is held to; None when none is."""
        found = [policy.inactivity.days for policy in await policies.load_all(conn) if policy.inactivity is not None]
        return min([*found, *([] if self.most is None else [self.most])], default=None)

    async def days_for(self, conn: AsyncConnection, records: Sequence[TokenRecord]) -> Mapping[TokenId, int]:
        """Those that each token is held to; one that is not there may rest for ever."""
        limiting: dict[str, Book] = {}
        for policy in await policies.load_all(conn):
            if policy.inactivity is not None:
                limiting[policy.catalog] = {**limiting.get(policy.catalog, {}), policy.node: policy}
        places = Directory()
        await places.read(conn, [node for one in records for scope in one.token.scopes for node in scope.reach.nodes])
        found: dict[TokenId, int] = {}
        for record in records:
            admin = await _is_admin(conn, record.token) if MANAGEMENT in limiting else False
            days = _days(record.token, limiting, places, admin=admin)
            held = [one for one in (days, self.most) if one is not None]
            if held:
                found[record.token.id] = min(held)
        return found


async def _is_admin(conn: AsyncConnection, token: Token) -> bool:
    user = (await directory.load_user(conn, token.owner)).user if isinstance(token.owner, int) else None
    return user is not None and user.admin


def _days(token: Token, books: Mapping[str, Book], places: Directory, *, admin: bool) -> int | None:
    """Of a token for several catalogs what the mildest of them allows: it ends for all of them."""
    most = 0
    for name in token.catalogs:
        book = books.get(name)
        if book is None or set_aside(token, name, admin=admin):
            return None
        days = [
            policy.inactivity.days
            for node, policy in book.items()
            if policy.inactivity is not None and (node == INSTANCE_ID or _lies_in(token, name, node, places))
        ]
        if not days:
            return None
        most = max(most, min(days))
    return most or None


def _lies_in(token: Token, catalog: str, group: NodeId, places: Directory) -> bool:
    """Whether the token reaches nowhere but into the group: a group ends no token that lives elsewhere too."""
    scopes = [scope for scope in token.scopes if scope.catalog == catalog]
    return bool(scopes) and all(
        scope.reach.kind is ReachKind.SELECTED and all(group in places.way(node) for node in scope.reach.nodes)
        for scope in scopes
    )
