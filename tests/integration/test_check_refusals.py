from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio
from tests.support.serving import Served, bearer, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

QUESTION = {"catalog": "gitlab", "resource": "job", "action": "read", "target": "bakery/shop/checkout"}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def served(make_database: Callable[..., str]) -> AsyncIterator[Served]:
    async with serving(make_database()) as found:
        yield found


async def post(served: Served, body: bytes | str, path: str = "/check", caller: str | None = None):
    return await served.http.post(path, content=body, headers=bearer(caller or served.tokens.gateway))


async def faults(served: Served, **given: object) -> dict[str, str]:
    """Where and what is wrong with a question, when it is refused."""
    answer = await served.check(**given)
    assert answer.status_code == 400, answer.text
    assert "decision" not in answer.json()
    return {fault["where"]: fault["code"] for fault in answer.json()["faults"]}


@pytest.mark.parametrize("path", ["/check", "/check/batch"])
async def test_without_a_token_nothing_is_said_of_the_body(served, path):
    for headers in ({}, {"Authorization": "Bearer azt_t1_nothing"}, {"Authorization": "Basic eDp5"}):
        answer = await served.http.post(path, content=b"{ no json", headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert "json" not in answer.text.lower()


async def test_two_authorization_headers_are_refused_whichever_is_good(served):
    good = ("Authorization", f"Bearer {served.tokens.gateway}")
    for headers in ([good, ("Authorization", "Bearer x")], [("Authorization", "Bearer x"), good], [good, good]):
        body = json.dumps(QUESTION | {"token": served.tokens.sample})
        assert (await served.http.post("/check", content=body, headers=headers)).status_code == 401


@pytest.mark.parametrize("path", ["/check", "/check/batch"])
async def test_who_may_not_ask_is_told_so_before_the_body_is_looked_at(served, path):
    for caller in (served.tokens.sample, served.tokens.admin, served.tokens.orders):
        answer = await post(served, b"{ no json", path, caller)
        assert answer.status_code == 403
        assert "decision:evaluate" in answer.json()["detail"]


async def test_every_fault_of_a_question_is_named_at_once(served):
    found = await faults(
        served,
        token=7,
        catalog="GitLab!",
        resource="",
        action=None,
        target=["x"],
        client_address="here",
        fully_consistent="yes",
        explian=True,
        attributes={"resource.visibility": "public", "what": 1, "context.a": None},
    )
    assert found == {
        "/token": "wrong_type",
        "/catalog": "invalid_value",
        "/resource": "out_of_range",
        "/action": "missing_field",
        "/target": "wrong_type",
        "/client_address": "invalid_value",
        "/fully_consistent": "wrong_type",
        "/explian": "unknown_field",
        "/attributes/resource.visibility": "reserved_attribute",
        "/attributes/what": "invalid_attribute",
        "/attributes/context.a": "wrong_type",
    }


@pytest.mark.parametrize(
    "name",
    ["subject.role", "subject.admin", "subject.state", "subject.external", "resource.visibility", "resource.archived"],
)
async def test_what_the_directory_alone_knows_cannot_be_given(served, name):
    assert await faults(served, attributes={name: "owner"}) == {f"/attributes/{name}": "reserved_attribute"}


async def test_attributes_of_other_names_are_taken(served):
    given = {"context.branch": "main", "resource.size": 3, "action.soft": True, "subject.team": "ovens"}
    assert (await served.check(attributes=given)).json()["decision"] == "allow"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"{}x",
        b'{"token": NaN}',
        b'{"token": "\xff"}',
        b'{"token": "\\ud800"}',
        b"\xef\xbb\xbf{}",
        b"[" * 1100 + b"]" * 1100,
        b'{"a":' * 1100 + b"1" + b"}" * 1100,
        b'{"attributes": ' + b"[" * 30_000,
    ],
    ids=lambda body: body[:16].decode("latin-1"),
)
async def test_what_is_no_plain_json_object_is_400(served, body):
    answer = await post(served, body)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert "decision" not in answer.json()


async def test_a_field_given_twice_is_refused_and_not_chosen_from(served):
    body = json.dumps(QUESTION | {"token": served.tokens.sample})
    answer = await post(served, body[:-1] + ', "action": "run"}')
    assert answer.status_code == 400
    assert answer.json()["faults"][0]["code"] == "duplicate_field"


async def test_a_body_of_65_kib_is_too_large_before_it_is_parsed(served):
    answer = await post(served, b" " * (65 * 1024))
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    under = json.dumps(QUESTION | {"token": served.tokens.sample}).encode()
    assert (await post(served, under.ljust(64 * 1024))).json()["decision"] == "allow"


async def test_a_batch_reads_more_than_a_single_question(served):
    body = json.dumps({"token": served.tokens.sample, "catalog": "gitlab", "items": [{"resource": "a", "action": "b"}]})
    assert (await post(served, body.encode().ljust(65 * 1024), "/check/batch")).status_code == 200
    assert (await post(served, b" " * ((4 << 20) + 1), "/check/batch")).status_code == 413


async def test_a_secret_in_the_query_is_refused_on_every_route(served):
    for path in ("/check", "/livez", "/v1/self", "/nowhere"):
        answer = await served.http.get(path, params={"t": served.tokens.sample})
        assert (answer.status_code, answer.json()["code"]) == (400, "secret_in_url")
        assert served.tokens.sample not in answer.text


async def test_other_methods_and_trailing_slashes_are_no_routes(served):
    assert (await served.http.get("/check", headers=bearer(served.tokens.gateway))).status_code == 405
    assert (await served.http.post("/check/", headers=bearer(served.tokens.gateway))).status_code == 404


async def test_a_problem_says_its_code_and_never_the_token(served):
    answer = await served.check(resource=served.tokens.sample + "x" * 64, caller=served.tokens.gateway)
    assert answer.status_code == 400
    assert answer.json()["code"] == "invalid_body"
    assert served.tokens.gateway not in answer.text
