"""`GET /v1/directory/export`: a source's directory as the lines of an import."""

from __future__ import annotations

import json

import pytest
from tests.support.managing import COMPANY, Stage, scope, staged


@pytest.fixture
async def stage(database_url):
    async with staged(database_url) as running:
        yield running


async def export(stage: Stage, secret: str, **params: str) -> list[dict]:
    answer = await stage.call("GET", "/v1/directory/export", secret, params=params)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    assert answer.headers["x-authz-revision"].startswith("r1.")
    return [json.loads(line) for line in answer.content.splitlines()]


async def test_what_was_exported_is_imported_elsewhere_as_the_same_directory(stage, make_database):
    await stage.apply(
        {"type": "group", "path": "local"},
        {"type": "membership", "user": "dana", "node": "local", "role": "owner"},
        {"type": "project", "path": "acme/old", "external_id": "47", "attributes": {"tier": 1, "kind": "site"}},
        {"type": "user", "username": "dana2", "external_id": "70", "source": "other"},
        {"type": "user", "username": "dana", "external_id": "7", "same_as": "other:70", "namespace_id": "900"},
        {"type": "delete", "what": "project", "external_id": "46"},
    )
    lines = await export(stage, await stage.admin())
    assert {"type": "delete", "what": "project", "external_id": "46"} in lines
    assert {"type": "user", "username": "bot", "external_id": "11", "home": "group:12"} in lines
    url = make_database()
    other = {"type": "user", "username": "dana2", "external_id": "70", "source": "other"}
    async with staged(url, other, *lines) as second:
        admin = (await second.give("root", scope("authz", "instance", "directory:read")))[1]
        again = await export(second, admin)
    living = [line for line in lines if line["type"] != "delete"]
    assert again == living
    assert len(living) > len(COMPANY)


async def test_what_lost_its_name_has_none(stage):
    await stage.apply(
        {"type": "group", "path": "acme", "external_id": "99"},
        {"type": "project", "path": "acme/x", "external_id": "98"},
    )
    by_id = {line.get("external_id"): line for line in await export(stage, await stage.admin()) if "path" in line}
    assert (by_id["99"]["path"], by_id["98"]["path"]) == ("acme", "acme/x")
    assert by_id["12"]["path"] is None
    assert by_id["42"]["path"] is None, "what lies below it is reached by no path either"
    roles = [line for line in await export(stage, await stage.admin()) if line["type"] == "membership"]
    assert {"type": "membership", "user": "user:7", "node": "group:12", "role": "developer"} in roles


async def test_a_source_is_exported_alone(stage):
    await stage.apply({"type": "group", "path": "theirs", "external_id": "1", "source": "other"})
    admin = await stage.admin()
    assert [line["path"] for line in await export(stage, admin, source="other")] == ["theirs"]
    assert await export(stage, admin, source="none") == []
    assert "theirs" not in json.dumps(await export(stage, admin))
    answer = await stage.call("GET", "/v1/directory/export", admin, params={"source": "No such"})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_input")


async def test_only_an_admin_exports(stage):
    everywhere = scope("authz", "instance", "directory:read", "directory:import")
    refused = [
        (await stage.give("dana", everywhere))[1],
        (await stage.give("olga", await stage.scope_at("authz", ["group:acme"], "directory:read")))[1],
        (await stage.give("root", scope("authz", "instance", "directory:import")))[1],
    ]
    for secret in refused:
        answer = await stage.call("GET", "/v1/directory/export", secret)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert (await stage.call("GET", "/v1/directory/export")).status_code == 401
