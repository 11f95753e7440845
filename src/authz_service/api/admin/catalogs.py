"""`/v1/catalogs`: what APIs have, what their operations need, and versions of one's own."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel

from authz_service.admin import catalog_questions, catalog_versions, catalogs
from authz_service.admin.catalog_versions import CatalogText
from authz_service.api.admin.catalog_reports import (
    CompareBody,
    ComparisonAnswer,
    CoverageAnswer,
    InstallBody,
    InstalledAnswer,
    NeedAnswer,
    NeedQuery,
    ReportQuery,
    UnlockedPage,
    UnlockQuery,
    UpgradeAnswer,
    UpgradeBody,
)
from authz_service.api.admin.catalog_shapes import (
    CatalogAnswer,
    CatalogName,
    CatalogPage,
    OperationListQuery,
    OperationPage,
)
from authz_service.api.callers import ActorHere
from authz_service.api.documents import authenticated, body_of
from authz_service.api.state import ServicesHere
from authz_service.api.wire import json_body, no_store, read_body, read_model
from authz_service.catalog.document import MAX_BYTES
from authz_service.errors import InvalidBodyError

router = APIRouter(prefix="/catalogs", tags=["catalogs"])

YAML: Final = "application/yaml"
_BODY_LIMIT: Final = 2 * MAX_BYTES
"""A text as JSON is longer than it is."""
_EXAMPLE: Final = """\
catalog: orders
version: 1
owner_check: upstream
targets: {/shops/:shop: project}
permissions:
  order:
    read: {project: GET /shops/:shop/orders}
"""


@router.get("", response_model=CatalogPage, responses=authenticated(), summary="List catalogs")
async def list_catalogs(services: ServicesHere, actor: ActorHere) -> Any:
    """Needs `catalog:read`, which anybody may be given."""
    return await catalogs.list_catalogs(services.management, actor)


@router.get("/{name}", response_model=CatalogAnswer, responses=authenticated(404), summary="Show a catalog")
async def show_catalog(services: ServicesHere, actor: ActorHere, name: CatalogName) -> Any:
    """Its permissions by category, roles and legacy scopes."""
    return await catalogs.show_catalog(services.management, actor, name)


@router.get(
    "/{name}/operations",
    response_model=OperationPage,
    responses=authenticated(404),
    summary="List a catalog's operations",
)
async def list_operations(
    services: ServicesHere, actor: ActorHere, name: CatalogName, query: Annotated[OperationListQuery, Query()]
) -> Any:
    """What does this endpoint need; and with `permission` the reverse: what does this permission unlock."""
    return await catalogs.list_operations(services.management, actor, name, query.query())


@router.get(
    "/{name}/coverage",
    response_model=CoverageAnswer,
    responses=authenticated(404),
    summary="Count what a catalog covers",
)
async def show_coverage(services: ServicesHere, actor: ActorHere, name: CatalogName) -> Any:
    """How many operations can be decided from their path alone, and of which the asker must name the place."""
    return await catalog_questions.show_coverage(services.management, actor, name)


@router.get("/{name}/needs", response_model=NeedAnswer, responses=authenticated(404), summary="What a call needs")
async def show_need(
    services: ServicesHere, actor: ActorHere, name: CatalogName, query: Annotated[NeedQuery, Query()]
) -> Any:
    """For a request as its client sends it, with the API's base path and escapes; or for an operation by its id."""
    return await catalog_questions.show_need(services.management, actor, name, query.query())


@router.get(
    "/{name}/permissions/{permission}/operations",
    response_model=UnlockedPage,
    responses=authenticated(404),
    summary="Which calls a permission unlocks",
)
async def list_unlocked(
    services: ServicesHere,
    actor: ActorHere,
    name: CatalogName,
    permission: Annotated[str, Path(max_length=129, description="as `issue:read`")],
    query: Annotated[UnlockQuery, Query()],
) -> Any:
    """By itself or beside others, with all that it includes. Open operations need none and are not in it."""
    return await catalog_questions.list_unlocked(services.management, actor, name, permission, query.query())


# versions of one's own


async def _read_text(request: Request) -> bytes:
    return await read_body(request, _BODY_LIMIT)


def _is_json(request: Request, body: bytes) -> bool:
    """By the content type; curl and others send one that says nothing."""
    kind = request.headers.get("content-type", "")
    return "json" in kind or ("yaml" not in kind and body.lstrip()[:1] == b"{")


def _text_of(body: bytes) -> CatalogText:
    try:
        return CatalogText(body.decode())
    except UnicodeDecodeError:
        raise InvalidBodyError("the body is no text in UTF-8; send the catalog's file as it is") from None


def _takes(model: type[BaseModel]) -> dict[str, Any]:
    documented = body_of(model)["requestBody"]["content"]
    yaml = {"schema": {"type": "string"}, "examples": {"a start": {"value": _EXAMPLE}}}
    described = "The catalog's file as it is, or as `text` in JSON."
    return {"requestBody": {"required": True, "description": described, "content": {YAML: yaml, **documented}}}


@router.post(
    "",
    status_code=HTTPStatus.CREATED,
    response_model=InstalledAnswer,
    responses={
        **authenticated(409, 413),
        200: {"model": InstalledAnswer, "description": "This very text was installed before; nothing changed"},
        201: {
            "description": "The new version",
            "headers": {"Location": {"description": "where it is shown", "schema": {"type": "string"}}},
        },
    },
    openapi_extra=_takes(InstallBody),
    summary="Install a version of a catalog",
)
async def install_catalog(services: ServicesHere, actor: ActorHere, request: Request, response: Response) -> Any:
    """Needs `catalog:install` and an admin. A version never changes, and tokens stay with the one they were made under.

    All faults of the text are listed at `file:line`; then nothing is stored, and the versions that are there stay.
    """
    await catalog_versions.require_may_install(services.management, actor)
    body = await _read_text(request)
    given = _text_of(body)
    if _is_json(request, body):
        given = (await asyncio.to_thread(read_model, InstallBody, body)).given()
    installed = await catalog_versions.install_catalog(services.management, actor, given)
    response.headers["Location"] = f"/v1/catalogs/{installed.answer['catalog']}"
    if not installed.new:
        response.status_code = HTTPStatus.OK
    return installed.answer


@router.post(
    "/{name}/compare",
    response_model=ComparisonAnswer,
    responses=authenticated(404, 413),
    openapi_extra=_takes(CompareBody),
    summary="Compare a text with a catalog",
)
async def compare_catalog(
    services: ServicesHere,
    actor: ActorHere,
    request: Request,
    response: Response,
    name: CatalogName,
    query: Annotated[ReportQuery, Query()],
) -> Any:
    """What it changes, and which live tokens it would break or widen. Needs `catalog:install`; stores nothing.

    In JSON, `version` in place of `text` compares a version that is there. Each token is compared with its own version.
    """
    await catalog_versions.require_may_install(services.management, actor)
    body = await _read_text(request)
    given: CatalogText | int = _text_of(body)
    if _is_json(request, body):
        given = (await asyncio.to_thread(read_model, CompareBody, body)).given()
    no_store(response)
    return await catalog_versions.compare_catalog(services.management, actor, name, given, query.query())


@router.post(
    "/{name}/upgrade",
    response_model=UpgradeAnswer,
    responses=authenticated(404, 413),
    openapi_extra=body_of(UpgradeBody, examples={"see first": {"to": 2, "dry_run": True}}),
    summary="Move tokens to a newer version",
)
async def upgrade_tokens(
    services: ServicesHere,
    actor: ActorHere,
    request: Request,
    response: Response,
    name: Annotated[str, Path(max_length=64, description="a catalog's name, without a version")],
    query: Annotated[ReportQuery, Query()],
) -> Any:
    """Every live token of an older version, in one revision; those that would gain anything are refused and named.

    Needs `catalog:install` and `token:edit`, and an admin. `dry_run` moves nothing and tells the same.
    """
    body = await json_body(UpgradeBody)(request)
    no_store(response)
    return await catalog_versions.upgrade_tokens(services.management, actor, name, body.upgrade(), query.query())
