"""What another version of a catalog means for the live tokens: each is compared with the version of its own."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from authz_service.admin.management import Management
from authz_service.catalog.effects import Comparison, Effect, Shift
from authz_service.catalog.model import Catalog
from authz_service.compiler.holding import granted_of, holding_of
from authz_service.directory.model import NodeId, NodeKind
from authz_service.errors import CatalogInvalidError
from authz_service.store import grants, pins
from authz_service.store.pins import Pin
from authz_service.store.token_rows import TokenRecord
from authz_service.tokens.grants import NO_APPROVALS, Approvals
from authz_service.tokens.model import Token, TokenId

_PAGE: Final = 500
"""Tokens read and compared at once; the event loop runs between two of them."""


class Refusal(StrEnum):
    """Why a token is not moved to the other version."""

    VERSION_UNKNOWN = "version_unknown"
    INCOMPATIBLE = "incompatible"
    WOULD_WIDEN = "would_widen"
    WOULD_CALL_MORE = "would_call_more"


class Allowance(StrEnum):
    """What a token may gain by being moved: nothing, calls that its version does not know, or anything."""

    NOTHING = "nothing"
    NEW_CALLS = "new_calls"
    WIDENING = "widening"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What becomes of one token. `above` are those of its ancestors that change too, and it with them (T4)."""

    record: TokenRecord
    version: int
    effect: Effect
    above: tuple[TokenId, ...]
    breaks: bool
    widens: bool
    refusal: Refusal | None

    @property
    def touched(self) -> bool:
        return self.breaks or self.widens or self.refusal is not None


@dataclass(slots=True)
class Survey:
    """All live tokens counted, one page of those that are touched, and those that may be moved."""

    tokens: int = 0
    touched: int = 0
    """How many the list has, over all its pages."""
    broken: int = 0
    widened: int = 0
    refused: Counter[Refusal] = field(default_factory=Counter)
    listed: list[Outcome] = field(default_factory=list)
    more: bool = False
    movable: list[Pin] = field(default_factory=list)

    def add(self, pin: Pin, outcome: Outcome, after: TokenId | None, limit: int) -> None:
        self.tokens += 1
        self.broken += outcome.breaks
        self.widened += outcome.widens
        if outcome.refusal is None:
            self.movable.append(pin)
        else:
            self.refused[outcome.refusal] += 1
        if not outcome.touched:
            return
        self.touched += 1
        if after is None or outcome.record.token.id > after:
            if len(self.listed) < limit:
                self.listed.append(outcome)
            else:
                self.more = True


@dataclass
class Surveyor:
    """Compares tokens with one catalog, which need not be installed. For one connection that sees one state."""

    conn: AsyncConnection
    management: Management
    new: Catalog
    allowance: Allowance = Allowance.NOTHING
    _comparisons: dict[int, Comparison | None] = field(default_factory=dict)
    _above: dict[TokenId, TokenRecord | None] = field(default_factory=dict)
    _approvals: Mapping[TokenId, Approvals] = field(default_factory=dict)
    """Of the page and of what is above it, by family."""

    async def survey(
        self, *, before: int | None = None, after: TokenId | None = None, limit: int, moving: bool = False
    ) -> Survey:
        """Of every live token that names the catalog; with `before`, of those under a lower version.

        `movable` is filled only for `moving`: it may be all of them.
        """
        found = Survey()
        last: TokenId | None = None
        while True:
            page = await pins.load_page(self.conn, self.new.name, before=before, after=last, limit=_PAGE)
            if not page:
                return found
            last = page[-1].record.token.id
            await self._prepare(page)
            kinds = await self._kinds(page)
            # Seconds of work for a large catalog would hold up every decision of this process.
            outcomes = await asyncio.to_thread(lambda: [self._outcome(pin.record, kinds) for pin in page])  # noqa: B023
            for pin, outcome in zip(page, outcomes, strict=True):
                found.add(pin, outcome, after, limit)
            if not moving:
                found.movable.clear()

    async def _prepare(self, page: Sequence[Pin]) -> None:
        """The comparisons that the page needs, and the tokens above its tokens."""
        for version in {pin.record.token.catalogs[self.new.name] for pin in page} - self._comparisons.keys():
            try:
                old = await self.management.shelf.find(self.conn, self.new.name, version)
            except CatalogInvalidError:
                old = None
            self._comparisons[version] = None if old is None else await asyncio.to_thread(Comparison, old, self.new)
        wanted = {pin.record.token.parent for pin in page}
        while missing := [parent for parent in wanted if parent is not None and parent not in self._above]:
            found = await pins.load_live(self.conn, missing)
            self._above |= {parent: found.get(parent) for parent in missing}
            wanted = {record.token.parent for record in found.values()}
        families = {record.family for pin in page for record in (pin.record, *self._line(pin.record.token))}
        self._approvals = await grants.load_of_families(self.conn, sorted(families))

    async def _kinds(self, page: Sequence[Pin]) -> Mapping[NodeId, NodeKind]:
        tokens = [pin.record.token for pin in page]
        tokens += [above.token for token in tokens for above in self._line(token)]
        nodes = {node for token in tokens for scope in token.scopes for node in scope.reach.nodes}
        nodes |= {node for known in self._approvals.values() for grant in known.grants for _, node in grant.pairs}
        return await pins.load_kinds(self.conn, sorted(node for node in nodes if isinstance(node, int)))

    def _line(self, token: Token) -> Iterator[TokenRecord]:
        """The live tokens above. Where one is not alive, none of those below it ever is again."""
        seen = {token.id}
        while token.parent is not None and token.parent not in seen:
            seen.add(token.parent)
            record = self._above.get(token.parent)
            if record is None:
                return
            token = record.token
            yield record

    def _outcome(self, record: TokenRecord, kinds: Mapping[NodeId, NodeKind]) -> Outcome:
        token, name = record.token, self.new.name
        version = token.catalogs[name]
        comparison = self._comparisons[version]
        if comparison is None:
            unknown = Refusal.VERSION_UNKNOWN
            return Outcome(record, version, Effect(), (), breaks=False, widens=False, refusal=unknown)
        effect, *granted = self._effects(comparison, record, kinds)
        turned = [each for each in granted if each.breaks or each.widens]
        if turned:
            breaks, widens = any(each.breaks for each in turned), any(each.widens for each in turned)
            told = "what its groups granted covers other permissions under the newer version"
            effect = replace(
                effect, shifts=(*effect.shifts, Shift("grants_differ", told, widens=widens, narrows=breaks))
            )
        above = {each.token.id: self._effects(comparison, each, kinds) for each in self._line(token)}
        line = [effect, *granted, *(each for effects in above.values() for each in effects)]
        return Outcome(
            record,
            version,
            effect,
            tuple(id_ for id_, effects in above.items() if any(each.breaks or each.widens for each in effects)),
            breaks=any(each.breaks for each in line) or bool(comparison.incompatible),
            widens=any(each.widens for each in line),
            refusal=self._refusal(comparison, line),
        )

    def _effects(self, comparison: Comparison, record: TokenRecord, kinds: Mapping[NodeId, NodeKind]) -> list[Effect]:
        """On what the token holds, and on what each of its grants lets through (P4)."""
        name, known = self.new.name, self._approvals.get(record.family, NO_APPROVALS)
        holdings = [holding_of(record.token, name, kinds), *granted_of(known.grants, name, kinds)]
        return [comparison.effect(holding) for holding in holdings]

    def _refusal(self, comparison: Comparison, line: Sequence[Effect]) -> Refusal | None:
        if comparison.incompatible:
            return Refusal.INCOMPATIBLE
        if self.allowance is not Allowance.WIDENING and any(each.widens_known for each in line):
            return Refusal.WOULD_WIDEN
        if self.allowance is Allowance.NOTHING and any(each.widens for each in line):
            return Refusal.WOULD_CALL_MORE
        return None

    def incompatible(self) -> dict[str, Sequence[str]]:
        """By version label: why no token of it can be moved. Of the versions that were met."""
        return {
            comparison.old.label: comparison.incompatible
            for comparison in self._comparisons.values()
            if comparison is not None and comparison.incompatible
        }
