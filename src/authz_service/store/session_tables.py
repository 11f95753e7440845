"""The tables of people who sign in: passwords, one-time links, and sessions of the console."""

from __future__ import annotations

from typing import Final

from sqlalchemy import CheckConstraint, Column, DateTime, ForeignKey, Index, LargeBinary, Table, Text, text

from authz_service.store.tables import metadata

password: Final = Table(
    "password",
    metadata,
    Column("user_id", ForeignKey("node.id"), primary_key=True),
    # argon2id with its salt and costs, as the hash itself writes them.
    Column("hash", Text, nullable=False),
    Column("changed_at", DateTime(timezone=True), nullable=False, server_default=text("authz_now()")),
)

sign_in_link: Final = Table(
    "sign_in_link",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("user_id", ForeignKey("node.id"), nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
)

# What the cookie holds is nowhere kept: this is its digest. The rights are the token's, never the row's.
session: Final = Table(
    "session",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("token_id", ForeignKey("token.id", ondelete="CASCADE"), nullable=False),
    Column("user_id", ForeignKey("node.id"), nullable=False),
    Column(
        "opened_by",
        Text,
        CheckConstraint("opened_by in ('password', 'link', 'token', 'openid')", name="opened_by"),
        nullable=False,
    ),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=text("authz_now()")),
    Column("seen_at", DateTime(timezone=True), nullable=False, server_default=text("authz_now()")),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Column("address", Text, nullable=True),
    Column("agent", Text, nullable=False),
)
Index("ix_session_token_id", session.c.token_id)
Index("ix_session_user_id", session.c.user_id)
Index("ix_session_expires_at", session.c.expires_at)
