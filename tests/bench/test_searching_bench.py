"""The measurement of lists and searches runs, and every page of every list is answered."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_a_quick_run_asks_for_every_page_and_finds_no_wrong_answer(tmp_path):
    output = tmp_path / "searching.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.searching", "--quick", "--output", str(output)],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(output.read_text("utf-8"))
    rows = {row["name"]: row for row in found["rows"]}
    assert all(row["complete"] for row in rows.values())
    # The tokens of the workload, and those of its people and its gateway.
    assert rows["all tokens, newest"]["items"] == found["tokens"] + 4
    assert rows["AuthZEN: tokens that may"]["items"] == rows["which tokens may do this here"]["items"] > 0
    assert rows["grants in a group, when all tokens have a grant"]["items"] > 0
    assert found["grandfathering"]["grants"] >= found["tokens"]
    assert found["grandfathering"]["checks_meanwhile"] > 0
    assert found["grandfathering"]["wrong"] == 0
    assert "| all tokens, newest |" in done.stdout
