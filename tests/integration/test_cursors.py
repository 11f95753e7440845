"""Cursors that nobody wrote: told as such by every list, whatever stands in them."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from tests.support.managing import Stage, staged

CHANGE = {"catalog": "gitlab", "user": "dana", "node": "group:acme", "role": "developer"}
LATEST = "2099-01-01T00:00:00+00:00"
LISTS = [
    ("/v1/tokens", "newest", [LATEST, "{}"]),
    ("/v1/trust-rules?node=group:acme", "trust-rules", ["{}"]),
    ("/v1/webhooks", "webhooks", ["{}"]),
    ("/v1/simulate/change", "change", ["{}", "job:read", "1"]),
    ("/v1/simulate/change", "change", ["", "{}", "1"]),
    ("/v1/simulate/change", "change", ["", "", "{}"]),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(make_database) -> AsyncIterator[Stage]:
    async with staged(make_database()) as found:
        yield found


pytestmark = pytest.mark.asyncio(loop_scope="module")


def forged(*parts: str) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


async def ask(stage: Stage, path: str, cursor: str):
    admin = await stage.admin()
    if path.startswith("/v1/simulate"):
        return await stage.call("POST", path, admin, CHANGE | {"cursor": cursor})
    mark = "&" if "?" in path else "?"
    return await stage.call("GET", f"{path}{mark}cursor={cursor}", admin)


@pytest.mark.parametrize("odd", ["\0", "a\0b", "\ud800"])
@pytest.mark.parametrize(("path", "order", "parts"), LISTS)
async def test_a_text_that_no_table_could_hold_is_no_cursor(stage, path, order, parts, odd):
    answer = await ask(stage, path, forged(order, *(part.replace("{}", odd) for part in parts)))
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_input"), answer.text
    assert [fault["code"] for fault in answer.json()["faults"]] == ["invalid_cursor"]
    plain = await ask(stage, path, forged(order, *(part.replace("{}", "x") for part in parts)))
    assert plain.status_code == 200, plain.text


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2026-01-01T00:00:00"])
async def test_a_moment_beyond_all_is_no_cursor(stage, moment):
    answer = await ask(stage, "/v1/tokens", forged("newest", moment, "tok_x"))
    assert (answer.status_code, answer.json()["faults"][0]["code"]) == (400, "invalid_cursor"), answer.text
