"""Writes requirements.lock: what `make setup` installs, each file with its hash, resolved from the pins."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Final

from setup_venv import EXTRAS, LOCK, ROOT, TOOLS, digest_of_pins

UV: Final = "uv==0.13.9"
OLDEST: Final = "3.11.9"
_PATIENCE: Final = 600


def main() -> int:
    """0 when the lock is of today's pins."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        venv.create(place / "venv", with_pip=True)
        python = place / "venv" / "bin" / "python"
        install = [str(python), "-m", "pip", "install", "--quiet", "--no-input", UV]
        subprocess.run(install, check=True, timeout=_PATIENCE)
        wanted = place / "wanted.in"
        wanted.write_text("\n".join(TOOLS) + "\n", "utf-8")
        command = [str(place / "venv" / "bin" / "uv"), "pip", "compile", "--quiet", "--no-config", "--generate-hashes"]
        command += [
            "--no-header",
            "--no-annotate",
            "--python-version",
            OLDEST,
            "-c",
            str(Path(ROOT) / "constraints.txt"),
        ]
        for extra in EXTRAS:
            command += ["--extra", extra]
        command += [str(Path(ROOT) / "pyproject.toml"), str(wanted)]
        made = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    if made.returncode:
        print(made.stderr, file=sys.stderr)
        return 1
    lines = [line for line in made.stdout.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if any("://" in line for line in lines):
        print("the lock names a host; nothing was written", file=sys.stderr)
        return 1
    head = [
        "# What `make setup` installs, by hash: made from constraints.txt and pyproject.toml by `make lock`.",
        f"# pins: {digest_of_pins()}",  # type: ignore[no-untyped-call]  # it runs under any Python 3, without annotations
    ]
    Path(LOCK).write_text("\n".join([*head, *lines]) + "\n", "utf-8")
    print(f"{Path(LOCK).name}: {sum(bool(re.match('[a-z]', line)) for line in lines)} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
