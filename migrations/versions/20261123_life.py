"""What a token's life needs: families, templates, notices, sweeps."""

from __future__ import annotations

revision = "20261123_life"
down_revision = "20261123_policies"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing yet."""


def downgrade() -> None:
    """Nothing yet."""
