"""`python -m benchmarks.searching`: how long a page of each list and search takes over many tokens, asked over HTTP.

Every page is asked of `authz serve` as a client would. At the end the instance switches approval on, which writes a
grant for every token that is there, while somebody goes on checking: how long that takes, and whom it holds up.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import asyncpg
import httpx

from authz_service.admin.sessions import session_scopes
from authz_service.store.connect import read_url
from authz_service.store.shipped import shipped_catalogs
from benchmarks.bulk import Issued, issue, loading, managing_row, token_row
from benchmarks.machine import describe_machine
from benchmarks.population import Issues, Population, Size, store_tokens
from benchmarks.servers import HOST
from benchmarks.service import Keys, new_database, postgres, scratch, serve
from benchmarks.workload import CATALOG, PERMISSIONS

_PAGES: Final = 8
"""Of a list, at most: the first ones and, with their cursors, those that follow."""
_LIMIT_S: Final = 1.0
_PATIENCE_S: Final = 900
_MANAGER: Final = "authz"


@dataclass(frozen=True, slots=True)
class Actors:
    """Tokens of people: one of an admin, one of the owner of a group at the top, and one that reaches far."""

    admin: Issued
    owner: Issued
    wide: Issued
    group: str
    project: str


@dataclass(frozen=True, slots=True)
class Question:
    """A list that is asked page by page; of a `body`, as AuthZEN's searches are."""

    name: str
    path: str
    query: Mapping[str, str]
    secret: str
    body: Mapping[str, Any] | None = None


async def people(url: str, keys: Keys, population: Population) -> Actors:
    """An admin, and an owner of the group with the most below it, with tokens that may do what their users may."""
    numbers = population.nodes.numbers
    group = max((path for path in population.inside if "/" not in path), key=lambda path: len(population.inside[path]))
    catalog = max((each for each in shipped_catalogs() if each.name == _MANAGER), key=lambda each: each.version)
    admin, owner, wide = (issue(keys.peppers) for _ in range(3))
    chief, head = population.users[1], population.users[2]
    tops = [number for path, number in numbers.items() if "/" not in path and path.startswith("org-")]
    async with loading(url) as load:
        await load.tokens(
            [
                managing_row(admin, keys.peppers, numbers[chief], catalog.version, session_scopes(catalog)),
                managing_row(owner, keys.peppers, numbers[head], catalog.version, session_scopes(catalog)),
                token_row(wide, keys.peppers, numbers[population.users[0]], [(tops, PERMISSIONS)], name="wide"),
            ]
        )
    connection = await asyncpg.connect(read_url(url))
    try:
        await connection.execute("update account set admin = true where node_id = $1", numbers[chief])
        await connection.execute(
            "insert into membership (user_id, node_id, role) values ($1, $2, 'owner') "
            "on conflict (user_id, node_id) do update set role = 'owner'",
            numbers[head],
            numbers[group],
        )
        # A history: tokens are made one after another, some of them are used and some have ended.
        await connection.execute(
            "update token set created_at = now() - (row_number * interval '1 minute'), "
            "last_used_at = case when row_number % 3 = 0 then now() - (row_number % 90) * interval '1 day' end, "
            "expires_at = case when row_number % 2 = 0 then now() + (row_number % 365) * interval '1 day' end "
            "from (select id, row_number() over (order by id) from token where name like 'token-%') numbered "
            "where token.id = numbered.id"
        )
        await connection.execute("vacuum analyze")
    finally:
        await connection.close()
    return Actors(admin, owner, wide, f"group:{group}", f"project:{population.inside[group][0]}")


def questions(actors: Actors, population: Population) -> list[Question]:
    """What administrators, owners of groups and programs ask."""
    admin, owner = actors.admin.secret, actors.owner.secret
    tokens, page = "/v1/tokens", {"limit": "100"}
    here = {"catalog": CATALOG, "permission": "job:read", "target": actors.project}
    effective = f"/v1/tokens/{actors.wide.id}/effective"
    someone, something = {"type": "token"}, {"type": "project", "id": actors.project.partition(":")[2]}
    found = [
        *(Question(f"all tokens, {sort}", tokens, {**page, "sort": sort}, admin) for sort in _SORTS),
        Question("all tokens, by a permission", tokens, {**page, "permission": "job:read"}, admin),
        Question("all tokens, active", tokens, {**page, "state": "active"}, admin),
        Question("all tokens, by a word that many have", tokens, {**page, "search": "token-9"}, admin),
        Question("all tokens, by a word that one has", tokens, {**page, "search": "token-4711"}, admin),
        Question("all tokens, by a word that none has", tokens, {**page, "search": "no such token"}, admin),
        Question("tokens of one owner", tokens, {**page, "owner": population.users[3]}, admin),
        Question("a group's tokens, for its owner", tokens, {**page, "node": actors.group}, owner),
        Question("the same, for an admin", tokens, {**page, "node": actors.group}, admin),
        Question(
            "the same for its owner, least used first",
            tokens,
            {**page, "node": actors.group, "sort": "last_used"},
            owner,
        ),
        Question("the same, by a word that none has", tokens, {**page, "node": actors.group, "search": "none"}, owner),
        Question("a project's tokens, for the group's owner", tokens, {**page, "node": actors.project}, owner),
        Question("which tokens may do this here", "/v1/search/tokens", {**here, "limit": "100"}, admin),
        Question("the same, for the group's owner", "/v1/search/tokens", {**here, "limit": "100"}, owner),
        Question("all that a far-reaching token may do", effective, {"catalog": CATALOG, "limit": "50"}, admin),
        Question("where it may do one thing", effective, {**page, "catalog": CATALOG, "permission": "job:read"}, admin),
        Question("what it may do here", effective, {"catalog": CATALOG, "target": actors.project}, admin),
        Question("what it was used for", f"/v1/tokens/{actors.wide.id}/usage", page, admin),
        Question("its suggestion", f"/v1/tokens/{actors.wide.id}/suggestion", {}, admin),
        Question("requests for approval in a group", "/v1/grant-requests", {**page, "node": actors.group}, owner),
        Question("grants in a group", "/v1/grants", {**page, "node": actors.group}, owner),
        Question("the audit", "/v1/audit", page, admin),
        Question("the audit of a group", "/v1/audit", {**page, "node": actors.group}, owner),
    ]
    asked = {"action": {"name": "job:read"}, "resource": something, "subject": {"type": "user"}}
    named = {"type": "user", "id": population.users[1]}
    return [
        *found,
        Question("AuthZEN: users who may", "/access/v1/search/subject", {}, "gateway", asked),
        Question("AuthZEN: tokens that may", "/access/v1/search/subject", {}, "gateway", asked | {"subject": someone}),
        Question("AuthZEN: projects where a user may", "/access/v1/search/resource", {}, "gateway",
                 {"action": {"name": "job:read"}, "resource": {"type": "project"}, "subject": named}),
        Question("AuthZEN: what a user may there", "/access/v1/search/action", {}, "gateway",
                 {"resource": something, "subject": named}),
    ]  # fmt: skip


_SORTS: Final = ("newest", "oldest", "expires", "last_used")


async def pages(client: httpx.AsyncClient, question: Question) -> dict[str, Any]:
    """Each page as long as the client waited for it. Raises ValueError for what is not answered."""
    times: list[float] = []
    items = 0
    cursor: str | None = None
    while len(times) < _PAGES:
        begun = time.perf_counter()
        answer = await ask(client, question, cursor)
        times.append(time.perf_counter() - begun)
        body = answer.json()
        if answer.status_code != httpx.codes.OK:
            raise ValueError(f"{question.name}: {answer.status_code} {answer.text[:500]}")
        items += len(body.get("items", body.get("results", ())))
        cursor = body.get("next_cursor") or body.get("page", {}).get("next_token") or None
        if cursor is None:
            break
    return {
        "name": question.name,
        "pages": len(times),
        "items": items,
        "complete": cursor is None,
        "p50_ms": round(statistics.median(times) * 1e3, 1),
        "max_ms": round(max(times) * 1e3, 1),
        "within": max(times) <= _LIMIT_S,
    }


async def ask(client: httpx.AsyncClient, question: Question, cursor: str | None) -> httpx.Response:
    headers = {"Authorization": f"Bearer {question.secret}"}
    if question.body is not None:
        body = {"context": {"authz": {"catalog": CATALOG}}, **question.body}
        body |= {} if cursor is None else {"page": {"token": cursor}}
        return await client.post(question.path, json=body, headers=headers)
    query = dict(question.query) | ({} if cursor is None else {"cursor": cursor})
    return await client.get(question.path, params=query, headers=headers)


async def grandfather(client: httpx.AsyncClient, actors: Actors, made: Issues) -> dict[str, Any]:
    """Approval is switched on for everybody while the warm tokens are checked, one question after another."""
    times: list[float] = []
    wrong = 0
    done = asyncio.Event()

    async def check() -> None:
        nonlocal wrong
        headers = {"Authorization": f"Bearer {made.gateway.secret}"}
        number = 0
        while not done.is_set():
            asked, expected = made.warm.asks[number], made.warm.answers[number]
            resource, _, action = asked.permission.partition(":")
            body = {"token": made.warm.issued[asked.token].secret, "catalog": CATALOG, "resource": resource}
            begun = time.perf_counter()
            answer = await client.post(
                "/check", json=body | {"action": action, "target": asked.target}, headers=headers
            )
            times.append(time.perf_counter() - begun)
            wrong += answer.status_code != httpx.codes.OK or answer.json()["reason"] != expected
            number = (number + 1) % len(made.warm.asks)

    checking = asyncio.create_task(check())
    headers = {"Authorization": f"Bearer {actors.admin.secret}"}
    begun = time.perf_counter()
    body = {"catalog": CATALOG, "approval": {"value": "required"}}
    answer = await client.put("/v1/policies", params={"node": "instance"}, json=body, headers=headers)
    took = time.perf_counter() - begun
    await asyncio.sleep(2)  # what comes after it belongs to it: the policy reaches the worker, which loads the grants
    done.set()
    await checking
    if answer.status_code != httpx.codes.OK:
        raise ValueError(f"the policy: {answer.status_code} {answer.text[:500]}")
    times.sort()
    return {
        "seconds": round(took, 2),
        "grants": answer.json()["grants_carried_over"],
        "checks_meanwhile": len(times),
        "check_p50_ms": round(statistics.median(times) * 1e3, 1),
        "check_max_ms": round(times[-1] * 1e3, 1),
        "wrong": wrong,
    }


async def measure(base: str, actors: Actors, population: Population, made: Issues) -> dict[str, Any]:
    async with httpx.AsyncClient(base_url=base, timeout=_PATIENCE_S) as client:
        rows = []
        for question in questions(actors, population):
            secret = made.gateway.secret if question.secret == "gateway" else question.secret
            asked = Question(question.name, question.path, question.query, secret, question.body)
            rows.append(await pages(client, asked))
        ruled = await grandfather(client, actors, made)
        rows += [
            {**await pages(client, one), "name": f"{one.name}, when all tokens have a grant"}
            for one in questions(actors, population)
            if one.path in ("/v1/grants", "/v1/grant-requests") or "for its owner" in one.name
        ]
    return {"rows": rows, "grandfathering": ruled}


def run(*, tokens: int, size: Size) -> dict[str, Any]:
    """Everything, on a database of its own."""
    keys = Keys()
    population = Population(size)
    with scratch(gigabytes=3) as folder, postgres(folder) as server:
        url = new_database(server, "searching")
        asyncio.run(population.store(url))
        made = asyncio.run(
            store_tokens(url, population, keys.peppers, tokens=tokens, warm=200, asks=2_000, cold=1, heavy=0)
        )
        actors = asyncio.run(people(url, keys, population))
        service, port = serve("authz", keys.environment(url), cores=sorted(os.sched_getaffinity(0)), folder=folder)
        with service:
            found = asyncio.run(measure(f"http://{HOST}:{port}", actors, population, made))
    return {"machine": describe_machine(), "tokens": tokens, "projects": size.projects, "users": size.users, **found}


def table(found: Mapping[str, Any]) -> str:
    """As Markdown."""
    lines = ["| asked | pages | items | p50 ms | slowest ms |", "|---|---:|---:|---:|---:|"]
    for row in found["rows"]:
        mark = "" if row["within"] else " (over a second)"
        many = f"{row['pages']}{'' if row['complete'] else '…'}"
        lines.append(f"| {row['name']} | {many} | {row['items']} | {row['p50_ms']} | {row['max_ms']}{mark} |")
    ruled = found["grandfathering"]
    lines.append("")
    lines.append(
        f"Approval switched on for {found['tokens']:,} tokens: {ruled['seconds']} s, {ruled['grants']:,} grants; "
        f"meanwhile {ruled['checks_meanwhile']:,} checks, p50 {ruled['check_p50_ms']} ms, "
        f"slowest {ruled['check_max_ms']} ms, {ruled['wrong']} wrong."
    )
    return "\n".join(lines)


def read_arguments(arguments: Sequence[str] | None, description: str | None) -> argparse.Namespace:
    """How large a run is (`tokens`, `size`), whether it is a `quick` one, and the file for its `output`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--tokens", type=int, default=100_000)
    parser.add_argument("--projects", type=int, default=20_000)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--quick", action="store_true", help="a small run, to see that it works")
    parser.add_argument("--output", type=Path, help="a file for all figures, as JSON")
    given = parser.parse_args(arguments)
    if given.quick:
        given.tokens, given.projects, given.users = 300, 100, 60
    groups = max(20, given.projects // 20)
    given.size = Size(groups=groups, projects=given.projects, users=given.users, heavy=given.projects // 5)
    return given


def main(arguments: Sequence[str] | None = None) -> None:
    given = read_arguments(arguments, __doc__)
    found = run(tokens=given.tokens, size=given.size)
    if given.output is not None:
        given.output.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    print(table(found))
    if not given.quick and not all(row["within"] for row in found["rows"]):
        raise SystemExit("some pages took more than a second")


if __name__ == "__main__":
    main()
