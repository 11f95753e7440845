"""AuthZEN's published certification scenario for Authorization API 1.0, level by level, over HTTP.

The records are an ordinary catalog and directory of ours (`examples/authzen/`); nothing in the service knows of them.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from tests.support.managing import scope, staged

pytestmark = pytest.mark.asyncio(loop_scope="module")

EXAMPLE = Path(__file__).parents[2] / "examples" / "authzen"
BASE = "https://pdp.example.com"
ALICE, BOB = {"type": "user", "id": "alice"}, {"type": "user", "id": "bob"}
ADMIN = BOB | {"properties": {"role": "admin"}}
READ, WRITE = {"name": "read"}, {"name": "write"}
ONE, TWO = {"type": "record", "id": "record-1"}, {"type": "record", "id": "record-2"}
ARCHIVED = TWO | {"properties": {"status": "archived"}}
ACTIVE = ONE | {"properties": {"status": "active"}}
EVALUATION, EVALUATIONS = "/access/v1/evaluation", "/access/v1/evaluations"
SUBJECTS, RESOURCES, ACTIONS = (f"/access/v1/search/{what}" for what in ("subject", "resource", "action"))
CONTEXT = {"time": "2025-06-27T18:03-07:00", "ip": "192.168.1.1"}


class Harness:
    """Asks as the published harness does: JSON over HTTP, with a bearer token."""

    def __init__(self, client: httpx.AsyncClient, secret: str) -> None:
        self.client = client
        self.headers = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}

    async def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.client.post(path, content=content, headers=self.headers | headers)

    async def told(self, path: str, body: Any) -> Any:
        answer = await self.post(path, body)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/json"
        return answer.json()

    async def decide(self, subject: Any, action: Any, resource: Any, **more: Any) -> bool:
        told = await self.told(EVALUATION, {"subject": subject, "action": action, "resource": resource} | more)
        assert set(told) <= {"decision", "context"}
        assert isinstance(told["decision"], bool)
        return told["decision"]

    async def batch(self, body: Any) -> list[bool]:
        told = await self.told(EVALUATIONS, body)
        assert set(told) == {"evaluations"}
        return [one["decision"] for one in told["evaluations"]]

    async def find(self, path: str, body: Any) -> list[Any]:
        told = await self.told(path, body)
        assert isinstance(told["page"]["next_token"], str)
        return told["results"]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def harness(make_database) -> AsyncIterator[Harness]:
    lines = [json.loads(line) for line in (EXAMPLE / "directory.ndjson").read_text().splitlines()]
    pep = {"type": "user", "username": "pep", "admin": True}
    async with staged(make_database(), *lines, pep, public_url=BASE) as stage:
        await stage.install((EXAMPLE / "catalog.yaml").read_text(), "records")
        held = scope("authz", "instance", "decision:evaluate")
        _, secret = await stage.give("pep", held, evaluates=("records",))
        yield Harness(stage.client, secret)


# Basic Core


@pytest.mark.parametrize(
    ("subject", "action", "resource", "decision"),
    [(ALICE, READ, ONE, True), (ALICE, WRITE, ONE, True), (BOB, READ, ONE, True), (BOB, WRITE, ONE, False)],
)
async def test_basic_core_decides_by_identifiers_alone(harness: Harness, subject, action, resource, decision):
    for more in ({}, {"context": CONTEXT}):
        assert await harness.decide(subject, action, resource, **more) is decision


async def test_basic_core_takes_what_it_does_not_know(harness: Harness):
    subject = ALICE | {"properties": {"department": "Sales", "role": "manager"}}
    action = READ | {"properties": {"method": "GET"}}
    resource = ONE | {"properties": {"status": "active", "owner": "bob"}}
    assert await harness.decide(subject, action, resource)
    assert await harness.decide(ALICE, READ, ONE, foo="bar", futureField={"nested": True})


BAD = [
    {"action": READ, "resource": ONE},
    {"subject": ALICE, "resource": ONE},
    {"subject": ALICE, "action": READ},
    {"subject": {"id": "alice"}, "action": READ, "resource": ONE},
    {"subject": {"type": "user"}, "action": READ, "resource": ONE},
    {"subject": ALICE, "action": {}, "resource": ONE},
    {"subject": ALICE, "action": READ, "resource": {"id": "record-1"}},
    {"subject": ALICE, "action": READ, "resource": {"type": "record"}},
    {"subject": "alice", "action": READ, "resource": ONE},
    {"subject": ALICE, "action": {"name": 123}, "resource": ONE},
    b"",
    b"{",
    b"not json",
]


@pytest.mark.parametrize("body", BAD)
@pytest.mark.parametrize("path", [EVALUATION, EVALUATIONS])
async def test_basic_core_refuses_what_it_cannot_read(harness: Harness, path: str, body: Any):
    answer = await harness.post(path, body, **{"X-Request-ID": "bad-1"})
    assert answer.status_code == 400
    assert answer.headers["x-request-id"] == "bad-1"


@pytest.mark.parametrize("path", [EVALUATION, EVALUATIONS, SUBJECTS, RESOURCES, ACTIONS])
async def test_every_endpoint_takes_json_alone(harness: Harness, path: str):
    body = {"subject": ALICE, "action": READ, "resource": ONE}
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/jsonp"):
        assert (await harness.post(path, body, **{"Content-Type": kind})).status_code == 400
    assert (await harness.post(path, body, **{"Content-Type": "application/json; charset=utf-8"})).status_code == 200


async def test_basic_core_gives_the_request_id_back_and_the_same_answer(harness: Harness):
    body = {"subject": ALICE, "action": READ, "resource": ONE}
    given = await harness.post(EVALUATION, body, **{"X-Request-ID": "bfe9eb29-ab87-4ca3-be83-a1d5d8305716"})
    assert given.headers["x-request-id"] == "bfe9eb29-ab87-4ca3-be83-a1d5d8305716"
    answers = [await harness.post(EVALUATION, body) for _ in range(5)]
    assert {answer.content for answer in answers} == {b'{"decision":true}'}


# Basic Properties


@pytest.mark.parametrize(
    ("subject", "action", "resource", "decision"),
    [
        (ALICE, WRITE, ARCHIVED, False),
        (ADMIN, WRITE, ARCHIVED, True),
        (ALICE, {"name": "delete", "properties": {"soft": True}}, ONE, True),
        (ALICE, {"name": "delete", "properties": {"soft": False}}, ONE, False),
    ],
)
async def test_basic_properties_decides_by_properties(harness: Harness, subject, action, resource, decision):
    assert await harness.decide(subject, action, resource) is decision


# Batch Core


async def test_batch_core(harness: Harness):
    both = {"subject": ALICE, "action": READ, "evaluations": [{"resource": ONE}, {"resource": TWO}]}
    assert await harness.batch(both) == [True, True]
    ordered = {"subject": BOB, "resource": ONE, "evaluations": [{"action": READ}, {"action": WRITE}]}
    assert await harness.batch(ordered) == [True, False]
    whole = [{"subject": ALICE, "action": READ, "resource": ONE}, {"subject": BOB, "action": WRITE, "resource": ONE}]
    assert await harness.batch({"evaluations": whole}) == [True, False]
    inherited = both | {"context": {"time": "2025-06-27T18:03-07:00"}}
    inherited["evaluations"] = [{"resource": ONE}, {"resource": TWO, "context": {"source": "batch-override"}}]
    assert await harness.batch(inherited) == [True, True]


async def test_batch_core_denies_an_item_that_has_a_fault_and_no_other(harness: Harness):
    body = {"subject": ALICE, "action": READ, "evaluations": [{"resource": ONE}, {}]}
    told = (await harness.told(EVALUATIONS, body))["evaluations"]
    assert [one["decision"] for one in told] == [True, False]
    assert told[1]["context"]["error"]["status"] == 400


@pytest.mark.parametrize("more", [{}, {"evaluations": []}])
async def test_batch_core_without_evaluations_is_one_question(harness: Harness, more: Any):
    body = {"subject": ALICE, "action": READ, "resource": ONE} | more
    assert await harness.told(EVALUATIONS, body) == {"decision": True}


# Batch Properties


async def test_batch_properties(harness: Harness):
    resources = {"subject": ALICE, "action": WRITE, "evaluations": [{"resource": ACTIVE}, {"resource": ARCHIVED}]}
    assert await harness.batch(resources) == [True, False]
    subjects = {"action": WRITE, "resource": ARCHIVED, "evaluations": [{"subject": ALICE}, {"subject": ADMIN}]}
    assert await harness.batch(subjects) == [False, True]
    merged = {"subject": ALICE, "action": WRITE, "resource": {"type": "record"}}
    merged["evaluations"] = [
        {"resource": {"id": "record-1", "properties": {"status": "active"}}},
        {"resource": ARCHIVED},
    ]
    assert await harness.batch(merged) == [True, False]


# Search Core


async def test_search_core_finds_subjects(harness: Harness):
    body = {"subject": {"type": "user"}, "action": READ, "resource": ONE}
    for more in ({}, {"context": CONTEXT}, {"subject": {"type": "user", "id": "nobody"}}):
        found = await harness.find(SUBJECTS, body | more)
        assert [one for one in found if one in (ALICE, BOB)] == [ALICE, BOB]
        assert {one["type"] for one in found} == {"user"}


async def test_search_core_finds_resources(harness: Harness):
    for resource in ({"type": "record"}, {"type": "record", "id": "record-9"}):
        found = await harness.find(RESOURCES, {"subject": ALICE, "action": READ, "resource": resource})
        assert ONE in found
        assert {one["type"] for one in found} == {"record"}


async def test_search_core_finds_actions(harness: Harness):
    for more in ({}, {"context": CONTEXT}):
        found = await harness.find(ACTIONS, {"subject": ALICE, "resource": ONE} | more)
        assert READ in found
        assert WRITE in found


async def test_search_core_goes_page_by_page(harness: Harness):
    body = {"subject": {"type": "user"}, "action": READ, "resource": ONE, "page": {"limit": 1}}
    first = await harness.told(SUBJECTS, body)
    assert len(first["results"]) == 1
    found, token = first["results"], first["page"]["next_token"]
    while token:
        page = await harness.told(SUBJECTS, body | {"page": {"token": token}})
        found, token = found + page["results"], page["page"]["next_token"]
    assert [one for one in found if one in (ALICE, BOB)] == [ALICE, BOB]


async def test_search_core_finds_nothing_for_strangers(harness: Harness):
    nobody = {"type": "user", "id": "nonexistent-user"}
    assert await harness.find(ACTIONS, {"subject": nobody, "resource": ONE}) == []
    ship = {"subject": {"type": "spaceship"}, "action": READ, "resource": ONE}
    assert await harness.find(SUBJECTS, ship) == []
    assert await harness.find(RESOURCES, {"subject": ALICE, "action": READ, "resource": {"type": "spaceship"}}) == []
    assert await harness.find(ACTIONS, {"subject": ALICE, "resource": {"type": "spaceship", "id": "1"}}) == []


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (SUBJECTS, {"subject": {"type": "user"}, "resource": ONE}),
        (RESOURCES, {"action": READ, "resource": {"type": "record"}}),
        (ACTIONS, {"subject": ALICE}),
        (SUBJECTS, {"subject": {"type": "user"}, "action": READ, "resource": {"type": "record"}}),
        (RESOURCES, {"subject": {"type": "user"}, "action": READ, "resource": {"type": "record"}}),
    ],
)
async def test_search_core_refuses_what_lacks_a_part(harness: Harness, path: str, body: Any):
    assert (await harness.post(path, body)).status_code == 400


# Search Properties


async def test_search_properties(harness: Harness):
    writers = await harness.find(SUBJECTS, {"subject": {"type": "user"}, "action": WRITE, "resource": ARCHIVED})
    assert BOB in writers
    assert ALICE not in writers
    written = await harness.find(RESOURCES, {"subject": ADMIN, "action": WRITE, "resource": {"type": "record"}})
    assert written == [TWO]
    assert WRITE in await harness.find(ACTIONS, {"subject": ADMIN, "resource": ARCHIVED})


# Discovery


async def test_discovery(harness: Harness):
    answer = await harness.client.get("/.well-known/authzen-configuration")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    found = answer.json()
    assert found.pop("policy_decision_point") == BASE
    assert set(found) == {
        "access_evaluation_endpoint", "access_evaluations_endpoint", "search_subject_endpoint",
        "search_resource_endpoint", "search_action_endpoint",
    }  # fmt: skip
    for url in found.values():
        assert url.startswith(f"{BASE}/access/v1/")
        # Each is there: without a token it asks for one.
        assert (await harness.client.post(url.removeprefix(BASE), content=b"{}")).status_code == 401
