"""One token before one question: everything the rules read, resolved targets and attributes included."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from authz_service.catalog.model import ADMIN_ROLE, Catalog, Item, ParameterKind, Target, TargetKind
from authz_service.compiler.lookup import LegacyHoldings, Lookup
from authz_service.directory.model import NodeId, NodeKind, User
from authz_service.engine.attributes import Values
from authz_service.engine.model import OperationRequest, Reason, Request, TracedItem, TracedToken, World
from authz_service.engine.places import PLACE_KINDS, Place, Places, effective_roles, is_member, places_for
from authz_service.tokens.model import Token, TokenKind
from authz_service.tokens.policy import Policy


@dataclass(frozen=True, slots=True)
class Case:
    """Build with `open_case`. `owner` is None under `owner_check: upstream`, or when the account is gone."""

    token: Token
    catalog: Catalog
    world: World
    request: Request
    lookup: Lookup
    places: Places
    owner: User | None
    policies: Mapping[NodeId, Policy]
    """Every policy for the catalog, by node."""
    trace: TracedToken | None = None
    """Where sets write down how they fared, when somebody asked for an explanation."""

    @property
    def legacy(self) -> bool:
        return self.token.kind is TokenKind.LEGACY

    def legacy_at(self, place: Place) -> LegacyHoldings | None:
        """What the bundles of a coarse token hold at the place; None for other tokens (C7)."""
        in_public = place.public or place.kind not in PLACE_KINDS
        return self.lookup.legacy_public if in_public else self.lookup.legacy

    @property
    def parameters(self) -> dict[str, str]:
        ask = self.request.ask
        return dict(ask.parameters) if isinstance(ask, OperationRequest) else {}

    @property
    def own_id(self) -> NodeId | None:
        own = self.places.own()
        return None if own is None else own.id

    def member(self, place: Place) -> bool:
        """Whether the owner is a member at or above the place, as the catalog reads roles (D3, C6)."""
        if self.catalog.upstream:
            return False
        return is_member(place, self.token.owner, self.world.memberships(self.token.owner), self.catalog)

    def roles(self, place: Place) -> frozenset[str]:
        if self.catalog.upstream:
            return frozenset()
        return effective_roles(place, self.token.owner, self.world.memberships(self.token.owner), self.catalog)

    def resolve(self, target: Target) -> Place | Reason:
        """The place of a target, or the A2 reason why there is none. `below` resolves to its top (C3)."""
        match target.kind:
            case TargetKind.INSTANCE:
                return self.places.instance()
            case TargetKind.CALLER:
                ask = self.request.ask
                if isinstance(ask, OperationRequest) and ask.at is not None:
                    return self.resolve(ask.at)
                text = ask.target
                if text is None:
                    return Reason.TARGET_REQUIRED
                return self.places.parse(text) or Reason.TARGET_UNKNOWN
            case TargetKind.SELF if target.owner_is is not None:
                return self._parameter(ParameterKind.USER, (target.owner_is,))
            case TargetKind.SELF:
                return self.places.own() or Reason.TARGET_UNKNOWN
            case TargetKind.BELOW if not target.parameters:
                return self.places.own() or Reason.TARGET_UNKNOWN
            case _:
                return self._parameter(target.names or ParameterKind.PROJECT, target.parameters)

    def traced_place(self, item: TracedItem) -> Place | None:
        """The place of an item as a trace names it; None for one without a place.

        The owner's own is taken as it is: its name may be somebody else's in the catalog's source, or no path at all.
        """
        own = self.places.own()
        if own is not None and own.id == item.node:
            return own
        return None if item.target is None else self.places.parse(item.target)

    def _parameter(self, kind: ParameterKind, names: tuple[str, ...]) -> Place | Reason:
        values = [self.parameters.get(name) for name in names]
        given = [value for value in values if value is not None]
        if not given or len(given) < len(values):
            return Reason.TARGET_REQUIRED
        return self.places.parameter(kind, "/".join(given)) or Reason.TARGET_UNKNOWN

    def place_of(self, item: Item) -> Place | Reason:
        """The item's place, which must be of the item's own boundary (C3), or the A2 reason against it."""
        resolved = self.read_at(item)
        if isinstance(resolved, Reason) or item.target.kind is TargetKind.BELOW or resolved.kind is item.boundary:
            return resolved
        if resolved.whole:
            return resolved
        exists = resolved.kind in self.catalog.by_name[item.permission].boundaries
        return Reason.TARGET_UNKNOWN if exists else Reason.BOUNDARY_MISMATCH

    def read_at(self, item: Item) -> Place | Reason:
        """The place that the item's target names; `whole` where, in a part of a document, it is all in it (C3)."""
        found = self.resolve(item.target)
        ask = self.request.ask
        if (
            isinstance(ask, OperationRequest)
            and ask.wide
            and isinstance(found, Place)
            and found.kind is NodeKind.GROUP
            and item.boundary is NodeKind.PROJECT
            and item.target.kind is not TargetKind.BELOW
            and NodeKind.GROUP not in self.catalog.by_name[item.permission].boundaries
        ):
            return replace(found, whole=True)
        return found

    def _known_roles(self, place: Place) -> tuple[str, ...]:
        """Names the catalog does not know are bare membership; the instance's only role is `admin` (C6)."""
        if place.kind is NodeKind.INSTANCE:
            return (ADMIN_ROLE,) if self.owner is not None and self.owner.admin else ()
        return tuple(sorted(self.roles(place) & self.catalog.roles.keys()))

    def attribute(self, name: str, place: Place | None) -> Values:
        """The values an attribute has at a place: the directory's, else a path parameter's, else the PEP's (C5)."""
        if place is not None and place.whole and name.startswith("resource."):
            return None
        known = self._directory_attribute(name, place)
        if known is not None:
            return known
        parameter = self.catalog.attribute_parameters.get(name)
        if parameter is not None and parameter in self.parameters:
            return (self.parameters[parameter],)
        given = self.request.attributes.get(name)
        return None if given is None else (given,)

    def _directory_attribute(self, name: str, place: Place | None) -> Values:
        match name:
            case "subject.role":
                return () if place is None else self._known_roles(place)
            case "subject.state":
                return () if self.owner is None else (self.owner.state.value,)
            case "subject.admin":
                return () if self.owner is None else (self.owner.admin,)
            case "subject.external":
                return () if self.owner is None else (self.owner.external,)
            case "subject.service_account":
                return () if self.owner is None else (self.owner.service_account,)
            case "resource.visibility":
                return () if place is None or place.visibility is None else (place.visibility.name.lower(),)
            case "resource.archived":
                known = place is not None and place.kind in PLACE_KINDS and not self.catalog.upstream
                return (place.archived,) if place is not None and known else ()
        side, _, key = name.partition(".")
        if side == "resource" and place is not None and key in place.attributes:
            return (place.attributes[key],)
        if side == "subject" and self.owner is not None:
            node = self.world.node(self.owner.id)
            if node is not None and key in node.attributes:
                return (node.attributes[key],)
        return None


def open_case(token: Token, catalog: Catalog, world: World, request: Request, trace: TracedToken | None = None) -> Case:
    """Everything the rules read for this token, in this catalog version."""
    lookup = world.lookup(token, catalog)
    owner = None if catalog.upstream else world.user(token.owner)
    places = places_for(catalog, token, lookup, world)
    return Case(token, catalog, world, request, lookup, places, owner, world.policies(catalog), trace)
