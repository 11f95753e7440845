"""`python -m benchmarks.searching`: how long pages of searches take over many tokens, places and users."""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from authz_service.cache.facts import Facts
from authz_service.embedded import EmbeddedPostgres
from authz_service.pdp.search import Found, Search, token_subject
from authz_service.pdp.secrets import Peppers
from authz_service.store.database import Database, migrate
from authz_service.store.shipped import shipped_catalogs
from benchmarks.bulk import Issued, Nodes, issue, loading, token_row
from benchmarks.population import Population, Size, store_tokens
from benchmarks.workload import CATALOG, PERMISSIONS

PAGES = 12


async def measure(url: str, *, tokens: int, size: Size) -> dict[str, Any]:
    await migrate(url)
    peppers = Peppers({"k1": bytes(32)}, "k1")
    population = Population(size)
    await population.store(url)
    await store_tokens(url, population, peppers, tokens=tokens, warm=1, asks=1, cold=1, heavy=0)
    wide = await add_wide(url, population.nodes, peppers, population)
    database = Database(url, bell=False)
    search = Search(database, Facts(shipped_catalogs()))
    project = population.memberships[population.users[0]][0]
    found: dict[str, Any] = {"tokens": tokens, "projects": size.projects, "users": size.users}
    try:
        shown = await search.find_token(wide.id)
        assert shown is not None
        common = token_subject(shown, CATALOG)
        questions: dict[str, Callable[[str | None], Awaitable[Found[Any]]]] = {
            "what may it do here": lambda cursor: search.actions(common, CATALOG, f"project:{project}", cursor=cursor),
            "where may it do this": lambda cursor: search.places(
                common, CATALOG, "job:read", public=False, limit=200, cursor=cursor
            ),
            "all that it may do": lambda cursor: search.places(
                common, CATALOG, None, public=False, limit=50, cursor=cursor
            ),
            "which tokens may do this": lambda cursor: search.tokens(
                CATALOG, "job:read", f"project:{project}", limit=200, cursor=cursor
            ),
        }
        for name, ask in questions.items():
            found[name] = await pages(ask)
    finally:
        await database.close()
    return found


async def add_wide(url: str, nodes: Nodes, peppers: Peppers, population: Population) -> Issued:
    """A token that holds every permission on every group at the top, of the user with the most memberships."""
    tops = [number for path, number in nodes.numbers.items() if "/" not in path and path.startswith("org-")]
    wide = issue(peppers)
    row = token_row(wide, peppers, population.number_of(population.users[0]), [(tops, PERMISSIONS)], name="wide")
    async with loading(url) as load:
        await load.tokens([row])
    return wide


async def pages(ask: Callable[[str | None], Awaitable[Found[Any]]]) -> dict[str, Any]:
    times: list[float] = []
    items = 0
    cursor: str | None = None
    while len(times) < PAGES:
        begun = time.perf_counter()
        page = await ask(cursor)
        times.append(time.perf_counter() - begun)
        items += len(page.items)
        cursor = page.next_cursor
        if cursor is None:
            break
    return {
        "pages": len(times),
        "items": items,
        "complete": cursor is None,
        "median_ms": round(statistics.median(times) * 1e3),
        "slowest_ms": round(max(times) * 1e3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=100_000)
    parser.add_argument("--projects", type=int, default=20_000)
    parser.add_argument("--users", type=int, default=20_000)
    given = parser.parse_args()
    size = Size(
        groups=max(20, given.projects // 20), projects=given.projects, users=given.users, heavy=given.projects // 5
    )
    with tempfile.TemporaryDirectory(
        prefix="authz-search-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None
    ) as folder:
        Path(folder).chmod(0o755)
        with EmbeddedPostgres(Path(folder) / "data", settings={"fsync": "off", "full_page_writes": "off"}) as server:
            done = asyncio.run(measure(server.create_database("search"), tokens=given.tokens, size=size))
    print(json.dumps(done, indent=2))


if __name__ == "__main__":
    main()
