"""Random tokens to ask for, as bodies of `POST /v1/tokens`: often what the issuer holds, or a little more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from random import Random
from typing import Any

from tests.property.worlds import UPSTREAM_NODES, UPSTREAM_OWNERS
from tests.reference.places import path_of
from tests.reference.rows import Rows

from authz_service.catalog.model import Catalog
from authz_service.directory.model import Node, NodeId, NodeKind, UserState
from authz_service.tokens.model import ReachKind, Scope, Token

BOUNDARIES = {
    ReachKind.SELECTED: (NodeKind.PROJECT, NodeKind.GROUP),
    ReachKind.ALL_MEMBERSHIPS: (NodeKind.PROJECT, NodeKind.GROUP),
    ReachKind.PERSONAL_PROJECTS: (NodeKind.PROJECT,),
    ReachKind.USER: (NodeKind.USER,),
    ReachKind.INSTANCE: (NodeKind.INSTANCE,),
}
NEVER_ASKED_FOR = ("directory:import", "token:create_any", "decision:evaluate", "catalog:install")
"""A token that could undo the machine's own order is not worth the trouble."""


class TokenDrawer:
    """`start` is database time at the beginning: dates lie half an hour off the whole hours from it.

    `near` is the share of what is drawn from what the issuer holds.
    """

    def __init__(self, random: Random, start: datetime, near: float = 0.7) -> None:
        self._random = random
        self._start = start
        self._near = near

    def _chance(self, share: float) -> bool:
        return self._random.random() < share

    def draw(self, rows: Rows, issuer: Token, candidates: Sequence[Token]) -> dict[str, Any]:
        """One body; `candidates` may be named as parents."""
        name = self._random.choice(("forge", "forge", "forge", "gate", "hub", "orders", "authz"))
        if self._chance(self._near):
            name = self._random.choice(list(issuer.catalogs))
        versions = [catalog for catalog in rows.catalogs if catalog.name == name]
        own = [catalog for catalog in versions if issuer.catalogs.get(name) == catalog.version]
        catalog = (own or [max(versions, key=lambda one: one.version)])[0]
        wanted: dict[str, Any] = {"name": "drawn", "catalog": name}
        if len(versions) > 1 and self._chance(0.3):
            catalog = self._random.choice(versions)
            wanted["catalog"] = catalog.label
        if catalog.upstream:
            wanted["owner"] = self._random.choice(UPSTREAM_OWNERS)
        elif self._chance(0.5):
            robots = [user.username for user in rows.users if user.service_account] if self._chance(self._near) else []
            wanted["owner"] = self._random.choice(robots or [user.username for user in rows.users])
        if catalog.bundles and self._chance(0.2):
            return wanted | self._rest(rows, candidates) | self._legacy(catalog)
        if catalog.single_owner:
            wanted["resource_owner"] = self._target(rows, (NodeKind.GROUP, NodeKind.GROUP, NodeKind.USER))
        held = [scope for scope in issuer.scopes if scope.catalog == name]
        wanted["scopes"] = [self._scope(rows, catalog, held) for _ in range(self._random.choice((0, 1, 1, 2, 2, 3)))]
        return wanted | self._rest(rows, candidates)

    def _legacy(self, catalog: Catalog) -> dict[str, Any]:
        names = list(catalog.bundles)
        return {"kind": "legacy", "legacy_scopes": self._random.sample(names, self._random.randint(1, len(names)))}

    def _rest(self, rows: Rows, candidates: Sequence[Token]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if self._chance(0.25):
            found["parent"] = "self"
        elif candidates and self._chance(0.15):
            found["parent"] = self._random.choice(candidates).id
        if self._chance(0.25):
            found["expires_at"] = self._date(1, 8)
        if self._chance(0.1):
            found["not_before"] = self._date(0, 4)
        if self._chance(0.1):
            networks = self._random.choice((["10.0.0.0/8"], ["127.0.0.0/8"], ["2001:db8::/32", "127.0.0.1/32"]))
            found["conditions"] = {"networks": networks}
        return found

    def _date(self, least: int, most: int) -> str:
        moment = self._start + timedelta(hours=self._random.randint(least, most), minutes=30)
        return moment.isoformat().replace("+00:00", "Z")

    def _scope(self, rows: Rows, catalog: Catalog, held: Sequence[Scope]) -> dict[str, Any]:
        if held and self._chance(self._near):
            return self._part_of(rows, catalog, self._random.choice(held))
        kind = self._random.choice((*ReachKind, ReachKind.SELECTED, ReachKind.SELECTED, ReachKind.SELECTED))
        reach: dict[str, Any] = {"kind": kind.value}
        if kind is ReachKind.SELECTED:
            reach["nodes"] = self._nodes(rows, catalog)
        names = [one.name for one in catalog.permissions if one.name not in NEVER_ASKED_FOR]
        return {"reach": reach, "permissions": self._some(catalog, names, reach)}

    def _some(self, catalog: Catalog, names: Sequence[str], reach: Mapping[str, Any]) -> list[str]:
        """Of these permissions, some that exist where the reach can be."""
        boundaries = BOUNDARIES[ReachKind(reach["kind"])]
        if "nodes" in reach and not any(node.startswith("group:") for node in reach["nodes"]):
            boundaries = (NodeKind.PROJECT,)
        existing = {one.name: set(one.boundaries) & set(boundaries) for one in catalog.permissions}
        fitting = [name for name in names if existing.get(name) or self._chance(0.02)]
        share = self._random.choice((0.3, 0.7, 1.0))
        return [name for name in fitting if self._chance(share)] or list(fitting[:1]) or list(names[:1])

    def _nodes(self, rows: Rows, catalog: Catalog) -> list[str]:
        many = self._random.randint(1, 3)
        if catalog.upstream:
            return self._random.sample([node for node in UPSTREAM_NODES if not node.startswith("user:")], many)
        kinds = (NodeKind.PROJECT, NodeKind.PROJECT, NodeKind.GROUP, NodeKind.GROUP, NodeKind.USER)
        return list(dict.fromkeys(self._target(rows, kinds) for _ in range(many)))

    def _part_of(self, rows: Rows, catalog: Catalog, scope: Scope) -> dict[str, Any]:
        """Something that the scope holds, by and large: fewer permissions, or below its nodes."""
        names = [name for name in scope.permissions if name not in NEVER_ASKED_FOR]
        reach: dict[str, Any] = {"kind": scope.reach.kind.value}
        if scope.reach.kind is ReachKind.SELECTED or self._chance(0.3):
            nodes = self._below(rows, scope.reach.nodes) or self._nodes(rows, catalog)
            reach = {
                "kind": "selected",
                "nodes": self._random.sample(nodes, min(len(nodes), self._random.randint(1, 2))),
            }
        return {"reach": reach, "permissions": self._some(catalog, names, reach)}

    def _below(self, rows: Rows, nodes: Sequence[NodeId]) -> list[str]:
        texts = [node for node in nodes if isinstance(node, str)]
        above = {node.id: node.parent for node in rows.nodes}
        for node in rows.nodes:
            place: NodeId | None = node.id
            while place is not None and place not in nodes:
                place = above.get(place)
            if place is not None:
                texts.append(_text(rows, node))
        return texts

    def _target(self, rows: Rows, kinds: Sequence[NodeKind]) -> str:
        kind = self._random.choice(kinds)
        fitting = [node for node in rows.nodes if node.kind is kind]
        if not fitting or self._chance(0.02):
            return "project:no/such/place"
        return _text(rows, self._random.choice(fitting), by_id=self._chance(0.2))


def _text(rows: Rows, node: Node, *, by_id: bool = False) -> str:
    path = path_of(rows, node)
    if (by_id or "~" in path) and node.external_id is not None:
        return f"{node.kind.value}:{node.external_id}"
    return f"{node.kind.value}:{path}"


def managers(rows: Rows) -> list[dict[str, Any]]:
    """Bodies for an admin: a token for each active user that issues, reads, revokes their own, and holds something."""
    found: list[dict[str, Any]] = []
    for user in rows.users:
        if user.state is not UserState.ACTIVE or user.username in ("root", "gateway") or user.username.startswith("~"):
            continue
        groups = [_text(rows, node) for node in rows.nodes if node.kind is NodeKind.GROUP]
        memberships = {"kind": "all_memberships"}
        found.append(
            {
                "name": "manager",
                "may_rotate_self": True,
                "owner": user.username,
                "scopes": [
                    _authz(
                        {"kind": "user"}, "token:create", "token:read", "token:edit", "token:rotate", "token:revoke"
                    ),
                    _authz(
                        {"kind": "selected", "nodes": groups},
                        *("token:create", "token:read", "token:edit", "token:rotate", "token:revoke"),
                    ),
                    _of("forge", memberships, "issue:read", "issue:write", "code:read", "code:write", "runner:read"),
                    _of("forge", {"kind": "selected", "nodes": groups[:4]}, "issue:write", "team:write", "code:write"),
                    _of("gate", {"kind": "selected", "nodes": groups[:4]}, "door:open", "door:shut", "door:knock"),
                    _of("forge", {"kind": "user"}, "key:read", "package:read"),
                    _of("forge", {"kind": "personal_projects"}, "code:write"),
                    _of("gate", memberships, "door:open", "door:read", "door:knock", "door:shut"),
                ],
            }
        )
    return found


def _authz(reach: Mapping[str, Any], *permissions: str) -> dict[str, Any]:
    return _of("authz", reach, *permissions)


def _of(catalog: str, reach: Mapping[str, Any], *permissions: str) -> dict[str, Any]:
    return {"catalog": catalog, "reach": reach, "permissions": permissions}
