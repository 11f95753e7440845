"""The audit chain, webhooks and their deliveries, leaks."""

from __future__ import annotations

revision = "20261123_records"
down_revision = "20261123_life"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing yet."""


def downgrade() -> None:
    """Nothing yet."""
