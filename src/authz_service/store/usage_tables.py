"""The tables of what tokens were used for: by permission and place and day, and by network."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Date, DateTime, ForeignKey, Index, Table, Text

from authz_service.store.tables import metadata

token_usage: Final = Table(
    "token_usage",
    metadata,
    Column("token_id", ForeignKey("token.id", ondelete="CASCADE"), primary_key=True),
    Column("day", Date, primary_key=True),
    Column("catalog", Text, primary_key=True),
    Column("permission", Text, primary_key=True),
    # A node's id in digits, what a catalog without a directory calls it, `anywhere`, or `*` for more than are kept.
    Column("place", Text, primary_key=True),
    Column("calls", BigInteger, nullable=False),
    Column("last_at", DateTime(timezone=True), nullable=False),
)
Index("ix_token_usage_day", token_usage.c.day)
Index("ix_token_usage_permission", token_usage.c.catalog, token_usage.c.permission, token_usage.c.token_id)

token_network: Final = Table(
    "token_network",
    metadata,
    Column("token_id", ForeignKey("token.id", ondelete="CASCADE"), primary_key=True),
    Column("network", Text, primary_key=True),
    Column("calls", BigInteger, nullable=False),
    Column("first_at", DateTime(timezone=True), nullable=False),
    Column("last_at", DateTime(timezone=True), nullable=False),
)
