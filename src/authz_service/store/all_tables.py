"""Every table there is: `metadata` is whole for whoever takes it from here."""

from __future__ import annotations

from authz_service.store import (
    identity_tables,
    life_tables,
    policy_tables,
    record_tables,
    session_tables,
    trust_tables,
    usage_tables,
)
from authz_service.store.tables import metadata

__all__ = [
    "identity_tables",
    "life_tables",
    "metadata",
    "policy_tables",
    "record_tables",
    "session_tables",
    "trust_tables",
    "usage_tables",
]
