"""`/livez`, `/readyz` and `/metrics`: for whoever runs the service; they tell nothing of tokens or people."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from authz_service.api.check.serving import ServingHere
from authz_service.api.state import ServicesHere
from authz_service.errors import CannotDecideError
from authz_service.telemetry import CONTENT_TYPE

router = APIRouter(tags=["health"])

_NO_STORE: Final = {"Cache-Control": "no-store"}


class Live(BaseModel):
    live: bool


class Obstacle(BaseModel):
    """One thing in the way."""

    code: str
    message: str


class Readiness(BaseModel):
    """Whether this worker may be asked, and if not, everything that is in the way; `notes` are in nobody's way."""

    ready: bool
    reasons: list[Obstacle]
    notes: list[Obstacle]


@router.get("/livez", response_model=Live, summary="Does the process answer?")
async def livez() -> JSONResponse:
    """200 whenever the process answers. Restart it when this fails; a restart brings no database back."""
    return JSONResponse({"live": True}, headers=_NO_STORE)


@router.get(
    "/readyz",
    response_model=Readiness,
    responses={503: {"model": Readiness, "description": "It may not be asked now"}},
    summary="May this worker be asked?",
)
async def readyz(request: Request, services: ServicesHere) -> JSONResponse:
    """200 while decisions are possible, 503 with the reasons otherwise; and once this worker was asked to stop."""
    reasons: list[dict[str, Any]] = []
    if getattr(request.app.state, "leaving", False):
        reasons.append({"code": "stopping", "message": "this worker is about to stop; ask another one"})
    try:
        services.point.follower.require_fresh()
    except CannotDecideError as error:
        reasons.append({"code": error.code, "message": error.message})
    status = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
    notes: list[dict[str, Any]] = []
    reloading = getattr(request.app.state, "reloading", None)
    if reloading is not None and reloading.fault is not None:
        # Settings may stand in it, never their values; whoever probes needs to know no more than that.
        notes.append({"code": "settings_refused", "message": "settings were not taken over; see the log for why"})
    return JSONResponse({"ready": not reasons, "reasons": reasons, "notes": notes}, status, headers=_NO_STORE)


@router.get("/metrics", response_class=Response, summary="Figures for Prometheus")
async def metrics(request: Request, serving: ServingHere) -> Response:
    """The sums over all workers, whichever of them answers."""
    sample: Callable[[], None] = request.app.state.sample
    sample()
    return Response(serving.metrics.render(), media_type=CONTENT_TYPE, headers=_NO_STORE)
