"""Tokens that were used where a group's approval is missing: noted while deciding, asked for afterwards (P4)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from authz_service.cache.bounded import Bounded
from authz_service.directory.model import NodeId
from authz_service.engine.model import Decision, Reason
from authz_service.tokens.model import TokenId

_MOST: Final = 10_000


@dataclass(frozen=True, slots=True)
class Unasked:
    """A token, and the group that has not been asked yet, as far as this process knows."""

    token: TokenId
    catalog: str
    group: NodeId


class UnaskedBook:
    """Bounded: what does not fit is noted again at a later use. Each is handed out once."""

    def __init__(self) -> None:
        self._waiting: dict[Unasked, None] = {}
        self._seen: Bounded[Unasked, None] = Bounded(_MOST)

    def note(self, decision: Decision, catalog: str) -> None:
        """Call it for every denial; all but missing approvals are passed over."""
        policy = decision.policy
        if decision.reason is not Reason.APPROVAL_PENDING or policy is None or policy.node is None:
            return
        if decision.failed_token is None:
            return
        one = Unasked(decision.failed_token, catalog, policy.node)
        if one not in self._seen and len(self._waiting) < _MOST:
            self._waiting[one] = None

    def give_back(self, taken: Unasked) -> None:
        """What could not be asked: its next use notes it again."""
        self._seen.pop(taken, None)

    def take(self) -> Iterable[Unasked]:
        """What was noted since the last take."""
        taken = list(self._waiting)
        self._waiting.clear()
        for one in taken:
            self._seen[one] = None
        return taken
