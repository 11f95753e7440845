"""Loads the facts that a question needs and nobody has yet: one load at a time for each fact, never an old one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.cache.clock import elapsed
from authz_service.cache.facts import TOP, Facts, GrantsEntry
from authz_service.cache.follower import Follower
from authz_service.cache.journal import Journal, Touch
from authz_service.cache.keys import (
    AboveKey,
    CatalogKey,
    ExternalKey,
    FactKey,
    GrantsKey,
    MembershipsKey,
    NewestKey,
    NodeKey,
    PathKey,
    PoliciesKey,
    SchemaKey,
    TokenIdKey,
    TokenKey,
    UnderKey,
    UserKey,
)
from authz_service.cache.packed import PackedScopes
from authz_service.catalog.graphql_schema import parse_stored
from authz_service.catalog.loader import load_catalog
from authz_service.catalog.model import Catalog, ParameterKind
from authz_service.directory.model import INSTANCE_ID, Node, NodeId, NodeKind, TargetText
from authz_service.errors import CannotDecideError, CatalogInvalidError, DatabaseUnavailableError, OverloadedError
from authz_service.store import catalog_schemas, catalogs, directory, grants, policies, tokens
from authz_service.store.catalogs import CatalogVersion
from authz_service.store.changes import ALL_KEYS, ChangeKind, Stamp
from authz_service.store.database import Database
from authz_service.tracing import OFF, Traces

Put = Callable[[], None]
Loaded = tuple[Stamp, list[Touch], Put]
"""A load: the snapshot it read, what its entry is made of, and how to put it in."""

_ANY_NODE: Final = Touch(ChangeKind.NODE, ALL_KEYS)
_ATTEMPTS: Final = 8
_UNKNOWN_SECONDS: Final = 2.0
"""How long an unknown secret is believed to be unknown: creation is not in the change log."""
_SLICE: Final = 64
"""How many facts of one question are looked up at once, at most: thousands of them leave room for others."""


class FactReader:
    """Reads one fact from a connection. It knows no follower: authority uses it inside a transaction."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._parsing: dict[tuple[str, int, bytes], asyncio.Task[Catalog]] = {}
        """A version never changes, so that its digest names one catalog for ever."""

    async def read(self, conn: AsyncConnection, key: FactKey) -> Loaded:
        match key:
            case TokenKey() | TokenIdKey():
                return await self._token(conn, key)
            case UserKey():
                return await self._user(conn, key)
            case MembershipsKey():
                return await self._memberships(conn, key)
            case NodeKey():
                return await self._node(conn, key)
            case PathKey():
                return await self._path(conn, key)
            case ExternalKey():
                return await self._external(conn, key)
            case AboveKey():
                stamp, found = await directory.load_above_memberships(conn, key.user)
                touches = [Touch(ChangeKind.MEMBERSHIP, str(key.user)), _ANY_NODE]
                return stamp, touches, lambda: self._facts.above.__setitem__(key.user, found)
            case UnderKey():
                return await self._under(conn, key)
            case CatalogKey():
                return await self._catalog(conn, key)
            case SchemaKey():
                return await self._schema(conn, key)
            case NewestKey():
                stamp, newest = await catalogs.load_newest(conn, key.name)
                touches = [Touch(ChangeKind.CATALOG, key.name)]
                return stamp, touches, lambda: self._facts.newest_installed.__setitem__(key.name, newest)
            case PoliciesKey():
                stamp, rows = await policies.load_catalog(conn, key.catalog)
                touches = [Touch(ChangeKind.POLICY, key.catalog)]
                return stamp, touches, lambda: self._facts.policy_rows.__setitem__(key.catalog, rows)
            case GrantsKey():
                stamp, approvals = await grants.load_of_token(conn, key.token)
                entry = GrantsEntry(approvals)
                touches = [Touch(ChangeKind.GRANT, key.token)]
                return stamp, touches, lambda: self._facts.approvals.__setitem__(key.token, entry)

    async def _token(self, conn: AsyncConnection, key: TokenKey | TokenIdKey) -> Loaded:
        """The token with its owner and the owner's memberships, in one round trip."""
        facts, began = self._facts, elapsed()
        if isinstance(key, TokenKey):
            reading = await tokens.find_by_digest(conn, key.digest)
        else:
            reading = await tokens.find_by_id(conn, key.token)
        if reading.record is None:

            def put_none() -> None:
                if isinstance(key, TokenKey):
                    facts.unknown_digests[key.digest] = (began, elapsed() + _UNKNOWN_SECONDS)
                else:
                    facts.tokens[key.token] = None

            return reading.stamp, [], put_none
        # It stays for long, and most checks of it never read its scopes again.
        token = replace(reading.record.token, scopes=PackedScopes(reading.record.token.scopes))
        owner = token.owner
        touches = [Touch(ChangeKind.TOKEN, token.id)]
        if isinstance(owner, int):
            touches += [Touch(ChangeKind.USER, str(owner)), Touch(ChangeKind.MEMBERSHIP, str(owner))]

        def put() -> None:
            facts.put_token(token)
            if isinstance(key, TokenKey):
                facts.digests[key.digest] = token.id
            if isinstance(owner, int):
                facts.users[owner] = reading.owner
                facts.members[owner] = reading.memberships

        return reading.stamp, touches, put

    async def _node(self, conn: AsyncConnection, key: NodeKey) -> Loaded:
        reading = await directory.load_chain_by_id(conn, key.node)
        return self._chain(reading.stamp, reading.chain, lambda: self._facts.nodes.__setitem__(key.node, None))

    async def _user(self, conn: AsyncConnection, key: UserKey) -> Loaded:
        reading = await directory.load_user(conn, key.user)
        touches = [Touch(ChangeKind.USER, str(key.user))]
        return reading.stamp, touches, lambda: self._facts.users.__setitem__(key.user, reading.user)

    async def _memberships(self, conn: AsyncConnection, key: MembershipsKey) -> Loaded:
        reading = await directory.load_memberships(conn, key.user)
        touches = [Touch(ChangeKind.MEMBERSHIP, str(key.user))]
        roles: dict[NodeId, str] = {node: role for node, role in reading.roles.items()}  # noqa: C416 - widens the key
        return reading.stamp, touches, lambda: self._facts.members.__setitem__(key.user, roles)

    async def _path(self, conn: AsyncConnection, key: PathKey) -> Loaded:
        reading = await directory.load_chain(conn, TargetText(None, path=key.path), source=key.source)
        found = reading.prefix or tuple(reversed(reading.chain))
        names = key.path.split("/")

        def put_free() -> None:
            for node in found:
                self._facts.put_node(node)
            parent = int(found[-1].id) if found else TOP
            self._facts.free_names[key.source, parent, names[len(found)]] = None

        return self._chain(reading.stamp, reading.chain, put_free, also=found)

    async def _external(self, conn: AsyncConnection, key: ExternalKey) -> Loaded:
        if key.kind is ParameterKind.NAMESPACE:
            reading = await directory.load_namespace(conn, key.source, key.external_id)
        else:
            reading = await directory.load_node_by_external_id(
                conn, key.source, NodeKind(key.kind.value), key.external_id
            )
        if not reading.chain:
            return reading.stamp, [_ANY_NODE], lambda: self._facts.free_externals.__setitem__(key, None)
        stamp, touches, put_chain = self._chain(reading.stamp, reading.chain, lambda: None)

        def put() -> None:
            put_chain()
            self._facts.externals[key] = int(reading.chain[0].id)

        return stamp, touches, put

    def _chain(self, stamp: Stamp, chain: tuple[Node, ...], put_none: Put, *, also: tuple[Node, ...] = ()) -> Loaded:
        """A chain is made of its nodes; that there is none is made of all nodes."""
        if not chain:
            return stamp, [_ANY_NODE, *(Touch(ChangeKind.NODE, str(node.id)) for node in also)], put_none

        def put() -> None:
            for node in chain:
                self._facts.put_node(node)

        return stamp, [Touch(ChangeKind.NODE, str(node.id)) for node in chain], put

    async def _under(self, conn: AsyncConnection, key: UnderKey) -> Loaded:
        top = key.node or INSTANCE_ID
        stamp, nodes = await directory.load_descendants(conn, top, key.kind)
        own = await directory.load_chain_by_id(conn, top)
        itself = tuple(node for node in own.chain[:1] if node.kind is key.kind)
        inside = tuple(node for node in (*itself, *nodes) if key.node or node.source == key.source)

        def put() -> None:
            for node in inside:
                self._facts.put_node(node)
            self._facts.under[key] = tuple(int(node.id) for node in inside)

        return min(stamp, own.stamp, key=lambda one: one.revision), [_ANY_NODE], put

    async def _catalog(self, conn: AsyncConnection, key: CatalogKey) -> Loaded:
        stamp, found = await catalogs.load(conn, key.name, key.version)
        catalog = None if found is None else await self._parsed(found)
        touches = [Touch(ChangeKind.CATALOG, key.name)]
        return stamp, touches, lambda: self._facts.put_catalog(key, catalog)

    async def _schema(self, conn: AsyncConnection, key: SchemaKey) -> Loaded:
        stamp, found = await catalog_schemas.load(conn, key.name, key.version)
        try:
            schema = None if found is None else await asyncio.to_thread(parse_stored, found.text or "")
        except CatalogInvalidError as error:
            raise CannotDecideError(f"the schema of `{key.name}@{key.version}` cannot be read here") from error
        touches = [Touch(ChangeKind.CATALOG, key.name)]
        return stamp, touches, lambda: self._facts.schemas.__setitem__(key, schema)

    async def _parsed(self, found: CatalogVersion) -> Catalog:
        """In a thread, once: seconds of a large catalog would hold up every decision of this process.

        Whoever gives up waiting leaves the work to whoever asks next. Raises CannotDecideError for a text that this
        version of the service does not read.
        """
        key = (found.name, found.version, found.digest)
        if key not in self._parsing:
            label = f"{found.name}@{found.version}"
            self._parsing[key] = asyncio.create_task(asyncio.to_thread(load_catalog, found.text or "", file=label))
        try:
            return await asyncio.shield(self._parsing[key])
        except CatalogInvalidError as error:
            raise CannotDecideError(f"the catalog `{found.name}@{found.version}` cannot be read here") from error


class Loader:
    """Fills the cache: bounded in how much it loads at once, and true to the fill guard of docs/freshness.md."""

    def __init__(
        self,
        database: Database,
        follower: Follower,
        journal: Journal,
        facts: Facts,
        gate: Gate,
        *,
        traces: Traces = OFF,
    ) -> None:
        self._traces = traces
        self._database = database
        self._follower = follower
        self._journal = journal
        self._reader = FactReader(facts)
        self._gate = gate
        self._running: dict[FactKey, asyncio.Task[None]] = {}
        self._began: dict[FactKey, float] = {}
        """`elapsed()` at the start of what runs for a secret."""

    async def load(self, keys: Iterable[FactKey], *, since: float = 0.0) -> None:
        """Returns once every fact is at hand, or raises CannotDecideError. Loads under way are joined, not repeated.

        But one for a secret that began before `since` (`elapsed()`) is not: it may have seen what was there before.
        Many facts come in slices, so that one question never takes all places from all others.
        """
        wanted = list(keys)
        size = min(_SLICE, self._gate.share)
        for start in range(0, len(wanted), size):
            tasks = [self._join(key, since) for key in wanted[start : start + size]]
            for task in tasks:
                await asyncio.shield(task)

    def _join(self, key: FactKey, since: float = 0.0) -> asyncio.Task[None]:
        task = self._running.get(key)
        # One that has ended did not wait for this caller: what it put in may be dropped already.
        if task is None or task.done() or self._began.get(key, since) < since:
            if isinstance(key, TokenKey):
                self._began[key] = elapsed()
            task = self._running[key] = asyncio.create_task(self._fill(key))
            task.add_done_callback(lambda done: self._forget(key, done))
        return task

    def _forget(self, key: FactKey, done: asyncio.Task[None]) -> None:
        if self._running.get(key) is done:
            del self._running[key]
            self._began.pop(key, None)
        if not done.cancelled():
            done.exception()  # every waiter gets it; one that went away must not leave it unseen

    async def _fill(self, key: FactKey) -> None:
        with self._traces.span("load", authz__fact=type(key).__name__.removesuffix("Key").lower()):
            await self._read_until_settled(key)

    async def _read_until_settled(self, key: FactKey) -> None:
        for _ in range(_ATTEMPTS):
            try:
                # Whoever asks gives up sooner than a link that swallows everything; and places must come free again.
                async with (
                    asyncio.timeout(self._follower.settings.load_timeout),
                    self._gate.place(),
                    self._database.read() as conn,
                ):
                    stamp, touches, put = await self._reader.read(conn, key)
            except (DatabaseUnavailableError, TimeoutError) as error:
                raise CannotDecideError("the database did not answer, so nothing can be decided") from error
            await self._follower.applied_to(stamp.revision)
            applied = self._follower.require_fresh()
            settled = applied.epoch == stamp.epoch and applied.revision >= stamp.revision
            if settled and not self._journal.touched_after(stamp.revision, touches):
                put()
                return
        raise OverloadedError("what this decision rests on changes faster than it can be read; try again shortly")


class Gate:
    """Lets a bounded number of loads run and a bounded number wait; sheds the rest."""

    def __init__(self, running: int, waiting: int) -> None:
        self._running = asyncio.Semaphore(running)
        self._limit = waiting
        self.waiting = 0
        self.shed = 0
        """How many were refused since the start."""
        self.share = max(1, (running + waiting) // 8)
        """How many places one question may ask for at once, so that several with many facts fit beside others."""

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Raises OverloadedError at once when the queue is full."""
        if self.waiting >= self._limit:
            self.shed += 1
            raise OverloadedError("too many questions wait for the database; try again shortly")
        self.waiting += 1
        try:
            await self._running.acquire()
        finally:
            self.waiting -= 1
        try:
            yield
        finally:
            self._running.release()
