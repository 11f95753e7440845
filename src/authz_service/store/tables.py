"""The tables, as the migrations make them: a test holds both equal."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Interval,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

metadata: Final = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
    }
)

# The one source of time in SQL. Tests shift it by the row of `clock_shift`, which the service's role may only read.
authz_now: Final = func.authz_now(type_=DateTime(timezone=True))


def moment(name: str, *, nullable: bool = True) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=nullable)


def set_now(name: str) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=False, server_default=text("authz_now()"))


clock_shift: Final = Table(
    "clock_shift",
    metadata,
    Column("id", SmallInteger, CheckConstraint("id = 1", name="one_row"), primary_key=True, autoincrement=False),
    Column("shift", Interval, nullable=False),
)

revision: Final = Table(
    "revision",
    metadata,
    Column("id", SmallInteger, CheckConstraint("id = 1", name="one_row"), primary_key=True, autoincrement=False),
    Column("rev", BigInteger, nullable=False),
    Column("epoch", Uuid, nullable=False),
    # The hash of the newest row of the change log, here so that a writer who waited for this row reads it fresh.
    Column("hash", LargeBinary, nullable=False),
    # Since when there is this epoch: a replica tells by it whether another one is newer, or an old one come back.
    set_now("began"),
)

change_log: Final = Table(
    "change_log",
    metadata,
    Column("rev", BigInteger, primary_key=True, autoincrement=False),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("kind", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("prev_hash", LargeBinary, nullable=False),
    moment("at", nullable=False),
)

# A node stores its own last segment and its parent, no path: moving a group above 50,000 projects writes one row.
node: Final = Table(
    "node",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("source", Text, nullable=False),
    Column(
        "kind",
        Text,
        CheckConstraint("kind in ('instance', 'group', 'project', 'user')", name="kind"),
        nullable=False,
    ),
    Column("parent_id", ForeignKey("node.id"), nullable=True),
    Column("name", Text, nullable=False),
    Column("name_key", Text, CheckConstraint("name_key = lower(name)", name="name_key"), nullable=False),
    Column("external_id", Text, nullable=True),
    # Groups and users' namespaces share one id space (C3): a group's is its external id.
    Column("namespace_id", Text, nullable=True),
    Column("visibility", SmallInteger, nullable=False),
    Column("archived", Boolean, nullable=False, server_default=text("false")),
    Column("attributes", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    moment("deleted_at"),
    CheckConstraint("kind <> 'group' or namespace_id is not distinct from external_id", name="namespace_id"),
)
# Two indexes, for NULL equals no NULL; a deleted node's name is free, its external id never is (D2).
Index(
    "uq_node_top_name",
    node.c.source,
    node.c.name_key,
    unique=True,
    postgresql_where=text("parent_id is null and deleted_at is null"),
)
Index(
    "uq_node_name",
    node.c.parent_id,
    node.c.name_key,
    unique=True,
    postgresql_where=text("parent_id is not null and deleted_at is null"),
)
Index(
    "uq_node_external_id",
    node.c.source,
    node.c.kind,
    node.c.external_id,
    unique=True,
    postgresql_where=text("external_id is not null"),
)
Index(
    "uq_node_namespace_id",
    node.c.source,
    node.c.namespace_id,
    unique=True,
    postgresql_where=text("namespace_id is not null"),
)

account: Final = Table(
    "account",
    metadata,
    Column("node_id", ForeignKey("node.id"), primary_key=True),
    Column("state", Text, CheckConstraint("state in ('active', 'blocked', 'deleted')", name="state"), nullable=False),
    Column("admin", Boolean, nullable=False),
    Column("external", Boolean, nullable=False),
    Column("service_account", Boolean, nullable=False),
    Column("home_id", ForeignKey("node.id"), nullable=True),
    Column("same_as", ForeignKey("node.id"), nullable=True),
)
Index("ix_account_home_id", account.c.home_id, postgresql_where=text("home_id is not null"))
Index("ix_account_same_as", account.c.same_as, postgresql_where=text("same_as is not null"))

membership: Final = Table(
    "membership",
    metadata,
    Column("user_id", ForeignKey("node.id"), primary_key=True),
    Column("node_id", ForeignKey("node.id"), primary_key=True),
    # One role for each user and node: a demotion cannot leave the old one behind.
    Column("role", Text, nullable=False),
)
Index("ix_membership_node_id", membership.c.node_id)

token: Final = Table(
    "token",
    metadata,
    Column("id", Text, primary_key=True),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("kid", Text, nullable=False),
    Column("kind", Text, CheckConstraint("kind in ('fine_grained', 'legacy')", name="kind"), nullable=False),
    Column("name", Text, nullable=False),
    Column("owner_id", ForeignKey("node.id"), nullable=True),
    Column("owner_name", Text, nullable=True),
    Column("catalogs", JSONB, nullable=False),
    Column("scopes", JSONB, nullable=False),
    Column("legacy_scopes", ARRAY(Text), nullable=False),
    Column("evaluates", ARRAY(Text), nullable=False),
    Column("resource_owner_id", ForeignKey("node.id"), nullable=True),
    Column("resource_owner_name", Text, nullable=True),
    set_now("created_at"),
    moment("not_before"),
    moment("expires_at"),
    Column("conditions", JSONB, nullable=False),
    Column("parent_id", ForeignKey("token.id"), nullable=True),
    Column("family_id", ForeignKey("token.id"), nullable=False),
    Column("reason", Text, nullable=False),
    Column("may_rotate_self", Boolean, nullable=False),
    Column("created_by_token", Text, nullable=True),
    Column("created_by_user", BigInteger, nullable=True),
    moment("revoked_at"),
    Column("revoked_reason", Text, nullable=True),
    moment("last_used_at"),
    # The token that a rotation put in the place of this one.
    Column("successor_id", ForeignKey("token.id"), nullable=True),
    # What the secret begins with, where another system made it (M3).
    Column("foreign_prefix", Text, nullable=True),
    CheckConstraint("(owner_id is null) <> (owner_name is null)", name="owner"),
    CheckConstraint("resource_owner_id is null or resource_owner_name is null", name="resource_owner"),
)
Index("ix_token_owner_id", token.c.owner_id)
Index("ix_token_owner_name", token.c.owner_name, postgresql_where=text("owner_name is not null"))
Index("ix_token_family_id", token.c.family_id)
Index("ix_token_parent_id", token.c.parent_id, postgresql_where=text("parent_id is not null"))
Index("ix_token_created_at", token.c.created_at, token.c.id)
Index("ix_token_expires_at", token.c.expires_at, postgresql_where=text("revoked_at is null"))
Index("ix_token_ended_at", func.least(token.c.revoked_at, token.c.expires_at))
Index("ix_token_successor_id", token.c.successor_id, postgresql_where=text("successor_id is not null"))
Index("ix_token_scopes", token.c.scopes, postgresql_using="gin", postgresql_ops={"scopes": "jsonb_path_ops"})
Index("ix_token_catalogs", token.c.catalogs, postgresql_using="gin")

token_node: Final = Table(
    "token_node",
    metadata,
    Column("token_id", ForeignKey("token.id"), primary_key=True),
    Column("node_id", ForeignKey("node.id"), primary_key=True),
)
Index("ix_token_node_node_id", token_node.c.node_id)

catalog_version: Final = Table(
    "catalog_version",
    metadata,
    Column("name", Text, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("text", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    set_now("installed_at"),
    Column("installed_by", Text, nullable=False),
)

idempotency: Final = Table(
    "idempotency",
    metadata,
    Column("caller", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("body_hash", LargeBinary, nullable=False),
    Column("response", JSONB, nullable=True),
    set_now("created_at"),
)
Index("ix_idempotency_created_at", idempotency.c.created_at)

audit: Final = Table(
    "audit",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    set_now("at"),
    Column("actor_token", Text, nullable=True),
    Column("actor_user", BigInteger, nullable=True),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("details", JSONB, nullable=False),
    Column("revision", BigInteger, nullable=True),
    # Groups and projects that it concerns: their owners may read it.
    Column("nodes", ARRAY(BigInteger), nullable=False, server_default=text("'{}'::bigint[]")),
    # Set once by the sealer, which links rows after their commit: a chain in each transaction would serialise them all.
    Column("seal", BigInteger, nullable=True, unique=True),
    Column("hash", LargeBinary, nullable=True),
    Column("prev_hash", LargeBinary, nullable=True),
)
Index("ix_audit_at", audit.c.at)
Index("ix_audit_subject", audit.c.subject, audit.c.id)
Index("ix_audit_actor_token", audit.c.actor_token, audit.c.id)
Index("ix_audit_actor_user", audit.c.actor_user, audit.c.id)
Index("ix_audit_nodes", audit.c.nodes, postgresql_using="gin")
Index("ix_audit_unsealed", audit.c.id, postgresql_where=text("seal is null"))

# Every process that decides, and what it has applied. It writes its row itself; whoever waits for a revoke reads them.
replica: Final = Table(
    "replica",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("name", Text, nullable=False),
    Column("epoch", Uuid, nullable=True),
    Column("applied_rev", BigInteger, nullable=False),
    # Grows with each report. Who sees it stand still long enough, by a clock of its own, knows that nobody is there.
    Column("beat", BigInteger, nullable=False),
    set_now("at"),
    Column("max_staleness", Double, nullable=False),
    Column("connections", Integer, nullable=False),
)
