"""Which operation a request is: the path templates of a catalog as one tree, and what the path's parameters hold.

No template becomes a regular expression: the time of a request is bounded by its segments and the tree, never by luck.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

from authz_service.catalog.canonical import (
    PathFault,
    RequestPath,
    RouteFault,
    bad_path,
    decode,
    encode,
    hides_structure,
    is_base_path,
    read_target,
    unmatched,
)
from authz_service.catalog.model import Catalog, Operation, OperationKind
from authz_service.catalog.paths import METHODS, parse_path
from authz_service.catalog.route_tree import Node, Route, RouteClash, RouteClashError, Span, Step, Tree

__all__ = ["Match", "PathFault", "RouteClash", "RouteClashError", "RouteFault", "Router", "make_router"]

_METHODS: Final = frozenset(METHODS)


@dataclass(frozen=True, slots=True)
class Match:
    """The operation of a request, and its parameters decoded once. Those of an optional part may be absent."""

    operation_id: str
    parameters: Mapping[str, str]


class Router:
    """Resolves requests of one catalog version. Immutable once made; any number of threads may ask it.

    `base_path` stands before every template and compares exactly. `encoded` names the parameters whose values may hold
    encoded separators (a file's path, a branch); those that operations' targets call a project, a group or a namespace
    are known without being named, for every route through the same place. `spanning` names parameters that take raw
    slashes too, as if the template said `{name*}`. Raises RouteClashError with all clashes, and OperationTextError on
    what is no template.
    """

    def __init__(
        self,
        operations: Iterable[Operation],
        *,
        base_path: str = "",
        case_sensitive: bool = True,
        encoded: Collection[str] = (),
        spanning: Collection[str] = (),
    ) -> None:
        if not is_base_path(base_path):
            raise ValueError(f"`{base_path}` is no base path; write it as `/api/v4`, or leave it empty")
        tree = Tree(case_sensitive=case_sensitive, encoded=encoded, spanning=spanning)
        for operation in operations:
            if operation.kind is OperationKind.REST and operation.method is not None and operation.path is not None:
                tree.add(operation, operation.method, parse_path(operation.path))
        self._root, self._ways = tree.finish()
        self._base_path = base_path
        self._case_sensitive = case_sensitive

    def resolve(self, method: str, target: str) -> Match | PathFault:
        """The operation of a request as the client sent it, or why there is none. Never raises, whatever the text.

        `target` is the request line's: path and query, still encoded. HEAD is GET where it has no operation of its own.
        A path that could be read as two different requests is `bad_path`, even where one reading matches nothing.
        """
        path = read_target(target, self._base_path)
        if isinstance(path, PathFault):
            return path
        if method not in _METHODS:
            return PathFault(RouteFault.OPERATION_UNKNOWN, f"the method is none of {', '.join(METHODS)}")
        search = _Search(path, method, case_sensitive=self._case_sensitive)
        route = search.walk(self._root, 0)
        if route is None:
            return unmatched("/".join(path.raws))
        if search.doubtful:
            return bad_path(f"the path is no exact spelling of `{route.operation_id}`; send it as the API documents it")
        return _match(route, search.captured, path.raws)

    def format_target(self, operation_id: str, parameters: Mapping[str, str]) -> str:
        """The path that resolves to this operation with exactly these parameters.

        Raises ValueError when none does: another operation has that path, or a value may not stand in it.
        """
        wanted = Match(operation_id, dict(parameters))
        for way in self._ways.get(operation_id, ()):
            if set(way.names) != wanted.parameters.keys():
                continue
            for path in _spellings(way.steps, wanted.parameters):
                target = f"{self._base_path}/{path}"
                if self.resolve(way.method, target) == wanted:
                    return target
        raise ValueError(f"no path of `{operation_id}` has these parameters; compare them with its template")


def _match(route: Route, captured: list[str | Span], raws: list[str]) -> Match | PathFault:
    parameters = {}
    for capture, taken in zip(route.captures, captured, strict=True):
        raw = taken if isinstance(taken, str) else "/".join(raws[taken[0] : taken[1]])
        if "%" not in raw:
            parameters[capture.name] = raw
            continue
        if hides_structure(raw) and not capture.encoded:
            return bad_path(f"the parameter `{capture.name}` of `{route.operation_id}` may hold no encoded separator")
        text = decode(raw)
        if "/" in raw and text.count("/") != raw.count("/"):
            return bad_path(f"the parameter `{capture.name}` has slashes both encoded and not; send it in one way")
        parameters[capture.name] = text
    return Match(route.operation_id, parameters)


def _spellings(steps: tuple[Step, ...], parameters: Mapping[str, str]) -> Iterator[str]:
    """The paths that could mean these parameters: what spans segments may be written with slashes or in one piece."""
    rests = [step.names[0] for step in steps if step.spans]
    for choice in product((True, False), repeat=len(rests)):
        raw = {name for name, slashes in zip(rests, choice, strict=True) if slashes}
        values = {name: encode(value, slashes=name in raw) for name, value in parameters.items()}
        yield "/".join(step.write(values) for step in steps)


def make_router(catalog: Catalog) -> Router:
    """The routes of a catalog. Paths compare by case whatever the names of its groups do. Raises RouteClashError."""
    return Router(
        catalog.operations.values(),
        base_path=catalog.base_path,
        encoded=catalog.encoded_parameters,
        spanning=catalog.spanning_parameters,
    )


class _Search:
    """One walk through the tree: text before text with parameters, before a parameter, before what spans segments.

    The walk also follows readings that are not exact (another case, text that was encoded), in the place where their
    exact form would come, and `doubtful` says that the route found needs one: then others may read the request so.
    """

    __slots__ = ("_failed", "_folds", "_keys", "_method", "_raws", "captured", "doubtful")

    def __init__(self, path: RequestPath, method: str, *, case_sensitive: bool) -> None:
        self._raws = path.raws
        self._folds = path.folds
        self._keys = path.raws if case_sensitive else [raw.lower() for raw in path.raws]
        self._method = method
        self._failed: dict[Node, int] = {}
        self.captured: list[str | Span] = []
        self.doubtful = False

    def walk(self, node: Node, at: int) -> Route | None:
        """The route of what is left from segment `at` on; on success `captured` holds its parameters in order."""
        return self._advance(node, at) or (self._span(node.rest, at) if node.rest is not None else None)

    def _advance(self, node: Node, at: int) -> Route | None:
        """As `walk`, without parameters that span segments here."""
        if at == len(self._raws):
            return node.routes.get(self._method)
        key = self._keys[at]
        spellings = node.literals.get(self._folds[at])
        if spellings is not None:
            exact = spellings.get(key)
            route = self.walk(exact, at + 1) if exact is not None else None
            if route is not None:
                return route
            for child in spellings.values():
                if child is not exact and (route := self.walk(child, at + 1)) is not None:
                    self.doubtful = True
                    return route
        if node.mixed and (route := self._mix(node, at)) is not None:
            return route
        if node.parameter is not None:
            return self._take(node.parameter, at + 1, [(at, at + 1)])
        return None

    def _take(self, node: Node, at: int, taken: Sequence[str | Span]) -> Route | None:
        count = len(self.captured)
        self.captured.extend(taken)
        route = self.walk(node, at)
        if route is None:
            del self.captured[count:]
        return route

    def _mix(self, node: Node, at: int) -> Route | None:
        fits = []
        for mixed, child in node.mixed.items():
            fit = mixed.fit(self._raws[at], self._keys[at], self._folds[at])
            if fit is not None:
                fits.append((fit, child))
        for (values, exact), child in sorted(fits, key=lambda found: not found[0][1]):
            route = self._take(child, at + 1, values)
            if route is not None:
                self.doubtful = self.doubtful or not exact
                return route
        return None

    def _span(self, node: Node, at: int) -> Route | None:
        """A parameter from segment `at` on, over one segment or more; `node` is what follows it.

        The shortest wins that text or a parameter follows, else the longest that another such parameter follows.
        """
        # INVARIANT: what follows from one segment on does not depend on the way there, so what failed once fails again.
        last = self._failed.get(node, len(self._raws))
        for end in range(max(at + 1, len(self._raws)) if node.ends else at + 1, last + 1):
            self.captured.append((at, end))
            route = self._advance(node, end)
            if route is not None:
                return route
            self.captured.pop()
        if node.rest is not None:
            for end in range(min(last, len(self._raws) - 1), at, -1):
                self.captured.append((at, end))
                route = self._span(node.rest, end)
                if route is not None:
                    return route
                self.captured.pop()
        self._failed[node] = min(at, last)
        return None
