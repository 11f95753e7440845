"""AuthZEN beyond its certification: tokens as subjects, batches that stop, odd input, and what attackers try."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import pytest
from tests.support.managing import Stage, scope, staged

EVALUATION, EVALUATIONS = "/access/v1/evaluation", "/access/v1/evaluations"
SUBJECTS, RESOURCES, ACTIONS = (f"/access/v1/search/{what}" for what in ("subject", "resource", "action"))
POSTS = (EVALUATION, EVALUATIONS, SUBJECTS, RESOURCES, ACTIONS)
DANA = {"type": "user", "id": "dana"}
WEB = {"type": "job", "id": "acme/web"}
READ = {"name": "read"}


@pytest.fixture
async def stage(database_url):
    async with staged(database_url) as running:
        yield running


async def post(stage: Stage, path: str, body: Any, secret: str | None, **headers: str) -> httpx.Response:
    return await stage.call("POST", path, secret, body, headers={"Content-Type": "application/json"} | headers)


async def caller(stage: Stage, *catalogs: str) -> str:
    held = scope("authz", "instance", "decision:evaluate")
    return (await stage.give("root", held, evaluates=catalogs or ("gitlab",)))[1]


async def token(stage: Stage, *permissions: str, nodes: tuple[str, ...] = ("group:acme",), **more: Any):
    reach = await stage.scope_at("gitlab", nodes, *(permissions or ("job:read",)))
    public, secret = await stage.give("dana", reach, catalogs={"gitlab": 2}, **more)
    return {"type": "token", "id": public}, secret


async def told(stage: Stage, secret: str, path: str = EVALUATION, **body: Any) -> Any:
    answer = await post(stage, path, body, secret)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_token_is_asked_about_by_its_public_id(stage):
    pep, (subject, secret) = await caller(stage), await token(stage)
    assert await told(stage, pep, subject=subject, action=READ, resource=WEB) == {"decision": True}
    assert await told(stage, pep, subject=subject, action={"name": "run"}, resource=WEB) == {"decision": False}
    shown = {"type": "token", "id": secret}
    assert await told(stage, pep, subject=shown, action=READ, resource=WEB) == {"decision": False}
    nobody = {"type": "token", "id": "tok_" + "0" * 22}
    assert await told(stage, pep, subject=nobody, action=READ, resource=WEB) == {"decision": False}


async def test_a_revoked_token_is_denied_by_its_id_too(stage):
    pep, (subject, secret) = await caller(stage), await token(stage)
    assert (await told(stage, pep, subject=subject, action=READ, resource=WEB))["decision"]
    assert (await stage.call("DELETE", "/v1/self?wait=true", secret)).status_code == 200
    assert not (await told(stage, pep, subject=subject, action=READ, resource=WEB))["decision"]


async def test_an_action_is_named_in_three_ways(stage):
    pep, (subject, _) = await caller(stage), await token(stage, "job:read", "repository:read")
    for action, resource in (
        ("read", {"type": "job", "id": "project:42"}),
        ("job:read", {"type": "project", "id": "acme/web"}),
        ("job:read", {"type": "project", "id": "42"}),
        ("GET", {"type": "route", "id": "/api/v4/projects/acme%2Fweb/jobs?scope=failed"}),
    ):
        assert (await told(stage, pep, subject=subject, action={"name": action}, resource=resource))["decision"], action
    for action, resource in (
        ("job:read", {"type": "group", "id": "acme/web"}),
        ("POST", {"type": "route", "id": "/api/v4/projects/acme%2Fweb/jobs"}),
        ("GET", {"type": "route", "id": "/api/v4/projects/44/jobs"}),
        ("GET", {"type": "route", "id": "/api/v4/projects/acme%2Fweb/../44/jobs"}),
        ("job:read", {"type": "project", "id": "../acme/web"}),
        (":", {"type": "project", "id": "acme/web"}),
        ("", {"type": "", "id": ""}),
    ):
        answer = await told(stage, pep, subject=subject, action={"name": action}, resource=resource)
        assert not answer["decision"], action


async def test_a_reason_comes_on_request_and_is_that_of_check(stage):
    pep, (subject, secret) = await caller(stage), await token(stage)
    why = {"authz": {"explain": True}}
    answer = await told(stage, pep, subject=subject, action={"name": "run"}, resource=WEB, context=why)
    body = {"token": secret, "resource": "job", "action": "run", "target": "acme/web", "catalog": "gitlab"}
    checked = (await stage.call("POST", "/check", pep, body)).json()
    assert checked.pop("decision") == "deny"
    assert answer == {"decision": False, "context": checked}
    stranger = await told(stage, pep, subject={"type": "ship", "id": "1"}, action=READ, resource=WEB, context=why)
    assert (stranger["decision"], set(stranger["context"])) == (False, {"message"})


async def test_a_batch_stops_where_its_semantic_says(stage):
    pep = await caller(stage)
    items = [{"resource": {"type": "job", "id": path}} for path in ("acme/web", "hidden/plan", "acme/tools/lint")]

    async def batch(semantic: str | None, *chosen: int) -> list[bool]:
        options = {} if semantic is None else {"options": {"evaluations_semantic": semantic, "other": 1}}
        asked = [items[at] for at in chosen]
        found = await told(stage, pep, EVALUATIONS, subject=DANA, action=READ, evaluations=asked, **options)
        assert set(found) == {"evaluations"}
        return [one["decision"] for one in found["evaluations"]]

    for semantic in (None, "execute_all"):
        assert await batch(semantic, 0, 1, 2) == [True, False, True]
    assert await batch("deny_on_first_deny", 0, 1, 2) == [True, False]
    assert await batch("deny_on_first_deny", 0, 2) == [True, True]
    assert await batch("permit_on_first_permit", 1, 0, 2) == [False, True]
    assert await batch("permit_on_first_permit", 1, 1) == [False, False]


async def test_an_item_with_a_fault_is_a_deny_that_stops_a_batch_too(stage):
    pep = await caller(stage)
    bad: list[Any] = [
        {}, [], None, 7, "text", {"resource": "job"}, {"resource": {"type": "job"}}, {"resource": {"id": []}},
        {"resource": WEB, "action": {"name": None}}, {"resource": WEB, "context": []},
        {"resource": WEB, "context": {"authz": {"catalog": "GitLab!"}}}, {"resource": WEB | {"properties": 1}},
    ]  # fmt: skip
    common = {"subject": DANA, "action": READ}
    found = await told(stage, pep, EVALUATIONS, **common, evaluations=[{"resource": WEB}, *bad])
    assert [one["decision"] for one in found["evaluations"]] == [True] + [False] * len(bad)
    assert all(one["context"]["error"]["faults"] for one in found["evaluations"][1:])
    stops = {"options": {"evaluations_semantic": "deny_on_first_deny"}}
    cut = await told(stage, pep, EVALUATIONS, **common, evaluations=[{"resource": WEB}, {}, {"resource": WEB}], **stops)
    assert [one["decision"] for one in cut["evaluations"]] == [True, False]


async def test_a_batch_may_ask_about_many_subjects_and_is_decided_at_one_revision(stage):
    pep, (subject, _) = await caller(stage), await token(stage)
    why = {"context": {"authz": {"explain": True}}}
    subjects = [
        subject,
        DANA,
        {"type": "user", "id": "eve"},
        {"type": "user", "id": "bob"},
        {"type": "user", "id": "42"},
    ]
    items = [{"subject": one} for one in subjects]
    found = (await told(stage, pep, EVALUATIONS, action=READ, resource=WEB, evaluations=items, **why))["evaluations"]
    assert [one["decision"] for one in found] == [True, True, False, False, False]
    reasons = [one["context"]["reason"] for one in found]
    assert reasons == ["granted", "granted", "owner_not_member", "owner_inactive", "owner_inactive"]
    assert len({one["context"]["revision"] for one in found}) == 1


async def test_what_the_directory_alone_knows_is_not_the_callers_to_say(stage):
    await stage.install(
        "catalog: forge\nversion: 1\nroles: {guest: , owner: [guest]}\ntop_role: owner\npermissions:\n"
        "  wiki: {write: {project: , when: {subject.role: owner}}}\n"
        "  page: {write: {project: , when: {context.trusted: true}}}\n"
        "  site: {write: {project: , when: {resource.archived: true}}}\n",
        "forge",
    )
    pep = await caller(stage, "forge")
    liar = DANA | {"properties": {"role": "owner", "admin": True, "state": "active"}}
    archived = {"type": "site", "id": "acme/web", "properties": {"archived": True}}
    wiki, page = {"type": "wiki", "id": "acme/web"}, {"type": "page", "id": "acme/web"}
    write = {"name": "write"}
    assert not (await told(stage, pep, subject=liar, action=write, resource=wiki))["decision"]
    assert not (await told(stage, pep, subject=DANA, action=write, resource=archived))["decision"]
    for context, decision in (({"trusted": True}, True), ({"trusted": 1}, False), ({"trusted": [True]}, False)):
        answer = await told(stage, pep, subject=DANA, action=write, resource=page, context=context)
        assert answer["decision"] is decision, context


@pytest.mark.parametrize("path", POSTS)
async def test_whoever_may_not_ask_learns_nothing_of_what_is_taken(stage, path):
    _, stranger = await token(stage)
    for secret, status in ((None, 401), ("azt_nonsense", 401), (stranger, 403)):
        for body in (b"", b"{", {"subject": DANA, "action": READ, "resource": WEB}):
            answer = await post(stage, path, body, secret, **{"X-Request-ID": "who-1"})
            assert (answer.status_code, answer.headers["x-request-id"]) == (status, "who-1")
    assert (await stage.call("GET", path, await caller(stage))).status_code == 405


@pytest.mark.parametrize("path", POSTS)
async def test_a_caller_asks_about_its_own_catalogs_alone(stage, path):
    body = {"subject": DANA, "action": READ, "resource": WEB, "context": {"authz": {"catalog": "gitlab"}}}
    assert (await post(stage, path, body, await caller(stage, "orders"))).status_code == 403
    everything = await caller(stage, "*")
    assert (await post(stage, path, body, everything)).status_code == 200
    answer = await post(stage, path, body | {"context": {}}, everything)
    assert (answer.status_code, answer.json()["faults"][0]["where"]) == (400, "/context/authz/catalog")
    unknown = body | {"context": {"authz": {"catalog": "nothing@3"}}}
    assert (await post(stage, path, unknown, everything)).status_code == 200


BAD_BODIES: tuple[Any, ...] = (
    b"", b"null", b"[]", b"7", b'"text"', b"{", b"\xff\xfe{}", b'{"a":1}{"b":2}', b'{"subject":{},"subject":{}}',
    b"[" * 20_000, b'{"a":' * 40 + b"1" + b"}" * 40, b'{"subject":{"type":"user","id":NaN}}',
    {"subject": [], "action": READ, "resource": WEB},
    {"subject": DANA, "action": "read", "resource": WEB},
    {"subject": DANA, "action": READ, "resource": {"type": 1, "id": {}}},
    {"subject": DANA | {"properties": []}, "action": READ, "resource": WEB},
    {"subject": DANA, "action": READ, "resource": WEB, "context": "now"},
    {"subject": DANA, "action": READ, "resource": WEB, "context": {"authz": []}},
    {"subject": DANA, "action": READ, "resource": WEB, "context": {"authz": {"explain": "yes"}}},
    {"subject": DANA, "action": READ, "resource": WEB, "context": {"authz": {"client_address": "here"}}},
    {"subject": DANA | {"id": "x" * 5000}, "action": READ, "resource": WEB},
)  # fmt: skip


@pytest.mark.parametrize("path", POSTS)
async def test_what_cannot_be_read_is_a_400_with_its_faults(stage, path):
    pep = await caller(stage)
    for body in BAD_BODIES:
        answer = await post(stage, path, body, pep, **{"X-Request-ID": "bad-2"})
        named = body if isinstance(body, bytes) else json.dumps(body)
        if path in (SUBJECTS, RESOURCES) and isinstance(body, dict) and body.get("subject", {}) != DANA:
            assert answer.status_code in (200, 400), named  # the searched id is passed over
        elif path == ACTIONS and isinstance(body, dict) and body["action"] != READ:
            assert answer.status_code == 200, named  # there is no action to read
        else:
            assert answer.status_code == 400, named
            assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["x-request-id"] == "bad-2"


async def test_what_is_wrong_with_a_whole_batch_is_a_400(stage):
    pep = await caller(stage)
    good = {"subject": DANA, "action": READ, "evaluations": [{"resource": WEB}]}
    for more in (
        {"evaluations": {}}, {"evaluations": "all"}, {"evaluations": [{"resource": WEB}] * 10_001}, {"options": []},
        {"options": {"evaluations_semantic": "some"}}, {"options": {"evaluations_semantic": None}},
        {"options": {"evaluations_semantic": ["execute_all"]}}, {"subject": "dana"}, {"subject": {"type": 7}},
        {"action": {"name": []}}, {"context": 1}, {"context": {"authz": {"at_least": 5}}},
        {"context": {"authz": {"at_least": "yesterday"}}},
    ):  # fmt: skip
        assert (await post(stage, EVALUATIONS, good | more, pep)).status_code == 400, str(more)[:100]
    assert (await post(stage, EVALUATIONS, good, pep)).status_code == 200


async def test_headers_that_come_twice_are_refused(stage):
    pep = await caller(stage)
    body = json.dumps({"subject": DANA, "action": READ, "resource": WEB})
    kind, who = ("Content-Type", "application/json"), ("Authorization", f"Bearer {pep}")
    for headers, status in (
        ([kind, who], 200), ([kind, kind, who], 400), ([kind, who, who], 401), ([who], 400),
        ([kind, who, ("X-Request-ID", "one"), ("X-Request-ID", "two")], 200),
        ([kind, who, ("Content-Encoding", "gzip")], 400),
    ):  # fmt: skip
        answer = await stage.client.post(EVALUATION, content=body.encode(), headers=headers)
        assert answer.status_code == status, headers
        assert answer.headers["x-request-id"]


# Searches


async def found(stage: Stage, secret: str, path: str, page: Any = None, **body: Any) -> tuple[list[Any], str]:
    answer = await told(stage, secret, path, **body, **({} if page is None else {"page": page}))
    return answer["results"], answer["page"]["next_token"]


async def all_pages(stage: Stage, secret: str, path: str, limit: int, **body: Any) -> list[Any]:
    results, token_ = await found(stage, secret, path, {"limit": limit}, **body)
    while token_:
        more, token_ = await found(stage, secret, path, {"limit": limit, "token": token_}, **body)
        results += more
    return results


async def test_searches_say_what_evaluations_say(stage):
    """Every pair of a few subjects, places and actions: found when, and only when, it is allowed."""
    pep = await caller(stage)
    subjects = [(await token(stage, "job:read", "job:run"))[0], (await token(stage, nodes=("project:open/site",)))[0]]
    subjects += [{"type": "user", "id": name} for name in ("root", "dana", "olga", "eve", "bob")]
    paths = ("acme/web", "acme/tools/lint", "hidden/plan", "open/site", "dana/notes")
    allowed = set()
    for subject in subjects:
        items = [
            {"action": {"name": name}, "resource": {"type": "job", "id": path}}
            for name in ("read", "run")
            for path in paths
        ]
        answers = (await told(stage, pep, EVALUATIONS, subject=subject, evaluations=items))["evaluations"]
        allowed |= {
            (subject["id"], one["action"]["name"], one["resource"]["id"])
            for one, answer in zip(items, answers, strict=True)
            if answer["decision"]
        }
    assert 10 < len(allowed) < 60
    who, where, what = set(), set(), set()
    for name in ("read", "run"):
        action = {"name": name}
        for path in paths:
            for kind in ("token", "user"):
                body = {"subject": {"type": kind}, "action": action, "resource": {"type": "job", "id": path}}
                who |= {(one["id"], name, path) for one in await all_pages(stage, pep, SUBJECTS, 2, **body)}
        for subject in subjects:
            body = {"subject": subject, "action": action, "resource": {"type": "job"}}
            places = await all_pages(stage, pep, RESOURCES, 2, **body)
            where |= {(subject["id"], name, one["id"]) for one in places if one["id"] in paths}
    for subject in subjects:
        for path in paths:
            body = {"subject": subject, "resource": {"type": "job", "id": path}}
            names = [one["name"] for one in await all_pages(stage, pep, ACTIONS, 1, **body)]
            what |= {(subject["id"], name, path) for name in names if name in ("read", "run")}
    assert who >= allowed
    assert {one for one in who if one[0] in {subject["id"] for subject in subjects}} == allowed
    assert (where, what) == (allowed, allowed)


async def test_places_are_found_by_their_kind_and_whole_permissions(stage):
    pep, (subject, _) = await caller(stage), await token(stage, "job:read", "project:read")
    body = {"subject": subject, "action": {"name": "job:read"}, "resource": {"type": "project"}}
    results, _ = await found(stage, pep, RESOURCES, **body)
    assert {"type": "project", "id": "acme/web"} in results
    assert all(one["type"] == "project" for one in results)
    for one in results:
        assert (await told(stage, pep, subject=subject, action={"name": "job:read"}, resource=one))["decision"]
    names, _ = await found(stage, pep, ACTIONS, subject=subject, resource={"type": "project", "id": "acme/web"})
    assert {"name": "job:read"} in names
    routes, _ = await found(
        stage, pep, ACTIONS, subject=subject, resource={"type": "route", "id": "/api/v4/projects/acme%2Fweb/jobs"}
    )
    assert routes == [{"name": "GET"}, {"name": "HEAD"}]


async def test_a_page_token_goes_with_its_question_alone(stage):
    pep = await caller(stage)
    body = {"subject": {"type": "user"}, "action": READ, "resource": WEB}
    results, next_token = await found(stage, pep, SUBJECTS, {"limit": 1}, **body)
    assert len(results) == 1
    assert next_token
    again, _ = await found(stage, pep, SUBJECTS, {"token": next_token, "limit": 1000, "other": True}, **body)
    assert results[0] not in again
    other = body | {"resource": {"type": "job", "id": "acme/tools/lint"}}
    forged = base64.urlsafe_b64encode(json.dumps([json.loads(base64.b64decode(next_token + "==="))[0], "9"]).encode())
    for page, asked, path in (
        ({"token": next_token}, other, SUBJECTS), ({"token": next_token}, body, RESOURCES),
        ({"token": "x"}, body, SUBJECTS),
        ({"token": forged.decode()}, body, SUBJECTS), ({"token": 7}, body, SUBJECTS), ({"token": "é"}, body, SUBJECTS),
        ({"token": "A" * 9000}, body, SUBJECTS), ({"limit": -1}, body, SUBJECTS), ({"limit": "many"}, body, SUBJECTS),
        ({"limit": True}, body, SUBJECTS), ({"limit": 1.5}, body, SUBJECTS), ([], body, SUBJECTS),
    ):  # fmt: skip
        whole = dict(asked) if path == SUBJECTS else asked | {"subject": DANA}
        assert (await post(stage, path, whole | {"page": page}, pep)).status_code == 400, page
    assert await found(stage, pep, SUBJECTS, {"limit": 0}, **body) != (results, next_token)
    nothing, start = await found(stage, pep, SUBJECTS, {"limit": 0}, **body)
    assert nothing == []
    assert (await found(stage, pep, SUBJECTS, {"token": start, "limit": 1}, **body))[0] == results
    assert (await found(stage, pep, SUBJECTS, {"limit": 10**9}, **body))[0]


async def test_a_caller_of_one_group_finds_nothing_beyond_it(stage):
    at = await stage.scope_at("authz", ["group:acme"], "decision:evaluate")
    pep = (await stage.give("olga", at, evaluates=("gitlab",)))[1]
    await stage.apply({"type": "membership", "user": "dana", "node": "hidden", "role": "owner"})
    subject, _ = await token(stage, nodes=("group:acme", "group:hidden"))
    for who in (subject, DANA):
        assert (await told(stage, pep, subject=who, action=READ, resource=WEB))["decision"]
        why = {"context": {"authz": {"explain": True}}}
        beyond, nowhere = [
            await told(stage, pep, subject=who, action=READ, resource={"type": "job", "id": f"project:{number}"}, **why)
            for number in ("44", "4711")
        ]
        assert not beyond["decision"]
        assert {**beyond["context"], "message": ""} == {**nowhere["context"], "message": ""}
        places, _ = await found(stage, pep, RESOURCES, subject=who, action=READ, resource={"type": "job"})
        assert {one["id"] for one in places} == {"acme/web", "acme/tools/lint"}
        hidden = {"type": "job", "id": "hidden/plan"}
        assert await found(stage, pep, ACTIONS, subject=who, resource=hidden) == ([], "")
    for kind in ("user", "token"):
        answers = []
        for place in ("hidden/plan", "no/such"):
            body = {"subject": {"type": kind}, "action": READ, "resource": {"type": "job", "id": place}}
            answers.append(await found(stage, pep, SUBJECTS, {"limit": 1}, **body))
        assert answers == [([], ""), ([], "")]


async def test_what_was_asked_leaves_a_record_and_a_search_leaves_none(database_url, tmp_path):
    path = tmp_path / "decisions.jsonl"
    kept = {"decision_records": "all", "decision_records_sink": "file", "decision_records_file": path}
    async with staged(database_url, **kept) as stage:
        pep, (subject, secret) = await caller(stage), await token(stage)
        assert (await told(stage, pep, subject=subject, action=READ, resource=WEB))["decision"]
        assert (await told(stage, pep, subject=DANA, action=READ, resource=WEB))["decision"]
        assert (await found(stage, pep, SUBJECTS, subject={"type": "token"}, action=READ, resource=WEB))[0] == [subject]
        await stage.app.state.services.point.records.flush()
        lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(one["token_id"], one["decision"], one["target"]) for one in lines] == [
        (subject["id"], "allow", "acme/web"),
        (None, "allow", "acme/web"),
    ]
    assert secret not in path.read_text()


# Discovery


async def test_the_configuration_is_there_where_the_service_knows_its_url(database_url):
    async with staged(database_url) as stage:
        answer = await stage.call("GET", "/.well-known/authzen-configuration", headers={"Host": "evil.example"})
        assert answer.status_code == 404
        assert "evil" not in answer.text


async def test_the_configuration_never_believes_a_host(database_url):
    async with staged(database_url, public_url="https://authz.example.com") as stage:
        answer = await stage.call("GET", "/.well-known/authzen-configuration", headers={"Host": "evil.example"})
        assert answer.json()["access_evaluation_endpoint"] == "https://authz.example.com/access/v1/evaluation"
        assert "evil" not in answer.text
