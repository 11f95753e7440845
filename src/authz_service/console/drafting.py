"""A token while it is being put together: read from a form or from a URL, carried from step to step, never stored."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

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
    catalog: str = ""
    """A label; empty for the draft's own. Only a token that exists may have several."""

    @property
    def text(self) -> str:
        """For a hidden field."""
        written = [self.reach.value, list(self.nodes), list(self.permissions), self.catalog]
        return json.dumps(written, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Draft:
    """All that the steps have gathered. `part` is the scope under way, `parts` are those put aside before it.

    `expires` is a number of days, `date`, `never` or, of a token that exists, `keep`; `key` makes a form that is sent
    twice create one token. `etag` is that of the token that is edited, as it was read.
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
    rotates: str = ""
    """`yes`: it may rotate itself."""
    legacy: tuple[str, ...] = ()
    etag: str = ""

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
            ("rotates", self.rotates),
            *(("legacy", name) for name in self.legacy),
            ("etag", self.etag),
        ]
        return [(name, value) for name, value in found if name not in without and value]

    def with_part(self, part: Part) -> Draft:
        return replace(self, part=part)

    def opened(self, position: int) -> Draft:
        """With this one of `all_parts` under way, in its catalog, and the others put aside; as it is for none."""
        every = self.all_parts
        if not 0 <= position < len(every):
            return self
        part = every[position]
        aside = tuple(one if one.catalog else replace(one, catalog=self.catalog) for one in every)
        others = aside[:position] + aside[position + 1 :]
        return replace(self, part=replace(part, catalog=""), parts=others, catalog=part.catalog or self.catalog)

    def without(self, position: int) -> Draft:
        """Without this one of `all_parts`."""
        kept = tuple(part for number, part in enumerate(self.all_parts) if number != position)
        return replace(self, parts=kept, part=Part())

    @property
    def token_networks(self) -> tuple[str, ...]:
        return tuple(self.networks.replace(",", " ").split())

    @property
    def scopes_said(self) -> list[tuple[str, str, frozenset[str], frozenset[str]]]:
        """What the scopes say, whatever order it is said in."""
        return [
            (part.catalog or self.catalog, part.reach.value, frozenset(part.nodes), frozenset(part.permissions))
            for part in self.all_parts
        ]

    @property
    def digest(self) -> str:
        """Of all that a token would be by it: two drafts that mean the same have the same."""
        kept = replace(self, parts=self.all_parts, part=Part()).fields("key", "etag", "catalog")
        return hashlib.sha256(json.dumps(kept).encode("utf-8", "surrogatepass")).hexdigest()[:32]

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
        # A token that exists may have several catalogs: then each scope has to say of which it is.
        own = self.catalog if self.etag else None
        return TokenDraft(
            name=self.name,
            owner=self.owner or None,
            catalog=self.catalog or None,
            scopes=tuple(
                ScopeDraft(part.reach, part.permissions, part.nodes, part.catalog or own) for part in self.all_parts
            ),
            expires_at=None if self.expires == "keep" else self.ends_at(now),
            reason=self.reason,
            networks=self.token_networks,
            resource_owner=self.resource_owner or None,
            evaluates=tuple(self.evaluates.replace(",", " ").split()),
            may_rotate_self=self.rotates == "yes",
            legacy_scopes=self.legacy,
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
        reason=form.get("reason").replace("\r\n", "\n")[:2000],
        expires=days
        if days in ("date", "never", "keep") or (days.isascii() and days.isdigit() and len(days) < 6)
        else "30",
        date=form.get("date")[:10],
        networks=form.get("networks")[:4000],
        resource_owner=form.get("resource_owner")[:_LONGEST],
        evaluates=form.get("evaluates")[:1000],
        key=form.get("key")[:64] or secrets.token_urlsafe(18),
        rotates="yes" if form.get("rotates") == "yes" else "",
        legacy=_clean(form.all("legacy"), _MOST_NODES),
        etag=form.get("etag")[:80],
    )


def draft_of(token: Mapping[str, Any]) -> Draft:
    """A token that exists, as a draft that says the same; its scopes are all put aside, and its end is kept."""
    labels = {label.partition("@")[0]: label for label in token["catalogs"]}
    parts = tuple(
        Part(
            _reach(scope["reach"]["kind"]),
            tuple(scope["reach"].get("nodes", ())),
            tuple(scope["permissions"]),
            labels.get(scope["catalog"], scope["catalog"]),
        )
        for scope in token["scopes"]
    )
    return Draft(
        catalog=token["catalogs"][0] if token["catalogs"] else "",
        parts=parts,
        name=token["name"],
        owner=token["owner"],
        reason=token["reason"],
        expires="keep",
        networks=", ".join(token["conditions"]["networks"]),
        resource_owner=token["resource_owner"] or "",
        evaluates=" ".join(token["evaluates"]),
        rotates="yes" if token["may_rotate_self"] else "",
        legacy=tuple(token["legacy_scopes"]),
        etag=token["etag"] or "",
    )


def with_steps(draft: Draft, written: str) -> Draft:
    """The draft after the steps of a fix, as `Step.document` writes them; what is none of a token's own is left out."""
    try:
        steps = json.loads(written)
    except (ValueError, RecursionError):
        return draft
    parts = list(draft.all_parts)
    for step in steps[:_MOST_PARTS] if isinstance(steps, list) else ():
        if not isinstance(step, dict):
            continue
        position, permissions, nodes = step.get("scope"), step.get("permissions") or [], step.get("nodes") or []
        if not (_is_texts(permissions) and _is_texts(nodes)):
            continue
        at = position if isinstance(position, int) and not isinstance(position, bool) else -1
        one = parts[at] if 0 <= at < len(parts) else None
        if step.get("kind") == "add_permissions" and one is not None:
            parts[at] = replace(one, permissions=_clean((*one.permissions, *permissions), _MOST_PERMISSIONS))
        elif step.get("kind") == "add_nodes" and one is not None:
            parts[at] = replace(one, nodes=_clean((*one.nodes, *nodes), _MOST_NODES))
        elif step.get("kind") == "add_scope" and isinstance(step.get("reach"), str):
            reach = _reach(step["reach"])
            parts.append(Part(reach, _clean(nodes, _MOST_NODES), _clean(permissions, _MOST_PERMISSIONS)))
        elif step.get("kind") == "add_legacy_scope" and isinstance(step.get("legacy_scope"), str):
            draft = replace(draft, legacy=_clean((*draft.legacy, step["legacy_scope"]), _MOST_NODES))
    return replace(draft, parts=tuple(parts), part=Part())


def _reach(text: str) -> ReachKind:
    return next((one for one in ReachKind if one.value == text), ReachKind.SELECTED)


def _clean(given: Iterable[str], most: int) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text[:_LONGEST] for text in given if text))[:most]


def _read_part(text: str) -> Part | None:
    try:
        reach, nodes, permissions, *rest = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return None
    catalog = rest[0] if rest else ""
    if not (_is_texts(nodes) and _is_texts(permissions) and isinstance(reach, str) and isinstance(catalog, str)):
        return None
    return Part(_reach(reach), _clean(nodes, _MOST_NODES), _clean(permissions, _MOST_PERMISSIONS), catalog[:80])


def _is_texts(given: object) -> bool:
    return isinstance(given, Sequence) and not isinstance(given, str) and all(isinstance(one, str) for one in given)
