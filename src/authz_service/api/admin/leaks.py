"""`/v1/leaks`: secrets that were found where they do not belong, from partners who sign and from anybody."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from authz_service.admin import leaks
from authz_service.admin.faults import Faults
from authz_service.admin.leaks import Found
from authz_service.admin.management import Actor
from authz_service.admin.partners import KEY_HEADER, SIGNATURE_HEADER
from authz_service.api.admin.shapes import Strict
from authz_service.api.documents import body_of, problems
from authz_service.api.state import Services, ServicesHere
from authz_service.api.wire import bearer_secret, client_address, parse_json, read_body, read_model
from authz_service.errors import ForbiddenError, InvalidBodyError, UnauthenticatedError

router = APIRouter(prefix="/leaks", tags=["leaks"])

_REPORT_LIMIT: Final = 512 * 1024
_PARTNER_LIMIT: Final = 4 * 1024 * 1024
_MOST_OF_A_PARTNER: Final = 10_000
_HEADERS: Final = [
    {"name": KEY_HEADER, "in": "header", "required": True, "schema": {"type": "string"}},
    {"name": SIGNATURE_HEADER, "in": "header", "required": True, "schema": {"type": "string"}},
]
_Secret = Annotated[str, Field(min_length=1, max_length=1024)]


class LeakReport(Strict):
    """Secrets that somebody found."""

    secrets: list[_Secret] = Field(
        min_length=1, max_length=leaks.MOST_SECRETS, description="as they were found, whole; whatever they are"
    )
    found_in: str | None = Field(None, max_length=500, description="where, for whoever owns them: an address, a name")


class PartnerMatch(BaseModel):
    """One secret, as a secret-scanning partner reports it. Unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True)

    token: str = Field(max_length=1024)
    type: str | None = Field(None, max_length=200)
    url: str | None = Field(None, max_length=4096)
    source: str | None = Field(None, max_length=200)


class Accepted(BaseModel):
    """The report is kept, and what it hits is revoked within seconds. It says the same whatever that is."""

    accepted: bool


_MATCHES: Final = TypeAdapter(list[PartnerMatch])
_PARTNER_BODY: Final = body_of(PartnerMatch)
_CONTENT: Final = _PARTNER_BODY["requestBody"]["content"]["application/json"]
_CONTENT["schema"] = {"type": "array", "maxItems": _MOST_OF_A_PARTNER, "items": _CONTENT["schema"]}
_ANSWERS: Final[dict[int | str, dict[str, Any]]] = problems(400, 401, 413, 429, 500, 503)


@router.post(
    "",
    status_code=HTTPStatus.ACCEPTED,
    response_model=Accepted,
    responses={**_ANSWERS, **problems(404)},
    openapi_extra={**_PARTNER_BODY, "parameters": _HEADERS},
    summary="Report leaked secrets as a scanning partner",
)
async def report_as_partner(services: ServicesHere, request: Request) -> Accepted:
    """In the form of GitHub's secret scanning partner program: an array, signed with ECDSA over P-256 and SHA-256.

    The signature is over the raw body. A report that is sent again changes nothing.
    """
    address = client_address(request)
    await services.leaks.reports.require_unspent(address)
    body = await read_body(request, _PARTNER_LIMIT)
    key_id, signature = _header(request, KEY_HEADER), _header(request, SIGNATURE_HEADER)
    try:
        await services.leaks.partners.require_signed(key_id, signature, body)
    except UnauthenticatedError:
        await services.leaks.reports.require_room(address)
        raise
    found = [Found(one.token, one.url or one.source) for one in _read_matches(body)]
    await leaks.report(services.management, found, origin="partner")
    services.leaks.desk.wake()
    return Accepted(accepted=True)


@router.post(
    "/report",
    status_code=HTTPStatus.ACCEPTED,
    response_model=Accepted,
    responses={**_ANSWERS, **problems(403)},
    openapi_extra=body_of(LeakReport, examples={"one": {"secrets": ["azt_…"], "found_in": "https://paste.example/x1"}}),
    summary="Report leaked secrets",
)
async def report_leaks(services: ServicesHere, request: Request) -> Accepted:
    """Anybody may, without a token: whoever holds a secret may end it. At most 1,000 a report, some reports a minute.

    The answer and the work are the same for tokens and for anything else. Each secret ends its own token, never the
    family or the owner's others. A token with `leak:report` is not counted.
    """
    actor = await _reporter(services, request)
    if actor is None:
        await services.leaks.reports.require_room(client_address(request))
    body = read_model(LeakReport, await read_body(request, _REPORT_LIMIT), takes_secrets=True)
    found = [Found(secret, body.found_in) for secret in body.secrets]
    reporter = None if actor is None else actor.token.id
    await leaks.report(services.management, found, origin="report", reporter=reporter)
    services.leaks.desk.wake()
    return Accepted(accepted=True)


async def _reporter(services: Services, request: Request) -> Actor | None:
    """The caller, where one shows a token. Raises UnauthenticatedError, and ForbiddenError without `leak:report`."""
    secret = bearer_secret(request)
    if secret is None:
        return None
    address = client_address(request)
    actor = Actor(await services.point.authenticate(secret, client_address=address), address)
    if not await leaks.may_report(services.management, actor):
        raise ForbiddenError(f"this token may not report leaks: it needs `{leaks.REPORT}`; or report without a token")
    return actor


def _header(request: Request, name: str) -> str | None:
    """None when it is missing, and when it comes twice: nobody chooses between them."""
    given = request.headers.getlist(name)
    return given[0] if len(given) == 1 else None


def _read_matches(body: bytes) -> list[PartnerMatch]:
    value = parse_json(body)
    if not isinstance(value, list) or len(value) > _MOST_OF_A_PARTNER:
        raise InvalidBodyError(f"the body is no JSON array of up to {_MOST_OF_A_PARTNER} matches; send one")
    try:
        return _MATCHES.validate_python(value)
    except ValidationError as error:
        faults = Faults()
        for one in error.errors(include_url=False, include_input=False):
            where = "".join(f"/{step}" for step in one["loc"])
            faults.add(where, "invalid_value", "the value is not one that this field takes")
        raise InvalidBodyError(faults.summary("the body"), faults=faults.named) from None
