"""Fetches what `make bench` takes besides: other engines, programs for the load. What cannot be had is left out."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
FOLDER: Final = ROOT / "build" / "bench"
PINS: Final = ROOT / "benchmarks" / "constraints.txt"
CERBOS: Final = "0.55.0"
_ARCHITECTURES: Final = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}
_LOAD: Final = {"wrk": "wrk", "h2load": "nghttp2-client"}
"""Programs by the packages that hold them."""
_PATIENCE: Final = 300


def main() -> int:
    """Always 0: a benchmark without a peer says so in its result."""
    for fetch in (fetch_packages, fetch_cerbos, fetch_load):
        try:
            fetch()
        except (OSError, subprocess.SubprocessError) as error:
            print(f"{fetch.__name__}: {error}; it is left out", file=sys.stderr)
    return 0


def fetch_packages() -> None:
    """The Python packages of the extra `bench`, into the environment that runs this."""
    pinned = dict(line.split("==") for line in PINS.read_text("utf-8").split() if "==" in line)
    if all(_installed(name) == version for name, version in pinned.items()):
        return
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = project["optional-dependencies"]["bench"]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]
    command += ["-c", str(ROOT / "constraints.txt"), "-c", str(PINS), *wanted]
    environment = {name: value for name, value in os.environ.items() if name != "PIP_CONSTRAINT"}
    subprocess.run(command, check=True, timeout=_PATIENCE, env=environment, stdin=subprocess.DEVNULL)


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def fetch_cerbos() -> None:
    """Cerbos' server, which its npm package holds whole: no script of the package is run."""
    architecture = _ARCHITECTURES.get(platform.machine().lower())
    system = platform.system().lower()
    package = f"@cerbos/cerbos-{system}-{architecture}"
    stamp = FOLDER / "cerbos.version"
    if stamp.exists() and stamp.read_text("utf-8") == CERBOS:
        return
    npm = shutil.which("npm")
    if npm is None or architecture is None:
        print("Cerbos is left out: there is no npm, or no binary for this machine", file=sys.stderr)
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    command = [npm, "install", "--prefix", str(FOLDER), "--no-save", "--no-audit", "--no-fund", "--ignore-scripts"]
    subprocess.run([*command, f"{package}@{CERBOS}"], check=True, timeout=_PATIENCE, stdin=subprocess.DEVNULL)
    stamp.write_text(CERBOS, "utf-8")


def fetch_load() -> None:
    """Debian's wrk and h2load, where this user may install them; else the benchmark's own load is used."""
    absent = [package for program, package in _LOAD.items() if shutil.which(program) is None]
    if not absent:
        return
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        print(f"{', '.join(absent)}: not there, not for this user to install: our own load is used", file=sys.stderr)
        return
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = [apt, "install", "-y", "-qq", "--no-install-recommends", *absent]
    if subprocess.run(install, check=False, timeout=_PATIENCE, env=environment, capture_output=True).returncode:
        subprocess.run([apt, "update", "-qq"], check=True, timeout=_PATIENCE, env=environment, capture_output=True)
        subprocess.run(install, check=True, timeout=_PATIENCE, env=environment, capture_output=True)


if __name__ == "__main__":
    sys.exit(main())
