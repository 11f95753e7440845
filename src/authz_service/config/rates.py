"""Settings of how much anybody may ask for: budgets by caller, owner and address, and of what runs at once."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel, Field

from authz_service.api.limits import Rates
from authz_service.errors import Fault


class RateSettings(BaseModel):
    # Requests of management, each counted by the worker that gets it; decisions have none unless AUTHZ_CHECK_PER_CALLER
    manage_per_caller: int = Field(
        12_000, ge=1, le=10_000_000, description="requests of management by one token or session, a minute and worker"
    )
    manage_per_owner: int = Field(24_000, ge=1, le=10_000_000, description="the same by all tokens of one owner")
    manage_per_address: int = Field(
        60_000,
        ge=1,
        le=10_000_000,
        description="the same from one address, whoever asks; an IPv6 network of 64 bits is one",
    )
    search_per_caller: int = Field(
        1200,
        ge=1,
        le=10_000_000,
        description="searches, simulations, suggestions, comparisons and exports by one token, a minute and worker",
    )
    import_per_caller: int = Field(
        120, ge=1, le=10_000_000, description="imports and installed catalogs by one token, a minute and worker"
    )
    manage_running: int = Field(
        256, ge=1, le=100_000, description="requests of management that a worker works on at once; beyond, 503"
    )
    manage_running_per_caller: int = Field(
        64, ge=1, le=100_000, description="the same by one token; beyond, 429, and others are answered"
    )
    check_per_caller: int | None = Field(
        None,
        ge=1,
        le=10_000_000,
        description="requests for decisions by one caller, a second and worker; a batch is one. Without it, any",
    )


def rate_contradictions(settings: RateSettings) -> Iterator[Fault]:
    if settings.manage_running_per_caller > settings.manage_running:
        yield Fault(
            "AUTHZ_MANAGE_RUNNING_PER_CALLER",
            "contradiction",
            f"one caller's share may not be more than all there is, AUTHZ_MANAGE_RUNNING, {settings.manage_running}",
        )


def read_rates(settings: RateSettings) -> Rates:
    return Rates(
        per_caller=settings.manage_per_caller,
        per_owner=settings.manage_per_owner,
        per_address=settings.manage_per_address,
        searches=settings.search_per_caller,
        imports=settings.import_per_caller,
        running=settings.manage_running,
        running_per_caller=settings.manage_running_per_caller,
    )
