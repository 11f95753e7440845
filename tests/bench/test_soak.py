"""The soak in its short form: everything at once, faults too, and no answer that the naive reference would not give."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def soak(minutes: float) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.soak", "--minutes", str(minutes), "--dry"],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.long
def test_a_short_soak_finds_no_wrong_answer():
    assert "**0 wrong**" in soak(0.4)


@pytest.mark.long
def test_a_soak_of_a_minute_finds_no_wrong_answer_under_any_fault():
    said = soak(1)
    assert "**0 wrong**" in said
    for fault in ("resets", "frozen replica", "killed replica"):
        assert fault in said
