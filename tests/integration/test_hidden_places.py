"""What a token may not know of is answered as what does not exist: in the same bytes, and after the same statements."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import pytest_asyncio
from sqlalchemy import event
from tests.support.managing import COMPANY, SINGLE_OWNER, Stage, body_of, scope, staged

from authz_service.tokens.model import Scope

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass(frozen=True)
class Pair:
    """Two texts of one length: one names what is hidden from the caller, the other nothing at all."""

    hidden: str
    unknown: str


PLACES = [
    Pair("group:hidden", "group:absent"),
    Pair("group:hidden/deep", "group:absent/deep"),
    Pair("hidden", "absent"),
    Pair("project:hidden/plan", "project:absent/plan"),
    Pair("project:hidden/plan", "project:hidden/none"),
    Pair("hidden/plan", "absent/plan"),
    Pair("project:eve/diary", "project:eve/never"),
    Pair("project:acme/lost", "project:acme/none"),
    Pair("group:14", "group:94"),
    Pair("project:44", "project:94"),
    Pair("GROUP:hidden", "GROUP:absent"),
]
"""`acme/lost` lies in a group that the caller sees, and cannot be seen: nothing of the kind exists there."""


@dataclass
class Scene:
    stage: Stage
    secret: str
    statements: list[str]

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[httpx.Response, int]:
        """The answer, and how many statements it took when nothing was remembered."""
        self.stage.app.state.services.point.facts.drop_all()
        await self.stage.call("GET", "/v1/self", self.secret)  # whoever asks is known
        before = len(self.statements)
        answer = await self.stage.call(method, path, self.secret, body)
        return answer, len(self.statements) - before


@contextmanager
def counting(stage: Stage) -> Iterator[list[str]]:
    found: list[str] = []

    def note(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        task = asyncio.current_task()
        if task is None or task.get_name().startswith("Task-"):  # what the service does by itself has names
            found.append(statement)

    engine = stage.database._engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    yield found
    event.remove(engine, "before_cursor_execute", note)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def scene(make_database):
    more = [
        {"type": "group", "path": "hidden/deep", "external_id": "16", "visibility": "private"},
        {"type": "project", "path": "eve/diary", "external_id": "47", "visibility": "private"},
    ]
    async with staged(make_database(), *COMPANY, *more) as stage:
        await stage.install(SINGLE_OWNER, "hub")
        with counting(stage) as statements:
            secret = (await stage.give("dana", *await everything(stage)))[1]
            scene = Scene(stage, secret, statements)
            for route in ROUTES.values():  # a catalog that is installed is read once, by whoever comes first
                await scene.ask(*route("group:acme"))
            yield scene


async def everything(stage: Stage) -> list[Scope]:
    names = ("token:create", "token:read", "token:revoke")
    return [
        scope("authz", "user", *names),
        await stage.scope_at("authz", ["group:acme"], *names, "directory:read"),
        await stage.scope_at("gitlab", ["group:acme"], "job:read"),
        await stage.scope_at("hub", ["group:acme"], "contents:read"),
    ]


def selecting(text: str) -> dict[str, Any]:
    return body_of(scopes=[{"reach": {"kind": "selected", "nodes": [text]}, "permissions": ["job:read"]}])


def owned_by(text: str) -> dict[str, Any]:
    wanted = {"reach": {"kind": "selected", "nodes": [text]}, "permissions": ["contents:read"]}
    return body_of(catalog="hub", resource_owner=text, scopes=[wanted])


def asked_of_itself(text: str) -> dict[str, Any]:
    return {"catalog": "gitlab", "resource": "job", "action": "read", "target": text}


ROUTES = {
    "select it for a token": lambda text: ("POST", "/v1/tokens", selecting(text)),
    "make it a resource owner": lambda text: ("POST", "/v1/tokens", owned_by(text)),
    "list tokens there": lambda text: ("GET", f"/v1/tokens?node={text}", None),
    "show it": lambda text: ("GET", f"/v1/directory/node?target={text}", None),
    "list what lies there": lambda text: ("GET", f"/v1/directory/nodes?under={text}", None),
    "check it": lambda text: ("POST", "/v1/self/check", asked_of_itself(text)),
    "check it among others": lambda text: (
        "POST",
        "/v1/self/check/batch",
        {"catalog": "gitlab", "items": [{"resource": "job", "action": "read", "target": text}]},
    ),
}


def seen(answer: httpx.Response, text: str) -> tuple[int, str, list[tuple[str, str]]]:
    """What a client can tell two answers apart by, but for its own words and the id of its request."""
    headers = sorted((name, value) for name, value in answer.headers.items() if name != "x-request-id")
    return answer.status_code, answer.text.replace(text, "…"), headers


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("pair", PLACES, ids=lambda pair: f"{pair.hidden} or {pair.unknown}")
async def test_a_hidden_place_is_answered_as_one_that_does_not_exist(scene: Scene, pair: Pair, route: str):
    hidden, of_hidden = await scene.ask(*ROUTES[route](pair.hidden))
    unknown, of_unknown = await scene.ask(*ROUTES[route](pair.unknown))
    assert seen(hidden, pair.hidden) == seen(unknown, pair.unknown)
    assert of_hidden == of_unknown


TOKEN_ROUTES = {
    "show it": lambda token: ("GET", f"/v1/tokens/{token}", None),
    "revoke it": lambda token: ("DELETE", f"/v1/tokens/{token}", None),
    "issue under it": lambda token: ("POST", "/v1/tokens", body_of(parent=token)),
    "list its children": lambda token: ("GET", f"/v1/tokens?owner=dana&parent={token}", None),
}


@pytest.mark.parametrize("route", TOKEN_ROUTES)
async def test_a_token_that_may_not_be_seen_is_answered_as_one_that_does_not_exist(scene: Scene, route: str):
    held = await scene.stage.scope_at("gitlab", ["group:hidden"], "job:read")
    hidden, _ = await scene.stage.give("eve", held)
    await scene.stage.give("eve", held, parent=hidden)
    unknown = "tok_0000000000000000000000"
    of_hidden, _ = await scene.ask(*TOKEN_ROUTES[route](hidden))
    of_unknown, _ = await scene.ask(*TOKEN_ROUTES[route](unknown))
    assert seen(of_hidden, hidden) == seen(of_unknown, unknown)
