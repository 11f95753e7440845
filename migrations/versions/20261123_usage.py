"""Usage of tokens by permission and place."""

from __future__ import annotations

revision = "20261123_usage"
down_revision = "20261123_records"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing yet."""


def downgrade() -> None:
    """Nothing yet."""
