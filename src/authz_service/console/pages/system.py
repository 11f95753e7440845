"""The system: how fresh this replica is, which others there are, which versions run."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from authz_service.admin.system import show_system
from authz_service.console.guarding import SignedIn
from authz_service.console.parts import ConsoleHere
from authz_service.console.rendering import render
from authz_service.console.route import PageRoute

router = APIRouter(route_class=PageRoute)


@router.get("/system")
async def show(request: Request, console: ConsoleHere, session: SignedIn) -> Response:
    system = await show_system(console.management, session.actor)
    follower = console.point.follower
    applied = follower.applied
    return render(
        request,
        "system.html",
        title="System",
        system=system,
        staleness=follower.staleness(),
        promise=follower.settings.max_staleness,
        applied=None if applied is None else applied.revision,
        rewound=follower.rewound,
    )
