"""What is remembered of a place, all permissions at once, is what the engine decides for each of them alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests import builders
from tests.builders import DAY, NOW
from tests.support.memory_world import MemoryWorld, decide_in

from authz_service.catalog.model import NO_ROLE_NEEDED, Catalog
from authz_service.directory.model import INSTANCE_ID, Node, NodeKind
from authz_service.engine.case import open_case
from authz_service.engine.model import Reason
from authz_service.engine.spot import spot_at
from authz_service.tokens.grants import Grant, GrantState
from authz_service.tokens.model import ReachKind, Token, TokenKind
from authz_service.tokens.policy import ALWAYS, ApprovalRule, KindRule, LifetimeRule, Policy

DANA, ERIN = builders.account("dana"), builders.account("erin", admin=True)
ACME = builders.group("acme")
TEAM = builders.group("team", ACME)
WEB = builders.project("web", TEAM)
OTHER = builders.group("other")
PROJECT = NodeKind.PROJECT
CATALOG = builders.catalog(
    builders.permission("issue:read", 0),
    builders.permission("issue:write", 1, implies=("issue:read",)),
    builders.permission("file:read", 2, boundaries={PROJECT: "member"}),
    builders.permission("file:write", 3, boundaries={PROJECT: "owner", NodeKind.INSTANCE: NO_ROLE_NEEDED}),
    builders.permission("key:read", 4, boundaries={NodeKind.USER: None, NodeKind.INSTANCE: None}),
)
NAMES = [permission.name for permission in CATALOG.permissions]
PLACES = ["instance", "user:dana", "group:acme", "group:acme/team", "project:acme/team/web", "group:other"]


def token(*scopes: Any, owner: Any = DANA, **changes: Any) -> Token:
    at = scopes or (builders.scope(*NAMES, on=(ACME,)), builders.scope(*NAMES, reach=ReachKind.INSTANCE))
    return builders.token(owner[0], *at, **{"expires_at": NOW + 5 * DAY, **changes})


def policy(node: Node | None, **rules: Any) -> Policy:
    return Policy(INSTANCE_ID if node is None else node.id, CATALOG.name, since=NOW - 9 * DAY, **rules)


def grant(owner: Token, group: Node, *pairs: tuple[str, Node]) -> Grant:
    named = frozenset((name, node.id) for name, node in pairs)
    return Grant(1, owner.id, CATALOG.name, group.id, GrantState.ACTIVE, named)


def compare(
    owner: Token, *policies: Policy, grants: tuple[Grant, ...] = (), members: Any = None, catalog: Catalog = CATALOG
) -> dict[str, set[str]]:
    """By place the permissions that are remembered as allowed; each bit was held against the engine's own decision."""
    rows = builders.rows(
        catalog, DANA, ERIN, ACME, TEAM, WEB, OTHER, owner,
        members=((DANA[0], ACME, "member"),) if members is None else members,
    )  # fmt: skip
    world = MemoryWorld(replace(rows, policies=list(policies), grants=list(grants)))
    found: dict[str, set[str]] = {}
    for text in PLACES:
        case = open_case(owner, catalog, world, builders.ask(target=text))
        place = case.places.parse(text)
        assert place is not None
        spot = spot_at(case, place)
        found[text] = set()
        for permission in catalog.permissions:
            decision = decide_in(world, owner.id, builders.ask(permission.name, text))
            bit = 1 << permission.number
            assert bool(spot.allowed & bit) is (decision.reason is Reason.GRANTED), (text, permission.name, decision)
            missing = {Reason.PERMISSION_MISSING: 0, Reason.OUTSIDE_REACH: bit}.get(decision.reason)
            assert bool(spot.deniable & bit) is (missing is not None), (text, permission.name, decision)
            assert missing is None or spot.elsewhere & bit == missing, (text, permission.name)
            if spot.allowed & bit:
                found[text].add(permission.name)
    return found


def test_without_policies_all_that_is_held_and_admitted_is_remembered():
    found = compare(token())
    assert found["project:acme/team/web"] == {"issue:read", "issue:write", "file:read"}
    assert found["instance"] == {"file:write"}
    assert found["group:other"] == set()
    assert compare(token(), members=())["group:acme"] == set()
    assert compare(token(owner=ERIN))["project:acme/team/web"] == {*NAMES} - {"key:read"}
    assert compare(token(builders.scope("issue:write", on=(TEAM,))))["group:acme/team"] == {"issue:read", "issue:write"}


@pytest.mark.parametrize("node", [None, ACME, TEAM])
@pytest.mark.parametrize(
    "rules",
    [
        {"kinds": {TokenKind.FINE_GRAINED: KindRule(ALWAYS)}},
        {"lifetimes": {TokenKind.FINE_GRAINED: LifetimeRule(1)}},
        {"approval": ApprovalRule(required=True)},
    ],
)
def test_what_a_policy_stops_is_not_remembered_as_allowed(node: Node | None, rules: dict[str, Any]):
    found = compare(token(), policy(node, **rules))
    assert found["project:acme/team/web"] == found["group:acme/team"] == set()
    assert bool(found["group:acme"]) is (node is TEAM)


def test_a_life_and_a_kind_stop_each_by_itself():
    kinds = policy(None, kinds={TokenKind.FINE_GRAINED: KindRule(ALWAYS)})
    lives = policy(ACME, lifetimes={TokenKind.FINE_GRAINED: LifetimeRule(7)})
    assert compare(token(), lives)["group:acme"] == {"issue:read", "issue:write"}
    assert compare(token(), kinds, lives)["group:acme"] == set()


def test_what_was_granted_is_remembered_where_it_was_and_what_it_implies_with_it():
    mine, approval = token(), policy(ACME, approval=ApprovalRule(required=True))
    on_team = compare(mine, approval, grants=(grant(mine, ACME, ("issue:read", TEAM), ("file:read", WEB)),))
    assert on_team["group:acme"] == set()
    assert on_team["group:acme/team"] == {"issue:read"}
    assert on_team["project:acme/team/web"] == {"issue:read", "file:read"}
    all_over = compare(mine, approval, grants=(grant(mine, ACME, ("issue:write", ACME)),))
    assert all_over["group:acme"] == all_over["project:acme/team/web"] == {"issue:read", "issue:write"}
    by_another = compare(mine, approval, grants=(grant(mine, TEAM, ("issue:read", TEAM)),))
    assert by_another["group:acme/team"] == set()


def test_admins_are_stopped_by_policies_as_everybody():
    mine, approval = token(owner=ERIN), policy(TEAM, approval=ApprovalRule(required=True))
    found = compare(mine, approval, grants=(grant(mine, TEAM, ("file:write", WEB)),))
    assert found["project:acme/team/web"] == {"file:write"}
    assert found["group:acme/team"] == set()
    assert found["group:acme"] == {"issue:read", "issue:write"}


@pytest.mark.parametrize("first", [None, "member", "owner"])
@pytest.mark.parametrize("second", [None, "member", "owner"])
@pytest.mark.parametrize("at_instance", [None, NO_ROLE_NEEDED, "owner"])
def test_roles_admit_to_each_permission_as_it_says(first: str | None, second: str | None, at_instance: str | None):
    catalog = builders.catalog(
        builders.permission("issue:read", 0, boundaries={PROJECT: first, NodeKind.GROUP: second}),
        builders.permission("file:read", 1, boundaries={PROJECT: second, NodeKind.INSTANCE: at_instance}),
    )
    names = ("issue:read", "file:read")
    for role in ("member", "owner"):
        mine = token(builders.scope(*names, on=(ACME,)), builders.scope(*names, reach=ReachKind.INSTANCE))
        found = compare(mine, members=((DANA[0], ACME, role),), catalog=catalog)
        needed = {"issue:read": first, "file:read": second}
        assert found["project:acme/team/web"] == {
            name for name, role_ in needed.items() if role_ in (None, "member", role)
        }
        assert found["instance"] == ({"file:read"} if at_instance == NO_ROLE_NEEDED else set())
