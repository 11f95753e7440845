"""The tables of token exchange: trust rules, and which job tokens were taken already."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Boolean, Column, DateTime, ForeignKey, Index, Integer, LargeBinary, Table, Text, false, text
from sqlalchemy.dialects.postgresql import JSONB

from authz_service.store.tables import metadata

trust_rule: Final = Table(
    "trust_rule",
    metadata,
    Column("id", Text, primary_key=True),
    Column("node_id", ForeignKey("node.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("issuer", Text, nullable=False),
    Column("audience", Text, nullable=False),
    Column("claims", JSONB, nullable=False),
    # Whose tokens it makes, for which catalog, with which scopes: as they were asked for, by name.
    Column("gives", JSONB, nullable=False),
    # In seconds.
    Column("lifetime", Integer, nullable=False),
    # A key set of its own (RFC 7517); null asks the issuer.
    Column("keys", JSONB(none_as_null=True), nullable=True),
    # Not counted among those that fit an exchange which names none.
    Column("requires_name", Boolean, nullable=False, server_default=false()),
    # Whose authority it lives by.
    Column("token_id", ForeignKey("token.id", ondelete="CASCADE"), nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=text("authz_now()")),
)
Index("ix_trust_rule_node_id", trust_rule.c.node_id, trust_rule.c.id)
Index("ix_trust_rule_issuer", trust_rule.c.issuer, trust_rule.c.audience)
Index("ix_trust_rule_token_id", trust_rule.c.token_id)

# Outlives its rule: what was shown once is not taken again by another.
trust_use: Final = Table(
    "trust_use",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("rule_id", Text, nullable=False),
    Column("token_id", Text, nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
)
Index("ix_trust_use_rule_id", trust_use.c.rule_id)
Index("ix_trust_use_expires_at", trust_use.c.expires_at)
