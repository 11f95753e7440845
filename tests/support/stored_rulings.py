"""Policies, requests and grants in a database: put there and read back by plain statements of our own."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, time
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from tests.reference.rows import Rows

from authz_service.directory.model import NodeId
from authz_service.store.policies import write_settings
from authz_service.tokens.grants import Grant, GrantRequest, GrantState, Pair, RequestState
from authz_service.tokens.model import TokenId, TokenKind
from authz_service.tokens.policy import ALWAYS, ApprovalRule, KindRule, LifetimeRule, Policy

Ids = Mapping[NodeId, int]


async def put_rulings(conn: AsyncConnection, rows: Rows, ids: Ids) -> None:
    """Of a world whose nodes and tokens are there. Logs nothing: nobody has asked about these tokens yet."""
    for policy in rows.policies:
        await conn.execute(
            text(
                "insert into policy (node_id, node_name, catalog, settings, version) "
                "values (:id, :name, :catalog, cast(:settings as jsonb), 1)"
            ),
            {**_place(policy.node, ids), "catalog": policy.catalog, "settings": json.dumps(write_settings(policy))},
        )
    for request in rows.requests:
        await conn.execute(
            text(
                "insert into grant_request (family_id, catalog, group_id, group_name, state, asked, given, "
                "reason, closed_no) values (:token, :catalog, :id, :name, :state, cast(:asked as jsonb), "
                "cast(:given as jsonb), '', :closed)"
            ),
            {
                **_place(request.group, ids),
                "token": request.token,
                "catalog": request.catalog,
                "state": request.state.value,
                "asked": _pairs(request.asked, ids),
                "given": _pairs(request.given, ids),
                "closed": request.closed_no,
            },
        )
    for grant in rows.grants:
        await conn.execute(
            text(
                "insert into token_grant (family_id, catalog, group_id, group_name, state, pairs, origin, closed_no) "
                "values (:token, :catalog, :id, :name, :state, cast(:pairs as jsonb), 'review', :closed)"
            ),
            {
                **_place(grant.group, ids),
                "token": grant.token,
                "catalog": grant.catalog,
                "state": grant.state.value,
                "pairs": _pairs(grant.pairs, ids),
                "closed": grant.closed_no,
            },
        )


def _place(node: NodeId, ids: Ids) -> dict[str, Any]:
    return {"id": None, "name": node} if isinstance(node, str) else {"id": ids[node], "name": None}


def _pairs(pairs: Iterable[Pair], ids: Ids) -> str:
    return json.dumps([[name, node if isinstance(node, str) else ids[node]] for name, node in sorted(pairs, key=str)])


async def read_rulings(conn: AsyncConnection) -> tuple[list[Policy], list[GrantRequest], list[Grant]]:
    """All of them. What a family of tokens has, each of its tokens has."""
    policies = [_policy(row) for row in await _select(conn, "select * from policy order by id")]
    joined = "select g.*, t.id as token from {} g join token t on t.family_id = g.family_id order by g.id, t.id"
    requests = [
        GrantRequest(
            row["id"],
            TokenId(row["token"]),
            row["catalog"],
            _node(row, "group"),
            RequestState(row["state"]),
            _read(row["asked"]),
            _read(row["given"]),
            row["closed_no"],
        )
        for row in await _select(conn, joined.format("grant_request"))
    ]
    grants = [
        Grant(
            row["id"],
            TokenId(row["token"]),
            row["catalog"],
            _node(row, "group"),
            GrantState(row["state"]),
            _read(row["pairs"]),
            row["closed_no"],
        )
        for row in await _select(conn, joined.format("token_grant"))
    ]
    return policies, requests, grants


async def _select(conn: AsyncConnection, query: str) -> list[Mapping[str, Any]]:
    return list((await conn.execute(text(query))).mappings())


def _node(row: Mapping[str, Any], name: str) -> NodeId:
    found: NodeId = row[f"{name}_name"] if row[f"{name}_id"] is None else row[f"{name}_id"]
    return found


def _read(written: Iterable[Any]) -> frozenset[Pair]:
    return frozenset((name, node) for name, node in written)


def _policy(row: Mapping[str, Any]) -> Policy:
    said = row["settings"]
    limits = said.get("max_lifetime_days", {})
    lifetimes = {
        kind: LifetimeRule(limits[kind]["value"], limits[kind]["force"], limits[kind]["exempt_admins"])
        for kind in TokenKind
        if kind in limits
    }
    approval = None
    if "approval" in said:
        approval = ApprovalRule(said["approval"]["required"], said["approval"]["force"])
    kinds = {kind: _kind(said[kind]) for kind in TokenKind if kind in said}
    return Policy(_node(row, "node"), row["catalog"], kinds, approval, lifetimes)


def _kind(said: Mapping[str, Any]) -> KindRule:
    fixed: Mapping[str, datetime | None] = {"allow": None, "forbid": ALWAYS}
    value = said["value"]
    since = fixed[value] if value in fixed else datetime.combine(date.fromisoformat(value), time(), UTC)
    return KindRule(since, said["force"], said["include_service_accounts"])
