"""`make bench`: decisions a second and their latency, beside peers on the same questions, all answers compared."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import report, service
from benchmarks.bulk import catalog
from benchmarks.contenders import Contender, Field, connected, find_cerbos
from benchmarks.h2load import has_h2load, offer_with_h2load
from benchmarks.inside import Inside, libraries, own
from benchmarks.machine import cores, describe_machine, end_after, pin, versions, wrk_version
from benchmarks.pressure import Measured, offer
from benchmarks.routes import calls_of, resolving, weigh_catalogs
from benchmarks.targets import judge
from benchmarks.workload import Workload, make_batches, make_workload

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ROOT / "build" / "bench"
"""Where tools/bench_tools.py puts what is no Python package."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is done; `limit` ends a run that hangs, in seconds."""

    tokens: int = 1000
    asks: int = 20_000
    rounds: int = 5
    seconds: float = 3.0
    at_once: int = 32
    batch: int = 1000
    batches: int = 100
    open_seconds: float = 60.0
    inside_rounds: int = 5
    inside_seconds: float = 1.0
    wrk: bool = True
    limit: int = 900


QUICK = Plan(
    tokens=100, asks=400, rounds=1, seconds=0.2, at_once=8, batch=100, batches=10, open_seconds=0.5, inside_rounds=1,
    inside_seconds=0.05, wrk=False, limit=120,
)  # fmt: skip
"""For a test: everything once, in seconds; its figures mean nothing."""


def run(plan: Plan, *, quick: bool = False) -> dict[str, Any]:
    """The results, as JSON has them."""
    mine = cores()
    served, loading = mine[0], mine[-1]
    began = time.monotonic()
    result: dict[str, Any] = {
        "kind": "decisions",
        "quick": quick,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": describe_machine(),
        "versions": versions(),
    }
    pin(loading)
    workload = make_workload(tokens=plan.tokens, asks=plan.asks)
    wrk = plan.wrk and wrk_version() is not None
    result["method"] = {
        "tokens": len(workload.tokens),
        "asks": len(workload.asks),
        "allowed": sum(workload.allowed),
        "rounds": plan.rounds,
        "seconds": plan.seconds,
        "connections": plan.at_once,
        "load": "wrk" if wrk else "own",
        "cores_apart": served != loading,
    }
    keys = service.Keys()
    with service.scratch() as folder, service.postgres(folder) as server:
        result["versions"] |= {"postgresql": server.version, "catalog": catalog().label}
        result["method"]["permissions"] = len(catalog().permissions)
        stored = asyncio.run(service.store(service.new_database(server, "decisions"), keys, workload))
        with ExitStack() as stack:
            field = Field(stack, folder, workload, core=served, wrk=wrk)
            field.add_service(stored, batch=plan.batch, batches=plan.batches)
            field.add_bare(stored)
            absent = []
            binary = find_cerbos(TOOLS)
            if binary is None:
                absent.append({"name": "cerbos", "why": "Cerbos is not installed"})
            else:
                field.add_cerbos(binary, batches=plan.batches)
                result["versions"]["cerbos"] = _cerbos_version(binary)
            _measure(field.contenders, plan)
            check = next(each for each in field.contenders if each.name == "check")
            result["open_loop"] = _open_loop(check, plan, folder)
        pin(served)
        batches = make_batches(workload, size=plan.batch, count=plan.batches)
        result["catalogs"] = weigh_catalogs()
        inside, missing = asyncio.run(_measure_inside(workload, batches, stored, plan))
        pin(loading)
        result["workers"] = _two_workers(stored, folder, check, plan, mine)
    result["rows"] = [_row(contender) for contender in field.contenders]
    result["rows"] += [_inside_row(each) for each in inside if not each.part]
    result["parts"] = _parts(result["rows"], inside)
    result["left_out"] = absent + missing
    result["targets"] = judge(result, field.contenders)
    result["took"] = round(time.monotonic() - began)
    pin(*mine)
    return result


def _measure(contenders: Sequence[Contender], plan: Plan) -> None:
    """Every answer compared first, which warms all caches; then A B C … A B C …, so that all share the bad moments."""
    for contender in contenders:
        contender.cross_check()
        late = f", {contender.put_off} put off" if contender.put_off else ""
        _say(f"{contender.label} ({contender.over}): {contender.checked:,} answers, {contender.wrong} wrong{late}")
    for number in range(plan.rounds):
        for contender in contenders:
            found = contender.press(at_once=plan.at_once, seconds=plan.seconds)
            contender.runs.append(found)
            rate = found.rate * contender.per_request
            _say(f"round {number + 1}: {contender.label} ({contender.over}): {rate:,.0f}/s, {found.cpu * 1e6:.1f} µs")
    for contender in contenders:
        contender.alone = contender.press(at_once=1, seconds=min(2.0, plan.seconds))


def _open_loop(check: Contender, plan: Plan, folder: Path) -> list[dict[str, Any]]:
    """`/check` at shares of what it takes at most."""
    most = statistics.median(run.rate for run in check.runs)
    by = "h2load" if plan.wrk and has_h2load() else "own"
    found = []
    for share in (0.5, 0.85):
        rate = most * share
        if by == "h2load":
            measured = offer_with_h2load(
                check.requests[0],
                check.port,
                folder=folder,
                connections=plan.at_once,
                rate=rate,
                seconds=plan.open_seconds,
            )
        else:
            with connected(check, plan.at_once * 2) as connections:
                measured = offer(connections, check.requests, rate=rate, seconds=plan.open_seconds)
        found.append({"share": share, "by": by, "offered": round(rate), **_latencies(measured)})
        _say(f"open loop at {share:.0%}: {found[-1]}")
    return found


def _latencies(measured: Measured) -> dict[str, Any]:
    shares = {"p50_ms": 0.5, "p90_ms": 0.9, "p99_ms": 0.99, "p999_ms": 0.999, "max_ms": 1.0}
    return {
        "rate": round(measured.rate),
        "seconds": round(measured.seconds, 1),
        "failed": measured.failed,
        **{name: round(measured.quantile(share) * 1e3, 3) for name, share in shares.items()},
        "generator_late_p99_ms": None if measured.late is None else round(measured.late * 1e3, 3),
    }


async def _measure_inside(
    workload: Workload, batches: Sequence[Any], stored: service.Stored, plan: Plan
) -> tuple[list[Inside], list[dict[str, str]]]:
    others, missing = libraries(workload)
    routes = resolving([call for _, call in calls_of(workload)])
    async with own(workload, batches, stored) as ours:
        everybody = [*ours, routes, *others]
        for each in everybody:
            each.cross_check()
            await asyncio.sleep(0.05)  # the service follows its database meanwhile
        for _ in range(plan.inside_rounds):
            for each in everybody:
                each.run(plan.inside_seconds)
                await asyncio.sleep(0.05)
    for each in everybody:
        _say(f"{each.label}: {statistics.median(each.rates):,.0f}/s, {each.wrong} of {each.checked:,} wrong")
    return everybody, missing


def _parts(rows: Sequence[dict[str, Any]], inside: Sequence[Inside]) -> list[dict[str, Any]]:
    """Where the time of a check over HTTP goes: each step has those above it in it, in microseconds."""
    steps = [each for each in inside if each.part]
    steps.insert(-1, next(each for each in inside if each.name == "quick"))
    found = [{"label": each.label, "us": round(1e6 / statistics.median(each.rates), 2)} for each in steps]
    check = next(row for row in rows if row["name"] == "check")
    found.append({"label": "the same from a socket to a socket: the loop, its reads and writes", "us": check["cpu_us"]})
    return found


def _two_workers(
    stored: service.Stored, folder: Path, check: Contender, plan: Plan, mine: Sequence[int]
) -> dict[str, Any]:
    """Two workers on two cores against one on one.

    With a third core for the load it is a matter of answers a second. With two the load takes its share of them, so
    what is compared is the processor time that a request costs.
    """
    by_time = len(mine) < 3
    used = tuple(mine[:2])
    found: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
    with ExitStack() as stack:
        started = {}
        for workers in (1, 2):
            environment = stored.keys.environment(stored.url)
            server, port = service.serve(
                f"workers{workers}", environment, cores=used[:workers], folder=folder, workers=workers
            )
            stack.enter_context(server)
            started[workers] = Contender(
                f"workers{workers}", "", "HTTP", port, server.pid, check.requests, check.read, check.right, check.posts
            )
        pin(*(mine[1:] if by_time else mine[2:]))
        for contender in started.values():
            for _ in range(3):  # each worker has a cache of its own to warm
                contender.cross_check()
        for _ in range(plan.rounds):
            for workers, contender in started.items():
                made = contender.press(at_once=plan.at_once * 2, seconds=plan.seconds)
                found[workers].append((made.rate, made.cpu))
    rates = {workers: statistics.median(rate for rate, _ in runs) for workers, runs in found.items()}
    costs = {workers: statistics.median(cpu for _, cpu in runs) for workers, runs in found.items()}
    ratio = 2 * costs[1] / costs[2] if by_time else rates[2] / rates[1]
    wrong = sum(contender.wrong for contender in started.values())
    return {
        "by": "processor time" if by_time else "answers a second",
        "ratio": round(ratio, 3),
        "one": {"rate": round(rates[1]), "cpu_us": round(costs[1] * 1e6, 2)},
        "two": {"rate": round(rates[2]), "cpu_us": round(costs[2] * 1e6, 2)},
        "wrong": wrong,
    }


def _row(contender: Contender) -> dict[str, Any]:
    each = contender.per_request
    rates = [run.rate * each for run in contender.runs]
    alone = contender.alone
    return {
        "name": contender.name,
        "label": contender.label,
        "over": contender.over,
        "per_request": each,
        "rate": round(statistics.median(rates)),
        "rates": [round(rate) for rate in rates],
        "cpu_us": round(statistics.median(run.cpu for run in contender.runs) * 1e6 / each, 3),
        "p50_alone_us": None if alone is None else round(alone.p50 * 1e6, 1),
        "failed": sum(run.failed for run in contender.runs),
        "checked": contender.checked,
        "wrong": contender.wrong,
        "put_off": contender.put_off,
    }


def _inside_row(each: Inside) -> dict[str, Any]:
    rate = statistics.median(each.rates)
    return {
        "name": each.name,
        "label": each.label,
        "over": "in process",
        "per_request": each.per_call,
        "rate": round(rate),
        "rates": [round(one) for one in each.rates],
        "cpu_us": round(1e6 / rate, 3),
        "p50_alone_us": round(statistics.median(each.p50s) * 1e6, 3),
        "failed": 0,
        "checked": each.checked,
        "wrong": each.wrong,
    }


def _cerbos_version(binary: Path) -> str:
    said = subprocess.run([str(binary), "--version"], capture_output=True, text=True, check=False)
    match = re.search(r"\d+\.\d+\.\d+", said.stdout + said.stderr)
    return match[0] if match else "unknown"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def wrong_answers(rows: Iterable[dict[str, Any]]) -> int:
    return sum(row["wrong"] + row["failed"] for row in rows)


def main() -> int:
    """Exit status 1 when an answer was wrong: then no figure counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="everything once, in seconds; writes no page")
    parser.add_argument("--output", type=Path, help="where the results go; default: docs/performance/decisions.json")
    for name in ("rounds", "seconds", "open-seconds"):
        parser.add_argument(f"--{name}", type=int, help="in place of the plan's own")
    options = parser.parse_args()
    given = {name: getattr(options, name) for name in ("rounds", "seconds", "open_seconds")}
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
    return 1 if wrong_answers(result["rows"]) else 0


if __name__ == "__main__":
    sys.exit(main())
