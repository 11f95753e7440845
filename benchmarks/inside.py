"""Decisions without a socket: this service's look-up and engine, and engines that come as a library."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from authz_service.app import create_app
from authz_service.cache.clock import elapsed
from authz_service.config import load_settings
from authz_service.engine.decide import decide
from authz_service.engine.model import PermissionRequest, Request
from authz_service.pdp.question import Ask as ServiceAsk
from authz_service.pdp.question import Question
from benchmarks.documents import make_documents
from benchmarks.oracle import Ask
from benchmarks.peers.casbin import make_casbin
from benchmarks.peers.cedar import make_cedar
from benchmarks.service import Stored, check_requests
from benchmarks.workload import CATALOG, Batch, Workload

Arguments = tuple[Any, ...]
_AT_ONCE = 50


@dataclass
class Inside:
    """A function and what it is called with; `answers` are compared with `right` once."""

    name: str
    label: str
    call: Callable[..., Any]
    arguments: Sequence[Arguments]
    answers: Callable[[Any], list[Any]]
    right: Sequence[list[Any]]
    part: bool = False
    """Whether it is but a step of others, for the table of where the time goes; only whole answers are compared."""
    checked: int = 0
    wrong: int = 0
    rates: list[float] = field(default_factory=list)
    p50s: list[float] = field(default_factory=list)

    @property
    def per_call(self) -> int:
        return len(self.right[0])

    def cross_check(self) -> None:
        if self.answers is _none:
            return
        for arguments, right in zip(self.arguments, self.right, strict=True):
            found = self.answers(self.call(*arguments))
            self.checked += len(right)
            self.wrong += (
                sum(one != other for one, other in zip(found, right, strict=True))
                if len(found) == len(right)
                else len(right)
            )

    def run(self, seconds: float) -> None:
        """One stretch: as many calls as fit; then each alone for the median, with the clock's own cost in it."""
        call, arguments = self.call, self.arguments
        count = 0
        begin = time.perf_counter()
        while True:
            for each in arguments:
                call(*each)
            count += len(arguments)
            taken = time.perf_counter() - begin
            if taken >= seconds:
                break
        self.rates.append(count * self.per_call / taken)
        clock = time.perf_counter_ns
        times = []
        for each in arguments[:20_000]:
            start = clock()
            call(*each)
            times.append(clock() - start)
        times.sort()
        self.p50s.append(times[len(times) // 2] / 1e9)


@asynccontextmanager
async def own(workload: Workload, batches: Sequence[Batch], stored: Stored) -> AsyncIterator[list[Inside]]:
    """This service's application as it is composed, with all facts of the workload at hand."""
    app = create_app(load_settings(stored.keys.environment(stored.url)))
    async with app.router.lifespan_context(app):
        point, quick = app.state.services.point, app.state.quick
        facts = point.facts

        async def prepare(number: int, asks: Sequence[Ask]) -> None:
            secret = stored.tokens[number].secret
            for begin in range(0, len(asks), _AT_ONCE):  # what nobody has asked before is read from the database
                some = asks[begin : begin + _AT_ONCE]
                items = [ServiceAsk(PermissionRequest(ask.permission, ask.target)) for ask in some]
                await point.check(secret, Question(items, CATALOG))
                quick.learn(secret, CATALOG, [ask.target for ask in some])

        header = f"Bearer {stored.gateway.secret}".encode()
        caller = await point.authenticate(stored.gateway.secret)
        await point.require_may_ask(caller, CATALOG, [])
        quick.learn_caller(header, stored.gateway.secret)

        by_token: dict[int, list[Ask]] = {}
        for ask in [*workload.asks, *(ask for batch in batches for ask in batch.asks)]:
            by_token.setdefault(ask.token, []).append(ask)
        for number, asks in by_token.items():
            await prepare(number, asks)

        tokens = [facts.find_token(point.peppers.digest(issued.secret)) for issued in stored.tokens]
        now = point.follower.now()

        def ask_quick(secret: str, resource: str, action: str, target: str) -> bytes | None:
            known = quick.admit(header, secret, CATALOG)
            return None if known is None else quick.answer(known, CATALOG, resource, action, target)

        def ask_quick_all(secret: str, items: list[tuple[str, str, str]]) -> list[bytes] | None:
            known = quick.admit(header, secret, CATALOG)
            return None if known is None else quick.answer_all(known, CATALOG, items)

        def ask_engine(number: int, permission: str, target: str) -> Any:
            return decide(tokens[number], facts, Request(CATALOG, PermissionRequest(permission, target), now))

        hot = app.state.hot
        check = hot.routes[b"/check"]

        def admit(secret: str, *_: str) -> Any:
            return quick.admit(header, secret, CATALOG)

        def respond(body: bytes) -> bytes | None:
            found: bytes | None = hot.respond(check, header, None, body)
            return found

        right = [[answer] for answer in workload.answers]
        asked = [(stored.tokens[ask.token].secret, *_halves(ask), ask.target) for ask in workload.asks]
        ask_document, documents = make_documents(facts, tokens, workload.asks, now)
        yield [
            Inside(
                "quick",
                "authz-service, look-up",
                ask_quick,
                asked,
                lambda found: [_reason_in(found)],
                right,
            ),
            Inside("part_nothing", "calling a function that does nothing", nothing, asked, _none, right, part=True),
            Inside("part_clock", "reading the clock", lambda *_: elapsed(), asked, _none, right, part=True),
            Inside("part_admit", "token and caller: do both stand", admit, asked, _none, right, part=True),
            Inside(
                "part_respond",
                "the whole short way: body read, decided, counted, answer written",
                respond,
                [(post.body,) for post in check_requests(workload, stored)],
                lambda response: [_reason_in(response.partition(b"\r\n\r\n")[2])],
                right,
                part=True,
            ),
            Inside(
                "quick_batch",
                f"authz-service, look-up, batches of {len(batches[0].asks):,}",
                ask_quick_all,
                [
                    (stored.tokens[batch.token].secret, [(*_halves(ask), ask.target) for ask in batch.asks])
                    for batch in batches
                ],
                lambda found: [_reason_in(each) for each in found],
                [list(batch.answers) for batch in batches],
            ),
            Inside(
                "engine",
                "authz-service, rules from facts in memory",
                ask_engine,
                [(ask.token, ask.permission, ask.target) for ask in workload.asks],
                lambda decision: [decision.reason],
                right,
            ),
            Inside(
                "documents",
                "authz-service, GraphQL documents parsed and decided",
                ask_document,
                list(documents.values()),
                lambda judged: [judged[0].reason],
                [right[number] for number in documents],
            ),
        ]


def nothing(*_: Any) -> None:
    """What every row has in it: the loop and a call."""


def _none(found: Any) -> list[Any]:
    raise TypeError(found)


def libraries(workload: Workload) -> tuple[list[Inside], list[dict[str, str]]]:
    """The engines that are installed, and those that are not."""
    found: list[Inside] = []
    absent = []
    for name, label, make in (
        ("cedar", "Cedar (cedarpy)", make_cedar),
        ("casbin", "Casbin (pycasbin), fast enforcer", make_casbin),
    ):
        try:
            call = make(workload)
        except ImportError:
            absent.append({"name": name, "why": f"{label} is not installed"})
            continue
        arguments = [(ask,) for ask in workload.asks]
        right = [[allowed] for allowed in workload.allowed]
        found.append(Inside(name, label, call, arguments, lambda answer: [answer], right))
    return found, absent


def _halves(ask: Ask) -> tuple[str, str]:
    resource, _, action = ask.permission.partition(":")
    return resource, action


def _reason_in(encoded: bytes | None) -> str:
    """The reason of an encoded decision that has no revision yet."""
    import json

    return "none" if encoded is None else str(json.loads(encoded)["reason"])
