"""Random policies, reviews and revocations of grants, as requests to a service."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any
from urllib.parse import quote

from tests.reference.places import node_of, path_of, way_up
from tests.reference.rows import Rows

from authz_service.directory.model import NodeId, NodeKind
from authz_service.tokens.grants import GrantState, Pair, RequestState

Call = tuple[str, str, Mapping[str, Any] | None]
"""Method, path, body."""


class RulingDrawer:
    """Draws what an organisation does about tokens."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def draw(self, rows: Rows) -> Call:
        draw = self._random.random()
        pending = [one for one in rows.requests if one.state is RequestState.PENDING]
        active = [one for one in rows.grants if one.state is GrantState.ACTIVE]
        if pending and draw < 0.45:
            action = self._random.choice(("approve", "approve", "deny", "cancel"))
            return "POST", f"/v1/grant-requests/{self._random.choice(pending).id}", {"action": action}
        if active and draw < 0.6:
            return "DELETE", f"/v1/grants/{self._random.choice(active).id}", None
        return self._policy(rows)

    def _policy(self, rows: Rows) -> Call:
        catalog = self._random.choice(("forge", "forge", "forge", "hub", "orders", "gate"))
        groups = [f"group:{path_of(rows, node)}" for node in rows.nodes if node.kind is NodeKind.GROUP]
        if catalog == "orders":
            groups = ["group:acme", "group:acme/tools"]
        node = self._random.choice([*groups, "instance"])
        grandfather = "true" if self._random.random() < 0.6 else "false"
        return "PUT", f"/v1/policies?node={quote(node)}&grandfather={grandfather}", {"catalog": catalog, **self._said()}

    def _said(self) -> dict[str, Any]:
        """Mostly something mild: a world in which everything is forbidden shows nothing."""
        said: dict[str, Any] = {}
        choice = self._random.random()
        force = self._random.random() < 0.2
        if choice < 0.3:
            return said
        if choice < 0.65:
            said["approval"] = {"value": self._random.choice(("required", "required", "off")), "force": force}
            if self._random.random() < 0.3:
                said["approval"]["auto_approve"] = [{"only_reads": True}]
        elif choice < 0.85:
            said["legacy"] = {"value": self._random.choice(("allow", "forbid")), "force": force}
            if said["legacy"]["value"] == "forbid" and self._random.random() < 0.4:
                said["legacy"]["include_service_accounts"] = True
        elif choice < 0.93:
            said["fine_grained"] = {"value": self._random.choice(("allow", "allow", "forbid")), "force": force}
        else:
            said["max_lifetime_days"] = {"legacy": {"value": self._random.choice((1, 30)), "exempt_admins": force}}
        return said


def undone_by_grandfathering(before: Rows, after: Rows) -> list[str]:
    """Pairs that a policy alone added to grants, over what their groups had refused, revoked or not answered (P4)."""

    def on_one_way(rows: Rows, one: NodeId, other: NodeId) -> bool:
        found = [node_of(rows, node) for node in (one, other)]
        ways = [[] if node is None else [above.id for above in way_up(rows, node)] for node in found]
        return one in ways[1] or other in ways[0]

    stood: dict[tuple[str, str, NodeId], set[Pair]] = {}
    for grant in before.grants:
        if grant.state is GrantState.ACTIVE:
            stood.setdefault((grant.token, grant.catalog, grant.group), set()).update(grant.pairs)
    kept_back: dict[tuple[str, str, NodeId], set[Pair]] = {}
    for request in before.requests:
        if request.state is not RequestState.CANCELLED:
            where = (request.token, request.catalog, request.group)
            kept_back.setdefault(where, set()).update(request.asked - request.given)
    for grant in before.grants:
        if grant.state is GrantState.REVOKED:
            kept_back.setdefault((grant.token, grant.catalog, grant.group), set()).update(grant.pairs)
    found: list[str] = []
    for grant in after.grants:
        where = (grant.token, grant.catalog, grant.group)
        given = stood.get(where, set())
        if grant.state is not GrantState.ACTIVE or where not in kept_back:
            continue
        for name, node in grant.pairs - given:
            refused = [at for one, at in kept_back[where] if one == name and (one, at) not in given]
            covered = any(one == name and on_one_way(after, at, node) for one, at in given)
            if not covered and any(on_one_way(after, at, node) for at in refused):
                found.append(f"{where}: {name} on {node}, against {refused}")
    return found
