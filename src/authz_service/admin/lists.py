"""Lists of tokens, each with what the actor may see of them (M3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.admin.approvals import groups_of, load_standing
from authz_service.admin.authority import Authority
from authz_service.admin.clipping import Inside
from authz_service.admin.faults import shown
from authz_service.admin.management import Actor, Management
from authz_service.admin.places import find_node, find_user
from authz_service.admin.reaches import unknown_target
from authz_service.admin.tokens import READ
from authz_service.admin.usage import mark_wide
from authz_service.admin.views import describe_token, load_names
from authz_service.directory.model import NodeId
from authz_service.errors import Fault, ForbiddenError, InvalidInputError
from authz_service.store import directory, token_lists
from authz_service.store.changes import format_revision
from authz_service.store.token_lists import TokenFilter, TokenSort, TokenState
from authz_service.store.token_rows import TokenRecord
from authz_service.tokens.model import TokenId, TokenKind

__all__ = ["TokenQuery", "TokenSort", "TokenState", "list_tokens"]


@dataclass(frozen=True, slots=True)
class TokenQuery:
    """What a list is asked for, as text. Without `owner` and `node`, admins get all tokens and others their own."""

    owner: str | None = None
    node: str | None = None
    kind: TokenKind | None = None
    state: TokenState | None = None
    catalog: str | None = None
    permission: str | None = None
    parent: str | None = None
    search: str | None = None
    sessions: bool = True
    sort: TokenSort = TokenSort.NEWEST
    limit: int = 50
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class _View:
    """Whose tokens, reaching into which node, and whether only what lies inside is shown."""

    owner: NodeId | None = None
    node: int | None = None
    partial: bool = False
    inside: Inside | None = None


async def list_tokens(management: Management, actor: Actor, query: TokenQuery) -> Mapping[str, Any]:
    """One page. Raises ForbiddenError when these are not the actor's to see, InvalidInputError for unknown names."""
    async with management.database.snapshot() as conn:
        authority = await Authority.open(conn, management, actor, hold=False)
        authority.require_holds(READ)
        view = await _view_of(conn, management, authority, query)
        wanted = TokenFilter(
            owner=view.owner,
            kind=query.kind,
            state=query.state,
            # What the actor does not see of a token must not be told by whether it is in the list either.
            catalog=None if view.partial else query.catalog,
            permission=None if view.partial else query.permission,
            inside=view.node,
            search=query.search,
            sessions=query.sessions,
            parent=None if query.parent is None or view.partial else TokenId(query.parent),
        )
        page = await token_lists.list_page(conn, wanted, sort=query.sort, limit=query.limit, cursor=query.cursor)
        items = page.items if view.inside is None else tuple(map(view.inside.clip, page.items))
        if view.partial:
            items = tuple(one for one in items if _seems(one, query))
        names = await load_names(conn, items, authority.token.owner)
        only = None if view.inside is None else view.inside.nodes
        now = authority.world.now
        standing = await load_standing(conn, items, authority.token.owner, only)
        marks = await mark_wide(conn, management, items, now) if only is None else {}
        return {
            "items": [
                describe_token(record, names, now, only=only, clipped=only is not None)
                | {
                    "grants": groups_of(standing.get(record.family, [])),
                    "approvals": standing.get(record.family, []),
                    "privilege": marks.get(record.token.id),
                }
                for record in items
            ],
            "next_cursor": page.next_cursor,
            "revision": format_revision(page.stamp),
        }


def _seems(record: TokenRecord, query: TokenQuery) -> bool:
    """Whether what is shown of a token is what was asked for. A page of these may hold fewer than `limit`."""
    scopes = record.token.scopes
    legacy = record.token.kind is TokenKind.LEGACY
    catalogs = set(record.token.catalogs) if legacy else {one.catalog for one in scopes}
    return (
        query.parent is None
        and query.catalog in (None, *catalogs)
        and (query.permission is None or any(query.permission in one.permissions for one in scopes))
    )


async def _view_of(conn: AsyncConnection, management: Management, authority: Authority, query: TokenQuery) -> _View:
    everything = await authority.may(READ)
    view = _View()
    if query.owner is not None:
        owner = await _find_owner(authority, query.owner, free=everything)
        if not everything and not await authority.may_for(READ, owner):
            raise ForbiddenError(f"this token may not see that owner's tokens: it needs `{READ}` for them")
        view = replace(view, owner=owner)
    if query.node is not None:
        place = await find_node(management, authority, query.node)
        if place is None:
            raise InvalidInputError(
                "the request has a fault", faults=[Fault("node", "target_unknown", unknown_target(query.node))]
            )
        if not everything and query.owner is None:
            if not await authority.may_at_group_of(READ, place.id):
                raise ForbiddenError(f"this token may not see tokens there: it needs `{READ}` at the group")
            view = replace(view, partial=True)
        view = replace(view, node=int(place.id))
        if view.partial:
            _, below = await directory.load_descendants(conn, int(place.id))
            nodes = frozenset({int(place.id), *(int(node.id) for node in below)})
            view = replace(view, inside=Inside(int(place.id), nodes, frozenset(int(one) for one in place.chain[1:])))
    if everything or query.owner is not None or query.node is not None:
        return view
    if not await authority.may_for(READ, authority.token.owner):
        raise ForbiddenError(
            f"this token may not list tokens: it needs `{READ}` as their owner, at a group, or as an admin"
        )
    return replace(view, owner=authority.token.owner)


async def _find_owner(authority: Authority, text: str, *, free: bool) -> NodeId:
    """A user of the directory, else the free text that a catalog without one knows its owners by (C9)."""
    node = await find_user(authority, text)
    if node is not None:
        return node.id
    if free:
        return text
    fault = Fault("owner", "owner_unknown", f"there is no user `{shown(text)}`; write a username")
    raise InvalidInputError("the request has a fault", faults=[fault])
