"""Console sessions and passwords."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "20261123_sessions"
down_revision = "20261123_trust"
branch_labels = None
depends_on = None

STATEMENTS = (
    """
    create table password (
        user_id bigint constraint pk_password primary key constraint fk_password_user_id references node,
        hash text not null,
        changed_at timestamptz not null default authz_now()
    )
    """,
    """
    create table sign_in_link (
        digest bytea constraint pk_sign_in_link primary key,
        user_id bigint not null constraint fk_sign_in_link_user_id references node,
        expires_at timestamptz not null
    )
    """,
    """
    create table session (
        digest bytea constraint pk_session primary key,
        token_id text not null constraint fk_session_token_id references token on delete cascade,
        user_id bigint not null constraint fk_session_user_id references node,
        opened_by text not null
            constraint ck_session_opened_by check (opened_by in ('password', 'link', 'token')),
        created_at timestamptz not null default authz_now(),
        seen_at timestamptz not null default authz_now(),
        expires_at timestamptz not null,
        address text,
        agent text not null
    )
    """,
    "create index ix_session_token_id on session (token_id)",
    "create index ix_session_user_id on session (user_id)",
    "create index ix_session_expires_at on session (expires_at)",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(sa.text(statement))


def downgrade() -> None:
    op.execute(sa.text("drop table session, sign_in_link, password"))
