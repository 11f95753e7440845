"""What every write path needs: database, peppers, shipped catalogs, limits, and the wait for all replicas."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from authz_service.admin.job_tokens import IssuerKeys
from authz_service.admin.outbound import Outbound
from authz_service.admin.refusals import Refusals
from authz_service.admin.shelf import Shelf
from authz_service.catalog.model import Catalog
from authz_service.pdp.secrets import Peppers
from authz_service.store.changes import Stamp
from authz_service.store.database import Database
from authz_service.tokens.model import Token

Settled = Callable[[Stamp], Awaitable[None]]
"""Returns once no live replica can allow by the state before this revision any more."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one request may ask for. Lowering a limit never breaks a token that exists."""

    name_length: int = 100
    reason_length: int = 1000
    scopes: int = 100
    nodes: int = 1000
    """Selected nodes of one scope."""
    permissions: int = 2000
    """Permissions of one scope."""
    networks: int = 100
    ancestors: int = 30
    tokens_per_owner: int = 10_000
    """Living ones."""
    lifetime: timedelta | None = None
    """From a secret's creation to its expiry; None is as long as it likes, and for ever."""
    import_bytes: int = 64 * 1024 * 1024
    import_tokens: int = 10_000
    """Lines of one import of tokens."""


@dataclass(frozen=True, slots=True)
class Management:
    """Built once by the composition root. `settled` is what `?wait=true` waits for."""

    database: Database
    peppers: Peppers
    shelf: Shelf
    settled: Settled
    limits: Limits = field(default_factory=Limits)
    outbound: Outbound = field(default_factory=Outbound)
    """The way to where webhooks and partners' keys are."""
    issuers: IssuerKeys = field(default_factory=IssuerKeys)
    """Keys of the issuers that trust rules name."""
    refusals: Refusals = field(default_factory=Refusals)
    """How many refused exchanges go on record."""

    @property
    def shipped(self) -> Sequence[Catalog]:
        return self.shelf.shipped


def wait_out(max_staleness: float) -> Settled:
    """Waits for S seconds: after them a replica that has not applied the revision denies by itself."""

    async def settled(stamp: Stamp) -> None:  # noqa: ARG001 - S is enough for any revision
        await asyncio.sleep(max_staleness)

    return settled


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts: the token that the request showed, and from where. What it may do is decided in the transaction."""

    token: Token
    client_address: str | None = None


def labels(catalogs: Mapping[str, int]) -> list[str]:
    """`["gitlab@1"]`, by name."""
    return [f"{name}@{version}" for name, version in sorted(catalogs.items())]
