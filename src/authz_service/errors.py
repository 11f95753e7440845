"""Every error the service raises on purpose: a stable public code, a message, and all faults that were found.

An error knows no HTTP status: `api/problems.py` holds the one table that maps codes to statuses.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with an input.

    `where` is a JSON pointer (`/scopes/0/permissions/2`), a line (`line 7`) or `file:line`; `code` is stable.
    """

    where: str
    code: str
    message: str


class AuthzError(Exception):
    """Base of all deliberate errors. `code` is public for ever; `faults` lists every fault, not the first."""

    code: ClassVar[str] = "internal"

    def __init__(self, message: str, *, faults: Iterable[Fault] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.faults: tuple[Fault, ...] = tuple(faults)


class InvalidInputError(AuthzError):
    """Something in the input is wrong: the faults say what and where; nothing was stored."""

    code = "invalid_input"


class InvalidBodyError(AuthzError):
    """The body is not the JSON document this route takes."""

    code = "invalid_body"


class BodyTooLargeError(AuthzError):
    """The body is larger than this route reads."""

    code = "body_too_large"


class SecretInUrlError(AuthzError):
    """A query parameter looks like a token: it is refused, because URLs end up in logs."""

    code = "secret_in_url"


class CatalogInvalidError(AuthzError):
    """A catalog file has faults; each names its file and line."""

    code = "catalog_invalid"


class UnauthenticatedError(AuthzError):
    """The caller showed no valid token."""

    code = "unauthenticated"


class ForbiddenError(AuthzError):
    """The caller is known and may not do this."""

    code = "forbidden"


class NotFoundError(AuthzError):
    """There is no such thing, or the caller may not see it: both look the same."""

    code = "not_found"


class MethodNotAllowedError(AuthzError):
    """The route exists, the method does not."""

    code = "method_not_allowed"


class ConflictError(AuthzError):
    """The state of the thing does not allow this now; nothing was changed."""

    code = "conflict"


class IdempotencyConflictError(AuthzError):
    """An `Idempotency-Key` came again with another body."""

    code = "idempotency_key_reused"


class PreconditionFailedError(AuthzError):
    """`If-Match` names another version of the thing."""

    code = "precondition_failed"


class PreconditionRequiredError(AuthzError):
    """An edit that does not say, by `If-Match`, which version of the thing it was made from."""

    code = "precondition_required"


class RevisionUnknownError(AuthzError):
    """`at_least` names a revision of another history, or one that does not exist yet."""

    code = "revision_unknown"


class CannotDecideError(AuthzError):
    """No decision is possible now. Whoever asked must treat it as a deny (rule A11)."""

    code = "cannot_decide"


class RateLimitedError(AuthzError):
    """Too many tries in too little time; nothing was looked at. Worth trying again after so many seconds."""

    code = "rate_limited"

    def __init__(self, message: str, *, retry_after: int = 60) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class StaleError(CannotDecideError):
    """This replica cannot prove that it is fresh."""

    code = "stale"


class NotFreshEnoughError(CannotDecideError):
    """This replica did not reach the revision asked for in time."""

    code = "not_fresh_enough"


class RewoundError(CannotDecideError):
    """The database's history went back; an operator has to accept it."""

    code = "rewound"


class OverloadedError(CannotDecideError):
    """Load was shed; try again shortly."""

    code = "overloaded"


class DatabaseUnavailableError(AuthzError):
    """The database cannot be reached or refused us."""

    code = "database_unavailable"


class SchemaOutdatedError(AuthzError):
    """The database schema is not the one this version needs."""

    code = "schema_outdated"


class SchemaBehindError(SchemaOutdatedError):
    """The schema is one that this version came from: a migration brings it up, and may be under way."""


class StartError(AuthzError):
    """The service cannot start as configured."""

    code = "cannot_start"
