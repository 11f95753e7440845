"""What a policy enforcement point asks, before anything is known of the secret, and what it is answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from authz_service.directory.model import Attributes
from authz_service.engine.model import Decision, OperationRequest, PermissionRequest, TracedToken
from authz_service.engine.steps import Fix
from authz_service.pdp.documents import DocumentAnswer, GraphqlCall
from authz_service.pdp.routing import HttpCall
from authz_service.store.changes import Stamp, format_revision
from authz_service.tokens.model import Token

__all__ = ["Answer", "Ask", "Freshly", "HttpCall", "Question", "Stamp", "format_revision"]


@dataclass(frozen=True, slots=True)
class Ask:
    """One item of a question: what, where, with which attributes."""

    about: PermissionRequest | OperationRequest | HttpCall | GraphqlCall
    attributes: Attributes = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Freshly:
    """How fresh an answer must be. `at_least` is a revision text as an earlier answer gave it."""

    at_least: str | None = None
    fully_consistent: bool = False


@dataclass(frozen=True, slots=True)
class Question:
    """One or many items asked of one token. `catalog` is a name, or `name@version` to allow no other version."""

    items: Sequence[Ask]
    catalog: str
    client_address: str | None = None
    freshly: Freshly = field(default_factory=Freshly)
    explain: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """A decision with what it was made of. `token` is None when the secret is no token of ours."""

    decision: Decision
    token: Token | None
    stamp: Stamp
    trace: Sequence[TracedToken] | None = None
    """How the decision came about, where the question asked for it; empty for a secret that is no token of ours."""
    document: DocumentAnswer | None = None
    """What a decision on GraphQL documents was made of."""
    fixes: Sequence[Fix] = ()
    """Of a denial that was to be explained: what would turn it into an allow, the smallest first."""
