"""Coverage, and the two reverse questions, by the API."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest
from tests.support.managing import Stage, scope, staged

HUB = """\
catalog: hub
version: 1
base_path: /api
words: {project: repository}
targets: {"/repos/{owner}/{repo}": project, /secrets: caller}
levels: [read, write]
permissions:
  contents:
    read: {project: "GET /repos/{owner}/{repo}/contents"}
    write: {aliases: "contents:push", project: "PUT /repos/{owner}/{repo}/contents"}
  workflow:
    write: project
  secret:
    read: {project: "GET /secrets/{id}"}
operations:
  PUT /repos/{owner}/{repo}/workflows: contents:write + workflow:write
  Mutation.createIssue: contents:write@project
  GET /version: {open: true}
"""


@pytest.fixture
async def stage(database_url):
    async with staged(database_url) as running:
        await running.install(HUB, "hub")
        yield running


async def reader(stage: Stage) -> str:
    return (await stage.give("eve", scope("authz", "instance", "catalog:read")))[1]


async def needs(stage: Stage, secret: str, name: str = "hub", **query: str):
    return await stage.call("GET", f"/v1/catalogs/{name}/needs?{urlencode(query)}", secret)


async def test_a_call_needs_what_the_catalog_says_in_words_and_with_its_own_place(stage):
    secret = await reader(stage)
    answer = await needs(stage, secret, method="PUT", path="/api/repos/acme/web/contents?ref=main")
    assert answer.status_code == 200
    found = answer.json()
    assert (found["catalog"], found["operation"]["id"]) == ("hub@1", "PUT /repos/{owner}/{repo}/contents")
    assert found["parameters"] == {"owner": "acme", "repo": "web"}
    assert found["operation"]["needs"] == [
        {
            "all_of": [
                {
                    "permission": "contents:write",
                    "boundary": "project",
                    "target": "project {owner}/{repo}",
                    "where": "the repository acme/web",
                }
            ],
            "when": {},
            "min_role": None,
        }
    ]
    assert (await needs(stage, secret, method="get", path="/api/version")).json()["operation"]["open"] is True
    assert (await needs(stage, secret, operation="Mutation.createIssue")).json()["operation"]["kind"] == "graphql"


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"method": "GET", "path": "/repos/acme/web/contents"}, 404),
        ({"method": "POST", "path": "/api/version"}, 404),
        ({"method": "GET", "path": "/api/repos/acme/%2e%2e/contents"}, 400),
        ({"method": "GET", "path": ""}, 400),
        ({"method": "GET"}, 400),
        ({"path": "/api/version"}, 400),
        ({}, 400),
        ({"method": "GET", "path": "/api/version", "operation": "Mutation.createIssue"}, 400),
        ({"operation": "Mutation.nothing"}, 404),
        ({"method": "GET", "path": "/api/version", "extra": "1"}, 400),
    ],
)
async def test_what_is_no_call_of_the_catalog_is_told_apart(stage, query, status):
    answer = await needs(stage, await reader(stage), **query)
    assert answer.status_code == status
    assert answer.json()["detail"]


async def test_a_permission_unlocks_calls_in_complete_pages_with_all_that_it_includes(stage):
    secret = await reader(stage)
    found, cursor = [], ""
    while True:
        path = f"/v1/catalogs/hub/permissions/contents:write/operations?limit=1{cursor}"
        page = (await stage.call("GET", path, secret)).json()
        found += [(item["id"], item["alone"], item["beside"]) for item in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert found == [
        ("GET /repos/{owner}/{repo}/contents", True, []),
        ("PUT /repos/{owner}/{repo}/contents", True, []),
        ("PUT /repos/{owner}/{repo}/workflows", False, [["workflow:write@project"]]),
        ("Mutation.createIssue", True, []),
    ]
    assert (page["total"], page["includes"]) == (4, ["contents:read"])
    former = await stage.call("GET", "/v1/catalogs/hub/permissions/contents:push/operations", secret)
    assert former.json()["permission"] == "contents:write"
    other = await stage.call("GET", f"/v1/catalogs/hub/permissions/workflow:write/operations?limit=1{cursor}", secret)
    assert other.status_code == 400
    unknown = await stage.call("GET", "/v1/catalogs/hub/permissions/content:write/operations", secret)
    assert unknown.status_code == 404
    assert "contents:write" in unknown.json()["detail"]


async def test_coverage_counts_what_can_be_decided_from_what(stage):
    secret = await reader(stage)
    found = (await stage.call("GET", "/v1/catalogs/hub/coverage", secret)).json()
    assert (found["permissions"], found["operations"]["total"]) == (4, 6)
    assert found["operations"]["bare"] == 3
    assert found["operations"]["needs_target"] == 2
    assert found["operations"]["open"] == 1
    assert set(found["by_kind"]) == {"rest", "graphql"}
    shipped = (await stage.call("GET", "/v1/catalogs/gitlab/coverage", secret)).json()
    parts = shipped["operations"]
    assert parts["bare"] + parts["needs_target"] + parts["open"] + parts["closed"] == parts["total"]


async def test_who_may_not_read_catalogs_is_told_nothing(stage):
    other = (await stage.give("root", scope("authz", "instance", "token:read")))[1]
    for path in ("coverage", "needs?operation=x", "permissions/contents:read/operations"):
        assert (await stage.call("GET", f"/v1/catalogs/hub/{path}", other)).status_code == 403
        assert (await stage.call("GET", f"/v1/catalogs/hub/{path}")).status_code == 401
        assert (await stage.call("GET", f"/v1/catalogs/none/{path}", await reader(stage))).status_code == 404


async def test_requests_of_a_shipped_api_are_found_by_their_paths(stage):
    secret = await reader(stage)
    for path, operation in (
        ("/api/v4/projects/acme%2Fweb/pipelines", "GET /projects/:id/pipelines"),
        ("/api/v4/projects/42/pipelines/7/jobs?scope[]=failed", "GET /projects/:id/pipelines/:pipeline_id/jobs"),
    ):
        answer = await needs(stage, secret, "gitlab@2", method="GET", path=path)
        assert answer.json()["operation"]["id"] == operation
