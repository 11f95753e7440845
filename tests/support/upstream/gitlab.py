"""A GitLab in memory, with those parts of its REST API that a sync reads."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from tests.support.upstream.server import Answer, Asked

NOT_FOUND = {"message": "404 Not found"}


@dataclass
class GitLabWorld:
    """People, groups and projects by id, members by `("groups", 12)`. `page` overrides how many a page has."""

    users: dict[int, dict[str, Any]] = field(default_factory=dict)
    groups: dict[int, dict[str, Any]] = field(default_factory=dict)
    projects: dict[int, dict[str, Any]] = field(default_factory=dict)
    members: dict[tuple[str, int], list[dict[str, Any]]] = field(default_factory=dict)
    page: int | None = None
    hidden: set[int] = field(default_factory=set)
    """Projects that no list has, although they are there."""

    def user(self, number: int, username: str, **given: Any) -> None:
        usual = {"state": "active", "is_admin": False, "external": False, "bot": False, "namespace_id": 9000 + number}
        shown = {"name": username.title(), "web_url": f"https://gitlab.test/{username}", "locked": False}
        self.users[number] = {"id": number, "username": username} | shown | usual | given

    def group(self, number: int, path: str, parent: int | None = None, **given: Any) -> None:
        name = path.rpartition("/")[2]
        usual = {"name": name, "path": name, "visibility": "private", "archived": False, "shared_with_groups": []}
        self.groups[number] = {"id": number, "full_path": path, "parent_id": parent} | usual | given

    def project(self, number: int, path: str, **given: Any) -> None:
        name = path.rpartition("/")[2]
        usual = {"name": name, "path": name, "visibility": "private", "archived": False, "shared_with_groups": []}
        self.projects[number] = {"id": number, "path_with_namespace": path, "default_branch": "main"} | usual | given

    def member(self, kind: str, number: int, user: int, level: int, **given: Any) -> None:
        known = self.users[user]
        usual = {"expires_at": None, "membership_state": "active", "created_at": "2026-01-01T00:00:00.000Z"}
        row = {"id": user, "username": known["username"], "state": known["state"], "access_level": level}
        rows = self.members.setdefault((kind, number), [])
        rows[:] = [one for one in rows if one["id"] != user]
        rows.append(row | usual | given)

    def remove_member(self, kind: str, number: int, user: int) -> None:
        rows = self.members[kind, number]
        rows[:] = [one for one in rows if one["id"] != user]

    def answer(self, asked: Asked, origin: str) -> Answer:
        parts = asked.path.removeprefix("/api/v4/").split("/")
        match parts:
            case ["users"]:
                return self._keyset(asked, origin, list(self.users.values()))
            case ["groups"]:
                return self._offset(asked, origin, [self._listed(one) for one in self.groups.values()])
            case ["projects"]:
                listed = [one for one in self.projects.values() if one["id"] not in self.hidden]
                return self._keyset(asked, origin, listed)
            case [("users" | "groups" | "projects") as kind, one]:
                return self._one(kind, one)
            case [("groups" | "projects") as kind, one, "members"] if self._find(kind, one) is not None:
                found = self._find(kind, one)
                return self._offset(asked, origin, self.members.get((kind, found["id"]), []))
            case ["groups", one, below] if self._find("groups", one) is not None:
                return self._below(asked, origin, self._find("groups", one)["full_path"], below)
        return Answer(NOT_FOUND, 404)

    def _find(self, kind: str, one: str) -> Any:
        things: dict[int, dict[str, Any]] = getattr(self, kind)
        if one.isdigit():
            return things.get(int(one))
        path = one.replace("%2F", "/")
        return next((thing for thing in things.values() if thing.get("full_path") == path), None)

    def _one(self, kind: str, one: str) -> Answer:
        found = self._find(kind, one)
        return Answer(NOT_FOUND, 404) if found is None else Answer(found)

    def _below(self, asked: Asked, origin: str, path: str, what: str) -> Answer:
        if what == "descendant_groups":
            found = [self._listed(one) for one in self.groups.values() if one["full_path"].startswith(f"{path}/")]
        else:
            found = [one for one in self.projects.values() if one["path_with_namespace"].startswith(f"{path}/")]
        return self._offset(asked, origin, found)

    @staticmethod
    def _listed(group: dict[str, Any]) -> dict[str, Any]:
        """A list of groups does not say who is invited into them."""
        return {name: value for name, value in group.items() if name != "shared_with_groups"}

    def _size(self, asked: Asked) -> int:
        return self.page or min(100, int(asked.query.get("per_page", "20")))

    def _keyset(self, asked: Asked, origin: str, things: list[dict[str, Any]]) -> Answer:
        assert asked.query.get("pagination") == "keyset"
        after = int(base64.b64decode(asked.query["cursor"])) if "cursor" in asked.query else 0
        found = [one for one in sorted(things, key=lambda one: one["id"]) if one["id"] > after]
        size = self._size(asked)
        headers = {}
        if len(found) > size:
            cursor = base64.b64encode(str(found[size - 1]["id"]).encode()).decode()
            query = urlencode(asked.query | {"cursor": cursor})
            headers["Link"] = f'<{origin}{asked.path}?{query}>; rel="next"'
        return Answer(found[:size], headers=headers)

    def _offset(self, asked: Asked, origin: str, things: list[dict[str, Any]]) -> Answer:
        page, size = int(asked.query.get("page", "1")), self._size(asked)
        found = sorted(things, key=lambda one: one["id"])[(page - 1) * size :]
        more = len(found) > size
        headers = {"X-Page": str(page), "X-Per-Page": str(size), "X-Next-Page": str(page + 1) if more else ""}
        if more and page % 2:  # some are told by the one, some by the other
            query = urlencode(asked.query | {"page": str(page + 1)})
            headers["Link"] = f'<{origin}{asked.path}?{query}>; rel="next"'
        return Answer(found[:size], headers=headers)
