"""`make soak`: half an hour of everything at once on three replicas, with faults; what was wrong, and what grew."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import resource
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import linear_regression, mean
from typing import Any, Final

from tests.faults.client import now
from tests.faults.fleet import Fleet
from tests.faults.proxy import HOLE
from tests.faults.service import Service

from authz_service.store.database import Database
from benchmarks.machine import describe_machine
from benchmarks.soak.asking import Asking, Latencies
from benchmarks.soak.cells import Cell, Verdicts

DOCS: Final = Path(__file__).resolve().parents[2] / "docs"
PAGE: Final = DOCS / "operations" / "soak.md"
RESULTS: Final = DOCS / "performance" / "soak.json"
REPLICAS: Final = 3
CELLS: Final = 6
STALENESS: Final = 3.0
_SAMPLE: Final = 2.0
_WARM: Final = 1 / 3
"""The share of a run in which caches fill: slopes are of what comes after."""


@dataclass
class Sample:
    at: float
    memory: list[int | None]
    files: list[int | None]
    database: int
    p50: float | None
    p99: float | None


@dataclass
class Run:
    """What happened, as it happens."""

    fleet: Fleet
    verdicts: Verdicts = field(default_factory=Verdicts)
    faults: Counter[str] = field(default_factory=Counter)
    samples: list[Sample] = field(default_factory=list)


async def run(fleet: Fleet, seconds: float, *, seed: int) -> tuple[Run, Asking]:
    """Everything at once for so long. The last replica alone is killed, so that the memory of the others tells."""
    done = Run(fleet)
    database = Database(fleet.postgres.server.dsn, pool_size=4, bell=False)
    tasks: list[asyncio.Task[None]] = []
    try:
        cells = [Cell(fleet, database, number, done.verdicts, seed=seed) for number in range(CELLS)]
        for cell in cells:
            await cell.prepare()
        asking = Asking(fleet, cells, seed=seed)
        tasks = [
            *asking.tasks(),
            *(asyncio.create_task(cell.live_on(STALENESS, window=2.0)) for cell in cells),
            asyncio.create_task(_disturb(done, seconds, seed)),
            asyncio.create_task(_sample(done, asking.latencies)),
        ]
        ended, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
        for task in ended:
            task.result()  # what broke while it asked or judged
        return done, asking
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await database.close()


async def _disturb(done: Run, seconds: float, seed: int) -> None:
    """One fault after the other, each healed before the next; none in the last seconds."""
    chance = random.Random(f"{seed} faults")
    fleet, ends_at = done.fleet, now() + seconds - 12
    turn = 0
    while True:
        await asyncio.sleep(chance.uniform(2, 5))
        if now() > ends_at:
            await asyncio.sleep(seconds)
            continue
        name = ("resets", "slow link", "frozen replica", "killed replica", "no link")[turn % 5]
        number = chance.randrange(len(fleet.replicas))
        turn += 1
        done.faults[name] += 1
        replica, link = fleet.replicas[number], fleet.names[number]
        match name:
            case "resets":
                for one in fleet.names:
                    fleet.proxies.cut(one)
            case "slow link":
                fleet.proxies.delay(link, 0.03)
                await asyncio.sleep(3)
                fleet.proxies.heal(link)
            case "no link":
                fleet.proxies.set(link, HOLE)
                await asyncio.sleep(STALENESS * 1.3)
                fleet.proxies.heal(link)
            case "frozen replica":
                replica.freeze()
                await asyncio.sleep(STALENESS * 1.3)
                replica.thaw()
            case _:
                await _replace(fleet.replicas[-1])


async def _replace(replica: Service) -> None:
    replica.kill()
    replica.relaunch()
    await asyncio.to_thread(replica.await_answering)


async def _sample(done: Run, latencies: Latencies) -> None:
    while True:
        begin = now()
        await asyncio.sleep(_SAMPLE)
        took = latencies.between(begin, now())
        with contextlib.suppress(OSError):
            [row] = await done.fleet.postgres.fetch(
                "select count(*) as n from pg_stat_activity where backend_type = 'client backend'"
            )
            done.samples.append(
                Sample(
                    now(),
                    [_of(one, one.memory) for one in done.fleet.replicas],
                    [_of(one, one.files) for one in done.fleet.replicas],
                    row["n"],
                    _quantile(took, 0.5),
                    _quantile(took, 0.99),
                )
            )


def _of(replica: Service, figure: Callable[[], int]) -> int | None:
    try:
        return figure() if replica.runs else None
    except OSError:
        return None


def _quantile(taken: Sequence[float], share: float) -> float | None:
    return taken[min(len(taken) - 1, int(len(taken) * share))] if taken else None


# what it comes to


def report(done: Run, asking: Asking, seconds: float, machine: dict[str, Any]) -> dict[str, Any]:
    """Everything as JSON."""
    verdicts = done.verdicts
    kept = done.samples[int(len(done.samples) * _WARM) :]
    rows = []
    for number in range(len(done.fleet.replicas) - 1):
        rows.append(_trend(f"memory of replica {number}, MiB", kept, lambda one, at=number: _mebibytes(one.memory[at])))
        rows.append(_trend(f"open files of replica {number}", kept, lambda one, at=number: one.files[at]))
    rows.append(_trend("connections to the database", kept, lambda one: one.database))
    rows.append(_trend("p50 of a decision, ms", kept, lambda one: one.p50))
    rows.append(_trend("p99 of a decision, ms", kept, lambda one: one.p99))
    return {
        "kind": "soak",
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine,
        "seconds": round(seconds),
        "replicas": len(done.fleet.replicas),
        "staleness": STALENESS,
        "compared": dict(sorted(verdicts.compared.items())),
        "during_a_change": verdicts.during,
        "unsettled": verdicts.unsettled,
        "wrong": verdicts.wrong[:50],
        "wrong_in_all": len(verdicts.wrong),
        "unexpected": asking.unexpected[:50],
        "unexpected_in_all": len(asking.unexpected),
        "changes": dict(sorted(verdicts.changes.items())),
        "not_acknowledged": dict(sorted(verdicts.refused.items())),
        "faults": dict(sorted(done.faults.items())),
        "answers": dict(sorted(asking.statuses.items())),
        "trends": [row for row in rows if row is not None],
    }


def _mebibytes(value: int | None) -> float | None:
    return None if value is None else value / 2**20


def _trend(name: str, samples: Sequence[Sample], read: Callable[[Sample], float | None]) -> dict[str, Any] | None:
    """Where it was in the first and last fifth of what was kept, and the slope of a straight line through all."""
    found = [(one.at, value) for one in samples if (value := read(one)) is not None]
    if len(found) < 5:
        return None
    slope = linear_regression([at for at, _ in found], [value for _, value in found]).slope
    fifth = max(1, len(found) // 5)
    first, last = (mean(value for _, value in part) for part in (found[:fifth], found[-fifth:]))
    return {"name": name, "first": round(first, 2), "last": round(last, 2), "slope_per_hour": round(slope * 3600, 2)}


def table(result: dict[str, Any]) -> str:
    """For the page."""
    compared = sum(result["compared"].values())
    listed = ", ".join(f"{name} {count:,}" for name, count in result["compared"].items())
    faults = ", ".join(f"{name} {count}" for name, count in result["faults"].items())
    changes = ", ".join(f"{name} {count}" for name, count in result["changes"].items())
    machine, seconds = result["machine"], result["seconds"]
    begun = f"{seconds / 60:g} minutes on {result['replicas']} replicas, S = {result['staleness']:g} s."
    judged = (
        f"- **{compared:,}** decisions compared with the naive reference ({listed}), of them"
        f" {result['during_a_change']:,} within S of a change; **{result['wrong_in_all']} wrong**;"
        f" {result['unexpected_in_all']} answers that none should get; {result['unsettled']:,} could not be compared"
        " (asked around a change that nobody acknowledged)"
    )
    where = (
        f"Of the two thirds after warming up. {machine['cores']} cores ({machine['processor']}) for replicas, database,"
        f" proxies, clients and the reference together; load when it began {machine['load_before']:g}."
    )
    lines = [
        f"{begun} {result['at'][:10]}.",
        "",
        judged,
        f"- changes: {changes}; faults: {faults or 'none'}",
        "",
        "| | first fifth | last fifth | slope an hour |",
        "|---|---:|---:|---:|",
        *(
            f"| {row['name']} | {row['first']:,g} | {row['last']:,g} | {row['slope_per_hour']:+,g} |"
            for row in result["trends"]
        ),
        "",
        f"{where} The same as [JSON](../performance/soak.json).",
    ]
    return "\n".join(lines)


def write(result: dict[str, Any]) -> None:
    RESULTS.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    text = PAGE.read_text(encoding="utf-8")
    begin, end = "<!-- soak: begin -->", "<!-- soak: end -->"
    if begin not in text or end not in text:
        raise SystemExit(f"`{PAGE.name}` has lost its markers; put `{begin}` and `{end}` back")
    before, _, rest = text.partition(begin)
    after = rest.partition(end)[2]
    PAGE.write_text(f"{before}{begin}\n{table(result)}\n{end}{after}", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dry", action="store_true", help="do not write the page")
    chosen = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if soft != hard else soft, hard))
    machine = describe_machine()
    env = {"AUTHZ_PUBLIC_URL": "https://authz.example.com"}
    settings: dict[str, Any] = {"staleness": STALENESS, "poll_interval": 0.5, "poll_timeout": 0.8}
    with Fleet(replicas=REPLICAS, writers=max(REPLICAS, CELLS), env=env, **settings) as fleet:
        done, asking = asyncio.run(run(fleet, chosen.minutes * 60, seed=chosen.seed))
        result = report(done, asking, chosen.minutes * 60, machine)
    print(table(result))
    for line in [*result["wrong"], *result["unexpected"]]:
        print(line)
    if not chosen.dry:
        write(result)
    return 1 if result["wrong_in_all"] or result["unexpected_in_all"] or not result["compared"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
