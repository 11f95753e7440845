"""Decisions in words: what is missing, and the smallest thing that would change the answer."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from typing import Final

from authz_service.engine.model import Decision, PolicyNote, Reason
from authz_service.redaction import redact_tokens

_FIXED: Final[Mapping[Reason, str]] = {
    Reason.GRANTED: "allowed",
    Reason.GRANTED_OPEN: "allowed: any valid token may do this",
    Reason.GRANTED_PUBLIC_READ: "allowed: anyone may read this",
    Reason.MALFORMED_TOKEN: "this is no token of this service; check that it was copied whole",
    Reason.UNKNOWN_TOKEN: "this token is not known here; create one",
    Reason.TOKEN_REVOKED: "the token was revoked; create a new one",
    Reason.TOKEN_EXPIRED: "the token has expired; rotate it or create a new one",
    Reason.TOKEN_NOT_YET_VALID: "the token is not valid yet; wait until its `not_before`",
    Reason.OWNER_INACTIVE: "the token's owner is blocked or deleted",
    Reason.CONDITION_FAILED: "the token may not be used from this client address",
    Reason.CATALOG_MISMATCH: "the token was not made for this API or this version of its catalog",
    Reason.BAD_PATH: "the path is not in canonical form",
    Reason.BAD_DOCUMENT: "the GraphQL document cannot be read in one way only, or is beyond the limits",
    Reason.OPERATION_UNKNOWN: "the catalog does not know this operation",
    Reason.OPERATION_CLOSED: "no fine-grained token may do this",
    Reason.SCHEMA_REQUIRED: "the catalog needs the API's schema to decide this",
    Reason.PERMISSION_UNKNOWN: "the catalog has no such permission",
    Reason.TARGET_REQUIRED: "this needs a target: say which project, group or user is meant",
    Reason.OWNER_NOT_MEMBER: "the token's owner is no member there; make them one",
    Reason.OWNER_ROLE_TOO_LOW: "the token's owner has too low a role there; raise it",
    Reason.POLICY_FORBIDS_KIND: "a policy there forbids this kind of token",
    Reason.LIFETIME_EXCEEDS_POLICY: "a policy there allows shorter lives only; rotate to a shorter one",
    Reason.APPROVAL_PENDING: "the group has not approved the token yet; ask an owner",
    Reason.APPROVAL_DENIED: "the group's owners denied the token",
    Reason.APPROVAL_REVOKED: "the group's owners revoked their approval",
}


def describe(decision: Decision) -> str:
    """One sentence with everything that is missing (rule A9) and the smallest fix. Same decision, same text.

    It names the target: never show it to an end client when `hide` is set; `HIDDEN_MESSAGE` is what they see.
    """
    if decision.says:
        return decision.says
    match decision.reason:
        case Reason.PERMISSION_MISSING if decision.missing:
            listed = ", ".join(f"`{item.permission}` on {_place(item.target)}" for item in decision.missing)
            return f"the token lacks {listed}; add {'it' if len(decision.missing) == 1 else 'them'} to its scopes"
        case Reason.PERMISSION_MISSING:
            return "nothing that the token holds allows this"
        case Reason.OUTSIDE_REACH if decision.missing:
            listed = ", ".join(f"`{item.permission}` on {_place(item.target)}" for item in decision.missing)
            return f"the token's reach ends before {listed}; add the place to a scope that holds the permission"
        case Reason.OUTSIDE_REACH:
            return f"the token does not reach {_place(decision.target)}"
        case Reason.TARGET_UNKNOWN:
            return f"there is no {_place(decision.target)}; write a path, or a kind and an id as `project:42`"
        case Reason.BOUNDARY_MISMATCH:
            return f"this permission does not exist at {_place(decision.target)}; name a target of another kind"
        case Reason.ATTRIBUTE_MISSING:
            listed = ", ".join(f"`{name}`" for name in decision.absent)
            return f"the answer depends on {listed}: send it with the request"
        case Reason.OWNER_NOT_MEMBER | Reason.OWNER_ROLE_TOO_LOW if decision.target is not None:
            return f"{_FIXED[decision.reason]}: {_place(decision.target)}"
        case reason if decision.policy is not None:
            return _describe_policy(reason, decision.policy)
        case reason:
            return _FIXED[reason]


def say_mismatch(catalog: str, version: int | None) -> str:
    """Of the catalog that was asked about, as it was written: whoever asked may have meant another."""
    name = redact_tokens(catalog[:80])
    named = name if version is None or version < 0 else f"{name}@{version}"
    return f"the token was not made for the catalog `{named}`; check its name, or issue a token for it"


HIDDEN_MESSAGE: Final = "there is no such target, or this token may not see it"
"""Towards end clients, for hidden and unknown targets alike (rule A10)."""


_REMEDIES: Final[Mapping[Reason, str]] = {
    Reason.POLICY_FORBIDS_KIND: "use a token of another kind",
    Reason.LIFETIME_EXCEEDS_POLICY: "rotate to a shorter one",
    Reason.APPROVAL_PENDING: "an owner of the group has not approved this yet; ask one",
    Reason.APPROVAL_DENIED: "the owners of the group denied it; ask them again with a reason",
    Reason.APPROVAL_REVOKED: "the owners of the group revoked their approval; ask them again",
}


def _describe_policy(reason: Reason, note: PolicyNote) -> str:
    """Which policy, at which place, since when."""
    since = "" if note.since is None else f" since {note.since.astimezone(UTC):%Y-%m-%d}"
    who = f"`{note.place[:200]}`" if note.node is not None else f"the policy of `{note.place[:200]}`"
    return f"{who} {note.says}{since}; {_REMEDIES[reason]}"


def _place(target: str | None) -> str:
    return "such target" if target is None else f"`{target[:200]}`"
