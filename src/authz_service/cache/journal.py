"""What the change log touched lately: it keeps a slow load from putting back what was just dropped."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final, NamedTuple

from authz_service.cache.facts import Facts
from authz_service.store.changes import ALL_KEYS, Change, ChangeKind, Revision
from authz_service.tokens.model import TokenId

_REMEMBERED: Final = 100_000


class Touch(NamedTuple):
    """A thing that an entry was made of; `key` ALL_KEYS is anything of that kind."""

    kind: str
    key: str


class Journal:
    """Applies changes to the facts and remembers, for a bounded while, at which revision each thing was touched."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._touched: OrderedDict[Touch, Revision] = OrderedDict()
        self._kinds: dict[str, Revision] = {}
        self._whole: dict[str, Revision] = {}
        self._horizon = Revision(0)
        """Loads read before this revision are not trusted: what was touched then is forgotten."""

    def apply(self, changes: Iterable[Change]) -> None:
        """Drop what the changes touched. Ascending, each once."""
        for change in changes:
            if change.kind == ChangeKind.BARRIER:
                continue
            self._kinds[change.kind] = change.revision
            if change.key == ALL_KEYS:
                self._whole[change.kind] = change.revision
            else:
                touch = Touch(change.kind, change.key)
                self._touched[touch] = change.revision
                self._touched.move_to_end(touch)
                if len(self._touched) > _REMEMBERED:
                    _, forgotten = self._touched.popitem(last=False)
                    self._horizon = max(self._horizon, forgotten)
            self._drop(change)

    def restart(self, revision: Revision) -> None:
        """Drop everything: what is known starts at this revision of a history."""
        self._facts.drop_all()
        self._touched.clear()
        self._kinds.clear()
        self._whole.clear()
        self._horizon = revision

    def touched_after(self, revision: Revision, touches: Iterable[Touch]) -> bool:
        """Whether any of these was touched later than a load's snapshot, or so long ago that nobody remembers."""
        if revision < self._horizon:
            return True
        for touch in touches:
            if touch.key == ALL_KEYS:
                latest = self._kinds.get(touch.kind, Revision(0))
            else:
                latest = max(self._touched.get(touch, Revision(0)), self._whole.get(touch.kind, Revision(0)))
            if latest > revision:
                return True
        return False

    def _drop(self, change: Change) -> None:
        facts = self._facts
        whole = change.key == ALL_KEYS
        match change.kind:
            case ChangeKind.TOKEN if whole:
                facts.drop_tokens()
            case ChangeKind.TOKEN:
                facts.drop_token(TokenId(change.key))
            case ChangeKind.USER if whole:
                facts.drop_users()
            case ChangeKind.USER:
                facts.drop_user(int(change.key))
            case ChangeKind.MEMBERSHIP if whole:
                facts.drop_all_memberships()
            case ChangeKind.MEMBERSHIP:
                facts.drop_memberships(int(change.key))
            case ChangeKind.NODE if whole:
                facts.drop_nodes()
            case ChangeKind.NODE:
                facts.drop_node(int(change.key))
            case ChangeKind.CATALOG if whole:
                facts.drop_catalogs()
            case ChangeKind.CATALOG:
                facts.drop_catalog(change.key)
            case ChangeKind.POLICY:
                facts.drop_policies(None if whole else change.key)
            case ChangeKind.GRANT:
                facts.drop_grants(None if whole else TokenId(change.key))
            case _:  # a kind that a newer version writes: whatever it touched is gone with the rest
                facts.drop_all()
