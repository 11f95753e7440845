"""All bare permissions of one token at one place, decided at once: what the hot path remembers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from authz_service.catalog.model import NO_ROLE_NEEDED, Catalog, bits
from authz_service.directory.model import NodeKind
from authz_service.engine.case import Case
from authz_service.engine.model import Decision, Missing, Reason, deny
from authz_service.engine.places import PLACE_KINDS, Place
from authz_service.engine.policies import approved_at
from authz_service.engine.reach import held_at
from authz_service.tokens.model import Token, TokenId, TokenKind


@dataclass(frozen=True, slots=True)
class Spot:
    """Masks of permission numbers at one place.

    INVARIANT, held by the property suite: a bare check whose bit is in `allowed` is `granted`; one whose bit is in
    `deniable` fails A3, as `outside_reach` if the bit is in `elsewhere`. Every other bit is the engine's to decide.
    Rule A1 is not in it.
    """

    boundary: NodeKind
    text: str
    allowed: int
    deniable: int
    elsewhere: int
    hide: bool
    numbers: Mapping[tuple[str, str], int]
    """The catalog's (resource, action) to number, by canonical name."""

    def denial(self, number: int, permission: str, token: TokenId) -> Decision:
        """The A3 denial of a permission whose bit is in `deniable`."""
        reason = Reason.OUTSIDE_REACH if self.elsewhere >> number & 1 else Reason.PERMISSION_MISSING
        missing = (Missing(permission, self.boundary, self.text),)
        return deny(reason, missing, hide=self.hide, target=self.text, failed_token=token)


def has_spots(token: Token, catalog: Catalog) -> bool:
    """Whether this token's bare checks depend on nothing but token, place and owner.

    Not so for coarse tokens, children, tokens with conditions, owners of the other kind than the catalog's (C9), and
    catalogs whose permissions have a `when`.
    """
    return (
        token.kind is TokenKind.FINE_GRAINED
        and token.parent is None
        and not token.conditions.networks
        and isinstance(token.owner, str) is catalog.upstream
        and not catalog.conditional
    )


def spot_at(case: Case, place: Place) -> Spot:
    """Rules A3, A4 and A10 for every permission at one place. Ask `has_spots` first."""
    catalog = case.catalog
    given = held_at(case.lookup, case.token, catalog, place, case.world)
    held = _conferred(catalog, place.kind, given)
    readable = catalog.public_reads if place.public else 0
    return Spot(
        place.kind,
        place.text,
        held & _admitted(case, place) & _approved(case, place),
        catalog.existing[place.kind] & ~held & ~readable,
        _conferred(catalog, place.kind, case.lookup.anywhere),
        not case.places.seen(place),
        catalog.numbers,
    )


def _conferred(catalog: Catalog, boundary: NodeKind, given: int) -> int:
    if not catalog.implies_anything:
        return given & catalog.existing[boundary]
    confers = catalog.confers[boundary]
    held = 0
    for number in bits(given):
        held |= confers[number]
    return held


def _approved(case: Case, place: Place) -> int:
    """The mask of permissions for which A5 holds at the place. Of fine-grained tokens it knows no time."""
    approved = approved_at(case, place)
    return -1 if approved is None else _conferred(case.catalog, place.kind, approved)


def _admitted(case: Case, place: Place) -> int:
    """The mask of permissions for which A4 holds at the place."""
    catalog = case.catalog
    everything = catalog.existing[place.kind]
    if catalog.upstream or (case.owner is not None and case.owner.admin):
        return everything
    by_role = catalog.by_min_role[place.kind]
    if place.kind is NodeKind.INSTANCE:
        return by_role.get(NO_ROLE_NEEDED, 0)
    if place.kind in PLACE_KINDS and not case.member(place):
        return 0
    if len(by_role) == 1 and None in by_role:
        return everything
    roles = case.roles(place)
    admitted = 0
    for role, mask in by_role.items():
        if role is None or catalog.roles_satisfying.get(role, frozenset()) & roles:
            admitted |= mask
    return admitted
