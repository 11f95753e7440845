"""What may a token do, where may it, and who may do this here: whole answers in pages, by the engine itself.

Each page is read from one snapshot of the database and decided there. Rows of candidates are only a way to have less
to decide: they may be too many, never too few, and a property of the suite holds search and check together.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, Generic, TypeVar

from authz_service.cache.facts import Facts
from authz_service.catalog.model import BOUNDARIES, Catalog, Permission
from authz_service.directory.model import DEFAULT_SOURCE, Attributes, NodeId, NodeKind, User
from authz_service.engine.case import open_case
from authz_service.engine.decide import decide, token_failure
from authz_service.engine.model import Decision, PermissionRequest, Reason, Request, World
from authz_service.engine.places import Place
from authz_service.engine.spot import Spot, has_spots, spot_at
from authz_service.pdp.candidates import CHUNK, SOME, Aim, Subject, Wanted, find_aim, place_candidates, token_filter
from authz_service.pdp.snapshot import Snapshot
from authz_service.store import catalogs, search
from authz_service.store.changes import Stamp
from authz_service.store.database import Database
from authz_service.store.directory import find_user
from authz_service.store.paging import bad_cursor, read_cursor, write_cursor
from authz_service.store.token_rows import TokenRecord
from authz_service.tokens.model import Conditions, Token, TokenId

__all__ = ["Allowed", "Circumstances", "Found", "FoundPlace", "Judge", "Search", "Subject", "token_subject"]

T = TypeVar("T")
Judge = Callable[[NodeId, World, Request], Decision]
"""The decision for a user as such."""

_MOST_DECISIONS: Final = 12_000
"""For one page: some hundred milliseconds. A page that took as many ends early, with a cursor to go on from."""


def token_subject(token: Token, catalog: str, *, anywhere: bool = False) -> Subject:
    """A token by the version that it was made under; `anywhere` leaves out where its clients have to be (T1)."""
    shown = replace(token, conditions=Conditions()) if anywhere else token
    return Subject(token.owner, partial(decide, shown), token.catalogs.get(catalog), shown)


@dataclass(frozen=True, slots=True)
class Found(Generic[T]):
    """A page. It may hold fewer than were asked for; only the one without `next_cursor` is the last."""

    items: tuple[T, ...]
    next_cursor: str | None
    stamp: Stamp


@dataclass(frozen=True, slots=True)
class Allowed:
    """A permission, and by which rule it is allowed."""

    permission: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class FoundPlace:
    """A place with what is allowed there. `below`: without a directory, all that lies under it too (C9)."""

    node: NodeId
    kind: NodeKind
    text: str
    permissions: tuple[Allowed, ...]
    chain: tuple[NodeId, ...] = ()
    below: bool = False


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a request would bring besides."""

    attributes: Attributes = field(default_factory=dict)
    client_address: str | None = None


_PLAIN: Final = Circumstances()
_FEW: Final = 4
"""Permissions at one place that are sooner decided one by one."""


class Search:
    """Built once by the composition root. Visibility is the caller's business: these answers hide nothing."""

    def __init__(self, database: Database, known: Facts) -> None:
        self._database = database
        self._known = known

    async def find_token(self, token_id: str) -> Token | None:
        """By its public id, whatever its state."""
        async with Snapshot.open(self._database, self._known) as snapshot:
            return await snapshot.token(TokenId(token_id))

    async def find_user(self, text: str, source: str = DEFAULT_SOURCE) -> User | None:
        """By username. Deleted ones are not found."""
        async with self._database.read() as conn:
            return (await find_user(conn, source=source, username=text)).user

    async def actions(
        self,
        subject: Subject,
        catalog: str,
        target: str,
        *,
        circumstances: Circumstances = _PLAIN,
        limit: int = 200,
        cursor: str | None = None,
    ) -> Found[Allowed]:
        """Every permission that a check at the target allows, by name."""
        after = "" if cursor is None else read_cursor(cursor, "actions", 1)[0]
        async with Snapshot.open(self._database, self._known) as snapshot:
            found = await _version(snapshot, subject, catalog)
            names = [] if found is None else sorted(permission.name for permission in found.permissions)
            items: list[Allowed] = []
            for name in names:
                if name <= after:
                    continue
                request = _request(snapshot, catalog, name, target, circumstances)
                decision = await snapshot.answer(partial(subject.decide, snapshot.facts, request))
                if decision.allowed:
                    if len(items) == limit:
                        return Found(tuple(items), write_cursor("actions", items[-1].permission), snapshot.stamp)
                    items.append(Allowed(name, decision.reason))
            return Found(tuple(items), None, snapshot.stamp)

    async def places(  # noqa: PLR0913 - each narrows what is found by itself
        self,
        subject: Subject,
        catalog: str,
        permission: str | None,
        *,
        kind: NodeKind | None = None,
        public: bool = True,
        circumstances: Circumstances = _PLAIN,
        within: Callable[[tuple[NodeId, ...], NodeKind], Awaitable[bool]] | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Found[FoundPlace]:
        """Everywhere that the permission is allowed; without one, every place with all that is allowed there.

        In the order of node ids. `public` false leaves out what only is allowed because anyone may read it. What is not
        `within` counts for nothing: neither its number nor where it lies can be told from pages and cursors.
        """
        after = 0 if cursor is None else _number(read_cursor(cursor, "places", 1)[0])
        async with Snapshot.open(self._database, self._known) as snapshot:
            found = await _version(snapshot, subject, catalog)
            permissions = _asked(found, permission)
            if found is None or not permissions:
                return Found((), None, snapshot.stamp)
            kinds = tuple(one for one in BOUNDARIES if kind in (None, one) and _exists(permissions, one))
            page = _Page[FoundPlace](limit)
            wanted = Wanted(subject, found, kinds, permissions, public)
            request = _request(snapshot, catalog, "", "", circumstances)
            at_once = partial(_at_once, snapshot, wanted, request)
            async for place, position in place_candidates(snapshot, wanted, after):
                if within is not None and not await within(place.chain, place.kind):
                    continue
                if page.full:
                    return Found(tuple(page.items), write_cursor("places", str(page.position)), snapshot.stamp)
                given, left = await at_once(place)
                for one in left:
                    page.decisions += 1
                    request = _request(snapshot, catalog, one.name, place.text, circumstances)
                    decision = await snapshot.answer(partial(subject.decide, snapshot.facts, request))
                    if decision.allowed and (public or decision.reason is not Reason.GRANTED_PUBLIC_READ):
                        given.append(Allowed(one.name, decision.reason))
                page.decisions += 1
                given.sort(key=lambda one: one.permission)
                page.add(_found(place, tuple(given), found) if given else None, position)
            return Found(tuple(page.items), None, snapshot.stamp)

    async def tokens(
        self,
        catalog: str,
        permission: str,
        target: str,
        *,
        anywhere: bool = False,
        circumstances: Circumstances = _PLAIN,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Found[TokenRecord]:
        """Every live token for which a check says allow, by id; `anywhere` as in `token_subject`."""
        after = None if cursor is None else TokenId(read_cursor(cursor, "tokens", 1)[0])
        async with Snapshot.open(self._database, self._known, partial=True) as snapshot:
            aims = await self._aims(snapshot, catalog, permission, target)
            page = _Page[TokenRecord](limit)
            if not aims:
                return Found((), None, snapshot.stamp)
            wanted = token_filter(catalog, aims)
            request = _request(snapshot, catalog, permission, target, circumstances)
            while True:
                records = await search.load_tokens(snapshot.conn, wanted, after=after, limit=CHUNK)
                await snapshot.put_tokens([record.token for record in records], wanted.chain, anywhere=anywhere)
                for record in records:
                    if page.full:
                        return Found(tuple(page.items), write_cursor("tokens", str(page.position)), snapshot.stamp)
                    token = await snapshot.token(record.token.id)
                    if token is None:
                        raise AssertionError("a token that was just put in is there")
                    decision = await snapshot.answer(partial(decide, token, snapshot.facts, request))
                    page.decisions += 1
                    page.add(record if decision.allowed else None, record.token.id)
                if len(records) < CHUNK:
                    return Found(tuple(page.items), None, snapshot.stamp)
                after = records[-1].token.id

    async def users(
        self,
        catalog: str,
        permission: str,
        target: str,
        judge: Judge,
        *,
        circumstances: Circumstances = _PLAIN,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Found[User]:
        """Every live user for whom `judge` allows, by node id. A catalog without a directory has none (C9)."""
        after = 0 if cursor is None else _number(read_cursor(cursor, "users", 1)[0])
        async with Snapshot.open(self._database, self._known, partial=True) as snapshot:
            newest = await snapshot.catalog(catalog, None)
            aim = None if newest is None or newest.upstream else await find_aim(snapshot, newest, permission, target)
            page = _Page[User](limit)
            if newest is None or aim is None or aim.place is None:
                return Found((), None, snapshot.stamp)
            chain = tuple(int(node) for node in aim.place.chain)
            source = newest.source or DEFAULT_SOURCE
            request = _request(snapshot, catalog, permission, target, circumstances)
            while True:
                people = await search.load_users(
                    snapshot.conn, source, chain, anyone=aim.anyone, after=after, limit=CHUNK
                )
                snapshot.put_people(people)
                for person in people:
                    if page.full:
                        return Found(tuple(page.items), write_cursor("users", str(page.position)), snapshot.stamp)
                    decision = await snapshot.answer(partial(judge, person.user.id, snapshot.facts, request))
                    page.decisions += 1
                    page.add(person.user if decision.allowed else None, person.user.id)
                if len(people) < CHUNK:
                    return Found(tuple(page.items), None, snapshot.stamp)
                after = int(people[-1].user.id)

    async def _aims(self, snapshot: Snapshot, catalog: str, permission: str, target: str) -> list[Aim]:
        """What the question means in each version that a token may have been made under."""
        _, installed = await catalogs.load_all(snapshot.conn)
        versions = {one.version for one in installed if one.name == catalog}
        versions |= {key.version for key in snapshot.facts.shipped if key.name == catalog}
        found = []
        for version in sorted(versions):
            known = await snapshot.catalog(catalog, version)
            aim = None if known is None else await find_aim(snapshot, known, permission, target)
            if aim is not None:
                found.append(aim)
        return found


@dataclass(slots=True)
class _Page(Generic[T]):
    """Fills up; full by its items, or by what was decided for it."""

    limit: int
    items: list[T] = field(default_factory=list)
    decisions: int = 0
    position: object = 0
    """The last candidate that was looked at."""

    def add(self, item: T | None, position: object) -> None:
        if item is not None:
            self.items.append(item)
        self.position = position

    @property
    def full(self) -> bool:
        return len(self.items) >= self.limit or self.decisions >= _MOST_DECISIONS


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise bad_cursor()
    return int(text)


def _request(snapshot: Snapshot, catalog: str, permission: str, target: str, given: Circumstances) -> Request:
    ask = PermissionRequest(permission, target)
    return Request(catalog, ask, snapshot.now, attributes=given.attributes, client_address=given.client_address)


async def _version(snapshot: Snapshot, subject: Subject, catalog: str) -> Catalog | None:
    if subject.token is not None and subject.version is None:
        return None
    return await snapshot.catalog(catalog, subject.version)


def _asked(catalog: Catalog | None, permission: str | None) -> Sequence[Permission]:
    if catalog is None:
        return ()
    if permission is None:
        return catalog.permissions
    found = catalog.by_name.get(permission)
    return () if found is None else (found,)


def _exists(permissions: Iterable[Permission], kind: NodeKind) -> bool:
    return any(kind in permission.boundaries for permission in permissions)


def _found(place: Place, given: tuple[Allowed, ...], catalog: Catalog) -> FoundPlace:
    some = catalog.upstream and place.text.endswith(f"/{SOME}")
    text = f"{place.text.removesuffix(SOME)}*" if some else place.text
    below = some or (catalog.upstream and place.kind is NodeKind.GROUP)
    return FoundPlace(place.id, place.kind, text, given, place.chain, below)


async def _at_once(
    snapshot: Snapshot, wanted: Wanted, request: Request, place: Place
) -> tuple[list[Allowed], list[Permission]]:
    """What is allowed at a place as far as one look tells it, and the permissions that the engine has to be asked for.

    Only for tokens of whom the engine's own spot speaks; of everybody else it tells nothing.
    """
    there = [one for one in wanted.permissions if place.kind in one.boundaries]
    token, catalog = wanted.subject.token, wanted.catalog
    if token is None or len(there) < _FEW or not has_spots(token, catalog):
        return [], there

    def look() -> Spot | None:
        if token_failure(token, snapshot.facts, request, catalog) is not None:
            return None
        return spot_at(open_case(token, catalog, snapshot.facts, request), place)

    spot = await snapshot.answer(look)
    if spot is None:
        return [], []
    given = [Allowed(one.name, Reason.GRANTED) for one in there if spot.allowed >> one.number & 1]
    known = spot.allowed | spot.deniable
    return given, [one for one in there if not known >> one.number & 1]
