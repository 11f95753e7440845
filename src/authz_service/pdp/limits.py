"""Callers whose `decision:evaluate` ends at some groups: what lies beyond is hidden from them (rule M1)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from authz_service.catalog.model import Catalog
from authz_service.directory.model import DEFAULT_SOURCE, INSTANCE_ID, NodeKind, format_target
from authz_service.engine.case import open_case
from authz_service.engine.decide import decide
from authz_service.engine.model import TOKEN_REASONS, Decision, PermissionRequest, Reason, Request, World, deny
from authz_service.engine.overlay import Overlay
from authz_service.engine.places import PLACE_KINDS, Place
from authz_service.engine.touched import touched_places
from authz_service.tokens.model import Token, TokenId
from authz_service.tokens.policy import EVALUATE, MANAGEMENT

_BEFORE_TARGETS: Final = TOKEN_REASONS | {Reason.CATALOG_MISMATCH, Reason.BAD_PATH}
"""Said before any target is looked for: nothing about a place is told by them."""


@dataclass(frozen=True)
class _Sourced(Overlay):
    """The world with the management catalog looking into another source: a path names one place in each."""

    source: str = DEFAULT_SOURCE

    def catalog(self, name: str, version: int) -> Catalog | None:
        found = self.base.catalog(name, version)
        return found if found is None or name != MANAGEMENT else replace(found, source=self.source)


def asks_at(caller: Token, path: str, source: str, world: World, request: Request) -> bool:
    """Whether the caller holds `decision:evaluate` at one of the groups of a path, the whole path among them.

    `request` gives time and client address; what it asks is not looked at.
    """
    seen: World = world if source == DEFAULT_SOURCE else _Sourced(world, source=source)
    parts = path.split("/")
    for end in range(len(parts), 0, -1):
        group = format_target(NodeKind.GROUP, "/".join(parts[:end]))
        ask = PermissionRequest(EVALUATE, group)
        own = Request(MANAGEMENT, ask, request.now, client_address=request.client_address)
        if decide(caller, seen, own).allowed:
            return True
    return False


@dataclass(frozen=True, slots=True)
class GroupLimit:
    """A caller that may ask about some groups only; `client_address` is the caller's own.

    It is what the world says of it when it is judged: one that ended since then may ask about nothing.
    """

    caller: TokenId
    client_address: str | None = None

    def narrow(self, decision: Decision, token: Token, catalog: Catalog, world: World, request: Request) -> Decision:
        """The decision, or that of a place that does not exist where any place of the question lies beyond.

        Both are the same in every part, so that a caller cannot tell what there is in other groups.
        """
        if decision.reason in _BEFORE_TARGETS:
            return decision
        case = open_case(token, catalog, world, request)
        places = touched_places(case)
        if places is not None and all(self._covers(place, catalog, world, request) for place in places):
            return decision
        return deny(Reason.TARGET_UNKNOWN, hide=True, target=request.ask.target, failed_token=token.id)

    def covers_target(self, target: str, catalog: Catalog, world: World, now: datetime) -> bool:
        """Whether a target, as a bare question names it, is a place that the caller may ask about."""
        request = Request(catalog.name, PermissionRequest("", target), now)
        nobody = Token(TokenId(""), INSTANCE_ID, {catalog.name: catalog.version})
        place = open_case(nobody, catalog, world, request).places.parse(target)
        return place is not None and self._covers(place, catalog, world, request)

    def _covers(self, place: Place, catalog: Catalog, world: World, request: Request) -> bool:
        if place.kind not in PLACE_KINDS:
            return False
        path = place.text.partition(":")[2]
        if place.kind is NodeKind.PROJECT:
            path = path.rpartition("/")[0]
        caller = world.token(self.caller)
        if caller is None:
            return False
        asked = replace(request, client_address=self.client_address)
        return bool(path) and asks_at(caller, path, catalog.source or DEFAULT_SOURCE, world, asked)
