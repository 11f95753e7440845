"""One server process and its folder: who holds it, how a child is started, what it says, how it is ended."""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from authz_service.embedded.errors import EmbeddedPostgresError, EmbeddedPostgresInUseError
from authz_service.embedded.places import Places

LINUX = platform.system() == "Linux"  # not sys.platform: mypy would check one half only
POLL_SECONDS = 0.01
FAST_STOP_SECONDS = 20.0
HARD_STOP_SECONDS = 10.0
# SIGINT: cut off the clients and write everything; SIGQUIT: leave it to recovery; SIGKILL: leave the pieces.
STOPS = (
    (signal.SIGINT, FAST_STOP_SECONDS),
    (signal.SIGQUIT, HARD_STOP_SECONDS),
    (signal.SIGKILL, HARD_STOP_SECONDS),
)

# Becomes the program. Popen cannot do this: its preexec_fn is unsafe beside threads, and the interpreter has to be
# loaded before the change of user, who may not be able to read it.
_BECOME = """
import ctypes, os, signal, sys
owner, user, *command = sys.argv[1:]
prctl = ctypes.CDLL(None).prctl
if user:
    uid, gid = map(int, user.split(":"))
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
prctl(1, signal.SIGINT)  # PR_SET_PDEATHSIG; a change of user clears it, so it comes after
if os.getppid() != int(owner):
    sys.exit("the owner was gone before the server started")
os.execv(command[0], command)
"""


class Child:
    """A program that runs as the server's user and, on Linux, ends when this process does, even by SIGKILL."""

    def __init__(self, command: Sequence[str], places: Places, output: IO[bytes]) -> None:
        self._let_go = threading.Event()
        started = threading.Event()
        outcome: list[subprocess.Popen[bytes] | OSError] = []

        def keep() -> None:
            # The death signal comes when the *thread* that started the child ends, not its process: so this one
            # lives as long as the child.
            try:
                outcome.append(_popen(command, places, output))
            except OSError as error:
                outcome.append(error)
            started.set()
            self._let_go.wait()

        threading.Thread(target=keep, name="embedded-postgres", daemon=True).start()
        started.wait()
        if isinstance(outcome[0], OSError):
            self._let_go.set()
            raise outcome[0]
        self._process = outcome[0]

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def wait(self) -> int:
        try:
            return self._process.wait()
        finally:
            self._let_go.set()

    def end(self) -> None:
        """Returns when the process is gone."""
        for number, patience in STOPS:
            self._process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(patience)
                break
        self._let_go.set()


def take(places: Places) -> int:
    """Claim the folder for this process until the returned file is closed, or the process dies.

    Raises EmbeddedPostgresInUseError when another process has it.
    """
    # Not inherited by the server: the claim must not outlive the owner.
    lock = os.open(places.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        said = os.read(lock, 20).decode(errors="replace").strip()
        os.close(lock)
        who = f"process {said}" if said.isdigit() else "another process"
        raise EmbeddedPostgresInUseError(
            f"the database in `{places.folder}` is in use by {who}: stop that one, or name another data folder",
            holder=int(said) if said.isdigit() else None,
        ) from error
    os.ftruncate(lock, 0)
    os.write(lock, f"{os.getpid()}\n".encode())
    return lock


def end_predecessor(places: Places) -> None:
    """Leave no server on this data, nor a note of one that would stop ours. Call it with the folder claimed.

    A server whose owner was killed may still be writing its last; and after a crash the process id in its note
    may by now belong to something else, for which PostgreSQL would refuse to start.
    """
    noted = pid_file(places)
    pid = int(noted[0]) if noted and noted[0].isdigit() else None
    if pid is not None:
        for number, patience in STOPS:
            if not _serves(pid, places):
                break
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            end = time.monotonic() + patience
            while _serves(pid, places) and time.monotonic() < end:
                time.sleep(POLL_SECONDS)
        if _serves(pid, places):
            raise EmbeddedPostgresError(
                f"process {pid} still serves the data in `{places.folder}` and cannot be stopped: stop it by hand"
            )
    # The note stays: by it PostgreSQL finds backends that outlived a server. It only must not name a stranger,
    # and its parent's id, ours, is one that PostgreSQL takes for a leftover.
    noted = pid_file(places)
    if noted:
        # The folder is the server's user's, who must not lead root's pen elsewhere by a link.
        note = os.open(places.data / "postmaster.pid", os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW)
        with os.fdopen(note, "w") as file:
            file.write("\n".join([str(os.getpid()), *noted[1:]]) + "\n")
    for leftover in places.sockets.glob(".s.PGSQL.*"):
        leftover.unlink()


def pid_file(places: Places) -> list[str]:
    """The lines of the server's note about itself; none when there is no such file."""
    try:
        return (places.data / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return []


def environment() -> dict[str, str]:
    """Ours without PostgreSQL's own variables, any of which would change the server; messages in English."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return {**kept, "LC_ALL": "C"}


def _popen(command: Sequence[str], places: Places, output: IO[bytes]) -> subprocess.Popen[bytes]:
    account = places.account
    if LINUX:
        user = f"{account.uid}:{account.gid}" if account else ""
        command = [sys.executable, "-I", "-S", "-c", _BECOME, str(os.getpid()), user, *command]
        account = None
    return subprocess.Popen(
        command,
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        cwd="/",
        env=environment(),
        start_new_session=True,  # Ctrl-C is for the service, which stops its database last
    )


def _serves(pid: int, places: Places) -> bool:
    """Whether this process is a PostgreSQL server on this very data, and not one that got its number later."""
    if LINUX:
        try:
            return Path(f"/proc/{pid}/cwd").readlink() == places.data  # a server works in its data folder
        except OSError:
            return False
    shown = subprocess.run(
        ["ps", "-o", "command=", "-p", str(pid)],  # noqa: S607 - wherever the system keeps it
        capture_output=True,
        text=True,
        check=False,
    )
    return str(places.data) in shown.stdout
