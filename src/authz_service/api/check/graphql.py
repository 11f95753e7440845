"""`POST /check/graphql`: whether a token may send this GraphQL document, with what each part of it needs."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from fastapi import APIRouter, Depends, Request, Response
from fastapi.security import HTTPBearer

from authz_service.api.check.bodies import GraphqlRequest, GraphqlResponse
from authz_service.api.check.check import UNDECIDED, answer_asked
from authz_service.api.check.encoding import encode_decision, revision_tail, with_revision
from authz_service.api.check.reading import read_graphql
from authz_service.api.check.serving import ServingHere
from authz_service.api.documents import authenticated, body_of
from authz_service.api.state import ServicesHere
from authz_service.engine.documents import DecidedPart
from authz_service.engine.explain import describe
from authz_service.pdp.documents import GraphqlCall
from authz_service.pdp.question import Answer

_gateway = HTTPBearer(auto_error=False, scheme_name="gateway", description="the token of a gateway or API server")
router = APIRouter(tags=["decide"], dependencies=[Depends(_gateway)])

_EXAMPLE: Final = {
    "catalog": "gitlab",
    "token": "azt_…",
    "query": "query Q($path: ID!) { project(fullPath: $path) { name issues { nodes { title } } } }",
    "variables": {"path": "acme/web"},
}


@router.post(
    "/check/graphql",
    response_model=GraphqlResponse,
    response_model_exclude_none=True,
    responses={**authenticated(409, 413), **UNDECIDED},
    openapi_extra=body_of(GraphqlRequest, examples={"one": _EXAMPLE}),
    summary="May this token send this document?",
)
async def check_graphql(request: Request, services: ServicesHere, serving: ServingHere) -> Response:
    """Allowed when all that the document reaches is. A document that cannot be read in one way is a deny with faults.

    Fields below the roots need the API's schema, which `PUT /v1/catalogs/{name}/graphql-schema` installs.
    """
    listed = False

    def encode(answers: list[Answer]) -> bytes:
        return encode_document_answer(answers[0], listed=listed)

    def read(body: bytes) -> Any:
        nonlocal listed
        asked = read_graphql(body)
        about = asked.items[0].about
        listed = isinstance(about, GraphqlCall) and about.listed
        return asked

    return await answer_asked(request, services, serving, read, serving.batch_limit, encode)


def encode_document_answer(answer: Answer, *, listed: bool) -> bytes:
    """The whole decision, then its parts or faults. Same question, same bytes; `listed` numbers the documents."""
    encoded = encode_decision(answer.decision, answer.token, answer.trace)
    document = answer.document
    more: dict[str, Any] = {}
    if document is not None and document.parts:
        more["parts"] = [_part(number, part, listed=listed) for number, part in document.parts]
    if document is not None and document.faults and answer.decision.reason == "bad_document":
        more["faults"] = [{"code": fault.code, "message": fault.message} for fault in document.faults]
    if more:
        encoded = encoded[:-1] + b"," + msgspec.json.encode(more)[1:]
    return with_revision(encoded, revision_tail(answer.stamp))


def _part(number: int, decided: DecidedPart, *, listed: bool) -> dict[str, Any]:
    decision, part = decided.decision, decided.part
    found: dict[str, Any] = {"document": number} if listed else {}
    found |= {"operation": part.operation, "at": part.at}
    if decision.target is not None:
        found["target"] = decision.target
    found |= {"decision": "allow" if decision.allowed else "deny", "reason": decision.reason}
    if not decision.allowed:
        found["message"] = describe(decision)
        if decision.missing:
            found["missing"] = decision.missing
        found["hide"] = decision.hide
    return found
