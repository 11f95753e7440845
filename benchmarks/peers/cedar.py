"""Cedar in process, by its Python binding: the tokens' policies and the places are parsed before it is asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from benchmarks.oracle import Ask, Holder
from benchmarks.workload import Workload


def make_cedar(workload: Workload) -> Callable[[Ask], bool]:
    """Asks with the one token's policies and the way up from the target: more of either only makes it slower."""
    import cedarpy

    policies = [cedarpy.PolicySet.from_str(_policies(holder)) for holder in workload.tokens]
    entities = {
        target: cedarpy.Entities.from_json_str(json.dumps(_way_up(target)))
        for target in dict.fromkeys(ask.target for ask in workload.asks)
    }

    def ask_cedar(ask: Ask) -> bool:
        request: dict[str, Any] = {
            "principal": {"type": "Token", "id": workload.tokens[ask.token].name},
            "action": {"type": "Action", "id": ask.permission},
            "resource": {"type": "Node", "id": ask.target},
        }
        return bool(cedarpy.is_authorized(request, policies[ask.token], entities[ask.target]).allowed)

    return ask_cedar


def _policies(holder: Holder) -> str:
    lines = []
    for grant in holder.grants:
        actions = ", ".join(f'Action::"{permission}"' for permission in grant.permissions)
        lines.append(
            f'permit(principal == Token::"{holder.name}", action in [{actions}], resource in Node::"{grant.node}");'
        )
    return "\n".join(lines)


def _way_up(target: str) -> list[dict[str, Any]]:
    parts = target.split("/")
    found = []
    for end in range(len(parts), 0, -1):
        parents = [{"type": "Node", "id": "/".join(parts[: end - 1])}] if end > 1 else []
        found.append({"uid": {"type": "Node", "id": "/".join(parts[:end])}, "attrs": {}, "parents": parents})
    return found
