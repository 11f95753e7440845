"""Policies, grant requests and grants."""

from __future__ import annotations

revision = "20261123_policies"
down_revision = "20261122_replicas"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing yet."""


def downgrade() -> None:
    """Nothing yet."""
