"""Management over HTTP: `/v1/…`, JSON, complete pages, problems with stable codes."""

from __future__ import annotations

from fastapi import APIRouter

from authz_service.api.admin import catalogs, directory, tokens

router = APIRouter(prefix="/v1")
for _part in (tokens, directory, catalogs):
    router.include_router(_part.router)
