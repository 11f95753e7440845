"""Every case of `tests/cases`, put to every evaluator."""

from __future__ import annotations

import inspect

import pytest
from tests.conformance.evaluators import EVALUATORS, Evaluator
from tests.support.case_rows import token_id
from tests.support.cases import Case, load_cases

ASKED = [
    pytest.param(evaluator, case, id=f"{evaluator.name}-{case.id}")
    for evaluator in EVALUATORS
    for case in load_cases()
    if evaluator.takes(case)
]


@pytest.mark.parametrize(("evaluator", "case"), ASKED)
async def test_a_case_is_decided_as_it_says(evaluator: Evaluator, case: Case):
    decision = evaluator.decide(case)
    if inspect.isawaitable(decision):
        decision = await decision
    expected = case.expected
    assert decision.reason == expected.reason
    assert decision.allowed is expected.allowed
    assert decision.missing == expected.missing
    assert decision.hide is expected.hide
    assert decision.absent == expected.absent
    if not expected.allowed and case.question.secret is None and case.question.user is None:
        assert decision.failed_token == token_id(expected.failed or case.question.token)
