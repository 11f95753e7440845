"""Changes of tokens tried out: done as they would be, looked at, and undone; nothing of it is ever seen by others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar, cast

from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.admin.approval_views import describe_requests
from authz_service.admin.authority import Authority
from authz_service.admin.cloning import CloneDraft, clone_token
from authz_service.admin.drafts import TokenDraft
from authz_service.admin.editing import TokenChange, edit_token
from authz_service.admin.management import Actor, Management
from authz_service.admin.rotating import Rotation, rotate_token
from authz_service.admin.tokens import READ, create_token, find_seen, may_see_whole
from authz_service.directory.model import NodeId
from authz_service.store import grant_lists, tokens
from authz_service.store.database import Database
from authz_service.store.grant_lists import ApprovalFilter
from authz_service.tokens.model import TokenId

T = TypeVar("T")
_MOST: Final = 100


@dataclass(frozen=True, slots=True)
class Tried:
    """The token as it would be, and what would wait for a group's approval, as lists of requests show it."""

    token: Mapping[str, Any]
    waiting: Sequence[Mapping[str, Any]]


async def try_create(management: Management, actor: Actor, draft: TokenDraft) -> Tried:
    """Raises what `create_token` raises."""
    return await _tried(management, actor, lambda there: _issued(create_token(there, actor, draft)))


async def try_edit(
    management: Management, actor: Actor, token_id: str, change: TokenChange, if_match: Sequence[str]
) -> Tried:
    """Raises what `edit_token` raises."""
    return await _tried(management, actor, lambda there: edit_token(there, actor, token_id, change, if_match))


async def try_clone(management: Management, actor: Actor, token_id: str, draft: CloneDraft) -> Tried:
    """Raises what `clone_token` raises."""
    return await _tried(management, actor, lambda there: _issued(clone_token(there, actor, token_id, draft)))


async def try_rotate(management: Management, actor: Actor, token_id: str, rotation: Rotation) -> Tried:
    """Raises what `rotate_token` raises; here it revokes nobody's family."""
    return await _tried(management, actor, lambda there: _issued(rotate_token(there, actor, token_id, rotation)))


async def find_waiting(management: Management, actor: Actor, ids: Sequence[str]) -> frozenset[str]:
    """Those of these tokens that wait for an approval somewhere, of those that the actor may see as a whole."""
    found: set[str] = set()
    async with management.database.snapshot() as conn:
        authority = await Authority.open(conn, management, actor, hold=False)
        everything = await authority.may(READ)
        for token_id in ids:
            record = await find_seen(conn, authority, token_id)
            if everything or await may_see_whole(authority, record):
                waiting, _ = await grant_lists.list_requests(conn, _pending(record.family), limit=1, cursor=None)
                found |= {token_id} if waiting else set()
    return frozenset(found)


def _pending(family: TokenId) -> ApprovalFilter:
    return ApprovalFilter(None, "pending", None, family)


async def _issued(work: Awaitable[Any]) -> Mapping[str, Any]:
    """Without the secret: it was never stored, and opens nothing."""
    token: Mapping[str, Any] = (await work).token
    return token


async def _tried(
    management: Management, actor: Actor, act: Callable[[Management], Awaitable[Mapping[str, Any]]]
) -> Tried:
    rehearsal = _Rehearsal(management.database, actor.token.owner)
    token = await act(replace(management, database=cast("Database", rehearsal)))
    return Tried(token, rehearsal.waiting)


class _UndoneError(Exception):
    """Carries an outcome out of a transaction that must not commit."""

    def __init__(self, outcome: Any) -> None:
        super().__init__()
        self.outcome = outcome


class _Rehearsal:
    """In place of the database, for a write path that takes one transaction: runs it, looks, and undoes it."""

    def __init__(self, database: Database, viewer: NodeId) -> None:
        self._database = database
        self._viewer = viewer
        self.waiting: Sequence[Mapping[str, Any]] = ()

    async def run_in_transaction(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        async def rehearse(conn: AsyncConnection) -> None:
            done = await work(conn)
            raise _UndoneError((done, await self._look(conn, done)))

        try:
            await self._database.run_in_transaction(rehearse)
        except _UndoneError as undone:
            done, self.waiting = undone.outcome
            return cast("T", done)
        raise AssertionError("a rehearsal is always undone")

    async def _look(self, conn: AsyncConnection, done: Any) -> Sequence[Mapping[str, Any]]:
        token_id = _id_of(done)
        if token_id is None:
            return ()
        family = (await tokens.get(conn, token_id)).family
        found, _ = await grant_lists.list_requests(conn, _pending(family), limit=_MOST, cursor=None)
        return await describe_requests(conn, found, self._viewer)


def _id_of(done: Any) -> TokenId | None:
    """Whose token came out: of an edit it is JSON with a stamp, of the others what was issued."""
    made = getattr(done, "issued", done)
    if isinstance(made, tuple):
        made = made[0]
    token = getattr(made, "token", made)
    return TokenId(token["id"]) if isinstance(token, Mapping) else None
