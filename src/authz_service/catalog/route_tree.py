"""The tree that path templates are compiled to, and the clashes that keep a catalog from having one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Final

from authz_service.catalog.canonical import mask
from authz_service.catalog.model import Operation, ParameterKind, Target
from authz_service.catalog.paths import PathTemplate, PieceKind, Segment

MAX_MIXED: Final = 64
"""Segments of text and parameters in one place: they are tried one by one."""
_PLACES: Final = frozenset({ParameterKind.PROJECT, ParameterKind.GROUP, ParameterKind.NAMESPACE})
"""Kinds whose full paths have slashes; a user's name has none."""

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class RouteClash:
    """What keeps a catalog from telling its requests apart, and the operations it is about: two, rarely one."""

    operation_ids: tuple[str, ...]
    message: str


class RouteClashError(ValueError):
    """Some operations cannot be told apart by method and path; `clashes` has all of them."""

    def __init__(self, clashes: Iterable[RouteClash]) -> None:
        self.clashes = tuple(clashes)
        super().__init__("; ".join(clash.message for clash in self.clashes))


@dataclass(frozen=True, slots=True)
class Mixed:
    """A segment of text and parameters, as `:name.zip` or `{base}...{head}`: the texts around its parameters."""

    texts: tuple[str, ...]

    def fit(self, raw: str, key: str, fold: str) -> tuple[list[str], bool] | None:
        """The parameters as they came, and whether every reading of the segment has just these; None if it fits none.

        `key` is the segment as text compares here, `fold` the segment decoded and without its case.
        """
        spans = _cut(self.texts, mask(key))
        folded = tuple(text.casefold() for text in self.texts)
        others = _cut(folded, fold)
        if spans is None:
            return None if others is None else ([""] * (len(self.texts) - 1), False)
        # Every exact reading is one without case too, so where there is one of those, there is one in all.
        return [raw[start:end] for start, end in spans], _cuts_once(folded, fold, others or [])

    def clashes_with(self, other: Mixed) -> bool:
        """Whether one segment may fit both, and neither is a special case of the other."""
        starts = sorted((self.texts[0], other.texts[0]), key=len)
        ends = sorted((self.texts[-1], other.texts[-1]), key=len)
        meet = starts[1].startswith(starts[0]) and ends[1].endswith(ends[0])
        return meet and not self._within(other) and not other._within(self)

    def _within(self, other: Mixed) -> bool:
        one_parameter = len(other.texts) == 2
        return one_parameter and self.texts[0].startswith(other.texts[0]) and self.texts[-1].endswith(other.texts[-1])


def _cut(texts: tuple[str, ...], text: str) -> list[Span] | None:
    """Where the parameters between `texts` lie, as far to the left as can be."""
    start, end = len(texts[0]), len(text) - len(texts[-1])
    if start >= end or not text.startswith(texts[0]) or not text.endswith(texts[-1]):
        return None
    spans = []
    for part in texts[1:-1]:
        found = text.find(part, start + 1, end - 1)  # a parameter is never empty, on either side
        if found < 0:
            return None
        spans.append((start, found))
        start = found + len(part)
    return [*spans, (start, end)]


def _cuts_once(texts: tuple[str, ...], text: str, spans: list[Span]) -> bool:
    """Whether the parameters lie in the same places as far to the right as can be, so that there are no others."""
    if len(texts) == 2:
        return True
    mirrored = _cut(tuple(part[::-1] for part in reversed(texts)), text[::-1]) or []
    return spans == [(len(text) - end, len(text) - start) for start, end in reversed(mirrored)]


@dataclass(frozen=True, slots=True)
class Capture:
    """One parameter of a route. `encoded` says that encoded separators in it are data."""

    name: str
    encoded: bool


@dataclass(frozen=True, slots=True)
class Route:
    """An operation at the end of a path, with what the parameters on the way are called there, in order."""

    operation_id: str
    captures: tuple[Capture, ...]


@dataclass(slots=True, eq=False)
class Node:
    """A place in the tree. `literals` maps a text without its case to its spellings, each with a node of its own."""

    literals: dict[str, dict[str, Node]] = field(default_factory=dict)
    mixed: dict[Mixed, Node] = field(default_factory=dict)
    parameter: Node | None = None
    rest: Node | None = None
    routes: dict[str, Route] = field(default_factory=dict)
    names_place: bool = False
    """Whether some operation's target says that the parameter before this node is a project or a group."""

    @property
    def ends(self) -> bool:
        """Whether nothing follows."""
        return not (self.literals or self.mixed or self.parameter or self.rest)


@dataclass(frozen=True, slots=True)
class Step:
    """One segment of one template: the texts around its parameters, and whether it may span several segments."""

    texts: tuple[str, ...]
    names: tuple[str, ...] = ()
    spans: bool = False

    @property
    def whole(self) -> bool:
        """Whether it is a parameter and nothing else."""
        return self.texts == ("", "")

    def write(self, values: Mapping[str, str]) -> str:
        """The segment with these values in it, which must be encoded already."""
        return self.texts[0] + "".join(
            values[name] + text for name, text in zip(self.names, self.texts[1:], strict=True)
        )


@dataclass(frozen=True, slots=True)
class Way:
    """One way through the tree: a template, or a template without an optional part."""

    operation_id: str
    method: str
    steps: tuple[Step, ...]
    nodes: tuple[Node, ...]
    """Those behind each step; the last has the route."""
    places: frozenset[str]
    joined: frozenset[str]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for step in self.steps for name in step.names)


class Tree:
    """Takes operations one by one, and gives the tree of all. See `Router` for what the arguments mean."""

    def __init__(self, *, case_sensitive: bool, encoded: Collection[str], spanning: Collection[str]) -> None:
        self._case_sensitive = case_sensitive
        self._encoded = frozenset(encoded)
        self._spanning = frozenset(spanning)
        self._root = Node()
        self._ways: list[Way] = []
        self._clashes: dict[RouteClash, None] = {}

    def add(self, operation: Operation, method: str, template: PathTemplate) -> None:
        """Adds every path that the operation's template stands for."""
        targets = _targets(operation)
        places = frozenset(target.parameters[0] for target in targets if _names_one_place(target))
        joined = frozenset(name for target in targets if len(target.parameters) > 1 for name in target.parameters)
        for segments in template.variants:
            steps = tuple(self._step(segment) for segment in segments)
            way = Way(operation.id, method, steps, tuple(self._nodes(steps, operation.id)), places, joined)
            for step, node in zip(way.steps, way.nodes, strict=True):
                node.names_place |= step.whole and step.names[0] in places
            self._check_extent(way, frozenset(name for target in targets for name in _names_in(target)))
            self._ways.append(way)

    def finish(self) -> tuple[Node, Mapping[str, list[Way]]]:
        """The root, and the ways of each operation. Raises RouteClashError with every clash that was found."""
        ways: dict[str, list[Way]] = defaultdict(list)
        for way in self._ways:
            ways[way.operation_id].append(way)
            leaf = way.nodes[-1] if way.nodes else self._root
            route = leaf.routes.setdefault(way.method, Route(way.operation_id, tuple(self._captures(way))))
            if route.operation_id != way.operation_id:
                self._note(route.operation_id, way.operation_id)
        for way in self._ways:
            leaf = way.nodes[-1] if way.nodes else self._root
            if way.method == "GET":
                leaf.routes.setdefault("HEAD", leaf.routes["GET"])
        self._check_mixed()
        if self._clashes:
            raise RouteClashError(self._clashes)
        return self._root, ways

    def _step(self, segment: Segment) -> Step:
        texts, names = [""], []
        for piece in segment.pieces:
            if piece.kind is PieceKind.TEXT:
                texts[-1] += piece.text
            else:
                names.append(piece.text)
                texts.append("")
        whole = segment.parameter
        spans = whole is not None and (segment.pieces[0].kind is PieceKind.REST or whole in self._spanning)
        return Step(tuple(self._key(text) for text in texts), tuple(names), spans)

    def _key(self, text: str) -> str:
        return text if self._case_sensitive else text.lower()

    def _nodes(self, steps: tuple[Step, ...], operation_id: str) -> Iterator[Node]:
        node = self._root
        for step in steps:
            if not step.names:
                node = node.literals.setdefault(step.texts[0].casefold(), {}).setdefault(step.texts[0], Node())
            elif step.spans:
                node.rest = node = node.rest or Node()
            elif step.whole:
                node.parameter = node = node.parameter or Node()
            else:
                child = node.mixed.setdefault(Mixed(step.texts), Node())
                if len(node.mixed) > MAX_MIXED:
                    message = f"`{operation_id}` is one of more than {MAX_MIXED} that differ by text beside a parameter"
                    self._clashes[RouteClash((operation_id,), message)] = None
                node = child
            yield node

    def _captures(self, way: Way) -> Iterator[Capture]:
        for step, node in zip(way.steps, way.nodes, strict=True):
            for name in step.names:
                known = name in self._encoded or name in way.places or (step.whole and node.names_place)
                # Parts that are joined to one path must not bring slashes of their own.
                yield Capture(name, known and name not in way.joined)

    def _note(self, one: str, other: str) -> None:
        message = f"`{one}` and `{other}` can be the same request; keep one of the two, or tell their paths apart"
        self._clashes[RouteClash((one, other), message)] = None

    def _check_extent(self, way: Way, decisive: frozenset[str]) -> None:
        """What a target speaks of must have one beginning and one end, whatever the request."""
        spanning = [place for place, step in enumerate(way.steps) if step.spans]
        if len(spanning) < 2:
            return
        for step in way.steps[spanning[0] : spanning[-1] + 1]:
            for name in decisive.intersection(step.names):
                message = f"`{name}` in `{way.operation_id}` has no certain extent, so it can be no target"
                self._clashes[RouteClash((way.operation_id,), message)] = None

    def _check_mixed(self) -> None:
        groups: dict[tuple[Node, str], list[tuple[Mixed, Way, int]]] = defaultdict(list)
        for way in self._ways:
            for place, step in enumerate(way.steps):
                if step.names and not step.whole:
                    parent = way.nodes[place - 1] if place else self._root
                    groups[parent, way.method].append((Mixed(step.texts), way, place))
        for (parent, _), found in groups.items():
            parent.mixed = dict(sorted(parent.mixed.items(), key=lambda entry: -len("".join(entry[0].texts))))
            for (one, way, place), (other, second, _) in combinations(found, 2):
                if way.operation_id == second.operation_id or one == other or not one.clashes_with(other):
                    continue
                if _may_meet(way.steps[place + 1 :], second.steps[place + 1 :]):
                    self._note(way.operation_id, second.operation_id)


def _may_meet(one: tuple[Step, ...], other: tuple[Step, ...]) -> bool:
    """Whether some path may fit both."""
    for here, there in zip(one, other, strict=False):
        if here.spans or there.spans:
            return True
        if not here.names and not there.names and here.texts != there.texts:
            return False
    return len(one) == len(other)


def _targets(operation: Operation) -> list[Target]:
    found = [item.target for each in operation.sets for item in each.items]
    return [*found, operation.open_at] if operation.open_at is not None else found


def _names_one_place(target: Target) -> bool:
    return target.names in _PLACES and len(target.parameters) == 1


def _names_in(target: Target) -> tuple[str, ...]:
    return (*target.parameters, target.owner_is) if target.owner_is is not None else target.parameters
