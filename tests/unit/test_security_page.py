"""docs/security.md: every threat names its tests, and each of them exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
NAMED = re.compile(r"`(tests/[a-z0-9_/]+\.py)::(test_[a-z0-9_]+)`")


def rows() -> list[list[str]]:
    """The rows of the tables whose last column is the test."""
    found, inside = [], False
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if cells and cells[-1] == "test":
            inside = True
        elif not cells:
            inside = False
        elif inside and set(line) - set("|- "):
            found.append(cells)
    return found


ROWS = rows()


@cache
def names_in(file: str) -> frozenset[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return frozenset(one.name for one in tree.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_a_threat_names_tests_that_exist(row):
    assert len(row) == 3, "a cell has a `|` in it"
    named = NAMED.findall(row[2])
    assert named
    assert NAMED.sub("", row[2]).strip() == ""
    for file, name in named:
        assert name in names_in(file), f"{file} has no {name}"


def test_no_threat_stands_twice_and_none_is_gone():
    names = [row[0] for row in ROWS]
    assert len(names) == len(set(names))
    assert len(names) >= 40
