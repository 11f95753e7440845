"""The supervisor: one PostgreSQL server, reachable by one private socket, gone with its owner."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import asyncpg

from authz_service.embedded.binaries import Binaries, find_binaries
from authz_service.embedded.errors import EmbeddedPostgresError
from authz_service.embedded.places import Places, reachable, settle
from authz_service.embedded.process import POLL_SECONDS, Child, end_predecessor, pid_file, take

_log = logging.getLogger(__name__)

SUPERUSER = "authz"
DATABASE = "authz"
PORT = 5432  # part of the socket's name; nothing listens on TCP

# A small server that keeps its promises: what it acknowledges is on disk.
DEFAULT_SETTINGS: Mapping[str, str] = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_logical_replication_workers": "0",
    "log_checkpoints": "off",
    "password_encryption": "scram-sha-256",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class EmbeddedPostgres:
    """A server for the data folder `data`, from `start` to `stop`; also a context manager.

    Its owner is this process: when it dies, however it dies, Linux stops the server in order (elsewhere only an
    exit that runs Python's clean-up does). A process that replaces itself by exec loses its server too.
    `settings` are PostgreSQL's own and win over DEFAULT_SETTINGS. Nothing here is for production.
    """

    def __init__(
        self,
        data: Path,
        *,
        bin_dir: Path | None = None,
        settings: Mapping[str, str] | None = None,
        start_timeout: float = 30.0,
        say: Callable[[str], None] = _log.warning,
    ) -> None:
        self._wanted = data
        self._bin_dir = bin_dir
        self._settings = {**DEFAULT_SETTINGS, **(settings or {})}
        self._start_timeout = start_timeout
        self._say = say
        self._owner = os.getpid()
        self._places: Places | None = None
        self._password = ""
        self._version = ""
        self._lock: int | None = None
        self._child: Child | None = None

    def __repr__(self) -> str:
        return f"<EmbeddedPostgres `{self._wanted}` pid={self.pid}>"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def folder(self) -> Path:
        """Where the files really lie, which is not always the folder asked for (see `places.settle`)."""
        return self._settled().folder

    @property
    def sockets(self) -> Path:
        return self._settled().sockets

    @property
    def version(self) -> str:
        """PostgreSQL's version, as in `18.4`."""
        return self._version

    @property
    def pid(self) -> int | None:
        """The server's process; None when it does not run, or no longer."""
        return self._child.pid if self._child is not None and self._child.runs else None

    @property
    def url(self) -> str:
        """SQLAlchemy's address of the database `authz`. It holds the password: never log it."""
        return self.url_of(DATABASE)

    @property
    def dsn(self) -> str:
        """The same for asyncpg and libpq."""
        return self.dsn_of(DATABASE)

    def url_of(self, database: str) -> str:
        return f"postgresql+asyncpg://{self._address(database)}"

    def dsn_of(self, database: str) -> str:
        return f"postgresql://{self._address(database)}"

    def start(self) -> Self:
        """Blocks until the server answers; the first time it makes the data, which takes some tenths of a second.

        Raises EmbeddedPostgresInUseError, PostgresBinariesMissingError or EmbeddedPostgresError, and then has
        left nothing running.
        """
        if self._lock is not None:
            raise EmbeddedPostgresError("this database server is started already")
        self._places = places = settle(self._wanted, self._say)
        try:
            self._lock = take(places)
            end_predecessor(places)
            binaries = reachable(find_binaries(self._bin_dir, major=_major_of(places)), places.account)
            self._version = binaries.version
            self._password = _password(places)
            if not places.data.exists():
                self._make_data(places, binaries)
            self._child = self._launch(places, binaries)
            self._wait_until_ready(places, self._child)
            self._in_postgres(_make_sure_of_database)
        except OSError as error:
            self._end()
            raise EmbeddedPostgresError(
                f"the database in `{places.folder}` cannot be started ({error}): see to that folder, or name another"
            ) from error
        except BaseException:
            self._end()
            raise
        atexit.register(self.stop)
        return self

    def stop(self) -> None:
        """Ends the server in order and frees the data folder; after 20 s less politely. May be called twice."""
        if os.getpid() != self._owner:
            return  # a fork's copy of this object owns nothing
        atexit.unregister(self.stop)
        self._end()

    def create_database(self, name: str, *, template: str | None = None) -> str:
        """Makes a database and returns its `url_of`. Nobody may be connected to the template meanwhile."""
        statement = f"CREATE DATABASE {_identifier(name)}"
        if template is not None:
            statement += f" TEMPLATE {_identifier(template)}"
        self._in_postgres(lambda connection: connection.execute(statement))
        return self.url_of(name)

    def drop_database(self, name: str) -> None:
        """Removes a database, if it is there, and cuts off whoever still uses it."""
        statement = f"DROP DATABASE IF EXISTS {_identifier(name)} WITH (FORCE)"
        self._in_postgres(lambda connection: connection.execute(statement))

    def _settled(self) -> Places:
        if self._places is None:
            raise EmbeddedPostgresError("this database server was never started")
        return self._places

    def _address(self, database: str) -> str:
        sockets = quote(str(self._settled().sockets))
        return f"{SUPERUSER}:{quote(self._password, safe='')}@/{quote(database)}?host={sockets}&port={PORT}"

    def _in_postgres(self, work: Callable[[asyncpg.Connection[Any]], Awaitable[object]]) -> None:
        """Do administrative work over a connection of its own, whether or not an event loop runs in this thread."""

        async def run() -> None:
            connection = await asyncpg.connect(self.dsn_of("postgres"), timeout=self._start_timeout)
            try:
                await work(connection)
            finally:
                await connection.close()

        with ThreadPoolExecutor(1) as pool:
            try:
                pool.submit(asyncio.run, run()).result()
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                raise EmbeddedPostgresError(f"the embedded database refused: {error}") from error

    def _make_data(self, places: Places, binaries: Binaries) -> None:
        # Into a folder beside it, renamed when done: a start cut short leaves no half-made database.
        shutil.rmtree(places.unfinished, ignore_errors=True)
        places.unfinished.mkdir(0o700)
        places.hand_over(places.unfinished)
        command = [
            *(str(binaries.folder / "initdb"), "--pgdata", str(places.unfinished)),
            *("--username", SUPERUSER, "--pwfile", str(places.password), "--auth", "scram-sha-256"),
            *("--encoding", "UTF8", "--locale", "C", "--data-checksums", "--no-instructions"),
        ]
        if self._settings["fsync"] == "off":
            command.append("--no-sync")
        with tempfile.TemporaryFile() as output:
            if Child(command, places, output).wait() != 0:
                output.seek(0)
                said = output.read().decode(errors="replace").strip()
                raise EmbeddedPostgresError(f"PostgreSQL could not make its data in `{places.data}`: {said}")
        places.unfinished.rename(places.data)

    def _launch(self, places: Places, binaries: Binaries) -> Child:
        settings = {
            **self._settings,
            "listen_addresses": "",
            "port": str(PORT),
            "unix_socket_directories": str(places.sockets),
            "unix_socket_permissions": "0700",
        }
        command = [str(binaries.folder / "postgres"), "-D", str(places.data)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        if places.log.exists():
            places.log.replace(places.log.with_name(places.log.name + ".old"))
        # Closed to others: the server quotes statements in it.
        with os.fdopen(os.open(places.log, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as log:
            return Child(command, places, log)

    def _wait_until_ready(self, places: Places, child: Child) -> None:
        end = time.monotonic() + self._start_timeout
        while True:
            noted = pid_file(places)
            # What pg_ctl waits for too: the eighth line says when the server takes connections.
            if len(noted) >= 8 and noted[0] == str(child.pid) and noted[7].strip() == "ready":
                return
            if not child.runs:
                raise EmbeddedPostgresError(f"the database server ended as it started: {_end_of_log(places)}")
            if time.monotonic() > end:
                raise EmbeddedPostgresError(
                    f"the database server was not ready within {self._start_timeout:g} s: {_end_of_log(places)}"
                )
            time.sleep(POLL_SECONDS)

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.end()
        lock, self._lock = self._lock, None
        if lock is None:
            return  # the folder is another process's, and so is all in it
        if self._places is not None and self._places.sockets != self._places.data:
            with contextlib.suppress(OSError):
                self._places.sockets.rmdir()
        os.close(lock)


async def _make_sure_of_database(connection: asyncpg.Connection[Any]) -> None:
    if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", DATABASE):
        await connection.execute(f"CREATE DATABASE {DATABASE}")


def _major_of(places: Places) -> int | None:
    """The major version that the data was made by; None for a folder without data."""
    if not places.data.exists():
        return None
    try:
        return int((places.data / "PG_VERSION").read_text())
    except (OSError, ValueError) as error:
        raise EmbeddedPostgresError(
            f"`{places.data}` holds something else than a database: name another data folder"
        ) from error


def _password(places: Places) -> str:
    """The superuser's: made with the data, readable by the server's user alone, and never anywhere else."""
    try:
        return places.password.read_text()
    except FileNotFoundError:
        if places.data.exists():
            raise EmbeddedPostgresError(
                f"`{places.password}` is gone, and with it the way in: put it back, or name another data folder"
            ) from None
    password = secrets.token_urlsafe(32)
    unfinished = places.password.with_name("password.new")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(password)
    places.hand_over(unfinished)
    unfinished.rename(places.password)
    return password


def _identifier(name: str) -> str:
    if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", name):
        raise EmbeddedPostgresError(
            f"`{name}` cannot name a database: take up to 63 small letters, digits and underscores"
        )
    return name


def _end_of_log(places: Places) -> str:
    with contextlib.suppress(OSError):
        lines = places.log.read_text(errors="replace").strip().splitlines()
        return " / ".join(lines[-5:]) or "it said nothing"
    return "it left no log"
