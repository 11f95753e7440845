"""Who runs the server and where its files lie, so that even root can start one without opening any folder.

PostgreSQL refuses to run as root, so root hands it to another user; that user must be able to reach the
data, and no folder that was there before is ever made more open for it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import pwd
import re
import shutil
import stat
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from authz_service.embedded.binaries import WHEEL, Binaries
from authz_service.embedded.errors import EmbeddedPostgresError

# A socket's address has 104 bytes on macOS and 108 on Linux; `/.s.PGSQL.5432` and its end need 15.
LONGEST_SOCKET_FOLDER = 85
# What neither a list of folders in a PostgreSQL setting nor a database URL takes for anything else.
PLAIN_PATH = re.compile(r"[A-Za-z0-9_./@+~-]+")


@dataclass(frozen=True, slots=True)
class Account:
    """The user that the server runs as, when it is not the one who starts it."""

    uid: int
    gid: int

    def may_enter(self, folder: Path) -> bool:
        """Whether this user can pass through every folder from the root to here, by their mode bits."""
        return all(self._has(part.stat(), 0o1) for part in (folder, *folder.parents))

    def may_run(self, program: Path) -> bool:
        program = program.resolve()
        return self.may_enter(program.parent) and self._has(program.stat(), 0o5)

    def _has(self, status: os.stat_result, bits: int) -> bool:
        if status.st_uid == self.uid:
            return status.st_mode >> 6 & bits == bits
        if status.st_gid == self.gid:
            return status.st_mode >> 3 & bits == bits
        return status.st_mode & bits == bits


@dataclass(frozen=True, slots=True)
class Places:
    """The files of one embedded server. `data` is PostgreSQL's own folder, all else lies beside it."""

    folder: Path
    sockets: Path
    account: Account | None

    @property
    def data(self) -> Path:
        return self.folder / "postgres"

    @property
    def unfinished(self) -> Path:
        return self.folder / "postgres.new"

    @property
    def password(self) -> Path:
        return self.folder / "password"

    @property
    def lock(self) -> Path:
        return self.folder / "lock"

    @property
    def log(self) -> Path:
        return self.folder / "postgres.log"

    def hand_over(self, path: Path) -> None:
        """Give a file or folder of ours to the user that the server runs as."""
        if self.account is not None:
            os.chown(path, self.account.uid, self.account.gid, follow_symlinks=False)


def settle(wanted: Path, say: Callable[[str], None]) -> Places:
    """The places for the data folder `wanted`; their folders exist afterwards.

    Where the server's user cannot reach `wanted`, its data goes to a private folder in the system's temporary
    one, the same each time, and `say` is told. Raises EmbeddedPostgresError for a folder that cannot be used.
    """
    wanted = wanted.expanduser().resolve()
    account = _account_for(wanted)
    try:
        if wanted.exists() and not wanted.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        folder = wanted if account is None or account.may_enter(_nearest_existing(wanted)) else None
        if folder is None:
            folder = _private(wanted, 0o711, account)
            say(
                f"the database server runs as another user, who cannot reach `{wanted}`: its data is kept in"
                f" `{folder}` instead, and a cleared temporary folder takes it along"
            )
        else:
            _make(folder, 0o700 if account is None else 0o711)
        sockets = folder / "postgres"
        if len(os.fsencode(sockets)) > LONGEST_SOCKET_FOLDER or not PLAIN_PATH.fullmatch(str(sockets)):
            sockets = _private(sockets, 0o700, account)
            if account is not None:
                os.chown(sockets, account.uid, account.gid, follow_symlinks=False)
    except OSError as error:
        raise EmbeddedPostgresError(
            f"the data folder `{wanted}` cannot be used ({error.strerror}): name another one"
        ) from error
    return Places(folder, sockets, account)


def reachable(binaries: Binaries, account: Account | None) -> Binaries:
    """The same programs where the server's user may run them, copied into the temporary folder if need be.

    A checkout below `/root` is closed to everybody else, and its wheel with it.
    """
    program = binaries.folder / "postgres"
    if account is None or account.may_run(program):
        return binaries
    installation = binaries.folder.parent
    # One copy for all data folders. The time tells apart what was installed at the same place later.
    home = _private(program.with_name(str(program.stat().st_mtime_ns)), 0o711, account)
    # Programs of the wheel look for their libraries three folders up, so the copy keeps that shape.
    copy = home / "programs" / WHEEL / installation.name
    if not copy.exists():
        unfinished = Path(tempfile.mkdtemp(dir=home))
        unfinished.chmod(0o711)
        _make(unfinished / WHEEL, 0o711)
        _copy_open(installation, unfinished / WHEEL / installation.name)
        libraries = installation.parent.with_name(f"{WHEEL}.libs")
        if libraries.is_dir():
            _copy_open(libraries, unfinished / libraries.name)
        try:
            unfinished.rename(home / "programs")
        except OSError:  # another process was faster
            shutil.rmtree(unfinished)
    return Binaries(copy / binaries.folder.name, binaries.version)


def _account_for(wanted: Path) -> Account | None:
    """None unless we are root; then whoever owns the data already there, and `nobody` for new data."""
    if os.geteuid() != 0:
        return None
    try:
        status = (wanted / "postgres").stat()
    except OSError:
        pass
    else:
        if status.st_uid != 0:
            return Account(status.st_uid, status.st_gid)
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError as error:
        raise EmbeddedPostgresError(
            "PostgreSQL does not run as root, and there is no user `nobody` to run it: start as another user"
        ) from error
    return Account(entry.pw_uid, entry.pw_gid)


def _nearest_existing(folder: Path) -> Path:
    return next(part for part in (folder, *folder.parents) if part.exists())


def _make(folder: Path, mode: int) -> None:
    """Make a folder and the missing ones above it; those already there keep their mode."""
    for part in reversed([part for part in (folder, *folder.parents) if not part.exists()]):
        part.mkdir(mode)
        part.chmod(mode)  # whatever the umask took away


def _private(path: Path, mode: int, account: Account | None) -> Path:
    """A folder for `path` below the temporary folder: always the same, and surely not somebody else's."""
    name = f"authz-{os.geteuid()}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}"
    owners = {os.geteuid()} | ({account.uid} if account else set())
    for base in (Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")):  # noqa: S108 - checked below
        folder = base / name
        fits = len(os.fsencode(folder)) <= LONGEST_SOCKET_FOLDER and PLAIN_PATH.fullmatch(str(folder))
        if not fits or not base.is_dir() or not (account is None or account.may_enter(base)):
            continue
        if not os.path.lexists(folder):
            _make(folder, mode)
        status = folder.lstat()
        # Anybody may have made it before us, to read our data or to answer in our stead.
        if stat.S_ISDIR(status.st_mode) and status.st_uid in owners and not status.st_mode & 0o022:
            return folder
        raise EmbeddedPostgresError(f"`{folder}` is not ours: remove it, or set TMPDIR to another folder")
    raise EmbeddedPostgresError("no temporary folder has a short, open path: set TMPDIR to one that has")


def _copy_open(source: Path, target: Path) -> None:
    """Copy a tree so that everybody may read it, however closed the umask was that it was installed under."""
    shutil.copytree(source, target, symlinks=True)
    for path in (target, *target.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | (0o055 if mode & 0o100 else 0o044))
