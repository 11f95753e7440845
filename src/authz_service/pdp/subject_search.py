"""Who may do this here, where may they, and what: answered for named subjects, each result proven by a check.

The candidates come from `search`, which reads the database; what is told was then decided like any other question
(`check_subjects`), so that a search never says what a check does not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, TypeVar

from authz_service.catalog.model import Catalog
from authz_service.catalog.paths import METHODS
from authz_service.directory.model import Attributes, NodeId, NodeKind
from authz_service.engine.decide import decide
from authz_service.engine.model import Decision, PermissionRequest, Request, World
from authz_service.engine.users import decide_user
from authz_service.pdp.check import DecisionPoint, parse_catalog
from authz_service.pdp.limits import GroupLimit
from authz_service.pdp.question import Freshly
from authz_service.pdp.search import Circumstances, Found, FoundPlace, Search
from authz_service.pdp.search import Subject as Searched
from authz_service.pdp.subjects import (
    KINDS,
    ROUTE,
    About,
    NamedAction,
    Subject,
    SubjectAsk,
    SubjectKind,
    about_of,
    check_subjects,
    find_user,
)
from authz_service.tokens.model import TokenId
from authz_service.tokens.secret import is_token_id

T = TypeVar("T")

_CHUNK: Final = 100
"""Checks in a row before the loop may run something else."""
_EMPTY_PAGES: Final = 50
"""An empty page would tell that there is more somewhere: so many are passed over."""


@dataclass(frozen=True, slots=True)
class Circle:
    """What all questions of one search share. `size` is how many results are wanted at most."""

    catalog: str
    size: int
    cursor: str | None = None
    attributes: Attributes = field(default_factory=dict)
    client_address: str | None = None
    limit: GroupLimit | None = None

    @property
    def circumstances(self) -> Circumstances:
        return Circumstances(self.attributes, self.client_address)


@dataclass(frozen=True, slots=True)
class Page:
    """Texts that were found: ids or names. `cursor` None is the end."""

    found: tuple[str, ...]
    cursor: str | None = None


class SubjectSearch:
    """Raises what `Search` and `check_subjects` raise: InvalidInputError for a bad cursor, CannotDecideError."""

    def __init__(self, point: DecisionPoint, search: Search) -> None:
        self._point = point
        self._search = search

    # who

    async def subjects(self, kind: SubjectKind, about: NamedAction, circle: Circle) -> Page:
        """Ids of the tokens, or names of the users, that may do this."""
        catalog = await self._newest(circle.catalog)
        target = about.target or ""
        permission = None if catalog is None else _candidate(catalog, about)
        if catalog is None or permission is None or not await self._in_reach(target, catalog, circle.limit):
            return Page(())
        given, size = circle.circumstances, circle.size

        async def read(cursor: str | None) -> Found[str]:
            if kind is SubjectKind.TOKEN:
                page = await self._search.tokens(
                    catalog.name, permission, target, circumstances=given, limit=size, cursor=cursor
                )
                return Found(tuple(one.token.id for one in page.items), page.next_cursor, page.stamp)
            judge = partial(_judge_user, catalog, about)
            people = await self._search.users(
                catalog.name, permission, target, judge, circumstances=given, limit=size, cursor=cursor
            )
            return Found(tuple(one.username for one in people.items), people.next_cursor, people.stamp)

        def ask(key: str) -> SubjectAsk:
            return self._ask(Subject(kind, key), about, circle)

        return await self._pages(read, ask, circle)

    # where

    async def resources(self, subject: Subject, kind: str, action: str, circle: Circle) -> Page:
        """Ids of the resources of a type at which the subject may do this."""
        seen = await self._seen(subject, circle.catalog)
        whole = ":" in action and kind in KINDS
        about = NamedAction("" if whole else kind, action, None)
        permission = None if seen is None else _candidate(seen[1], about)
        if seen is None or permission is None:
            return Page(())
        searched, catalog = seen
        searched = replace(searched, decide=partial(_swapped, catalog, about, searched.decide))

        async def read(cursor: str | None) -> Found[str]:
            page = await self._search.places(
                searched,
                catalog.name,
                permission,
                kind=NodeKind(kind) if whole else None,
                circumstances=circle.circumstances,
                limit=circle.size,
                cursor=cursor,
            )
            return Found(tuple(_key(place, catalog, whole=whole) for place in page.items), page.next_cursor, page.stamp)

        def ask(key: str) -> SubjectAsk:
            return self._ask(subject, about_of(kind, key, action), circle)

        return await self._pages(read, ask, circle)

    # what

    async def actions(self, subject: Subject, kind: str, key: str, circle: Circle) -> Page:
        """Names of the actions that the subject may do on a resource."""
        seen = await self._seen(subject, circle.catalog)
        names = [] if seen is None else sorted(set(_names(seen[1], kind)))
        after = circle.cursor or ""
        waiting = [name for name in names if name > after]
        found: list[str] = []
        for start in range(0, len(waiting), _CHUNK):
            asked = waiting[start : start + _CHUNK]
            asks = [self._ask(subject, about_of(kind, key, name), circle) for name in asked]
            answers = await check_subjects(self._point, asks, Freshly())
            found += [name for name, answer in zip(asked, answers, strict=True) if answer.decision.allowed]
            if len(found) > circle.size:
                return Page(tuple(found[: circle.size]), found[circle.size - 1] if circle.size else after)
            await asyncio.sleep(0)
        return Page(tuple(found))

    # shared

    async def _pages(
        self,
        read: Callable[[str | None], Awaitable[Found[str]]],
        ask: Callable[[str], SubjectAsk],
        circle: Circle,
    ) -> Page:
        """The next page that holds a result, or the last one."""
        cursor = circle.cursor or None
        for _ in range(_EMPTY_PAGES):
            page = await read(cursor)
            answers = await check_subjects(self._point, [ask(key) for key in page.items], Freshly())
            kept = [key for key, answer in zip(page.items, answers, strict=True) if answer.decision.allowed]
            cursor = page.next_cursor
            if kept or cursor is None:
                return Page(tuple(kept), cursor)
        return Page((), cursor)

    def _ask(self, subject: Subject, about: About, circle: Circle) -> SubjectAsk:
        return SubjectAsk(subject, about, circle.catalog, circle.attributes, circle.client_address, circle.limit)

    async def _run(self, work: Callable[[], T]) -> T:
        _, [found] = await self._point.decide_all([work])
        return found

    async def _newest(self, label: str) -> Catalog | None:
        """The version that is named, else the newest."""
        name, version = parse_catalog(label)
        facts = self._point.facts
        return await self._run(lambda: facts.newest_catalog(name) if version is None else facts.catalog(name, version))

    async def _in_reach(self, target: str, catalog: Catalog, limit: GroupLimit | None) -> bool:
        """Whether the asker may ask about the place: what lies beyond has nobody."""
        if limit is None:
            return True
        facts = self._point.facts
        now = self._point.follower.now()
        return await self._run(lambda: limit.covers_target(target, catalog, facts, now))

    async def _seen(self, subject: Subject, label: str) -> tuple[Searched, Catalog] | None:
        """The subject as `Search` takes it, with the catalog version that decides; None where there is nothing."""
        facts, (name, version) = self._point.facts, parse_catalog(label)
        if subject.kind is SubjectKind.TOKEN:
            known = TokenId(subject.id) if is_token_id(subject.id) else None
            token = None if known is None else await self._run(lambda: facts.token(known))
            own = None if token is None else await self._run(lambda: self._point.own_catalog(token, name))
            if token is None or own is None or version not in (None, own.version):
                return None
            return Searched(token.owner, partial(decide, token), own.version, token), own
        catalog = await self._newest(label)
        user = None if catalog is None else await self._run(lambda: find_user(facts, catalog, subject.id))
        if catalog is None or user is None:
            return None
        return Searched(user, partial(decide_user, user, catalog), catalog.version), catalog


def _judge_user(catalog: Catalog, about: NamedAction, user: NodeId, world: World, request: Request) -> Decision:
    return decide_user(user, catalog, world, replace(request, ask=about.resolve(catalog)))


def _swapped(
    catalog: Catalog, about: NamedAction, judge: Callable[[World, Request], Decision], world: World, request: Request
) -> Decision:
    """The decision of an action at the place that a search asks about by a permission."""
    return judge(world, replace(request, ask=replace(about, target=request.ask.target).resolve(catalog)))


def _candidate(catalog: Catalog, about: NamedAction) -> str | None:
    """The permission by which candidates are looked for; None for an action that is nothing here."""
    resolved = about.resolve(catalog)
    if isinstance(resolved, PermissionRequest):
        return resolved.permission if resolved.permission in catalog.by_name else None
    items = [item.permission for choice in catalog.operations[resolved.operation].sets for item in choice.items]
    same = f"{about.resource}:{about.action}"
    return same if same in items else next(iter(items), None)


def _key(place: FoundPlace, catalog: Catalog, *, whole: bool) -> str:
    """A place as the id of a resource: its path, where nothing else has it; its whole text upstream (C9)."""
    if place.kind is NodeKind.INSTANCE or (catalog.upstream and not whole):
        return place.text
    return place.text.partition(":")[2]


def _names(catalog: Catalog, kind: str) -> Iterator[str]:
    """What could be done on a resource of this type."""
    if kind == ROUTE:
        yield from METHODS
    for permission in catalog.permissions:
        if kind in KINDS and NodeKind(kind) in permission.boundaries:
            yield permission.name
        if permission.resource == kind:
            yield permission.action
    for operation in catalog.operations:
        if operation.startswith(f"{kind}."):
            yield operation.removeprefix(f"{kind}.")
