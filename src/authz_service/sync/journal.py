"""The file of what is fetched already, page by page: a sync that was killed goes on where it was."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from authz_service.sync.errors import StateFileError
from authz_service.sync.records import Pages, Record

LONGEST_AGE: Final = 6 * 3600.0
"""In seconds since the sync began: what is older says too little of today."""
_VERSION: Final = 1


class Subject(msgspec.Struct, frozen=True):
    """What a sync is of: pages of another one are not taken."""

    upstream: str
    base: str
    scope: tuple[str, ...]
    source: str


class _Head(msgspec.Struct, frozen=True, tag="head"):
    version: int
    subject: Subject
    began: float


class _Page(msgspec.Struct, frozen=True, tag="page", omit_defaults=True):
    stream: str
    records: list[Record]
    next: str | None = None
    absent: bool = False


class Journal:
    """Pages as they came. Its file is the caller's alone (0600), and one run's at a time."""

    def __init__(self, path: Path, subject: Subject, *, now: float, fresh: bool = False) -> None:
        """Raises StateFileError for a file that is not ours alone, in use, or of another sync.

        `now` is in seconds since 1970. `fresh` drops what is there.
        """
        self.path = path
        self.pages: dict[str, Pages] = {}
        self.resumed = 0
        """How many pages were there already."""
        self._head = _Head(_VERSION, subject, now)
        self._file = self._open()
        self.last_written = os.fstat(self._file).st_mtime
        """When the last page came, in seconds since 1970; of what was there already."""
        try:
            self._begin(0 if fresh else self._load(subject, now))
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)

    def add(
        self, stream: str, records: Sequence[Record], following: str | None, *, absent: bool = False, keep: bool = True
    ) -> None:
        """Keep a page; once this returns, a killed process has it still. Without `keep`, for this run alone."""
        if keep:
            self._write(_Page(stream, list(records), following, absent))
        self._take(stream, records, following, absent=absent)

    def restart(self) -> None:
        """Forget all pages."""
        self.pages.clear()
        self.resumed = 0
        self._begin(0)

    def remove(self) -> None:
        """The sync is done: nothing is left of it."""
        self.path.unlink(missing_ok=True)

    def _begin(self, kept: int) -> None:
        os.ftruncate(self._file, kept)
        os.lseek(self._file, kept, os.SEEK_SET)
        if kept == 0:
            self._write(self._head)

    def _open(self) -> int:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            why = (error.strerror or "no reason given").lower()
            raise StateFileError(f"the state file `{self.path}` cannot be opened: {why}") from error
        try:
            self._claim(file)
        except BaseException:
            os.close(file)
            raise
        return file

    def _claim(self, file: int) -> None:
        found = os.fstat(file)
        # Who could write it could make members; who could read it would know all names.
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise StateFileError(
                f"the state file `{self.path}` is not yours alone; remove it, or name another with `--state`"
            )
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StateFileError(f"another sync uses the state file `{self.path}` now; wait for its end") from error

    def _load(self, subject: Subject, now: float) -> int:
        """How many bytes of the file are whole; 0 to begin anew. The end of a killed run may be half a line."""
        with os.fdopen(os.dup(self._file), "rb") as file:
            first = file.readline()
            try:
                head = msgspec.json.decode(first, type=_Head)
            except msgspec.DecodeError:
                return 0
            if head.subject != subject and first.endswith(b"\n"):
                raise StateFileError(
                    f"the state file `{self.path}` is of another sync; name another with `--state`, or say `--fresh`"
                )
            if head.version != _VERSION or not 0 <= now - head.began < LONGEST_AGE:
                return 0
            whole = len(first)
            decoder = msgspec.json.Decoder(_Page)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                try:
                    page = decoder.decode(line)
                except (msgspec.DecodeError, UnicodeDecodeError):
                    break
                self._take(page.stream, page.records, page.next, absent=page.absent)
                self.resumed += 1
                whole += len(line)
            return whole

    def _take(self, stream: str, records: Sequence[Record], following: str | None, *, absent: bool) -> None:
        pages = self.pages.setdefault(stream, Pages())
        pages.records.extend(records)
        pages.next = following
        pages.done = following is None
        pages.absent = pages.absent or absent

    def _write(self, what: _Head | _Page) -> None:
        line = msgspec.json.encode(what) + b"\n"
        try:
            while line:
                line = line[os.write(self._file, line) :]
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, 0)
            why = (error.strerror or "no reason given").lower()
            raise StateFileError(f"the state file `{self.path}` cannot be written: {why}") from error
