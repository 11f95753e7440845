"""Writes the figures of docs/operations/sizing.md from what was measured; with --check says whether that is due."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Final

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "operations" / "sizing.md"
MEASURED = ROOT / "docs" / "performance"
BEGIN: Final = "<!-- sizing: begin -->\n"
END: Final = "<!-- sizing: end -->"
MIB: Final = 1 << 20


def load(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((MEASURED / f"{name}.json").read_text(encoding="utf-8"))
    return found


def bytes_of_a_token(scale: dict[str, Any]) -> int:
    """What a token in use takes in all: itself, its lookup, its owner, the places asked about. By the largest step."""
    step = max(scale["steps"], key=lambda one: one["warm"])
    return round(float(step["memory_mib"] - step["fresh_mib"]) * MIB / int(step["warm"]))


def figures() -> str:
    """The table, from the newest measurements in docs/performance/."""
    decisions, scale, gateways = load("decisions"), load("scale"), load("gateways")
    rows = {one["name"]: one for one in decisions["rows"]}
    steps = scale["steps"]
    largest = max(steps, key=lambda one: one["warm"])
    each = bytes_of_a_token(scale)
    served = sorted(one["with"]["rate"] for one in gateways["rows"])
    loads = sorted(one["loads_per_second"] for one in steps)
    cold, cold_ms = largest["cold_cpu_us"] / 1000, largest["cold_p50_ms"]
    full = f"{largest['warm']:,} of {largest['tokens']:,} tokens in use: {largest['memory_mib']:,} MiB"
    table = [
        ("`/check` that memory answers", f"{rows['check']['rate']:,} a second on one core, all of it"),
        ("`/check/http`", f"{rows['http']['rate']:,}"),
        ("`/check/batch` of 20", f"{rows['batch20']['rate']:,} decisions"),
        ("`/gateway/…`, with a gateway on the same core", f"{served[0]:,} to {served[-1]:,} requests"),
        ("a fact that has to be loaded, p50", f"{cold_ms:g} ms, {cold:.1f} ms of the processor"),
        ("tokens taken into an empty memory, 8 at once", f"{loads[0]:,} to {loads[-1]:,} a second"),
        ("memory of a worker that was just started", f"{largest['fresh_mib']:,} MiB"),
        ("memory for each token in use, its owner and its places included", f"{each / 1000:.1f} kB ({full})"),
    ]
    machine = scale["machine"]
    on = f"{machine['processor']}, {machine['cores']} cores; rates {decisions['at'][:10]}, memory {scale['at'][:10]}"
    how = "How, and with what load beside: [performance.md](../performance.md)."
    lines = ["| measured | found |", "|---|---|", *(f"| {name} | {found} |" for name, found in table)]
    lines += ["", f"On {on}. {how}"]
    return "\n".join(lines) + "\n"


def page() -> str:
    """The page with the figures of today."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    return before + BEGIN + figures() + END + rest.partition(END)[2]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail when the page is not what it would be"
    )
    check = parser.parse_args().check
    text = page()
    if PAGE.read_text(encoding="utf-8") == text:
        return 0
    if check:
        print("docs/operations/sizing.md is not what was measured; run `make reference`")
        return 1
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
