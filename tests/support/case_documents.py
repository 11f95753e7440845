"""Cases that ask about GraphQL documents, for evaluators that have no service around them."""

from __future__ import annotations

from tests.reference import documents as reference
from tests.support.case_rows import CaseRows
from tests.support.cases import Case
from tests.support.judged import judge_parts
from tests.support.memory_world import MemoryWorld

from authz_service.catalog.graphql_documents import BadDocumentError, parse_document
from authz_service.catalog.graphql_reach import Reacher
from authz_service.catalog.graphql_schema import load_schema
from authz_service.catalog.model import Catalog
from authz_service.engine.decide import decide
from authz_service.engine.model import Decision, OperationRequest, Request
from authz_service.tokens.model import Token


def documents_by_reference(case: Case, asked: CaseRows) -> Decision:
    question = case.question
    token, catalog = _asked_about(case, asked)
    if catalog is None:
        return reference.refuse(asked.rows, token.id, asked.request)
    sdl = case.world.schemas.get(question.catalog)
    query = question.graphql or ""
    try:
        found = reference.read(catalog, sdl, query, question.variables, question.operation_name, question.target)
    except reference.UnreadableError:
        return reference.refuse(asked.rows, token.id, asked.request)
    mutation = reference.is_mutation(query, question.operation_name)
    return reference.decide(asked.rows, token.id, asked.request, found, question.target, mutation=mutation)


def documents_by_engine(case: Case, asked: CaseRows) -> Decision:
    question = case.question
    world = MemoryWorld(asked.rows)
    token, catalog = _asked_about(case, asked)
    refused = Request(
        question.catalog, OperationRequest("", bad_document=True), asked.request.now, question.version,
        client_address=question.client_address,
    )  # fmt: skip
    if catalog is None:
        return decide(token, world, refused)
    sdl = case.world.schemas.get(question.catalog)
    try:
        parts = Reacher(catalog, None if sdl is None else load_schema(sdl)).reach(
            parse_document(question.graphql or ""),
            operation_name=question.operation_name,
            variables=question.variables,
            target=question.target,
        )
    except BadDocumentError:
        return decide(token, world, refused)
    return judge_parts(token, world, asked.request, parts, question.target)[0]


def _asked_about(case: Case, asked: CaseRows) -> tuple[Token, Catalog | None]:
    token = next(one for one in asked.rows.tokens if one.id == asked.token)
    version = token.catalogs.get(case.question.catalog)
    catalogs = asked.rows.catalogs
    return token, next((one for one in catalogs if (one.name, one.version) == (case.question.catalog, version)), None)
