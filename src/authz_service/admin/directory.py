"""The directory: imported whole or not at all, and looked up by people."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.admin.authority import Authority
from authz_service.admin.faults import shown
from authz_service.admin.management import Actor, Management
from authz_service.admin.places import find_node, find_user, own_source
from authz_service.admin.reaches import unknown_target
from authz_service.directory.changes import parse_import
from authz_service.directory.model import INSTANCE_ID, Node, NodeKind, format_target
from authz_service.engine.places import Place
from authz_service.errors import Fault, ForbiddenError, InvalidInputError, NotFoundError
from authz_service.store import audit, changes, directory, directory_import
from authz_service.store.changes import format_revision
from authz_service.store.paging import bad_cursor, read_cursor, write_cursor

IMPORT: Final = "directory:import"
READ: Final = "directory:read"
_ORDER: Final = "nodes"
_SCAN: Final = 1000


async def import_directory(
    management: Management, actor: Actor, body: bytes, *, source: str, grandfather: bool = True
) -> Mapping[str, Any]:
    """Apply an NDJSON import in one revision. Raises InvalidInputError naming every fault; then nothing is stored.

    Without `grandfather`, tokens ask anew in groups that places move into and that require approval (P4).
    """
    # Minutes of a large import would hold up every decision of this process.
    lines = await asyncio.to_thread(parse_import, body)

    async def work(conn: AsyncConnection) -> Mapping[str, Any]:
        # First of all: two imports that both held the directory still would wait for each other.
        await directory.hold_for_import(conn)
        authority = await Authority.open(conn, management, actor, hold=True)
        await authority.require(IMPORT)
        done = await directory_import.apply_import(conn, lines, source=source, grandfather=grandfather)
        entry = audit.AuditEntry(
            action="directory.import",
            subject=f"source:{source}",
            actor_token=authority.token.id,
            actor_user=authority.user_id,
            details={"lines": len(lines), "counts": dict(done.counts), "revoked": list(done.revoked[:_SCAN])},
        )
        await audit.insert(conn, entry, done.stamp)
        return {"lines": len(lines), "counts": dict(done.counts), "revision": format_revision(done.stamp)}

    return await management.database.run_in_transaction(work)


async def require_may_import(management: Management, actor: Actor) -> None:
    """Raises ForbiddenError: for a look before a body of many megabytes is read. The import asks again."""
    async with management.database.snapshot() as conn:
        await (await Authority.open(conn, management, actor, hold=False)).require(IMPORT)


@dataclass(frozen=True, slots=True)
class NodeQuery:
    """What a list of nodes is asked for. `under` None is the whole source; `search` looks into names, without case."""

    under: str | None = None
    kind: NodeKind | None = None
    search: str | None = None
    source: str | None = None
    limit: int = 50
    cursor: str | None = None


async def list_nodes(management: Management, actor: Actor, query: NodeQuery) -> Mapping[str, Any]:
    """One page of what lies under a place, however deep, in the order in which it came. Raises ForbiddenError."""
    async with management.database.snapshot() as conn:
        authority = await Authority.open(conn, management, actor, hold=False)
        authority.require_holds(READ)
        top = INSTANCE_ID
        source = query.source or await own_source(authority)
        if query.under is not None and query.under != "instance":
            place = await _seen_place(management, authority, query.under, query.source, "under")
            top = int(place.id)
            source = (await _node_of(authority, place)).source
        if not await authority.may(READ) and not await authority.may_at_group_of(READ, top):
            raise ForbiddenError(
                f"this token may not list what lies there: it needs `{READ}` at the group or as an admin"
            )
        after = _read_cursor(query.cursor)
        found, last = await _scan(conn, top, query, source, after)
        paths = await directory.load_paths(conn, [int(node.id) for node in found])
        return {
            "items": [_describe(node, paths[int(node.id)][1]) for node in found if int(node.id) in paths],
            "next_cursor": None if last is None else write_cursor(_ORDER, str(last)),
            "revision": format_revision(await changes.current(conn)),
        }


async def _scan(
    conn: AsyncConnection, top: int, query: NodeQuery, source: str, after: int
) -> tuple[list[Node], int | None]:
    """A page of the nodes that match, and the id to go on from; None when there are no more."""
    found: list[Node] = []
    wanted = None if query.search is None else query.search.lower()
    while True:
        _, nodes = await directory.load_descendants(conn, top, query.kind, after=after, limit=_SCAN)
        for node in nodes:
            matches = node.source == source and node.kind is not NodeKind.INSTANCE
            if matches and (wanted is None or wanted in node.name.lower()):
                if len(found) == query.limit:
                    return found, int(found[-1].id)
                found.append(node)
        if len(nodes) < _SCAN:
            return found, None
        after = int(nodes[-1].id)


def _read_cursor(cursor: str | None) -> int:
    if cursor is None:
        return 0
    (place,) = read_cursor(cursor, _ORDER, 1)
    if not (place.isascii() and place.isdigit() and len(place) < 19):
        raise bad_cursor()
    return int(place)


async def show_node(management: Management, actor: Actor, target: str, source: str | None) -> Mapping[str, Any]:
    """One group, project or user by its target. Raises NotFoundError alike for unknown and unseen ones."""
    async with management.database.snapshot() as conn:
        authority = await Authority.open(conn, management, actor, hold=False)
        authority.require_holds(READ)
        place = await find_node(management, authority, target, source)
        if place is None or place.kind is NodeKind.INSTANCE:
            raise NotFoundError(unknown_target(target))
        if not await authority.may(READ) and not await authority.may_at_group_of(READ, place.id):
            raise ForbiddenError(
                f"this token may not read `{place.text}`: it needs `{READ}` at the group or as an admin"
            )
        node = await _node_of(authority, place)
        visibility = None if place.visibility is None else place.visibility.name.lower()
        described = _describe(node, place.text.partition(":")[2])
        stamp = await changes.current(conn)
        return described | {"effective_visibility": visibility, "revision": format_revision(stamp)}


async def show_user(management: Management, actor: Actor, name: str, source: str | None) -> Mapping[str, Any]:
    """One user with their memberships: oneself, or as an admin. Raises NotFoundError, ForbiddenError."""
    async with management.database.snapshot() as conn:
        authority = await Authority.open(conn, management, actor, hold=False)
        authority.require_holds(READ)
        node = await find_user(authority, name, source)
        if node is None:
            raise NotFoundError(f"there is no user `{shown(name)}`")
        if node.id != authority.token.owner and not await authority.may(READ):
            raise ForbiddenError(f"this token may not read other users: it needs `{READ}` as an admin")
        return await _describe_user(conn, int(node.id))


async def _describe_user(conn: AsyncConnection, user_id: int) -> dict[str, Any]:
    reading = await directory.load_user(conn, user_id)
    memberships = await directory.load_memberships(conn, user_id)
    user, node = reading.user, reading.node
    if user is None or node is None:
        raise NotFoundError("there is no such user any more")
    linked = [] if reading.same_as is None else [reading.same_as]
    homes = [user.home] if isinstance(user.home, int) else []
    paths = await directory.load_paths(conn, [*memberships.roles, *linked, *homes])
    texts = {one: format_target(kind, path) for one, (kind, path) in paths.items()}
    return {
        "username": user.username,
        "source": node.source,
        "external_id": node.external_id,
        "state": user.state.value,
        "admin": user.admin,
        "external": user.external,
        "service_account": user.service_account,
        "home": texts.get(homes[0]) if homes else None,
        "same_as": texts.get(linked[0]) if linked else None,
        "attributes": dict(node.attributes),
        "memberships": sorted(
            ({"node": texts[one], "role": role} for one, role in memberships.roles.items() if one in texts),
            key=lambda row: row["node"],
        ),
        "revision": format_revision(reading.stamp),
    }


async def _seen_place(management: Management, authority: Authority, text: str, source: str | None, where: str) -> Place:
    place = await find_node(management, authority, text, source)
    if place is None:
        fault = Fault(where, "target_unknown", unknown_target(text))
        raise InvalidInputError("the request has a fault", faults=[fault])
    return place


async def _node_of(authority: Authority, place: Place) -> Node:
    node = await authority.world.node(place.id)
    if node is None:
        raise NotFoundError("there is no such place any more")
    return node


def _describe(node: Node, path: str) -> dict[str, Any]:
    return {
        "target": format_target(node.kind, path),
        "kind": node.kind.value,
        "path": path,
        "source": node.source,
        "external_id": node.external_id,
        "visibility": None if node.kind is NodeKind.USER else node.visibility.name.lower(),
        "archived": node.archived,
        "attributes": dict(node.attributes),
    }
