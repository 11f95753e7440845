from __future__ import annotations

import json
from collections.abc import Callable

import httpx
import pytest

from authz_service.client import (
    Answer,
    Ask,
    AsyncClient,
    Client,
    RefusedError,
    UndecidedError,
    UnreachableError,
)

ALLOW = {"decision": "allow", "reason": "granted", "token_id": "tok_x", "revision": "r1.0.1", "new_field": 1}
DENY = {
    "decision": "deny",
    "reason": "permission_missing",
    "message": "the token lacks it",
    "missing": [{"permission": "job:run", "boundary": "project", "target": "project:acme/web"}],
    "hide": False,
}


def client(answer: Callable[[httpx.Request], httpx.Response] | httpx.Response) -> Client:
    """A client of a service that gives this answer."""
    handler = (lambda _: answer) if isinstance(answer, httpx.Response) else answer
    return Client("http://authz.test/", "azt_own", transport=httpx.MockTransport(handler))


def test_a_question_is_sent_as_the_token_s_own():
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json=ALLOW)

    assert client(answer).can("job:read", "acme/web").allowed
    [request] = seen
    assert str(request.url) == "http://authz.test/v1/self/check"
    assert request.headers["authorization"] == "Bearer azt_own"
    assert json.loads(request.content) == {"resource": "job", "action": "read", "target": "acme/web"}


def test_a_gateway_names_the_token_it_asks_about():
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"decisions": [ALLOW, DENY], "revision": "r1.0.1"})

    asks = [Ask.of("job:read", "acme/web"), Ask.of("job:run")]
    found = client(answer).check_all("azt_shown", asks, catalog="gitlab", fully_consistent=True)
    assert [one.allowed for one in found] == [True, False]
    assert json.loads(seen[0].content) == {
        "token": "azt_shown",
        "catalog": "gitlab",
        "fully_consistent": True,
        "items": [{"resource": "job", "action": "read", "target": "acme/web"}, {"resource": "job", "action": "run"}],
    }


def test_a_deny_is_an_answer_with_what_is_missing():
    answer = client(httpx.Response(200, json=DENY)).can("job:run", "acme/web")
    assert not answer.allowed
    assert answer.missing[0].permission == "job:run"


def test_an_answer_is_no_truth_value():
    with pytest.raises(TypeError, match="allowed"):
        bool(Answer("allow", "granted"))


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(200, text="<html>hello</html>"),
        httpx.Response(200, json={"decision": "maybe", "reason": "x"}),
        httpx.Response(200, json={"allowed": True}),
        httpx.Response(302, headers={"location": "http://elsewhere.test"}),
        httpx.Response(502, text="bad gateway"),
        httpx.Response(200, json=[]),
    ],
)
def test_what_this_service_would_not_say_is_no_answer(response):
    with pytest.raises(UnreachableError):
        client(response).can("job:read", "acme/web")


@pytest.mark.parametrize("body", [{"decision": "deny", "reason": "stale", "message": "old"}, {"code": "stale"}])
def test_a_service_that_cannot_decide_says_so_in_either_form(body):
    with pytest.raises(UndecidedError) as caught:
        client(httpx.Response(503, json=body, headers={"retry-after": "2"})).can("job:read", "x")
    assert (caught.value.reason, caught.value.retry_after) == ("stale", 2.0)


def test_a_refusal_carries_its_code_faults_and_request():
    problem = {
        "code": "invalid_body",
        "detail": "the body has a fault",
        "faults": [{"where": "/action", "code": "missing_field", "message": "add it"}],
    }
    with pytest.raises(RefusedError) as caught:
        client(httpx.Response(400, json=problem, headers={"x-request-id": "r-1"})).can("job:read", "x")
    error = caught.value
    assert (error.status, error.code, error.request_id) == (400, "invalid_body", "r-1")
    assert [fault.where for fault in error.faults] == ["/action"]


def test_no_connection_says_the_url_and_never_the_token():
    def answer(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with pytest.raises(UnreachableError) as caught:
        client(answer).can("job:read", "x")
    assert "http://authz.test" in caught.value.message
    assert "azt_own" not in str(caught.value) + repr(client(answer))


@pytest.mark.parametrize("text", ["job", "job:", ":read", "a:b:c", ""])
def test_what_is_no_permission_is_not_asked(text):
    with pytest.raises(ValueError, match="resource:action"):
        Ask.of(text)


def test_more_questions_than_a_batch_takes_are_not_sent():
    with pytest.raises(ValueError, match="10000"):
        client(httpx.Response(500)).can_all([Ask("a", "b")] * 10_001)


async def test_the_client_of_event_loops_asks_and_answers_alike():
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/self":
            return httpx.Response(200, json={"id": "tok_x", "owner": "dana"})
        return httpx.Response(200, json=DENY if b"run" in request.content else ALLOW)

    transport = httpx.MockTransport(answer)
    async with AsyncClient("http://authz.test", "azt_own", transport=transport) as asking:
        assert (await asking.whoami()).document["owner"] == "dana"
        assert (await asking.can("job:read")).allowed
        assert not (await asking.check("azt_shown", Ask.of("job:run"))).allowed
