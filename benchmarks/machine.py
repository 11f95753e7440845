"""Where it was measured: processor, cores and versions, and which core does what."""

from __future__ import annotations

import os
import platform
import re
import shutil
import signal
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = (
    "authz-service", "asyncpg", "cedarpy", "fastapi", "httptools", "msgspec", "pycasbin", "pydantic", "starlette",
    "uvicorn", "uvloop",
)  # fmt: skip


def cores() -> list[int]:
    """The cores that this process may use, in their order."""
    return sorted(os.sched_getaffinity(0))


def pin(*wanted: int) -> None:
    """Keep this process, and those that it starts from now on, on these cores."""
    os.sched_setaffinity(0, wanted)


def end_after(seconds: int) -> None:
    """Raise TimeoutError here after so many seconds, so that whatever hangs ends, and cleans up; 0 takes it back."""

    def end(*_: object) -> None:
        raise TimeoutError(f"this took longer than {seconds} s, and was ended")

    signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)


def describe_machine() -> dict[str, Any]:
    """What a reader has to know to compare: nothing in it names this very machine."""
    found = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    model = re.search(r"^model name\s*:\s*(.+)$", found, re.MULTILINE)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": model[1] if model else platform.machine(),
        "cores": len(cores()),
        "memory_gib": round(memory / 2**30),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "load_before": round(os.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    wrk = wrk_version()
    return found | ({"wrk": wrk} if wrk else {})


def wrk_version() -> str | None:
    """None where there is no wrk."""
    path = shutil.which("wrk")
    if path is None:
        return None
    said = subprocess.run([path, "-v"], capture_output=True, text=True, check=False)  # it exits with 1 and says it
    match = re.search(r"wrk\s+(?:debian/)?([0-9][0-9.]*)", said.stdout + said.stderr)
    return match[1] if match else "unknown"


def cpu_seconds(pid: int) -> float:
    """Seconds of processor time that all threads of a process and its children have used, to the nanosecond."""
    total = 0
    for each in [pid, *children_of(pid)]:
        for stat in Path(f"/proc/{each}/task").glob("*/schedstat"):
            try:
                total += int(stat.read_text(encoding="ascii").split()[0])
            except (OSError, ValueError, IndexError):
                continue  # a thread that ended meanwhile
    return total / 1e9


def resident_bytes(pid: int) -> int:
    """Resident memory of a process and its children."""
    page = os.sysconf("SC_PAGE_SIZE")
    total = 0
    for each in [pid, *children_of(pid)]:
        try:
            total += int(Path(f"/proc/{each}/statm").read_text(encoding="ascii").split()[1]) * page
        except OSError:
            continue
    return total


def children_of(pid: int) -> list[int]:
    """Children and theirs."""
    found: list[int] = []
    for listing in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            mine = [int(text) for text in listing.read_text(encoding="ascii").split()]
        except OSError:
            continue
        for child in mine:
            found += [child, *children_of(child)]
    return found
