"""Installs what tests use and Python cannot bring: a pooler, shifted clocks, gateways, a browser, promtool.

Needs root on Debian or its like. Anywhere else, and without a network, it says so and does no harm: the tests that
need a missing package are skipped, with the reason in the summary.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

WANTED = {
    "pgbouncer": "/usr/sbin/pgbouncer",
    "libfaketime": "/usr/lib/*/faketime/libfaketime.so.1",
    "nginx-light": "/usr/sbin/nginx",
    "haproxy": "/usr/sbin/haproxy",
    "chromium": "/usr/bin/chromium",
    "curl": "/usr/bin/curl",
    "prometheus": "/usr/bin/promtool",
}
"""Packages, and a file of each."""
POLICY = Path("/usr/sbin/policy-rc.d")
PATIENCE = 300


def main() -> int:
    missing = [name for name, file in WANTED.items() if not any(Path("/").glob(file[1:]))]
    if not missing:
        return 0
    listed = " and ".join(missing)
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        print(f"{listed} are not installed, and only root can do it, with apt-get: some tests will be skipped")
        return 0
    # Debian starts what it installs; here nothing may be left running.
    ours = not POLICY.exists()
    if ours:
        POLICY.write_text("#!/bin/sh\nexit 101\n")
        POLICY.chmod(0o755)
    try:
        apt_get("update")
        done = apt_get("install", "--yes", "--no-install-recommends", *missing)
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip()).splitlines()
            print(f"{listed} cannot be installed ({said[-1] if said else 'no reason given'}): some tests are skipped")
    except subprocess.TimeoutExpired:
        print(f"{listed} cannot be installed (no answer within {PATIENCE} s): some tests are skipped")
    finally:
        if ours:
            POLICY.unlink()
    return 0


def apt_get(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["apt-get", "-qq", *arguments],
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


if __name__ == "__main__":
    sys.exit(main())
