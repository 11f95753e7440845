"""Requests and answers as bytes, for the client with threads and the one with an event loop alike. Does no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import httpx
import msgspec

from authz_service.client.errors import RefusedError, UndecidedError, UnreachableError
from authz_service.client.model import Answer, Ask, WhoAmI
from authz_service.errors import Fault
from authz_service.tracing import parse_traceparent

T = TypeVar("T")
MOST_ITEMS: Final = 10_000
_TRACEPARENT: Final[ContextVar[str | None]] = ContextVar("authz_traceparent", default=None)
_QUESTIONS: Final = frozenset({"/check", "/check/batch", "/check/http", "/v1/self/check", "/v1/self/check/batch"})


@dataclass(frozen=True, slots=True)
class Call:
    """One request to be sent."""

    method: str
    path: str
    body: bytes | None = None
    params: Mapping[str, str] | None = None
    content_type: str = "application/json"
    if_match: str | None = None

    def headers(self) -> dict[str, str]:
        found = {} if self.body is None else {"Content-Type": self.content_type}
        passed_on = _TRACEPARENT.get()
        if passed_on is not None:
            found["traceparent"] = passed_on
        return found if self.if_match is None else found | {"If-Match": self.if_match}


@contextmanager
def pass_on(headers: Iterable[tuple[bytes, bytes]]) -> Iterator[None]:
    """Within it, calls carry the `traceparent` of the request with these headers, if it has just one that is one."""
    parent = parse_traceparent(value for name, value in headers if name.lower() == b"traceparent")
    token = _TRACEPARENT.set(None if parent is None else parent.text)
    try:
        yield
    finally:
        _TRACEPARENT.reset(token)


class _Decisions(msgspec.Struct):
    decisions: list[Answer]
    revision: str | None = None


class _Fault(msgspec.Struct):
    where: str = ""
    code: str = ""
    message: str = ""


class _Problem(msgspec.Struct):
    code: str = ""
    title: str = ""
    detail: str = ""
    faults: list[_Fault] = msgspec.field(default_factory=list)


class _Undecided(msgspec.Struct):
    decision: str
    reason: str
    message: str = ""


def ask_one(path: str, ask: Ask, given: Mapping[str, object]) -> Call:
    """`POST path` with one question; what is None in `given` is left out."""
    return Call("POST", path, msgspec.json.encode(_kept(given) | msgspec.to_builtins(ask)))


def ask_http(method: str, path: str, given: Mapping[str, object]) -> Call:
    """`POST /check/http` about one request of the API."""
    return Call("POST", "/check/http", msgspec.json.encode(_kept(given) | {"method": method, "path": path}))


def is_safe(call: Call) -> bool:
    """Whether sending it twice changes nothing more than once: reads, and questions."""
    return call.method in ("GET", "HEAD") or (call.method == "POST" and call.path in _QUESTIONS)


def ask_many(path: str, asks: Sequence[Ask], given: Mapping[str, object]) -> Call:
    """`POST path` with many questions. Raises ValueError above 10,000, which the service would refuse."""
    if len(asks) > MOST_ITEMS:
        raise ValueError(f"one batch takes {MOST_ITEMS} questions, and here are {len(asks)}; ask in several")
    return Call("POST", path, msgspec.json.encode(_kept(given) | {"items": [msgspec.to_builtins(ask) for ask in asks]}))


def read_answer(response: httpx.Response) -> Answer:
    """Raises what `read_document` raises."""
    answer: Answer = _read(response, Answer)
    return answer


def read_answers(response: httpx.Response) -> list[Answer]:
    """In the order of the questions. Raises what `read_document` raises."""
    several: _Decisions = _read(response, _Decisions)
    return several.decisions


def read_whoami(response: httpx.Response) -> WhoAmI:
    document = read_document(response)
    if not isinstance(document, dict) or not isinstance(document.get("id"), str):
        raise _no_answer(response)
    return WhoAmI(document["id"], document)


def read_document(response: httpx.Response) -> Any:
    """The JSON of a successful answer, None for an empty one.

    Raises RefusedError, UndecidedError, or UnreachableError for what this service would not say.
    """
    return _read(response, Any)


def unreachable(url: str, error: Exception) -> UnreachableError:
    """What to tell of a request that got no answer. Says nothing of its headers."""
    why = "it did not answer in time" if isinstance(error, httpx.TimeoutException) else "no connection"
    return UnreachableError(f"`{url}` cannot be reached ({why}); is the URL right, and does the service run")


def _read(response: httpx.Response, kind: type[T] | Any) -> Any:
    if response.is_success:
        if not response.content and kind is Any:
            return None
        try:
            return msgspec.json.decode(response.content, type=kind)
        except msgspec.MsgspecError as error:
            raise _no_answer(response) from error
    raise _failure(response)


def _failure(response: httpx.Response) -> Exception:
    if response.status_code == httpx.codes.SERVICE_UNAVAILABLE:
        try:
            said = msgspec.json.decode(response.content, type=_Undecided)
        except msgspec.MsgspecError:
            pass
        else:
            return UndecidedError(said.message or said.reason, reason=said.reason, retry_after=_retry_after(response))
    try:
        problem = msgspec.json.decode(response.content, type=_Problem)
    except msgspec.MsgspecError:
        return _no_answer(response)
    if response.status_code == httpx.codes.SERVICE_UNAVAILABLE:
        return UndecidedError(problem.detail or problem.title, reason=problem.code, retry_after=_retry_after(response))
    return RefusedError(
        problem.detail or problem.title or f"the service answered {response.status_code}",
        status=response.status_code,
        code=problem.code,
        faults=[Fault(fault.where, fault.code, fault.message) for fault in problem.faults],
        request_id=response.headers.get("x-request-id"),
    )


def _retry_after(response: httpx.Response) -> float:
    text = response.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() else 1.0


def _no_answer(response: httpx.Response) -> UnreachableError:
    return UnreachableError(
        f"`{response.request.url.copy_with(query=None)}` answered {response.status_code}, and not as this service"
        " does; is the URL right"
    )


def _kept(given: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in given.items() if value is not None and value is not False}
