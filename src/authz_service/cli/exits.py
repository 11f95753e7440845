"""Exit statuses of every command: scripts rely on them, so they never change."""

from __future__ import annotations

from typing import Final

OK: Final = 0
"""Done; allowed."""
DENIED: Final = 1
"""Denied; refused by the service; failed."""
USAGE: Final = 2
"""The command was not understood, or something it needs is not set."""
UNREACHABLE: Final = 3
"""No answer from the service, or none that decides: treat it as a deny."""
