"""`make bench-scale`: what grows with tokens and directory, and what must not."""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import random
import statistics
import sys
import time
import tracemalloc
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from authz_service.app import create_app
from authz_service.config import load_settings
from authz_service.embedded import EmbeddedPostgres
from authz_service.engine.model import PermissionRequest
from authz_service.pdp.question import Ask as ServiceAsk
from authz_service.pdp.question import Question
from authz_service.store.database import migrate
from benchmarks import report, service
from benchmarks.bulk import Issued, Nodes, catalog, issue, loading, scopes_of, token_row
from benchmarks.contenders import Contender, connected
from benchmarks.machine import (
    cores,
    cpu_seconds,
    describe_machine,
    end_after,
    pin,
    resident_bytes,
    versions,
    wrk_version,
)
from benchmarks.population import Issues, Population, Sample, Size, store_tokens
from benchmarks.pressure import Measured, ask_each, offer
from benchmarks.targets import at_least, at_most
from benchmarks.workload import CATALOG, make_grants, make_workload
from benchmarks.wrk import write_requests


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is done; `limit` ends a run that hangs, in seconds."""

    steps: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000)
    size: Size = field(default_factory=Size)
    warm: int = 100_000
    asks: int = 20_000
    cold: int = 1_000
    heavy: int = 50
    rounds: int = 5
    seconds: float = 3.0
    at_once: int = 32
    open_seconds: float = 10.0
    cached: int = 4_000
    gigabytes: float = 8.0
    limit: int = 3600


QUICK = Plan(
    steps=(100, 400), size=Size(groups=60, projects=500, users=100, heavy=200), warm=200, asks=200, cold=50, heavy=5,
    rounds=1, seconds=0.2, at_once=8, open_seconds=0.5, cached=300, gigabytes=1.0, limit=120,
)  # fmt: skip
"""For a test: everything once, in seconds; its figures mean nothing."""


@dataclass
class Step:
    """One service on a database with so many tokens."""

    tokens: int
    warm: int
    """How many of them are asked about."""
    contender: Contender
    cold: Measured
    cold_cpu: float
    """The service's processor time for one cold ask, in seconds; the database has its own."""
    heavy: Measured
    warming: Measured
    memory: int
    fresh: int
    """Resident bytes after warming, and before the first question."""


def run(plan: Plan, *, quick: bool = False) -> dict[str, Any]:
    """The results, as JSON has them."""
    mine = cores()
    served, loading_core = mine[0], mine[-1]
    began = time.monotonic()
    result: dict[str, Any] = {
        "kind": "scale",
        "quick": quick,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": describe_machine(),
        "versions": versions(),
        "method": {"warm": plan.warm, "rounds": plan.rounds, "seconds": plan.seconds, "connections": plan.at_once},
    }
    pin(loading_core)
    keys = service.Keys()
    with service.scratch(gigabytes=plan.gigabytes) as folder, service.postgres(folder) as server, ExitStack() as stack:
        result["versions"] |= {"postgresql": server.version, "catalog": catalog().label}
        result["method"]["permissions"] = len(catalog().permissions)
        population = Population(plan.size)
        asyncio.run(population.store(service.new_database(server, "directory")))
        _say(f"{len(population.nodes.rows):,} nodes stored after {time.monotonic() - began:.0f} s")
        steps = []
        for tokens in plan.steps:
            url = server.create_database(f"tokens_{tokens}", template="directory")
            issues = asyncio.run(
                store_tokens(
                    url, population, keys.peppers, tokens=tokens, warm=plan.warm, asks=plan.asks, cold=plan.cold,
                    heavy=plan.heavy,
                )
            )  # fmt: skip
            _say(f"{tokens:,} tokens stored after {time.monotonic() - began:.0f} s")
            steps.append(_start(tokens, url, keys, issues, folder, stack, served, plan))
        for _ in range(plan.rounds):
            for step in steps:
                found = step.contender.press(at_once=plan.at_once, seconds=plan.seconds)
                step.contender.runs.append(found)
                _say(f"{step.tokens:,}: {found.rate:,.0f}/s, {found.cpu * 1e6:.1f} µs")
        result["steps"] = [_described(step, plan) for step in steps]
        cached = asyncio.run(_cached_bytes(server, keys, plan))
    result["wrong"] = sum(step.contender.wrong for step in steps)
    result["also"] = _also(steps, population, plan, cached)
    result["targets"] = _judge(steps, cached)
    result["took"] = round(time.monotonic() - began)
    pin(*mine)
    return result


def _start(
    tokens: int,
    url: str,
    keys: service.Keys,
    issues: Issues,
    folder: Path,
    stack: ExitStack,
    core: int,
    plan: Plan,
) -> Step:
    """Start a service, ask it what it has never seen, then warm it, comparing every answer."""
    name = f"tokens{tokens}"
    environment = keys.environment(url)
    server, port = service.serve(name, environment, cores=[core], folder=folder)
    stack.enter_context(server)
    fresh = resident_bytes(server.pid)

    def contender(sample: Sample, *, wrk: bool = False) -> Contender:
        posts = service.ask_requests(sample.asks, sample.issued, issues.gateway)
        path = write_requests(folder, name, posts) if wrk and wrk_version() and plan.seconds >= 1 else None
        right = [[answer] for answer in sample.answers]
        requests = [post.encode() for post in posts]
        return Contender(name, "", "HTTP", port, server.pid, requests, service.read_check, right, path)

    first = contender(issues.cold)
    before = cpu_seconds(server.pid)
    cold = _ask_once(first, at_once=1)
    cold_cpu = (cpu_seconds(server.pid) - before) / len(cold.times)
    heavy = _ask_once(contender(issues.heavy), at_once=1)
    warm = contender(issues.warm, wrk=True)
    warming = _ask_once(warm, at_once=8)
    warm.wrong += first.wrong
    memory = resident_bytes(server.pid)
    _say(f"{tokens:,}: warmed at {warming.rate:,.0f}/s, {warm.wrong} wrong, {memory >> 20} MiB")
    return Step(tokens, len(issues.warm.issued), warm, cold, cold_cpu, heavy, warming, memory, fresh)


def _ask_once(contender: Contender, *, at_once: int) -> Measured:
    with connected(contender, at_once) as connections:
        replies, measured = ask_each(connections, contender.requests)
    contender.compare(replies)
    return measured


def _described(step: Step, plan: Plan) -> dict[str, Any]:
    runs = step.contender.runs
    rate = statistics.median(run.rate for run in runs)
    with connected(step.contender, plan.at_once * 2) as connections:
        loaded = offer(connections, step.contender.requests, rate=rate * 0.85, seconds=plan.open_seconds)
    return {
        "tokens": step.tokens,
        "warm": step.warm,
        "rate": round(rate),
        "rates": [round(run.rate) for run in runs],
        "cpu_us": round(statistics.median(run.cpu for run in runs) * 1e6, 2),
        "p50_ms": round(loaded.quantile(0.5) * 1e3, 3),
        "p99_ms": round(loaded.quantile(0.99) * 1e3, 3),
        "cold_p50_ms": round(step.cold.quantile(0.5) * 1e3, 3),
        "cold_p99_ms": round(step.cold.quantile(0.99) * 1e3, 3),
        "cold_cpu_us": round(step.cold_cpu * 1e6),
        "heavy_cold_p50_ms": round(step.heavy.quantile(0.5) * 1e3, 3),
        "loads_per_second": round(step.warming.rate),
        "memory_mib": step.memory >> 20,
        "fresh_mib": step.fresh >> 20,
        "checked": step.contender.checked,
        "wrong": step.contender.wrong,
    }


async def _cached_bytes(server: EmbeddedPostgres, keys: service.Keys, plan: Plan) -> dict[str, float]:
    """What one cached token of four scopes weighs, by the interpreter's own count.

    Owners and places are at hand before the count begins, for they are shared; each counted token is then decided on
    once, which makes its lookup, and then asked by the short way, which remembers one place of it.
    """
    url = server.create_database("cached")
    await migrate(url)
    workload = make_workload(tokens=10, asks=10)
    nodes = Nodes()
    for path in workload.groups:
        nodes.add(path, "group")
    for path in workload.projects:
        nodes.add(path, "project")
    users = {name: nodes.add(name, "user") for name in workload.memberships}
    rng = random.Random(1)
    issued: list[Issued] = [issue(keys.peppers) for _ in range(plan.cached + len(workload.projects))]
    owners = list(users)
    targets = [workload.projects[number % len(workload.projects)] for number in range(len(issued))]
    rows = [
        token_row(
            one, keys.peppers, users[owners[number % len(owners)]],
            scopes_of(make_grants(rng, workload.nodes, 4), nodes.numbers), name=f"token-{number}",
        )
        for number, one in enumerate(issued)
    ]  # fmt: skip
    async with loading(url) as load:
        await load.nodes(nodes.rows)
        await load.users(users.values())
        await load.memberships(
            (users[name], nodes.numbers[group]) for name, groups in workload.memberships.items() for group in groups
        )
        await load.tokens(rows)
    app = create_app(load_settings(keys.environment(url)))
    async with app.router.lifespan_context(app):
        point, quick = app.state.services.point, app.state.quick

        async def decide(chosen: Sequence[int]) -> None:
            for number in chosen:
                ask = ServiceAsk(PermissionRequest("job:read", targets[number]))
                await point.check(issued[number].secret, Question([ask], CATALOG))

        shared = len(workload.projects)
        await decide(range(shared))
        tracemalloc.start()
        try:
            before = _weigh()
            await decide(range(shared, len(issued)))
            gc.collect()  # what nobody holds any more weighs nothing
            decided = _weigh()
            point.facts.lookups.clear()
            held = _weigh()
            for number in range(shared, len(issued)):
                quick.learn(issued[number].secret, CATALOG, [targets[number]])
            point.facts.lookups.clear()
            gc.collect()
            learned = _weigh()
        finally:
            tracemalloc.stop()
    weights = {"token": held, "with_lookup": decided, "with_place": learned}
    return {name: (weight - before) / plan.cached for name, weight in weights.items()}


def _weigh() -> int:
    """Bytes allocated since the count began; no single block of a cache is so large as what is left out.

    The interpreter's own table of names is, and moves now and then while tokens are read.
    """
    return sum(trace.size for trace in tracemalloc.take_snapshot().traces if trace.size < 1 << 20)


def _also(steps: Sequence[Step], population: Population, plan: Plan, cached: dict[str, float]) -> list[dict[str, str]]:
    last = steps[-1]
    heavy = len(population.memberships[population.users[0]])
    return [
        {
            "label": "directory",
            "found": f"{plan.size.projects:,} projects in {plan.size.groups:,} groups, {plan.size.users:,} users",
        },
        {
            "label": f"cold ask for a token of the user with {heavy:,} memberships, p50",
            "found": f"{last.heavy.quantile(0.5) * 1e3:.3g} ms",
        },
        {
            "label": f"tokens taken into an empty cache, of {last.tokens:,}, 8 at once",
            "found": f"{last.warming.rate:,.0f} a second",
        },
        {"label": "a cached token of 4 scopes", "found": f"{cached['token']:,.0f} bytes"},
        {
            "label": "the same with its lookup, kept for the last 20,000 that took one",
            "found": f"{cached['with_lookup']:,.0f} bytes",
        },
        {
            "label": "the token with one place remembered for the short way",
            "found": f"{cached['with_place']:,.0f} bytes",
        },
    ]


def _judge(steps: Sequence[Step], cached: dict[str, float]) -> list[dict[str, Any]]:
    few, many = steps[0], steps[-1]
    ratios = [high.rate / low.rate for high, low in zip(many.contender.runs, few.contender.runs, strict=True)]
    label = f"warm rate with {many.tokens:,} tokens to that with {few.tokens:,}"
    return [
        at_least(label, 0.9, statistics.median(ratios), min(ratios), max(ratios)),
        at_most(f"cold ask among {many.tokens:,} tokens, p50 in ms", 3.0, many.cold.quantile(0.5) * 1e3),
        at_most("a cached token of 4 scopes, bytes", 1536, cached["token"]),
    ]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Exit status 1 when an answer was wrong: then no figure counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small, in seconds; writes no page")
    parser.add_argument("--steps", type=int, nargs="+", help="how many tokens are stored in each step")
    for name in ("warm", "rounds", "seconds", "open-seconds"):
        parser.add_argument(f"--{name}", type=int, help="in place of the plan's own")
    parser.add_argument("--output", type=Path, help="where the results go; default: docs/performance/scale.json")
    options = parser.parse_args()
    given = {name: getattr(options, name) for name in ("warm", "rounds", "seconds", "open_seconds")}
    given |= {"steps": tuple(options.steps or ())}
    if sys.platform != "linux":
        parser.error("this needs Linux: it keeps processes on cores and reads their times from /proc")
    plan = replace(QUICK if options.quick else Plan(), **{name: value for name, value in given.items() if value})
    end_after(plan.limit)
    os.environ.pop("AUTHZ_URL", None)
    result = run(plan, quick=options.quick)
    end_after(0)
    if options.output is not None or not options.quick:
        report.write(result, options.output)
    print(report.table(result))
    return 1 if result["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
