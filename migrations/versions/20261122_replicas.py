"""Replicas: who follows the change log and how far; and when each history began."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "20261122_replicas"
down_revision = "20261121_first_tables"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Written once a second by each worker, always in place: room for that in each page, and few pages.
    op.execute(
        sa.text(
            """
            create table replica (
                id uuid constraint pk_replica primary key,
                name text not null,
                epoch uuid,
                applied_rev bigint not null,
                beat bigint not null,
                at timestamptz not null default authz_now(),
                max_staleness double precision not null,
                connections integer not null
            ) with (fillfactor = 20)
            """
        )
    )
    op.execute(sa.text("alter table revision add column began timestamptz not null default authz_now()"))


def downgrade() -> None:
    op.execute(sa.text("alter table revision drop column began"))
    op.execute(sa.text("drop table replica"))
