"""Scopes of a draft, looked up: places and permissions, with a fault for each that does not fit (T1, T2, T6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from authz_service.admin.drafts import ScopeDraft, check_duplicates
from authz_service.admin.faults import Faults, shown
from authz_service.admin.management import Limits
from authz_service.admin.places import find_place
from authz_service.catalog.model import Catalog
from authz_service.directory.model import NodeKind
from authz_service.engine.places import Place
from authz_service.pdp.authority_facts import TransactionWorld
from authz_service.tokens.model import Reach, ReachKind, Scope, Token

_BOUNDARIES: Final[Mapping[ReachKind, frozenset[NodeKind]]] = {
    ReachKind.SELECTED: frozenset({NodeKind.PROJECT, NodeKind.GROUP}),
    ReachKind.ALL_MEMBERSHIPS: frozenset({NodeKind.PROJECT, NodeKind.GROUP}),
    ReachKind.PERSONAL_PROJECTS: frozenset({NodeKind.PROJECT}),
    ReachKind.USER: frozenset({NodeKind.USER}),
    ReachKind.INSTANCE: frozenset({NodeKind.INSTANCE}),
}
_COVERED: Final[Mapping[NodeKind, frozenset[NodeKind]]] = {
    NodeKind.PROJECT: frozenset({NodeKind.PROJECT}),
    NodeKind.GROUP: frozenset({NodeKind.PROJECT, NodeKind.GROUP}),
    NodeKind.USER: frozenset({NodeKind.PROJECT}),  # the projects in the namespace, not the account (T2)
}


@dataclass(frozen=True, slots=True)
class ReadScope:
    """A scope with the places of its nodes and the boundaries that its reach can cover at all."""

    scope: Scope
    catalog: Catalog
    places: tuple[Place, ...]
    boundaries: frozenset[NodeKind]


def boundaries_of(kind: ReachKind, places: Sequence[Place]) -> frozenset[NodeKind]:
    """The kinds of place that a scope of this reach, and of these places where they are selected, can cover."""
    covered = frozenset[NodeKind]().union(*(_COVERED[place.kind] for place in places))
    return covered if kind is ReachKind.SELECTED and covered else _BOUNDARIES[kind]


def unknown_target(text: str) -> str:
    """The same words for what does not exist and for what the issuer may not see (A10)."""
    return f"there is no `{shown(text)}`, or this token may not see it"


@dataclass(slots=True)
class ScopeReader:
    """Reads scopes one by one, for one issuer, and collects what is wrong with them."""

    world: TransactionWorld
    issuer: Token
    limits: Limits
    faults: Faults
    owner: int | str | None
    """The new token's owner; None where it has a fault of its own."""
    resource_owner: Place | None = None
    read: list[ReadScope] = field(default_factory=list)

    async def read_scope(self, position: int, given: ScopeDraft, catalog: Catalog) -> None:
        """Adds to `read`; what is faulty may come out smaller than it was given."""
        where = f"/scopes/{position}"
        kind = given.reach
        places: tuple[Place, ...] = ()
        if kind is ReachKind.SELECTED:
            places = await self._places(f"{where}/reach/nodes", given.nodes, catalog)
        elif given.nodes:
            self.faults.add(f"{where}/reach/nodes", "not_for_reach", f"the reach `{kind}` has no nodes; leave them out")
        if kind is ReachKind.ALL_MEMBERSHIPS:
            self._check_all_memberships(where, catalog)
        boundaries = boundaries_of(kind, places)
        self._check_own(where, kind, catalog)
        permissions = self._permissions(f"{where}/permissions", given, catalog, boundaries)
        reach = Reach(kind, tuple(place.id for place in places))
        self.read.append(ReadScope(Scope(catalog.name, reach, permissions), catalog, places, boundaries))

    def _check_all_memberships(self, where: str, catalog: Catalog) -> None:
        if catalog.upstream:
            self.faults.add(
                f"{where}/reach/kind",
                "reach_refused",
                f"`{catalog.name}` knows no memberships; select groups and projects",
            )
        elif catalog.single_owner:
            self.faults.add(
                f"{where}/reach/kind",
                "reach_refused",
                f"a token of `{catalog.name}` has one owner; select what it needs",
            )

    async def _places(self, where: str, given: Sequence[str], catalog: Catalog) -> tuple[Place, ...]:
        if not given:
            self.faults.add(where, "missing_field", "select at least one group or project")
        if len(given) > self.limits.nodes:
            self.faults.add(where, "too_many", f"a scope takes {self.limits.nodes} nodes at most; select their group")
            return ()
        found: dict[int | str, Place] = {}
        for position, text in enumerate(given):
            here = f"{where}/{position}"
            place = await find_place(self.world, self.issuer, catalog, text)
            if place is None:
                self.faults.add(here, "target_unknown", unknown_target(text))
            elif place.kind is NodeKind.INSTANCE:
                self.faults.add(here, "not_selectable", "the instance is no node to select; use the reach `instance`")
            elif place.kind is NodeKind.USER and catalog.upstream:
                self.faults.add(here, "not_selectable", f"`{catalog.name}` has no users' projects; select the projects")
            elif place.id in found:
                self.faults.add(here, "duplicate", f"`{shown(text)}` is selected twice; keep one")
            elif catalog.single_owner and self.resource_owner and self.resource_owner.id not in place.chain:
                message = f"`{place.text}` does not lie under the resource owner `{self.resource_owner.text}`"
                self.faults.add(here, "outside_resource_owner", message)
            else:
                found[place.id] = place
        return tuple(found.values())

    def _permissions(
        self, where: str, given: ScopeDraft, catalog: Catalog, boundaries: frozenset[NodeKind]
    ) -> tuple[str, ...]:
        if not given.permissions:
            self.faults.add(where, "missing_field", "name at least one permission")
        if len(given.permissions) > self.limits.permissions:
            self.faults.add(where, "too_many", f"a scope takes {self.limits.permissions} permissions at most")
            return ()
        check_duplicates(given.permissions, where, self.faults)
        names: dict[str, None] = {}
        for position, text in enumerate(given.permissions):
            here = f"{where}/{position}"
            permission = catalog.by_name.get(text)
            if permission is None:
                self.faults.add(here, "permission_unknown", f"`{catalog.label}` has no permission `{shown(text)}`")
            elif boundaries.isdisjoint(permission.boundaries):
                exists = ", ".join(sorted(permission.boundaries))
                message = f"`{permission.name}` exists at {exists}, which this reach does not cover; leave it out"
                self.faults.add(here, "boundary_mismatch", message)
            else:
                names[permission.name] = None
        return tuple(names)

    def _check_own(self, where: str, kind: ReachKind, catalog: Catalog) -> None:
        """Rule T6 for the reaches that are the owner's own. A token without a resource owner has that fault already."""
        if kind not in (ReachKind.USER, ReachKind.PERSONAL_PROJECTS) or not catalog.single_owner:
            return
        if self.resource_owner is None or self.owner is None:
            return
        if not _is_account_of(self.resource_owner, self.owner, catalog):
            message = f"the reach `{kind}` needs the token's owner to be its resource owner"
            self.faults.add(f"{where}/reach/kind", "outside_resource_owner", message)


def _is_account_of(place: Place, owner: int | str, catalog: Catalog) -> bool:
    if not catalog.upstream:
        return place.id == owner
    name = str(owner) if catalog.case_sensitive else str(owner).lower()
    return place.id == f"{NodeKind.USER.value}:{name}"
