"""What a token may do, where, and which tokens may do something here: as far as the actor may see it (M3, M4, A10)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from authz_service.admin.authority import Authority
from authz_service.admin.faults import shown
from authz_service.admin.management import Actor, Management
from authz_service.admin.places import find_place
from authz_service.admin.reaches import unknown_target
from authz_service.admin.shares import find_share
from authz_service.admin.tokens import READ, find_seen, may_see_whole, visible_nodes
from authz_service.admin.views import describe_token, load_names
from authz_service.catalog.model import Catalog
from authz_service.directory.model import NodeId, NodeKind
from authz_service.errors import Fault, ForbiddenError, InvalidInputError
from authz_service.pdp.check import parse_catalog
from authz_service.pdp.search import Allowed, Found, FoundPlace, Search, token_subject
from authz_service.store.changes import format_revision
from authz_service.tokens.model import Scope, Token, TokenKind


@dataclass(frozen=True, slots=True)
class EffectiveQuery:
    """With a `target`: what is allowed there; with a `permission`: where it is; with neither: both, everywhere."""

    catalog: str | None = None
    target: str | None = None
    permission: str | None = None
    kind: NodeKind | None = None
    public: bool = True
    limit: int = 50
    cursor: str | None = None


async def list_effective(
    management: Management,
    search: Search,
    actor: Actor,
    token_id: str,
    query: EffectiveQuery,
    *,
    as_if_live: bool = False,
) -> Mapping[str, Any]:
    """One page, as checks would answer now from a network that the token may be used from.

    A group's owner sees of somebody's token what lies in their groups. `as_if_live` says of a token that has ended what
    it could do if it had not. Raises NotFoundError, InvalidInputError.
    """
    async with management.database.snapshot() as conn:
        authority = await Authority.open(conn, management, actor, hold=False)
        record = await find_seen(conn, authority, token_id)
        whole = await may_see_whole(authority, record)
        token = replace(record.token, revoked_at=None, expires_at=None) if as_if_live else record.token
        share = None if whole else await find_share(conn, authority, record, READ)
        view = _View(authority, token, whole=whole, scopes=() if share is None else share.record.token.scopes)
        return await _list(search, view, query)


async def list_own(management: Management, search: Search, actor: Actor, query: EffectiveQuery) -> Mapping[str, Any]:
    """The same of the actor's own token, which needs no permission for it (M4)."""
    async with management.database.snapshot() as conn:
        authority = await Authority.open(conn, management, actor, hold=False)
        return await _list(search, _View(authority, authority.token, whole=True), query)


class _View:
    """What one actor may see of one token's places."""

    def __init__(self, authority: Authority, token: Token, *, whole: bool, scopes: Sequence[Scope] = ()) -> None:
        """`scopes` are those that lie in the actor's groups, where they do not see the token whole."""
        self.authority = authority
        self.token = token
        self.whole = whole
        self.scopes = scopes
        self._groups: dict[NodeId, bool] = {}

    def catalogs(self) -> Mapping[str, int]:
        """The token's, or those of what the actor sees of it."""
        token = self.token
        if self.whole or token.kind is TokenKind.LEGACY:
            return token.catalogs
        seen = {scope.catalog for scope in self.scopes}
        return {name: version for name, version in token.catalogs.items() if name in seen}

    async def includes(self, chain: tuple[NodeId, ...], kind: NodeKind) -> bool:
        if self.whole:
            return True
        if kind not in (NodeKind.PROJECT, NodeKind.GROUP):
            return False
        group = chain[0] if kind is NodeKind.GROUP else chain[1] if len(chain) > 1 else None
        if group is None or not isinstance(group, int):
            return False
        if group not in self._groups:
            self._groups[group] = await self.authority.may_at_group_of(READ, group)
        return self._groups[group]


async def _list(search: Search, view: _View, query: EffectiveQuery) -> Mapping[str, Any]:
    token = view.token
    catalog = await _catalog(view, query)
    subject = token_subject(token, catalog.name, anywhere=True)
    if query.target is not None:
        place = await find_place(view.authority.world, view.authority.token, catalog, query.target)
        if place is None or not await view.includes(place.chain, place.kind):
            fault = Fault("target", "target_unknown", unknown_target(query.target))
            raise InvalidInputError("the request has a fault", faults=[fault])
        allowed = await search.actions(subject, catalog.name, query.target, limit=query.limit, cursor=query.cursor)
        named = [one for one in allowed.items if query.permission in (None, one.permission)]
        items = [_place(place.text, place.kind, named)] if named else []
        return _page(token, catalog, items, allowed)
    found = await search.places(
        subject,
        catalog.name,
        query.permission,
        kind=query.kind,
        public=query.public,
        within=None if view.whole else view.includes,
        limit=query.limit,
        cursor=query.cursor,
    )
    return _page(token, catalog, [_found(one) for one in found.items], found)


async def _catalog(view: _View, query: EffectiveQuery) -> Catalog:
    """The version that the token was made under, of the catalog that is meant."""
    catalogs = view.catalogs()
    name = None if query.catalog is None else parse_catalog(query.catalog)[0]
    if name is None and len(catalogs) == 1:
        name = next(iter(catalogs))
    version = None if name is None else catalogs.get(name)
    if name is None or version is None:
        known = ", ".join(f"`{one}`" for one in sorted(catalogs))
        message = f"say which catalog is meant; the token is for {known}"
        raise InvalidInputError("the request has a fault", faults=[Fault("catalog", "catalog_unknown", message)])
    catalog = await view.authority.world.answer(lambda world: world.catalog(name, version))
    if catalog is None:
        message = f"`{name}@{version}` is not there any more: the token holds nothing by it"
        raise InvalidInputError("the request has a fault", faults=[Fault("catalog", "catalog_unknown", message)])
    if query.permission is not None and query.permission not in catalog.by_name:
        message = f"`{catalog.label}` has no permission `{shown(query.permission)}`"
        raise InvalidInputError("the request has a fault", faults=[Fault("permission", "permission_unknown", message)])
    return catalog


def _page(token: Token, catalog: Catalog, items: list[dict[str, Any]], found: Found[Any]) -> Mapping[str, Any]:
    return {
        "token_id": token.id,
        "catalog": catalog.label,
        "items": items,
        "next_cursor": found.next_cursor,
        "revision": format_revision(found.stamp),
    }


def _found(found: FoundPlace) -> dict[str, Any]:
    return _place(found.text, found.kind, list(found.permissions), below=found.below)


def _place(text: str, kind: NodeKind, allowed: list[Allowed], *, below: bool = False) -> dict[str, Any]:
    return {
        "target": text,
        "boundary": kind.value,
        "below": below,
        "permissions": [{"permission": one.permission, "reason": one.reason.value} for one in allowed],
    }


@dataclass(frozen=True, slots=True)
class HolderQuery:
    """Who may use this permission at this target."""

    catalog: str
    permission: str
    target: str
    limit: int = 50
    cursor: str | None = None


async def list_holders(management: Management, search: Search, actor: Actor, query: HolderQuery) -> Mapping[str, Any]:
    """One page of live tokens that a check there would allow, each with what the actor may see of it.

    For those who see all tokens, and for the owners of the target's group. Raises ForbiddenError, InvalidInputError.
    """
    async with management.database.snapshot() as conn:
        authority = await Authority.open(conn, management, actor, hold=False)
        authority.require_holds(READ)
        everything = await authority.may(READ)
        catalog = await management.shelf.find(conn, query.catalog)
        faults = []
        if catalog is None:
            message = f"there is no catalog `{shown(query.catalog)}`; write a name without a version"
            faults.append(Fault("catalog", "catalog_unknown", message))
        elif query.permission not in catalog.by_name:
            message = f"`{catalog.label}` has no permission `{shown(query.permission)}`"
            faults.append(Fault("permission", "permission_unknown", message))
        place = None
        if catalog is not None:
            place = await find_place(authority.world, authority.token, catalog, query.target)
            if place is None:
                faults.append(Fault("target", "target_unknown", unknown_target(query.target)))
        if faults or place is None:
            raise InvalidInputError("the request has a fault", faults=faults)
        if not everything and not await authority.may_at_group_of(READ, place.id):
            raise ForbiddenError(f"this token may not see tokens there: it needs `{READ}` at the group")
        found = await search.tokens(
            query.catalog, query.permission, query.target, anywhere=True, limit=query.limit, cursor=query.cursor
        )
        names = await load_names(conn, found.items, authority.token.owner)
        items = []
        for record in found.items:
            whole = everything or await may_see_whole(authority, record)
            only = None if whole else await visible_nodes(authority, record)
            items.append(describe_token(record, names, authority.world.now, only=only))
        return {
            "items": items,
            "next_cursor": found.next_cursor,
            "revision": format_revision(found.stamp),
        }
