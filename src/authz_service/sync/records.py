"""What is kept of an upstream's pages: the little that a directory says, in the same words for every upstream."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol, TypeAlias

import msgspec

Key: TypeAlias = tuple[str, str]
"""(kind, the upstream's id as digits): `("project", "42")`."""
USER: Final = "user"
GROUP: Final = "group"
PROJECT: Final = "project"
TEAM: Final = "team"


class Person(msgspec.Struct, frozen=True, tag="person", omit_defaults=True):
    """None is what this page did not say. `listed`: from a list of people, which says more than one of members."""

    id: str
    username: str
    state: Literal["active", "blocked"] | None = None
    admin: bool | None = None
    external: bool | None = None
    service_account: bool | None = None
    namespace_id: str | None = None
    listed: bool = False


class Place(msgspec.Struct, frozen=True, tag="place", omit_defaults=True):
    """A group or a project. `top` is the id of an outermost group that the sync is of; `base` GitHub's base role."""

    kind: Literal["group", "project"]
    id: str
    path: str
    visibility: Literal["public", "internal", "private"]
    archived: bool | None = None
    base: str | None = None
    parent: str | None = None

    @property
    def key(self) -> Key:
        return (self.kind, self.id)


class Member(msgspec.Struct, frozen=True, tag="member"):
    """`rank` orders the roles of one upstream; `kind` may be `team`, whose members are nowhere by that alone."""

    kind: str
    place: str
    user: str
    role: str
    rank: int


class Share(msgspec.Struct, frozen=True, tag="share"):
    """The members of `whose` have a role at the place: their own, at most this one, or this very one of a team."""

    kind: str
    place: str
    whose: str
    role: str
    rank: int


class Team(msgspec.Struct, frozen=True, tag="team"):
    id: str
    group: str
    slug: str


Record: TypeAlias = Person | Place | Member | Share | Team


@dataclass(slots=True)
class Pages:
    """What is fetched of one stream. `next` is the query of the page to go on with; `absent`: it is not there."""

    records: list[Record] = field(default_factory=list)
    next: str | None = None
    done: bool = False
    absent: bool = False


Fetched: TypeAlias = Mapping[str, Pages]


@dataclass(frozen=True, slots=True)
class Stream:
    """One list of the upstream, page by page, or one object.

    `shape` is what a page must be, `read` what is kept of it. `may_be_absent`: a 404 means that it is not there.
    `anew`: asked in every run, whatever an earlier one was told.
    """

    key: str
    what: str
    path: str
    query: str
    shape: Any
    read: Callable[[Any], Iterable[Record]]
    may_be_absent: bool = False
    anew: bool = False


@dataclass(slots=True)
class Picture:
    """The directory as the upstream has it. `roles` maps (user's id, place) to the one role that counts.

    `unread` are places whose members could not be read: nothing is known of them. `listed` is all that the upstream
    named at all, also what cannot be in a directory.
    """

    people: dict[str, Person] = field(default_factory=dict)
    places: dict[Key, Place] = field(default_factory=dict)
    roles: dict[tuple[str, Key], str] = field(default_factory=dict)
    unread: set[Key] = field(default_factory=set)
    warnings: list[str] = field(default_factory=list)


class Upstream(Protocol):
    """How one kind of upstream is read."""

    name: str

    def plan(self, fetched: Fetched) -> Sequence[Stream]:
        """Every stream that is known of by now; what is fetched may make others known."""

    def confirm(self, key: Key) -> Stream:
        """Whether something that no list named is there: absent, or a record of it."""

    def tops(self, fetched: Fetched) -> frozenset[str] | None:
        """The ids of the outermost groups that are synced; None for all there is."""

    def compose(self, fetched: Fetched) -> Picture: ...
