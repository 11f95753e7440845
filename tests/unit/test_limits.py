"""Budgets of management and of decisions: whose count is whose."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import Request
from tests.support.serving import PEPPER

from authz_service.admin.passwords import Attempts
from authz_service.api.check.counted import CountedHotPath
from authz_service.api.check.serving import Serving
from authz_service.api.limits import Limiter, Rates
from authz_service.config import load_settings
from authz_service.errors import OverloadedError, RateLimitedError, StartError
from authz_service.telemetry import Metrics
from authz_service.tokens.model import Token, TokenId

MANY = dict.fromkeys(("per_caller", "per_owner", "per_address", "searches", "imports"), 1_000_000)
SIMULATE = "/v1/simulate"


def limiter(**rates: int) -> Limiter:
    return Limiter(Rates(**(MANY | {"running": 1000, "running_per_caller": 1000} | rates)))


def request(
    path: str = "/v1/tokens",
    address: str = "10.0.0.1",
    method: str = "GET",
    secret: str = "s",
    authorization: str | None = None,
) -> Request:
    route = type("Route", (), {"path": path})()
    headers = [(b"authorization", (authorization or f"Bearer {secret}").encode("latin-1"))]
    scope: dict[str, Any] = {"type": "http", "method": method, "path": path, "headers": headers, "route": route}
    return Request(scope | {"client": (address, 1), "query_string": b"", "server": ("authz", 80), "scheme": "http"})


def caller(name: str = "a", owner: int = 1) -> Token:
    return Token(TokenId(f"tok_{name}"), owner, {"authz": 1})


def ask(limits: Limiter, who: Token | None = None, *, ends: bool = True, **given: str) -> Request:
    asked = request(**given)
    limits.enter(asked)
    if who is not None:
        try:
            limits.admit(asked, who)
        except RateLimitedError:
            limits.leave(asked)
            raise
    if ends:
        limits.leave(asked)
    return asked


def test_one_callers_flood_leaves_anothers_budget():
    limits = limiter(per_caller=5)
    for _ in range(5):
        ask(limits, caller("a"))
    with pytest.raises(RateLimitedError) as caught:
        ask(limits, caller("a"))
    assert 1 <= caught.value.retry_after <= 61
    ask(limits, caller("b"))


def test_an_owner_gains_nothing_by_more_tokens():
    limits = limiter(per_owner=4)
    for name in "abcd":
        ask(limits, caller(name, owner=7))
    with pytest.raises(RateLimitedError):
        ask(limits, caller("e", owner=7))
    ask(limits, caller("f", owner=8))


def test_an_address_is_counted_before_anybody_is_known_and_an_ipv6_network_is_one():
    limits = limiter(per_address=2)
    for _ in range(2):
        ask(limits, address="2001:db8::1")
    for address in ("2001:db8::2", "2001:db8::ffff:1"):
        with pytest.raises(RateLimitedError):
            ask(limits, address=address)
    ask(limits, address="2001:db8:0:1::1")
    ask(limits, address="10.0.0.1")
    ask(limits, address="::ffff:10.0.0.1")
    with pytest.raises(RateLimitedError):
        ask(limits, address="10.0.0.1")


def test_searches_and_imports_have_budgets_of_their_own():
    limits = limiter(searches=2, imports=1)
    for path in (SIMULATE, "/v1/tokens/{token_id}/effective"):
        ask(limits, caller(), path=path)
    with pytest.raises(RateLimitedError):
        ask(limits, caller(), path=SIMULATE)
    ask(limits, caller(), path="/v1/directory/import", method="POST")
    with pytest.raises(RateLimitedError):
        ask(limits, caller(), path="/v1/catalogs", method="POST")
    ask(limits, caller(), path="/v1/catalogs")
    ask(limits, caller("b"), path=SIMULATE)
    for _ in range(2):
        ask(limits, path="/access/v1/search/subject", secret="one")
    with pytest.raises(RateLimitedError):
        ask(limits, path="/access/v1/search/resource", secret="one")
    ask(limits, path="/access/v1/search/resource", secret="other")


def test_one_caller_holds_its_share_of_what_runs_at_once_and_gives_it_back():
    limits = limiter(running=4, running_per_caller=2)
    held = [ask(limits, caller("a"), ends=False) for _ in range(2)]
    with pytest.raises(RateLimitedError):
        ask(limits, caller("a"))
    held.append(ask(limits, caller("b"), ends=False))
    held.append(ask(limits, caller("c"), ends=False))
    with pytest.raises(OverloadedError):
        ask(limits, caller("d"))
    for one in held:
        limits.leave(one)
    for _ in range(10):
        ask(limits, caller("a"))


def test_a_request_that_asks_for_its_caller_twice_counts_once():
    limits = limiter(per_caller=1)
    asked = request()
    limits.enter(asked)
    limits.admit(asked, caller())
    limits.admit(asked, caller())
    limits.leave(asked)


def test_decisions_are_counted_by_nobody_here():
    limits = limiter(per_caller=1, running_per_caller=1)
    for _ in range(5):
        limits.admit(request(path="/check"), caller())


def test_a_share_that_is_more_than_everything_stops_the_start():
    with pytest.raises(StartError) as caught:
        load_settings({}, database_url="postgresql://u@h/d", peppers=f"t1:{PEPPER}", manage_running=10)
    assert {fault.where for fault in caught.value.faults} == {"AUTHZ_MANAGE_RUNNING_PER_CALLER"}


async def test_a_callers_decisions_are_refused_beyond_its_budget_and_anothers_are_not():
    answered: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        del receive, send
        answered.append(scope["path"])

    path = CountedHotPath(app, Serving(Metrics(), 1000, 1000), limit=3)

    async def status(secret: bytes, where: str = "/check/graphql") -> int | None:
        said: list[Any] = []

        async def send(message: Any) -> None:
            said.append(message)

        scope = {"type": "http", "method": "GET", "path": where, "query_string": b""}
        await path({**scope, "headers": [(b"authorization", secret)]}, None, send)  # type: ignore[arg-type]
        return said[0]["status"] if said else None

    # A window may end between two of them: then there is room again, and of 40 in a row most are refused all the same.
    found = [await status(b"Bearer one") for _ in range(40)]
    assert found[:3] == [None] * 3
    assert found.count(429) >= 30
    assert await status(b"Bearer other") is None
    assert [await status(b"Bearer one", "/v1/self") for _ in range(9)] == [None] * 9
    assert len(answered) == 40 - found.count(429) + 10


@pytest.mark.parametrize("written", ["bearer {}", "BEARER {}", "Bearer  {}", "Bearer {} ", "bEARER \xa0{}"])
async def test_a_caller_gains_nothing_by_another_spelling_of_its_header(written, monkeypatch):
    limits = limiter(searches=1)
    other = written.format("one")
    ask(limits, path="/access/v1/search/subject", secret="one")
    with pytest.raises(RateLimitedError):
        ask(limits, path="/access/v1/search/subject", authorization=other)
    ask(limits, path="/access/v1/search/subject", authorization=written.format("two"))

    async def app(*_: Any) -> None:
        pass

    said: list[Any] = []

    async def send(message: Any) -> None:
        said.append(message)

    monkeypatch.setattr("authz_service.api.check.counted.monotonic", lambda: 5.0)
    path = CountedHotPath(app, Serving(Metrics(), 1000, 1000), limit=1)
    for header in (b"Bearer one", other.encode("latin-1")):
        scope = {"type": "http", "method": "GET", "path": "/check/graphql", "headers": [(b"authorization", header)]}
        await path(scope, None, send)  # type: ignore[arg-type]
    assert [message["status"] for message in said if message["type"] == "http.response.start"] == [429]


def test_one_ipv6_network_fails_to_sign_in_no_oftener_than_one_address():
    attempts = Attempts()
    for number in range(30):
        address = f"2001:db8:0:1::{number + 1:x}"
        attempts.require_left(f"user{number}", address)
        attempts.note_failure(f"user{number}", address)
    with pytest.raises(RateLimitedError):
        attempts.require_left("dana", "2001:db8:0:1::ffff")
    attempts.require_left("dana", "2001:db8:0:2::1")
    attempts.require_left("dana", None)
