"""What the engine promises beside its answers: see tests/cases and tests/property for these."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import pytest
from tests import builders
from tests.builders import DAY, NOW
from tests.support.memory_world import MemoryWorld, decide_in

from authz_service.catalog.model import (
    NO_ROLE_NEEDED,
    AnyOperation,
    Bundle,
    Item,
    OwnerCheck,
    ParameterKind,
    RequirementSet,
    Target,
    TargetKind,
)
from authz_service.compiler.compile import compile_lookup
from authz_service.compiler.lookup import LegacyHoldings, Lookup
from authz_service.directory.model import NodeKind
from authz_service.engine.case import open_case
from authz_service.engine.decide import decide, line_failure
from authz_service.engine.model import Decision, Reason
from authz_service.engine.spot import has_spots, spot_at
from authz_service.tokens.model import Conditions, Reach, ReachKind, Scope, TokenId, TokenKind

DANA = builders.account("dana")
ACME = builders.group("acme")
WEB = builders.project("web", ACME)
MEMBER = ((DANA[0], ACME, "member"),)


def world_of(*things: object) -> MemoryWorld:
    return MemoryWorld(builders.rows(builders.catalog(), DANA, ACME, WEB, *things, members=MEMBER))


def test_a_decision_is_no_truth_value():
    with pytest.raises(TypeError, match="allowed"):
        bool(Decision(allowed=True, reason=Reason.GRANTED))


def test_what_the_world_raises_passes_through():
    class LostError(Exception):
        pass

    class Broken(MemoryWorld):
        def memberships(self, user):
            raise LostError

    token = builders.token(DANA[0], builders.scope(on=(ACME,)))
    rows = builders.rows(builders.catalog(), DANA, ACME, WEB, token)
    with pytest.raises(LostError):
        decide_in(Broken(rows), token.id, builders.ask())


def test_a_line_may_have_thirty_two_ancestors_and_no_more():
    line = [builders.token(DANA[0], builders.scope(on=(ACME,)))]
    while len(line) <= 33:
        line.append(replace(builders.token(DANA[0], builders.scope(on=(ACME,))), parent=line[-1].id))
    world = world_of(*line)
    assert decide_in(world, line[32].id, builders.ask()).allowed
    assert line_failure(line[32], world, builders.ask()) is None
    too_long = decide_in(world, line[33].id, builders.ask())
    assert too_long.reason is Reason.TOKEN_REVOKED
    assert too_long.failed_token == line[0].id
    assert line_failure(line[33], world, builders.ask()) is Reason.TOKEN_REVOKED


def test_the_line_of_a_caller_fails_with_its_nearest_failure():
    root = builders.token(DANA[0], revoked_at=NOW)
    parent = builders.token(DANA[0], parent=root.id, expires_at=NOW)
    child = builders.token(DANA[0], parent=parent.id)
    world = world_of(root, parent, child)
    assert line_failure(child, world, builders.ask()) is Reason.TOKEN_EXPIRED
    assert line_failure(replace(child, not_before=NOW + DAY), world, builders.ask()) is Reason.TOKEN_NOT_YET_VALID
    assert line_failure(replace(child, parent=TokenId("tok_gone")), world, builders.ask()) is Reason.TOKEN_REVOKED


def test_somebody_of_our_directory_has_no_name_upstream():
    """`user:7` there is another one's account, though the owner's id here is 7."""
    catalog = builders.catalog(owner_check=OwnerCheck.UPSTREAM)
    number = DANA[0].id
    token = builders.token(
        DANA[0],
        Scope("forge", Reach(ReachKind.USER), ("issue:read",)),
        Scope("forge", Reach(ReachKind.PERSONAL_PROJECTS), ("issue:read",)),
    )
    world = MemoryWorld(builders.rows(catalog, DANA, token))
    for target in (f"user:{number}", "user:dana", f"project:{number}/notes", "project:dana/notes"):
        assert decide_in(world, token.id, builders.ask(target=target)).reason is Reason.OUTSIDE_REACH


@pytest.mark.parametrize("address", ["10.0.0.1 ", "10.0.0", "010.0.0.1", "", "10.0.0.1/32"])
def test_an_address_that_cannot_be_read_is_in_no_network(address: str):
    token = builders.token(DANA[0], builders.scope(on=(ACME,)), conditions=Conditions(("0.0.0.0/0", "::/0")))
    decision = decide(token, world_of(token), builders.ask(client_address=address))
    assert decision.reason is Reason.CONDITION_FAILED


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("acme/web", "project:acme/web"),
        (f"project:{WEB.external_id}", "project:acme/web"),
        ("Acme/Web", "project:acme/web"),
        ("group:acme", "group:acme"),
        ("instance", "instance"),
        ("acme/gone", "acme/gone"),
        (None, None),
    ],
)
def test_a_decision_says_the_target_in_its_canonical_text(target: str | None, said: str | None):
    token = builders.token(DANA[0], builders.scope(on=(ACME,)))
    assert decide(token, world_of(token), builders.ask(target=target)).target == said


def test_a_permission_that_does_not_exist_at_the_target_names_it():
    catalog = builders.catalog(builders.permission(boundaries={NodeKind.GROUP: None}))
    token = builders.token(DANA[0], builders.scope(on=(ACME,)))
    world = MemoryWorld(builders.rows(catalog, DANA, ACME, WEB, token, members=MEMBER))
    decision = decide_in(world, token.id, builders.ask())
    assert (decision.reason, decision.target) == (Reason.BOUNDARY_MISMATCH, "project:acme/web")


@pytest.mark.parametrize(
    ("changes", "plain"),
    [
        ({}, True),
        ({"expires_at": NOW}, True),
        ({"kind": TokenKind.LEGACY}, False),
        ({"parent": TokenId("tok_parent")}, False),
        ({"conditions": Conditions(("10.0.0.0/8",))}, False),
        ({"owner": "dana"}, False),
    ],
)
def test_only_what_rests_on_token_place_and_owner_is_remembered_by_place(changes: dict, plain: bool):
    assert has_spots(replace(builders.token(DANA[0]), **changes), builders.catalog()) is plain


def test_a_condition_of_a_permission_keeps_its_catalog_from_being_remembered_by_place():
    catalog = builders.catalog(builders.permission(when=(("action.soft", True),)))
    assert not has_spots(builders.token(DANA[0]), catalog)


@pytest.mark.parametrize(
    ("admin", "stranger", "target", "allowed"),
    [
        (False, False, "instance", {"free:read"}),
        (True, False, "instance", {"free:read", "license:read"}),
        (False, False, "project:acme/web", {"free:read"}),
        (True, True, "project:acme/web", {"free:read", "license:read"}),
        (False, True, "project:acme/web", set()),
    ],
)
def test_what_is_remembered_of_a_place_knows_admins_and_roles(
    admin: bool, stranger: bool, target: str, allowed: set[str]
):
    instance, place = NodeKind.INSTANCE, NodeKind.PROJECT
    catalog = builders.catalog(
        builders.permission("license:read", 0, boundaries={instance: None, place: "owner"}),
        builders.permission("free:read", 1, boundaries={instance: NO_ROLE_NEEDED, place: "member"}),
        builders.permission("key:read", 2, boundaries={NodeKind.USER: None}),
    )
    user, home = builders.account("erin", admin=admin)
    names = ("license:read", "free:read", "key:read")
    token = builders.token(user, builders.scope(*names, on=(ACME,)), Scope("forge", Reach(ReachKind.INSTANCE), names))
    members = () if stranger else ((user, ACME, "member"),)
    rows = builders.rows(catalog, (user, home), ACME, WEB, token, members=members)
    case = open_case(token, catalog, MemoryWorld(rows), builders.ask(target=target))
    found = case.places.parse(target)
    assert found is not None
    spot = spot_at(case, found)
    assert {permission.name for permission in catalog.permissions if spot.allowed >> permission.number & 1} == allowed
    assert spot.deniable == 0


@pytest.mark.parametrize("operation", ["GET /not/in/any/table", "GET /projects/:id/open"])
def test_an_allow_without_a_requirement_says_its_target_too(operation: str):
    target = Target(TargetKind.CALLER)
    opened = builders.operation("GET /projects/:id/open", sets=(), open=True, open_at=target)
    catalog = builders.catalog(operations=(opened,), bundles={"api": Bundle("api", any_operation=AnyOperation.ALL)})
    token = builders.token(DANA[0], kind=TokenKind.LEGACY, legacy_scopes=("api",))
    world = MemoryWorld(builders.rows(catalog, DANA, ACME, WEB, token, members=MEMBER))
    decision = decide_in(world, token.id, builders.call(operation, target="acme/web"))
    assert (decision.allowed, decision.target) == (True, "project:acme/web")


BELOW = Target(TargetKind.BELOW, ("id",), ParameterKind.GROUP)
AT_ID = Target(TargetKind.PARAMETER, ("id",), ParameterKind.GROUP)


@pytest.mark.parametrize(
    ("where", "id_", "reason", "said"),
    [
        ((BELOW,), "acme", Reason.GRANTED, "group:acme"),
        ((BELOW,), "other", Reason.OWNER_NOT_MEMBER, "group:other"),
        ((AT_ID,), "other", Reason.OWNER_NOT_MEMBER, "group:other"),
        ((BELOW, AT_ID), "empty", Reason.OUTSIDE_REACH, "group:empty"),
        ((Target(TargetKind.ANYWHERE), AT_ID), "other", Reason.OWNER_NOT_MEMBER, "group:other"),
        ((Target(TargetKind.ANYWHERE),), "acme", Reason.GRANTED, "anywhere"),
    ],
)
def test_a_decision_by_requirements_says_the_target_where_it_fell(
    where: tuple[Target, ...], id_: str, reason: Reason, said: str
):
    other, empty = builders.group("other"), builders.group("empty")
    app = builders.project("app", other)
    kinds = {AT_ID: NodeKind.GROUP}
    items = tuple(Item("issue:read", kinds.get(target, NodeKind.PROJECT), target) for target in where)
    catalog = builders.catalog(operations=(builders.operation(sets=(RequirementSet(items),)),))
    token = builders.token(DANA[0], builders.scope(on=(ACME, other)))
    rows = builders.rows(catalog, DANA, ACME, WEB, other, app, empty, token, members=MEMBER)
    decision = decide_in(MemoryWorld(rows), token.id, builders.call(id=id_))
    assert (decision.reason, decision.target) == (reason, said)


@pytest.mark.parametrize(
    ("admin", "role", "reason"),
    [
        (False, "member", Reason.OWNER_NOT_MEMBER),
        (True, "member", Reason.GRANTED),
        (True, "owner", Reason.GRANTED),
    ],
)
def test_the_first_project_of_anothers_namespace_is_made_by_admins_alone(admin: bool, role: str, reason: Reason):
    erin = builders.account("erin", admin=admin)
    into = Target(TargetKind.BELOW, ("id",), ParameterKind.NAMESPACE)
    sets = (RequirementSet((Item("issue:read", NodeKind.PROJECT, into),), min_role=role),)
    catalog = builders.catalog(operations=(builders.operation(sets=sets, mutates=True),))
    token = builders.token(erin[0], builders.scope(on=(DANA[1],)))
    world = MemoryWorld(builders.rows(catalog, DANA, erin, token))
    decision = decide_in(world, token.id, builders.call(id="dana"))
    assert (decision.reason, decision.target) == (reason, "user:dana")


@pytest.mark.parametrize(("needs", "reason"), [("member", Reason.GRANTED), ("owner", Reason.OWNER_ROLE_TOO_LOW)])
def test_the_first_project_of_a_group_takes_the_role_of_the_call_too(needs: str, reason: Reason):
    sets = (RequirementSet((Item("issue:read", NodeKind.PROJECT, BELOW),), min_role=needs),)
    catalog = builders.catalog(operations=(builders.operation(sets=sets, mutates=True),))
    empty = builders.group("empty")
    token = builders.token(DANA[0], builders.scope(on=(empty,)))
    rows = builders.rows(catalog, DANA, empty, token, members=((DANA[0], empty, "member"),))
    decision = decide_in(MemoryWorld(rows), token.id, builders.call(id="empty"))
    assert (decision.reason, decision.target) == (reason, "group:empty")


@pytest.mark.parametrize(("begins", "ends", "reason"), [
    (NOW, NOW + DAY, Reason.GRANTED),
    (NOW + DAY / 10**9, NOW + DAY, Reason.TOKEN_NOT_YET_VALID),
    (NOW - DAY, NOW, Reason.TOKEN_EXPIRED),
])  # fmt: skip
def test_a_token_lives_from_its_first_moment_to_before_its_last(begins: datetime, ends: datetime, reason: Reason):
    token = builders.token(DANA[0], builders.scope(on=(ACME,)), not_before=begins, expires_at=ends)
    assert decide_in(world_of(token), token.id, builders.ask()).reason is reason


@pytest.mark.parametrize("kind", list(TokenKind))
def test_of_a_catalog_that_a_token_is_not_for_it_holds_nothing_and_stays_of_its_kind(kind: TokenKind):
    scopes = (builders.scope(on=(ACME,)),) if kind is TokenKind.FINE_GRAINED else ()
    token = builders.token(
        DANA[0], *scopes, kind=kind, legacy_scopes=() if scopes else ("api",), catalogs={"orders": 1}
    )
    found = compile_lookup(token, builders.catalog(bundles={"api": Bundle("api", any_operation=AnyOperation.ALL)}))
    nothing = LegacyHoldings() if kind is TokenKind.LEGACY else None
    assert found == Lookup(legacy=nothing, legacy_public=nothing)
