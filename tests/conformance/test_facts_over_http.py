"""Every published pair of permission and boundary, decided both ways over HTTP, against the independent facts."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Final

from tests.support.managing import Stage, scope, staged

from authz_service.tokens.model import Scope

FACTS: Final = Path(__file__).parents[1] / "facts" / "gitlab_beta.csv"
TARGETS: Final = {"project": "project:acme/web", "group": "group:acme", "user": "user:root", "instance": "instance"}


def pairs() -> list[tuple[str, str]]:
    with FACTS.open() as lines:
        return sorted({(row["permission"], row["boundary"]) for row in csv.DictReader(lines)})


async def give(stage: Stage, boundary: str, permissions: tuple[str, ...]) -> str:
    """A token of an admin with these permissions at the target of the boundary."""
    if boundary in ("user", "instance"):
        given: Scope = scope("gitlab", boundary, *permissions)
    else:
        given = await stage.scope_at("gitlab", [TARGETS[boundary]], *permissions)
    return (await stage.give("root", given))[1]


async def test_every_published_pair_is_decided_both_ways(database_url):
    found = pairs()
    assert len(found) == 165
    async with staged(database_url) as stage:
        caller = (await stage.give("root", scope("authz", "instance", "decision:evaluate"), evaluates=("*",)))[1]
        for permission, boundary in found:
            resource, _, action = permission.partition(":")
            others = tuple(name for name, where in found if where == boundary and name != permission)
            asked = {"catalog": "gitlab@1", "resource": resource, "action": action, "target": TARGETS[boundary]}
            holder = await give(stage, boundary, (permission,))
            answer = await stage.call("POST", "/check", caller, {**asked, "token": holder})
            assert answer.json()["decision"] == "allow", (permission, boundary, answer.text)
            if others:
                holder = await give(stage, boundary, others)
                answer = await stage.call("POST", "/check", caller, {**asked, "token": holder})
            else:
                answer = await stage.call("POST", "/check", caller, {**asked, "token": caller})
            denied = answer.json()
            assert denied["decision"] == "deny", (permission, boundary, denied)
            if others:
                missing = [{"permission": permission, "boundary": boundary, "target": TARGETS[boundary]}]
                assert (denied["reason"], denied["missing"]) == ("permission_missing", missing)
