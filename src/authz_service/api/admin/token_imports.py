"""`POST /v1/tokens/import`: tokens that another system issued, a line each."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from authz_service.admin import importing
from authz_service.admin.faults import Faults
from authz_service.admin.importing import ImportedToken
from authz_service.api.admin.shapes import Moment, Revision
from authz_service.api.admin.token_shapes import TokenBody
from authz_service.api.callers import ActorHere
from authz_service.api.documents import authenticated
from authz_service.api.state import ServicesHere
from authz_service.api.wire import no_store, read_body, read_model
from authz_service.errors import InvalidBodyError, InvalidInputError

router = APIRouter(tags=["tokens"])

_NDJSON: Final = "application/x-ndjson"
_EXAMPLE: Final = (
    '{"sha256": "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8", "prefix": "glpat-", '
    '"name": "nightly", "owner": "dana", "catalog": "gitlab", "kind": "legacy", "legacy_scopes": ["read_api"], '
    '"created_at": "2026-01-31T00:00:00Z", "expires_at": "2027-01-31T00:00:00Z"}\n'
)


class ImportLine(TokenBody):
    """One token, and what is known of its secret."""

    sha256: str = Field(description="of the whole secret: 64 hex digits in small letters")
    prefix: str | None = Field(None, description="what the secret begins with, as registered: `glpat-`")
    created_at: Moment | None = Field(None, description="when the other system made it; now by default")

    def imported(self, line: int) -> ImportedToken:
        return ImportedToken(line, self.draft(), self.sha256, self.prefix, self.created_at)


class ImportedLine(BaseModel):
    """The id that the token of a line got."""

    line: int
    id: str


class ImportedTokens(BaseModel):
    """What an import made."""

    imported: int
    tokens: list[ImportedLine]
    revision: Revision


@router.post(
    "/tokens/import",
    status_code=HTTPStatus.CREATED,
    response_model=ImportedTokens,
    responses=authenticated(409, 413),
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": "One token a line: what `POST /v1/tokens` takes, and `sha256`, `prefix` and `created_at`.",
            "content": {_NDJSON: {"schema": {"type": "string"}, "examples": {"one": {"value": _EXAMPLE}}}},
        }
    },
    summary="Import tokens that another system issued",
)
async def import_tokens(services: ServicesHere, actor: ActorHere, request: Request, response: Response) -> Any:
    """Needs `token:import` and an admin. All lines or none; their secrets work on, and are never sent here.

    Faults are listed by line, the first 200 of them; what the lines name is looked up once all are well
    written. A secret that is known already is refused.
    """
    management = services.management
    await importing.require_may_import(management, actor)
    body = await read_body(request, management.limits.import_bytes)
    # In a thread: what parses for seconds would hold up every decision of this process.
    lines = await asyncio.to_thread(_parse, body, management.limits.import_tokens)
    no_store(response)
    return await importing.import_tokens(management, actor, lines)


def _parse(body: bytes, most: int) -> Sequence[ImportedToken]:
    """Raises InvalidInputError with every fault of how the lines are written."""
    written = [(number, line) for number, line in enumerate(body.split(b"\n"), start=1) if line.strip()]
    if len(written) > most:
        raise InvalidInputError(f"that is {len(written)} lines, and one import takes {most}; send them in parts")
    if not written:
        raise InvalidInputError("the import is empty; send one token a line, as JSON")
    faults = Faults()
    found: list[ImportedToken] = []
    for number, line in written:
        try:
            found.append(read_model(ImportLine, line).imported(number))
        except InvalidBodyError as error:
            if not error.faults:
                faults.add(f"line {number}", "invalid_json", error.message.replace("the body", "the line"))
            for fault in error.faults:
                faults.add(f"line {number} {fault.where}", fault.code, fault.message)
    then = "; what the lines name is looked up once all are well written, and may have faults of its own"
    faults.raise_any("the import", then=then)
    return found
