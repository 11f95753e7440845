"""The smallest scopes for small worlds that say what they are about."""

from __future__ import annotations

from tests.builders import account, ask, catalog, group, permission, project, rows, scope, token
from tests.support.memory_world import MemoryWorld

from authz_service.directory.model import Visibility
from authz_service.engine.decide import decide
from authz_service.engine.documents import combine
from authz_service.engine.fix import find_fixes
from authz_service.engine.model import Reason, allow
from authz_service.engine.shrink import Used, shrink
from authz_service.engine.suggest import needs_of, suggest
from authz_service.tokens.model import ReachKind

ISSUES = permission("issue:read", 0)
WRITES = permission("issue:write", 1, implies=("issue:read",), mutates=True)
JOBS = permission("job:read", 2)
FORGE = catalog(ISSUES, WRITES, JOBS)


def world_of(*things: object, members=()):
    return MemoryWorld(rows(FORGE, *things, members=members))


def needs(world, bare, *asked):
    return [need for permission_name, target in asked for need in needs_of(bare, world, ask(permission_name, target))]


def test_what_one_call_implies_is_not_given_twice():
    dana, acme = account(), group()
    web = project(parent=acme)
    bare = token(dana[0])
    world = world_of(dana, acme, web, bare, members=[(dana[0], acme, "member")])
    calls = (("issue:write", "project:acme/web"), ("issue:read", "project:acme/web"))
    found = suggest(FORGE, bare, needs(world, bare, *calls))
    assert [(one.reach.nodes, one.permissions) for one in found.scopes] == [((web.id,), ("issue:write",))]
    assert (found.size, found.exact) == (2, True)


def test_a_project_under_a_group_that_is_given_anyway_needs_no_more():
    dana, acme = account(), group()
    web = project(parent=acme)
    bare = token(dana[0])
    world = world_of(dana, acme, web, bare, members=[(dana[0], acme, "member")])
    found = suggest(FORGE, bare, needs(world, bare, ("job:read", "group:acme"), ("job:read", "project:acme/web")))
    assert [(one.reach.nodes, one.permissions) for one in found.scopes] == [((acme.id,), ("job:read",))]


def test_places_that_are_given_the_same_share_a_scope():
    dana, acme = account(), group()
    web, api = project("web", acme), project("api", acme)
    bare = token(dana[0])
    world = world_of(dana, acme, web, api, bare, members=[(dana[0], acme, "member")])
    calls = (("job:read", "project:acme/web"), ("job:read", "project:acme/api"))
    found = suggest(FORGE, bare, needs(world, bare, *calls))
    assert [set(one.reach.nodes) for one in found.scopes] == [{web.id, api.id}]


def test_an_account_and_the_instance_have_reaches_of_their_own():
    dana = account(admin=True)
    bare = token(dana[0])
    world = world_of(dana, bare)
    found = suggest(FORGE, bare, needs(world, bare, ("job:read", "user:dana"), ("job:read", "instance")))
    assert {one.reach.kind for one in found.scopes} == {ReachKind.USER, ReachKind.INSTANCE}


def test_nothing_is_given_for_a_call_that_the_memberships_deny():
    dana, acme, other = account(), group(), group("other")
    bare = token(dana[0])
    world = world_of(dana, acme, other, bare, members=[(dana[0], acme, "member")])
    found = suggest(FORGE, bare, needs(world, bare, ("job:read", "group:other"), ("job:read", "group:acme")))
    assert [(one.reach.nodes, one.permissions) for one in found.scopes] == [((acme.id,), ("job:read",))]
    assert found.unmet == (0,)
    [[way]] = needs_of(bare, world, ask("job:read", "group:other"), in_vain=True)
    assert [(want.atom.permission, want.atom.where.node) for want in way] == [("job:read", other.id)]


def test_a_call_about_no_place_is_a_need_that_nothing_meets():
    dana = account()
    bare = token(dana[0])
    world = world_of(dana, bare)
    found = suggest(FORGE, bare, needs(world, bare, ("job:read", "project:no/such")))
    assert (found.scopes, found.unmet) == ((), (0,))


def test_a_scope_that_is_just_right_gets_the_place_or_the_permission():
    dana, acme = account(), group()
    web, api = project("web", acme), project("api", acme)
    holder = token(dana[0], scope("issue:read", on=(web,)))
    world = world_of(dana, acme, web, api, holder, members=[(dana[0], acme, "member")])
    for asked, said in (
        (ask("issue:read", "project:acme/api"), "add `project:acme/api` to the scope with `issue:read`"),
        (ask("job:read", "project:acme/web"), "add `job:read` to the scope on `project:acme/web`"),
        (ask("job:read", "project:acme/api"), "give the token `job:read` on `project:acme/api`"),
    ):
        fixes = find_fixes(holder, world, asked, decide(holder, world, asked))
        assert fixes[0].sentence() == said


def test_the_same_steps_in_another_order_are_one_fix_and_a_membership_says_whose():
    dana, acme = account(), group(visibility=Visibility.PUBLIC)
    web = project(parent=acme, visibility=Visibility.PUBLIC)
    bare = token(dana[0])
    world = world_of(dana, acme, web, bare)
    asked = ask("issue:write", "project:acme/web")
    fixes = find_fixes(bare, world, asked, decide(bare, world, asked))
    assert len(fixes[0].steps) == 2
    assert len({frozenset(step.kind for step in fix.steps) for fix in fixes}) == len(fixes)
    [joins] = [step.document() for step in fixes[0].steps if step.role is not None]
    assert (joins["user"], joins["nodes"], joins["role"]) == ("dana", ["project:acme/web"], "member")


def test_a_token_keeps_the_whole_group_only_if_it_holds_it():
    dana, acme = account(), group()
    web = project(parent=acme)
    member = [(dana[0], acme, "member")]
    everywhere = token(dana[0], scope("job:read", reach=ReachKind.ALL_MEMBERSHIPS))
    world = world_of(dana, acme, web, everywhere, members=member)
    kept = shrink(everywhere, FORGE, world, ask(), [Used("job:read", acme.id)])
    assert [one.reach.kind for one in kept.scopes] == [ReachKind.ALL_MEMBERSHIPS]
    selected = token(dana[0], scope("job:read", "issue:read", on=(acme,)))
    world = world_of(dana, acme, web, selected, members=member)
    kept = shrink(selected, FORGE, world, ask(), [Used("job:read", acme.id)])
    assert [(one.reach.nodes, one.permissions) for one in kept.scopes] == [((acme.id,), ("job:read",))]
    assert shrink(selected, FORGE, world, ask(), [Used("gone:away", acme.id), Used("job:read", 999_999)]).scopes == ()


def test_an_allow_says_what_it_rested_on_and_a_document_adds_up():
    dana, acme = account(), group()
    web = project(parent=acme)
    holder = token(dana[0], scope("issue:write", on=(acme,)))
    world = world_of(dana, acme, web, holder, members=[(dana[0], acme, "member")])
    decision = decide(holder, world, ask("issue:read", "project:acme/web"))
    assert (decision.reason, decision.used) == (Reason.GRANTED, (("issue:read", "project:acme/web"),))
    assert decide(holder, world, ask("job:read", "project:acme/web")).used == ()
    first, second = (allow(Reason.GRANTED, used=((name, "instance"),)) for name in ("issue:read", "job:read"))
    assert combine([first, second]).used == (("issue:read", "instance"), ("job:read", "instance"))
