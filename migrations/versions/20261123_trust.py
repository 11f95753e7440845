"""Trust rules of token exchange."""

from __future__ import annotations

revision = "20261123_trust"
down_revision = "20261123_usage"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing yet."""


def downgrade() -> None:
    """Nothing yet."""
