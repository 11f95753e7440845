"""A GitHub in memory, with those parts of its REST API that a sync reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from tests.support.upstream.server import Answer, Asked

NOT_FOUND = {"message": "Not Found", "documentation_url": "https://docs.github.com/rest", "status": "404"}
_HELD = {
    "read": ("pull",),
    "triage": ("pull", "triage"),
    "write": ("pull", "triage", "push"),
    "maintain": ("pull", "triage", "push", "maintain"),
    "admin": ("pull", "triage", "push", "maintain", "admin"),
}


def permissions(role: str) -> dict[str, bool]:
    return {name: name in _HELD[role] for name in ("pull", "triage", "push", "maintain", "admin")}


@dataclass
class GitHubWorld:
    """`people` of an organisation maps users to `admin` or `member`; a team has members, and roles on repositories."""

    users: dict[int, dict[str, Any]] = field(default_factory=dict)
    orgs: dict[int, dict[str, Any]] = field(default_factory=dict)
    repos: dict[int, dict[str, Any]] = field(default_factory=dict)
    people: dict[int, dict[int, str]] = field(default_factory=dict)
    collaborators: dict[int, dict[int, str]] = field(default_factory=dict)
    teams: dict[int, dict[str, Any]] = field(default_factory=dict)
    page: int | None = None

    def user(self, number: int, login: str, kind: str = "User") -> None:
        self.users[number] = {"id": number, "login": login, "type": kind, "site_admin": False, "node_id": f"U_{number}"}

    def org(self, number: int, login: str, base: str | None = "none") -> None:
        self.orgs[number] = {"id": number, "login": login, "type": "Organization"}
        if base is not None:
            self.orgs[number]["default_repository_permission"] = base

    def repo(self, number: int, org: int, name: str, visibility: str = "private", **given: Any) -> None:
        owner = self.orgs[org]
        usual = {"full_name": f"{owner['login']}/{name}", "private": visibility != "public", "archived": False}
        self.repos[number] = {"id": number, "name": name, "owner": owner, "visibility": visibility} | usual | given

    def team(self, number: int, org: int, slug: str, members: list[int], repos: dict[int, str]) -> None:
        self.teams[number] = {"id": number, "org": org, "slug": slug, "members": members, "repos": repos}

    def answer(self, asked: Asked, origin: str) -> Answer:
        assert "github" in asked.headers["accept"]
        match asked.path.strip("/").split("/"):
            case ["orgs", login, *rest]:
                org = next((one for one in self.orgs.values() if one["login"].lower() == login.lower()), None)
                return Answer(NOT_FOUND, 404) if org is None else self._org(asked, origin, org, rest)
            case ["organizations", org, "team", team, what] if int(team) in self.teams:
                return self._team(asked, origin, self.teams[int(team)], what)
            case ["repos", login, name, "collaborators"]:
                full = f"{login}/{name}"
                found = next((one for one in self.repos.values() if one["full_name"] == full), None)
                if found is None:
                    return Answer(NOT_FOUND, 404)
                roles = self.collaborators.get(found["id"], {})
                rows = [
                    self.users[user] | {"role_name": role, "permissions": permissions(role)}
                    for user, role in roles.items()
                ]
                return self._page(asked, origin, rows)
            case [("user" | "organizations" | "repositories") as kind, number]:
                things = {"user": self.users, "organizations": self.orgs, "repositories": self.repos}[kind]
                found = things.get(int(number))
                return Answer(NOT_FOUND, 404) if found is None else Answer(found)
        return Answer(NOT_FOUND, 404)

    def _org(self, asked: Asked, origin: str, org: dict[str, Any], rest: list[str]) -> Answer:
        match rest:
            case []:
                return Answer(org)
            case ["repos"]:
                return self._page(
                    asked, origin, [one for one in self.repos.values() if one["owner"]["id"] == org["id"]]
                )
            case ["members"]:
                role = asked.query["role"]
                people = self.people.get(org["id"], {})
                return self._page(asked, origin, [self.users[one] for one, held in people.items() if held == role])
            case ["teams"]:
                teams = [one for one in self.teams.values() if one["org"] == org["id"]]
                rows = [{"id": one["id"], "slug": one["slug"], "name": one["slug"], "parent": None} for one in teams]
                return self._page(asked, origin, rows)
        return Answer(NOT_FOUND, 404)

    def _team(self, asked: Asked, origin: str, team: dict[str, Any], what: str) -> Answer:
        if what == "members":
            return self._page(asked, origin, [self.users[one] for one in team["members"]])
        rows = [
            self.repos[repo] | {"role_name": role, "permissions": permissions(role)}
            for repo, role in team["repos"].items()
            if repo in self.repos
        ]
        return self._page(asked, origin, rows)

    def _page(self, asked: Asked, origin: str, rows: list[dict[str, Any]]) -> Answer:
        page, size = int(asked.query.get("page", "1")), self.page or int(asked.query.get("per_page", "30"))
        found = rows[(page - 1) * size :]
        headers = {"X-RateLimit-Limit": "5000", "X-RateLimit-Remaining": "4999", "X-RateLimit-Reset": "4102444800"}
        if len(found) > size:
            # As GitHub does, by ids in place of names: nobody may follow the path of a link.
            query = urlencode(asked.query | {"page": str(page + 1)})
            headers["Link"] = f'<{origin}/elsewhere/1?{query}>; rel="next", <{origin}/elsewhere/1?page=9>; rel="last"'
        return Answer(found[:size], headers=headers)
