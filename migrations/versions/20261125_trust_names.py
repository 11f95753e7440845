"""Which trust rules an exchange has to name."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "20261125_trust_names"
down_revision = "20261124_identities"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Those that are there stay as they are: jobs that name none go on.
    op.execute(sa.text("alter table trust_rule add column requires_name boolean not null default false"))


def downgrade() -> None:
    op.execute(sa.text("alter table trust_rule drop column requires_name"))
