"""Load by h2load: a rate that is kept whatever is answered, by a generator in C that costs little of its core."""

from __future__ import annotations

import re
import shutil
import subprocess
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from benchmarks.pressure import Measured
from benchmarks.servers import HOST

_SAID: Final = re.compile(r"^requests: (\d+) total, .* (\d+) failed, (\d+) errored, (\d+) timeout$", re.MULTILINE)
_SETTLING: Final = 2
"""Seconds before it measures."""


class H2loadError(Exception):
    """h2load ended without a result."""


def has_h2load() -> bool:
    return shutil.which("h2load") is not None


def offer_with_h2load(
    request: bytes, port: int, *, folder: Path, connections: int, rate: float, seconds: float
) -> Measured:
    """One and the same request, at `rate` a second over all connections, each of which asks at even distances.

    A connection that waits for an answer sends nothing meanwhile. What it would have sent is added, with the time that
    it would have taken, so that no stall of the server can hide by keeping the questions away.
    """
    path = shutil.which("h2load")
    if path is None:
        raise H2loadError("there is no h2load")
    head, _, body = request.partition(b"\r\n\r\n")
    line, *fields = head.decode("ascii").split("\r\n")
    (folder / "body").write_bytes(body)
    log = folder / "h2load.log"
    log.unlink(missing_ok=True)
    each = max(1, round(rate / connections))
    command = [path, "--h1", "-t1", f"-c{connections}", f"--rps={each}", f"--duration={max(1, round(seconds))}"]
    command += [f"--warm-up-time={_SETTLING}", f"--data={folder / 'body'}", f"--log-file={log}"]
    for field in fields:
        if field.partition(":")[0].lower() not in ("host", "content-length"):
            command += ["-H", field]
    command.append(f"http://{HOST}:{port}{line.split()[1]}")
    said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 120)
    found = _SAID.search(said.stdout)
    if found is None or not log.exists():
        raise H2loadError(f"h2load gave no result: {(said.stderr or said.stdout).strip()[-300:]}")
    micros, failed = array("q"), sum(int(text) for text in found.groups()[1:])
    for text in _lines(log):
        _, status, took = text.split(b"\t")
        micros.append(int(took))
        failed += status != b"200"
    log.unlink()
    times = sorted(_with_unsent(micros, 1_000_000 // each))
    whole = float(max(1, round(seconds)))
    return Measured(whole, [one / 1e6 for one in times], failed, late=None, answered=len(micros))


def _lines(log: Path) -> Iterator[bytes]:
    with log.open("rb") as file:
        yield from file


def _with_unsent(micros: Iterable[int], distance: int) -> Iterator[int]:
    """`distance` in microseconds is that between two requests of a connection."""
    for one in micros:
        yield from range(one, 0, -distance)
