"""The naive oracle: what the right answer is, from plain texts and loops. It shares no code with what is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

GRANTED = "granted"
OUTSIDE_REACH = "outside_reach"
PERMISSION_MISSING = "permission_missing"
OWNER_NOT_MEMBER = "owner_not_member"


@dataclass(frozen=True, slots=True)
class Grant:
    """Some permissions on a project, or on a group and all that lies below it."""

    node: str
    permissions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Holder:
    """One token: who owns it and what it was given."""

    name: str
    owner: str
    grants: tuple[Grant, ...]


@dataclass(frozen=True, slots=True)
class Ask:
    """One question. `token` is the position of its token in the workload."""

    token: int
    permission: str
    target: str


def right_answer(holder: Holder, ask: Ask, memberships: Mapping[str, Sequence[str]]) -> str:
    """The reason code of the right answer; everything but GRANTED is a deny."""
    somewhere = False
    here = False
    for grant in holder.grants:
        for permission in grant.permissions:
            if permission == ask.permission:
                somewhere = True
                if covers(grant.node, ask.target):
                    here = True
    if not here:
        return OUTSIDE_REACH if somewhere else PERMISSION_MISSING
    for node in memberships[holder.owner]:
        if covers(node, ask.target):
            return GRANTED
    return OWNER_NOT_MEMBER


def covers(node: str, target: str) -> bool:
    return target == node or target.startswith(node + "/")
