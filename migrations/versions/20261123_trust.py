"""Trust rules of token exchange."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "20261123_trust"
down_revision = "20261123_usage"
branch_labels = None
depends_on = None

STATEMENTS = (
    """
    create table trust_rule (
        id text constraint pk_trust_rule primary key,
        node_id bigint not null constraint fk_trust_rule_node_id references node,
        name text not null,
        issuer text not null,
        audience text not null,
        claims jsonb not null,
        gives jsonb not null,
        lifetime integer not null,
        keys jsonb,
        token_id text not null constraint fk_trust_rule_token_id references token on delete cascade,
        created_at timestamptz not null default authz_now()
    )
    """,
    "create index ix_trust_rule_node_id on trust_rule (node_id, id)",
    "create index ix_trust_rule_issuer on trust_rule (issuer, audience)",
    "create index ix_trust_rule_token_id on trust_rule (token_id)",
    # Outlives its rule: what was shown once is not taken again by another.
    """
    create table trust_use (
        digest bytea constraint pk_trust_use primary key,
        rule_id text not null,
        token_id text not null,
        expires_at timestamptz not null
    )
    """,
    "create index ix_trust_use_rule_id on trust_use (rule_id)",
    "create index ix_trust_use_expires_at on trust_use (expires_at)",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(sa.text(statement))


def downgrade() -> None:
    op.execute(sa.text("drop table trust_use, trust_rule"))
