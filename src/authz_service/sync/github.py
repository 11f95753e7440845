"""GitHub: organisations, repositories, teams, collaborators and members; teams become memberships of repositories."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal
from urllib.parse import quote

import msgspec

from authz_service.sync.records import (
    GROUP,
    PROJECT,
    TEAM,
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
    Team,
)

_ROLES: Final = ("member", "read", "triage", "write", "maintain", "admin", "owner")
"""From the least to the most. An owner of an organisation is `owner` here: so the `authz` catalog calls who manages."""
_WORDS: Final[Mapping[str, str]] = {"pull": "read", "push": "write"}
_PAGES: Final = "per_page=100"


class _Org(msgspec.Struct, frozen=True):
    id: int
    login: str
    default_repository_permission: str | None = None


class _Owner(msgspec.Struct, frozen=True):
    id: int
    login: str


class _Repo(msgspec.Struct, frozen=True):
    id: int
    name: str
    owner: _Owner
    private: bool
    visibility: Literal["public", "internal", "private"] | None = None
    archived: bool = False


class _User(msgspec.Struct, frozen=True):
    id: int
    login: str
    type: str = "User"


class _Permissions(msgspec.Struct, frozen=True):
    pull: bool = False
    triage: bool = False
    push: bool = False
    maintain: bool = False
    admin: bool = False


class _Collaborator(msgspec.Struct, frozen=True):
    id: int
    login: str
    type: str = "User"
    role_name: str = ""
    permissions: _Permissions = _Permissions()


class _TeamShape(msgspec.Struct, frozen=True):
    id: int
    slug: str


class _TeamRepo(msgspec.Struct, frozen=True):
    id: int
    role_name: str = ""
    permissions: _Permissions = _Permissions()


class GitHub:
    """Some organisations, by the token of an owner of each."""

    name = "github"

    def __init__(self, organisations: Sequence[str]) -> None:
        self._orgs = tuple(dict.fromkeys(organisations))

    def plan(self, fetched: Fetched) -> Sequence[Stream]:
        streams: list[Stream] = []
        for number, login in enumerate(self._orgs):
            path = f"/orgs/{quote(login, safe='')}"
            streams.append(Stream(f"org/{number}", "organisations", path, "", _Org, _read_org))
            for org in _orgs_of(fetched, number):
                streams += _of_organisation(org, path)
        for team in _records(fetched, Team):
            path = f"/organizations/{team.group}/team/{team.id}"
            members = _members_of(TEAM, team.id, "member")
            key = f"members/team/{team.id}"
            streams.append(Stream(key, "teams", f"{path}/members", _PAGES, list[_User], members, may_be_absent=True))
            key = f"repos/team/{team.id}"
            read = _team_repos(team.id)
            streams.append(Stream(key, "teams", f"{path}/repos", _PAGES, list[_TeamRepo], read, may_be_absent=True))
        for place in _places(fetched).values():
            if place.kind == PROJECT:
                path = f"/repos/{quote(place.path)}/collaborators"
                query = f"affiliation=direct&{_PAGES}"
                read_all = _collaborators_of(place.id)
                key = f"members/project/{place.id}"
                streams.append(
                    Stream(key, "collaborators", path, query, list[_Collaborator], read_all, may_be_absent=True)
                )
        return streams

    def confirm(self, key: Key) -> Stream:
        kind, found = key
        ways: Mapping[str, tuple[str, Any, Any]] = {
            USER: (f"/user/{found}", _User, lambda one: _people([one])),
            GROUP: (f"/organizations/{found}", _Org, _read_org),
            PROJECT: (f"/repositories/{found}", _Repo, lambda one: _read_repos([one])),
        }
        path, shape, read = ways[kind]
        return Stream(f"confirm/{kind}/{found}", "what is gone", path, "", shape, read, may_be_absent=True, anew=True)

    def tops(self, fetched: Fetched) -> frozenset[str] | None:
        return frozenset(org.id for number in range(len(self._orgs)) for org in _orgs_of(fetched, number))

    def compose(self, fetched: Fetched) -> Picture:
        tops = self.tops(fetched) or frozenset()
        places = {
            key: place
            for key, place in _places(fetched).items()
            if (place.id if place.kind == GROUP else place.parent) in tops
        }
        picture = Picture(people={one.id: one for one in _records(fetched, Person)}, places=places)
        for key, place in places.items():
            pages = fetched.get(f"members/project/{place.id}") if place.kind == PROJECT else None
            if place.kind == PROJECT and (pages is None or not pages.done or pages.absent):
                picture.unread.add(key)
            if place.kind == GROUP and place.base is None:
                picture.warnings.append(
                    f"the base permission of `{place.path}` is not shown to this token: its members come into its"
                    " repositories by teams and as collaborators alone"
                )
        _fill_roles(picture, fetched)
        return picture


def _of_organisation(org: Place, path: str) -> Iterator[Stream]:
    base = "member" if org.base in (None, "none") else _word(org.base)
    owners, members = _members_of(GROUP, org.id, "owner"), _members_of(GROUP, org.id, base)
    people = f"{path}/members"
    yield Stream(f"repos/{org.id}", "repositories", f"{path}/repos", f"type=all&{_PAGES}", list[_Repo], _read_repos)
    yield Stream(f"owners/{org.id}", "people", people, f"role=admin&{_PAGES}", list[_User], owners)
    yield Stream(f"people/{org.id}", "people", people, f"role=member&{_PAGES}", list[_User], members)

    def read_teams(teams: Sequence[_TeamShape]) -> Iterator[Record]:
        for one in teams:
            yield Team(str(one.id), org.id, one.slug)

    yield Stream(f"teams/{org.id}", "teams", f"{path}/teams", _PAGES, list[_TeamShape], read_teams)


def _read_org(org: _Org) -> Iterator[Record]:
    # Whoever has an account sees that an organisation is there; what is in it is another matter.
    yield Place(GROUP, str(org.id), org.login, "public", base=org.default_repository_permission)


def _read_repos(repos: Sequence[_Repo]) -> Iterator[Record]:
    for one in repos:
        visibility = one.visibility or ("private" if one.private else "public")
        path = f"{one.owner.login}/{one.name}"
        yield Place(PROJECT, str(one.id), path, visibility, one.archived, parent=str(one.owner.id))


def _people(users: Sequence[_User]) -> Iterator[Record]:
    for one in users:
        yield Person(str(one.id), one.login, service_account=one.type == "Bot")


def _members_of(kind: str, place: str, role: str) -> Any:
    def read(users: Sequence[_User]) -> Iterator[Record]:
        for one in users:
            yield from _people([one])
            yield Member(kind, place, str(one.id), role, _rank(role))

    return read


def _collaborators_of(repo: str) -> Any:
    def read(collaborators: Sequence[_Collaborator]) -> Iterator[Record]:
        for one in collaborators:
            role = _role_of(one.role_name, one.permissions)
            yield Person(str(one.id), one.login, service_account=one.type == "Bot")
            if role is not None:
                yield Member(PROJECT, repo, str(one.id), role, _rank(role))

    return read


def _team_repos(team: str) -> Any:
    def read(repos: Sequence[_TeamRepo]) -> Iterator[Record]:
        for one in repos:
            role = _role_of(one.role_name, one.permissions)
            if role is not None:
                yield Share(PROJECT, str(one.id), team, role, _rank(role))

    return read


def _role_of(name: str, permissions: _Permissions) -> str | None:
    """A role of GitHub's own; of a custom one, the largest that it includes."""
    known = _word(name)
    if known in _ROLES[1:-1]:
        return known
    held = [_word(word) for word in ("admin", "maintain", "push", "triage", "pull") if getattr(permissions, word)]
    return held[0] if held else None


def _word(word: str | None) -> str:
    return _WORDS.get(word or "", word or "")


def _rank(role: str) -> int:
    return _ROLES.index(role) if role in _ROLES else 0


def _orgs_of(fetched: Fetched, number: int) -> list[Place]:
    pages = fetched.get(f"org/{number}")
    return [] if pages is None else [one for one in pages.records if isinstance(one, Place)]


def _records(fetched: Fetched, kind: Any) -> Iterator[Any]:
    for pages in fetched.values():
        for one in pages.records:
            if isinstance(one, kind):
                yield one


def _places(fetched: Fetched) -> dict[Key, Place]:
    found: dict[Key, Place] = {one.key: one for one in _records(fetched, Place)}
    for key, pages in fetched.items():
        how, _, about = key.partition("/")
        kind, _, place = about.partition("/")
        again = fetched.get(f"confirm/{about}")
        if pages.absent and how in ("members", "confirm") and (again is None or again.absent):
            found.pop((kind, place), None)
    return found


def _fill_roles(picture: Picture, fetched: Fetched) -> None:
    best: dict[tuple[str, Key], tuple[int, str]] = {}
    teams: dict[str, list[str]] = {}
    for one in _records(fetched, Member):
        if one.kind == TEAM:
            teams.setdefault(one.place, []).append(one.user)
        else:
            _put(best, one.user, (one.kind, one.place), one.rank, one.role)
    for share in _records(fetched, Share):
        for user in teams.get(share.whose, ()):
            _put(best, user, (share.kind, share.place), share.rank, share.role)
    picture.roles = {row: role for row, (_, role) in best.items() if row[1] in picture.places}


def _put(best: dict[tuple[str, Key], tuple[int, str]], user: str, place: Key, rank: int, role: str) -> None:
    if best.get((user, place), (-1, ""))[0] < rank:
        best[user, place] = (rank, role)
