"""A FastAPI dependency that asks before a route runs. Needs fastapi beside the base install."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, Response

from authz_service.client.decisions import DecisionSource
from authz_service.client.enforcing import Refusal, no_token, read_bearer, refuse, refuse_undecided
from authz_service.client.errors import ClientError
from authz_service.client.model import Answer, Ask
from authz_service.client.wire import pass_on

Target = Callable[[Request], str | None]
_STATE: Final = "authz_decisions"
_UNSAFE: Final = frozenset("/?#%\\")


class _Refused(Exception):  # noqa: N818 - an answer, not a failure
    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.status)
        self.refusal = refusal


def protect(app: FastAPI, source: DecisionSource, *, catalog: str) -> None:
    """Give the application its decisions; in its tests that is a FakeDecisions. Routes without `require` stay open."""
    setattr(app.state, _STATE, (source, catalog))
    app.add_exception_handler(_Refused, _answer)


def require(permission: str, *, target: str | Target | None = None) -> Any:
    """A dependency: the request's token must hold `resource:action` at the target. Its value is the Answer.

    `target` is a place as text (`instance`), `path_param(…)`, or a function of the request. Raises ValueError at once
    for what is no permission. An application without `protect` fails each such request with a 500.
    """
    Ask.of(permission)

    async def decide(request: Request) -> Answer:
        source, catalog = getattr(request.app.state, _STATE)
        token = read_bearer(value for name, value in request.headers.raw if name.lower() == b"authorization")
        if token is None:
            raise _Refused(no_token())
        place = target(request) if callable(target) else target
        address = None if request.client is None else request.client.host
        try:
            with pass_on(request.headers.raw):
                answer: Answer = await source.check(
                    token, Ask.of(permission, place), catalog=catalog, client_address=address
                )
        except ClientError as error:
            raise _Refused(refuse_undecided(error)) from error
        if not answer.allowed:
            raise _Refused(refuse(answer))
        return answer

    return Depends(decide)


def path_param(name: str, *, kind: str = "project") -> Target:
    """The place that the route's path names: `/shops/{shop}` asks about `project:<shop>`.

    A value that could be read as another place is asked about as nothing, which is a deny or a refusal, never an allow.
    """

    def find(request: Request) -> str | None:
        value = str(request.path_params[name])
        if not value or not value.isprintable() or value != value.strip() or not _UNSAFE.isdisjoint(value):
            raise _Refused(refuse(Answer("deny", "target_unknown", hide=True)))
        return f"{kind}:{value}"

    return find


async def _answer(_: Request, error: Exception) -> Response:
    if not isinstance(error, _Refused):
        raise error
    refusal = error.refusal
    return JSONResponse(
        refusal.body, refusal.status, headers=dict(refusal.headers), media_type="application/problem+json"
    )
