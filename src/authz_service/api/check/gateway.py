"""What all gateways share: who the gateway is, what it asks, and the one question that it becomes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final
from urllib.parse import unquote

from fastapi import Request, Response

from authz_service.api.check.check import cannot_decide
from authz_service.api.check.gateway_answers import Verdict, allowed, denied, refused, unauthenticated
from authz_service.api.check.gateway_headers import AUTHORIZATION, BODY, CONSTANTS, GATEWAY, GatewayHeaders
from authz_service.api.check.graphql_bodies import HttpBody, read_graphql_call
from authz_service.api.check.serving import serving_of
from authz_service.api.state import Services, services_of
from authz_service.api.wire import client_address, looks_like_secret, read_body
from authz_service.catalog.canonical import overrides_method
from authz_service.engine.model import PermissionRequest
from authz_service.errors import (
    BodyTooLargeError,
    CannotDecideError,
    ForbiddenError,
    InvalidBodyError,
    InvalidInputError,
    SecretInUrlError,
    UnauthenticatedError,
)
from authz_service.pdp.check import ANY_CATALOG, DecisionPoint
from authz_service.pdp.documents import GraphqlCall
from authz_service.pdp.question import Ask, HttpCall, Question
from authz_service.pdp.quick import QuickAnswers
from authz_service.telemetry import Metrics
from authz_service.tokens.model import Token

OWN_LISTENER: Final = "authz.own_listener"
"""In a request's scope: it came in where only one gateway is. No client can set it."""

_CATALOG: Final = re.compile(r"[a-z][a-z0-9_]{0,63}(@[1-9][0-9]{0,8})?")
_LONGEST_NAME: Final = 64


@dataclass(frozen=True, slots=True)
class GatewayTrust:
    """Stored at `app.state.gateways`. `secret` is the token of the gateway at its own listener.

    With `loopback`, whoever asks from this machine counts as that gateway: for `authz dev`, where nothing is at stake.
    """

    secret: str | None = field(default=None, repr=False)
    loopback: bool = False


@dataclass(frozen=True, slots=True)
class Asker:
    """The gateway: the token that it showed or that its listener stands for, and its own address."""

    secret: str | None = field(repr=False)
    address: str | None


@dataclass(frozen=True, slots=True)
class Call:
    """What an end client wants, as the gateway tells it. `shown` says whether there was any `Authorization`."""

    secret: str | None = field(repr=False)
    shown: bool
    method: str
    path: str
    client_address: str | None
    constants: Mapping[str, str]
    body: HttpBody | None = field(default=None, repr=False)
    """None where the gateway sends no bodies, or the request had none."""


def check_constants(given: Mapping[str, str]) -> Mapping[str, str]:
    """Constants that fit together. Raises InvalidInputError, which is for whoever wrote the gateway's configuration."""
    unknown = sorted(given.keys() - set(CONSTANTS))
    if unknown:
        raise InvalidInputError(f"there is no constant `{unknown[0][:_LONGEST_NAME]}`; write {', '.join(CONSTANTS)}")
    if ("resource" in given) != ("action" in given):
        raise InvalidInputError("a permission is `resource` and `action`: set both, or neither")
    for name in ("resource", "action"):
        if not 1 <= len(given.get(name, "-")) <= _LONGEST_NAME:
            raise InvalidInputError(f"`{name}` has 1 to {_LONGEST_NAME} characters")
    catalog = given.get("catalog")
    if catalog is not None and not _CATALOG.fullmatch(catalog):
        raise InvalidInputError(f"`{catalog[:_LONGEST_NAME]}` names no catalog; write `name` or `name@1`")
    return given


def find_asker(request: Request, headers: GatewayHeaders) -> Asker:
    """Who the gateway says it is. Raises InvalidInputError when it says so in two ways."""
    trust: GatewayTrust = request.app.state.gateways
    address = client_address(request)
    shown = headers.find(GATEWAY)
    if request.scope.get(OWN_LISTENER, False):
        if shown is not None:
            raise InvalidInputError(f"`{GATEWAY}` is not taken at the gateway's own listener; remove it")
        return Asker(trust.secret, address)
    if shown is None and trust.loopback and address is not None and ip_address(address).is_loopback:
        return Asker(trust.secret, address)
    return Asker(shown, address)


def decide_from_memory(quick: QuickAnswers, asker: Asker, call: Call) -> Verdict | None:
    """What `decide` would answer, if memory can tell; None otherwise, also for whatever is odd. Awaits nothing."""
    caller = None if asker.secret is None else quick.find_caller(asker.secret)
    if caller is None or asker.secret is None or call.secret is None or call.body is not None:
        return None
    try:
        _refuse_url(call)
        catalog = call.constants.get("catalog") or _only_catalog(caller)
    except (InvalidInputError, SecretInUrlError):
        return None
    known = quick.admit(asker.secret, call.secret, catalog)
    judged = None if known is None else quick.judge(known, catalog, _about(call), call.client_address)
    if judged is None:
        return None
    return allowed(judged.token, judged.use) if judged.decision.allowed else denied(judged.decision)


async def decide(
    services: Services, metrics: Metrics, quick: QuickAnswers, read: Callable[[], tuple[Asker, Call]]
) -> Verdict:
    """The answer to what `read` gives. Raises CannotDecideError; what is odd, or may not be asked, gets a deny.

    The gateway comes first: who is none learns nothing of the token that it shows.
    """
    point = services.point
    try:
        asker, call = read()
        verdict = decide_from_memory(quick, asker, call)
        if verdict is not None:
            return verdict
        _refuse_url(call)
        caller = await _find_gateway(point, asker)
        catalog = call.constants.get("catalog") or _only_catalog(caller)
        about = _about(call)
        limit = None
        if isinstance(about, PermissionRequest):
            await point.require_may_ask(caller, catalog, [about.target], client_address=asker.address)
        else:
            limit = await point.find_limit(caller, catalog, client_address=asker.address)
    except (InvalidInputError, SecretInUrlError) as error:
        return refused(error.code, error.message)
    except ForbiddenError as error:
        return refused(error.code, f"the gateway may not ask: {error.message}")
    if call.secret is None:
        return unauthenticated(shown=call.shown)
    question = Question([Ask(about)], catalog, call.client_address)
    [answer] = await point.check(call.secret, question, limit=limit)
    quick.learn(call.secret, catalog, [about if isinstance(about, HttpCall) else about.target])
    if asker.secret is not None:
        quick.learn_caller(asker.secret, asker.secret)
    metrics.count_decision(allowed=answer.decision.allowed, reason=answer.decision.reason)
    if answer.token is None or not answer.decision.allowed:
        return denied(answer.decision)
    return allowed(answer.token, await point.describe_use(answer.token, catalog, about))


def _refuse_url(call: Call) -> None:
    """Refuses a URL with a secret in it, and one that names another method where no operation is looked for."""
    if looks_like_secret(call.path) or looks_like_secret(unquote(call.path)):
        raise SecretInUrlError("URLs end up in logs: rotate the token that stands in this one; send it in a header")
    if "resource" in call.constants and overrides_method(call.path.partition("?")[2]):
        raise InvalidInputError("the URL holds `_method`, by which many servers take another method")


async def _find_gateway(point: DecisionPoint, asker: Asker) -> Token:
    """The gateway's own token. An end client cannot mend it, so it never is a 401."""
    try:
        caller = await point.authenticate(asker.secret, client_address=asker.address)
    except UnauthenticatedError:
        message = "it is not known here: it has to show its own token in `X-Authz-Gateway`, or use its own listener"
        raise ForbiddenError(message) from None
    await point.require_evaluator(caller)
    return caller


def _about(call: Call) -> PermissionRequest | HttpCall:
    constants = call.constants
    target = constants.get("target")
    if "resource" in constants:
        return PermissionRequest(f"{constants['resource']}:{constants['action']}", target)

    def document() -> GraphqlCall:
        return read_graphql_call(call.method, call.path, call.body, target)

    return HttpCall(call.method, call.path, target, document)


def _only_catalog(caller: Token) -> str:
    if len(caller.evaluates) == 1 and caller.evaluates[0] != ANY_CATALOG:
        return caller.evaluates[0]
    raise InvalidInputError(
        "say which catalog is meant: `?catalog=` in the URL that the gateway calls, or `X-Authz-Catalog`"
    )


async def read_gateway_body(request: Request, limit: int) -> HttpBody | None:
    """The body that the gateway passed on, with what its headers say of it; None for none. `limit` is in bytes."""
    try:
        content = await read_body(request, limit)
    except (BodyTooLargeError, InvalidBodyError):
        return HttpBody(whole=False)
    return body_of_gateway(content, request.scope["headers"])


def body_of_gateway(content: bytes, pairs: Iterable[tuple[bytes, bytes]]) -> HttpBody | None:
    """A body with what headers say of it; where they say it in two ways it counts as cut, and nobody relies on it."""
    if not content:
        return None
    try:
        headers = GatewayHeaders(pairs, BODY)
        kind, encoding, partial = (headers.find(name) for name in BODY)
    except InvalidInputError:
        return HttpBody(whole=False)
    return HttpBody(content, kind, encoding, whole=partial != "true")


async def answer_gateway(
    request: Request,
    names: Iterable[str],
    read: Callable[[GatewayHeaders], Call],
    more: Mapping[str, str] | None = None,
) -> Response:
    """The verdict as an HTTP answer, an allow with `more` headers; 503, whose body says deny, when there is none.

    `names` are the headers that `read` looks at, besides the gateway's own.
    """
    services, serving = await services_of(request), await serving_of(request)

    def read_all() -> tuple[Asker, Call]:
        headers = GatewayHeaders(request.scope["headers"], {GATEWAY, AUTHORIZATION, *names})
        return find_asker(request, headers), read(headers)

    try:
        verdict = await decide(services, serving.metrics, request.app.state.quick, read_all)
    except CannotDecideError as error:
        serving.metrics.undecided.labels(error.code).inc()
        return cannot_decide(error)
    return respond(verdict, more)


def respond(verdict: Verdict, more: Mapping[str, str] | None) -> Response:
    """The verdict over HTTP, an allow with `more` headers. Nobody in between may keep it: each is asked anew."""
    headers = {**verdict.headers, "Cache-Control": "no-store", **(more or {} if verdict.allowed else {})}
    return Response(verdict.body, verdict.status, headers=headers)
