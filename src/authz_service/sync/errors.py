"""What ends a sync before it has changed anything here. None of their messages holds a token or a query."""

from __future__ import annotations


class SyncError(Exception):
    """Base of them all; `message` says what to do next."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class UpstreamRefusedError(SyncError):
    """The upstream does not take the token, or shows it too little. What was fetched is kept."""


class UpstreamDownError(SyncError):
    """The upstream does not answer, or asks to wait for longer than this run may. What was fetched is kept."""


class StrangeAnswerError(SyncError):
    """The upstream answered, and not as its API does."""


class StateFileError(SyncError):
    """The file of what is fetched already cannot be used."""


class TooManyDeletionsError(SyncError):
    """More of what is here would go than this run may delete."""
