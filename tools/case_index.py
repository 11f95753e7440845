"""Writes the table of rules and their cases into docs/testing.md; with --check it only says whether that is due."""

from __future__ import annotations

import argparse
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "testing.md"
SEMANTICS = ROOT / "docs" / "semantics.md"
CASES = ROOT / "tests" / "cases"
ELSEWHERE = ROOT / "tests" / "conformance" / "elsewhere.yaml"
BEGIN = "<!-- rules and their cases, written by tools/case_index.py -->"
END = "<!-- end of rules and their cases -->"
SHOWN_CHAPTERS = "CDTAP"
"""Chapters of semantics.md whose rules are shown by cases; management has tests of its own."""


def rules() -> list[str]:
    """All rules of the chapters that cases show, in the order of semantics.md."""
    found: list[str] = re.findall(r"^- \*\*([A-Z]\d+)\*\*", SEMANTICS.read_text(encoding="utf-8"), re.MULTILINE)
    return [rule for rule in found if rule[0] in SHOWN_CHAPTERS]


def read(path: Path) -> Any:
    return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))


def table() -> str:
    cases: defaultdict[str, list[str]] = defaultdict(list)
    for path in sorted(CASES.glob("*.yaml")):
        for case in read(path)["cases"]:
            for rule in case["rules"]:
                cases[rule].append(f"{case['name']} ([{path.stem}](../tests/cases/{path.name}))")
    elsewhere = read(ELSEWHERE)
    lines = []
    for rule in rules():
        shown = cases[rule] + [_shown(test) for test in elsewhere["rules"].get(rule, ())]
        if rule in elsewhere["pending"]:
            shown.append(f"not yet: {elsewhere['pending'][rule]}")
        lines.append(f"**{rule}**\n" + "".join(f"- {text}\n" for text in shown))
    return "\n".join(lines)


def _shown(test: str) -> str:
    path, _, name = test.partition("::")
    return f"{name.removeprefix('test_').replace('_', ' ')} ([{Path(path).stem}](../{path}))"


def written(page: str) -> str:
    """The page with today's table in place of the one in it."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table()}\n{END}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail when the table is not today's")
    options = parser.parse_args()
    page = PAGE.read_text(encoding="utf-8")
    wanted = written(page)
    if options.check and page != wanted:
        sys.exit("docs/testing.md does not show today's cases: run tools/case_index.py")
    if not options.check:
        PAGE.write_text(wanted, encoding="utf-8")


if __name__ == "__main__":
    main()
