"""What a trace tells of each requirement that was tried, and what an allow rested on."""

from __future__ import annotations

from typing import Any

import pytest
from tests import builders
from tests.support.memory_world import MemoryWorld

from authz_service.catalog.model import Catalog, Item, ParameterKind, RequirementSet, Target, TargetKind
from authz_service.directory.model import NodeKind, Visibility
from authz_service.engine.decide import explain
from authz_service.engine.model import Decision, Reason, Request, TracedItem, TracedSet, TracedToken
from authz_service.tokens.model import TokenId

DANA = builders.account("dana")
ACME = builders.group("acme")
WEB = builders.project("web", ACME)
OPEN = builders.group("open", visibility=Visibility.PUBLIC)
SITE = builders.project("site", OPEN, visibility=Visibility.PUBLIC)
PROJECT = NodeKind.PROJECT
ID = Target(TargetKind.PARAMETER, ("id",), ParameterKind.PROJECT)
OTHER = Target(TargetKind.PARAMETER, ("other",), ParameterKind.PROJECT)
BELOW = Target(TargetKind.BELOW, ("group",), ParameterKind.GROUP)
ANYWHERE = Target(TargetKind.ANYWHERE)
READ, WRITE = builders.permission("issue:read", 0, public_read=True), builders.permission("issue:write", 1)
CALL = "GET /issues"


def catalog(*sets: RequirementSet) -> Catalog:
    return builders.catalog(READ, WRITE, operations=(builders.operation(CALL, sets=sets),))


def asked(found: Catalog, request: Request, *may: str) -> tuple[Decision, TracedToken]:
    token = builders.token(DANA[0], builders.scope(*(may or ("issue:read",)), on=(ACME,)))
    acme = builders.rows(found, DANA, ACME, WEB, OPEN, SITE, token, members=((DANA[0], ACME, "member"),))
    decision, trace = explain(token, MemoryWorld(acme), request)
    [only] = trace
    assert (only.token, only.catalog, only.reason) == (token.id, "forge@1", decision.reason)
    return decision, only


def item(target: Target, permission: str = "issue:read") -> Item:
    return Item(permission, PROJECT, target)


def test_each_alternative_is_told_with_its_items_and_what_stopped_it():
    both = RequirementSet((item(ID), item(ID, "issue:write")))
    either = RequirementSet((item(ID),), min_role="member")
    decision, trace = asked(catalog(both, either), builders.call(CALL, id="acme/web"))
    kind = TargetKind.PARAMETER
    read = TracedItem("issue:read", PROJECT, "project:acme/web", Reason.GRANTED, kind, WEB.id)
    write = TracedItem("issue:write", PROJECT, "project:acme/web", Reason.PERMISSION_MISSING, kind, WEB.id)
    assert trace.sets == [
        TracedSet(Reason.PERMISSION_MISSING, (read, write)),
        TracedSet(Reason.GRANTED, (read,), min_role="member"),
    ]
    assert decision.used == (("issue:read", "project:acme/web"),)


@pytest.mark.parametrize(
    ("parameters", "first", "second"),
    [
        ({"id": "acme/web"}, None, Reason.TARGET_REQUIRED),
        ({"id": "acme/web", "other": "acme/none"}, None, Reason.TARGET_UNKNOWN),
        ({"other": "acme/web"}, Reason.TARGET_REQUIRED, None),
        ({"id": "acme/none"}, Reason.TARGET_UNKNOWN, Reason.TARGET_REQUIRED),
    ],
)
def test_without_a_target_nothing_else_is_looked_at(parameters: Any, first: Reason | None, second: Reason | None):
    decision, trace = asked(catalog(RequirementSet((item(ID), item(OTHER)))), builders.call(CALL, **parameters))
    [told] = trace.sets
    assert [one.reason for one in told.items] == [first, second]
    assert told.reason is decision.reason
    assert decision.reason in {first, second} - {None}
    places = [(one.target, one.node) for one in told.items]
    known = ("project:acme/web", WEB.id)
    assert places == [known if parameters.get(name) == "acme/web" else (None, None) for name in ("id", "other")]


def test_a_denial_for_its_target_says_the_target_that_was_given():
    target = Target(TargetKind.CALLER)
    decision, _ = asked(catalog(RequirementSet((item(target),))), builders.call(CALL, target="project:acme/none"))
    assert (decision.reason, decision.target) == (Reason.TARGET_UNKNOWN, "project:acme/none")


def test_what_may_lie_anywhere_has_no_place_and_what_lies_below_has_its_top():
    decision, trace = asked(catalog(RequirementSet((item(ANYWHERE), item(BELOW)))), builders.call(CALL, group="acme"))
    assert trace.sets == [
        TracedSet(
            Reason.GRANTED,
            (
                TracedItem("issue:read", PROJECT, None, Reason.GRANTED, TargetKind.ANYWHERE),
                TracedItem("issue:read", PROJECT, "group:acme", Reason.GRANTED, TargetKind.BELOW, ACME.id),
            ),
        )
    ]
    assert decision.used == (("issue:read", "anywhere"), ("issue:read", "group:acme"))


def test_what_anyone_may_read_rests_on_no_permission_of_the_token():
    open_to_all = RequirementSet((item(ID),))
    decision, trace = asked(catalog(open_to_all), builders.call(CALL, id="open/site"), "issue:write")
    assert (decision.reason, decision.used) == (Reason.GRANTED_PUBLIC_READ, ())
    assert decision.target == "project:open/site"
    assert trace.sets[0].items[0].reason is Reason.GRANTED_PUBLIC_READ


def test_an_absent_attribute_is_tried_with_each_value_and_with_another():
    reading = RequirementSet((item(ID),))
    shut = RequirementSet((item(ID, "issue:write"),), when=(("resource.state", "shut"),))
    found = catalog(reading, shut)
    call = builders.call(CALL, id="acme/web")
    decision, trace = asked(found, call, "issue:read", "issue:write")
    assert decision.used == (("issue:read", "project:acme/web"), ("issue:write", "project:acme/web"))
    assert [(one.when, one.assumed) for one in trace.sets] == [
        ((), (("resource.state", "another"),)),
        (shut.when, (("resource.state", "shut"),)),
    ]
    decision, trace = asked(found, call)
    assert (decision.reason, decision.absent, decision.used) == (Reason.ATTRIBUTE_MISSING, ("resource.state",), ())


def test_a_given_attribute_is_tried_once():
    shut = RequirementSet((item(ID),), when=(("resource.state", "shut"),))
    request = Request(
        "forge", builders.call(CALL, id="acme/web").ask, builders.NOW, attributes={"resource.state": "shut"}
    )
    decision, trace = asked(catalog(shut), request)
    assert decision.allowed
    assert [one.assumed for one in trace.sets] == [()]


def test_values_that_are_equal_and_of_other_types_are_tried_each():
    """1 and `true` are one key of a dictionary."""
    sets = [
        RequirementSet((item(ID, "issue:write"),), when=(("resource.flag", 1),)),
        RequirementSet((item(ID),), when=(("resource.flag", True),)),
        RequirementSet((item(ID),)),
    ]
    decision, trace = asked(catalog(*sets), builders.call(CALL, id="acme/web"))
    assert (decision.reason, decision.absent) == (Reason.ATTRIBUTE_MISSING, ("resource.flag",))
    assert [one.assumed for one in trace.sets] == [
        (("resource.flag", "another"),),
        (("resource.flag", "True"),),
        (("resource.flag", "1"),),
    ]


def test_a_line_that_breaks_off_is_told_with_the_token_that_is_not_there():
    gone = TokenId("tok_gone")
    token = builders.token(DANA[0], builders.scope(on=(ACME,)), parent=gone)
    world = MemoryWorld(builders.rows(catalog(), DANA, ACME, WEB, token, members=((DANA[0], ACME, "member"),)))
    decision, trace = explain(token, world, builders.ask())
    assert (decision.reason, decision.failed_token) == (Reason.TOKEN_REVOKED, gone)
    assert [(one.token, one.reason) for one in trace] == [(token.id, Reason.GRANTED), (gone, Reason.TOKEN_REVOKED)]
