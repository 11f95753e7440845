"""The client: ask the service what a token may do, by `Client` or `AsyncClient`. Needs the base install alone."""

from authz_service.client.decisions import CachedDecisions, DecisionSource, FakeDecisions
from authz_service.client.errors import ClientError, RefusedError, UndecidedError, UnreachableError
from authz_service.client.model import Answer, Ask, Missing, WhoAmI
from authz_service.client.sdk import AsyncClient, Client

__all__ = [
    "Answer",
    "Ask",
    "AsyncClient",
    "CachedDecisions",
    "Client",
    "ClientError",
    "DecisionSource",
    "FakeDecisions",
    "Missing",
    "RefusedError",
    "UndecidedError",
    "UnreachableError",
    "WhoAmI",
]
