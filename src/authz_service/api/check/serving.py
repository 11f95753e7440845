"""What the decision routes need besides the decision point: figures to count in, and how much they read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from authz_service.telemetry import Metrics


@dataclass(frozen=True, slots=True)
class Serving:
    """Stored at `app.state.serving` before the first request. Limits are in bytes."""

    metrics: Metrics
    body_limit: int
    batch_limit: int


async def serving_of(request: Request) -> Serving:
    found = request.app.state.serving
    if not isinstance(found, Serving):
        raise TypeError("the application serves nothing")
    return found


ServingHere = Annotated[Serving, Depends(serving_of)]
"""As a route's parameter."""
