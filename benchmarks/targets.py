"""What is aimed at, each a ratio or a bound within one run, and how far it was missed."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.contenders import Contender

CERBOS_OVER_GRPC = ("cerbos_grpc", "cerbos_principal_grpc")


def judge(result: dict[str, Any], contenders: Sequence[Contender]) -> list[dict[str, Any]]:
    """The targets of `make bench` that this run could measure."""
    by_name = {contender.name: contender for contender in contenders}
    rows = {row["name"]: row for row in result["rows"]}
    found = [at_least("`/check` to the raw echo", 0.85, *_ratios(by_name, "check", "echo"), floor=0.7)]
    found[0]["by_time"] = _ratio_of_costs(rows, "check", "echo")
    fastest = max(
        (name for name in CERBOS_OVER_GRPC if name in by_name), key=lambda name: rows[name]["rate"], default=""
    )
    if fastest:
        found.append(
            at_least("`/check` to Cerbos over gRPC, the faster of its two", 5.0, *_ratios(by_name, "check", fastest))
        )
        found[-1]["by_time"] = _ratio_of_costs(rows, "check", fastest)
    found.append(at_least("`/check/http` to `/check`", 0.667, *_ratios(by_name, "http", "check")))
    found[-1]["by_time"] = _ratio_of_costs(rows, "http", "check")
    high = next(each for each in result["open_loop"] if each["share"] == 0.85)
    found.append(at_most("p99 of `/check` at 85 % load, ms", 5.0, high["p99_ms"]))
    found.append(at_least("`/check/batch` of 1,000, decisions/s", 1_000_000, rows["batch"]["rate"]))
    found.append(at_least("look-up in process, decisions/s", 1_000_000, rows["quick"]["rate"]))
    found.append(at_most("look-up in process, p50 in µs", 1.0, rows["quick"]["p50_alone_us"]))
    label = f"two workers to one, by {result['workers']['by']}"
    found.append(at_least(label, 1.8, result["workers"]["ratio"]))
    return found


def _ratios(by_name: dict[str, Contender], one: str, other: str) -> tuple[float, float, float]:
    """Median, least and greatest over the rounds: each ratio is of two runs that follow each other closely."""
    ratios = [mine.rate / theirs.rate for mine, theirs in zip(by_name[one].runs, by_name[other].runs, strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)


def _ratio_of_costs(rows: dict[str, dict[str, Any]], one: str, other: str) -> float:
    """The same ratio by processor time, which neighbours on the machine disturb less."""
    ratio: float = rows[other]["cpu_us"] / rows[one]["cpu_us"]
    return round(ratio, 3)


def at_least(name: str, wanted: float, found: float, *spread: float, floor: float | None = None) -> dict[str, Any]:
    missed = max(0.0, 1 - found / wanted)
    return _target(name, wanted, found, spread, missed) | ({} if floor is None else {"floor": floor})


def at_most(name: str, wanted: float, found: float, *spread: float) -> dict[str, Any]:
    return _target(name, wanted, found, spread, max(0.0, found / wanted - 1)) | {"most": True}


def _target(name: str, wanted: float, found: float, spread: Iterable[float], missed: float) -> dict[str, Any]:
    return {
        "name": name,
        "wanted": wanted,
        "found": round(found, 3),
        "spread": [round(each, 3) for each in spread],
        "missed_by": round(missed, 3),
    }
