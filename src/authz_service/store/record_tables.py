"""The tables of what happened and who is told: events, webhooks, deliveries, reported leaks, signed checkpoints."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from authz_service.store.tables import metadata, moment, set_now

# The outbox: written with the change it tells of, handed out to webhooks later.
event: Final = Table(
    "event",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    set_now("at"),
    Column("kind", Text, nullable=False),
    Column("token_id", Text, nullable=True),
    Column("owner_id", BigInteger, nullable=True),
    # What it concerns, as ids of groups and projects; none concerns the whole instance alone.
    Column("nodes", ARRAY(BigInteger), nullable=False),
    Column("data", JSONB, nullable=False),
    # Told once and never again: `expiry/tok_…/7`.
    Column("once", Text, nullable=True),
    moment("handed_out_at"),
)
Index("uq_event_once", event.c.once, unique=True, postgresql_where=text("once is not null"))
Index("ix_event_at", event.c.at)
Index("ix_event_token_id", event.c.token_id, event.c.id, postgresql_where=text("token_id is not null"))
Index("ix_event_waiting", event.c.id, postgresql_where=text("handed_out_at is null"))

webhook: Final = Table(
    "webhook",
    metadata,
    Column("id", Text, primary_key=True),
    Column("node_id", ForeignKey("node.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("url", Text, nullable=False),
    # None listed is all of them.
    Column("events", ARRAY(Text), nullable=False),
    Column("active", Boolean, nullable=False),
    # The signing key is made from a pepper and this: the table alone gives nobody a signature.
    Column("kid", Text, nullable=False),
    Column("salt", LargeBinary, nullable=False),
    Column("version", Integer, nullable=False),
    set_now("created_at"),
    Column("created_by_token", Text, nullable=True),
    Column("created_by_user", BigInteger, nullable=True),
)
Index("ix_webhook_node_id", webhook.c.node_id)

delivery: Final = Table(
    "delivery",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("webhook_id", ForeignKey("webhook.id", ondelete="CASCADE"), nullable=False),
    Column("event_id", ForeignKey("event.id", ondelete="CASCADE"), nullable=False),
    Column("state", Text, CheckConstraint("state in ('waiting', 'delivered', 'failed')", name="state"), nullable=False),
    Column("attempts", Integer, nullable=False),
    # The last attempts, newest first: when, what the receiver answered, what went wrong, how long it took.
    Column("log", JSONB, nullable=False),
    moment("next_at"),
    set_now("created_at"),
    moment("ended_at"),
)
Index("ix_delivery_due", delivery.c.next_at, postgresql_where=text("state = 'waiting'"))
Index("ix_delivery_webhook_id", delivery.c.webhook_id, delivery.c.id)
Index("ix_delivery_event_id", delivery.c.event_id)

# Reported secrets that wait to be looked up, as digests: every report leaves as many rows, whatever it hit.
leak_report: Final = Table(
    "leak_report",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("digest", LargeBinary, nullable=False),
    Column("origin", Text, nullable=False),
    Column("found_in", Text, nullable=True),
    Column("reporter", Text, nullable=True),
    set_now("at"),
)

audit_checkpoint: Final = Table(
    "audit_checkpoint",
    metadata,
    Column("seal", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary, nullable=False),
    set_now("at"),
    Column("algorithm", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("signature", LargeBinary, nullable=False),
)
