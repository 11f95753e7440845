"""What a denial by policy says for its message: which policy, where, since when, and which group has to approve."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests import builders
from tests.builders import DAY, NOW
from tests.support.memory_world import MemoryWorld, decide_in

from authz_service.catalog.model import (
    AnyOperation,
    Bundle,
    Item,
    ParameterKind,
    RequirementSet,
    Target,
    TargetKind,
)
from authz_service.directory.model import INSTANCE_ID, Node, NodeKind, Visibility
from authz_service.engine.attributes import Assumption
from authz_service.engine.case import open_case
from authz_service.engine.items import PASSED, STAGE_GIVEN, ItemJudge
from authz_service.engine.model import Decision, PolicyNote, Reason
from authz_service.tokens.grants import Grant, GrantState
from authz_service.tokens.model import ReachKind, Scope, Token, TokenKind
from authz_service.tokens.policy import (
    ALWAYS,
    ApprovalRule,
    InactivityRule,
    KindRule,
    LifetimeRule,
    Policy,
    inactivity_in_force,
    set_aside,
)

DANA = builders.account("dana")
ACME = builders.group("acme")
TEAM = builders.group("team", ACME)
WEB = builders.project("web", TEAM)
CATALOG = builders.catalog()
SINCE = NOW - 9 * DAY
TOKEN = replace(builders.token(DANA[0], builders.scope(on=(ACME,))), created_at=NOW - DAY, expires_at=NOW + 5 * DAY)


def policy(node: Node | None, **rules: Any) -> Policy:
    """Of the instance where no node is given."""
    return Policy(INSTANCE_ID if node is None else node.id, CATALOG.name, since=SINCE, **rules)


def named(catalog: str, permission: str) -> Scope:
    return replace(builders.scope(permission), catalog=catalog)


def denied(*policies: Policy, token: Token = TOKEN) -> Decision:
    rows = builders.rows(CATALOG, DANA, ACME, TEAM, WEB, token, members=((DANA[0], ACME, "member"),))
    world = MemoryWorld(replace(rows, policies=policies))
    return decide_in(world, token.id, builders.ask(target="project:acme/team/web"))


@pytest.mark.parametrize(("node", "place"), [(None, "instance"), (ACME, "group:acme"), (TEAM, "group:acme/team")])
def test_a_forbidden_kind_names_the_policy_its_place_and_its_beginning(node, place):
    forbidden = policy(node, kinds={TokenKind.FINE_GRAINED: KindRule(ALWAYS)})
    found = denied(forbidden)
    assert found.reason is Reason.POLICY_FORBIDS_KIND
    assert found.policy == PolicyNote(place, "forbids fine-grained tokens", SINCE)


@pytest.mark.parametrize(("node", "place"), [(None, "instance"), (ACME, "group:acme"), (TEAM, "group:acme/team")])
@pytest.mark.parametrize(("days", "many"), [(1, "1 day"), (2, "2 days")])
def test_a_life_too_long_names_the_limit(node, place, days, many):
    found = denied(policy(node, lifetimes={TokenKind.FINE_GRAINED: LifetimeRule(days)}))
    assert found.reason is Reason.LIFETIME_EXCEEDS_POLICY
    assert found.policy == PolicyNote(place, f"allows lives of {many} at most", SINCE)


@pytest.mark.parametrize(("node", "place"), [(None, "group:acme"), (ACME, "group:acme"), (TEAM, "group:acme/team")])
def test_an_approval_names_the_group_that_gives_it(node, place):
    group = TEAM if node is TEAM else ACME
    found = denied(policy(node, approval=ApprovalRule(required=True)))
    assert found.reason is Reason.APPROVAL_PENDING
    assert found.policy == PolicyNote(place, "requires approval", SINCE, group.id)


def test_the_kind_comes_before_the_life_and_the_life_before_the_approval():
    kinds = policy(TEAM, kinds={TokenKind.FINE_GRAINED: KindRule(ALWAYS)})
    lives = policy(ACME, lifetimes={TokenKind.FINE_GRAINED: LifetimeRule(1)})
    approvals = policy(None, approval=ApprovalRule(required=True))
    assert denied(kinds, lives, approvals).reason is Reason.POLICY_FORBIDS_KIND
    assert denied(lives, approvals).reason is Reason.LIFETIME_EXCEEDS_POLICY
    assert denied(approvals).reason is Reason.APPROVAL_PENDING


def test_a_life_of_exactly_the_limit_is_allowed():
    limit = policy(ACME, lifetimes={TokenKind.FINE_GRAINED: LifetimeRule(6)})
    assert denied(limit).allowed
    assert denied(limit, token=replace(TOKEN, expires_at=NOW + 5 * DAY + timedelta(seconds=1))).policy is not None


@pytest.mark.parametrize(
    ("catalog", "scope", "admin", "aside"),
    [
        ("authz", named("authz", "decision:evaluate"), False, True),
        ("authz", named("authz", "token:read"), False, False),
        ("authz", named("orders", "decision:evaluate"), False, False),
        ("authz", named("authz", "token:read"), True, True),
        ("orders", named("authz", "decision:evaluate"), True, False),
    ],
)
def test_policies_are_set_aside_for_admins_and_evaluators_in_management_alone(catalog, scope, admin, aside):
    assert set_aside(replace(TOKEN, scopes=(scope,)), catalog, admin=admin) is aside


FORBIDDEN = KindRule(ALWAYS)
LEGACY = replace(TOKEN, kind=TokenKind.LEGACY, scopes=(), legacy_scopes=("api",))
NO_LEGACY = PolicyNote("group:acme", "forbids legacy tokens", SINCE)


def called(operations: tuple[Any, ...], asked: Any, *, token: Token = TOKEN, **rules: Any) -> Decision:
    """Of an operation, where acme has these rules and is public."""
    bundle = Bundle("api", any_operation=AnyOperation.ALL)
    catalog = builders.catalog(operations=operations, bundles={"api": bundle}, forbidding_legacy_ends_public_reads=True)
    acme = replace(ACME, visibility=Visibility.PUBLIC)
    rows = builders.rows(catalog, DANA, acme, token, WEB, TEAM, members=((DANA[0], acme, "member"),))
    return decide_in(MemoryWorld(replace(rows, policies=[policy(acme, **rules)])), token.id, asked)


def test_a_call_that_no_table_has_is_stopped_by_kind_and_life_with_their_notes():
    asked = builders.call("POST /elsewhere", target="group:acme")
    assert called((), asked, token=LEGACY, approval=ApprovalRule(required=True)).allowed
    found = called((), asked, token=LEGACY, kinds={TokenKind.LEGACY: FORBIDDEN})
    assert (found.reason, found.target, found.policy) == (Reason.POLICY_FORBIDS_KIND, "group:acme", NO_LEGACY)
    found = called((), asked, token=LEGACY, lifetimes={TokenKind.LEGACY: LifetimeRule(2)})
    note = PolicyNote("group:acme", "allows lives of 2 days at most", SINCE)
    assert (found.reason, found.target, found.policy) == (Reason.LIFETIME_EXCEEDS_POLICY, "group:acme", note)


def test_what_is_open_at_a_public_place_is_closed_to_forbidden_legacy_tokens_where_the_catalog_says_so():
    at = Target(TargetKind.PARAMETER, ("id",), ParameterKind.GROUP)
    home = builders.operation("GET /groups/:id", sets=(), open=True, open_at=at)
    asked = builders.call("GET /groups/:id", id="acme")
    assert called((home,), asked, token=LEGACY).reason is Reason.GRANTED_OPEN
    assert called((home,), asked, kinds={TokenKind.FINE_GRAINED: FORBIDDEN}).reason is Reason.GRANTED_OPEN
    found = called((home,), asked, token=LEGACY, kinds={TokenKind.LEGACY: FORBIDDEN})
    assert (found.reason, found.target, found.policy) == (Reason.POLICY_FORBIDS_KIND, "group:acme", NO_LEGACY)


def test_a_search_below_a_group_says_what_it_used_or_which_policy_stopped_it():
    below = Target(TargetKind.BELOW, ("id",), ParameterKind.GROUP)
    sets = (RequirementSet((Item("issue:read", NodeKind.PROJECT, below),)),)
    search = builders.operation("GET /groups/:id/issues", sets=sets)
    found = called((search,), builders.call("GET /groups/:id/issues", id="acme"))
    assert (found.reason, found.used) == (Reason.GRANTED, (("issue:read", "group:acme"),))
    found = called((search,), builders.call("GET /groups/:id/issues", id="acme"), approval=ApprovalRule(required=True))
    assert (found.reason, found.target) == (Reason.APPROVAL_PENDING, "group:acme")
    assert found.policy == PolicyNote("group:acme", "requires approval", SINCE, ACME.id)


@pytest.mark.parametrize(("limits", "days"), [((), None), ((None,), None), ((30, None, 7, 9), 7)])
def test_the_shortest_idle_time_of_all_policies_is_in_force(limits: tuple[int | None, ...], days: int | None):
    way = [policy(ACME, inactivity=None if limit is None else InactivityRule(limit)) for limit in limits]
    assert inactivity_in_force(way) == days


def test_a_ban_that_began_says_when_it_began():
    begun = NOW - DAY
    found = denied(policy(ACME, kinds={TokenKind.FINE_GRAINED: KindRule(begun)}))
    assert found.policy == PolicyNote("group:acme", "forbids fine-grained tokens", begun)


@pytest.mark.parametrize(("admin", "held"), [(False, "decision:evaluate"), (True, "token:read")])
def test_management_by_admins_and_evaluators_is_under_no_policy(admin: bool, held: str):
    asked = builders.permission(held, 0)
    for name, reason in (("authz", Reason.GRANTED), ("orders", Reason.POLICY_FORBIDS_KIND)):
        catalog = builders.catalog(asked, name=name)
        erin = builders.account("erin", admin=admin)
        everywhere = replace(builders.scope(held, reach=ReachKind.INSTANCE), catalog=name)
        token = builders.token(erin[0], replace(everywhere), catalogs={name: 1})
        ban = Policy(INSTANCE_ID, name, kinds={TokenKind.FINE_GRAINED: FORBIDDEN}, since=SINCE)
        permission = replace(asked, boundaries={NodeKind.INSTANCE: "none"})
        rows = builders.rows(replace(catalog, permissions=(permission,)), erin, token)
        world = MemoryWorld(replace(rows, policies=[ban]))
        request = replace(builders.ask(held, "instance"), catalog=name)
        assert decide_in(world, token.id, request).reason is reason


STATED = builders.permission("issue:read", 0, when=(("resource.stage", "live"),))


def live(node: Node) -> Node:
    return replace(node, attributes={"stage": "live"})


def test_an_approval_covers_what_an_attribute_of_the_place_lets_confer():
    catalog = builders.catalog(STATED)
    web = live(WEB)
    rows = builders.rows(catalog, DANA, ACME, TEAM, web, TOKEN, members=((DANA[0], ACME, "member"),))
    required = policy(ACME, approval=ApprovalRule(required=True))
    given = Grant(1, TOKEN.id, catalog.name, ACME.id, GrantState.ACTIVE, frozenset([("issue:read", ACME.id)]))
    asked = builders.ask(target="project:acme/team/web")
    pending = decide_in(MemoryWorld(replace(rows, policies=[required])), TOKEN.id, asked)
    assert (pending.reason, pending.target) == (Reason.APPROVAL_PENDING, "project:acme/team/web")
    assert decide_in(MemoryWorld(replace(rows, policies=[required], grants=[given])), TOKEN.id, asked).allowed


def test_a_first_project_is_made_where_an_attribute_of_the_namespace_lets_it():
    catalog = builders.catalog(STATED)
    into = Target(TargetKind.BELOW, ("id",), ParameterKind.NAMESPACE)
    sets = (RequirementSet((Item("issue:read", NodeKind.PROJECT, into),)),)
    catalog = builders.catalog(STATED, operations=(builders.operation("POST /projects", sets=sets, mutates=True),))
    dana = (DANA[0], live(DANA[1]))
    token = builders.token(DANA[0], builders.scope(reach=ReachKind.PERSONAL_PROJECTS))
    asked = builders.call("POST /projects", id="dana")
    assert decide_in(MemoryWorld(builders.rows(catalog, dana, token)), token.id, asked).allowed
    plain = decide_in(MemoryWorld(builders.rows(catalog, DANA, token)), token.id, asked)
    assert (plain.reason, plain.absent) == (Reason.ATTRIBUTE_MISSING, ("resource.stage",))


def test_an_approval_below_covers_what_the_owners_role_lets_confer():
    as_member = builders.permission(
        "issue:read", 0, boundaries={NodeKind.PROJECT: None}, when=(("subject.role", "member"),)
    )
    catalog = builders.catalog(as_member)
    rows = builders.rows(catalog, DANA, ACME, TEAM, WEB, TOKEN, members=((DANA[0], ACME, "member"),))
    required = policy(TEAM, approval=ApprovalRule(required=True))
    given = Grant(1, TOKEN.id, catalog.name, TEAM.id, GrantState.ACTIVE, frozenset([("issue:read", TEAM.id)]))
    item = Item("issue:read", NodeKind.PROJECT, Target(TargetKind.CALLER))
    for grants, reason in (((), Reason.APPROVAL_PENDING), ((given,), Reason.GRANTED)):
        world = MemoryWorld(replace(rows, policies=[required], grants=list(grants)))
        case = open_case(TOKEN, catalog, world, builders.ask(target="group:acme"))
        place = case.places.parse("group:acme")
        assert place is not None
        verdict = ItemJudge(case, None, Assumption()).judge(item, replace(place, whole=True), None)
        assert (verdict.reason, verdict.target) == (reason, "group:acme")
        assert verdict.policy == (
            None if grants else PolicyNote("group:acme/team", "requires approval", SINCE, TEAM.id)
        )


def test_what_a_coarse_token_has_in_public_alone_it_has_not_in_all_projects_of_a_public_group():
    bundles = {
        "api": Bundle("api", permissions=frozenset(["issue:read"])),
        "open": Bundle("open", permissions=frozenset(["issue:read"]), public_only=True),
    }
    catalog = builders.catalog(builders.permission(boundaries={NodeKind.PROJECT: None}), bundles=bundles)
    acme = replace(ACME, visibility=Visibility.PUBLIC)
    item = Item("issue:read", NodeKind.PROJECT, Target(TargetKind.CALLER))
    for name, stage in (("api", PASSED), ("open", STAGE_GIVEN)):
        token = replace(LEGACY, legacy_scopes=(name,))
        rows = builders.rows(catalog, DANA, acme, TEAM, WEB, token, members=((DANA[0], acme, "member"),))
        case = open_case(token, catalog, MemoryWorld(rows), builders.ask(target="group:acme"))
        place = case.places.parse("group:acme")
        assert place is not None
        assert ItemJudge(case, None, Assumption()).judge(item, replace(place, whole=True), None).stage == stage
