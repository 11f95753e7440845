"""What an import has to say so that the directory here becomes the upstream's. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from authz_service.directory.model import MAX_GROUP_DEPTH, NodeKind, is_path
from authz_service.sync.errors import TooManyDeletionsError
from authz_service.sync.here import Account, Here, Spot
from authz_service.sync.records import GROUP, PROJECT, USER, Key, Person, Picture, Place

MEMBERSHIP: Final = "membership"
KINDS: Final = (USER, GROUP, PROJECT, MEMBERSHIP)


@dataclass(frozen=True, slots=True)
class Change:
    """One line of an import. `how` is created, changed or deleted; `detail` says for people what differs."""

    kind: str
    how: str
    name: str
    detail: str
    line: Mapping[str, Any]


@dataclass(slots=True)
class Comparison:
    """`changes` in the order in which an import takes them. `left_out` are the reasons by what was left out.

    `known` counts what is here of each kind within what is synced.
    """

    changes: list[Change] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    known: Counter[str] = field(default_factory=Counter)

    def counts(self) -> dict[str, int]:
        """As `projects_created`; no zeros."""
        found = Counter(f"{one.kind}s_{one.how}" for one in self.changes)
        return dict(sorted(found.items()))

    def check_deletions(self, most: float) -> None:
        """Raises TooManyDeletionsError when more than `most` percent of what is here of some kind would go."""
        gone = Counter(one.kind for one in self.changes if one.how == "deleted")
        over = [
            f"{gone[kind]} of {self.known[kind]} {kind}s ({100 * gone[kind] / self.known[kind]:.0f} %)"
            for kind in KINDS
            if gone[kind] * 100 > most * self.known[kind]
        ]
        if over:
            raise TooManyDeletionsError(
                f"this would delete {', '.join(over)}, and {most:g} % is the most: deletion is for ever. See with"
                " `--dry-run` what would go, whether the token still sees all, and allow more with `--allow-deletions`"
            )


def find_missing(picture: Picture, here: Here, tops: Collection[str] | None) -> list[Key]:
    """What is here and in no list of the upstream: it is asked for by its id before it is taken for gone.

    Of some groups alone, only their places, and people whose last membership in them ends.
    """
    places = [key for key in _within(here, picture, tops) if key not in picture.places]
    if tops is None:
        return [*places, *((USER, one) for one in here.accounts if one not in picture.people)]
    inside = _within(here, picture, tops)
    ending = {user for user, place in here.roles if place in inside} - set(picture.people)
    return [*places, *((USER, one) for one in sorted(ending) if one in here.accounts)]


def compare(picture: Picture, here: Here, tops: Collection[str] | None, gone_people: Collection[str]) -> Comparison:
    """`gone_people` are those that the upstream does not know any more."""
    return _Comparer(picture, here, tops, set(gone_people)).run()


def _within(here: Here, picture: Picture, tops: Collection[str] | None) -> dict[Key, Spot]:
    """The places here that are synced: all, or those in these outermost groups, as here or upstream they lie."""
    if tops is None:
        return here.spots
    return {
        key: spot
        for key, spot in here.spots.items()
        if key in picture.places
        or (key[0] == GROUP and key[1] in tops)
        or (spot.path is not None and (top := here.top_of(spot.path)) is not None and top[1] in tops)
    }


class _Comparer:
    def __init__(self, picture: Picture, here: Here, tops: Collection[str] | None, gone_people: set[str]) -> None:
        self._picture = picture
        self._here = here
        self._tops = tops
        self._gone = gone_people
        self._within = _within(here, picture, tops)
        self._paths: dict[str, Key] = {}
        self._people: dict[str, Person] = {}
        self._places: dict[Key, Place] = {}
        self._done = Comparison()

    def run(self) -> Comparison:
        accounts = self._here.accounts
        self._done.known[USER] = len(accounts)
        self._done.known.update(key[0] for key in self._within)
        self._done.known[MEMBERSHIP] = sum(1 for _, place in self._here.roles if place in self._within)
        for person in sorted(self._picture.people.values(), key=lambda one: one.username):
            self._compare_person(person, accounts.get(person.id))
        places = self._picture.places.values()
        for place in sorted(places, key=lambda one: (one.kind == PROJECT, one.path.count("/"), one.path)):
            self._compare_place(place, self._here.spots.get(place.key))
        gone = [key for key in self._within if key not in self._picture.places]
        self._compare_roles(set(gone))
        self._delete(gone)
        return self._done

    # people

    def _compare_person(self, person: Person, account: Account | None) -> None:
        if not self._may_be(USER, person.id, person.username, _is_username(person.username)):
            return
        self._people[person.id] = person
        self._paths[person.username.lower()] = (USER, person.id)
        said = {
            "state": person.state,
            "admin": person.admin,
            "external": person.external,
            "service_account": person.service_account,
            "namespace_id": person.namespace_id,
        }
        told = {name: value for name, value in said.items() if value is not None}
        line = {"type": USER, "username": person.username, "external_id": person.id}
        if account is None:
            self._add(USER, "created", person.username, _words(told, ("state", "admin")), line | told)
            return
        differs = {name: value for name, value in told.items() if getattr(account, name) != value}
        words = [f"{name} {_word(getattr(account, name))} → {_word(value)}" for name, value in differs.items()]
        if account.username != person.username:
            words.insert(0, f"was {account.username or 'nameless'}")
        if words:
            self._add(USER, "changed", person.username, ", ".join(words), line | differs)

    # places

    def _compare_place(self, place: Place, spot: Spot | None) -> None:
        good = is_path(place.path) and not place.path.isdigit()
        if place.kind == GROUP:
            good = good and place.path.count("/") < MAX_GROUP_DEPTH
        if not self._may_be(place.kind, place.id, place.path, good):
            return
        above, _, name = place.path.rpartition("/")
        parent = self._paths.get(above.lower())
        if parent is None and (above or place.kind == PROJECT):
            self._leave_out(place.kind, place.path, "what it lies in is not here")
            return
        self._places[place.key] = place
        if place.kind == GROUP:
            self._paths[place.path.lower()] = place.key
        line: dict[str, Any] = {"type": place.kind, "path": place.path, "external_id": place.id}
        told = {"visibility": place.visibility} | ({} if place.archived is None else {"archived": place.archived})
        if spot is None:
            words = _words(told, ("visibility", "archived"))
            self._add(place.kind, "created", place.path, words, line | told)
            return
        differs = {field_name: value for field_name, value in told.items() if getattr(spot, field_name) != value}
        words_of = [f"{one} {_word(getattr(spot, one))} → {_word(value)}" for one, value in differs.items()]
        # Whatever moved above it: here it is by its parent that a place is where it is.
        was_at_top = spot.path is not None and "/" not in spot.path
        was_in = None if spot.path is None else self._here.parent_of(spot.path)
        same_parent = was_in == parent and was_at_top == (not above)
        if spot.path is None or spot.path.rpartition("/")[2] != name or not same_parent:
            words_of.insert(0, f"was {spot.path or 'nameless'}")
        if words_of:
            self._add(place.kind, "changed", place.path, ", ".join(words_of), line | differs)

    def _may_be(self, kind: str, external_id: str, name: str, good: bool) -> bool:  # noqa: FBT001 - one test, named
        if (kind, external_id) in self._here.deleted:
            self._leave_out(kind, name, f"its id {external_id} was deleted here, and that is for ever")
            return False
        if not good:
            self._leave_out(kind, name, "its name cannot be one here")
        return good

    def _leave_out(self, kind: str, name: str, why: str) -> None:
        self._done.left_out[f"{kind} {name}"] = why

    # memberships

    def _compare_roles(self, gone: set[Key]) -> None:
        for (user, place), role in sorted(self._picture.roles.items()):
            if not self._is_there(user, place):
                continue
            had = self._here.roles.get((user, place))
            if had != role:
                how = "created" if had is None else "changed"
                line = {"type": MEMBERSHIP, "user": f"user:{user}", "node": ":".join(place), "role": role}
                self._add(MEMBERSHIP, how, self._pair(user, place), role if had is None else f"{had} → {role}", line)
        for (user, place), role in sorted(self._here.roles.items()):
            ends = place in self._within and place not in gone and place not in self._picture.unread
            if ends and user not in self._gone and (user, place) not in self._picture.roles:
                line = {"type": "delete", "what": MEMBERSHIP, "user": f"user:{user}", "node": ":".join(place)}
                self._add(MEMBERSHIP, "deleted", self._pair(user, place), f"was {role}", line)

    def _is_there(self, user: str, place: Key) -> bool:
        """Once the lines before it are applied."""
        person = user in self._people or (user in self._here.accounts and user not in self._gone)
        return person and (place in self._places or place in self._here.spots)

    def _pair(self, user: str, place: Key) -> str:
        person = self._people.get(user)
        account = self._here.accounts.get(user)
        name = person.username if person else (account.username if account else None)
        known = self._places.get(place) or self._here.spots.get(place)
        return f"{name or f'user:{user}'} at {(known.path if known else None) or ':'.join(place)}"

    # what is gone

    def _delete(self, gone: Iterable[Key]) -> None:
        """Projects, then groups from the innermost out: what lies in a group goes with it."""

        def order(key: Key) -> tuple[bool, int, str]:
            path = self._here.spots[key].path or ""
            return (key[0] == GROUP, -path.count("/"), path)

        for kind, external in sorted(gone, key=order):
            name = self._here.spots[kind, external].path or f"{kind}:{external}"
            self._add(kind, "deleted", name, f"id {external}", _deletion(kind, external))
        for external in sorted(self._gone):
            if external in self._here.accounts and external not in self._picture.people:
                name = self._here.accounts[external].username or f"user:{external}"
                self._add(USER, "deleted", name, f"id {external}", _deletion(USER, external))

    def _add(self, kind: str, how: str, name: str, detail: str, line: Mapping[str, Any]) -> None:
        self._done.changes.append(Change(kind, how, name, detail, line))


def _deletion(kind: str, external: str) -> Mapping[str, Any]:
    return {"type": "delete", "what": NodeKind(kind).value, "external_id": external}


def _is_username(name: str) -> bool:
    return is_path(name) and "/" not in name and not name.isdigit()


def _words(told: Mapping[str, Any], names: Iterable[str]) -> str:
    """What is worth saying of something new."""
    found = []
    for name in names:
        value = told.get(name)
        if value is True:
            found.append(name)
        elif isinstance(value, str):
            found.append(value)
    return ", ".join(found)


def _word(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
