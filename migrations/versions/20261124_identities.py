"""Who a user is elsewhere."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "20261124_identities"
down_revision = "20261123_sessions"
branch_labels = None
depends_on = None

STATEMENTS = (
    """
    create table identity (
        issuer text,
        subject text,
        user_id bigint not null constraint fk_identity_user_id references node,
        created_at timestamptz not null default authz_now(),
        constraint pk_identity primary key (issuer, subject)
    )
    """,
    "create index ix_identity_user_id on identity (user_id)",
    # A sign-in that was finished: the same answer of the provider opens no second session.
    """
    create table identity_use (
        digest bytea constraint pk_identity_use primary key,
        expires_at timestamptz not null
    )
    """,
    "create index ix_identity_use_expires_at on identity_use (expires_at)",
)
WAYS = "alter table session add constraint ck_session_opened_by check (opened_by in ({}))"


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(sa.text(statement))
    op.execute(sa.text("alter table session drop constraint ck_session_opened_by"))
    op.execute(sa.text(WAYS.format("'password', 'link', 'token', 'openid'")))


def downgrade() -> None:
    op.execute(sa.text("delete from session where opened_by = 'openid'"))
    op.execute(sa.text("alter table session drop constraint ck_session_opened_by"))
    op.execute(sa.text(WAYS.format("'password', 'link', 'token'")))
    op.execute(sa.text("drop table identity_use, identity"))
