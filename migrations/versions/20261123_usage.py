"""Usage of tokens by permission and place."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "20261123_usage"
down_revision = "20261123_records"
branch_labels = None
depends_on = None

STATEMENTS = (
    # Today's rows are written again and again, in place: room for that in each page.
    """
    create table token_usage (
        token_id text constraint fk_token_usage_token_id references token on delete cascade,
        day date,
        catalog text,
        permission text,
        place text,
        calls bigint not null,
        last_at timestamptz not null,
        constraint pk_token_usage primary key (token_id, day, catalog, permission, place)
    ) with (fillfactor = 70)
    """,
    "create index ix_token_usage_day on token_usage (day)",
    "create index ix_token_usage_permission on token_usage (catalog, permission, token_id)",
    """
    create table token_network (
        token_id text constraint fk_token_network_token_id references token on delete cascade,
        network text,
        calls bigint not null,
        first_at timestamptz not null,
        last_at timestamptz not null,
        constraint pk_token_network primary key (token_id, network)
    ) with (fillfactor = 70)
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(sa.text(statement))


def downgrade() -> None:
    op.execute(sa.text("drop table token_network, token_usage"))
