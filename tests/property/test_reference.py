"""The engine decides as the rules say: the same answers as the naive reference, in every drawn world."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, note
from hypothesis import strategies as st
from tests.property.drawn import DECISIONS, Drawn, decisions, draw, drawn_worlds
from tests.reference import naive
from tests.support.memory_world import decide_in

from authz_service.catalog.model import Permission
from authz_service.engine.case import open_case
from authz_service.engine.decide import explain
from authz_service.engine.model import Decision, PermissionRequest, Reason
from authz_service.engine.spot import Spot, has_spots, spot_at

SHARDS = 4
BEFORE_THE_ENGINE = {Reason.MALFORMED_TOKEN, Reason.SCHEMA_REQUIRED, Reason.BAD_DOCUMENT}
"""Given where the secret and the query are read: no rows can show them."""


def compared(decision: Decision) -> tuple[object, ...]:
    """All of a decision but `target`, which is for messages."""
    return (
        decision.allowed,
        decision.reason,
        decision.missing,
        decision.hide,
        decision.absent,
        decision.failed_token,
    )


@pytest.mark.parametrize("shard", range(SHARDS))
@given(number=st.integers(0, 2**32 - 1))
@decisions(DECISIONS // SHARDS)
def test_the_engine_decides_as_the_naive_reference_does(shard: int, number: int):
    drawn = draw(f"{shard}/{number}")
    for token, request in drawn.questions:
        expected = naive.decide(drawn.rows, token, request)
        found = decide_in(drawn.world, token, request)
        if compared(found) != compared(expected):
            note(f"{drawn}: {token} asks {request}")
            note(f"reference: {expected}")
            note(f"engine:    {found}")
        assert compared(found) == compared(expected)


def test_drawn_worlds_reach_every_reason_and_allow_about_half_the_time():
    reached: Counter[Reason] = Counter()
    for seed in range(80):
        reached.update(decision.reason for decision in draw(seed).decide())
    assert set(Reason) - set(reached) == BEFORE_THE_ENGINE
    allowed = sum(count for reason, count in reached.items() if reason.value.startswith("granted"))
    assert 0.4 < allowed / reached.total() < 0.6


@given(drawn=drawn_worlds())
@decisions(DECISIONS // 10)
def test_an_explanation_says_what_the_check_says(drawn: Drawn):
    """The verdict is the same, and the trace tells it: the last token asked is the one that failed, or all held."""
    for token_id, request in drawn.questions:
        token = drawn.world.token(token_id)
        if token is None:
            continue
        decision, trace = explain(token, drawn.world, request)
        assert decision == decide_in(drawn.world, token_id, request)
        assert trace[-1].reason == decision.reason or decision.allowed
        assert (
            all(traced.reason is not None and traced.reason.startswith("granted") for traced in trace)
            is decision.allowed
        )
        if not decision.allowed:
            assert trace[-1].token == decision.failed_token


@given(drawn=drawn_worlds())
@decisions(DECISIONS // 4)
def test_a_spot_answers_as_the_reference_does(drawn: Drawn):
    """What the hot path remembers of a place says of every permission what a bare check says; A1 is not in it."""
    for token_id, request in drawn.questions:
        token = drawn.world.token(token_id)
        ask = request.ask
        if token is None or not isinstance(ask, PermissionRequest) or ask.target is None:
            continue
        catalog = naive.catalog_of(drawn.rows, token, request.catalog)
        if catalog is None or request.version not in (None, catalog.version) or not has_spots(token, catalog):
            continue
        case = open_case(token, catalog, drawn.world, request)
        place = case.places.parse(ask.target)
        if place is None or naive.token_fault(drawn.rows, token, catalog, request) is not None:
            continue
        spot = spot_at(case, place)
        for permission in catalog.permissions:
            asked = replace(request, ask=PermissionRequest(permission.name, ask.target))
            note(f"{drawn}: {token_id} asks {asked}")
            check_spot(spot, permission, naive.decide(drawn.rows, token_id, asked))


def check_spot(spot: Spot, permission: Permission, decision: Decision) -> None:
    number = spot.numbers[permission.resource, permission.action]
    given = decision.reason in (Reason.PERMISSION_MISSING, Reason.OUTSIDE_REACH)
    assert bool(spot.allowed >> number & 1) is (decision.reason is Reason.GRANTED)
    assert bool(spot.deniable >> number & 1) is given
    if given:
        assert decision.failed_token is not None
        denial = spot.denial(number, permission.name, decision.failed_token)
        assert compared(denial) == compared(decision)
        assert denial.target == spot.text
