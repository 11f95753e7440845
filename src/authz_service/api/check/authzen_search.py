"""AuthZEN's searches, `/access/v1/search/{subject,resource,action}`: who may, where, and what. Translation."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter, Depends, Request, Response

from authz_service.admin.faults import Faults
from authz_service.api.check.authzen import UNDECIDED, answer_json, find_asker
from authz_service.api.check.authzen_reading import (
    Entity,
    Ours,
    raise_invalid,
    read_attributes,
    read_entity,
    read_object,
    read_ours,
    require_json,
    subject_of,
)
from authz_service.api.check.authzen_shapes import (
    AuthzenActionSearch,
    AuthzenFoundActions,
    AuthzenFoundEntities,
    AuthzenResourceSearch,
    AuthzenSubjectSearch,
)
from authz_service.api.check.check import GATEWAY_BEARER, cannot_decide
from authz_service.api.check.serving import Serving, ServingHere
from authz_service.api.documents import authenticated, body_of
from authz_service.api.state import Services, ServicesHere
from authz_service.api.wire import read_body
from authz_service.directory.model import Attributes
from authz_service.errors import CannotDecideError, Fault, InvalidBodyError, InvalidInputError
from authz_service.pdp.subject_search import Circle, Page, SubjectSearch
from authz_service.pdp.subjects import NamedAction, SubjectKind, about_of

router = APIRouter(tags=["authzen"], dependencies=[Depends(GATEWAY_BEARER)])

_USUAL_SIZE: Final = 100
_MOST: Final = 1000
_LONGEST_TOKEN: Final = 2048
_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {**authenticated(413), **UNDECIDED}


@dataclass(frozen=True, slots=True)
class Sought:
    """A search as it was asked for. What is looked for has a type and no id."""

    subject: Entity
    action: Entity
    resource: Entity
    attributes: Attributes
    ours: Ours
    size: int
    cursor: str | None
    digest: str


Find = Callable[[SubjectSearch, Sought, Circle], Awaitable[tuple[Page, Callable[[str], Mapping[str, str]]]]]


@router.post(
    "/access/v1/search/subject",
    response_model=AuthzenFoundEntities,
    responses=_RESPONSES,
    openapi_extra=body_of(
        AuthzenSubjectSearch,
        examples={
            "who": {
                "subject": {"type": "user"},
                "action": {"name": "read"},
                "resource": {"type": "issue", "id": "acme/web"},
            }
        },
    ),
    summary="Who may do this here? (AuthZEN)",
)
async def authzen_search_subject(request: Request, services: ServicesHere, serving: ServingHere) -> Response:
    """Tokens or users, in pages. A type of which nothing is known has none."""
    return await _search(request, services, serving, _Needs(subject=("type",)), _find_subjects)


@router.post(
    "/access/v1/search/resource",
    response_model=AuthzenFoundEntities,
    responses=_RESPONSES,
    openapi_extra=body_of(
        AuthzenResourceSearch,
        examples={
            "where": {
                "subject": {"type": "token", "id": "tok_…"},
                "action": {"name": "read"},
                "resource": {"type": "issue"},
            }
        },
    ),
    summary="Where may they do this? (AuthZEN)",
)
async def authzen_search_resource(request: Request, services: ServicesHere, serving: ServingHere) -> Response:
    """Places, in pages. A type of which nothing is known has none."""
    return await _search(request, services, serving, _Needs(resource=("type",)), _find_resources)


@router.post(
    "/access/v1/search/action",
    response_model=AuthzenFoundActions,
    responses=_RESPONSES,
    openapi_extra=body_of(
        AuthzenActionSearch,
        examples={"what": {"subject": {"type": "user", "id": "dana"}, "resource": {"type": "issue", "id": "acme/web"}}},
    ),
    summary="What may they do here? (AuthZEN)",
)
async def authzen_search_action(request: Request, services: ServicesHere, serving: ServingHere) -> Response:
    """Names of actions, in pages."""
    return await _search(request, services, serving, _Needs(action=None), _find_actions)


@dataclass(frozen=True, slots=True)
class _Needs:
    """The parts that each entity must have; None where it is not asked for."""

    subject: tuple[str, ...] = ("type", "id")
    action: tuple[str, ...] | None = ("name",)
    resource: tuple[str, ...] = ("type", "id")


async def _search(request: Request, services: Services, serving: Serving, needs: _Needs, find: Find) -> Response:
    try:
        asker = await find_asker(request, services)
        require_json(request)
        sought = _read(await read_body(request, serving.body_limit), request.url.path, needs)
        catalog = asker.catalog(sought.ours.catalog)
        limit = await asker.limit(catalog)
        if sought.size == 0:
            return answer_json(_page([], 0, sought, sought.cursor or ""))
        await services.point.be_fresh(sought.ours.freshly)
        circle = Circle(catalog, sought.size, sought.cursor, sought.attributes, sought.ours.client_address, limit)
        page, render = await find(SubjectSearch(services.point, services.search), sought, circle)
    except CannotDecideError as error:
        serving.metrics.undecided.labels(error.code).inc()
        return cannot_decide(error)
    except InvalidInputError as error:
        if any(fault.code == "invalid_cursor" for fault in error.faults):
            raise _stale_token() from error
        raise
    return answer_json(_page([render(one) for one in page.found], len(page.found), sought, page.cursor))


async def _find_subjects(
    search: SubjectSearch, sought: Sought, circle: Circle
) -> tuple[Page, Callable[[str], Mapping[str, str]]]:
    about = about_of(sought.resource.type, sought.resource.key, sought.action.key)
    kind = sought.subject.type

    def render(key: str) -> Mapping[str, str]:
        return {"type": kind, "id": key}

    if kind not in list(SubjectKind) or not isinstance(about, NamedAction):
        return Page(()), render
    return await search.subjects(SubjectKind(kind), about, circle), render


async def _find_resources(
    search: SubjectSearch, sought: Sought, circle: Circle
) -> tuple[Page, Callable[[str], Mapping[str, str]]]:
    subject, kind = subject_of(sought.subject), sought.resource.type

    def render(key: str) -> Mapping[str, str]:
        return {"type": kind, "id": key}

    if subject is None:
        return Page(()), render
    return await search.resources(subject, kind, sought.action.key, circle), render


async def _find_actions(
    search: SubjectSearch, sought: Sought, circle: Circle
) -> tuple[Page, Callable[[str], Mapping[str, str]]]:
    subject = subject_of(sought.subject)

    def render(name: str) -> Mapping[str, str]:
        return {"name": name}

    if subject is None:
        return Page(()), render
    return await search.actions(subject, sought.resource.type, sought.resource.key, circle), render


# bodies and page tokens


def _read(body: bytes, path: str, needs: _Needs) -> Sought:
    """Raises InvalidBodyError with every fault."""
    value = read_object(body)
    faults = Faults()
    subject = read_entity(value, "subject", needs.subject, "", faults)
    action = Entity("", "", {})
    if needs.action is not None:
        action = read_entity(value, "action", needs.action, "", faults) or action
    resource = read_entity(value, "resource", needs.resource, "", faults)
    ours = read_ours(value, "", faults)
    digest = _digest(value, path)
    size, cursor = _read_page(value.get("page"), digest, faults)
    raise_invalid(faults)
    if subject is None or resource is None:
        raise AssertionError("what cannot be read has a fault")
    attributes = read_attributes(value, subject, action, resource)
    return Sought(subject, action, resource, attributes, ours, size, cursor, digest)


def _read_page(given: object, digest: str, faults: Faults) -> tuple[int, str | None]:
    if given is None:
        return _USUAL_SIZE, None
    if not isinstance(given, dict):
        faults.add("/page", "wrong_type", "write an object")
        return _USUAL_SIZE, None
    size = given.get("limit", _USUAL_SIZE)
    if not isinstance(size, int) or isinstance(size, bool):
        faults.add("/page/limit", "wrong_type", "write a whole number")
        size = _USUAL_SIZE
    elif size < 0:
        faults.add("/page/limit", "out_of_range", "write a number that is not below zero")
    token = given.get("token")
    if token is None or token == "":
        return min(size, _MOST), None
    if not isinstance(token, str):
        faults.add("/page/token", "wrong_type", "write a text")
        return min(size, _MOST), None
    return min(size, _MOST), _read_token(token, digest)


def _digest(value: Mapping[str, Any], path: str) -> str:
    """Of all that a page token goes with: the same question gets the next page, another one is refused."""
    parts = [path, *(value.get(name) for name in ("subject", "action", "resource", "context"))]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _write_token(digest: str, cursor: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([digest, cursor]).encode()).decode().rstrip("=")


def _read_token(token: str, digest: str) -> str:
    """Raises InvalidBodyError for a token of another question, and for what is none."""
    try:
        padded = token + "=" * (-len(token) % 4)
        found = (
            json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
            if len(token) <= _LONGEST_TOKEN
            else None
        )
    except (ValueError, binascii.Error, RecursionError):
        found = None
    match found:
        case [known, str(cursor)] if known == digest:
            return cursor
    raise _stale_token()


def _stale_token() -> InvalidBodyError:
    message = "the page token is not one of this question; begin again without it"
    return InvalidBodyError("the body has a fault", faults=[Fault("/page/token", "invalid_cursor", message)])


def _page(results: list[Mapping[str, str]], count: int, sought: Sought, cursor: str | None) -> dict[str, Any]:
    token = "" if cursor is None else _write_token(sought.digest, cursor)
    return {"results": results, "page": {"next_token": token, "count": count}}
