"""One snapshot of the database as the engine's world, read in bulk: for searches, suggestions and simulations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import Final, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.cache.facts import Facts, NotAtHandError
from authz_service.catalog.model import Catalog
from authz_service.directory.model import Node, NodeId
from authz_service.errors import OverloadedError
from authz_service.pdp.loader import FactReader
from authz_service.store import changes, search
from authz_service.store.changes import Stamp, load_clock
from authz_service.store.database import Database
from authz_service.store.search import Person
from authz_service.tokens.model import Conditions, Token, TokenId

T = TypeVar("T")
_ROUNDS: Final = 5000
_BETWEEN: Final = 50
"""Decisions made in a row before the loop may run something else: two or three milliseconds."""


class _PartialFacts(Facts):
    """Facts that hold of each user only the memberships at one place and above: nothing in them says what is hidden."""

    def is_member_below(self, user: NodeId, group: NodeId) -> bool:  # noqa: ARG002 - only `hide` depends on it
        return False


class Snapshot:
    """Facts read once from one repeatable-read connection; never kept beyond it, never put into the cache."""

    def __init__(
        self, conn: AsyncConnection, shipped: Iterable[Catalog], now: datetime, stamp: Stamp, *, partial: bool
    ) -> None:
        self.conn = conn
        self.now = now
        self.stamp = stamp
        self.facts = _PartialFacts(shipped) if partial else Facts(shipped)
        self._reader = FactReader(self.facts)
        self._turns = 0

    @classmethod
    @asynccontextmanager
    async def open(cls, database: Database, known: Facts, *, partial: bool = False) -> AsyncIterator[Snapshot]:
        """`known` lends its catalogs: a version never changes, and to read a large one again takes seconds.

        `partial` is for `put_people` and `put_tokens`: then no decision's `hide` says anything.
        """
        async with database.snapshot() as conn:
            stamp = await changes.current(conn)
            now = await load_clock(conn)
            yield cls(conn, list(known.catalogs.values()), now, stamp, partial=partial)

    async def answer(self, work: Callable[[], T]) -> T:
        """The result of `work`, run again until it needs no row that was not read yet; lets others run in between."""
        for _ in range(_ROUNDS):
            try:
                found = work()
            except NotAtHandError as error:
                _, _, put = await self._reader.read(self.conn, error.key)
                put()
            else:
                self._turns += 1
                if self._turns % _BETWEEN == 0:
                    await asyncio.sleep(0)
                return found
        raise OverloadedError("this question needs more facts than one question may; ask for less at once")

    async def token(self, token: TokenId) -> Token | None:
        return await self.answer(lambda: self.facts.token(token))

    async def catalog(self, name: str, version: int | None) -> Catalog | None:
        """This version, or the newest."""
        if version is None:
            return await self.answer(lambda: self.facts.newest_catalog(name))
        return await self.answer(lambda: self.facts.catalog(name, version))

    async def put_nodes(self, nodes: Sequence[Node]) -> None:
        """These, and all above them that is not at hand."""
        for node in nodes:
            self.facts.put_node(node)
        lacking = [int(node.id) for node in nodes if node.parent is not None and node.parent not in self.facts.nodes]
        if lacking:
            for node in await search.load_above(self.conn, lacking):
                self.facts.put_node(node)

    def put_people(self, people: Iterable[Person]) -> None:
        """Accounts with those memberships that the question can depend on."""
        for person in people:
            number = int(person.user.id)
            self.facts.users[number] = person.user
            self.facts.members[number] = person.roles
            if person.node is not None:
                self.facts.put_node(person.node)

    async def put_tokens(self, tokens: Sequence[Token], chain: Sequence[int], *, anywhere: bool = False) -> None:
        """These and all above them, with their owners and the owners' memberships at the chain.

        `anywhere` takes their conditions off: the answer is then what they may do from a network that they allow.
        """
        parents = {token.parent for token in tokens if token.parent is not None} - self.facts.tokens.keys()
        above = await search.load_lines(self.conn, sorted(parents)) if parents else ()
        every = [*tokens, *(record.token for record in above)]
        for token in every:
            self.facts.put_token(replace(token, conditions=Conditions()) if anywhere else token)
        owners = {token.owner for token in every if isinstance(token.owner, int)} - self.facts.users.keys()
        if owners:
            self.put_people(await search.load_people(self.conn, sorted(owners), chain))
