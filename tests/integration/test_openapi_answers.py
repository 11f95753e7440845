"""Every operation of the OpenAPI document, asked what it allows and what it does not: no 5xx, and nothing undocumented.

Whatever another part adds to the document is asked too, as soon as it stands there.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tests.support.attacks import OWNERS
from tests.support.managing import ALL_AUTHZ, UPSTREAM, Stage, scope, staged
from tests.support.roles import OTHERS, ROLES, SPENT, TABLE, UNKNOWN, expected

from authz_service.app import create_app
from authz_service.config import Settings
from authz_service.tokens.model import Reach, ReachKind, Scope

# The service runs beside Hypothesis, in a thread of this process, and draws its own random numbers.
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module")

EXAMPLES = 6
"""For each operation, and as many that the document forbids: enough for the shapes, and all within a minute."""
SECONDS = 20
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
DOCUMENT = create_app(Settings()).openapi()
BOTH = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
ASKED = [
    pytest.param(f"{method.upper()} {path}", mode, id=f"{method.upper()} {path} {mode.value}")
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
    # What takes nothing forbids nothing.
    for mode in (BOTH if {"parameters", "requestBody"} & operation.keys() else BOTH[:1])
]
REFUSALS = (400, 401, 403, 404, 413)
SPENDS_THE_CALLER = ("/v1/self", "/oauth/revoke")
"""A call there may end the token that it is made with."""


@schemathesis.serializer("application/x-ndjson")
def write_lines(_: Any, value: Any) -> bytes:
    """What Schemathesis has no way to send by itself."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace")
    return b"\n".join(json.dumps(one).encode() for one in (value if isinstance(value, list) else [value]))


@dataclass
class Running:
    """A service behind a socket of its own, and the loop that its parts live in."""

    url: str
    stage: Stage
    loop: asyncio.AbstractEventLoop
    admin: str
    secrets: dict[str, str]
    """By role."""
    existing: dict[str, str]
    """By parameter of a path, what there is and belongs to the admin alone."""

    def fresh(self) -> str:
        return asyncio.run_coroutine_threadsafe(self.stage.admin(), self.loop).result(SECONDS)


@pytest.fixture(scope="module")
def running(make_database: Callable[..., str]) -> Iterator[Running]:
    started, stopping, found = threading.Event(), threading.Event(), []
    thread = threading.Thread(target=lambda: asyncio.run(serve(make_database(), started, stopping, found)))
    thread.start()
    assert started.wait(SECONDS)
    yield found[0]
    stopping.set()
    thread.join(SECONDS)


async def serve(url: str, started: threading.Event, stopping: threading.Event, found: list[Running]) -> None:
    async with staged(url, public_url="https://authz.example.com", webhook_private_hosts="localhost") as stage:
        config = uvicorn.Config(stage.app, host="127.0.0.1", port=0, lifespan="off", log_level="error")
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        loop = asyncio.get_running_loop()
        secrets, existing = await roles_of(stage), await things_of(stage)
        found.append(Running(f"http://127.0.0.1:{port}", stage, loop, await stage.admin(), secrets, existing))
        started.set()
        while not stopping.is_set():
            await asyncio.sleep(0.05)
        server.should_exit = True
        await serving


async def roles_of(stage: Stage) -> dict[str, str]:
    """A real token of each role; `nobody` shows none."""
    revoked, secret = await stage.give("root", scope("authz", "instance", *ALL_AUTHZ), evaluates=("*",))
    answer = await stage.call("DELETE", f"/v1/tokens/{revoked}", await stage.admin())
    assert answer.status_code == 200
    groups = await stage.scope_at("authz", ["group:acme"], *OWNERS)
    jobs = await stage.scope_at("gitlab", ["group:acme"], "job:read")
    own = scope("authz", "user", "token:create", "token:read", "token:edit")
    asks = scope("authz", "instance", "decision:evaluate")
    await stage.install(UPSTREAM, "orders")
    orders = Scope("orders", Reach(ReachKind.SELECTED, ("group:acme",)), ("order:read",))
    return {
        "admin": await stage.admin(),
        "owner": (await stage.give("olga", groups, jobs, own))[1],
        "developer": (await stage.give("dana", jobs, own))[1],
        "gateway": (await stage.give("root", asks, evaluates=("*",)))[1],
        "nothing": (await stage.give("eve", jobs))[1],
        "foreign": (await stage.give("nobody-here", orders, upstream=True))[1],
        "revoked": secret,
    }


async def things_of(stage: Stage) -> dict[str, str]:
    """A token that reaches where the others are not, with what hangs on it, and a webhook of the whole instance."""
    admin = await stage.admin()
    token, _ = await stage.give("root", await stage.scope_at("gitlab", ["group:hidden"], "job:read"))
    made = await stage.call("POST", "/v1/webhooks", admin, {"url": "https://localhost:1/"})
    assert made.status_code == 201, made.text
    return {"token_id": token, "webhook_id": made.json()["id"], "name": "orders"}


@pytest.fixture(scope="module")
def operations() -> dict[str, Any]:
    schema = schemathesis.openapi.from_dict(DOCUMENT)
    return {one.ok().label: one.ok() for one in schema.get_all_operations()}


@pytest.mark.parametrize(("label", "mode"), ASKED)
def test_an_operation_answers_as_the_document_says(
    running: Running, operations: dict[str, Any], label: str, mode: GenerationMode
):
    strategy = operations[label].as_strategy(generation_mode=mode)

    @given(case=strategy)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def ask(case: Any) -> None:
        spends = case.path.startswith(SPENDS_THE_CALLER) and case.method != "GET"
        secret = running.fresh() if spends else running.admin
        headers = {"Authorization": f"Bearer {secret}"}
        answer = case.call(base_url=running.url, headers=headers, timeout=SECONDS)
        case.validate_response(answer, checks=CHECKS, headers=headers)

    ask()


def test_every_operation_has_its_place_in_the_table_of_roles():
    labels = {f"{method.upper()} {path}" for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert {*TABLE, *SPENT} <= labels, "the table speaks of operations that there are no more"
    assert all(len(row) == len(ROLES) for row in (*TABLE.values(), OTHERS))


@pytest.mark.parametrize("role", [*ROLES, "revoked", "nobody"])
def test_no_role_gets_an_answer_that_is_not_for_it(running: Running, operations: dict[str, Any], role: str):
    """What is not a role's is a refusal, whatever is sent; without a token that counts it is 401 where one is due."""
    secret = running.secrets.get(role)
    headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}
    for label, operation in operations.items():
        if label not in SPENT:
            _ask_as(role, running, headers, label, operation)


def _ask_as(role: str, running: Running, headers: dict[str, str], label: str, operation: Any) -> None:
    secured = bool(operation.definition.raw.get("security"))
    turns = itertools.count()  # once about what was drawn, once about what there is

    @given(case=operation.as_strategy(generation_mode=GenerationMode.POSITIVE))
    @settings(
        max_examples=2,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def ask(case: Any) -> None:
        number = next(turns)
        for name in running.existing.keys() & (case.path_parameters or {}).keys() if number else ():
            case.path_parameters[name] = running.existing[name]
        answer = case.call(base_url=running.url, headers=headers, timeout=SECONDS)
        case.validate_response(answer, checks=CHECKS, headers=headers)
        told = (role, label, answer.status_code, answer.text[:500])
        if role in ROLES:
            assert expected(label, role) != "-" or answer.status_code in REFUSALS, told
            assert answer.status_code != 401 or not secured, told
        elif secured:
            assert answer.status_code in UNKNOWN.get(label, (400, 401, 413)), told

    ask()


def test_the_caller_still_stands_at_the_end(running: Running):
    """Else most answers above were a 401, and said nothing."""
    answer = asyncio.run_coroutine_threadsafe(
        running.stage.call("GET", "/v1/self", running.admin), running.loop
    ).result(SECONDS)
    assert answer.status_code == 200
