"""A token while it is being put together: read from a form or from a URL, carried from step to step, never stored."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from authz_service.admin.drafts import ScopeDraft, TokenDraft
from authz_service.console.guarding import Form
from authz_service.tokens.model import ReachKind

_LONGEST: Final = 1100
_MOST_PARTS: Final = 20
_MOST_NODES: Final = 1000
_MOST_PERMISSIONS: Final = 2000
DAYS: Final = (1, 7, 30, 90, 365)
DEFAULT_DAYS: Final = "30"


@dataclass(frozen=True, slots=True)
class Part:
    """One scope as it is chosen: where, and what there."""

    reach: ReachKind = ReachKind.SELECTED
    nodes: tuple[str, ...] = ()
    permissions: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """For a hidden field."""
        return json.dumps([self.reach.value, list(self.nodes), list(self.permissions)], separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Draft:
    """All that the steps have gathered. `part` is the scope under way, `parts` are those put aside before it.

    `expires` is a number of days, `date` or `never`; `key` makes a form that is sent twice create one token.
    """

    catalog: str = ""
    part: Part = Part()
    parts: tuple[Part, ...] = ()
    name: str = ""
    owner: str = ""
    reason: str = ""
    expires: str = DEFAULT_DAYS
    date: str = ""
    networks: str = ""
    resource_owner: str = ""
    evaluates: str = ""
    key: str = ""

    @property
    def all_parts(self) -> tuple[Part, ...]:
        """Those that say something: the one under way counts once it has permissions."""
        return (*self.parts, self.part) if self.part.permissions else self.parts

    def fields(self, *without: str) -> list[tuple[str, str]]:
        """Name and value of every hidden field; `without` names those that the page shows itself."""
        found = [
            ("catalog", self.catalog),
            ("reach", self.part.reach.value),
            *(("node", node) for node in self.part.nodes),
            *(("p", name) for name in self.part.permissions),
            *(("part", part.text) for part in self.parts),
            ("name", self.name),
            ("owner", self.owner),
            ("reason", self.reason),
            ("expires", self.expires),
            ("date", self.date),
            ("networks", self.networks),
            ("resource_owner", self.resource_owner),
            ("evaluates", self.evaluates),
            ("key", self.key),
        ]
        return [(name, value) for name, value in found if name not in without and value]

    def with_part(self, part: Part) -> Draft:
        return replace(self, part=part)

    def ends_at(self, now: datetime) -> datetime | None:
        """The expiry as chosen; a date ends with its day, in UTC. None for never. Raises ValueError for no date."""
        if self.expires == "never":
            return None
        if self.expires == "date":
            return datetime.fromisoformat(self.date[:10]).replace(tzinfo=UTC) + timedelta(days=1)
        days = int(self.expires) if self.expires.isascii() and self.expires.isdigit() else int(DEFAULT_DAYS)
        return now.replace(microsecond=0) + timedelta(days=min(days, 36_500))

    def token_draft(self, now: datetime) -> TokenDraft:
        """What is asked for. Raises ValueError where the date is none."""
        networks = tuple(self.networks.replace(",", " ").split())
        return TokenDraft(
            name=self.name,
            owner=self.owner or None,
            catalog=self.catalog or None,
            scopes=tuple(ScopeDraft(part.reach, part.permissions, part.nodes) for part in self.all_parts),
            expires_at=self.ends_at(now),
            reason=self.reason,
            networks=networks,
            resource_owner=self.resource_owner or None,
            evaluates=tuple(self.evaluates.replace(",", " ").split()),
        )


def read_draft(form: Form) -> Draft:
    """From a form or a URL's parameters. What makes no sense is left out; what is wrong is said at the end."""
    days = form.get("expires", DEFAULT_DAYS)
    return Draft(
        catalog=form.get("catalog")[:80],
        part=Part(
            _reach(form.get("reach")),
            _clean(form.all("node"), _MOST_NODES),
            _clean(form.all("p"), _MOST_PERMISSIONS),
        ),
        parts=tuple(part for text in form.all("part")[:_MOST_PARTS] if (part := _read_part(text)) is not None),
        name=form.get("name")[:200],
        owner=form.get("owner")[:255],
        reason=form.get("reason")[:2000],
        expires=days if days in ("date", "never") or (days.isascii() and days.isdigit() and len(days) < 6) else "30",
        date=form.get("date")[:10],
        networks=form.get("networks")[:4000],
        resource_owner=form.get("resource_owner")[:_LONGEST],
        evaluates=form.get("evaluates")[:1000],
        key=form.get("key")[:64] or secrets.token_urlsafe(18),
    )


def _reach(text: str) -> ReachKind:
    return next((one for one in ReachKind if one.value == text), ReachKind.SELECTED)


def _clean(given: Iterable[str], most: int) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text[:_LONGEST] for text in given if text))[:most]


def _read_part(text: str) -> Part | None:
    try:
        reach, nodes, permissions = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return None
    if not (_is_texts(nodes) and _is_texts(permissions) and isinstance(reach, str)):
        return None
    return Part(_reach(reach), _clean(nodes, _MOST_NODES), _clean(permissions, _MOST_PERMISSIONS))


def _is_texts(given: object) -> bool:
    return isinstance(given, Sequence) and not isinstance(given, str) and all(isinstance(one, str) for one in given)
