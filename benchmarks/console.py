"""`python -m benchmarks.console`: how large the console's pages are, and how long they take, over many tokens.

Asked of `authz serve` as a browser would, by an admin and by the owner of the largest group at the top.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlencode

import httpx

from benchmarks.bulk import Issued
from benchmarks.machine import describe_machine
from benchmarks.population import Population, Size, store_tokens
from benchmarks.searching import Actors, people, read_arguments
from benchmarks.servers import HOST
from benchmarks.service import Keys, new_database, postgres, scratch, serve
from benchmarks.workload import CATALOG

_ORIGIN: Final = f"http://{HOST}"
_COOKIE: Final = "__Host-authz-session"
_TIMES: Final = 8
_LARGEST: Final = 100_000
"""Bytes of a page."""
_LIMIT_S: Final = 1.0
_PATIENCE_S: Final = 300


class Browser:
    """Somebody who is signed in by a token. Cookies for TLS alone are sent by hand: this is one machine."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._cookies: dict[str, str] = {}

    async def get(self, path: str) -> httpx.Response:
        return await self._send("GET", path)

    async def sign_in(self, token: Issued) -> None:
        form = (await self.get("/console/sign-in")).text
        found = re.search(r'name="form_token" value="([^"]+)"', form)
        if found is None:
            raise SystemExit("the sign-in page has no form")
        fields = {"form_token": found[1], "way": "token", "token": token.secret}
        headers = {"Origin": _ORIGIN, "Content-Type": "application/x-www-form-urlencoded"}
        answer = await self._send("POST", "/console/sign-in", content=urlencode(fields), headers=headers)
        if _COOKIE not in self._cookies:
            raise SystemExit(f"nobody was signed in: {answer.status_code}")

    async def _send(self, method: str, path: str, **more: Any) -> httpx.Response:
        headers = {**more.pop("headers", {}), "Cookie": "; ".join(f"{k}={v}" for k, v in self._cookies.items())}
        self._client.cookies.clear()
        answer = await self._client.request(method, path, headers=headers, **more)
        for given in answer.headers.get_list("set-cookie"):
            name, _, rest = given.partition("=")
            self._cookies[name] = rest.partition(";")[0].strip('"')
        return answer


def pages(actors: Actors) -> Sequence[tuple[str, str, bool]]:
    """What a page shows, its path, and whether an admin looks at it, or else the owner of a group."""
    wide, group = f"/console/tokens/{actors.wide.id}", actors.group
    making = f"/console/tokens/new?catalog={CATALOG}&node={actors.project}&p=job:read"
    return (
        ("all tokens", "/console/tokens", True),
        ("all tokens, soonest to expire", "/console/tokens?sort=expires", True),
        ("all tokens, last used", "/console/tokens?sort=last_used", True),
        ("all tokens, by a word that many have", "/console/tokens?search=token-9", True),
        ("all tokens, by a word that one has", "/console/tokens?search=token-4711", True),
        ("all tokens, by a word that none has", "/console/tokens?search=no+such+token", True),
        ("all tokens, by a permission", "/console/tokens?permission=job:read", True),
        ("all tokens, sign-ins too", "/console/tokens?sessions=1", True),
        ("a group's tokens, for its owner", f"/console/tokens?node={group}", False),
        ("a group's requests, for its owner", f"/console/requests?node={group}", False),
        ("a group's grants, for its owner", f"/console/grants?node={group}", False),
        ("a token that reaches far", wide, True),
        ("all that it could reach", f"{wide}/radius", True),
        ("narrowing it", f"{wide}/shrink", True),
        ("editing it", f"{wide}/edit", True),
        ("a new token: where", "/console/tokens/new?find=project-4", True),
        ("a new token: what", f"{making}&step=what", True),
        ("a new token: until when", f"{making}&step=finish", True),
        ("policies", "/console/policies?node=instance&catalog=gitlab", True),
        ("playground", "/console/playground", True),
        ("directory", "/console/directory?search=project-4", True),
        ("leaks", "/console/leaks", True),
        ("audit", "/console/audit", True),
        ("system", "/console/system", True),
    )


async def measure(base: str, actors: Actors) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    async with httpx.AsyncClient(base_url=base, timeout=_PATIENCE_S, follow_redirects=False) as client:
        admin, owner = Browser(client), Browser(client)
        await admin.sign_in(actors.admin)
        await owner.sign_in(actors.owner)
        for name, path, by_admin in pages(actors):
            times: list[float] = []
            size = status = 0
            for _ in range(_TIMES):
                begun = time.perf_counter()
                answer = await (admin if by_admin else owner).get(path)
                times.append(time.perf_counter() - begun)
                size, status = max(size, len(answer.content)), answer.status_code
            within = status == 200 and size < _LARGEST and statistics.median(times) < _LIMIT_S
            rows.append(
                {
                    "name": name,
                    "status": status,
                    "bytes": size,
                    "p50_ms": round(statistics.median(times) * 1e3),
                    "max_ms": round(max(times) * 1e3),
                    "within": within,
                }
            )
    return rows


def run(*, tokens: int, size: Size) -> dict[str, Any]:
    """Everything, on a database of its own."""
    keys = Keys()
    population = Population(size)
    with scratch(gigabytes=3) as folder, postgres(folder) as server:
        url = new_database(server, "console")
        asyncio.run(population.store(url))
        asyncio.run(store_tokens(url, population, keys.peppers, tokens=tokens, warm=1, asks=1, cold=1, heavy=0))
        actors = asyncio.run(people(url, keys, population))
        environment = keys.environment(url, public_url=_ORIGIN)
        service, port = serve("authz", environment, cores=sorted(os.sched_getaffinity(0)), folder=folder)
        with service:
            rows = asyncio.run(measure(f"http://{HOST}:{port}", actors))
    return {"machine": describe_machine(), "tokens": tokens, "rows": rows}


def table(found: Mapping[str, Any]) -> str:
    """As Markdown."""
    lines = ["| page | KB | p50 ms | slowest ms |", "|---|---:|---:|---:|"]
    for row in found["rows"]:
        mark = "" if row["within"] else f" (**not as it should be**, {row['status']})"
        lines.append(f"| {row['name']} | {row['bytes'] / 1000:.0f} | {row['p50_ms']} | {row['max_ms']}{mark} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    given = read_arguments(arguments, __doc__)
    found = run(tokens=given.tokens, size=given.size)
    if given.output is not None:
        given.output.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    print(table(found))
    wrong = [row["name"] for row in found["rows"] if not row["within"]]
    if wrong and not given.quick:
        raise SystemExit(f"too large, too slow or no answer: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
