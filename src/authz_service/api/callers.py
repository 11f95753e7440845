"""Who calls: the token of the `Authorization` header, proven by the decision point."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from authz_service.admin.management import Actor
from authz_service.admin.rotating import note_reuse
from authz_service.api.limits import limiter_of
from authz_service.api.state import ServicesHere
from authz_service.api.wire import bearer_secret, client_address
from authz_service.errors import UnauthenticatedError
from authz_service.tokens.model import Token

_scheme = HTTPBearer(auto_error=False, scheme_name="token", description="a token of this service, `azt_…`")


async def caller_of(
    request: Request,
    services: ServicesHere,
    _: Annotated[HTTPAuthorizationCredentials | None, Security(_scheme)] = None,
) -> Token:
    """The caller's own token. Raises UnauthenticatedError, with one message for whatever is wrong with it.

    Raises RateLimitedError for one that asks too much; what it may, was not looked at then.
    """
    secret = bearer_secret(request)
    caller = await services.point.authenticate(secret, client_address=client_address(request))
    limiter_of(request).admit(request, caller)
    return caller


Caller = Annotated[Token, Depends(caller_of)]
"""As a route's parameter."""


async def actor_of(request: Request, caller: Caller) -> Actor:
    """The caller, as whoever changes something."""
    return Actor(caller, client_address(request))


ActorHere = Annotated[Actor, Depends(actor_of)]
"""As a route's parameter."""


async def rotating_actor_of(
    request: Request,
    services: ServicesHere,
    _: Annotated[HTTPAuthorizationCredentials | None, Security(_scheme)] = None,
) -> Actor:
    """Like `actor_of`. Whoever comes with a secret that was rotated out gets the same 401, and ends its family."""
    try:
        caller = await caller_of(request, services)
    except UnauthenticatedError:
        secret = bearer_secret(request)
        token = None if secret is None else await services.point.find_token(secret)
        now = services.point.follower.now()
        if (
            secret is not None
            and token is not None
            and (token.revoked_at is not None or (token.expires_at is not None and token.expires_at <= now))
        ):
            await note_reuse(services.management, secret)
        raise
    return await actor_of(request, caller)


RotatingActor = Annotated[Actor, Depends(rotating_actor_of)]
"""As a parameter of the route by which a token replaces its own secret."""
