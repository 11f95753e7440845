"""Decisions as clients read them, and as they should."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from authz_service.directory.model import NodeKind
from authz_service.engine.model import Decision, Missing
from authz_service.tokens.model import TokenId

Told = tuple[Any, ...]
"""(decision, reason, missing, hide, token id)."""


def told(decision: Decision, token: TokenId | None) -> Told:
    """What API servers are told: `hide` with denials alone, the id of a token that is ours."""
    if decision.allowed:
        return "allow", decision.reason, (), None, token
    return "deny", decision.reason, decision.missing, decision.hide, token


def told_to_itself(decision: Decision, token: TokenId) -> Told:
    """What an end client is told where nothing is hidden from it."""
    return (*told(decision, token)[:3], None, token)


def read_answer(found: Mapping[str, Any], whole: Mapping[str, Any]) -> Told:
    """One decision of an answer; in a batch `whole` is what it stands in."""
    missing = tuple(
        Missing(one["permission"], NodeKind(one["boundary"]), one["target"]) for one in found.get("missing", ())
    )
    return found["decision"], found["reason"], missing, found.get("hide"), found.get("token_id", whole.get("token_id"))


def compared(decision: Decision) -> tuple[object, ...]:
    """All of a decision but `target`, which is for messages."""
    return (
        decision.allowed,
        decision.reason,
        decision.missing,
        decision.hide,
        decision.absent,
        decision.failed_token,
    )
