"""A token that is there already, as if it were asked for: so that whoever copies it is judged as its issuer (M2)."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.admin.authority import Authority
from authz_service.admin.issuing import CREATE_ANY, Issue, works
from authz_service.admin.management import Management
from authz_service.admin.reaches import ReadScope, boundaries_of
from authz_service.catalog.model import Catalog
from authz_service.compiler.lookup import Lookup
from authz_service.directory.model import NodeId, format_target
from authz_service.engine.places import PLACE_KINDS, Place, places_for
from authz_service.errors import ConflictError, ForbiddenError
from authz_service.store import token_families, tokens
from authz_service.tokens.model import Reach, ReachKind, Scope, Token


async def read_stored(conn: AsyncConnection, management: Management, authority: Authority, token: Token) -> Issue:
    """The token as an issue, by ids: nothing of it is looked up as the actor sees it.

    Nodes that are gone are left out, with scopes that have no other: they cover nothing and never will (D2). Raises
    ConflictError when a catalog version that it was made under cannot be read any more.
    """
    catalogs: dict[str, Catalog] = {}
    for name, version in token.catalogs.items():
        catalog = await management.shelf.find(conn, name, version)
        if catalog is None:
            raise ConflictError(f"this token was made under `{name}@{version}`, which is not here; issue a new one")
        catalogs[name] = catalog
    scopes: list[ReadScope] = []
    for scope in token.scopes:
        catalog = catalogs[scope.catalog]
        places = [await read_place(authority, token, catalog, node) for node in scope.reach.nodes]
        kept = tuple(place for place in places if place is not None)
        if scope.reach.kind is ReachKind.SELECTED and not kept:
            continue
        held = tuple(name for name in scope.permissions if name in catalog.by_name)
        written = Scope(scope.catalog, Reach(scope.reach.kind, tuple(place.id for place in kept)), held)
        scopes.append(ReadScope(written, catalog, kept, boundaries_of(scope.reach.kind, kept)))
    owner = await authority.world.user(token.owner) if isinstance(token.owner, int) else None
    parent = None if token.parent is None else await authority.world.token(token.parent)
    resource_owner = None
    if token.resource_owner is not None:
        demanding = next((one for one in catalogs.values() if one.single_owner), next(iter(catalogs.values())))
        resource_owner = await read_place(authority, token, demanding, token.resource_owner)
    return Issue(token, tuple(scopes), catalogs, owner, parent, resource_owner)


async def read_place(authority: Authority, token: Token, catalog: Catalog, node: NodeId) -> Place | None:
    """The place of a node that a token stores; None when it is gone."""
    if isinstance(node, str):
        return await authority.world.answer(lambda facts: places_for(catalog, token, Lookup(), facts).parse(node))
    chain = await authority.world.chain(node)
    if not chain:
        return None
    itself = chain[0]
    visibility = min(above.visibility for above in chain) if itself.kind in PLACE_KINDS else None
    path = "/".join(above.name for above in reversed(chain))
    above = tuple(above.id for above in chain)
    return Place(itself.id, itself.kind, above, format_target(itself.kind, path), visibility)


async def require_works(authority: Authority, token: Token) -> None:
    """Raises ConflictError unless the token, its owner and all above it are alive: a dead one is not to be copied."""
    above = await authority.world.ancestors(token)
    if above is None or not all([await works(authority, one) for one in (token, *above)]):
        raise ConflictError(
            "this token has ended, its owner is blocked, or a token above it has ended; issue a new one"
        )


async def require_below(conn: AsyncConnection, authority: Authority, token: Token) -> None:
    """Raises ForbiddenError when the actor is a child and the token does not hang below it (T4, M2).

    Else a child could get itself a secret that outlives the line it ends with.
    """
    if authority.token.parent is None or await authority.may(CREATE_ANY):
        return
    own = await token_families.find_current(conn, await tokens.get(conn, authority.token.id))
    above = await authority.world.ancestors(token) or ()
    if not {own.token.id, authority.token.id} & {one.id for one in above}:
        raise ForbiddenError("this token is a child itself: it may do that only to tokens that hang below it")
