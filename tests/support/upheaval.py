"""Random changes of a directory, as import lines: people and places come, go, move, take each other's names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from tests.reference.places import path_of
from tests.reference.rows import Rows

from authz_service.directory.model import Node, NodeKind, User, UserState

Line = Mapping[str, Any]

ROLES = ("guest", "developer", "owner", "minimal", "member", "write", "admin", "captain")
"""Of several catalogs, and one that none knows; `minimal` and `member` do not come down."""
USERNAMES = ("dana", "eve", "frank", "olga", "bot", "gina", "Hugo")
PLACE_NAMES = ("web", "site", "Tools", "lint", "core", "page", "docs")
PROTECTED = ("root", "gateway")

START: Sequence[Line] = (
    {"type": "user", "username": "root", "external_id": "1", "admin": True},
    {"type": "user", "username": "gateway", "external_id": "2"},
    {"type": "user", "username": "dana", "external_id": "7", "namespace_id": "907", "attributes": {"team": "red"}},
    {"type": "user", "username": "eve", "external_id": "8", "attributes": {"team": "blue"}},
    {"type": "user", "username": "frank", "external_id": "9", "external": True},
    {"type": "user", "username": "olga", "external_id": "10", "attributes": {"team": "red"}},
    {"type": "group", "path": "acme", "external_id": "21", "visibility": "private"},
    {"type": "group", "path": "acme/Tools", "external_id": "22", "visibility": "private"},
    {"type": "group", "path": "acme/Tools/core", "external_id": "23", "visibility": "internal"},
    {"type": "group", "path": "open", "external_id": "24", "visibility": "public"},
    {"type": "group", "path": "inner", "external_id": "25", "visibility": "internal"},
    {"type": "group", "path": "hidden", "external_id": "26", "visibility": "private"},
    {"type": "project", "path": "acme/web", "external_id": "41", "visibility": "private"},
    {"type": "project", "path": "acme/Tools/lint", "external_id": "42", "attributes": {"status": "open"}},
    {"type": "project", "path": "acme/Tools/core/docs", "external_id": "21", "visibility": "public"},
    {"type": "project", "path": "open/site", "external_id": "44", "visibility": "public"},
    {"type": "project", "path": "open/web", "external_id": "45", "visibility": "private"},
    {"type": "project", "path": "inner/docs", "external_id": "46", "visibility": "internal"},
    {"type": "project", "path": "hidden/web", "external_id": "47", "visibility": "private"},
    {"type": "project", "path": "dana/web", "external_id": "48", "visibility": "private"},
    {"type": "user", "username": "bot", "external_id": "11", "service_account": True, "home": "acme"},
    {"type": "membership", "user": "dana", "node": "acme", "role": "developer"},
    {"type": "membership", "user": "dana", "node": "open", "role": "minimal"},
    {"type": "membership", "user": "eve", "node": "open", "role": "developer"},
    {"type": "membership", "user": "frank", "node": "acme/Tools", "role": "guest"},
    {"type": "membership", "user": "olga", "node": "acme", "role": "owner"},
    {"type": "membership", "user": "olga", "node": "inner", "role": "write"},
    {"type": "membership", "user": "bot", "node": "acme", "role": "owner"},
)


class Upheaval:
    """Draws changes for one directory. It remembers paths and names that were in use, to use them again."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._next_id = 1000
        self._paths: list[tuple[NodeKind, str]] = []

    def draw(self, rows: Rows) -> list[Line]:
        """One import: mostly one change, sometimes several that know nothing of each other. It may have faults."""
        for node in rows.nodes:
            known = (node.kind, path_of(rows, node))
            if node.kind in (NodeKind.GROUP, NodeKind.PROJECT) and known not in self._paths:
                self._paths.append(known)
        lines: list[Line] = []
        for _ in range(self._random.choice((1, 1, 1, 2, 3))):
            lines += self._change(rows)
        return lines

    def _change(self, rows: Rows) -> list[Line]:
        places = [node for node in rows.nodes if node.kind in (NodeKind.GROUP, NodeKind.PROJECT)]
        people = self._people(rows)
        many = len(places) > 18
        changes = [
            *[self._join] * 4,
            *[self._leave] * 3,
            *[self._alter_place] * 3,
            *[self._alter_user] * 4,
            *[self._move] * 3,
            *[self._rename] * 2,
            *[self._delete_place] * (3 if many else 1),
            *[self._new_place] * (0 if many else 4),
            self._take_path,
            self._take_username,
            self._rename_user,
            self._delete_user,
        ]
        return self._random.choice(changes)(rows, places, people)

    def _people(self, rows: Rows) -> list[User]:
        return [user for user in rows.users if user.username not in PROTECTED and user.state is not UserState.DELETED]

    def _id(self) -> str:
        self._next_id += 1
        return str(self._next_id)

    # memberships

    def _join(self, rows: Rows, places: list[Node], people: list[User]) -> list[Line]:
        user, place = self._random.choice(people), self._random.choice(places)
        return [
            {"type": "membership", "user": user.username, "node": _by_id(place), "role": self._random.choice(ROLES)}
        ]

    def _leave(self, rows: Rows, places: list[Node], people: list[User]) -> list[Line]:
        if not rows.memberships:
            return self._join(rows, places, people)
        names = {user.id: user.username for user in people}
        nodes = {node.id: node for node in places}
        user, node, _ = self._random.choice(rows.memberships)
        if user not in names or node not in nodes:
            return self._join(rows, places, people)
        return [{"type": "delete", "what": "membership", "user": names[user], "node": _by_id(nodes[node])}]

    # places

    def _alter_place(self, rows: Rows, places: list[Node], people: list[User]) -> list[Line]:
        place = self._random.choice(places)
        if place.name.startswith("~"):
            return self._rename(rows, places, people)
        said = self._random.choice(
            (
                {"visibility": self._random.choice(("public", "internal", "private"))},
                {"visibility": self._random.choice(("public", "internal", "private"))},
                {"archived": not place.archived},
                {"attributes": {"status": self._random.choice(("open", "closed"))}},
                {"attributes": {}},
            )
        )
        return [self._line(place.kind, path_of(rows, place), place.external_id) | said]

    def _line(self, kind: NodeKind, path: str, external_id: str | None) -> dict[str, Any]:
        return {"type": kind.value, "path": path, "external_id": external_id}

    def _new_place(self, rows: Rows, places: list[Node], people: list[User]) -> list[Line]:
        """Often at a path that was in use before."""
        kind = self._random.choice((NodeKind.GROUP, NodeKind.PROJECT, NodeKind.PROJECT))
        former = [path for of_kind, path in self._paths if of_kind is kind]
        if former and self._random.random() < 0.6:
            path = self._random.choice(former)
        else:
            path = self._path(rows, kind, places, people)
        visibility = self._random.choice(("public", "internal", "private", "private"))
        return [self._line(kind, path, self._id()) | {"visibility": visibility}]

    def _path(self, rows: Rows, kind: NodeKind, places: list[Node], people: list[User]) -> str:
        above = [path_of(rows, node) for node in places if node.kind is NodeKind.GROUP]
        above += [user.username for user in people] if kind is NodeKind.PROJECT else []
        name = self._random.choice(PLACE_NAMES)
        if kind is NodeKind.GROUP and (not above or self._random.random() < 0.3):
            return name
        return f"{self._random.choice(above)}/{name}" if above else f"dana/{name}"

    def _take_path(self, rows: Rows, places: list[Node], people: list[User]) -> list[Line]:
        """Another thing comes to a path in use: the one that was there loses its name."""
        place = self._random.choice(places)
        kind = place.kind if self._random.random() < 0.8 else self._random.choice((NodeKind.GROUP, NodeKind.PROJECT))
        return [self._line(kind, path_of(rows, place), self._id())]

    def _move(self, rows: Rows, places: list[Node], people: list[User]) -> list[Line]:
        place = self._random.choice(places)
        if place.name.startswith("~"):
            return self._rename(rows, places, people)
        targets: list[str | None] = [_by_id(node) for node in places if node.kind is NodeKind.GROUP]
        if place.kind is NodeKind.GROUP:
            targets.append(None)
        else:
            targets += [f"user:{user.username}" for user in people]
        return [{"type": "move", "node": _by_id(place), "to": self._random.choice(targets)}]

    def _rename(self, rows: Rows, places: list[Node], people: list[User]) -> list[Line]:
        place = self._random.choice(places)
        lost = [node for node in places if node.name.startswith("~")]
        if lost and self._random.random() < 0.7:
            place = self._random.choice(lost)
        path = f"{path_of(rows, place).rpartition('/')[0]}/{self._random.choice(PLACE_NAMES)}".removeprefix("/")
        if self._random.random() < 0.3:
            path = self._path(rows, place.kind, places, people)
        return [self._line(place.kind, path, place.external_id)]

    def _delete_place(self, rows: Rows, places: list[Node], people: list[User]) -> list[Line]:
        """And sometimes another of the same path in the same import, or the very one once more."""
        place = self._random.choice(places)
        gone: Line = {"type": "delete", "what": place.kind.value, "external_id": place.external_id}
        again = self._line(place.kind, path_of(rows, place), self._id()) | {"visibility": "public"}
        return [gone, again] if self._random.random() < 0.4 and not place.name.startswith("~") else [gone]

    # people

    def _alter_user(self, rows: Rows, places: list[Node], people: list[User]) -> list[Line]:
        user = self._random.choice(people)
        said = self._random.choice(
            (
                {"state": "active" if user.state is UserState.BLOCKED else "blocked"},
                {"state": "active"},
                {"admin": not user.admin},
                {"admin": False},
                {"external": not user.external},
                {"attributes": {"team": self._random.choice(("red", "blue"))}},
                {"namespace_id": self._random.choice((None, self._id()))},
                self._home(user, places),
            )
        )
        return [self._user(rows, user) | said]

    def _home(self, user: User, places: list[Node]) -> dict[str, Any]:
        groups = [node for node in places if node.kind is NodeKind.GROUP]
        if not user.service_account or not groups:
            return {"state": "active"}
        return {"home": self._random.choice([_by_id(node) for node in groups])}

    def _user(self, rows: Rows, user: User) -> dict[str, Any]:
        node = next(node for node in rows.nodes if node.id == user.id)
        return {"type": "user", "username": user.username, "external_id": node.external_id}

    def _rename_user(self, rows: Rows, places: list[Node], people: list[User]) -> list[Line]:
        user = self._random.choice(people)
        return [self._user(rows, user) | {"username": self._random.choice(USERNAMES)}]

    def _take_username(self, rows: Rows, places: list[Node], people: list[User]) -> list[Line]:
        line = {"type": "user", "username": self._random.choice(USERNAMES), "external_id": self._id()}
        return [line | {"service_account": self._random.random() < 0.3}]

    def _delete_user(self, rows: Rows, places: list[Node], people: list[User]) -> list[Line]:
        """Somebody else of that name comes at once, or later."""
        if len(people) < 4:
            return self._take_username(rows, places, people)
        user = self._random.choice(people)
        gone = self._random.choice(
            (
                self._user(rows, user) | {"state": "deleted"},
                {"type": "delete", "what": "user", "user": user.username},
            )
        )
        if self._random.random() < 0.5:
            return [gone]
        return [gone, {"type": "user", "username": user.username, "external_id": self._id(), "admin": False}]


def _by_id(node: Node) -> str:
    return f"{node.kind.value}:{node.external_id}"
