"""The table of sweeps: what happens to tokens by time alone, and how far it came."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, DateTime, Table, Text, Uuid, text

from authz_service.store.tables import metadata

sweep: Final = Table(
    "sweep",
    metadata,
    Column("name", Text, primary_key=True),
    # Who runs it, or ran it last: a process, which says every few seconds that it is still at it.
    Column("holder", Uuid, nullable=False),
    Column("started_at", DateTime(timezone=True), nullable=False, server_default=text("authz_now()")),
    Column("at", DateTime(timezone=True), nullable=False, server_default=text("authz_now()")),
    # NULL while a run is under way, or was broken off: the next one goes on.
    Column("finished_at", DateTime(timezone=True), nullable=True),
    Column("done", BigInteger, nullable=False),
)
