"""Console sessions and passwords."""

from __future__ import annotations

revision = "20261123_sessions"
down_revision = "20261123_trust"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing yet."""


def downgrade() -> None:
    """Nothing yet."""
