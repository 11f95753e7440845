"""What can go wrong between a client and the service. None of it ever means allow."""

from __future__ import annotations

from collections.abc import Sequence

from authz_service.errors import Fault


class ClientError(Exception):
    """Base of all errors of the client; `message` says what to do next."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class UnreachableError(ClientError):
    """No answer, or none of this service: nothing is known, so do what a deny asks for."""


class UndecidedError(ClientError):
    """The service cannot decide now (503). Treat it as a deny; `retry_after` is in seconds."""

    def __init__(self, message: str, *, reason: str, retry_after: float) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after = retry_after


class RefusedError(ClientError):
    """The service refused the request itself: `status` and the stable `code` say why, `faults` name what is wrong."""

    def __init__(
        self, message: str, *, status: int, code: str, faults: Sequence[Fault] = (), request_id: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.faults = tuple(faults)
        self.request_id = request_id
