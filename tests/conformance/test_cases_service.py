"""Every case of `tests/cases` in a real database, put to the decision point and to each way in over HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest
import pytest_asyncio
from tests.reference import naive
from tests.support.case_documents import documents_by_reference
from tests.support.case_rows import asked_user, rows_of, token_id
from tests.support.case_service import (
    CaseService,
    case_service,
    document,
    evaluation,
    http_call,
    is_bare,
    item,
    together,
)
from tests.support.cases import Case, load_cases

from authz_service.directory.model import NodeKind
from authz_service.engine.explain import HIDDEN_MESSAGE
from authz_service.engine.model import TOKEN_REASONS, Decision, Missing

# One service for the whole file, and one import for all cases in the same world.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def service(make_database):
    async with case_service(make_database()) as running:
        yield running


# The ways to ask. Each checks its answer itself: they do not all tell the same things.


async def ask_the_rows(service: CaseService, case: Case) -> None:
    """The reference, over what was read back: what the other ways are asked about is the case indeed."""
    asked = rows_of(case)
    assert service.rows is not None
    if case.question.graphql is not None:
        agree(case, documents_by_reference(case, replace(asked, rows=service.rows)))
        return
    agree(case, naive.decide(service.rows, asked.token, asked.request))


async def ask_the_decision_point(service: CaseService, case: Case) -> None:
    for _ in range(2):  # from the database, then from memory
        agree(case, await service.decide(case.question))


async def ask_check(service: CaseService, case: Case) -> None:
    body = service.body(case.question) | item(case.question)
    long = await service.post(service.long, "/check", body)
    agree_over_http(case, long)
    for _ in range(2):
        short = await service.post(service.hot, "/check", body)
        assert (short.status_code, short.content) == (long.status_code, long.content)


async def ask_batch(service: CaseService, case: Case) -> None:
    body = service.body(case.question) | {"items": [item(case.question)] * 2}
    for client in (service.long, service.hot, service.hot):
        answer = await service.post(client, "/check/batch", body)
        first, second = answer.json()["decisions"]
        assert first == second
        assert decision_of(first, answer) == told(case)


async def ask_check_http(service: CaseService, case: Case) -> None:
    call = http_call(case)
    assert call is not None
    agree_over_http(case, await service.post(service.long, "/check/http", service.body(case.question) | call))


async def ask_check_graphql(service: CaseService, case: Case) -> None:
    body = service.body(case.question) | document(case.question)
    answer = await service.post(service.long, "/check/graphql", body)
    agree_over_http(case, answer)
    for client in (service.long, service.hot):
        again = await service.post(client, "/check/graphql", body)
        assert (again.status_code, again.content) == (answer.status_code, answer.content)


async def ask_itself(service: CaseService, case: Case) -> None:
    secret = service.secret_of(case.question)
    body = {"catalog": service.body(case.question)["catalog"]} | item(case.question)
    answer = await service.post(service.long, "/v1/self/check", body, secret)
    if case.expected.reason in TOKEN_REASONS or dies_above(case):
        assert answer.status_code == 401
        return
    assert answer.status_code == 200
    if not case.expected.hide:
        assert decision_of(answer.json(), answer) == (*told(case)[:3], None, token_id(case.question.token))
        return
    assert (answer.json()["reason"], answer.json()["message"]) == ("target_unknown", HIDDEN_MESSAGE)
    nowhere = await service.post(service.long, "/v1/self/check", body | {"target": "project:no/such/place"}, secret)
    assert nowhere.content == answer.content
    assert {**nowhere.headers, "x-request-id": ""} == {**answer.headers, "x-request-id": ""}


async def ask_the_rows_of_users(service: CaseService, case: Case) -> None:
    """Of a user as such, over what was read back."""
    assert service.rows is not None
    user, catalog = asked_user(case, service.rows)
    decision = naive.decide_user(service.rows, user, catalog, rows_of(case).request)
    expected = case.expected
    assert (decision.reason, decision.missing, decision.hide) == (expected.reason, expected.missing, expected.hide)


async def ask_evaluation(service: CaseService, case: Case) -> None:
    for _ in range(2):
        answer = await service.post(service.long, "/access/v1/evaluation", evaluation(case))
        assert answer.status_code == 200, answer.text
        found = answer.json()
        said = found["context"] | {"decision": "allow" if found["decision"] else "deny"}
        assert decision_of(said, answer) == (*told(case)[:4], None)


Way = Callable[[CaseService, Case], Awaitable[None]]


def ways(case: Case) -> list[Way]:
    question = case.question
    if case.where == "rows":
        return []
    if question.user is not None:
        return [ask_the_rows_of_users] if evaluation(case) is None else [ask_the_rows_of_users, ask_evaluation]
    found: list[Way] = []
    if case.where == "everywhere" and question.secret is None:
        found.append(ask_the_rows)
    if question.permission is not None or question.operation is not None:
        found.append(ask_the_decision_point)
    if question.graphql is not None:
        found += [ask_the_decision_point, ask_check_graphql]
    if is_bare(question):
        found += [ask_check, ask_batch]
        if question.secret is None and question.client_address is None and not question.attributes:
            found.append(ask_itself)
    if http_call(case) is not None:
        found.append(ask_check_http)
    return found


CASES = together(case for case in load_cases() if ways(case))
ASKED = [pytest.param(case, way, id=f"{case.id}-{way.__name__}") for case in CASES for way in ways(case)]


@pytest.mark.parametrize(("case", "way"), ASKED)
async def test_a_case_is_decided_by_the_service_as_it_says(service: CaseService, case: Case, way: Way):
    await service.enter(case)
    await way(service, case)


async def test_every_way_is_asked_about_many_cases():
    asked = [way for case in CASES for way in ways(case)]
    for way, least in (
        (ask_the_rows, 150), (ask_the_decision_point, 150), (ask_check, 80), (ask_itself, 60), (ask_check_http, 40),
    ):  # fmt: skip
        assert asked.count(way) >= least, way.__name__


# What was expected, and what was told


def agree(case: Case, decision: Decision) -> None:
    expected = case.expected
    assert (decision.allowed, decision.reason) == (expected.allowed, expected.reason)
    assert (decision.missing, decision.hide, decision.absent) == (expected.missing, expected.hide, expected.absent)
    if not expected.allowed and case.question.secret is None:
        assert decision.failed_token == token_id(expected.failed or case.question.token)


def agree_over_http(case: Case, answer: httpx.Response) -> None:
    assert answer.status_code == 200, answer.text
    assert decision_of(answer.json(), answer) == told(case)


def told(case: Case) -> tuple[Any, ...]:
    """(decision, reason, missing, hide, token id) as API servers are told: `hide` with denials alone."""
    expected = case.expected
    known = None if case.question.secret else token_id(case.question.token)
    if expected.allowed:
        return "allow", expected.reason, (), None, known
    return "deny", expected.reason, expected.missing, expected.hide, known


def decision_of(found: Any, answer: httpx.Response) -> tuple[Any, ...]:
    missing = tuple(
        Missing(one["permission"], NodeKind(one["boundary"]), one["target"]) for one in found.get("missing", ())
    )
    known = found.get("token_id", answer.json().get("token_id"))
    return found["decision"], found["reason"], missing, found.get("hide"), known


def dies_above(case: Case) -> bool:
    """Whether a token above the one that asks has ended: it is none of ours then, whatever it asks."""
    asked = rows_of(case)
    token = naive.token_of(asked.rows, asked.token)
    above = set()
    while token is not None and token.parent is not None and token.id not in above:
        above.add(token.id)
        token = naive.token_of(asked.rows, token.parent)
        if token is None or naive.token_fault(asked.rows, token, None, asked.request) is not None:
            return True
    return False
