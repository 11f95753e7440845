"""Revisions as answers show them: the way for routes, which never speak to the store."""

from __future__ import annotations

from authz_service.store.changes import Stamp, format_revision

__all__ = ["Stamp", "revision_text"]


def revision_text(stamp: Stamp) -> str:
    """`r1.<epoch8>.<rev>`: opaque to clients, who send it back as `at_least`."""
    return format_revision(stamp)
