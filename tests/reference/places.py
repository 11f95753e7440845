"""The reference's own reading of targets: which place a text, a parameter or a scope speaks of (C3, C9, D1)."""

from __future__ import annotations

import string
from dataclasses import dataclass

from tests.reference.rows import Rows

from authz_service.catalog.model import Catalog, ParameterKind
from authz_service.directory.model import DEFAULT_SOURCE, Node, NodeId, NodeKind

SOMETHING = "*"
"""The last part of a path that upstream merely might have (C9); no written path can hold a star."""


@dataclass(frozen=True)
class Place:
    """A node of the directory, or what stands for one under `owner_check: upstream`."""

    id: NodeId
    kind: NodeKind
    text: str
    chain: tuple[NodeId, ...]
    """Itself, then what it lies in, up to the top. The instance is in nobody's chain but its own."""
    node: Node | None = None
    whole: bool = False
    """A group that stands for all projects in it, now and later (C3, GraphQL 3)."""


# Texts


def is_path(text: str) -> bool:
    parts = text.split("/")
    return len(text) <= 1024 and len(parts) <= 21 and all(is_segment(part) for part in parts)


def is_segment(text: str) -> bool:
    letters = string.ascii_letters + string.digits + "_."
    return (
        1 <= len(text) <= 255
        and text not in (".", "..")
        and text[0] in letters
        and all(character in letters + "-" for character in text)
    )


def is_digits(text: str) -> bool:
    return text != "" and all(character in string.digits for character in text)


def read_target(text: str) -> tuple[NodeKind | None, str] | None:
    """(kind, path or digits) of a written target; None where the text names nothing that could exist."""
    if text == "instance":
        return NodeKind.INSTANCE, ""
    kind: NodeKind | None = None
    name = text
    for word in ("project", "group", "user"):
        if text.startswith(word + ":"):
            kind = NodeKind(word)
            name = text[len(word) + 1 :]
    if is_digits(name):
        return None if kind is None or len(name) > 64 else (kind, name)
    if not is_path(name) or (kind is NodeKind.USER and "/" in name):
        return None
    return kind, name


# Places by text


def written_place(rows: Rows, catalog: Catalog, text: str) -> Place | None:
    """What a target means that a person or a PEP wrote."""
    read = read_target(text)
    if read is None:
        return None
    kind, name = read
    if kind is NodeKind.INSTANCE:
        return instance_place(rows, catalog)
    if catalog.upstream:
        return None if kind is None else upstream_place(catalog, kind, name)
    if kind is not None and is_digits(name):
        return by_external_id(rows, catalog, ParameterKind(kind.value), name)
    return by_path(rows, catalog, None if kind is None else [kind], name)


def parameter_place(rows: Rows, catalog: Catalog, names: ParameterKind, value: str) -> Place | None:
    """What the value of a path parameter means. Upstream, a namespace is a group."""
    if not is_path(value) or (names is ParameterKind.USER and "/" in value):
        return None
    kinds = [NodeKind.GROUP, NodeKind.USER] if names is ParameterKind.NAMESPACE else [NodeKind(names.value)]
    if catalog.upstream:
        return upstream_place(catalog, kinds[0], value)
    if is_digits(value):
        return by_external_id(rows, catalog, names, value)
    return by_path(rows, catalog, kinds, value)


def by_path(rows: Rows, catalog: Catalog, kinds: list[NodeKind] | None, path: str) -> Place | None:
    for node in rows.nodes:
        if node.source != source_of(catalog) or node.kind is NodeKind.INSTANCE:
            continue
        if kinds is not None and node.kind not in kinds:
            continue
        if fold(catalog, path_of(rows, node)) == fold(catalog, path):
            return place_of(rows, node)
    return None


def by_external_id(rows: Rows, catalog: Catalog, names: ParameterKind, external_id: str) -> Place | None:
    for node in rows.nodes:
        if node.source != source_of(catalog):
            continue
        if names is ParameterKind.NAMESPACE:
            if node.kind is NodeKind.GROUP and node.external_id == external_id:
                return place_of(rows, node)
            if node.kind is NodeKind.USER and node.namespace_external_id == external_id:
                return place_of(rows, node)
        elif node.kind.value == names.value and node.external_id == external_id:
            return place_of(rows, node)
    return None


def source_of(catalog: Catalog) -> str:
    return DEFAULT_SOURCE if catalog.source is None else catalog.source


def fold(catalog: Catalog, text: str) -> str:
    return text if catalog.case_sensitive else text.lower()


# Places of the directory


def node_of(rows: Rows, node: NodeId) -> Node | None:
    for row in rows.nodes:
        if row.id == node and type(row.id) is type(node):
            return row
    return None


def place_of(rows: Rows, node: Node) -> Place:
    text = "instance" if node.kind is NodeKind.INSTANCE else f"{node.kind.value}:{path_of(rows, node)}"
    return Place(node.id, node.kind, text, tuple(row.id for row in way_up(rows, node)), node)


def way_up(rows: Rows, node: Node) -> list[Node]:
    way = [node]
    while way[-1].parent is not None:
        parent = node_of(rows, way[-1].parent)
        if parent is None or parent.kind is NodeKind.INSTANCE:
            break
        way.append(parent)
    return way


def path_of(rows: Rows, node: Node) -> str:
    return "/".join(reversed([row.name for row in way_up(rows, node)]))


def places_under(rows: Rows, top: Place, kind: NodeKind) -> list[Place]:
    """All places of the kind at or under a place of the directory."""
    found = [place_of(rows, node) for node in rows.nodes if node.kind is kind]
    return [place for place in found if top.id in place.chain]


def places_anywhere(rows: Rows, catalog: Catalog, kind: NodeKind) -> list[Place]:
    """The instance lies in no source."""
    return [
        place_of(rows, node)
        for node in rows.nodes
        if node.kind is kind and (kind is NodeKind.INSTANCE or node.source == source_of(catalog))
    ]


# Places where there is no directory


def upstream_place(catalog: Catalog, kind: NodeKind, path: str) -> Place:
    path = fold(catalog, path)
    chain = [f"{kind.value}:{path}"]
    if kind in (NodeKind.PROJECT, NodeKind.GROUP):
        parts = path.split("/")
        chain += [f"group:{'/'.join(parts[:length])}" for length in range(len(parts) - 1, 0, -1)]
    return Place(chain[0], kind, chain[0], tuple(chain))


def owner_place(rows: Rows, catalog: Catalog, owner: NodeId) -> Place | None:
    """The account a token acts for."""
    if catalog.upstream:
        if isinstance(owner, int):  # somebody of our directory has no name upstream
            return None
        text = fold(catalog, f"user:{owner}")
        return Place(text, NodeKind.USER, text, (text,))
    node = node_of(rows, owner)
    return None if node is None else place_of(rows, node)


def instance_place(rows: Rows, catalog: Catalog) -> Place | None:
    if catalog.upstream:
        return Place("instance", NodeKind.INSTANCE, "instance", ("instance",))
    for node in rows.nodes:
        if node.kind is NodeKind.INSTANCE:
            return place_of(rows, node)
    return None


def upstream_under(
    catalog: Catalog, top: Place | None, kind: NodeKind, spoken_of: list[str], owner: NodeId
) -> list[Place]:
    """The places of the kind that what a token's scopes speak of proves to exist: each node a scope names, and
    something below each group, the owner's namespace and `top` itself; at or under `top`, or anywhere for None."""
    found: list[Place] = []
    groups: list[str] = []
    for text in [*spoken_of, *([] if top is None else [top.text])]:
        named, _, path = text.partition(":")
        if named == kind.value:
            found.append(upstream_place(catalog, kind, path))
        if named == "group":
            groups.append(path)
    if isinstance(owner, str):
        groups.append(owner)
    if kind in (NodeKind.PROJECT, NodeKind.GROUP):
        found += [upstream_place(catalog, kind, f"{path}/{SOMETHING}") for path in groups]
    if kind is NodeKind.USER and isinstance(owner, str):
        found.append(upstream_place(catalog, kind, owner))
    if kind is NodeKind.INSTANCE:
        found.append(Place("instance", kind, "instance", ("instance",)))
    return [place for place in found if top is None or top.id in place.chain]
