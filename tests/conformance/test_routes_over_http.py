"""Every published REST route of GitLab, decided both ways over HTTP: with just what the facts say, and with nothing."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import httpx
from tests.support.managing import Stage, scope, staged

from authz_service.catalog.routes import make_router
from authz_service.store.shipped import shipped_catalogs

FACTS: Final = Path(__file__).parents[1] / "facts" / "gitlab_rest.csv"
PLACES: Final = {"project": "project:acme/web", "group": "group:acme", "user": "user:root", "instance": "instance"}
PARAMETERS: Final = re.compile(r"[:*](\w+)")
OPTIONAL: Final = re.compile(r"(?<!\\)\([^()]*\)")
NAMES_A_PLACE: Final = re.compile(r"/(?:security/)?(projects|groups?|namespaces)/:(\w+)(?=/|$)")
NAMES_A_USER: Final = re.compile(r"/users/:(\w+)|/projects/user/:(\w+)")
NUMBERS: Final = {"project": "42", "group": "12", "user": "1"}


def needs() -> dict[str, dict[str, tuple[str, ...]]]:
    """For each route: by boundary, the permissions that must all be held there."""
    found: dict[str, dict[str, tuple[str, ...]]] = defaultdict(dict)
    with FACTS.open() as lines:
        for row in csv.DictReader(lines):
            both = (row["permission"], row["also_requires"])
            found[row["operation"]][row["boundary"]] = tuple(name for name in both if name)
    return found


def choose(path: str, boundaries: Mapping[str, object]) -> tuple[str, dict[str, str], str | None]:
    """A boundary at which the route can be asked, its path's parameters, and the target where the path names none."""
    parameters = dict.fromkeys(PARAMETERS.findall(OPTIONAL.sub("", path)), "7")
    place, user = NAMES_A_PLACE.match(path), NAMES_A_USER.match(path)
    if place is not None and not path.startswith("/namespaces/:id/-/work_items"):
        kind = {"projects": "project", "namespaces": "group"}.get(place[1], "group")
        if kind in boundaries:
            return kind, parameters | {place[2]: NUMBERS[kind]}, None
        if "user" in boundaries and place[1] == "namespaces":
            return "user", parameters | {place[2]: "root"}, None
    boundary = next(each for each in ("instance", "user", "group", "project") if each in boundaries)
    if boundary == "user" and user is not None:
        parameters[user[1] or user[2]] = NUMBERS["user"]
    return boundary, parameters, PLACES[boundary]


async def give(stage: Stage, boundary: str, permissions: tuple[str, ...]) -> str:
    if boundary in ("user", "instance"):
        given = scope("gitlab", boundary, *permissions)
    else:
        given = await stage.scope_at("gitlab", [PLACES[boundary]], *permissions)
    return (await stage.give("root", given, catalogs={"gitlab": 2}))[1]


def hot_client(stage: Stage) -> httpx.AsyncClient:
    """Asks in the short way, where there is one for what is asked."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=stage.app.state.hot), base_url="http://service")


async def test_every_published_route_is_decided_both_ways(database_url):
    [gitlab] = [catalog for catalog in shipped_catalogs() if catalog.label == "gitlab@2"]
    router = make_router(gitlab)
    routes = needs()
    assert len(routes) == 1876
    tokens: dict[tuple[str, tuple[str, ...]], str] = {}
    async with staged(database_url) as stage, hot_client(stage) as hot:
        caller = (await stage.give("root", scope("authz", "instance", "decision:evaluate"), evaluates=("*",)))[1]
        nothing = (await stage.give("root", scope("gitlab", "user"), catalogs={"gitlab": 2}))[1]

        async def ask(
            operation: str, secret: str, parameters: Mapping[str, str], target: str | None
        ) -> dict[str, object]:
            method, _, path = operation.partition(" ")
            sent = router.format_target(operation, parameters)
            body = {"token": secret, "catalog": "gitlab", "method": method, "path": sent}
            body |= {} if target is None else {"target": target}
            answer = await stage.call("POST", "/check/http", caller, body)
            assert answer.status_code == 200, (operation, path, answer.text)
            again = await hot.post("/check/http", json=body, headers={"Authorization": f"Bearer {caller}"})
            assert again.content == answer.content, (operation, path)
            return answer.json()

        wrong = []
        for operation, boundaries in routes.items():
            boundary, parameters, target = choose(operation.partition(" ")[2], boundaries)
            permissions = boundaries[boundary]
            key = (boundary, permissions)
            if key not in tokens:
                tokens[key] = await give(stage, boundary, permissions)
            allowed = await ask(operation, tokens[key], parameters, target)
            denied = await ask(operation, nothing, parameters, target)
            if allowed["decision"] != "allow" or denied["decision"] != "deny":
                wrong.append((operation, boundary, allowed, denied))
            elif denied["reason"] != "permission_missing" or {each["permission"] for each in denied["missing"]} != set(
                permissions
            ):
                wrong.append((operation, boundary, "missing", denied))
        assert not wrong, (len(wrong), wrong[:10])
