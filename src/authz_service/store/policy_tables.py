"""The tables of policies, grant requests and grants."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Sequence,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from authz_service.store.tables import metadata

approval_no: Final = Sequence("approval_no", metadata=metadata)
"""Orders what was closed of one token; whoever takes a number holds the token's lock."""


def _now(name: str) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=False, server_default=text("authz_now()"))


policy: Final = Table(
    "policy",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("node_id", ForeignKey("node.id"), nullable=True),
    Column("node_name", Text, nullable=True),
    Column("catalog", Text, nullable=False),
    Column("settings", JSONB, nullable=False),
    Column("version", BigInteger, nullable=False),
    _now("changed_at"),
    Column("changed_by_token", Text, nullable=True),
    Column("changed_by_user", BigInteger, nullable=True),
    CheckConstraint("(node_id is null) <> (node_name is null)", name="place"),
)
Index("uq_policy_node_id", policy.c.catalog, policy.c.node_id, unique=True)
Index("uq_policy_node_name", policy.c.catalog, policy.c.node_name, unique=True)
Index("ix_policy_node_id", policy.c.node_id)

grant_request: Final = Table(
    "grant_request",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    # The first token of all its rotations: they share what was asked and granted. No key, for tokens are purged.
    Column("family_id", Text, nullable=False),
    Column("catalog", Text, nullable=False),
    Column("group_id", ForeignKey("node.id"), nullable=True),
    Column("group_name", Text, nullable=True),
    Column(
        "state",
        Text,
        CheckConstraint("state in ('pending', 'approved', 'denied', 'cancelled')", name="state"),
        nullable=False,
    ),
    Column("asked", JSONB, nullable=False),
    Column("given", JSONB, nullable=False, server_default=text("'[]'::jsonb")),
    Column("reason", Text, nullable=False),
    _now("asked_at"),
    Column("asked_by_token", Text, nullable=True),
    Column("asked_by_user", BigInteger, nullable=True),
    Column("closed_at", DateTime(timezone=True), nullable=True),
    Column("closed_by_token", Text, nullable=True),
    Column("closed_by_user", BigInteger, nullable=True),
    Column("closed_reason", Text, nullable=True),
    Column("closed_no", BigInteger, nullable=True),
    Column("superseded_by", BigInteger, nullable=True),
    CheckConstraint("(group_id is null) <> (group_name is null)", name="place"),
    CheckConstraint("(state = 'pending') = (closed_no is null)", name="closed"),
)
token_grant: Final = Table(
    "token_grant",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("family_id", Text, nullable=False),
    Column("catalog", Text, nullable=False),
    Column("group_id", ForeignKey("node.id"), nullable=True),
    Column("group_name", Text, nullable=True),
    Column("state", Text, CheckConstraint("state in ('active', 'revoked')", name="state"), nullable=False),
    Column("pairs", JSONB, nullable=False),
    Column(
        "origin",
        Text,
        CheckConstraint("origin in ('review', 'owner', 'rule', 'grandfathered')", name="origin"),
        nullable=False,
    ),
    _now("granted_at"),
    Column("granted_by_token", Text, nullable=True),
    Column("granted_by_user", BigInteger, nullable=True),
    Column("revoked_at", DateTime(timezone=True), nullable=True),
    Column("revoked_by_token", Text, nullable=True),
    Column("revoked_by_user", BigInteger, nullable=True),
    Column("revoked_reason", Text, nullable=True),
    Column("closed_no", BigInteger, nullable=True),
    CheckConstraint("(group_id is null) <> (group_name is null)", name="place"),
    CheckConstraint("(state = 'active') = (closed_no is null)", name="closed"),
)
for _table, _open in ((grant_request, "pending"), (token_grant, "active")):
    for _column in ("group_id", "group_name"):
        Index(
            f"uq_{_table.name}_{_column}",
            _table.c.family_id,
            _table.c.catalog,
            _table.c[_column],
            unique=True,
            postgresql_where=text(f"state = '{_open}'"),
        )
    Index(f"ix_{_table.name}_family_id", _table.c.family_id)
    Index(f"ix_{_table.name}_group_id", _table.c.group_id, _table.c.state, _table.c.id)
