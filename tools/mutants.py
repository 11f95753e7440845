"""Change the core in small ways and see whether a test notices; what survives few examples is tried again with many."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

FEW, MANY = 2_000, 20_000
"""Generated examples: most changes die at once, and the rest cost a whole run of the tests each."""
WANTED = 0.95
MUTMUT = str(Path(sys.executable).with_name("mutmut"))


def run(examples: int, *names: str) -> None:
    """How it goes is said by mutmut; a survivor is no error of its own."""
    environment = {**os.environ, "AUTHZ_EXAMPLES": str(examples)}
    subprocess.run([MUTMUT, "run", *names], env=environment, check=False)


def results() -> dict[str, str]:
    """Each change that was tried, and how it ended."""
    said = subprocess.run([MUTMUT, "results", "--all", "true"], capture_output=True, text=True, check=True).stdout
    found = (line.strip().rpartition(": ") for line in said.splitlines() if ": " in line)
    return {name: ended for name, _, ended in found if "__mutmut_" in name}


def main() -> int:
    """Exit status 1 when fewer than 95 of 100 were noticed."""
    run(FEW)
    survivors = sorted(name for name, ended in results().items() if ended == "survived")
    if survivors:
        run(MANY, *survivors)
    ended = Counter(results().values())
    noticed = ended["killed"] + ended["timeout"]
    missed = ended["survived"] + ended["suspicious"] + ended["no tests"]
    share = noticed / max(1, noticed + missed)
    print(f"{noticed} of {noticed + missed} changes were noticed ({share:.1%}); all: {dict(ended)}")
    for name, how in sorted(results().items()):
        if how in ("survived", "no tests"):
            print(f"{how}: {name}")
    return 0 if share >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
