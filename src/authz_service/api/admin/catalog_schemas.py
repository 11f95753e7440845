"""`/v1/catalogs/{name}/graphql-schema`: the schema by which GraphQL documents are read."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, Field

from authz_service.admin import catalog_schemas, catalog_versions
from authz_service.admin.catalog_schemas import SchemaText
from authz_service.api.admin.shapes import Revision
from authz_service.api.callers import ActorHere
from authz_service.api.documents import authenticated
from authz_service.api.state import ServicesHere
from authz_service.api.wire import no_store, read_body
from authz_service.catalog.graphql_schema import MAX_CHARACTERS
from authz_service.errors import InvalidBodyError

router = APIRouter(prefix="/catalogs", tags=["catalogs"])

_BODY_LIMIT: Final = MAX_CHARACTERS
Name = Annotated[str, Path(max_length=75, description="`gitlab` for its newest version, or `gitlab@1`")]
_TAKES: Final = {
    "requestBody": {
        "required": True,
        "description": "SDL as it is, or the JSON answer of an introspection query.",
        "content": {"application/graphql": {"schema": {"type": "string"}}, "application/json": {"schema": {}}},
    }
}


class SchemaAnswer(BaseModel):
    """The schema that counts for a catalog version."""

    catalog: str = Field(description="as `gitlab@2`")
    number: int = Field(description="counts the schemas that this version was given")
    new: bool = Field(description="whether this request installed it")
    types: int
    fields: int
    unknown: list[str] = Field(description="operations of the catalog that this schema has nothing for")
    defaults_known: bool = Field(
        description="false for a schema installed before defaults of arguments were kept: install it again"
    )
    revision: Revision


@router.put(
    "/{name}/graphql-schema",
    response_model=SchemaAnswer,
    responses={
        **authenticated(404, 409, 413),
        201: {"model": SchemaAnswer, "description": "It counts from now on"},
        200: {"model": SchemaAnswer, "description": "This very schema counts already; nothing changed"},
    },
    openapi_extra=_TAKES,
    summary="Install an API's GraphQL schema",
)
async def install_graphql_schema(
    services: ServicesHere, actor: ActorHere, request: Request, response: Response, name: Name
) -> Any:
    """Needs `catalog:install` and an admin. It says which types a document reaches, and replaces the one before."""
    await catalog_versions.require_may_install(services.management, actor)
    body = await read_body(request, _BODY_LIMIT)
    try:
        given = SchemaText(body.decode())
    except UnicodeDecodeError:
        raise InvalidBodyError("the body is no text in UTF-8; send the schema's file as it is") from None
    installed = await catalog_schemas.install_schema(services.management, actor, name, given)
    no_store(response)
    if installed.new:
        response.status_code = HTTPStatus.CREATED
    return installed.answer


@router.get(
    "/{name}/graphql-schema",
    response_model=SchemaAnswer,
    responses=authenticated(404),
    summary="Show which GraphQL schema counts",
)
async def show_graphql_schema(services: ServicesHere, actor: ActorHere, name: Name) -> Any:
    """Its size, and which operations of the catalog it has nothing for."""
    return await catalog_schemas.show_schema(services.management, actor, name)
