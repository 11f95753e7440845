"""Decisions as bytes: the one place that says what an answer of `/check` and `/check/batch` looks like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from authz_service.engine.explain import describe
from authz_service.engine.model import Decision, TracedToken
from authz_service.engine.steps import Fix
from authz_service.pdp.question import Answer, Stamp, format_revision
from authz_service.tokens.model import Token

JSON_TYPE: Final = "application/json"


def encode_decision(
    decision: Decision, token: Token | None, trace: Sequence[TracedToken] | None = None, fixes: Sequence[Fix] = ()
) -> bytes:
    """One decision without its revision. The same decision gives the same bytes: no times, no random ids."""
    if decision.allowed:
        found: dict[str, Any] = {"decision": "allow", "reason": decision.reason}
    else:
        found = {"decision": "deny", "reason": decision.reason, "message": describe(decision)}
        if decision.missing:
            found["missing"] = decision.missing
        found["hide"] = decision.hide
    if token is not None:
        found["token_id"] = token.id
    if trace is not None:
        found["explanation"] = [_explain(traced) for traced in trace]
        if not decision.allowed:
            found["fixes"] = [fix.document() for fix in fixes]
    return msgspec.json.encode(found)


def _explain(traced: TracedToken) -> dict[str, Any]:
    """How one token of the line fared, set by set and item by item."""
    sets = [
        {
            "reason": one.reason,
            "needs": [
                {"permission": item.permission, "boundary": item.boundary, "target": item.target, "reason": item.reason}
                for item in one.items
            ],
            "when": dict(one.when),
            "min_role": one.min_role,
            "assumed": dict(one.assumed),
        }
        for one in traced.sets
    ]
    return {"token_id": traced.token, "catalog": traced.catalog, "reason": traced.reason, "sets": sets}


def revision_tail(stamp: Stamp) -> bytes:
    """What ends the body of every answer: the revision, and the brace."""
    return b',"revision":"' + format_revision(stamp).encode() + b'"}'


def with_revision(decision: bytes, tail: bytes) -> bytes:
    """The body of one answer."""
    return decision[:-1] + tail


def with_revision_many(decisions: Sequence[bytes], tail: bytes) -> bytes:
    """The body of a batch's answers, which have one revision."""
    return b'{"decisions":[' + b",".join(decisions) + b"]" + tail


def encode_answer(answer: Answer) -> bytes:
    return with_revision(
        encode_decision(answer.decision, answer.token, answer.trace, answer.fixes), revision_tail(answer.stamp)
    )


def encode_answers(answers: Sequence[Answer]) -> bytes:
    decisions = [encode_decision(answer.decision, answer.token) for answer in answers]
    return with_revision_many(decisions, revision_tail(answers[0].stamp))
