"""Who and what might be allowed, before it is decided: more than are, never fewer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from authz_service.catalog.model import Catalog, Permission, bits
from authz_service.compiler.lookup import Lookup
from authz_service.directory.model import DEFAULT_SOURCE, INSTANCE_ID, NodeId, NodeKind, Visibility
from authz_service.engine.model import Decision, Request, World
from authz_service.engine.places import PLACE_KINDS, DirectoryPlaces, Place, UpstreamPlaces, node_text
from authz_service.pdp.snapshot import Snapshot
from authz_service.store import search
from authz_service.store.search import PlaceFilter, TokenFilter
from authz_service.tokens.model import ReachKind, Token, TokenId, TokenKind

CHUNK: Final = 400
"""Candidates read at once."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Who is asked about. Without a `token` it is a user as such, for whom `decide` must know the answer.

    `version` is the catalog version to read the target by; None is the newest.
    """

    owner: NodeId
    decide: Callable[[World, Request], Decision]
    version: int | None = None
    token: Token | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    subject: Subject
    catalog: Catalog
    kinds: tuple[NodeKind, ...]
    permissions: Sequence[Permission]
    public: bool


async def place_candidates(snapshot: Snapshot, wanted: Wanted, after: int) -> AsyncIterator[tuple[Place, int]]:
    """Places of these kinds that might be allowed, each with its position in the order."""
    catalog = wanted.catalog
    if catalog.upstream:
        for position, place in enumerate(_spoken(wanted.subject, catalog), 1):
            if position > after and place.kind in wanted.kinds:
                yield place, position
        return
    fitting = await _place_filter(snapshot, wanted)
    places = DirectoryPlaces(catalog, Token(TokenId(""), wanted.subject.owner, {}), snapshot.facts)
    while True:
        nodes = await search.load_places(snapshot.conn, fitting, after=after, limit=CHUNK)
        await snapshot.put_nodes(nodes)
        for node in nodes:
            found = await snapshot.answer(partial(_parse, places, node_text(snapshot.facts, node)))
            if found is not None:
                yield found, int(node.id)
        if len(nodes) < CHUNK:
            return
        after = int(nodes[-1].id)


def _parse(places: DirectoryPlaces, text: str) -> Place | None:
    return places.parse(text)


async def _place_filter(snapshot: Snapshot, wanted: Wanted) -> PlaceFilter:
    subject, catalog, permissions = wanted.subject, wanted.catalog, wanted.permissions
    source = catalog.source or DEFAULT_SOURCE
    public = wanted.public and any(permission.reads_public for permission in permissions)
    if not isinstance(subject.owner, int):
        return PlaceFilter(source, wanted.kinds, public=public)
    owner: int = subject.owner
    user = await snapshot.answer(lambda: snapshot.facts.user(owner))
    token = subject.token
    whole = token is None or token.kind is TokenKind.LEGACY
    roots: set[int] = set()
    scopes = [] if token is None else [scope for scope in token.scopes if scope.catalog == catalog.name]
    for scope in scopes:
        roots |= {node for node in scope.reach.nodes if isinstance(node, int)}
    reaches = {scope.reach.kind for scope in scopes}
    held = await snapshot.answer(lambda: snapshot.facts.memberships(owner))
    members = {owner, *(node for node in held if isinstance(node, int))}
    if whole or ReachKind.ALL_MEMBERSHIPS in reaches:
        roots |= members
    if ReachKind.PERSONAL_PROJECTS in reaches:
        roots.add(owner)
    admin = user is not None and user.admin
    everywhere = whole and (admin or any(permission.visitor for permission in permissions))
    joined = None if admin or roots <= members else tuple(sorted(members))
    return PlaceFilter(source, wanted.kinds, tuple(sorted(roots)), (owner,), public, everywhere, joined)


SOME: Final = "_"
"""A name that stands for any, in the path of a group that no directory knows; shown as `*`."""


def _spoken(subject: Subject, catalog: Catalog) -> list[Place]:
    """Without a directory: the instance, the owner's own names, what the scopes name, and something in each group."""
    token = subject.token or Token(TokenId(""), subject.owner, {catalog.name: catalog.version})
    places = UpstreamPlaces(catalog, token, Lookup())
    texts = {str(node) for scope in token.scopes if scope.catalog == catalog.name for node in scope.reach.nodes}
    if isinstance(token.owner, str):
        texts |= {f"{kind.value}:{token.owner}" for kind in (NodeKind.USER, NodeKind.GROUP)}
    groups = [text.partition(":")[2] for text in texts if text.startswith(f"{NodeKind.GROUP.value}:")]
    texts |= {f"{NodeKind.PROJECT.value}:{path}/{SOME}" for path in groups}
    found = {place.text: place for place in map(places.parse, sorted(texts)) if place is not None}
    return [places.instance(), *(found[text] for text in sorted(found))]


# Who


@dataclass(frozen=True, slots=True)
class Aim:
    """A permission at a place, as one catalog version has them. `place` is None without a directory."""

    names: frozenset[str]
    bundles: frozenset[str]
    place: Place | None
    anyone: bool
    visitors: bool


async def find_aim(snapshot: Snapshot, catalog: Catalog, permission: str, target: str) -> Aim | None:
    """None where no token of this version could be allowed: there is no such permission, or no such place."""
    found = catalog.by_name.get(permission)
    if found is None:
        return None
    place: Place | None = None
    if not catalog.upstream:
        nobody = Token(TokenId(""), INSTANCE_ID, {})
        places = DirectoryPlaces(catalog, nobody, snapshot.facts)
        place = await snapshot.answer(partial(_parse, places, target))
        if place is None or place.kind not in found.boundaries:
            return None
    conferring = 0
    for boundary in found.boundaries if place is None else (place.kind,):
        conferring |= catalog.holders[boundary][found.number]
    names = {catalog.permissions[number].name for number in bits(conferring)}
    names |= {alias for alias, name in catalog.aliases.items() if name in names}
    bundles = {
        bundle.name
        for bundle in catalog.bundles.values()
        if any(name in names or catalog.aliases.get(name) in names for name in bundle.permissions)
    }
    public = place is not None and place.public
    open_place = place is not None and place.kind in PLACE_KINDS and place.visibility is not Visibility.PRIVATE
    return Aim(frozenset(names), frozenset(bundles), place, public and found.reads_public, found.visitor and open_place)


def token_filter(catalog: str, aims: Sequence[Aim]) -> TokenFilter:
    """One filter for all versions: each version may read another source, and its place there counts too."""
    chain = sorted({int(node) for aim in aims if aim.place is not None for node in aim.place.chain})
    return TokenFilter(
        catalog,
        tuple(sorted(frozenset[str]().union(*(aim.names for aim in aims)))),
        tuple(sorted(frozenset[str]().union(*(aim.bundles for aim in aims)))),
        tuple(chain) if all(aim.place is not None for aim in aims) else (),
        anyone=any(aim.anyone for aim in aims),
        visitors=any(aim.visitors for aim in aims),
    )
