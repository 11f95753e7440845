"""The first request of a token at a group, opened by the service itself when the token is used there (P4)."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.directory.model import NodeId
from authz_service.store import directory, grants, policies, tokens
from authz_service.store.changes import ChangeSet
from authz_service.store.grandfathering import Directory
from authz_service.store.grants import NOBODY
from authz_service.tokens.asking import needed
from authz_service.tokens.model import TokenId


async def open_first(
    conn: AsyncConnection, changes: ChangeSet, token_id: TokenId, catalog: str, group: NodeId
) -> int | None:
    """The request's number; None where something was asked or granted before, or nothing is to be asked."""
    record = (await tokens.find_by_id(conn, token_id)).record
    if record is None or record.token.revoked_at is not None or isinstance(group, str):
        return None
    await grants.hold(conn, record.family)
    known = await grants.load_of_family(conn, record.family)
    asked_before = {(one.catalog, one.group) for one in known.requests}
    if (catalog, group) in asked_before | {(one.catalog, one.group) for one in known.grants}:
        return None
    book = {policy.node: policy for policy in (await policies.load_catalog(conn, catalog))[1]}
    owner = record.token.owner
    members = (await directory.load_memberships(conn, owner)).roles if isinstance(owner, int) else {}
    places = Directory()
    selected = [node for scope in record.token.scopes for node in scope.reach.nodes]
    await places.read(conn, [*book, *selected, *members])
    asked = needed(record.token, catalog, members, places.ground(book)).get(group)
    if not asked:
        return None
    return await grants.open_request(
        conn, changes, record.family, catalog, group, asked, by=NOBODY, reason=record.reason
    )
