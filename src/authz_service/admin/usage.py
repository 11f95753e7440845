"""What a token was really used for, what it holds beyond that, and the smallest token that would have done."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.admin.authority import Authority
from authz_service.admin.drafts import ScopeDraft, TokenDraft
from authz_service.admin.editing import TokenChange, edit_token
from authz_service.admin.management import Actor, Management
from authz_service.admin.simulating import write_scope
from authz_service.admin.tokens import READ, find_seen, may_see_whole
from authz_service.admin.views import etag_of, format_moment
from authz_service.catalog.model import Catalog
from authz_service.directory.model import NodeId, format_target
from authz_service.engine.model import PermissionRequest, Request
from authz_service.engine.shrink import Shrunk, shrink
from authz_service.engine.shrink import Used as Use
from authz_service.errors import ConflictError, NotFoundError
from authz_service.store import changes, usage
from authz_service.store.changes import format_revision
from authz_service.store.paging import read_cursor, write_cursor
from authz_service.store.seen import load_seen_paths
from authz_service.store.token_rows import TokenRecord
from authz_service.store.usage import ANYWHERE, MANY, Span, Used
from authz_service.tokens.model import ReachKind, Scope, TokenId, TokenKind
from authz_service.tokens.policy import MANAGEMENT

DAYS: Final = 30
_SETTLING: Final = timedelta(days=7)
"""A token that is younger is not yet called too wide: it may not have come to its work."""
_ORDER: Final = "usage"


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """Of how many days back, today among them."""

    days: int = DAYS
    limit: int = 100
    cursor: str | None = None


async def show_usage(management: Management, actor: Actor, token_id: str, query: UsageQuery) -> Mapping[str, Any]:
    """By permission and place, a page; with the tokens that it replaced and those under it.

    A group's owner sees what was used in their groups, counts of that alone, and no networks (M3).
    Raises NotFoundError.
    """
    async with management.database.snapshot() as conn:
        authority = await Authority.open(conn, management, actor, hold=False)
        record = await find_seen(conn, authority, token_id)
        whole = await may_see_whole(authority, record)
        tokens = await usage.load_descendants(conn, record.token.id)
        used = await usage.load_used(conn, tokens, days=query.days)
        if not whole:
            used = tuple([one for one in used if await _is_inside(authority, one)])
        start = 0
        if query.cursor is not None:
            after = read_cursor(query.cursor, _ORDER, 3)
            start = sum((one.catalog, one.permission, one.place) <= after for one in used)
        page = used[start : start + query.limit]
        more = start + query.limit < len(used)
        names = await _names(conn, authority, page)
        places = None if whole else {one.place for one in used}
        span = await usage.load_span(conn, tokens, days=query.days, places=places)
        networks = await usage.load_networks(conn, record.token.id) if whole else ()
        return {
            "token_id": record.token.id,
            "days": query.days,
            "seen": _describe_span(span),
            "items": [
                {
                    "catalog": one.catalog,
                    "permission": one.permission,
                    "target": names.get(one.place, one.place),
                    "calls": one.calls,
                    "days": one.days,
                    "last_at": format_moment(one.last_at),
                }
                for one in page
            ],
            "networks": [
                {
                    "network": one.network,
                    "calls": one.calls,
                    "first_at": format_moment(one.first_at),
                    "last_at": format_moment(one.last_at),
                }
                for one in networks
            ],
            "next_cursor": write_cursor(_ORDER, page[-1].catalog, page[-1].permission, page[-1].place)
            if more
            else None,
            "revision": format_revision(await changes.current(conn)),
        }


async def _is_inside(authority: Authority, used: Used) -> bool:
    return used.place.isdigit() and await authority.may_at_group_of(READ, int(used.place))


async def _names(conn: AsyncConnection, authority: Authority, used: Sequence[Used]) -> dict[str, str]:
    """Places as they are called today; a node that is gone, or not to be seen (D5), keeps its number."""
    numbers = sorted({int(one.place) for one in used if one.place.isdigit()})
    found = await load_seen_paths(conn, authority.token.owner, numbers)
    return {str(node): format_target(kind, path) for node, (kind, path) in found.items()}


def _describe_span(span: Span) -> dict[str, Any]:
    return {
        "days": span.days,
        "calls": span.calls,
        "first_day": None if span.first_day is None else span.first_day.isoformat(),
        "last_at": format_moment(span.last_at),
    }


@dataclass(frozen=True, slots=True)
class _Suggested:
    """What is suggested for a token, and what it rests on."""

    record: TokenRecord
    scopes: tuple[Scope, ...]
    targets: Mapping[NodeId, str]
    span: Span
    unused: tuple[str, ...]
    catalogs: Mapping[str, Catalog]


async def show_suggestion(management: Management, actor: Actor, token_id: str, days: int) -> Mapping[str, Any]:
    """The smallest token for what this one was used for, as a creation request. Raises NotFoundError."""
    async with management.database.snapshot() as conn:
        authority = await Authority.open(conn, management, actor, hold=False)
        found = await _suggest(conn, management, authority, token_id, days)
        record = found.record
        owner = await authority.world.user(record.token.owner) if isinstance(record.token.owner, int) else None
        body: dict[str, Any] = {
            "name": record.token.name,
            "owner": str(record.token.owner) if owner is None else owner.username,
            "scopes": [
                {"catalog": found.catalogs[scope.catalog].label if scope.catalog in found.catalogs else scope.catalog}
                | write_scope(scope, found.targets)
                for scope in found.scopes
            ],
        }
        if record.token.evaluates:
            body["evaluates"] = list(record.token.evaluates)
        if record.token.resource_owner is not None:
            body["resource_owner"] = found.targets.get(record.token.resource_owner)
        return {
            "token_id": record.token.id,
            "days": days,
            "seen": _describe_span(found.span),
            "token": body,
            "unused_permissions": list(found.unused),
            "narrower": _is_narrower(found),
            "applicable": _refusal(found) is None,
            "etag": etag_of(record),
            "revision": format_revision(await changes.current(conn)),
        }


def _is_narrower(found: _Suggested) -> bool:
    def written(scopes: Sequence[Scope]) -> set[tuple[object, ...]]:
        return {(one.catalog, one.reach.kind, frozenset(one.reach.nodes), frozenset(one.permissions)) for one in scopes}

    return found.record.token.kind is TokenKind.LEGACY or written(found.scopes) != written(found.record.token.scopes)


def _refusal(found: _Suggested) -> str | None:
    """Why the suggestion cannot be applied to the token itself."""
    if found.record.token.kind is TokenKind.LEGACY:
        return "a legacy token cannot be narrowed; issue the suggested one in its place"
    if not found.span.calls:
        return "nothing is known of this token's use in these days, so it would be left with nothing; revoke it instead"
    return None


async def apply_suggestion(
    management: Management, actor: Actor, token_id: str, days: int, if_match: Sequence[str], *, wait: bool = False
) -> Mapping[str, Any]:
    """Narrow the token to what it was used for, as an edit of its scopes. Raises what `edit_token` raises."""
    async with management.database.snapshot() as conn:
        authority = await Authority.open(conn, management, actor, hold=False)
        found = await _suggest(conn, management, authority, token_id, days)
    refusal = _refusal(found)
    if refusal is not None:
        raise ConflictError(refusal)
    drafts = tuple(
        ScopeDraft(
            scope.reach.kind,
            scope.permissions,
            tuple(found.targets[node] for node in scope.reach.nodes),
            scope.catalog,
        )
        for scope in found.scopes
    )
    change = TokenChange(frozenset({"scopes"}), TokenDraft(name=found.record.token.name, scopes=drafts))
    return await edit_token(management, actor, token_id, change, if_match, wait=wait)


async def _suggest(
    conn: AsyncConnection, management: Management, authority: Authority, token_id: str, days: int
) -> _Suggested:
    record = await find_seen(conn, authority, token_id)
    if not await may_see_whole(authority, record):
        raise NotFoundError("there is no such token, or this token may not see all of it")
    token = record.token
    tokens = await usage.load_descendants(conn, token.id)
    used = await usage.load_used(conn, tokens, days=days)
    scopes: list[Scope] = []
    targets: dict[NodeId, str] = {}
    catalogs: dict[str, Catalog] = {}
    unused: list[str] = []
    for name, version in token.catalogs.items():
        own = tuple(scope for scope in token.scopes if scope.catalog == name)
        catalog = await management.shelf.find(conn, name, version)
        if catalog is None or name == MANAGEMENT:
            # What management was used for is in the audit, not here: those scopes are left as they are.
            scopes += own
            continue
        catalogs[name] = catalog
        uses = [_use(one) for one in used if one.catalog == name]
        request = Request(name, PermissionRequest(""), authority.world.now)
        shrunk: Shrunk = await authority.world.answer(partial(_shrink, record, catalog, request, uses))
        scopes += shrunk.scopes
        targets |= shrunk.suggestion.targets
        unused += unused_of(own, catalog, {use.permission for use in uses})
    others = {node for scope in scopes for node in scope.reach.nodes} | {token.resource_owner}
    numbers = sorted(node for node in {*others, *targets} if isinstance(node, int))
    paths = await load_seen_paths(conn, authority.token.owner, numbers)
    targets = {node: text for node, text in targets.items() if isinstance(node, str)}
    targets |= {node: format_target(kind, path) for node, (kind, path) in paths.items()}
    targets |= {node: node for node in others if isinstance(node, str) and node not in targets}
    span = await usage.load_span(conn, tokens, days=days)
    scopes = [named for scope in scopes if (named := _named(scope, targets)) is not None]
    return _Suggested(record, tuple(scopes), targets, span, tuple(dict.fromkeys(unused)), catalogs)


def _named(scope: Scope, targets: Mapping[NodeId, str]) -> Scope | None:
    """The scope without nodes that have no name: nobody is told of a place, nor given it, that they may not see."""
    if scope.reach.kind is not ReachKind.SELECTED:
        return scope
    nodes = tuple(node for node in scope.reach.nodes if node in targets)
    return replace(scope, reach=replace(scope.reach, nodes=nodes)) if nodes else None


def _use(used: Used) -> Use:
    if used.place in (ANYWHERE, MANY):
        return Use(used.permission, None)
    return Use(used.permission, int(used.place) if used.place.isdigit() else used.place)


def _shrink(record: TokenRecord, catalog: Catalog, request: Request, uses: Sequence[Use], world: Any) -> Shrunk:
    return shrink(record.token, catalog, world, request, uses)


def unused_of(scopes: Sequence[Scope], catalog: Catalog, used: Collection[str]) -> list[str]:
    """The permissions in these scopes that nothing rested on, implied ones counted as the one that implies them."""
    needed = 0
    for name in used:
        permission = catalog.by_name.get(name)
        if permission is not None:
            for row in catalog.holders.values():
                needed |= row[permission.number]
    names = dict.fromkeys(name for scope in scopes for name in scope.permissions)
    known = {name: catalog.by_name.get(name) for name in names}
    return [name for name, found in known.items() if found is None or not needed >> found.number & 1]


async def mark_wide(
    conn: AsyncConnection, management: Management, records: Sequence[TokenRecord], now: datetime
) -> dict[TokenId, dict[str, Any]]:
    """For lists: of each fine-grained token, how many of its permissions nothing rested on in the last 30 days.

    `wide` marks those that have had a week to use them.
    """
    fine = [record for record in records if record.token.kind is TokenKind.FINE_GRAINED]
    used = await usage.load_permissions(conn, [record.token.id for record in fine], days=DAYS) if fine else {}
    marks = {}
    for record in fine:
        held = unused = 0
        for name, version in record.token.catalogs.items():
            catalog = await management.shelf.find(conn, name, version)
            own = [scope for scope in record.token.scopes if scope.catalog == name]
            if catalog is None or name == MANAGEMENT or not own:
                continue
            names = {permission for known, permission in used.get(record.token.id, ()) if known == name}
            held += len({permission for scope in own for permission in scope.permissions})
            unused += len(unused_of(own, catalog, names))
        settled = record.token.created_at is not None and record.token.created_at <= now - _SETTLING
        marks[record.token.id] = {"permissions": held, "unused": unused, "wide": bool(unused) and settled}
    return marks
