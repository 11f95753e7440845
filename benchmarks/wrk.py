"""Load by wrk: one thread, keep-alive connections, and a script that walks through thousands of different bodies."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.pressure import Post
from benchmarks.servers import HOST

_WALK = """\
local requests = {}
local position = 0
%s
function request()
  position = position % #requests + 1
  return requests[position]
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format("result %d %d %d %d\\n", summary.requests, summary.duration,
    errors.connect + errors.read + errors.write + errors.timeout, errors.status))
  io.write(string.format("latency %.1f %.1f %.1f %.1f\\n", latency:percentile(50), latency:percentile(90),
    latency:percentile(99), latency:percentile(99.9)))
end
"""
_FILL = """\
function init(args)
  local file = assert(io.open(args[1], "rb"))
  local headers = {}
  local path = file:read("*l")
  for _ = 1, tonumber(file:read("*l")) do
    local name = file:read("*l")
    headers[name] = file:read("*l")
  end
  for _ = 1, tonumber(file:read("*l")) do
    requests[#requests + 1] = wrk.format("POST", path, headers, file:read(tonumber(file:read("*l"))))
  end
  file:close()
end
"""


def write_lua(folder: Path, fill: str) -> None:
    """The script `walk.lua`: `fill` is its `init`, which fills `requests` from 1 on; it goes round these."""
    (folder / "walk.lua").write_text(_WALK.replace("%s", fill, 1), encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Wrked:
    """What wrk says; times in seconds."""

    rate: float
    p50: float
    p90: float
    p99: float
    p999: float
    failed: int


class WrkError(Exception):
    """wrk ended without a result."""


def write_requests(folder: Path, name: str, requests: Sequence[Post]) -> Path:
    """The file that the script reads: all requests share path and headers."""
    found = folder / f"{name}.requests"
    first = requests[0]
    with found.open("wb") as file:
        file.write(f"{first.path}\n{len(first.headers)}\n".encode())
        for header in first.headers:
            file.write("\n".join(header).encode() + b"\n")
        file.write(f"{len(requests)}\n".encode())
        for each in requests:
            file.write(f"{len(each.body)}\n".encode() + each.body)
    write_lua(folder, _FILL)
    return found


def press_with_wrk(requests: Path, port: int, *, connections: int, seconds: float) -> Wrked:
    """Closed loop. wrk takes whole seconds."""
    path = shutil.which("wrk")
    if path is None:
        raise WrkError("there is no wrk")
    command = [path, "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "10s", "-s"]
    command += [str(requests.parent / "walk.lua"), f"http://{HOST}:{port}", "--", str(requests)]
    said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 60)
    result = re.search(r"^result (\d+) (\d+) (\d+) (\d+)$", said.stdout, re.MULTILINE)
    latency = re.search(r"^latency ([\d.]+) ([\d.]+) ([\d.]+) ([\d.]+)$", said.stdout, re.MULTILINE)
    if result is None or latency is None:
        raise WrkError(f"wrk gave no result: {(said.stderr or said.stdout).strip()[-300:]}")
    count, micros, broken, refused = (int(text) for text in result.groups())
    p50, p90, p99, p999 = (float(text) / 1e6 for text in latency.groups())
    return Wrked(count / (micros / 1e6), p50, p90, p99, p999, broken + refused)
