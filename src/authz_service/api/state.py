"""The parts that routes use, as the composition root put them together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from authz_service.admin.leaks import LeakIntake
from authz_service.admin.management import Management
from authz_service.pdp.check import DecisionPoint
from authz_service.pdp.search import Search


@dataclass(frozen=True, slots=True)
class Services:
    """Stored at `app.state.services` before the first request."""

    point: DecisionPoint
    management: Management
    leaks: LeakIntake
    search: Search


async def services_of(request: Request) -> Services:
    """The services of the application that got this request."""
    found = request.app.state.services
    if not isinstance(found, Services):
        raise TypeError("the application has no services")
    return found


ServicesHere = Annotated[Services, Depends(services_of)]
"""As a route's parameter."""
