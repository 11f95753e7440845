"""GitLab: groups, projects, people and their direct memberships, and groups that are invited into others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import quote

import msgspec

from authz_service.sync.errors import UpstreamRefusedError
from authz_service.sync.records import (
    GROUP,
    PROJECT,
    USER,
    Fetched,
    Key,
    Member,
    Person,
    Picture,
    Place,
    Record,
    Share,
    Stream,
)

ROLES: Final[Mapping[int, str]] = {
    5: "minimal_access",
    10: "guest",
    15: "planner",
    20: "reporter",
    30: "developer",
    40: "maintainer",
    50: "owner",
}
"""Access levels by number; another one is a role that no catalog knows, which is bare membership (C6)."""
_LEAST_SHARED: Final = 10
_API: Final = "/api/v4"
_KEYSET: Final = "pagination=keyset&order_by=id&sort=asc&per_page=100"
_PAGES: Final = "order_by=id&sort=asc&per_page=100"
_Visibility: TypeAlias = Literal["public", "internal", "private"]


class _Shared(msgspec.Struct, frozen=True):
    group_id: int
    group_access_level: int
    expires_at: str | None = None


class _User(msgspec.Struct, frozen=True):
    id: int
    username: str
    state: str = "active"
    is_admin: bool | None = None
    external: bool | None = None
    bot: bool | None = None
    namespace_id: int | None = None


class _Group(msgspec.Struct, frozen=True):
    id: int
    full_path: str
    visibility: _Visibility
    parent_id: int | None = None
    archived: bool | None = None
    shared_with_groups: list[_Shared] = []


class _Project(msgspec.Struct, frozen=True):
    id: int
    path_with_namespace: str
    visibility: _Visibility
    archived: bool | None = None
    shared_with_groups: list[_Shared] = []


class _Member(msgspec.Struct, frozen=True):
    id: int
    username: str
    access_level: int
    state: str = "active"
    membership_state: str = "active"
    expires_at: str | None = None


class GitLab:
    """A whole GitLab, by an administrator's token, or some of its outermost groups."""

    name = "gitlab"

    def __init__(self, groups: Sequence[str], today: date) -> None:
        """`groups` are paths; none are all there is. What has expired by `today` (UTC) counts no more."""
        self._groups = tuple(dict.fromkeys(groups))
        self._today = today.isoformat()

    def plan(self, fetched: Fetched) -> Sequence[Stream]:
        streams = self._lists(fetched)
        for place in _places(fetched).values():
            about = f"{place.kind}/{place.id}"
            path = f"{_API}/{place.kind}s/{place.id}"
            if place.kind == GROUP:
                streams.append(self._one_group(f"detail/{about}", path))
            members = self._members_of(place.kind, place.id)
            key, query = f"members/{about}", "per_page=100"
            streams.append(Stream(key, "members", f"{path}/members", query, list[_Member], members, may_be_absent=True))
        return streams

    def _lists(self, fetched: Fetched) -> list[Stream]:
        if not self._groups:
            everything = "&all_available=true"
            pending = "&include_pending_delete=true"
            return [
                Stream("users", "people", f"{_API}/users", _KEYSET, list[_User], _people),
                Stream("groups", "groups", f"{_API}/groups", _PAGES + everything, list[_Group], self._read_groups),
                Stream(
                    "projects", "projects", f"{_API}/projects", _KEYSET + pending, list[_Project], self._read_projects
                ),
            ]
        streams = []
        for number, group in enumerate(self._groups):
            path = f"{_API}/groups/{quote(group, safe='')}"
            streams.append(Stream(f"top/{number}", "groups", path, "with_projects=false", _Group, self._read_top))
            for top in _tops_of(fetched, number):
                below = f"{_API}/groups/{top}"
                streams.append(
                    Stream(
                        f"below/{top}", "groups", f"{below}/descendant_groups", _PAGES, list[_Group], self._read_groups
                    )
                )
                query = f"{_PAGES}&include_subgroups=true&with_shared=false"
                streams.append(
                    Stream(
                        f"projects/{top}", "projects", f"{below}/projects", query, list[_Project], self._read_projects
                    )
                )
        return streams

    def confirm(self, key: Key) -> Stream:
        kind, found = key
        path = f"{_API}/{kind}s/{found}"
        shapes: Mapping[str, tuple[Any, Any]] = {
            USER: (_User, lambda one: _people([one])),
            GROUP: (_Group, lambda one: self._read_groups([one])),
            PROJECT: (_Project, lambda one: self._read_projects([one])),
        }
        shape, read = shapes[kind]
        query = "with_projects=false" if kind == GROUP else ""
        return Stream(
            f"confirm/{kind}/{found}", "what is gone", path, query, shape, read, may_be_absent=True, anew=True
        )

    def tops(self, fetched: Fetched) -> frozenset[str] | None:
        if not self._groups:
            return None
        return frozenset(one for number in range(len(self._groups)) for one in _tops_of(fetched, number))

    def compose(self, fetched: Fetched) -> Picture:
        picture = Picture(people=_collect_people(fetched), places=_places(fetched))
        self._check_rights(picture.people)
        tops = self.tops(fetched)
        if tops is not None:
            roots = {picture.places[GROUP, top].path.lower() for top in tops if (GROUP, top) in picture.places}
            # Asked for by its id it may turn out to have moved out of what is synced.
            picture.places = {
                key: place for key, place in picture.places.items() if place.path.lower().partition("/")[0] in roots
            }
        for key in picture.places:
            pages = fetched.get(f"members/{key[0]}/{key[1]}")
            if pages is None or not pages.done or pages.absent:
                picture.unread.add(key)
        _fill_roles(picture, fetched)
        return picture

    def _check_rights(self, people: Mapping[str, Person]) -> None:
        if not self._groups and not any(person.admin for person in people.values()):
            raise UpstreamRefusedError(
                "the token shows no administrator among the people: a whole GitLab takes an administrator's token;"
                " with another, name outermost groups with `--group`"
            )

    def _one_group(self, key: str, path: str) -> Stream:
        def read(group: _Group) -> Iterator[Record]:
            yield from self._shares(GROUP, group.id, group.shared_with_groups)

        return Stream(key, "groups' invitations", path, "with_projects=false", _Group, read, may_be_absent=True)

    def _read_top(self, group: _Group) -> Iterator[Record]:
        if group.parent_id is not None:
            raise UpstreamRefusedError(
                f"`{group.full_path}` lies in another group, whose members it inherits; name the outermost one"
            )
        yield from self._read_groups([group])

    def _read_groups(self, groups: Sequence[_Group]) -> Iterator[Record]:
        for one in groups:
            parent = None if one.parent_id is None else str(one.parent_id)
            yield Place(GROUP, str(one.id), one.full_path, one.visibility, one.archived, parent=parent)

    def _read_projects(self, projects: Sequence[_Project]) -> Iterator[Record]:
        for one in projects:
            yield Place(PROJECT, str(one.id), one.path_with_namespace, one.visibility, one.archived)
            yield from self._shares(PROJECT, one.id, one.shared_with_groups)

    def _shares(self, kind: str, place: int, shared: Sequence[_Shared]) -> Iterator[Record]:
        for one in shared:
            if not self._is_over(one.expires_at):
                level = one.group_access_level
                yield Share(kind, str(place), str(one.group_id), _role(level), level)

    def _members_of(self, kind: str, place: str) -> Any:
        def read(members: Sequence[_Member]) -> Iterator[Record]:
            for one in members:
                yield Person(str(one.id), one.username, _state(one.state))
                if one.membership_state == "active" and not self._is_over(one.expires_at):
                    yield Member(kind, place, str(one.id), _role(one.access_level), one.access_level)

        return read

    def _is_over(self, expires_at: str | None) -> bool:
        return expires_at is not None and expires_at[:10] <= self._today


def _people(users: Sequence[_User]) -> Iterator[Record]:
    for one in users:
        yield Person(
            id=str(one.id),
            username=one.username,
            state=_state(one.state),
            admin=one.is_admin,
            external=one.external,
            service_account=one.bot,
            namespace_id=None if one.namespace_id is None else str(one.namespace_id),
            listed=True,
        )


def _state(state: str) -> Literal["active", "blocked"]:
    """Whoever is deactivated, banned or not approved yet can do nothing upstream."""
    return "active" if state in ("active", "awaiting") else "blocked"


def _role(level: int) -> str:
    return ROLES.get(level, f"access_level_{level}")


def _tops_of(fetched: Fetched, number: int) -> list[str]:
    pages = fetched.get(f"top/{number}")
    return [] if pages is None else [one.id for one in pages.records if isinstance(one, Place)]


def _places(fetched: Fetched) -> dict[Key, Place]:
    """All that some list or some look named, but for what was gone when it was looked at."""
    found: dict[Key, Place] = {}
    for key, pages in fetched.items():
        if key.partition("/")[0] in ("groups", "projects", "top", "below", "confirm"):
            found |= {one.key: one for one in pages.records if isinstance(one, Place)}
    for key, pages in fetched.items():
        how, _, about = key.partition("/")
        kind, _, place = about.partition("/")
        again = fetched.get(f"confirm/{about}")
        if pages.absent and how in ("members", "detail", "confirm") and (again is None or again.absent):
            found.pop((kind, place), None)
    return found


def _collect_people(fetched: Fetched) -> dict[str, Person]:
    found: dict[str, Person] = {}
    for pages in fetched.values():
        for one in pages.records:
            if isinstance(one, Person) and (one.id not in found or one.listed):
                found[one.id] = one
    return found


def _fill_roles(picture: Picture, fetched: Fetched) -> None:
    """Direct members, and of invited groups: theirs into a group, theirs and their parents' into a project.

    So the upstream has it: into a group come only the direct members of the one that is invited.
    """
    direct: dict[Key, dict[str, int]] = {}
    shares: list[Share] = []
    for pages in fetched.values():
        for one in pages.records:
            if isinstance(one, Member) and (one.kind, one.place) in picture.places:
                direct.setdefault((one.kind, one.place), {})[one.user] = one.rank
            elif isinstance(one, Share) and (one.kind, one.place) in picture.places:
                shares.append(one)
    ranks = {key: dict(members) for key, members in direct.items()}
    unknown: set[str] = set()
    # Groups first: what came into a group by an invitation counts where that group is invited into a project.
    for share in sorted(shares, key=lambda one: (one.kind != GROUP, one.place)):
        whose: Key = (GROUP, share.whose)
        if whose not in picture.places:
            unknown.add(share.whose)
            continue
        here = ranks.setdefault((share.kind, share.place), {})
        brought = direct.get(whose, {}) if share.kind == GROUP else _with_inherited(whose, ranks, picture)
        for user, rank in brought.items():
            if min(rank, share.rank) >= _LEAST_SHARED:
                here[user] = max(here.get(user, 0), min(rank, share.rank))
    picture.roles = {(user, key): _role(rank) for key, members in ranks.items() for user, rank in members.items()}
    if unknown:
        ids = ", ".join(sorted(unknown, key=int)[:10])
        picture.warnings.append(
            f"{len(unknown)} groups that are invited somewhere are not synced, and their members come in nowhere by"
            f" it: ids {ids}"
        )


def _with_inherited(group: Key, ranks: Mapping[Key, Mapping[str, int]], picture: Picture) -> Mapping[str, int]:
    found: dict[str, int] = {}
    at: Key | None = group
    while at is not None and at in picture.places:
        for user, rank in ranks.get(at, {}).items():
            if at == group or rank >= _LEAST_SHARED:
                found[user] = max(found.get(user, 0), rank)
        parent = picture.places[at].parent
        at = None if parent is None else (GROUP, parent)
    return found
