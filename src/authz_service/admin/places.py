"""Users, groups and projects by what people write for them, as one actor sees the directory (D5, A10)."""

from __future__ import annotations

from dataclasses import replace

from authz_service.admin.authority import Authority
from authz_service.admin.management import Management
from authz_service.catalog.model import Catalog, ParameterKind
from authz_service.compiler.lookup import Lookup
from authz_service.directory.model import DEFAULT_SOURCE, INSTANCE_ID, Node, NodeKind, TargetText, parse_target
from authz_service.engine.model import World
from authz_service.engine.places import Place, places_for
from authz_service.pdp.authority_facts import TransactionWorld
from authz_service.tokens.model import Token
from authz_service.tokens.policy import MANAGEMENT


async def find_place(world: TransactionWorld, viewer: Token, catalog: Catalog, text: str) -> Place | None:
    """The place of a target; None where there is none, and where the viewer's owner may not know of it."""

    def find(facts: World) -> Place | None:
        places = places_for(catalog, viewer, Lookup(), facts)
        place = places.parse(text)
        if place is not None and places.seen(place):
            return place
        if isinstance(viewer.owner, int):
            # Read for a hidden group, so read for one that does not exist: time must not tell the two apart (A10).
            facts.is_member_below(viewer.owner, INSTANCE_ID)
        return None

    return await world.answer(find)


async def find_node(management: Management, authority: Authority, text: str, source: str | None = None) -> Place | None:
    """Like `find_place`, in a source of the directory; None the actor's own."""
    known = [catalog for catalog in management.shipped if catalog.name == MANAGEMENT]
    if not known or authority.user is None:
        return None
    catalog = replace(known[-1], source=source or await own_source(authority))
    return await find_place(authority.world, authority.token, catalog, text)


async def find_user(authority: Authority, text: str, source: str | None = None) -> Node | None:
    """A user by `dana`, `user:dana` or `user:7`. Everybody sees every user (D1)."""
    written = parse_target(text if ":" in text else f"user:{text}")
    if written is None or written.kind is not NodeKind.USER:
        return None
    where = source or await own_source(authority)
    return await authority.world.answer(lambda world: _find_user(world, where, written))


async def own_source(authority: Authority) -> str:
    """The source that the actor's account lies in."""
    node = await authority.world.node(authority.token.owner) if authority.user is not None else None
    return DEFAULT_SOURCE if node is None else node.source


def _find_user(world: World, source: str, written: TargetText) -> Node | None:
    if written.external_id is not None:
        return world.find_external(source, ParameterKind.USER, written.external_id)
    return world.find(source, NodeKind.USER, written.path or "")
