import pytest
from tests.support.managing import SINGLE_OWNER, scope, staged


@pytest.fixture
async def stage(database_url):
    async with staged(database_url) as running:
        yield running


async def reader(stage) -> str:
    return (await stage.give("eve", scope("authz", "instance", "catalog:read")))[1]


async def test_anybody_may_be_given_to_read_the_catalogs(stage):
    secret = await reader(stage)
    items = (await stage.call("GET", "/v1/catalogs", secret)).json()["items"]
    assert {item["name"] for item in items} >= {"authz", "gitlab"}
    other = (await stage.give("root", scope("authz", "instance", "token:read")))[1]
    for path in ("/v1/catalogs", "/v1/catalogs/gitlab", "/v1/catalogs/gitlab/operations"):
        assert (await stage.call("GET", path, other)).status_code == 403
        assert (await stage.call("GET", path)).status_code == 401


async def test_an_installed_catalog_stands_beside_those_that_are_shipped(stage):
    secret = await reader(stage)
    await stage.install(SINGLE_OWNER, "hub")
    await stage.install(SINGLE_OWNER.replace("version: 1", "version: 2"), "hub", 2)
    [hub] = [
        item for item in (await stage.call("GET", "/v1/catalogs", secret)).json()["items"] if item["name"] == "hub"
    ]
    assert (hub["versions"], hub["newest"], hub["single_owner"], hub["permissions"]) == ([2, 1], 2, True, 4)
    assert (await stage.call("GET", "/v1/catalogs/hub", secret)).json()["version"] == 2
    former = (await stage.call("GET", "/v1/catalogs/hub@1", secret)).json()
    assert former["version"] == 1
    permissions = {one["name"]: one for part in former["categories"] for one in part["permissions"]}
    assert permissions["contents:write"]["implies"] == ["contents:read"]
    assert permissions["members:read"]["boundaries"] == [{"boundary": "group", "min_role": None}]


async def test_a_catalog_shows_all_its_permissions_by_category(stage):
    shown = (await stage.call("GET", "/v1/catalogs/gitlab", await reader(stage))).json()
    assert sum(len(part["permissions"]) for part in shown["categories"]) == shown["permissions"]
    assert {role["name"] for role in shown["roles"]} >= {"guest", "owner"}
    assert {one["name"] for one in shown["legacy_scopes"]} >= {"api", "read_api"}


async def test_operations_come_in_complete_pages(stage):
    secret = await reader(stage)
    found, cursor = [], ""
    while True:
        page = (await stage.call("GET", f"/v1/catalogs/gitlab/operations?limit=100{cursor}", secret)).json()
        found += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert len(found) == len(set(found)) == page["total"]


async def test_operations_are_searched_and_found_by_permission(stage):
    secret = await reader(stage)
    path = "/v1/catalogs/gitlab@1/operations"
    named = (await stage.call("GET", f"{path}?q=PIPELINE&limit=200", secret)).json()
    assert named["items"]
    assert all("pipeline" in (item["id"] + item["summary"]).lower() for item in named["items"])
    unlocked = (await stage.call("GET", f"{path}?permission=job:run&limit=200", secret)).json()
    assert unlocked["items"]
    for item in unlocked["items"]:
        assert "job:run" in [one["permission"] for needed in item["needs"] for one in needed["all_of"]]
    assert (await stage.call("GET", f"{path}?permission=job:fly", secret)).json()["items"] == []


async def test_unknown_catalogs_are_404_and_odd_parameters_400(stage):
    secret = await reader(stage)
    for name in ("nope", "gitlab@900", "gitlab@x", "gitlab@", "%00", "@1"):
        assert (await stage.call("GET", f"/v1/catalogs/{name}", secret)).status_code == 404, name
    cursor = (await stage.call("GET", "/v1/catalogs/gitlab/operations?limit=1", secret)).json()["next_cursor"]
    await stage.install(SINGLE_OWNER, "hub")
    for query in (f"hub/operations?cursor={cursor}", "gitlab/operations?kind=soap", "gitlab/operations?limit=0"):
        assert (await stage.call("GET", f"/v1/catalogs/{query}", secret)).status_code == 400, query
