"""The measurement of freshness runs, and finds nobody who allows later than S."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.long
def test_a_quick_run_finds_no_allow_later_than_s():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.freshness", "--quick"],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert "| under faults |" in done.stdout
