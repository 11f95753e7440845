"""One question put to two replicas in every way there is, and each answer compared with the naive reference."""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
from tests.reference import naive
from tests.support.answers import compared, read_answer, told, told_to_itself
from tests.support.pair import Pair, Side
from tests.support.stored_rows import Reading

from authz_service.engine.attributes import RESERVED
from authz_service.engine.explain import HIDDEN_MESSAGE
from authz_service.engine.model import TOKEN_REASONS, Decision, PermissionRequest, Request
from authz_service.pdp.check import DecisionPoint
from authz_service.pdp.question import Ask, Freshly, Question
from authz_service.store.changes import format_revision
from authz_service.tokens.model import TokenId
from authz_service.tokens.secret import new_secret

_ATTRIBUTE = re.compile(r"(subject|resource|action|context)\.[a-z][a-z0-9_]*")
LOCAL = "127.0.0.1"
"""Where the clients of these tests come from."""


@dataclass(frozen=True, eq=False)
class Asked:
    """A question about a token; `token` may be nobody's. Each is equal to itself alone."""

    token: TokenId
    request: Request

    @property
    def bare(self) -> bool:
        return isinstance(self.request.ask, PermissionRequest)

    @property
    def plain(self) -> bool:
        """Whether it is a part of a batch beside others: nothing is said with it."""
        return self.bare and not self.request.attributes and self.request.client_address is None

    @property
    def label(self) -> str:
        version = self.request.version
        return self.request.catalog if version is None else f"{self.request.catalog}@{version}"


def askable(token: TokenId, request: Request) -> Asked:
    """The question without what no body of `/check` can say."""
    attributes = {
        name: value for name, value in request.attributes.items() if name not in RESERVED and _ATTRIBUTE.fullmatch(name)
    }
    address = request.client_address if _is_address(request.client_address) else None
    return Asked(token, replace(request, attributes=attributes, client_address=address))


def _is_address(address: str | None) -> bool:
    try:
        return address is not None and bool(str(ipaddress.ip_address(address)))
    except ValueError:
        return False


@dataclass
class Interview:
    """Asks about one state of the world; a difference ends it, with everything that was seen in the message."""

    pair: Pair
    secrets: Mapping[TokenId, str]
    reading: Reading
    context: str = ""
    counts: Counter[str] = field(default_factory=Counter)
    _expected: dict[object, Decision] = field(default_factory=dict)

    @property
    def revision(self) -> str:
        return format_revision(self.reading.stamp)

    def expected(self, asked: Asked, **changes: Any) -> Decision:
        key = (asked, bool(changes))
        if key not in self._expected:
            request = replace(asked.request, now=self.reading.now, **changes)
            self._expected[key] = naive.decide(self.reading.rows, asked.token, request)
        return self._expected[key]

    def secret(self, token: TokenId) -> str:
        return self.secrets.get(token) or new_secret("azt", "k1").reveal()

    def known(self, token: TokenId) -> TokenId | None:
        """Its id in answers; a token that was purged is nobody's any more."""
        there = token in self.secrets and naive.token_of(self.reading.rows, token) is not None
        return token if there else None

    # ways

    async def single(self, side: Side, asked: Asked) -> None:
        """The long way, at least as fresh as the world; then twice what may be the short way, to the byte."""
        body = self.body(asked) | item_of(asked)
        long = await self._check(side, "/check", body | {"at_least": self.revision})
        self._compare(
            asked, side, "check", read_answer(long.json(), {}), told(self.expected(asked), self.known(asked.token))
        )
        for name in ("short", "short again"):
            short = await self._check(side, "/check", body, short=True)
            self._compare(asked, side, name, short.content, long.content)

    async def consistent(self, side: Side, asked: Asked) -> None:
        answer = await self._check(side, "/check", self.body(asked) | item_of(asked) | {"fully_consistent": True})
        self._compare(
            asked,
            side,
            "consistent",
            read_answer(answer.json(), {}),
            told(self.expected(asked), self.known(asked.token)),
        )

    async def batch(self, side: Side, questions: Sequence[Asked]) -> None:
        """Questions of one token and one catalog label, both ways."""
        first = questions[0]
        body = self.body(first) | {"items": [item_of(asked) for asked in questions]}
        long = await self._check(side, "/check/batch", body | {"at_least": self.revision})
        for asked, found in zip(questions, long.json()["decisions"], strict=True):
            expected = told(self.expected(asked), self.known(asked.token))
            self._compare(asked, side, "batch", read_answer(found, {}), expected)
        for name in ("short batch", "short batch again"):
            short = await self._check(side, "/check/batch", body, short=True)
            self._compare(first, side, name, short.content, long.content)

    async def itself(self, side: Side, asked: Asked) -> None:
        """Asked by the token; what is hidden is answered in the bytes of what does not exist."""
        if asked.token not in self.secrets:
            return
        secret = self.secrets[asked.token]
        body = {"catalog": asked.label, "at_least": self.revision} | item_of(asked)
        body.pop("attributes", None)
        answer = await side.call("POST", "/v1/self/check", secret, body)
        expected = self.expected(asked, attributes={}, client_address=LOCAL)
        if self._line_has_ended(asked.token) or expected.reason in TOKEN_REASONS:
            self._compare(asked, side, "self", answer.status_code, 401)
            return
        self._compare(asked, side, "self", answer.status_code, 200)
        if not expected.hide:
            wanted = told_to_itself(expected, asked.token)
            self._compare(asked, side, "self", read_answer(answer.json(), {}), wanted)
            return
        self.counts["hidden"] += 1
        self._compare(asked, side, "self", answer.json()["message"], HIDDEN_MESSAGE)
        unknown = await side.call("POST", "/v1/self/check", secret, body | {"target": "project:no/such/place"})
        self._compare(asked, side, "self, hidden", _bytes(answer), _bytes(unknown))

    async def point(self, point: DecisionPoint, questions: Sequence[Asked], name: str) -> None:
        """Any questions of one token, catalog label and address, without HTTP: operations too."""
        first = questions[0]
        items = [Ask(asked.request.ask, asked.request.attributes) for asked in questions]
        question = Question(items, first.label, first.request.client_address, Freshly(at_least=self.revision))
        answers = await point.check(self.secret(first.token), question)
        for asked, answer in zip(questions, answers, strict=True):
            self._compare(asked, name, "point", compared(answer.decision), compared(self.expected(asked)))
            self._compare(asked, name, "point's revision", answer.stamp, self.reading.stamp)

    # parts

    def body(self, asked: Asked) -> dict[str, Any]:
        found: dict[str, Any] = {"token": self.secret(asked.token), "catalog": asked.label}
        if asked.request.client_address is not None:
            found["client_address"] = asked.request.client_address
        return found

    async def _check(self, side: Side, path: str, body: Any, *, short: bool = False) -> httpx.Response:
        self.counts["asked"] += 1
        behind = side.behind.requests
        answer = await side.call("POST", path, self.pair.gateway, body, short=short)
        self.counts["short"] += short and side.behind.requests == behind
        assert answer.status_code == 200, (self.context, answer.status_code, answer.text, body)
        assert answer.json()["revision"] == self.revision, (self.context, answer.text)
        return answer

    def _line_has_ended(self, token_id: TokenId) -> bool:
        """Whether the token or one above it is none that identifies a caller (A1)."""
        request = Request("authz", PermissionRequest(""), self.reading.now, client_address=LOCAL)
        token = naive.token_of(self.reading.rows, token_id)
        while token is not None:
            if naive.token_fault(self.reading.rows, token, None, request) is not None:
                return True
            if token.parent is None:
                return False
            token = naive.token_of(self.reading.rows, token.parent)
        return True

    def _compare(self, asked: Asked, side: Side | str, way: str, found: object, expected: object) -> None:
        name = side if isinstance(side, str) else f"replica {self.pair.sides.index(side) + 1}"
        assert found == expected, f"{way} at {name}: {asked}\n{self.context}"
        self.counts[str(self.expected(asked).reason)] += 1


def item_of(asked: Asked) -> dict[str, Any]:
    ask = asked.request.ask
    assert isinstance(ask, PermissionRequest)
    resource, _, action = ask.permission.partition(":")
    found: dict[str, Any] = {"resource": resource, "action": action}
    if ask.target is not None:
        found["target"] = ask.target
    if asked.request.attributes:
        found["attributes"] = dict(asked.request.attributes)
    return found


def _bytes(answer: httpx.Response) -> tuple[int, bytes, list[tuple[str, str]]]:
    """What a client can tell two answers apart by, but for the id of its own request."""
    headers = sorted((name, value) for name, value in answer.headers.items() if name != "x-request-id")
    return answer.status_code, answer.content, headers


def grouped(questions: Iterable[Asked]) -> list[list[Asked]]:
    """Questions that one batch can hold, in the order of their first."""
    found: dict[tuple[object, ...], list[Asked]] = {}
    for asked in questions:
        found.setdefault((asked.token, asked.label, asked.request.client_address), []).append(asked)
    return list(found.values())
