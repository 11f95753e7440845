"""`python -m tests.fuzz [target …] --seconds 120`: search for input that breaks a promise, led by what code it reaches.

What is found is written to build/fuzz/; a crash fails, and its input belongs into tests/fuzz/corpus/ with its mend.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CORPUS = Path(__file__).parent / "corpus"
FOUND = ROOT / "build" / "fuzz"


def main() -> int:
    """Exit status 1 when a target was broken."""
    from tests.fuzz.names import NAMES

    arguments = argparse.ArgumentParser(prog="tests.fuzz", description=__doc__)
    arguments.add_argument("targets", nargs="*", help="all of them when left out")
    arguments.add_argument("--seconds", type=int, default=120, help="for each target")
    arguments.add_argument("--only", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.only:
        return _search(given.only, given.seconds)
    broken = []
    for name in given.targets or NAMES:
        print(f"{name}: {given.seconds} s", flush=True)  # noqa: T201 - a command
        command = [sys.executable, "-m", "tests.fuzz", "--only", name, "--seconds", str(given.seconds)]
        if subprocess.run(command, cwd=ROOT, check=False).returncode:
            broken.append(name)
    print(f"broken: {', '.join(broken)}" if broken else "no target was broken")  # noqa: T201
    return 1 if broken else 0


def _search(name: str, seconds: int) -> int:
    """One target in this process; libFuzzer ends the process itself."""
    import atheris

    with atheris.instrument_imports(include=["authz_service", "json"]):
        from tests.fuzz.targets import LONGEST, TARGETS
    grown = FOUND / name
    grown.mkdir(parents=True, exist_ok=True)
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={LONGEST}",
        "-timeout=20",
        "-rss_limit_mb=2048",
        "-print_final_stats=1",
        "-verbosity=0",
        f"-artifact_prefix={FOUND}/{name}-",
    ]
    dictionary = CORPUS / f"{name}.dict"
    if dictionary.exists():
        options.append(f"-dict={dictionary}")
    atheris.Setup([sys.argv[0], *options, str(grown), str(CORPUS / name)], TARGETS[name])
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
