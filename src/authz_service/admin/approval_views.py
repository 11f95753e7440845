"""Grant requests and grants as answers show them: paths of today, permissions by place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.admin.views import format_moment
from authz_service.directory.model import NodeId, NodeKind, format_target
from authz_service.store import grants
from authz_service.store.grants import By, GrantRecord, RequestRecord
from authz_service.store.seen import load_seen_paths
from authz_service.store.token_rows import TokenRecord
from authz_service.tokens.grants import Pair
from authz_service.tokens.model import TokenId


class _Texts:
    """What ids are called today."""

    def __init__(self, paths: Mapping[int, tuple[NodeKind, str]], tokens: Mapping[TokenId, TokenRecord]) -> None:
        self._paths = paths
        self.tokens = tokens

    def target(self, node: NodeId) -> str | None:
        if isinstance(node, str):
            return node
        found = self._paths.get(node)
        return None if found is None else format_target(*found)

    def user(self, user: NodeId | None) -> str | None:
        if isinstance(user, str):
            return user
        found = None if user is None else self._paths.get(user)
        return None if found is None else found[1]

    def pairs(self, pairs: Iterable[Pair]) -> list[dict[str, Any]]:
        """By place; what lies on a place that is gone, or not to be seen, is left out."""
        by_node: dict[str, set[str]] = {}
        for name, node in pairs:
            text = self.target(node)
            if text is not None:
                by_node.setdefault(text, set()).add(name)
        return [{"node": node, "permissions": sorted(names)} for node, names in sorted(by_node.items())]

    def token(self, family: TokenId) -> dict[str, Any]:
        """The token as a group's owner may know it (M3)."""
        record = self.tokens.get(family)
        if record is None:
            return {"id": family, "name": "", "owner": "", "expires_at": None, "revoked": True}
        token = record.token
        return {
            "id": token.id,
            "name": token.name,
            "owner": self.user(token.owner) or "",
            "expires_at": format_moment(token.expires_at),
            "revoked": token.revoked_at is not None,
        }

    def by(self, who: By) -> dict[str, Any]:
        return {"token": who.token, "user": self.user(who.user)}


async def _texts(
    conn: AsyncConnection,
    viewer: NodeId,
    families: Iterable[TokenId],
    nodes: Iterable[NodeId | None],
    people: Iterable[int | None],
) -> _Texts:
    known: dict[TokenId, TokenRecord] = {}
    for family in dict.fromkeys(families):
        record = await grants.newest_of_family(conn, family)
        if record is not None:
            known[family] = record
    wanted = {node for node in (*nodes, *people) if isinstance(node, int)}
    wanted |= {record.token.owner for record in known.values() if isinstance(record.token.owner, int)}
    return _Texts(await load_seen_paths(conn, viewer, sorted(wanted)), known)


async def describe_requests(
    conn: AsyncConnection, found: Sequence[RequestRecord], viewer: NodeId
) -> list[dict[str, Any]]:
    """JSON of requests, with the places that the viewer sees."""
    nodes = [node for one in found for node in (one.request.group, *(node for _, node in one.request.asked))]
    nodes += [node for one in found for _, node in one.request.given]
    people = [who.user for one in found for who in (one.asked_by, one.closed_by)]
    texts = await _texts(conn, viewer, [one.family for one in found], nodes, people)
    return [
        {
            "id": one.request.id,
            "state": one.request.state.value,
            "catalog": one.request.catalog,
            "node": texts.target(one.request.group) or "",
            "token": texts.token(one.family),
            "asked": texts.pairs(one.request.asked),
            "given": texts.pairs(one.request.given),
            "reason": one.reason,
            "asked_at": format_moment(one.asked_at),
            "asked_by": texts.by(one.asked_by),
            "closed_at": format_moment(one.closed_at),
            "closed_by": texts.by(one.closed_by),
            "closed_reason": one.closed_reason,
            "superseded_by": one.superseded_by,
        }
        for one in found
    ]


async def describe_pairs(conn: AsyncConnection, pairs: Iterable[Pair], viewer: NodeId) -> list[dict[str, Any]]:
    """JSON of pairs alone, by place, with the places that the viewer sees."""
    pairs = frozenset(pairs)
    return (await _texts(conn, viewer, [], [node for _, node in pairs], [])).pairs(pairs)


async def describe_grants(conn: AsyncConnection, found: Sequence[GrantRecord], viewer: NodeId) -> list[dict[str, Any]]:
    """JSON of grants, with the places that the viewer sees."""
    nodes = [node for one in found for node in (one.grant.group, *(node for _, node in one.grant.pairs))]
    people = [who.user for one in found for who in (one.granted_by, one.revoked_by)]
    texts = await _texts(conn, viewer, [one.family for one in found], nodes, people)
    return [
        {
            "id": one.grant.id,
            "state": one.grant.state.value,
            "catalog": one.grant.catalog,
            "node": texts.target(one.grant.group) or "",
            "token": texts.token(one.family),
            "granted": texts.pairs(one.grant.pairs),
            "origin": one.origin.value,
            "granted_at": format_moment(one.granted_at),
            "granted_by": texts.by(one.granted_by),
            "revoked_at": format_moment(one.revoked_at),
            "revoked_by": texts.by(one.revoked_by),
            "revoked_reason": one.revoked_reason,
        }
        for one in found
    ]
