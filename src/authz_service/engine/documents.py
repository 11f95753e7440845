"""A GraphQL document decided: each operation that it reaches by the rules, and all of them as one answer (rule A6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from authz_service.catalog.graphql_places import VALUE, Named
from authz_service.catalog.graphql_reach import Part
from authz_service.engine.model import (
    REASON_ORDER,
    TOKEN_REASONS,
    Decision,
    OperationRequest,
    Reason,
)
from authz_service.tokens.model import Token

_ABOUT_ALL = frozenset({*TOKEN_REASONS, Reason.CATALOG_MISMATCH})
"""Denials that no part has a share in."""


@dataclass(frozen=True, slots=True)
class DecidedPart:
    """One operation at one place, and what was decided of it alone."""

    part: Part
    decision: Decision


def request_of(part: Part, target: str | None) -> OperationRequest:
    """The question that a part is. `target` is the caller's, for what the document does not place."""
    parameters = {}
    match part.spot:
        case Named(names, value):
            parameters = {} if names is None else {VALUE: value}
            target = value if names is None else f"{names.value}:{value}"
        case None:
            target = None
    return OperationRequest(
        "" if part.needs_schema else part.operation,  # what lies below a listed field is not what the field needs
        parameters,
        target,
        mutates=part.mutates,
        at=part.target,
        unlisted=Reason.SCHEMA_REQUIRED if part.needs_schema else Reason.OPERATION_UNKNOWN,
        wide=True,
    )


def is_about_all(token: Token, decision: Decision) -> bool:
    """Whether this denial is that of the whole document, whatever it reaches: the token's own, or the catalog's."""
    return decision.reason in _ABOUT_ALL and decision.failed_token == token.id


def combine(decisions: Sequence[Decision]) -> Decision:
    """One answer for many operations that must all be allowed (A6)."""
    denials = [decision for decision in decisions if not decision.allowed]
    if not denials:
        reasons = {decision.reason for decision in decisions}
        order = (Reason.GRANTED_PUBLIC_READ, Reason.GRANTED, Reason.GRANTED_OPEN)
        reason = next(each for each in order if each in reasons)
        used = tuple(dict.fromkeys(use for decision in decisions for use in decision.used))
        return replace(next(decision for decision in decisions if decision.reason is reason), used=used)
    chosen = min(denials, key=lambda decision: REASON_ORDER[decision.reason])
    missing = tuple(dict.fromkeys(item for decision in denials for item in decision.missing))
    return replace(chosen, missing=missing, hide=any(decision.hide for decision in denials))
