"""What a token's life needs: who replaced whom, whose secret it was, sweeps, and the one way to forget."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "20261123_life"
down_revision = "20261123_policies"
branch_labels = None
depends_on = None

TOKENS = (
    "alter table token add column successor_id text constraint fk_token_successor_id references token",
    "alter table token add column foreign_prefix text",
    # Not concurrently: replicas that wait for the migration lock hold a snapshot, which that would wait for.
    "create index ix_token_ended_at on token (least(revoked_at, expires_at))",
    "create index ix_token_successor_id on token (successor_id) where successor_id is not null",
)

SWEEPS = (
    """
    create table sweep (
        name text constraint pk_sweep primary key,
        holder uuid not null,
        started_at timestamptz not null default authz_now(),
        at timestamptz not null default authz_now(),
        finished_at timestamptz,
        done bigint not null
    )
    """,
)

# The role that serves may not delete a token. It may have those forgotten that ended long enough ago: the function
# looks again, as the owner of the tables, and a day is the least whatever it is told.
PURGE = (
    """
    create function purge_tokens(ids text[], before timestamptz) returns setof text
    language sql volatile security definer set search_path from current as
    $$
        delete from token where id = any (ids)
        and least(revoked_at, expires_at) < least(before, authz_now() - interval '1 day')
        returning id
    $$
    """,
    "revoke all on function purge_tokens(text[], timestamptz) from public",
)


def upgrade() -> None:
    for statement in (*TOKENS, *SWEEPS, *PURGE):
        op.execute(sa.text(statement))


def downgrade() -> None:
    op.execute(sa.text("drop function purge_tokens(text[], timestamptz)"))
    op.execute(sa.text("drop table sweep"))
    op.execute(sa.text("drop index ix_token_successor_id, ix_token_ended_at"))
    op.execute(sa.text("alter table token drop column foreign_prefix, drop column successor_id"))
