"""Results as JSON, as charts, and as the tables between the markers of docs/performance.md."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import plot

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = DOCS / "performance.md"
FOLDER = DOCS / "performance"
_TITLES = {
    "decisions": "decisions a second on one core",
    "scale": "throughput, latency and memory from 1,000 to 1,000,000 tokens",
}
_GENERATORS = {"h2load": "h2load", "own": "our own load"}


def write(result: dict[str, Any], output: Path | None = None) -> None:
    """The results as a file; without `output`, where the page has them, and the page anew."""
    path = output or FOLDER / f"{result['kind']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if output is None:
        render(result)


def render(result: dict[str, Any]) -> None:
    """Charts, and what stands between this kind's markers."""
    kind = result["kind"]
    for name, drawn in charts(result).items():
        (FOLDER / f"{name}.svg").write_text(drawn, encoding="utf-8")
    text = PAGE.read_text(encoding="utf-8")
    begin, end = f"<!-- {kind}: begin -->", f"<!-- {kind}: end -->"
    if begin not in text or end not in text:
        raise SystemExit(f"`{PAGE.name}` has lost the markers of `{kind}`; put `{begin}` and `{end}` back")
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    drawing = f"![{_TITLES[kind]}](performance/{kind}.svg)"
    source = f"The same as [JSON](performance/{kind}.json)."
    PAGE.write_text(f"{before}{begin}\n{drawing}\n\n{table(result)}\n\n{source}\n{end}{after}", encoding="utf-8")


def table(result: dict[str, Any]) -> str:
    return _decisions(result) if result["kind"] == "decisions" else _scale(result)


def charts(result: dict[str, Any]) -> dict[str, str]:
    if result["kind"] == "decisions":
        rows = sorted(result["rows"], key=lambda row: -row["rate"])
        drawn = [(f"{_plain(row['label'])} · {row['over']}", row["rate"], "authz" in row["label"]) for row in rows]
        return {"decisions": plot.bars("Decisions a second on one core", drawn, unit="decisions/s")}
    steps = result["steps"]
    lines = [
        ("decisions/s, warm", [step["rate"] for step in steps]),
        ("p99 at 85 % load, ms", [step["p99_ms"] for step in steps]),
        ("cold ask, p50 ms", [step["cold_p50_ms"] for step in steps]),
        ("memory, MiB", [step["memory_mib"] for step in steps]),
    ]
    return {
        "scale": plot.curves("From 1,000 to 1,000,000 tokens", [step["tokens"] for step in steps], lines, unit="tokens")
    }


# the tables


def _decisions(result: dict[str, Any]) -> str:
    method = result["method"]
    checked = sum(row["checked"] for row in result["rows"])
    wrong = sum(row["wrong"] for row in result["rows"])
    parts = [
        _machine(result),
        "",
        f"{checked:,} answers were compared with the oracle, {wrong} were wrong. {_load(method)}",
        "",
        *_markdown(
            ("who", "over", "decisions/s", "lowest to highest", "processor time, µs", "p50 µs at one connection"),
            (
                (
                    row["label"],
                    row["over"],
                    f"{row['rate']:,}",
                    f"{min(row['rates']):,} to {max(row['rates']):,}",
                    _number(row["cpu_us"]),
                    "" if row["p50_alone_us"] is None else _number(row["p50_alone_us"]),
                )
                for row in result["rows"]
            ),
        ),
        "",
        *_markdown(
            (
                "`/check` in open loop",
                "asked for",
                "answered/s",
                "p50 ms",
                "p90 ms",
                "p99 ms",
                "p99.9 ms",
                "longest ms",
            ),
            (
                (
                    f"{each['share']:.0%} of the most, {each['seconds']:g} s, by {_GENERATORS[each['by']]}",
                    f"{each['offered']:,}/s",
                    f"{each['rate']:,}",
                    *(_number(each[name]) for name in ("p50_ms", "p90_ms", "p99_ms", "p999_ms", "max_ms")),
                )
                for each in result["open_loop"]
            ),
        ),
        "",
        *_markdown(
            ("catalog", "operations", "permissions", "from its text to what decides, s", "memory, MiB"),
            (
                (
                    f"`{each['label']}`",
                    f"{each['operations']:,}",
                    f"{each['permissions']:,}",
                    _number(each["compile_s"]),
                    _number(each["bytes"] / 2**20),
                )
                for each in result["catalogs"]
            ),
        ),
        "",
        *_markdown(
            ("where the time of a `/check` goes, each step with those above it", "µs"),
            ((each["label"], _number(each["us"])) for each in result["parts"]),
        ),
        "",
        *_targets(result["targets"]),
    ]
    parts += [f"\nLeft out: {each['why']}." for each in result["left_out"]]
    return "\n".join(parts)


def _load(method: dict[str, Any]) -> str:
    by = "wrk" if method["load"] == "wrk" else "our own generator (wrk was not used)"
    apart = "" if method["cores_apart"] else " Server and load shared one core, for there was no second."
    return (
        f"Load by {by} with {method['connections']} connections, gRPC always by our own; medians of"
        f" {method['rounds']} rounds of {method['seconds']:g} s, all contenders in turn in each round.{apart}"
    )


def _scale(result: dict[str, Any]) -> str:
    parts = [
        _machine(result),
        "",
        *_markdown(
            (
                "tokens stored",
                "tokens warm",
                "decisions/s",
                "processor time, µs",
                "p99 ms at 85 %",
                "cold p50 ms",
                "cold p99 ms",
                "cold processor time, µs",
                "memory MiB",
            ),
            (
                (
                    f"{step['tokens']:,}",
                    f"{step['warm']:,}",
                    f"{step['rate']:,}",
                    _number(step["cpu_us"]),
                    _number(step["p99_ms"]),
                    _number(step["cold_p50_ms"]),
                    _number(step["cold_p99_ms"]),
                    f"{step['cold_cpu_us']:,}",
                    f"{step['memory_mib']:,}",
                )
                for step in result["steps"]
            ),
        ),
        "",
        *_markdown(("also", "found"), ((each["label"], each["found"]) for each in result["also"])),
        "",
        *_targets(result["targets"]),
    ]
    return "\n".join(parts)


def _targets(targets: Sequence[dict[str, Any]]) -> list[str]:
    return _markdown(
        ("target", "wanted", "found", "missed by"),
        ((each["name"], _wanted(each), _found(each), _missed(each)) for each in targets),
    )


def _found(target: dict[str, Any]) -> str:
    said = [f"{_number(target['spread'][0])} to {_number(target['spread'][1])}"] if target["spread"] else []
    if "by_time" in target:
        said.append(f"by processor time {_number(target['by_time'])}")
    return _number(target["found"]) + (f" ({'; '.join(said)})" if said else "")


def _wanted(target: dict[str, Any]) -> str:
    floor = f", and never below {target['floor']}" if "floor" in target else ""
    return f"{'at most' if target.get('most') else 'at least'} {target['wanted']:,}{floor}"


def _missed(target: dict[str, Any]) -> str:
    return f"**{target['missed_by']:.0%}**" if target["missed_by"] else "not missed"


def _number(value: float) -> str:
    """Three digits that mean something."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _machine(result: dict[str, Any]) -> str:
    machine = result["machine"]
    listed = ", ".join(f"{name} {version}" for name, version in sorted(result["versions"].items()))
    busy = (
        f" Before the run the machine's load was {machine['load_before']}: it was not idle."
        if machine["load_before"] > 0.3
        else ""
    )
    return (
        f"Measured on {result['at'][:10]}: {machine['processor']}, {machine['cores']} cores,"
        f" {machine['memory_gib']} GiB, {machine['system']}.{busy} {listed}."
    )


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return lines + [f"| {' | '.join(row)} |" for row in rows]


def _plain(label: str) -> str:
    return re.sub("`", "", label)


def main() -> int:
    """Render the page anew from the results that are there."""
    for path in sorted(FOLDER.glob("*.json")):
        render(json.loads(path.read_text(encoding="utf-8")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
