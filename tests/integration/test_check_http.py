"""`/check/http`: from the bare request to its operation, its target and the decision."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.managing import Stage, scope, staged

FORGE = """
catalog: forge
version: 1
base_path: /api/v4
roles: {member: [], developer: [member]}
top_role: developer
targets: {/projects/:id: project, /groups/:id: group, /runners: caller, /runners/all: instance, /users/:user: user}
encoded_parameters: [file]
permissions:
  pipeline:
    read: {project: GET /projects/:id/pipelines, group: GET /groups/:id/pipelines}
    run: {project: POST /projects/:id/pipelines}
  file:
    read: {project: "GET /projects/:id/files/:file"}
  runner:
    read: {project: GET /runners/:runner, instance: GET /runners/all}
  key:
    read: {user: [GET /user/keys, GET /users/:user/keys]}
operations:
  GET /version: {open: true}
  POST /admin/reset: {closed: true}
"""


@pytest.fixture
async def stage(database_url):
    async with staged(database_url) as running:
        await running.install(FORGE, "forge")
        yield running


async def ask(stage: Stage, caller: str, secret: str, method: str, path: str, **more: Any) -> dict[str, Any]:
    body = {"token": secret, "catalog": "forge", "method": method, "path": path, **more}
    answer = await stage.call("POST", "/check/http", caller, body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def given(stage: Stage) -> tuple[str, str]:
    caller = (await stage.give("root", scope("authz", "instance", "decision:evaluate"), evaluates=("*",)))[1]
    at = await stage.scope_at("forge", ["group:acme"], "pipeline:read", "file:read", "runner:read")
    own = scope("forge", "user", "key:read")
    return caller, (await stage.give("dana", at, own))[1]


REQUESTS = [
    ("GET", "/api/v4/projects/42/pipelines", "granted"),
    ("GET", "/api/v4/projects/acme%2Fweb/pipelines", "granted"),
    ("GET", "/api/v4/projects/acme%2fweb/pipelines?page=2&x=..%2f", "granted"),
    ("HEAD", "/api/v4/projects/42/pipelines", "granted"),
    ("GET", "/api/v4/groups/acme/pipelines", "granted"),
    ("GET", "/api/v4/groups/acme%2Ftools/pipelines", "granted"),
    ("GET", "/api/v4/projects/42/files/src%2Fmain.py", "granted"),
    ("GET", "/api/v4/version", "granted_open"),
    ("GET", "/api/v4/user/keys", "granted"),
    ("GET", "/api/v4/users/dana/keys", "granted"),
    ("GET", "/api/v4/users/7/keys", "granted"),
    ("GET", "/api/v4/users/olga/keys", "outside_reach"),
    ("POST", "/api/v4/projects/42/pipelines", "permission_missing"),
    ("GET", "/api/v4/projects/44/pipelines", "outside_reach"),
    ("GET", "/api/v4/projects/12/pipelines", "target_unknown"),
    ("GET", "/api/v4/groups/42/pipelines", "target_unknown"),
    ("GET", "/api/v4/projects/acme/web/pipelines", "operation_unknown"),
    ("GET", "/api/v4/runners/9", "target_required"),
    ("GET", "/api/v4/runners/all", "outside_reach"),
    ("POST", "/api/v4/admin/reset", "operation_closed"),
    ("DELETE", "/api/v4/projects/42/pipelines", "operation_unknown"),
    ("BREW", "/api/v4/projects/42/pipelines", "operation_unknown"),
    ("get", "/api/v4/projects/42/pipelines", "operation_unknown"),
    ("GET", "/projects/42/pipelines", "operation_unknown"),
    ("GET", "/api/v4/nothing", "operation_unknown"),
    ("GET", "/api/v4//projects/42/pipelines", "bad_path"),
    ("GET", "/api/v4/projects/42/../42/pipelines", "bad_path"),
    ("GET", "/api/v4/projects/42/%2e%2e/42/pipelines", "bad_path"),
    ("GET", "/api/v4/projects/42/pipelines/", "bad_path"),
    ("GET", "/api/v4/projects/acme%252Fweb/pipelines", "target_unknown"),
    ("GET", "/api/v4/projects/42%00/pipelines", "bad_path"),
    ("GET", "/api/v4/projects/42;x=1/pipelines", "bad_path"),
    ("GET", "/api/v4/projects\\42\\pipelines", "bad_path"),
    ("GET", "http://elsewhere/api/v4/projects/42/pipelines", "bad_path"),
    ("GET", "", "bad_path"),
    ("GET", "/api/v4/projects/42/pipelines" + "x" * 9000, "bad_path"),
]


async def test_a_bare_request_is_decided_by_its_operation_and_target(stage):
    caller, secret = await given(stage)
    found = [(method, path, (await ask(stage, caller, secret, method, path))["reason"]) for method, path, _ in REQUESTS]
    assert found == REQUESTS


async def test_a_target_that_the_path_does_not_name_comes_from_the_caller(stage):
    caller, secret = await given(stage)
    asked = [
        (target, (await ask(stage, caller, secret, "GET", "/api/v4/runners/9", target=target))["reason"])
        for target in ("acme/web", "hidden/plan", "group:acme", "nobody")
    ]
    assert asked == [
        ("acme/web", "granted"),
        ("hidden/plan", "outside_reach"),
        ("group:acme", "boundary_mismatch"),
        ("nobody", "target_unknown"),
    ]


async def test_a_deny_names_what_is_missing_and_where(stage):
    caller, secret = await given(stage)
    answer = await ask(stage, caller, secret, "POST", "/api/v4/projects/42/pipelines")
    assert answer["missing"] == [{"permission": "pipeline:run", "boundary": "project", "target": "project:acme/web"}]
    assert "`pipeline:run`" in answer["message"]


async def test_for_a_caller_of_one_group_a_place_beyond_does_not_exist(stage):
    _, secret = await given(stage)
    at = await stage.scope_at("authz", ["group:acme"], "decision:evaluate")
    caller = (await stage.give("olga", at, evaluates=("forge",)))[1]
    told = []
    for number in ("44", "4711"):
        body = {"token": secret, "catalog": "forge", "method": "GET", "path": f"/api/v4/projects/{number}/pipelines"}
        told.append((await stage.call("POST", "/check/http", caller, body)).json())
    assert told[0] == told[1]
    assert (told[0]["decision"], told[0]["reason"]) == ("deny", "target_unknown")


async def test_a_body_that_is_no_request_is_refused_at_its_place(stage):
    caller, secret = await given(stage)
    changes = [{"method": None}, {"path": 5}, {"resource": "x"}, {"target": []}, {"token": None}]
    for change in changes:
        body = {"token": secret, "catalog": "forge", "method": "GET", "path": "/api/v4/version"} | change
        answer = await stage.call("POST", "/check/http", caller, body)
        assert answer.status_code == 400
        assert [fault["where"] for fault in answer.json()["faults"]] == [f"/{next(iter(change))}"]


async def test_an_explanation_names_every_set_and_item(stage):
    caller, secret = await given(stage)
    answer = await ask(stage, caller, secret, "POST", "/api/v4/projects/42/pipelines", explain=True)
    token_id = answer["token_id"]
    assert answer["explanation"] == [
        {
            "token_id": token_id,
            "catalog": "forge@1",
            "reason": "permission_missing",
            "sets": [
                {
                    "reason": "permission_missing",
                    "needs": [
                        {
                            "permission": "pipeline:run",
                            "boundary": "project",
                            "target": "project:acme/web",
                            "reason": "permission_missing",
                        }
                    ],
                    "when": {},
                    "min_role": None,
                    "assumed": {},
                }
            ],
        }
    ]
    plain = await ask(stage, caller, secret, "POST", "/api/v4/projects/42/pipelines")
    assert plain == {name: value for name, value in answer.items() if name not in ("explanation", "fixes")}
    assert [step["permissions"] for fix in answer["fixes"] for step in fix["steps"]] == [["pipeline:run"]]
