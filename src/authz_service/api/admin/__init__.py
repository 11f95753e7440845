"""Management over HTTP: `/v1/…`, JSON, complete pages, problems with stable codes."""

from __future__ import annotations

from fastapi import APIRouter

from authz_service.api.admin import (
    audit,
    blast,
    catalog_schemas,
    catalogs,
    directory,
    grants,
    leaks,
    policies,
    privilege,
    token_imports,
    token_life,
    tokens,
    trust,
    webhooks,
)

router = APIRouter(prefix="/v1")
for _part in (
    token_imports,
    tokens,
    token_life,
    directory,
    catalogs,
    catalog_schemas,
    audit,
    leaks,
    blast,
    webhooks,
    trust,
    policies,
    grants,
    privilege,
):
    router.include_router(_part.router)
