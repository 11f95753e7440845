"""By which ways somebody may do something, so that two versions of a catalog can be compared way by way.

A way is what has to be true at the request: a scope that reaches the place, attributes, roles. One way covers another
when it is open wherever the other is. Where two ways cannot be compared, neither covers the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

from authz_service.directory.model import NodeKind, Scalar

PLACES: Final = frozenset({NodeKind.PROJECT, NodeKind.GROUP})

Fact: TypeAlias = tuple[str, object, str, Scalar]
"""An attribute, what else decides its value in this version, the type of a value, the value."""
Roles: TypeAlias = frozenset[frozenset[str]]
"""Of each of these sets, the owner must have one role there."""


@dataclass(frozen=True, slots=True)
class HeldScope:
    """What one scope holds, and the kinds of place that it can reach."""

    boundaries: frozenset[NodeKind]
    permissions: frozenset[str]


@dataclass(frozen=True, slots=True)
class Holding:
    """What a token holds in one catalog, without its places: equal holdings fare alike under any version.

    `legacy` holds the names of a coarse token's bundles; None is a fine-grained token.
    """

    scopes: frozenset[HeldScope] = frozenset()
    legacy: frozenset[str] | None = None


class Means(StrEnum):
    """How a way is open: by a scope or a bundle, to anyone at a public place, to visitors, to members, by the place."""

    HELD = "held"
    PUBLIC = "public"
    VISITOR = "visitor"
    MEMBER = "member"
    UNLISTED = "unlisted"


@dataclass(frozen=True, slots=True)
class Way:
    """`scope` is None for what comes from no scope; `in_public` is a way that is open at public places alone (C7)."""

    means: Means
    scope: HeldScope | None = None
    facts: frozenset[Fact] = frozenset()
    roles: Roles = frozenset()
    in_public: bool = False

    def covers(self, other: Way) -> bool:
        """Whether this way is open wherever the other is."""
        return (
            self.means is other.means
            and self.scope == other.scope
            and (other.in_public or not self.in_public)
            and self.facts <= other.facts
            and all(any(fewer <= roles for fewer in other.roles) for roles in self.roles)
        )


Ways: TypeAlias = frozenset[Way]
NO_WAY: Final[Ways] = frozenset()


def ways_cover(these: Ways, others: Ways) -> bool:
    """Whether each of the others is covered by one of these."""
    return all(any(way.covers(other) for way in these) for other in others)


@dataclass(frozen=True, slots=True)
class Atom:
    """One thing that must hold at one place. `boundary` is None where it is enough to be a member there."""

    place: object
    boundary: NodeKind | None
    ways: Ways

    def covers(self, other: Atom) -> bool:
        if self.place != other.place:
            return False
        if self.boundary is None and other.boundary in PLACES:
            return all(any(_lets_in(own, way) for own in self.ways) for way in other.ways)
        return self.boundary is other.boundary and ways_cover(self.ways, other.ways)


def _lets_in(own: Way, other: Way) -> bool:
    """Whether being a member is enough wherever the other way is open, at a project or group.

    Whoever holds something there is a member. What is public is open to all, but no place for calls in no table.
    """
    if own.means is Means.MEMBER:
        return other.means in (Means.HELD, Means.PUBLIC)
    return other.means is Means.HELD and (other.in_public or not own.in_public)


Alternative: TypeAlias = tuple[Atom, ...]
"""All of these must hold; none at all is open to every valid token."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """What an operation takes of one holder. `free` counts always; `sets` are shadowed by a `when` that matches (C5).

    `frame` says which of the sets count when; alternatives that the holder can never satisfy are left out.
    """

    free: tuple[Alternative, ...] = ()
    sets: tuple[tuple[Alternative, ...], ...] = ()
    frame: tuple[object, ...] = ()
    shadowed: bool = False

    @property
    def possible(self) -> bool:
        """Whether the holder could satisfy it anywhere."""
        return bool(self.free) or any(self.sets)

    def covers(self, other: Requirement) -> bool:
        """Whether this one is satisfied wherever the other is."""
        if not (self.shadowed or other.shadowed):
            own = [*self.free, *(one for each in self.sets for one in each)]
            others = [*other.free, *(one for each in other.sets for one in each)]
            return all(_covered(one, own) for one in others)
        # Which sets count is another question with every `when`, so each is compared with its own counterpart alone.
        counterparts = self.sets if self.frame == other.frame else ((),) * len(other.sets)
        return all(_covered(one, self.free) for one in other.free) and all(
            _covered(one, (*self.free, *counterpart))
            for counterpart, each in zip(counterparts, other.sets, strict=True)
            for one in each
        )


def _covered(one: Alternative, by: Iterable[Alternative]) -> bool:
    return any(all(any(atom.covers(part) for part in one) for atom in other) for other in by)
