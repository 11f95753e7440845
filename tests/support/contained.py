"""A process as a container would run it: a read-only tree, memory at /tmp, an unprivileged user without capabilities.

By namespaces of Linux, for root alone. Where the kernel or the rights for that are missing, tests are skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Final

import pytest

ROOT = Path(__file__).resolve().parents[2]
USER = 10001
"""As in the Dockerfile."""

_SCRIPT: Final = r"""
set -eu
mount -t tmpfs -o mode=755 none /mnt
# Python, or this project, may lie in a home folder that nobody else may enter: let others pass, and no more.
number=0
for closed in $CLOSED; do
    number=$((number + 1))
    mkdir "/mnt/$number"
    mount --bind "$closed" "/mnt/$number"
    mount -t tmpfs -o mode=755 none "$closed"
    for needed in $NEEDED; do
        case "$needed" in
            "$closed"/*)
                mkdir -p "$needed"
                mount --bind "/mnt/$number${needed#"$closed"}" "$needed" ;;
        esac
    done
done
while read -r _ place _; do
    case "$place" in
        /proc|/proc/*|/sys|/sys/*|/dev|/dev/pts|/dev/mqueue) ;;
        *) mount -o remount,bind,ro "$place" 2>/dev/null || true ;;
    esac
done < /proc/self/mounts
mount -t tmpfs -o mode=755 none /mnt
mkdir /mnt/tmp
mount --bind /tmp /mnt/tmp
mount -t tmpfs -o size=64m,mode=1777 none /tmp
for kept in $KEPT; do
    case "$kept" in
        /tmp/*)
            mkdir -p "$kept"
            mount --bind "/mnt$kept" "$kept" ;;
    esac
done
cd /
exec setpriv --reuid "$USER_ID" --regid "$USER_ID" --clear-groups --no-new-privs \
    --bounding-set -all --inh-caps -all "$@"
"""


def _closed(path: Path) -> Path | None:
    """The topmost folder on the way to the path that others may not enter."""
    for folder in (*reversed(path.parents), path):
        if not folder.stat().st_mode & 0o001:
            return folder
    return None


def contained(*command: str, kept: Sequence[Path] = ()) -> list[str]:
    """The command, contained; of `/tmp` it sees the `kept` folders alone, and may write to none of them."""
    wanted = {Path(sys.base_prefix), ROOT, Path(sys.prefix)}
    closed = {found for found in map(_closed, wanted) if found is not None}
    settings = {
        "CLOSED": " ".join(map(str, sorted(closed))),
        "NEEDED": " ".join(map(str, sorted(wanted))),
        "KEPT": " ".join(map(str, sorted({*kept, *(one for one in wanted if one.is_relative_to("/tmp"))}))),
        "USER_ID": str(USER),
    }
    given = [f"{name}={value}" for name, value in settings.items()]
    return ["env", *given, "unshare", "--mount", "--propagation", "private", "sh", "-c", _SCRIPT, "sh", *command]


@cache
def why_not() -> str | None:
    """Why nothing can be contained here; None where it can."""
    if os.geteuid() != 0:
        return "only root can make namespaces"
    missing = [name for name in ("unshare", "setpriv", "mount") if shutil.which(name) is None]
    if missing:
        return f"needs {', '.join(missing)}"
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "mount", "-t", "tmpfs", "none", "/mnt"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return None if done.returncode == 0 else f"no mounts here: {done.stderr.strip()}"


def run_contained(*command: str, env: Mapping[str, str], kept: Sequence[Path] = ()) -> subprocess.CompletedProcess[str]:
    """One command with this environment and no other, to its end."""
    return subprocess.run(
        contained(*command, kept=kept),
        env={"PATH": os.environ["PATH"], **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def need_containment() -> None:
    """Skips the test where there is none."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
