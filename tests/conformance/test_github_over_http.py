"""Every published operation of GitHub that needs a permission, decided both ways over HTTP against the facts."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from tests.support.managing import Stage, scope, staged

from authz_service.catalog.routes import make_router
from authz_service.store import tokens
from authz_service.store.shipped import shipped_catalogs
from authz_service.store.token_rows import TokenRecord
from authz_service.tokens.model import Reach, ReachKind, Scope, Token
from authz_service.tokens.secret import new_secret, new_token_id

FACTS: Final = Path(__file__).parents[1] / "facts"
PARAMETER: Final = re.compile(r"{(\w+)}")
OWN: Final = {"type": "project", "path": "root/notes", "external_id": "50", "visibility": "private"}
"""A repository of the token's own owner, so that there is one below the account."""
PLACES: Final = {
    "owner": "acme",
    "repo": "web",
    "template_owner": "acme",
    "template_repo": "web",
    "repository_id": "42",
    "org": "acme",
    "username": "root",
}

OWN_PLACES: Final = {"owner": "root", "repo": "notes", "repository_id": "50"}
"""Where a permission of the account is needed too: a token has one resource owner (T6)."""


def table(name: str) -> list[dict[str, str]]:
    with (FACTS / name).open() as lines:
        return list(csv.DictReader(lines))


def needs() -> dict[str, list[tuple[str, ...]]]:
    """For each operation the sets, any of which does, of permissions that must all be held."""
    return {
        row["operation"]: [tuple(name.strip() for name in one.split("+")) for one in row["needs"].split("|")]
        for row in table("github_rest.csv")
    }


async def give(stage: Stage, permissions: Mapping[str, str], *, own: bool) -> str:
    """A token with these permissions (name to boundary), wherever the owner of its resources has a say."""
    places = tuple(name for name, boundary in permissions.items() if boundary != "user")
    account = tuple(name for name, boundary in permissions.items() if boundary == "user")
    owner = await stage.node("user:root")
    group = await stage.node("group:acme")
    resources = owner if own or account else group
    scopes = [Scope("github", Reach(ReachKind.SELECTED, (resources,)), places)] if places else []
    scopes += [scope("github", "user", *account)] if account else []
    new = new_token_id()
    token = Token(new, owner, {"github": 1}, scopes=tuple(scopes), resource_owner=resources)
    secret = new_secret("azt", "k1").reveal()
    digest = stage.peppers.digest(secret)
    assert digest is not None
    async with stage.database.transaction() as conn:
        await tokens.insert(conn, TokenRecord(replace(token, name="given"), "k1", new), digest)
    return secret


async def test_every_published_operation_is_decided_both_ways(database_url):
    [github] = [catalog for catalog in shipped_catalogs() if catalog.name == "github"]
    router = make_router(github)
    boundaries = {row["resource"]: row["boundary"] for row in table("github_permissions.csv")}
    operations = needs()
    assert len(operations) == 952
    given: dict[tuple[tuple[str, ...], bool], str] = {}
    async with staged(database_url) as stage:
        await stage.apply(OWN)
        caller = (await stage.give("root", scope("authz", "instance", "decision:evaluate"), evaluates=("*",)))[1]
        nothing = await give(stage, {}, own=False)

        async def ask(operation: str, secret: str, target: str | None, at: Mapping[str, str]) -> dict[str, object]:
            method, _, path = operation.partition(" ")
            parameters = {name: at.get(name, "7") for name in PARAMETER.findall(path)}
            sent = router.format_target(operation, parameters)
            body = {"token": secret, "catalog": "github", "method": method, "path": sent, "target": target}
            answer = await stage.call(
                "POST", "/check/http", caller, body | {"attributes": {"context.touches_workflows": False}}
            )
            assert answer.status_code == 200, (operation, answer.text)
            return answer.json()

        wrong = []
        for operation, sets in operations.items():
            chosen = sets[0]
            kinds = {name: boundaries[name.partition(":")[0]] for name in chosen}
            mixed = len(set(kinds.values())) > 1 and "user" in kinds.values()
            account = " /users/{username}/" in operation and "{org}" not in operation
            own = mixed or account or operation == "POST /user/repos"
            key = (chosen, own)
            if key not in given:
                given[key] = await give(stage, kinds, own=own)
            target = {"project": "project:acme/web", "group": "group:acme", "user": "user:root"}[kinds[chosen[0]]]
            if "/teams/{team_id}" in operation:
                target = "group:acme"  # whose team it is, only the caller knows
            at = PLACES | OWN_PLACES if mixed else PLACES
            allowed = await ask(operation, given[key], target, at)
            denied = await ask(operation, nothing, target, at)
            if allowed["decision"] != "allow" or denied["decision"] != "deny":
                wrong.append((operation, chosen, allowed["reason"], denied["reason"]))
        assert not wrong, "\n".join(map(str, [len(wrong), *wrong[:40]]))
