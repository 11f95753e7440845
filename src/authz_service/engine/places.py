"""Where a request points: targets as places of the directory, or by their text alone (rules C3, C9, D1, D5)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from authz_service.catalog.model import Catalog, ParameterKind
from authz_service.compiler.lookup import Lookup
from authz_service.directory.model import (
    DEFAULT_SOURCE,
    INSTANCE_ID,
    Attributes,
    Node,
    NodeId,
    NodeKind,
    TargetText,
    Visibility,
    format_target,
    is_path,
    parse_target,
)
from authz_service.engine.model import World
from authz_service.tokens.model import Token

_PARAMETER_NODES: Final[Mapping[ParameterKind, frozenset[NodeKind]]] = {
    ParameterKind.PROJECT: frozenset({NodeKind.PROJECT}),
    ParameterKind.GROUP: frozenset({NodeKind.GROUP}),
    ParameterKind.USER: frozenset({NodeKind.USER}),
    ParameterKind.NAMESPACE: frozenset({NodeKind.GROUP, NodeKind.USER}),
}
PLACE_KINDS: Final = frozenset({NodeKind.PROJECT, NodeKind.GROUP})
"""Kinds that have a visibility and members of their own."""


@dataclass(frozen=True, slots=True)
class Place:
    """A resolved target. `chain` is itself and what lies above it, without the instance; `text` its canonical form.

    `public` and `internal` speak of the effective visibility of projects and groups; a user or the instance is neither.
    """

    id: NodeId
    kind: NodeKind
    chain: tuple[NodeId, ...]
    text: str
    visibility: Visibility | None = None
    attributes: Attributes = field(default_factory=dict)
    archived: bool = False
    whole: bool = False
    """A group that stands for all projects in it, now and later, in a part of a document (C3)."""

    @property
    def public(self) -> bool:
        return self.visibility is Visibility.PUBLIC


class Places(Protocol):
    """How targets of one catalog are found for one token's owner."""

    def parse(self, text: str) -> Place | None: ...

    def parameter(self, kind: ParameterKind, value: str) -> Place | None: ...

    def own(self) -> Place | None: ...

    def instance(self) -> Place: ...

    def below(self, top: Place | None, kind: NodeKind) -> Iterator[Place]:
        """Places of the kind at or under `top`, or all of them when None; for C3's `below` and `anywhere`."""
        ...

    def groups_below(self, top: Place, among: Collection[NodeId]) -> Iterator[Place]:
        """The groups of these that lie below a group, itself left out."""
        ...

    def seen(self, place: Place) -> bool: ...


def places_for(catalog: Catalog, token: Token, lookup: Lookup, world: World) -> Places:
    """The directory's places, or those written as text where the catalog leaves owners and targets upstream (C9)."""
    if catalog.upstream:
        return UpstreamPlaces(catalog, token, lookup)
    return DirectoryPlaces(catalog, token, world)


_INSTANCE: Final = Place(INSTANCE_ID, NodeKind.INSTANCE, (INSTANCE_ID,), "instance")


class DirectoryPlaces:
    """Targets that are nodes of the directory."""

    def __init__(self, catalog: Catalog, token: Token, world: World) -> None:
        self._catalog = catalog
        self._source = catalog.source or DEFAULT_SOURCE
        self._owner = token.owner
        self._world = world

    def parse(self, text: str) -> Place | None:
        written = parse_target(text)
        return None if written is None else self._find(written)

    def parameter(self, kind: ParameterKind, value: str) -> Place | None:
        """Digits are an external id in the kind's own id space, anything else a path (C3)."""
        if value.isascii() and value.isdigit():
            return self._place(self._world.find_external(self._source, kind, value))
        if not is_path(value):
            return None
        place = self._find(TargetText(None, path=value))
        return place if place is not None and place.kind in _PARAMETER_NODES[kind] else None

    def _find(self, written: TargetText) -> Place | None:
        if written.kind is NodeKind.INSTANCE:
            return _INSTANCE
        if written.external_id is not None:
            if written.kind is None:
                return None
            kind = ParameterKind(written.kind.value)
            return self._place(self._world.find_external(self._source, kind, written.external_id))
        path = written.path or ""
        place = self._place(self._world.find(self._source, written.kind, path))
        if place is not None and self._catalog.case_sensitive and place.text.partition(":")[2] != path:
            return None
        return place

    def _place(self, node: Node | None) -> Place | None:
        if node is None:
            return None
        chain = self._chain(node)
        path = "/".join(above.name for above in reversed(chain))
        visibility = min(above.visibility for above in chain) if node.kind in PLACE_KINDS else None
        return Place(
            node.id,
            node.kind,
            tuple(above.id for above in chain),
            format_target(node.kind, path),
            visibility,
            node.attributes,
            node.archived,
        )

    def _chain(self, node: Node) -> list[Node]:
        chain = [node]
        while (parent := chain[-1].parent) is not None and parent != INSTANCE_ID:
            above = self._world.node(parent)
            if above is None:
                break
            chain.append(above)
        return chain

    def own(self) -> Place | None:
        return self._place(self._world.node(self._owner))

    def instance(self) -> Place:
        return _INSTANCE

    def below(self, top: Place | None, kind: NodeKind) -> Iterator[Place]:
        if kind is NodeKind.INSTANCE:
            nodes = [] if top is not None else [self._world.node(INSTANCE_ID)]
            yield from (_INSTANCE for node in nodes if node is not None)
            return
        found = self._world.every(self._source, kind) if top is None else self._world.at_or_below(top.id, kind)
        for node in found:
            place = self._place(node)
            if place is not None:
                yield place

    def groups_below(self, top: Place, among: Collection[NodeId]) -> Iterator[Place]:
        for node in self._world.at_or_below(top.id, NodeKind.GROUP):
            place = self._place(node) if node.id in among and node.id != top.id else None
            if place is not None:
                yield place

    def seen(self, place: Place) -> bool:
        """Whether the owner sees the place (D5). A role that does not inherit is seen at its own node alone (C6)."""
        if place.visibility is None or place.visibility is Visibility.PUBLIC:
            return True
        owner = self._world.user(self._owner)
        if owner is None:
            return False
        if owner.admin or (place.visibility is Visibility.INTERNAL and not owner.external):
            return True
        if is_member(place, self._owner, self._world.memberships(self._owner), self._catalog):
            return True
        return place.kind is NodeKind.GROUP and self._world.is_member_below(self._owner, place.id)


class UpstreamPlaces:
    """Targets that are only text: a group's path covers those below it, nothing is public or hidden (C9)."""

    def __init__(self, catalog: Catalog, token: Token, lookup: Lookup) -> None:
        self._catalog = catalog
        self._owner = token.owner if isinstance(token.owner, str) else None
        self._lookup = lookup

    def parse(self, text: str) -> Place | None:
        written = parse_target(text)
        if written is None or written.kind is None:
            return None
        if written.kind is NodeKind.INSTANCE:
            return _INSTANCE
        return self._place(written.kind, written.path or written.external_id or "")

    def parameter(self, kind: ParameterKind, value: str) -> Place | None:
        """A namespace is a group."""
        if not is_path(value) or (kind is ParameterKind.USER and "/" in value):
            return None
        return self._place(NodeKind.GROUP if kind is ParameterKind.NAMESPACE else NodeKind(kind.value), value)

    def _place(self, kind: NodeKind, path: str) -> Place:
        path = self._catalog.fold(path)
        chain = upstream_chain(kind, path)
        return Place(chain[0], kind, chain, format_target(kind, path))

    def own(self) -> Place | None:
        """None for an owner of our own directory: its ids say nothing upstream."""
        return None if self._owner is None else self._place(NodeKind.USER, self._owner)

    def instance(self) -> Place:
        return _INSTANCE

    def below(self, top: Place | None, kind: NodeKind) -> Iterator[Place]:
        """Without a directory nobody knows what exists: whatever the token's scopes speak of is taken to exist.

        So does something in each group they speak of, in `top`, and in the namespace of the owner's name: `…/*`, a
        name that no real place can have.
        """
        spoken = [str(node).partition(":") for node in self._lookup.selected]
        if top is not None:
            spoken.append(top.text.partition(":"))
        groups = [path for word, _, path in spoken if word == NodeKind.GROUP.value]
        found = [self._place(kind, path) for word, _, path in spoken if word == kind.value]
        if kind is NodeKind.INSTANCE:
            found = [_INSTANCE]
        if self._owner is not None:
            groups.append(self._owner)
            found += [self._place(kind, self._owner)] if kind is NodeKind.USER else []
        if kind in PLACE_KINDS:
            found += [self._place(kind, f"{path}/*") for path in groups]
        yield from (place for place in found if top is None or top.id in place.chain)

    def groups_below(self, top: Place, among: Collection[NodeId]) -> Iterator[Place]:
        for node in among:
            kind, _, path = str(node).partition(":")
            place = self._place(NodeKind.GROUP, path) if kind == NodeKind.GROUP.value else None
            if place is not None and top.id in place.chain and place.id != top.id:
                yield place

    def seen(self, place: Place) -> bool:  # noqa: ARG002 - nothing is hidden without a directory
        return True


def upstream_chain(kind: NodeKind, path: str) -> tuple[NodeId, ...]:
    """`project:a/b/c` → itself, `group:a/b`, `group:a`. The path is taken as it is; fold its case first."""
    chain: list[NodeId] = [format_target(kind, path)]
    if kind in PLACE_KINDS:
        above = path
        while (cut := above.rfind("/")) > 0:
            above = above[:cut]
            chain.append(format_target(NodeKind.GROUP, above))
    return tuple(chain)


def node_text(world: World, node: Node) -> str:
    """The canonical text of a node: `project:acme/web`, `instance`."""
    names = [node.name]
    above = node.parent
    while above is not None and above != INSTANCE_ID:
        found = world.node(above)
        if found is None:
            break
        names.append(found.name)
        above = found.parent
    return format_target(node.kind, "/".join(reversed(names)))


def is_member(place: Place, owner: NodeId, memberships: Mapping[NodeId, str], catalog: Catalog) -> bool:
    """Whether a membership row, or the owner's own namespace, lies at or above the place (D3, C6)."""
    stationary = catalog.stationary_roles
    for node in place.chain:
        if node == owner:
            return True
        role = memberships.get(node)
        if role is not None and (role not in stationary or (node == place.id and not place.whole)):
            return True
    return False


def effective_roles(place: Place, owner: NodeId, memberships: Mapping[NodeId, str], catalog: Catalog) -> frozenset[str]:
    """The union of the owner's roles on the way up; `top_role` in their own namespace (D3). Unknown names stay in."""
    stationary = catalog.stationary_roles
    roles = set()
    for node in place.chain:
        if node == owner and catalog.top_role is not None:
            roles.add(catalog.top_role)
        role = memberships.get(node)
        if role is not None and (role not in stationary or (node == place.id and not place.whole)):
            roles.add(role)
    return frozenset(roles)
