"""The tables of who a user is elsewhere: identities at a provider of sign-ins, and sign-ins that were finished."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Column, DateTime, ForeignKey, Index, LargeBinary, Table, Text, text

from authz_service.store.tables import metadata

identity: Final = Table(
    "identity",
    metadata,
    Column("issuer", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("user_id", ForeignKey("node.id"), nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=text("authz_now()")),
)
Index("ix_identity_user_id", identity.c.user_id)

identity_use: Final = Table(
    "identity_use",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("expires_at", DateTime(timezone=True), nullable=False),
)
Index("ix_identity_use_expires_at", identity_use.c.expires_at)
