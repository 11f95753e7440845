"""One shell for one page: it keeps its variables and folder from block to block, and stops at a command that fails."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path

BLOCK_SECONDS = 240.0
STOP_SECONDS = 60.0


class Shell:
    """bash, as a reader's terminal. Blocks have no standard input; what they print is kept apart from their errors."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self._kept = folder / ".blocks"
        self._kept.mkdir()
        self._count = 0
        self.errors = ""
        self._left_running: list[tuple[int, str]] = []
        self._process = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder,
            env=dict(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def keep(self, text: str, ending: str) -> Path:
        """A file of its own for a block."""
        self._count += 1
        path = self._kept / f"{self._count}{ending}"
        path.write_text(text, encoding="utf-8")
        return path

    def run(self, text: str, *, where: str, exits: int = 0) -> str:
        """What it prints; what it says on standard error is `errors` until the next.

        Fails when a command fails, or where another exit status was promised.
        """
        block = self.keep(text, ".sh")
        out, err = block.with_suffix(".out"), block.with_suffix(".err")
        strict = "set -eu" if exits == 0 else "set +e"
        status = self._ask(f"{strict}; . {block} > {out} 2> {err} < /dev/null; echo $?\n", where)
        self.errors = _read(err)
        said = f"{where}:\n{text}\nprinted:\n{_read(out)}\n{self.errors}"
        assert status is not None, f"a command failed at {said}"
        assert status == exits, f"exit status {status} at {said}"
        return _read(out)

    def leave_running(self, command: str) -> Path:
        """Start what goes on until it is stopped or the page ends; the file that it prints to."""
        script = self.keep(f"exec {command}\n", ".sh")
        output = script.with_suffix(".log")
        output.touch()
        number = self._ask(f"(. {script}) > {output} 2>&1 < /dev/null & echo $!\n", command)
        assert number is not None, f"the shell is gone before `{command}`"
        self._left_running.append((number, command))
        return output

    def lives(self) -> bool:
        """Whether what was left running last still does."""
        return _lives(self._left_running[-1][0])

    def stop(self, program: str) -> None:
        """End what runs of this program."""
        stopped = [number for number, command in self._left_running if command.split()[0] == program]
        for number in stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGTERM)
        end = time.monotonic() + STOP_SECONDS
        while any(_lives(number) for number in stopped) and time.monotonic() < end:
            time.sleep(0.02)

    def variables(self) -> Mapping[str, str]:
        """What is exported at this moment."""
        text = self.run("env -0", where="the environment")
        return dict(one.partition("=")[::2] for one in text.split("\0") if "=" in one)

    def _ask(self, line: str, where: str) -> int | None:
        """The number that the line prints at last; None when the shell has ended instead."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        timer = threading.Timer(BLOCK_SECONDS, self._end_all)
        timer.start()
        try:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.write(line)
                self._process.stdin.flush()
            said = self._process.stdout.readline().strip()
        finally:
            timer.cancel()
        return int(said) if said else None

    def close(self) -> None:
        """End it, and whatever it left running."""
        for program in {command.split()[0] for _, command in self._left_running}:
            self.stop(program)
        self._end_all()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _end_all(self) -> None:
        """The shell and what it started, which is a process group of its own."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)


def _lives(number: int) -> bool:
    try:
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
