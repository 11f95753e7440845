"""The engine's world as one transaction sees it: authority is decided on the very rows that a write rests on (M2)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from typing import Final, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.cache.facts import Facts, NotAtHandError
from authz_service.catalog.model import Catalog
from authz_service.directory.model import DEFAULT_SOURCE, Node, NodeId, User
from authz_service.engine.decide import decide, line_failure
from authz_service.engine.model import Decision, PermissionRequest, Reason, Request, World
from authz_service.errors import OverloadedError
from authz_service.pdp.loader import FactReader
from authz_service.store.changes import load_clock
from authz_service.tokens.model import Token, TokenId
from authz_service.tokens.policy import MANAGEMENT

T = TypeVar("T")
_ROUNDS: Final = 5000
"""One load a round: a token with a line of 30 ancestors needs some hundreds."""


class _Rows(Facts):
    """Facts read once in a transaction. Management looks into every source, so its catalog takes the one asked for."""

    def __init__(self, shipped: Iterable[Catalog]) -> None:
        super().__init__(shipped)
        self.source = DEFAULT_SOURCE
        self._sourced: dict[tuple[int, str], Catalog] = {}

    def catalog(self, name: str, version: int) -> Catalog | None:
        found = super().catalog(name, version)
        if found is None or name != MANAGEMENT:
            return found
        key = (version, self.source)
        if key not in self._sourced:
            self._sourced[key] = replace(found, source=self.source)
        return self._sourced[key]


class TransactionWorld:
    """What the rules read, from one connection and without a cache. It holds what it read: use it for one transaction.

    Rows that a decision rests on must be held by locks first (`store.directory.hold_still`, `store.tokens.get`), or the
    decision may be old at the commit.
    """

    def __init__(
        self, conn: AsyncConnection, shipped: Iterable[Catalog], now: datetime, client_address: str | None = None
    ) -> None:
        self.now = now
        self._conn = conn
        self._facts = _Rows(shipped)
        self._reader = FactReader(self._facts)
        self._client_address = client_address

    @classmethod
    async def open(
        cls, conn: AsyncConnection, shipped: Iterable[Catalog], client_address: str | None = None
    ) -> TransactionWorld:
        """At database time, read now. Take the locks before."""
        now = await load_clock(conn)
        return cls(conn, shipped, now, client_address)

    async def answer(self, work: Callable[[World], T]) -> T:
        """The result of `work`, which is run again until it needs no row that was not read yet."""
        for _ in range(_ROUNDS):
            try:
                return work(self._facts)
            except NotAtHandError as error:
                _, _, put = await self._reader.read(self._conn, error.key)
                put()
        raise OverloadedError("this needs more facts than one request may; ask for less at once")

    async def token(self, token: TokenId) -> Token | None:
        return await self.answer(lambda world: world.token(token))

    async def user(self, user: NodeId) -> User | None:
        return await self.answer(lambda world: world.user(user))

    async def node(self, node: NodeId) -> Node | None:
        return await self.answer(lambda world: world.node(node))

    async def chain(self, node: NodeId) -> tuple[Node, ...]:
        """The node and what lies above it, without the instance; empty when it is gone."""
        found: list[Node] = []
        above: NodeId | None = node
        while above is not None:
            one = await self.node(above)
            if one is None:
                break
            found.append(one)
            above = one.parent
        return tuple(found)

    async def ancestors(self, token: Token) -> tuple[Token, ...] | None:
        """The tokens above, nearest first; None when the line is broken or circular."""
        found: list[Token] = []
        line = {token.id}
        while token.parent is not None:
            parent = await self.token(token.parent)
            if parent is None or parent.id in line:
                return None
            found.append(parent)
            line.add(parent.id)
            token = parent
        return tuple(found)

    async def line_failure(self, token: Token) -> Reason | None:
        """Rule A1 for a token and all above it; None when it holds."""
        request = self._request("", None)
        return await self.answer(lambda world: line_failure(token, world, request))

    async def decide(self, token: Token, permission: str, target: str, *, source: str = DEFAULT_SOURCE) -> Decision:
        """Whether a management permission holds at a target of a source, by the same engine (rule M1)."""
        self._facts.source = source
        request = self._request(permission, target)
        return await self.answer(lambda world: decide(token, world, request))

    def _request(self, permission: str, target: str | None) -> Request:
        ask = PermissionRequest(permission, target)
        return Request(MANAGEMENT, ask, self.now, client_address=self._client_address)
