"""Requests of an API as questions about one place: what the short way makes of a method and a path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from authz_service.cache.bounded import Bounded
from authz_service.cache.spots import PlaceKey
from authz_service.catalog.model import Catalog, Operation, ParameterKind, Target, TargetKind
from authz_service.catalog.routes import Match, Router
from authz_service.directory.model import NodeKind

_MOST_CALLS: Final = 50_000
_LONGEST_PATH: Final = 256


@dataclass(frozen=True, slots=True)
class Needed:
    """The one permission that an operation takes at a place of one kind."""

    number: int
    permission: str


@dataclass(frozen=True, slots=True)
class Call:
    """A request whose whole requirement is one permission at the place that its path names.

    `needs` is by the kind of that place: alternatives that differ in boundary only (C3). A call that anyone may read at
    a public place (A7) can be allowed by what the token holds, and not denied by it. `told` is what the API behind may
    be told of an allow: the permission, or nothing where alternatives take different ones.
    """

    place: PlaceKey
    needs: Mapping[NodeKind, Needed]
    reads_public: bool
    told: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Simple:
    target: Target
    needs: Mapping[NodeKind, Needed]
    reads_public: bool
    told: tuple[str, ...]


class Calls:
    """The calls of one catalog version. What a path means never changes in it, so that is remembered."""

    def __init__(self, catalog: Catalog, router: Router) -> None:
        self.catalog = catalog
        self._router = router
        self._simple = {
            operation.id: found
            for operation in catalog.operations.values()
            if (found := _simple(operation, catalog)) is not None
        }
        self._known: Bounded[tuple[str, str], Call | None] = Bounded(_MOST_CALLS)

    def find(self, method: str, path: str) -> Call | None:
        """None for what takes the rules themselves: another kind of target, several items, a path that is none."""
        key = (method, path)
        if key in self._known:
            return self._known[key]
        call = self._read(method, path)
        if len(path) <= _LONGEST_PATH:
            self._known[key] = call
        return call

    def _read(self, method: str, path: str) -> Call | None:
        match = self._router.resolve(method, path)
        simple = self._simple.get(match.operation_id) if isinstance(match, Match) else None
        if simple is None or not isinstance(match, Match):
            return None
        values = [match.parameters.get(name) for name in simple.target.parameters]
        given = [value for value in values if value is not None]
        if not given or len(given) < len(values):
            return None
        place = (simple.target.names or ParameterKind.PROJECT, "/".join(given))
        return Call(place, simple.needs, simple.reads_public, simple.told)


def _simple(operation: Operation, catalog: Catalog) -> _Simple | None:
    if operation.closed or operation.open or not operation.sets:
        return None
    needs: dict[NodeKind, Needed] = {}
    targets = set()
    for one in operation.sets:
        if len(one.items) != 1 or one.when or one.min_role is not None or one.items[0].boundary in needs:
            return None
        (item,) = one.items
        targets.add(item.target)
        needs[item.boundary] = Needed(catalog.by_name[item.permission].number, item.permission)
    (target, *others) = targets
    if others or target.kind is not TargetKind.PARAMETER:
        return None
    permissions = {needed.permission for needed in needs.values()}
    return _Simple(target, needs, operation.public_read, tuple(permissions) if len(permissions) == 1 else ())
